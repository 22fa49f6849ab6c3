"""Attempts: announced before anything acts, bounded, further and further apart, blamed on who is to blame."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.lifecycle.worlds import (
    NOW,
    attempt,
    declared,
    ended,
    failure,
    heard,
    installed,
    power_off,
    power_on,
    world,
)

from rackwright.api.machine import BareMetalMachineSpec, OperationName, Phase
from rackwright.lifecycle.decide import after_fault, after_refusal, decide
from rackwright.lifecycle.steps import Action, BootRamdisk, Hold, Pause, PowerOff, Rest, Stage, Wait, WriteImage
from rackwright.lifecycle.world import Blame, CommandState, Fault, Policy, Seen

COMMISSION, DEPLOY = OperationName.COMMISSION, OperationName.DEPLOY
MINUTES = timedelta(minutes=1)
A_YEAR = timedelta(days=365)
SILENT = Fault(Blame.BMC, "BMCUnreachable", "The BMC does not answer.")
DISK_ERROR = Fault(Blame.DISK, "DiskError", "The disk does not take what is written to it.")
WANTED = declared(owner="search", image="debian-12")


def test_an_attempt_is_recorded_with_its_deadline_before_anything_is_done() -> None:
    allocated = world(Phase.ALLOCATED, WANTED, power_on(), owner="search")

    decision = decide(allocated)

    assert decision.announces(allocated.status)
    operation = decision.status.operation
    assert operation is not None
    assert (operation.name, operation.attempt, operation.step) == (DEPLOY, 1, Stage.POWER_OFF)
    assert operation.deadline == NOW + 60 * MINUTES
    assert decision.step == PowerOff()


def test_a_recorded_attempt_is_acted_upon_without_recording_it_again() -> None:
    announced = decide(world(Phase.ALLOCATED, WANTED, power_off(), owner="search"))
    again = world(Phase.ALLOCATED, WANTED, power_off(), owner="search").with_status(announced.status)

    decision = decide(again)

    assert decision.step == BootRamdisk()
    assert not decision.announces(again.status)


@pytest.mark.parametrize(("number", "seconds"), [(1, 120), (2, 240), (3, 480), (6, 900), (9, 900)])
def test_attempts_are_further_and_further_apart(number: int, seconds: int) -> None:
    spec = declared(commissioning={"maxAttempts": 10})
    failing = world(
        Phase.COMMISSIONING, spec, power_on(), operation=attempt(COMMISSION, Stage.BOOT_RAMDISK, number=number)
    )

    decision = after_fault(failing, SILENT)

    assert decision.look_again == timedelta(seconds=seconds)
    assert decision.status.operation is not None
    assert decision.status.operation.attempt == number + 1
    assert decision.status.operation.next_retry_at == NOW + decision.look_again
    assert decision.status.operation.deadline == NOW + decision.look_again + 30 * MINUTES


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 96), (1.0, 144)])
def test_attempts_of_many_machines_are_spread(chance: float, seconds: int) -> None:
    failing = world(Phase.COMMISSIONING, operation=attempt(COMMISSION), chance=chance)

    assert after_fault(failing, SILENT).look_again == timedelta(seconds=seconds)


def test_a_bmc_that_asks_to_be_left_alone_is() -> None:
    busy = Fault(Blame.BMC, "BMCBusy", "The BMC is busy.", retry_after=20 * MINUTES)

    assert after_fault(world(Phase.COMMISSIONING, operation=attempt(COMMISSION)), busy).look_again == 20 * MINUTES


@pytest.mark.parametrize(
    ("spec", "holds_data", "released", "second_way"),
    [
        pytest.param(WANTED, True, False, True, id="something is installed and wanted"),
        pytest.param(WANTED, False, False, False, id="nothing is installed"),
        pytest.param(WANTED, True, True, False, id="a release was given up"),
        pytest.param(declared(), True, True, False, id="the deployment is withdrawn already"),
    ],
)
def test_whoever_may_have_it_erased_instead_is_told(
    spec: BareMetalMachineSpec, holds_data: bool, released: bool, second_way: bool
) -> None:
    here = world(
        Phase.FAILED,
        spec,
        power_off(),
        owner="search",
        installed=installed(came_up=False) if holds_data else None,
        last_failure=failure(DEPLOY),
        history=[ended(OperationName.RELEASE, "Failed")] if released else [],
    )

    assert ("withdraw spec.deployment" in decide(here).message) is second_way


def test_every_attempt_has_an_id_of_its_own() -> None:
    first = world(Phase.COMMISSIONING, operation=attempt(COMMISSION))
    second = after_fault(first, SILENT).status.operation

    assert second is not None
    assert first.status.operation is not None
    assert second.id != first.status.operation.id


def test_the_last_attempt_that_fails_leaves_the_machine_failed_with_its_reason() -> None:
    last = world(Phase.COMMISSIONING, seen=power_off(), operation=attempt(COMMISSION, Stage.BOOT_RAMDISK, number=3))

    decision = after_fault(last, SILENT)

    assert (decision.step, decision.reason) == (Hold(), SILENT.reason)
    assert decision.message == f"{SILENT.message} Set spec.commissioning.trigger to a new value to try again."
    assert decision.status.phase is Phase.FAILED
    assert decision.status.operation is None
    assert [(t.before, t.after, t.reason) for t in decision.transitions] == [
        (Phase.COMMISSIONING, Phase.FAILED, "BMCUnreachable")
    ]
    assert [(e.name, e.outcome, e.attempts) for e in decision.status.history] == [(COMMISSION, "Failed", 3)]


def test_a_failed_machine_is_switched_off_and_left_alone() -> None:
    decision = decide(world(Phase.FAILED, WANTED, power_on()))

    assert (decision.step, decision.status.phase) == (PowerOff(), Phase.FAILED)


@pytest.mark.parametrize(
    ("phase", "spec", "step"),
    [
        (Phase.READY, declared(), PowerOff()),
        (Phase.READY, declared(power="On"), Rest()),
        (Phase.READY, declared(locked=True), Hold()),
        (Phase.FAILED, declared(), PowerOff()),
        (Phase.FAILED, declared(power="On"), PowerOff()),
        (Phase.FAILED, declared(locked=True), Hold()),
        (Phase.ALLOCATED, declared(owner="search"), Rest()),
        (Phase.DEPLOYED, declared(owner="search", image="debian-12"), Rest()),
    ],
)
def test_whether_power_that_somebody_switched_on_is_left(
    phase: Phase, spec: BareMetalMachineSpec, step: Action | Pause
) -> None:
    """What README.md says of `power`, to those who work on a machine by hand."""
    has: dict[str, Any] = {} if spec.allocation is None else {"owner": "search"}
    has |= {"installed": installed()} if phase is Phase.DEPLOYED else {}
    assert decide(world(phase, spec, power_on(), **has)).step == step


def test_an_attempt_that_outlasts_its_timeout_is_over() -> None:
    slow = attempt(COMMISSION, Stage.BOOT_RAMDISK, since=30 * MINUTES)

    decision = decide(world(Phase.COMMISSIONING, seen=power_on(), operation=slow))

    assert decision.failure is not None
    assert decision.failure.reason == "DeadlineExceeded"


def test_a_retry_waits_for_its_time() -> None:
    waiting = attempt(COMMISSION, number=2, retry_in=MINUTES)

    decision = decide(world(Phase.COMMISSIONING, seen=power_off(), operation=waiting, last_failure=failure(COMMISSION)))

    assert (decision.step, decision.reason, decision.look_again) == (Wait(soon=False), "AgentMissing", MINUTES)
    assert decision.message == "It failed. Attempt 2 of 3 at 08:01:00Z."


def test_what_a_retry_waits_for_has_changed_so_it_is_made_at_once() -> None:
    waiting = world(
        Phase.COMMISSIONING,
        seen=power_off(),
        operation=attempt(COMMISSION, number=2, retry_in=10 * MINUTES),
        hurry=True,
    )

    decision = decide(waiting)

    assert decision.step == BootRamdisk()
    assert decision.status.operation is not None
    assert (decision.status.operation.attempt, decision.status.operation.next_retry_at) == (2, None)


def test_a_hurry_is_used_up_by_the_attempt_that_it_brought_forward() -> None:
    waiting = world(
        Phase.COMMISSIONING,
        seen=Seen(bmc_fault=SILENT),
        operation=attempt(COMMISSION, number=1, retry_in=10 * MINUTES),
        hurry=True,
    )

    decision = decide(waiting)

    assert decision.step == Wait(soon=False)
    assert decision.status.operation is not None
    assert decision.status.operation.attempt == 2
    assert decision.look_again == timedelta(minutes=2)


@pytest.mark.parametrize("power", [power_on(), Seen(bmc_fault=SILENT)], ids=["BMC well", "BMC silent"])
def test_a_failed_command_is_blamed_on_what_the_agent_says_of_it(power: Seen) -> None:
    agent = heard(command=CommandState.FAILED, fault=DISK_ERROR)
    writing = world(
        Phase.DEPLOYING,
        WANTED,
        Seen(power=power.power, bmc_fault=power.bmc_fault, agent=agent),
        owner="search",
        installed=installed(came_up=False),
        operation=attempt(DEPLOY, Stage.WRITE_IMAGE),
    )

    decision = decide(writing)

    assert decision.failure is not None
    assert (decision.failure.reason, decision.failure.failure_class) == ("DiskError", "Disk")


def test_an_agent_that_does_not_say_why_its_command_failed_is_blamed_itself() -> None:
    writing = world(
        Phase.DEPLOYING,
        WANTED,
        power_on(agent=heard(command=CommandState.FAILED)),
        owner="search",
        operation=attempt(DEPLOY, Stage.WRITE_IMAGE),
    )

    decision = decide(writing)

    assert decision.failure is not None
    assert (decision.failure.reason, decision.failure.failure_class) == ("AgentError", "Agent")


def test_an_idle_machine_whose_bmc_refuses_says_so_and_is_not_hammered() -> None:
    ready = world(Phase.READY, seen=power_on())
    assert decide(ready).step == PowerOff()

    decision = after_fault(ready, SILENT)

    assert (decision.reason, decision.look_again) == ("BMCUnreachable", Policy().poll)
    assert decision.status.phase is Phase.READY


def test_a_power_blip_during_the_write_starts_it_again_with_the_same_attempt() -> None:
    writing = attempt(DEPLOY, Stage.WRITE_IMAGE)
    blip = world(
        Phase.DEPLOYING,
        WANTED,
        power_off(agent=heard(command=CommandState.UNKNOWN)),
        owner="search",
        installed=installed(came_up=False),
        operation=writing,
    )

    decision = decide(blip)

    assert decision.step == BootRamdisk()
    assert decision.status.operation is not None
    assert (decision.status.operation.id, decision.status.operation.attempt) == (writing.id, 1)


@pytest.mark.parametrize("quiet", [None, 4 * MINUTES])
def test_an_agent_that_is_not_heard_any_more_is_lost(quiet: timedelta | None) -> None:
    agent = heard(at=NOW - quiet) if quiet else None
    writing = attempt(DEPLOY, Stage.WRITE_IMAGE, since=10 * MINUTES)

    decision = decide(world(Phase.DEPLOYING, WANTED, power_on(agent=agent), owner="search", operation=writing))

    assert decision.failure is not None
    assert decision.failure.reason == "AgentLost"


def test_an_operator_that_has_just_started_gives_the_agent_time_to_be_heard() -> None:
    writing = attempt(DEPLOY, Stage.WRITE_IMAGE, since=10 * MINUTES)
    seen = power_on(listening_since=NOW - MINUTES)

    decision = decide(world(Phase.DEPLOYING, WANTED, seen, owner="search", operation=writing))

    assert (decision.step, decision.reason) == (Wait(), "AwaitingAgent")


def test_a_write_that_ended_while_the_operator_was_away_is_not_made_again() -> None:
    writing = attempt(DEPLOY, Stage.WRITE_IMAGE, since=10 * MINUTES)
    seen = power_on(agent=heard(command=CommandState.SUCCEEDED), listening_since=NOW - MINUTES)

    decision = decide(world(Phase.DEPLOYING, WANTED, seen, owner="search", operation=writing))

    assert decision.step != WriteImage()
    assert decision.status.operation is not None
    assert decision.status.operation.step == Stage.BOOT_DISK


def test_a_new_trigger_has_a_commissioning_begun_anew_that_waits_for_its_next_attempt() -> None:
    waiting = attempt(COMMISSION, number=3, retry_in=10 * MINUTES)

    decision = decide(world(Phase.COMMISSIONING, declared(recommission="again"), power_off(), operation=waiting))

    assert decision.status.operation is not None
    assert decision.status.operation.attempt == 1
    assert decision.status.observed_triggers.commissioning == "again"


def test_a_deadline_that_passed_while_the_bmc_was_silent_is_blamed_on_the_bmc() -> None:
    slow = attempt(COMMISSION, Stage.BOOT_RAMDISK, since=31 * MINUTES)

    decision = decide(world(Phase.COMMISSIONING, seen=Seen(bmc_fault=SILENT), operation=slow))

    assert decision.failure is not None
    assert decision.failure.reason == "BMCUnreachable"


@pytest.mark.parametrize("stage", [Stage.BOOT_RAMDISK, Stage.WRITE_IMAGE])
def test_an_agent_that_does_not_say_how_far_it_is_gets_no_second_command(stage: Stage) -> None:
    seen = power_on(agent=heard(command=CommandState.UNKNOWN))
    here = world(Phase.DEPLOYING, WANTED, seen, owner="search", operation=attempt(DEPLOY, stage))

    decision = decide(here)

    assert (decision.step, decision.reason) == (Wait(), "AgentUnclear")


def test_an_agent_whose_inspection_was_lost_is_started_again() -> None:
    booted = attempt(COMMISSION, Stage.BOOT_RAMDISK)

    decision = decide(world(Phase.COMMISSIONING, seen=power_on(agent=heard()), operation=booted))

    assert decision.failure is not None
    assert decision.failure.reason == "InspectionLost"


def test_an_agent_that_takes_no_command_now_is_asked_again_when_it_reports_or_a_little_later() -> None:
    here = world(
        Phase.DEPLOYING, WANTED, power_on(agent=heard()), owner="search", operation=attempt(DEPLOY, Stage.BOOT_RAMDISK)
    )
    writing = here.with_status(decide(here).status)
    assert decide(writing).step == WriteImage()

    decision = after_refusal(writing)

    assert (decision.step, decision.reason) == (Wait(), "AgentUnclear")
    assert decision.look_again == Policy().watch
    assert not decision.announces(writing.status)
    assert decide(writing.with_status(decision.status)).step == WriteImage()


# --- a clock that is set back -----------------------------------------------------------------------------------


def test_a_retry_is_not_waited_for_until_next_year() -> None:
    waiting = attempt(COMMISSION, number=2, retry_in=10 * MINUTES)

    decision = decide(world(Phase.COMMISSIONING, seen=power_off(), operation=waiting, now=NOW - A_YEAR))

    assert decision.step == BootRamdisk()
    assert decision.status.operation is not None
    assert decision.status.operation.attempt == 2
    assert decision.status.operation.deadline == NOW - A_YEAR + 30 * MINUTES


def test_a_deadline_is_not_waited_for_until_next_year() -> None:
    slow = attempt(COMMISSION, Stage.BOOT_RAMDISK)

    decision = decide(world(Phase.COMMISSIONING, seen=power_on(), operation=slow, now=NOW - A_YEAR))

    assert decision.failure is not None
    assert decision.failure.reason == "DeadlineExceeded"
    assert decision.status.operation is not None
    assert decision.status.operation.deadline < NOW - A_YEAR + 40 * MINUTES


def test_a_clock_that_is_a_little_behind_is_no_reason_to_hurry() -> None:
    waiting = attempt(COMMISSION, number=2, retry_in=10 * MINUTES)

    decision = decide(world(Phase.COMMISSIONING, seen=power_off(), operation=waiting, now=NOW - MINUTES))

    assert (decision.step, decision.look_again) == (Wait(soon=False), 11 * MINUTES)
