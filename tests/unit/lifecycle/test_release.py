"""Release: nothing is forgotten before it is erased, and nothing runs again that was begun to be erased."""

from __future__ import annotations

import pytest
from tests.unit.lifecycle.worlds import (
    CHECKSUM,
    NOW,
    attempt,
    declared,
    heard,
    installed,
    power_off,
    power_on,
    world,
)

from rackwright.api.machine import EraseMode, Erasure, Installed, OperationName, Phase
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.steps import EraseDisks, PowerOff, RecordEvidence, Stage, Wait
from rackwright.lifecycle.world import CommandState

RELEASE = OperationName.RELEASE
HALF_ERASED = installed(came_up=False)


def erased(device: str, *, verified: bool = True) -> Erasure:
    return Erasure(device=device, method="Overwrite" if verified else "Failed", verified=verified, at=NOW)


def test_a_system_that_is_about_to_be_erased_is_recorded_as_one_that_does_not_run() -> None:
    releasing = world(
        Phase.RELEASING,
        declared(owner="search"),
        power_on(agent=heard()),
        owner="search",
        installed=installed("debian-12"),
        operation=attempt(OperationName.RELEASE, Stage.BOOT_RAMDISK),
    )

    decision = decide(releasing)

    assert decision.step == EraseDisks()
    assert decision.announces(releasing.status)
    assert decision.status.installed == Installed(image="debian-12", checksum=CHECKSUM)


def test_a_half_erased_system_is_installed_anew_where_it_is_wanted_again_and_never_booted() -> None:
    spec = declared(owner="search", image="debian-12")
    recommissioned = world(
        Phase.COMMISSIONING,
        spec,
        power_off(evidence=installed()),
        owner="search",
        installed=installed(came_up=False),
        operation=attempt(OperationName.COMMISSION, Stage.SHUT_DOWN),
    )

    decision = decide(recommissioned)

    assert [t.after for t in decision.transitions] == [Phase.ALLOCATED, Phase.DEPLOYING]


def test_a_disk_whose_read_back_shows_data_keeps_the_machine_from_the_pool_and_its_evidence_is_kept() -> None:
    evidence = (erased("/dev/sda"), erased("/dev/sdb", verified=False))
    erasing = world(
        Phase.RELEASING,
        declared(release={"maxAttempts": 1}),
        power_on(agent=heard(command=CommandState.SUCCEEDED, erasure=evidence)),
        owner="search",
        installed=HALF_ERASED,
        operation=attempt(RELEASE, Stage.ERASE_DISKS),
    )

    decision = decide(erasing)

    assert decision.status.phase is Phase.FAILED
    assert decision.status.installed == HALF_ERASED
    assert tuple(decision.status.erasure) == evidence
    assert decision.failure is not None
    assert decision.failure.reason == "EraseNotVerified"


def test_an_erase_that_saw_no_disk_is_no_erase() -> None:
    erasing = world(
        Phase.RELEASING,
        declared(),
        power_on(agent=heard(command=CommandState.SUCCEEDED)),
        owner="search",
        installed=HALF_ERASED,
        operation=attempt(RELEASE, Stage.ERASE_DISKS),
    )

    decision = decide(erasing)

    assert decision.step == Wait(soon=False)
    assert decision.reason == "EraseNotVerified"


def test_the_evidence_of_an_earlier_attempt_makes_room_when_disks_are_erased_again() -> None:
    again = world(
        Phase.RELEASING,
        declared(),
        power_on(agent=heard()),
        owner="search",
        installed=HALF_ERASED,
        erasure=[erased("/dev/sda", verified=False)],
        operation=attempt(RELEASE, Stage.BOOT_RAMDISK, number=2),
    )

    assert decide(again).status.erasure == []


def test_a_release_that_erases_nothing_says_so_in_the_evidence() -> None:
    spec = declared(release={"erase": EraseMode.NONE})
    system = installed()
    off = attempt(RELEASE, Stage.POWER_OFF)

    decision = decide(world(Phase.RELEASING, spec, power_off(), owner="search", installed=system, operation=off))

    assert (decision.step, decision.status.phase) == (RecordEvidence(), Phase.READY)
    assert [(e.device, e.method, e.verified) for e in decision.status.erasure] == [("*", "None", False)]


def test_a_release_that_gives_up_erasing_keeps_the_evidence_of_what_was_erased() -> None:
    found = [erased("/dev/sda"), erased("/dev/sdb", verified=False)]
    off = attempt(RELEASE, Stage.POWER_OFF, number=2)
    spec = declared(release={"erase": EraseMode.NONE})

    decision = decide(
        world(Phase.RELEASING, spec, power_off(), owner="search", installed=HALF_ERASED, erasure=found, operation=off)
    )

    assert [(e.device, e.method) for e in decision.status.erasure] == [
        ("/dev/sda", "Overwrite"),
        ("/dev/sdb", "Failed"),
        ("*", "None"),
    ]


def test_disks_that_were_erased_are_not_called_unerased_because_policy_changed_meanwhile() -> None:
    found = [erased("/dev/sda"), erased("/dev/sdb")]
    off = attempt(RELEASE, Stage.SHUT_DOWN)
    spec = declared(release={"erase": EraseMode.NONE})

    decision = decide(
        world(Phase.RELEASING, spec, power_off(), owner="search", installed=HALF_ERASED, erasure=found, operation=off)
    )

    assert decision.status.phase is Phase.READY
    assert decision.status.erasure == found


def test_a_deployment_withdrawn_before_its_first_write_erases_nothing_and_keeps_its_owner() -> None:
    spec = declared(owner="search")
    booting = attempt(OperationName.DEPLOY, Stage.BOOT_RAMDISK)
    released = decide(world(Phase.DEPLOYING, spec, power_on(agent=heard()), owner="search", operation=booting))

    assert (released.step, released.status.phase) == (PowerOff(), Phase.RELEASING)

    off = attempt(RELEASE, Stage.POWER_OFF)
    decision = decide(world(Phase.RELEASING, spec, power_off(), owner="search", operation=off))

    assert (decision.reason, decision.status.phase) == ("AwaitingDeployment", Phase.ALLOCATED)
    assert decision.status.erasure == []


@pytest.mark.parametrize(
    ("erase", "stage", "system"),
    [("Full", Stage.POWER_OFF, None), ("None", Stage.POWER_OFF, installed()), ("Full", Stage.SHUT_DOWN, HALF_ERASED)],
    ids=["nothing to erase", "nothing erased", "erased"],
)
def test_a_machine_that_is_still_allocated_goes_back_to_its_owner_and_not_through_the_pool(
    erase: str, stage: Stage, system: Installed | None
) -> None:
    spec = declared(owner="search", release={"erase": erase}, recommission="again")
    done = attempt(RELEASE, stage)
    found = [erased("/dev/sda"), erased("/dev/sdb")] if stage is Stage.SHUT_DOWN else []

    decision = decide(
        world(Phase.RELEASING, spec, power_off(), owner="search", installed=system, erasure=found, operation=done)
    )

    assert [t.after for t in decision.transitions] == [Phase.ALLOCATED]


def test_a_release_that_is_told_not_to_erase_while_the_ramdisk_runs_erases_nothing_and_says_so() -> None:
    spec = declared(release={"erase": "None"})
    booted = world(
        Phase.RELEASING,
        spec,
        power_on(agent=heard()),
        owner="search",
        installed=installed(),
        operation=attempt(RELEASE, Stage.BOOT_RAMDISK),
    )

    shutting_down = decide(booted)

    assert shutting_down.step == PowerOff(stage=None)
    off = world(Phase.RELEASING, spec, power_off(), owner="search", installed=installed(), operation=attempt(RELEASE))

    released = decide(off.with_status(shutting_down.status))

    assert released.status.phase is Phase.READY
    assert [t.reason for t in released.transitions] == ["EraseNotWanted"]
    assert [e.method for e in released.status.erasure] == ["None"]


@pytest.mark.parametrize("stage", [Stage.BOOT_RAMDISK, Stage.ERASE_DISKS])
def test_a_release_that_is_told_not_to_erase_after_its_ramdisk_lost_power_boots_no_other(stage: Stage) -> None:
    spec = declared(release={"erase": "None"})
    off = attempt(RELEASE, stage)

    decision = decide(world(Phase.RELEASING, spec, power_off(), owner="search", installed=installed(), operation=off))

    assert decision.status.phase is Phase.READY
    assert [e.method for e in decision.status.erasure] == ["None"]


def test_a_release_that_was_told_not_to_erase_and_then_to_erase_after_all_begins_anew() -> None:
    releasing = world(
        Phase.RELEASING,
        declared(release={"erase": "Full"}),
        power_off(),
        owner="search",
        installed=installed("debian-12"),
        operation=attempt(RELEASE, Stage.SHUT_DOWN),
    )

    decision = decide(releasing)

    assert decision.status.phase is Phase.RELEASING
    assert decision.status.installed is not None
    assert decision.status.operation is not None
    assert decision.status.operation.step == Stage.BOOT_RAMDISK
