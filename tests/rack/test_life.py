"""Whole lives on real parts, three side by side: through every phase, by Redfish and by IPMI, with the operator killed.

node-01 (UEFI over TFTP, Redfish) fails, is recommissioned, deployed, marked broken and back, and released; node-02
(BIOS, Redfish) is deployed, rescued, let go by force, adopted as a live machine, and released; node-03 (UEFI, IPMI)
enlists itself and is accepted, deployed and released. Each boots six times, so that none is waited for. The operator is
killed without warning while one of them boots the ramdisk, while an image is written, while a rescue is opened and
ended, and while disks are erased; they arrive all the same, and no image is written twice. What is left on disks is
read from outside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from tests.kube.operators import condition
from tests.laboratories import own
from tests.rack.stories import BOOT, ERASE, GROUP, SOON, WRITE, Machine, Scene, blame, outcomes

from lab import installation
from lab.installation import ENLISTING, MACHINES
from lab.plan import NodeKind
from lab.process import wait_until
from lab.samples import DEPLOYED

pytestmark = pytest.mark.rack

NAME = "life"
MENDED, ADOPTED, INTRODUCED = "node-01", "node-02", "node-03"
NODES = [
    NodeKind.parse(f"{MENDED}:UEFI"),
    NodeKind.parse(f"{ADOPTED}:Legacy"),
    NodeKind.parse(f"{INTRODUCED}:UEFI:ipmi"),
]
MARKER = "rackwright-was-here-5f3e1c"
MARK = f"echo {MARKER} | sudo tee /marker && sudo sync"
PASSED_ON = "booting the local disk, NotBeingBooted"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """A rack of its own, and an operator to whom machines may introduce themselves."""
    with own(NAME) as name, Scene.of(installation.up(name, nodes=NODES, enlisting=True), ENLISTING) as scene:
        yield scene


@pytest.fixture(scope="module")
def told(scene: Scene) -> Iterator[Mapping[str, Future[None]]]:
    """The lives, being led."""
    lives = {
        MENDED: lambda: is_mended(scene.machine(MENDED)),
        ADOPTED: lambda: is_adopted(scene.machine(ADOPTED, "qcow2")),
        INTRODUCED: lambda: is_introduced(
            scene.machine(INTRODUCED, name=scene.here.rack.node(INTRODUCED).serial.lower())
        ),
    }
    with ThreadPoolExecutor(len(lives)) as pool:
        yield {name: pool.submit(life) for name, life in lives.items()}


def test_a_failed_machine_is_recommissioned_deployed_broken_mended_and_released(
    scene: Scene, told: Mapping[str, Future[None]]
) -> None:
    with scene.explained():
        told[MENDED].result()


def test_a_machine_is_rescued_let_go_by_force_adopted_live_inspected_and_erased(
    scene: Scene, told: Mapping[str, Future[None]]
) -> None:
    with scene.explained():
        told[ADOPTED].result()


def test_a_machine_introduces_itself_is_accepted_deployed_and_released_over_ipmi(
    scene: Scene, told: Mapping[str, Future[None]]
) -> None:
    with scene.explained():
        told[INTRODUCED].result()


@pytest.mark.usefixtures("told")
def test_no_secret_was_shown_and_nothing_broke(scene: Scene) -> None:
    scene.assert_discreet()


# --- a machine that fails, and one that breaks -----------------------------------------------------------------------


def is_mended(machine: Machine) -> None:
    fails_for_its_password(machine)
    is_recommissioned_though_the_operator_is_killed(machine)
    is_reserved_and_written_once_though_the_operator_is_killed(machine)
    machine.ssh(MARK)
    assert machine.disks_hold(MARKER)
    is_broken_and_comes_back(machine)
    is_erased_though_the_operator_is_killed(machine)


def fails_for_its_password(machine: Machine) -> None:
    machine.declare(spec={"commissioning": {"maxAttempts": 1}}, password="not-the-password")
    status = machine.fails(SOON)
    assert blame(status) == ("BMC", "BMCCredentialsRejected")
    assert outcomes(status) == [("Commission", "Failed", 1)]
    assert condition(status, "Stalled")["status"] == "True"
    assert "not-the-password" not in json.dumps(status)
    assert machine.power == "Off"
    assert machine.rack.console(machine.node) == "", "it never ran"


def is_recommissioned_though_the_operator_is_killed(machine: Machine) -> None:
    machine.declare()
    machine.change(commissioning={"trigger": "password corrected"})
    machine.at_step("BootRamdisk", of="Commission")
    machine.scene.kill_operator()
    status = machine.reaches("Ready", BOOT)
    assert outcomes(status) == [("Commission", "Succeeded", 1), ("Commission", "Failed", 1)]
    assert "lastFailure" not in status
    assert (status["power"], machine.power) == ("Off", "Off")
    assert status["hardware"]["disks"] == len(machine.node.disks)
    assert machine.node.disks[0].serial in serials_in_inventory(machine)


def is_reserved_and_written_once_though_the_operator_is_killed(machine: Machine) -> None:
    blank = machine.bytes_written()
    machine.change(allocation={"owner": "team-search"})
    machine.reaches("Allocated", SOON)
    assert machine.power == "Off", "nothing changes on the wire"
    machine.declare(DEPLOYED)
    machine.is_being_written(blank)
    machine.scene.kill_operator()
    is_installed(machine)
    assert "installed by Rackwright" in machine.ssh("cat /etc/motd")
    written = re.findall(rf"machine=machines/{machine.name} step=WriteImage", machine.scene.log)
    assert len(written) == 1, "a finished or running write was started again"


def is_installed(machine: Machine) -> None:
    """Wait until it is Deployed, and look at it from inside."""
    status = machine.reaches("Deployed", WRITE)
    assert outcomes(status)[0] == ("Deploy", "Succeeded", 1)
    assert status["installed"]["hostname"] == machine.name
    assert any(key.startswith("ssh-ed25519 ") for key in status["installed"]["sshHostKeys"])
    assert machine.ssh("hostname") == machine.name
    assert "done" in machine.ssh("cloud-init status --wait")


def is_broken_and_comes_back(machine: Machine) -> None:
    before = machine.ssh(BOOT_ID)
    machine.change(broken={"reason": "DIMM A3"})
    status = machine.reaches("Broken", SOON)
    assert machine.reason == "MarkedBroken"
    assert (status["owner"], status["installed"]["image"]) == ("team-search", "debian-12")
    assert machine.ssh(BOOT_ID) == before, "it is left as it is"
    kills = machine.scene.kills
    machine.change(broken=None)
    machine.until(lambda s: s.get("phase") == "Commissioning", SOON)
    status = machine.reaches("Deployed", BOOT)
    name, outcome, attempts = outcomes(status)[0]
    assert (name, outcome) == ("Commission", "Succeeded")
    assert attempts <= 1 + machine.scene.kills - kills, "nobody killed the operator, and it took another attempt"
    machine.answers()
    assert machine.ssh("cat /marker") == MARKER
    assert machine.ssh(BOOT_ID) != before, "it was checked in the ramdisk"


def is_erased_though_the_operator_is_killed(machine: Machine) -> None:
    machine.release()
    machine.at_step("EraseDisks", of="Release")
    machine.scene.kill_operator()
    machine.assert_erased(machine.reaches("Ready", ERASE), MARKER)


# --- a machine that runs before anybody declares it ------------------------------------------------------------------


def is_adopted(machine: Machine) -> None:
    machine.declare()
    machine.reaches("Ready", BOOT)
    machine.deploy()
    is_installed(machine)
    machine.ssh(MARK)
    is_rescued_though_the_operator_is_killed(machine)
    comes_back_from_rescue_though_the_operator_is_killed(machine)
    lived = [(name, "Succeeded", 1) for name in ("EndRescue", "Rescue", "Deploy", "Commission")]
    assert outcomes(machine.status) == lived
    running, address = machine.ssh(BOOT_ID), machine.status["installed"]["addresses"][0]

    is_let_go_by_force(machine)
    machine = machine.scene.machine(ADOPTED, "qcow2")
    declare_live(machine)
    status = machine.reaches("Deployed", SOON)
    assert (machine.reason, status["history"]) == ("Running", [])
    assert "hardware" not in status
    assert machine.power == "On"
    assert machine.ssh_at(address, BOOT_ID) == running, "it was neither stopped nor started"

    secret = {"name": f"{ADOPTED}-bmc"}
    bmc = {"address": machine.node.bmc_address, "credentialsSecretRef": secret, "caSecretRef": secret}
    machine.release(bmc=bmc)
    status = machine.reaches("Ready", ERASE)
    assert status["hardware"]["serial"] == machine.node.serial, "it was inspected"
    assert set(serials_in_inventory(machine)) == {disk.serial for disk in machine.node.disks}
    machine.assert_erased(status, MARKER)


def is_rescued_though_the_operator_is_killed(machine: Machine) -> None:
    machine.change(rescue={"sshAuthorizedKeys": [machine.key]})
    machine.at_step("OpenRescue", of="Rescue")
    machine.scene.kill_operator()
    status = machine.until(lambda s: "rescue" in s and "operation" not in s, BOOT)
    assert (status["phase"], machine.reason) == ("Rescue", "RescueOpen")
    assert status["rescue"]["user"] == "rescue"
    look = "sudo mount -o ro /dev/disk/by-label/rackwright-root /mnt && cat /mnt/marker"
    assert machine.rescue_ssh(look).stdout.strip() == MARKER
    restarted = machine.rescue_ssh("sudo reboot")
    assert restarted.returncode != 0
    assert "Access denied" in restarted.stderr, "or it would leave the rescue, and nobody would know"
    assert machine.rescue_ssh("true").returncode == 0
    password = ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive")
    refused = machine.rescue_ssh("true", *password)
    assert refused.returncode != 0
    assert "Permission denied (publickey)" in refused.stderr, "it offers nothing but keys"


def comes_back_from_rescue_though_the_operator_is_killed(machine: Machine) -> None:
    machine.change(rescue=None)
    machine.until(lambda s: s.get("operation", {}).get("name") == "EndRescue" and s["operation"]["step"] != "", SOON)
    machine.scene.kill_operator()
    status = machine.reaches("Deployed", BOOT)
    assert not {"rescue", "rescuedFrom"} & set(status)
    assert (status["power"], machine.power) == ("On", "On")
    machine.answers()
    assert machine.ssh("cat /marker") == MARKER


def is_let_go_by_force(machine: Machine) -> None:
    uid = machine.record["metadata"]["uid"]
    machine.here.kubectl("annotate", "bmm", machine.name, "-n", MACHINES, f"{GROUP}/force-delete=true")
    machine.here.kubectl("delete", "bmm", machine.name, "-n", MACHINES, "--wait=false")
    machine.scene.records.until_deleted(uid, SOON)
    told = machine.here.kubectl("get", "events.events.k8s.io", "-n", MACHINES, "-o", "jsonpath={.items[*].note}")
    assert "what is on its disks stays there" in told, told


def declare_live(machine: Machine) -> None:
    """As a person declares a machine that runs, without a BMC."""
    spec = {
        "bootMACAddress": machine.node.mac,
        "bootMode": machine.node.firmware.value,
        "bmc": {"address": "manual://"},
        "allocation": {"owner": "team-search"},
        "deployment": {"existing": True},
    }
    record = {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "BareMetalMachine",
        "metadata": {"name": machine.name, "namespace": MACHINES},
        "spec": spec,
    }
    machine.declared_anew()
    machine.here.kubectl("create", "-f", "-", stdin=json.dumps(record))


# --- a machine that nobody declared ----------------------------------------------------------------------------------


def is_introduced(machine: Machine) -> None:
    enlists_itself(machine)
    goes_on_to_its_own_disk_while_it_waits(machine)
    is_accepted(machine)
    machine.deploy(hostname=machine.name)
    is_installed(machine)
    machine.ssh(MARK)
    machine.release()
    status = machine.reaches("Ready", ERASE)
    machine.assert_erased(status, MARKER)
    assert outcomes(status) == [(name, "Succeeded", 1) for name in ("Release", "Deploy", "Commission")]


def enlists_itself(machine: Machine) -> None:
    untouched = machine.touched()
    machine.rack.press_power(machine.node)
    machine.reaches("New", BOOT)
    machine.is_off()
    spec = machine.record["spec"]
    assert {key: spec[key] for key in ("accepted", "bootMACAddress", "architecture", "bootMode")} == {
        "accepted": False,
        "bootMACAddress": machine.node.mac,
        "architecture": "amd64",
        "bootMode": "UEFI",
    }
    assert spec["bmc"] == {"address": machine.node.bmc_address, "insecureSkipTLSVerify": False}, "seen in-band"
    hardware = machine.status["hardware"]
    assert (hardware["serial"], hardware["disks"], hardware["macAddresses"]) == (
        machine.node.serial, len(machine.node.disks), [machine.node.mac],
    )  # fmt: skip
    assert set(serials_in_inventory(machine)) == {disk.serial for disk in machine.node.disks}
    assert "enlist: read-only: loop0 loop1 sda" in machine.rack.console(machine.node)
    assert machine.touched() == untouched, "nothing was written to its disks"


def goes_on_to_its_own_disk_while_it_waits(machine: Machine) -> None:
    untouched, printed = machine.touched(), len(machine.rack.console(machine.node))
    machine.rack.press_power(machine.node)

    def passed_on() -> bool:
        return PASSED_ON in machine.rack.console(machine.node)[printed:]

    assert wait_until(passed_on, BOOT), machine.rack.console(machine.node)[-3000:]
    machine.rack.hard_off(machine.node)
    names = machine.here.kubectl("get", "bmm", "-n", MACHINES, "-o", "jsonpath={.items[*].spec.bootMACAddress}")
    assert names.split().count(machine.node.mac) == 1
    assert machine.touched() == untouched


def is_accepted(machine: Machine) -> None:
    account = {"username": machine.rack.username, "password": machine.rack.password}
    machine.here.kubectl(
        *("create", "secret", "generic", "bmc", "-n", MACHINES),
        *(f"--from-literal={key}={value}" for key, value in account.items()),
    )
    machine.change(accepted=True, bmc={"credentialsSecretRef": {"name": "bmc"}})
    status = machine.reaches("Ready", BOOT)
    assert outcomes(status) == [("Commission", "Succeeded", 1)]
    assert (status["power"], machine.power) == ("Off", "Off")


def serials_in_inventory(machine: Machine) -> list[Any]:
    """Those of its disks."""
    told = machine.here.kubectl("get", "hwi", machine.name, "-n", MACHINES, "-o", "jsonpath={.report.disks[*].serial}")
    return told.split()
