"""A machine that nobody declared, on real parts: it introduces itself, switches itself off, and is accepted.

Nothing of it is written in between, and switched on once more while it waits it goes on to its own disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab import installation
from lab.follow import follow
from lab.installation import MACHINES, Installation
from lab.plan import Node
from lab.process import wait_until
from lab.rack import Rack

pytestmark = pytest.mark.rack

BOOT = 900.0
PASSED_ON = "booting the local disk, NotBeingBooted"


@pytest.fixture(scope="module")
def here(rack: Rack) -> Iterator[Installation]:
    """A control plane and an operator beside the rack, to whom machines may introduce themselves."""
    try:
        yield installation.up(rack.name, enlisting=True)
    finally:
        installation.stop(rack.name)


def written(node: Node) -> list[int]:
    """When something was last written to its disks."""
    return [disk.backing.stat().st_mtime_ns for disk in node.disks]


def test_a_machine_that_nobody_declared_introduces_itself_and_is_accepted_by_one_patch(here: Installation) -> None:
    node = here.rack.nodes[0]
    name, before = node.serial.lower(), written(node)
    here.rack.press_power(node)
    assert wait_until(lambda: here.rack.power(node) == "Off", BOOT), here.rack.console(node)[-3000:]

    record = here.machine(name)
    assert record["spec"] == {
        **record["spec"],
        "accepted": False,
        "bootMACAddress": node.mac,
        "architecture": "amd64",
        "bootMode": "UEFI",
    }
    assert "bmc" not in record["spec"], "these machines have no BMC to be seen from inside"
    follow(here, name, until=["New"], seconds=60)
    hardware = here.machine(name)["status"]["hardware"]
    assert (hardware["serial"], hardware["disks"], hardware["macAddresses"]) == (
        node.serial, len(node.disks), [node.mac],
    )  # fmt: skip
    serials = here.kubectl("get", "hwi", name, "-n", MACHINES, "-o", "jsonpath={.report.disks[*].serial}")
    assert set(serials.split()) == {disk.serial for disk in node.disks}
    assert "enlist: read-only: loop0 loop1 nvme0n1 sda" in here.rack.console(node)
    assert written(node) == before, "nothing was written to its disks"

    # While it waits, it is nobody's business what it boots.
    printed = len(here.rack.console(node))
    here.rack.press_power(node)
    assert wait_until(lambda: PASSED_ON in here.rack.console(node)[printed:], BOOT), here.rack.console(node)[-3000:]
    here.rack.hard_off(node)
    assert here.kubectl("get", "bmm", "-n", MACHINES, "-o", "name").split() == [
        f"baremetalmachine.metal.rackwright.io/{name}"
    ]
    assert written(node) == before

    # One patch, and a Secret that it names.
    here.kubectl(
        *("create", "secret", "generic", "bmc", "-n", MACHINES),
        *(f"--from-literal=username={here.rack.username}", f"--from-literal=password={here.rack.password}"),
        f"--from-literal=ca.crt={here.rack.ca}",
    )
    secret = {"name": "bmc"}
    bmc = {"address": node.bmc_address, "credentialsSecretRef": secret, "caSecretRef": secret}
    patch = json.dumps({"spec": {"accepted": True, "bmc": bmc}})
    here.kubectl("patch", "bmm", name, "-n", MACHINES, "--type=merge", "-p", patch)
    follow(here, name, until=["Ready"], seconds=BOOT)
    assert here.rack.power(node) == "Off"
    log = here.operator.log.read_text(errors="replace")
    assert "Traceback" not in log
    assert here.rack.password not in log
