"""A machine's whole life on real parts: commissioned, deployed, logged in to, released, its disks read from outside.

Two machines at once, one per firmware and image format, because a boot takes a minute or two here. The operator is
killed without warning while one of them boots the ramdisk, while images are written and while disks are erased; the
machines arrive all the same, and no finished image is written a second time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab import installation
from lab.follow import follow, ssh
from lab.installation import MACHINES, Installation
from lab.process import wait_until
from lab.rack import Rack
from lab.samples import ALLOCATED, DECLARED, DEPLOYED

pytestmark = pytest.mark.rack

FORMATS = {"node-01": "raw", "node-02": "qcow2"}
"""node-01 boots by UEFI and fetches iPXE over TFTP, node-02 by BIOS."""
MARKER = "rackwright-was-here-5f3e1c"
BOOT, WRITE, ERASE = 900.0, 1500.0, 1500.0


@pytest.fixture(scope="module")
def here(rack: Rack) -> Iterator[Installation]:
    """A control plane and an operator beside the rack; the machines are off afterwards, whatever became of them."""
    try:
        yield installation.up(rack.name)
    finally:
        installation.stop(rack.name)
        for node in rack.nodes:
            rack.hard_off(node)


def everywhere(task: Any) -> None:
    """Do it for both machines at once."""
    with ThreadPoolExecutor(len(FORMATS)) as pool:
        for done in [pool.submit(task, node) for node in FORMATS]:
            done.result()


def kill_operator(here: Installation) -> None:
    """SIGKILL, then start it again."""
    here.operator.kill()
    assert wait_until(lambda: here.operator.pid is None, 10)
    here.start_operator()


def step_of(here: Installation, node: str) -> str:
    """What the machine's operation is doing."""
    return str(here.machine(node).get("status", {}).get("operation", {}).get("step", ""))


def log_of(here: Installation) -> str:
    return here.operator.log.read_text()


def written_to(here: Installation, node: str) -> int:
    """Bytes that the file behind its first disk takes on the host."""
    return here.rack.node(node).disks[0].backing.stat().st_blocks * 512


def being_written(here: Installation, blank: Mapping[str, int]) -> set[str]:
    """The machines on whose first disk there is more than a partition table by now."""
    return {node for node, before in blank.items() if written_to(here, node) > before + 2**26}


def holds(backing: Path, text: str) -> bool:
    """Whether the file behind a disk holds this text."""
    wanted, kept = text.encode(), b""
    with backing.open("rb") as disk:
        while chunk := disk.read(1 << 24):
            if wanted in kept + chunk:
                return True
            kept = chunk[-len(wanted) :]
    return False


def test_a_machine_is_commissioned_deployed_and_released_though_the_operator_is_killed(here: Installation) -> None:
    # Commissioning, with a kill while the ramdisk boots.
    for node, image in FORMATS.items():
        here.apply_sample(DECLARED, node, image)
    assert wait_until(lambda: all(step_of(here, node) == "BootRamdisk" for node in FORMATS), 60)
    kill_operator(here)
    everywhere(lambda node: follow(here, node, until=["Ready"], seconds=BOOT))
    for node in FORMATS:
        status = here.machine(node)["status"]
        assert status["power"] == "Off"
        assert status["hardware"]["disks"] == len(here.rack.node(node).disks)
        assert [entry["outcome"] for entry in status["history"]] == ["Succeeded"]
        assert status["history"][0]["attempts"] == 1
        inventory = here.kubectl("get", "hwi", node, "-n", MACHINES, "-o", "jsonpath={.report.disks[*].serial}")
        assert here.rack.node(node).disks[0].serial in inventory

    # Allocated: nothing changes on the wire.
    for node, image in FORMATS.items():
        here.apply_sample(ALLOCATED, node, image)
        follow(here, node, until=["Allocated"], seconds=60)
        assert here.rack.power(node) == "Off"

    # Deploying, with a kill while the images are written.
    for node, image in FORMATS.items():
        here.apply_sample(DEPLOYED, node, image)
    blank = {node: written_to(here, node) for node in FORMATS}
    assert wait_until(lambda: bool(being_written(here, blank)), BOOT)
    writing = being_written(here, blank)
    kill_operator(here)
    everywhere(lambda node: follow(here, node, until=["Deployed"], seconds=WRITE))
    for node in FORMATS:
        installed = here.machine(node)["status"]["installed"]
        assert installed["hostname"] == node
        assert any(key.startswith("ssh-ed25519 ") for key in installed["sshHostKeys"])
        assert here.machine(node)["status"]["history"][0]["attempts"] == 1
        assert ssh(here, node, "hostname") == node
        assert "done" in ssh(here, node, "cloud-init status --wait")
        assert "installed by Rackwright" in ssh(here, node, "cat /etc/motd")
        ssh(here, node, f"echo {MARKER} | sudo tee /marker && sudo sync")
        assert holds(here.rack.node(node).disks[0].backing, MARKER)
        written = re.findall(rf"machine=machines/{node} step=WriteImage", log_of(here))
        assert len(written) == 1 or node not in writing, "a finished or running write was started again"

    # Releasing, with a kill while the disks are erased.
    for node, image in FORMATS.items():
        here.apply_sample(DECLARED, node, image)
    assert wait_until(lambda: any(step_of(here, node) == "EraseDisks" for node in FORMATS), BOOT)
    kill_operator(here)
    everywhere(lambda node: follow(here, node, until=["Ready"], seconds=ERASE))
    for node in FORMATS:
        machine, status = here.rack.node(node), here.machine(node)["status"]
        assert "installed" not in status
        assert "owner" not in status
        assert {e["serial"] for e in status["erasure"]} == {disk.serial for disk in machine.disks}
        assert all(e["verified"] for e in status["erasure"])
        for disk in machine.disks:
            assert not holds(disk.backing, MARKER)
        assert status["power"] == "Off"

    log = log_of(here)
    assert "Traceback" not in log
    assert "internal error" not in log
    assert here.rack.password not in log
