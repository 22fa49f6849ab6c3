"""Manners: what people are told. A reason leads to its remedy, so that a wrong one costs somebody a day."""

from __future__ import annotations

from tests.property.manners.open_wishes import NEED_BMC, NEED_IMAGE, open_wishes
from tests.property.manners.passes import (
    IDLE,
    at_work,
    awaits_its_turn,
    booting,
    command,
    is_at,
    lost_its_status,
    same_attempt,
    shutting_down,
    unclaimed,
    unhindered,
    untouched,
    unwritten,
)
from tests.property.rig import Moment

from rackwright.api.conditions import ConditionType
from rackwright.api.machine import OperationName, Phase, Power
from rackwright.lifecycle.by_hand import moved_by_hand
from rackwright.lifecycle.guards import (
    agent_heard,
    agent_lost,
    agent_takes_commands,
    at_stage,
    bmc_misconfigured,
    came_up,
    deployment_differs,
    disks_busy,
    doing,
    erase_unwanted,
    erased,
    every_disk_erased,
    fault_reported,
    gates_closed,
    gave_up,
    holds_data,
    inspection_arrived,
    leaves_a_system,
    live_machine,
    marked_broken,
    no_bmc,
    overdue,
    past_unknown,
    power_undeclared,
    powered_off,
    reinstall_triggered,
    rescue_wanted,
    restart_triggered,
    retry_not_due,
    seen_off,
    stage_overdue,
    under_way,
)
from rackwright.lifecycle.news import of_deed
from rackwright.lifecycle.steps import Hold, LetGo, Rest, Stage, Wait
from rackwright.lifecycle.world import CommandState, Fault

_starting = at_stage(Stage.BOOT_DISK)


def _named(fault: Fault | None) -> str | None:
    return fault.reason if fault is not None else None


def a_wait_says_what_is_waited_for(moment: Moment) -> None:
    """Whatever is under way has a visible step, and what waits for a person says so.

    A power state that isn't told, a deadline that was exceeded are said where nothing better is known.
    """
    world, reason = moment.world.with_status(moment.after), moment.decision.reason
    if not isinstance(moment.decision.step, Wait) or moment.fault is not None or moment.decision.failure is not None:
        return
    if retry_not_due(world):
        failure = world.status.last_failure
        assert failure is not None, "an attempt is to be repeated, and none failed"
        assert reason == failure.reason, f"{reason}, and {failure.reason} is to be repeated"
        return
    deaf, by_hand, fault = not agent_heard(world), moved_by_hand(world.spec), world.seen.bmc_fault
    true = {
        "AwaitingPowerState": world.seen.power is Power.UNKNOWN and fault is None,
        "AwaitingStartFromNetwork": booting(world) and deaf and by_hand,
        "AwaitingAgent": (deaf or not agent_takes_commands(world)) and not (booting(world) and deaf and by_hand),
        "AwaitingStartFromDisk": _starting(world) and deaf and by_hand,
        "AwaitingFirstBoot": _starting(world) and deaf and not by_hand,
        "AwaitingInstallSlot": awaits_its_turn(world) and doing(OperationName.DEPLOY)(world),
        "AgentUnclear": command(world) is CommandState.UNKNOWN,
        "WritingImage": command(world) is CommandState.RUNNING and doing(OperationName.DEPLOY)(world),
        "ErasingDisks": command(world) is CommandState.RUNNING and doing(OperationName.RELEASE)(world),
        "OpeningRescue": command(world) is CommandState.RUNNING and doing(OperationName.RESCUE)(world),
        "ReadinessGatesClosed": gates_closed(world) and shutting_down(world) and powered_off(world),
        "FinishingDiskWrite": marked_broken(world) and agent_heard(world) and disks_busy(world),
    }
    assert true.get(reason, reason == _named(fault)), f"{reason} isn't what is waited for"


def a_hold_says_what_to_change(moment: Moment) -> None:
    """Where `STALLED` is True nothing goes on until somebody changes something, and the reason leads to what."""
    world, reason = moment.world.with_status(moment.after), moment.decision.reason
    if not isinstance(moment.decision.step, Hold) or moment.fault is not None:
        return
    phase, failure, locked = world.status.phase, world.status.last_failure, world.spec.locked
    if world.seen.twin is not None:
        assert reason == "DuplicateMachine" or (locked and world.deleting), f"{reason} beside a twin"
        return
    true = {
        "DeclarationLost": phase is None and world.seen.evidence is not None,
        "StatusLost": phase is None and past_unknown(world),
        "BMCMissing": no_bmc(world) and (under_way(world) or not open_wishes(world).isdisjoint(NEED_BMC)),
        "NothingToAdopt": phase is Phase.ALLOCATED and live_machine(world) and seen_off(world),
        "SystemOnOtherDisk": leaves_a_system(world) and (unwritten(world) or bool(open_wishes(world) & NEED_IMAGE)),
        "DeletionBlocked": phase is Phase.BROKEN and world.deleting,
        "RescueGaveUp": phase is Phase.BROKEN and rescue_wanted(world) and gave_up(OperationName.RESCUE)(world),
        "MarkedBroken": phase is Phase.BROKEN and marked_broken(world),
        "FaultReported": phase is Phase.BROKEN and fault_reported(world) and not marked_broken(world),
        "Locked": locked,
    }
    brought = {
        _named(world.seen.bmc_fault) if bmc_misconfigured(world) else None,
        _named(world.seen.obstacle) if open_wishes(world) & NEED_IMAGE else None,
        failure.reason if failure is not None and phase is Phase.FAILED else None,
    }
    assert true.get(reason, reason in brought), f"{reason} isn't what holds it"
    if reason in ("MarkedBroken", "FaultReported"):
        assert not world.deleting, "nobody is told what keeps it from being deleted"
        assert not rescue_wanted(world), "nobody is told what became of the rescue"


def what_is_held_is_stalled(moment: Moment) -> None:
    """What waits for a Secret or `spec.bmc` says so, and is `STALLED`."""
    world, step, reason = moment.world, moment.decision.step, moment.decision.reason
    if not same_attempt(moment) or not unhindered(moment) or is_at(moment, *IDLE) or retry_not_due(world):
        return
    if no_bmc(world):
        assert isinstance(step, Hold), "nobody is told that it has no BMC"
        assert reason == "BMCMissing", f"{reason}, and it has no BMC"
    elif bmc_misconfigured(world) and untouched(world):
        assert isinstance(step, Hold), "nobody is told what its BMC lacks"
        assert reason == _named(world.seen.bmc_fault), f"{reason} isn't what its BMC lacks"


def what_runs_is_not_stalled_by_hints_alone(moment: Moment) -> None:
    """A deployed system that merely isn't what is declared runs; which disk it is on matters when it is installed."""
    stalled = next((c for c in moment.after.own_conditions if c.type == ConditionType.STALLED), None)
    if moment.after.phase is Phase.DEPLOYED and stalled is not None and stalled.status == "True":
        world = moment.world.with_status(moment.after)
        assert stalled.reason != "SystemOnOtherDisk" or reinstall_triggered(world), "a system that runs has stalled"


def a_mark_says_what_it_may_have_cut_off(moment: Moment) -> None:
    """A write whose agent is silent, or whose time is up, may be cut off: who repairs the machine is told."""
    world = moment.world
    if (
        not marked_broken(world)
        or moment.fault is not None
        or not at_stage(Stage.WRITE_IMAGE, Stage.ERASE_DISKS)(world)
    ):
        return
    if not disks_busy(world) and agent_heard(world):
        return
    told = [turn.message for turn in moment.decision.turns if turn.after is Phase.BROKEN]
    if moment.decision.reason == "StoppingSafely":
        told.append(moment.decision.message)
    assert all("cut off" in message for message in told), "nobody is told that a write may have been cut off"


def ready_is_what_is_as_declared(moment: Moment) -> None:
    """`READY` is True where what is observed is what is declared, unless its BMC or a readiness gate says otherwise.

    One that somebody switched off isn't said to run.
    An image, user data, hostname or SSH keys that differ from what was installed are shown as `ReinstallNeeded`.
    """
    world, reason = moment.world.with_status(moment.after), moment.decision.reason
    if not isinstance(moment.decision.step, Rest) or not world.held or moment.fault is not None:
        return
    phase, asked = world.status.phase, not power_undeclared(world) or restart_triggered(world)
    lacks = {
        _named(world.seen.bmc_fault) if phase is Phase.READY or (phase in IDLE and asked) else None,
        "ReadinessGatesClosed" if phase is Phase.READY and gates_closed(world) else None,
        "ReinstallNeeded" if phase is Phase.DEPLOYED and deployment_differs(world) else None,
        "AwaitingAcceptance" if phase is Phase.NEW else None,
    } - {None}
    settled = {
        Phase.READY: "Available",
        Phase.ALLOCATED: "AwaitingDeployment",
        Phase.DEPLOYED: "SwitchedOff" if seen_off(world) else "Running",
        Phase.RESCUE: "RescueOpen",
    }
    assert phase in settled or lacks, f"{phase} is no phase to rest in"
    expected = lacks or {reason for at, reason in settled.items() if at is phase}
    assert reason in expected, f"{reason}, not {expected}"
    ready = next(condition.status for condition in moment.after.conditions if condition.type == ConditionType.READY)
    assert ready == ("False" if lacks else "True"), f"{reason}, and READY is {ready}"


def a_failure_names_its_cause(moment: Moment) -> None:
    """`status.lastFailure` has the operation, the step, the reason, whose fault it was and what to do.

    A BMC that is silent in the middle is waited for, and named where that took too long.
    """
    world, failure = moment.world, moment.decision.failure
    if failure is None or moment.fault is not None:
        return
    silent, agent = world.seen.bmc_fault, world.seen.agent
    called_for = doing(OperationName.DEPLOY)(world) and _starting(world) and not agent_heard(world)
    gated = shutting_down(world) and powered_off(world) and gates_closed(world) and not came_up(world)
    lost = booting(world) and not agent_heard(world) and not powered_off(world)
    mute = agent is not None and agent_heard(world) and not agent.takes_commands
    true = {
        "FirstBootMissing": called_for and overdue(world),
        "ReadinessGatesClosed": gated and overdue(world),
        "DeadlineExceeded": overdue(world) and silent is None and not called_for,
        "AgentMissing": stage_overdue(world) and ((lost and silent is None) or mute),
        "AgentLost": at_work(world) and agent_lost(world),
        "InspectionLost": agent_heard(world) and not inspection_arrived(world),
        "EraseNotVerified": command(world) is CommandState.SUCCEEDED and not every_disk_erased(world),
    }
    if silent is not None:
        begins, stuck = failure.step in (Stage.START, Stage.POWER_OFF), shutting_down(world) or lost
        true[silent.reason] = overdue(world) or begins or (stuck and stage_overdue(world))
    if agent is not None and agent.fault is not None:
        true[agent.fault.reason] = at_work(world)
    assert true.get(failure.reason, False), f"{failure.reason} isn't why it failed"


def the_end_of_a_release_says_what_was_erased(moment: Moment) -> None:
    """Every disk was erased and read back, or nothing was erased, or there was nothing: each is said where it is so."""
    world = moment.world
    for transition in moment.decision.transitions:
        if transition.reason == "DisksErased":
            assert erased(world), "nothing was erased"
        if transition.reason == "EraseNotWanted":
            assert erase_unwanted(world), "it was to be erased"
            assert not (shutting_down(world) and erased(world)), "every disk was erased"
        if transition.reason == "NothingToErase":
            assert unclaimed(world), "there was something to erase"


def letting_go_says_whether_something_was_skipped(moment: Moment) -> None:
    """An Event says what was skipped: `DeletionForced` where nothing was released, because somebody said so."""
    world, decision = moment.world, moment.decision
    if isinstance(decision.step, LetGo):
        expected = "DeletionForced" if world.force_delete else "Deleted"
        assert decision.reason == expected, f"{decision.reason}, not {expected}"
        left = (
            holds_data(world.with_status(moment.after))
            or lost_its_status(moment)
            or (world.force_delete and under_way(world))
        )
        assert (of_deed(moment.before, decision) is not None) == left, "nobody is told what was skipped"
