"""Waiting for a turn to install: shown, without cost to the attempt, before anything is done to the machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lifecycle.worlds import attempt, declared, power_off, power_on, world

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.steps import BootRamdisk, PowerOff, Stage, Wait
from rackwright.lifecycle.world import Blame, Fault, Place, Seen, World

WANTED = declared(owner="search", image="debian-12")
DEPLOY = OperationName.DEPLOY
FAR_BACK = Place(37, 212)
HOURS = timedelta(hours=1)
SILENT = Fault(Blame.BMC, "BMCUnreachable", "The BMC does not answer.")


def waiting(seen: Seen, place: Place | None = FAR_BACK) -> World:
    """A machine that begins to install, as it was recorded where others come before it."""
    begins = world(Phase.ALLOCATED, WANTED, replace(seen, queued=place), owner="search")
    return begins.with_status(decide(begins).status)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (Place(1, 1), "1st of 1"),
        (Place(2, 9), "2nd of 9"),
        (Place(3, 9), "3rd of 9"),
        (Place(11, 111), "11th of 111"),
        (Place(37, 212), "37th of 212"),
        (Place(112, 212), "112th of 212"),
        (Place(121, 212), "121st of 212"),
    ],
)
def test_who_waits_says_at_which_place(place: Place, said: str) -> None:
    decision = decide(waiting(power_off(), place))

    assert (decision.step, decision.reason) == (Wait(soon=False), "AwaitingInstallSlot")
    assert decision.status.operation is not None
    assert decision.status.operation.message.startswith(f"Waiting: {said} for an install slot.")


def test_the_operation_is_recorded_when_it_begins_to_wait_and_keeps_its_place_by_that() -> None:
    begun = waiting(power_off()).status.operation

    assert begun is not None
    assert (begun.name, begun.step, begun.attempt) == (DEPLOY, Stage.START, 1)


def test_a_place_alone_is_progress() -> None:
    before = waiting(power_off())
    moved = replace(before, seen=replace(before.seen, queued=Place(36, 212)))

    assert decide(moved).status != before.status
    assert decide(moved).is_progress(before.status)


@pytest.mark.parametrize("seen", [power_off(), power_on(), Seen(bmc_fault=SILENT)])
def test_nothing_is_done_and_nothing_fails_before_its_turn_however_late(seen: Seen) -> None:
    late = waiting(power_off())
    late = replace(late, now=late.now + 30 * HOURS, seen=replace(seen, queued=Place(1, 3)))

    assert decide(late).reason == "AwaitingInstallSlot"


@pytest.mark.parametrize(("seen", "step"), [(power_off(), BootRamdisk()), (power_on(), PowerOff())])
def test_a_first_attempts_time_and_its_operations_begin_with_its_turn(seen: Seen, step: object) -> None:
    before = waiting(power_off())
    turn = replace(before, now=before.now + 30 * HOURS, seen=seen)

    decision = decide(turn)

    assert decision.step == step
    assert decision.status.operation is not None
    assert decision.status.operation.deadline == turn.now + WANTED.deployment.timeout  # type: ignore[union-attr]
    assert decision.status.operation.began_at == decision.status.operation.started_at == turn.now
    assert decision.status.phase_since == before.status.phase_since


def test_a_retry_that_waited_for_its_turn_changes_nothing_of_when_the_operation_began() -> None:
    retry = attempt(DEPLOY, Stage.START, number=2, since=HOURS, retry_in=timedelta(seconds=-1))
    due = world(Phase.DEPLOYING, WANTED, power_off(queued=Place(1, 2)), owner="search", operation=retry)
    waits = due.with_status(decide(due).status)

    begun = decide(replace(waits, now=waits.now + HOURS, seen=power_off())).status.operation

    assert begun is not None
    assert (begun.began_at, begun.started_at) == (retry.began_at, waits.now + HOURS)


def test_a_retry_waits_for_its_turn_again() -> None:
    retry = attempt(DEPLOY, Stage.START, number=2, retry_in=timedelta(seconds=-1))
    due = world(Phase.DEPLOYING, WANTED, power_on(queued=Place(1, 2)), owner="search", operation=retry)

    assert decide(due).reason == "AwaitingInstallSlot"


@pytest.mark.parametrize("stage", [Stage.POWER_OFF, Stage.BOOT_RAMDISK, Stage.WRITE_IMAGE, Stage.BOOT_DISK])
def test_who_has_begun_never_waits_for_a_turn(stage: Stage) -> None:
    begun = world(
        Phase.DEPLOYING, WANTED, power_off(queued=Place(1, 2)), owner="search", operation=attempt(DEPLOY, stage)
    )

    assert decide(begun).reason != "AwaitingInstallSlot"


def test_a_deployment_that_is_withdrawn_is_not_waited_for() -> None:
    before = waiting(power_off())
    withdrawn = replace(before, spec=declared(owner="search"))

    assert decide(withdrawn).status.phase is Phase.ALLOCATED


def test_a_missing_secret_is_told_before_its_turn() -> None:
    missing = Fault(Blame.CONFIGURATION, "SecretMissing", "The Secret node-07-bmc does not exist.")
    before = waiting(power_off())

    assert decide(replace(before, seen=Seen(bmc_fault=missing, queued=Place(1, 2)))).reason == "SecretMissing"
