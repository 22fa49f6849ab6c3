"""Deploying: what is recorded as installed is what is written, and only what an image was declared for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lifecycle.worlds import CHECKSUM, NOW, attempt, declared, heard, installed, power_off, power_on, world

from rackwright.api.machine import Installed, OperationName, Phase
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.differences import configuration
from rackwright.lifecycle.steps import BootDisk, EraseDisks, Hold, PowerOff, Stage, Wait, WriteImage
from rackwright.lifecycle.world import Blame, CommandState, Fault, Seen, World


@pytest.mark.parametrize("stage", [Stage.BOOT_RAMDISK, Stage.WRITE_IMAGE])
def test_a_machine_that_is_adopted_while_it_is_deployed_is_not_written_to(stage: Stage) -> None:
    deploying = world(
        Phase.DEPLOYING,
        declared(owner="search", existing=True),
        power_on(agent=heard()),
        owner="search",
        operation=attempt(OperationName.DEPLOY, stage),
    )

    decision = decide(deploying)

    assert (decision.step, decision.status.phase) == (PowerOff(), Phase.RELEASING)


def test_another_image_declared_before_the_write_is_recorded_before_it_is_written() -> None:
    announced = world(
        Phase.DEPLOYING,
        declared(owner="search", image="fedora-42"),
        power_on(agent=heard(), image_checksum=CHECKSUM),
        owner="search",
        installed=installed("debian-12", came_up=False),
        operation=attempt(OperationName.DEPLOY, Stage.WRITE_IMAGE),
    )

    decision = decide(announced)

    assert decision.step == WriteImage()
    assert decision.announces(announced.status)
    assert decision.status.installed == Installed(
        image="fedora-42", checksum=CHECKSUM, configuration=configuration(announced.spec, announced.name)
    )


@pytest.mark.parametrize("stage", [Stage.START, Stage.POWER_OFF, Stage.BOOT_RAMDISK, Stage.WRITE_IMAGE])
def test_an_image_that_would_leave_a_system_on_another_disk_is_not_written(stage: Stage) -> None:
    in_ramdisk = stage in (Stage.BOOT_RAMDISK, Stage.WRITE_IMAGE)
    seen = power_on(agent=heard()) if in_ramdisk else power_on()
    reinstalling = world(
        Phase.DEPLOYING,
        declared(owner="search", image="debian-12"),
        replace(seen, root_disk="DATA", left_behind="SYSTEM"),
        owner="search",
        installed=installed(),
        operation=attempt(OperationName.DEPLOY, stage),
    )

    held, goes_on = decide(reinstalling), decide(replace(reinstalling, seen=seen))

    assert (held.step, held.reason) == (Hold(), "SystemOnOtherDisk")
    assert "Choose SYSTEM in place of DATA in spec.storage.rootDeviceHints; or withdraw" in held.message
    assert held.status.installed == reinstalling.status.installed
    assert isinstance(goes_on.step, WriteImage if in_ramdisk else PowerOff)


@pytest.mark.parametrize("command", [CommandState.RUNNING, CommandState.SUCCEEDED])
def test_an_image_that_is_written_stays_where_it_is(command: CommandState) -> None:
    writing = world(
        Phase.DEPLOYING,
        declared(owner="search", image="debian-12"),
        power_on(agent=heard(command=command), root_disk="DATA", left_behind="SYSTEM"),
        owner="search",
        installed=installed(came_up=False),
        operation=attempt(OperationName.DEPLOY, Stage.WRITE_IMAGE),
    )

    assert not isinstance(decide(writing).step, Hold)


def test_it_is_recorded_which_disk_is_written_to_and_that_it_is_erased() -> None:
    deploying = world(
        Phase.DEPLOYING,
        declared(owner="search", image="debian-12"),
        power_on(agent=heard(), image_checksum=CHECKSUM, root_disk="DISK1"),
        owner="search",
        operation=attempt(OperationName.DEPLOY, Stage.BOOT_RAMDISK),
    )
    recorded = decide(deploying).status
    releasing = world(
        Phase.RELEASING,
        declared(),
        power_on(agent=heard()),
        owner="search",
        installed=recorded.installed,
        operation=attempt(OperationName.RELEASE, Stage.BOOT_RAMDISK),
    )

    erasing = decide(releasing)

    assert recorded.installed is not None
    assert recorded.installed.disk == "DISK1"
    assert erasing.step == EraseDisks()
    assert erasing.status.installed is not None
    assert erasing.status.installed.disk == "DISK1"


def test_a_ramdisk_that_still_reports_after_the_write_is_left_once_and_its_silence_is_waited_through() -> None:
    spec = declared(owner="search", image="debian-12")
    written = attempt(OperationName.DEPLOY, Stage.BOOT_DISK)

    def at(seen: Seen) -> World:
        return world(Phase.DEPLOYING, spec, seen, owner="search", installed=installed(came_up=False), operation=written)

    still_there = power_on(agent=heard(command=CommandState.SUCCEEDED))

    assert decide(at(still_there)).step == PowerOff(stage=None)
    assert decide(at(power_off())).step == BootDisk()
    assert decide(at(power_on())).step == Wait()


def test_a_ramdisk_that_cannot_be_left_for_a_silent_bmc_is_not_said_to_be_a_system_that_does_not_call() -> None:
    spec, silent = declared(owner="search", image="debian-12"), Fault(Blame.BMC, "BMCUnreachable", "It is silent.")

    def after(time: timedelta) -> World:
        written = attempt(OperationName.DEPLOY, Stage.BOOT_DISK, since=time)
        seen = Seen(bmc_fault=silent, agent=heard(command=CommandState.SUCCEEDED))
        return world(Phase.DEPLOYING, spec, seen, owner="search", installed=installed(came_up=False), operation=written)

    at_once, late = decide(after(timedelta())), decide(after(timedelta(minutes=30)))

    assert (at_once.step, at_once.reason) == (Wait(), "BMCUnreachable")
    assert late.failure is not None
    assert late.failure.reason == "BMCUnreachable"


@pytest.mark.parametrize("stage", [Stage.BOOT_DISK, Stage.WRITE_IMAGE], ids=["as meant", "by a reset after the write"])
def test_it_is_recorded_which_attempts_system_reported(stage: Stage) -> None:
    started = attempt(OperationName.DEPLOY, stage)
    reported = Installed(hostname="node-07.example", addresses=["10.0.0.107"], at=NOW)
    up = world(
        Phase.DEPLOYING,
        declared(owner="search", image="debian-12"),
        power_on(first_boot=reported),
        owner="search",
        installed=installed(came_up=False),
        operation=started,
    )

    status = decide(up).status

    assert status.phase is Phase.DEPLOYED
    assert status.installed is not None
    assert status.installed.operation == started.id
