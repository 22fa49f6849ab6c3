"""What goes wrong with a machine, on real parts: what is shown meanwhile, and that it arrives when it is mended.

The faults of `tests/kube/test_operator_faults.py`, which has many more, but with a BMC that lies about a machine which
exists, an agent whose processor stands still, and a system that was really installed. Two machines at once; each boot
serves as many faults as it can, because a boot takes a minute or two here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from tests.kube.operators import condition
from tests.rack import lying_bmc
from tests.rack.lying_bmc import Lie, LyingBMC
from tests.rack.stories import BOOT, ERASE, SOON, WRITE, Scene, blame, outcomes, side_by_side

from lab import controlplane, installation
from lab.installation import MACHINES, Installation
from lab.process import wait_until
from lab.rack import Rack

pytestmark = [pytest.mark.rack, pytest.mark.nightly]

UEFI, BIOS = "node-01", "node-02"
FORMATS = {UEFI: "raw", BIOS: "qcow2"}
IMPATIENT = ("--boot-timeout", "20", "--retry-base", "10", "--grace", "3", "--bmc-settle", "8")
"""For boots that can't arrive: a fault is told soon. None of them is to arrive, so none is cut short."""
PATIENT = ("--boot-timeout", "600", "--agent-silence", "75", "--retry-base", "5", "--grace", "20")
"""For boots that are to arrive, however busy this host is."""
FIRST_BOOT_TIMEOUT = "6m"
"""For the ramdisk's boot and the write as well, which take half of it."""


@pytest.fixture(scope="module")
def scene(rack: Rack) -> Iterator[Scene]:
    """A control plane and an impatient operator beside the rack."""
    try:
        here = Installation(controlplane.up(rack.name), rack)
        here.install()
        here.start_operator(arguments=IMPATIENT)
        with Scene.of(here, PATIENT) as scene:
            yield scene
    finally:
        installation.stop(rack.name)


@pytest.fixture(scope="module")
def bmcs(rack: Rack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, LyingBMC]]:
    """What the operator takes for the machines' BMCs."""
    with lying_bmc.before(rack, tmp_path_factory.mktemp("bmcs")) as them:
        yield them


# --- a boot that comes to nothing ---------------------------------------------------------------------------------


def test_a_boot_that_comes_to_nothing_is_told_and_tried_again_until_it_is_mended(
    scene: Scene, bmcs: Mapping[str, LyingBMC]
) -> None:
    bmcs[UEFI].lie, bmcs[BIOS].lie = Lie.STAYS_DARK, Lie.FORGETS_BOOT
    for node, image in FORMATS.items():
        scene.machine(node, image).declare(bmc_address=bmcs[node].address, ca=bmcs[node].ca)
    side_by_side(
        lambda: is_dark_and_then_hangs(scene, bmcs[UEFI]),
        lambda: boots_its_disk_and_is_said_to_be_on(scene, bmcs[BIOS]),
    )
    scene.here.operator.stop()
    scene.here.start_operator(arguments=PATIENT)
    for node in FORMATS:
        machine = scene.machine(node)
        status = machine.reaches("Ready", BOOT)
        assert outcomes(status) == [("Commission", "Succeeded", 3)]
        assert "lastFailure" not in status
        assert condition(status, "BMCReachable")["status"] == "True"
        assert status["hardware"]["disks"] == len(machine.node.disks)
        assert (status["power"], machine.power) == ("Off", "Off")


def is_dark_and_then_hangs(scene: Scene, bmc: LyingBMC) -> None:
    machine = scene.machine(UEFI)
    status = machine.retries(attempt=1)
    assert blame(status) == ("Agent", "AgentMissing")
    assert "Look at its console" in condition(status, "Ready")["message"]
    assert machine.power == "Off", "its BMC says otherwise"
    assert "hardware" not in status
    bmc.lie = None

    assert wait_until(lambda: machine.power == "On", SOON)
    machine.rack.freeze(UEFI)
    status = machine.retries(attempt=2)
    assert blame(status) == ("Agent", "AgentMissing")
    assert (status["power"], machine.power) == ("On", "On")
    # It stays frozen: the next attempt cuts its power.


def boots_its_disk_and_is_said_to_be_on(scene: Scene, bmc: LyingBMC) -> None:
    machine = scene.machine(BIOS)
    assert wait_until(lambda: "No bootable device" in scene.here.rack.console(BIOS), SOON), scene.here.rack.console(
        BIOS
    )
    status = machine.retries(attempt=1)
    assert blame(status) == ("Agent", "AgentMissing")
    assert "does it boot from the network card" in condition(status, "Ready")["message"]
    assert (status["power"], machine.power) == ("On", "On")

    bmc.lie = Lie.ALWAYS_ON
    status = machine.retries(attempt=2)
    assert blame(status) == ("BMC", "BMCProtocolError")
    assert "it reports the power as On" in condition(status, "Ready")["message"]
    assert machine.power == "Off", "its BMC says otherwise"
    bmc.lie = None


# --- an installation that is interrupted; a system that hangs ------------------------------------------------------


@pytest.mark.usefixtures("bmcs")
def test_a_machine_that_hangs_is_written_again_or_quarantined_and_erased(scene: Scene) -> None:
    side_by_side(lambda: is_written_again_after_its_agent_hung(scene), lambda: never_phones_home(scene))


def is_written_again_after_its_agent_hung(scene: Scene) -> None:
    machine = scene.machine(UEFI)
    blank = machine.bytes_written()
    machine.deploy()
    machine.at_step("WriteImage", of="Deploy")
    machine.is_being_written(blank)
    machine.rack.freeze(UEFI)
    assert machine.status["operation"]["step"] == "WriteImage", "it was frozen in the middle"
    status = machine.retries(attempt=1, seconds=BOOT)
    assert blame(status) == ("Agent", "AgentLost")
    assert status["lastFailure"]["step"] == "WriteImage"
    assert "at" not in status["installed"]
    status = machine.reaches("Deployed", WRITE)
    assert outcomes(status)[0] == ("Deploy", "Succeeded", 2)
    assert "lastFailure" not in status
    assert scene.log.count(f"machine={MACHINES}/{UEFI} step=WriteImage") == 2
    assert machine.ssh("hostname") == UEFI


def never_phones_home(scene: Scene) -> None:
    machine = scene.machine(BIOS, FORMATS[BIOS])
    machine.deploy(timeout=FIRST_BOOT_TIMEOUT, maxAttempts=1)
    machine.because("AwaitingFirstBoot", BOOT)
    machine.rack.freeze(BIOS)
    status = machine.fails(BOOT)
    assert blame(status) == ("OperatingSystem", "FirstBootMissing")
    assert outcomes(status)[0] == ("Deploy", "Failed", 1)
    assert "does cloud-init run" in status["lastFailure"]["message"]
    machine.is_off()

    # Quarantined: that its owner goes on wanting it, in whatever way, changes nothing.
    machine.change(deployment={"maxAttempts": 5, "timeout": "1h"}, power="On")
    status = machine.fails(SOON)
    assert condition(status, "Stalled")["status"] == "True"
    assert machine.power == "Off"

    # What is on its disks is erased before it is anybody's again.
    machine.release(power=None)
    machine.until(lambda s: s["phase"] == "Releasing", SOON, fails=True)
    machine.assert_erased(machine.reaches("Ready", ERASE))


def test_no_secret_was_shown_and_nothing_broke(scene: Scene) -> None:
    scene.assert_discreet()
