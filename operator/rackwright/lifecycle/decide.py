"""From one world to what is recorded, what is done, and when to look again.

The table is read from the top, again from the new status after each record, until an action or a pause. What comes
out leaves an executor no choice: record `status` first if it changes the intent, else carry `step` out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rackwright.api.fields import format_duration
from rackwright.api.machine import BareMetalMachineStatus, Broken, Failure, OperationName, Phase, Power
from rackwright.lifecycle.by_hand import moved_by_hand
from rackwright.lifecycle.conditions import conditions
from rackwright.lifecycle.differences import differences
from rackwright.lifecycle.guards import closed_gates, gave_up, past_unknown, retry_ahead, write_cut_off
from rackwright.lifecycle.operations import announced, failed, limits, recorded
from rackwright.lifecycle.reasons import (
    BROKEN_AFTER_RESCUE,
    CUTTING_OFF,
    ERASE_INSTEAD,
    FOR_SOMEBODY,
    FORCE_DELETION,
    LEAVE_FAILED,
    LET_GO_AS_IT_RUNS,
    MAYBE_CUT_OFF,
    PASSING,
    QUEUED,
    RELEASED_FIRST,
    THE_BMC_FAULT,
    THE_FAULT,
    THE_OBSTACLE,
    closed,
    sentence,
)
from rackwright.lifecycle.steps import (
    WORK_DONE,
    Acknowledge,
    Action,
    Advance,
    Begin,
    Fail,
    Finish,
    Hold,
    LetGo,
    NoteMark,
    Pause,
    PowerOff,
    Record,
    RecordEvidence,
    Rest,
    Wait,
)
from rackwright.lifecycle.table import TABLE, Row, Then, applies
from rackwright.lifecycle.world import CommandState, Fault, World

_LONGEST_READING = 12
"""Records in one reading; the longest that the table allows is proven shorter by a test."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A phase change, or an operation that begins or ends within a phase: what people are told of."""

    before: Phase | None
    after: Phase | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What to record, then do."""

    step: Action | Pause
    status: BareMetalMachineStatus
    reason: str
    message: str
    turns: tuple[Turn, ...] = ()
    """What happened in this reading, in order."""
    failure: Failure | None = None
    """A failure that this reading recorded."""
    look_again: timedelta = timedelta()
    """When to look without being woken."""
    skipped: str = ""
    """What is left undone where the record is let go of, in a sentence."""
    urgent: bool = True
    """Whether what this reading records is worth a write of its own before an action."""

    @property
    def transitions(self) -> tuple[Turn, ...]:
        """The turns that lead to another phase."""
        return tuple(turn for turn in self.turns if turn.before is not turn.after)

    def announces(self, before: BareMetalMachineStatus) -> bool:
        """Whether status must be recorded before the step: it says what is meant to be done, not only what was seen."""
        return self.urgent and _intent(self.status) != _intent(before)

    def is_progress(self, before: BareMetalMachineStatus) -> bool:
        """Whether it tells no more than how an attempt gets on within its step, which nobody has to act upon.

        What an operator or a person goes by is more than that: a new intent, a condition that turned, a spec that was
        taken note of, a call upon somebody.
        """
        return (
            isinstance(self.step, Wait)
            and self.reason not in FOR_SOMEBODY
            and not self.announces(before)
            and self.status.observed_generation == before.observed_generation
            and _verdicts(self.status) == _verdicts(before)
        )


def matching_row(world: World) -> Row:
    """The first row that applies; the table has one for every world."""
    first = next(row for row in TABLE if world.status.phase in row.at and row.when(world))
    return applies(first, world)


def destination(row: Row, world: World) -> Phase | None:
    """The phase that a row leads to."""
    match row.then:
        case Then.STAY:
            return world.status.phase
        case Then.RETURN:
            return world.status.rescued_from or Phase.FAILED
        case phase:
            return phase


def decide(world: World) -> Decision:
    """Read the table for one machine."""
    turns: list[Turn] = []
    failure: Failure | None = None
    records: list[Record] = []
    for _ in range(_LONGEST_READING):
        row = matching_row(world)
        if not isinstance(row.do, Record):
            return replace(_decision(world, row, row.do, tuple(turns), failure), urgent=_is_urgent(records, row.do))
        records.append(row.do)
        before = world.status.phase
        world = _after(world, recorded(row.do, world, to=destination(row, world)), row)
        if isinstance(row.do, Fail):
            failure = world.status.last_failure
        if world.status.phase is not before or isinstance(row.do, Begin | Finish | Acknowledge | NoteMark):
            turns.append(Turn(before, world.status.phase, *_explained(row, world)))
    raise AssertionError(f"the table reads in circles at {world.status.phase}")


def after_fault(world: World, fault: Fault) -> Decision:
    """What follows when carrying out a step failed: another attempt, or Failed; an idle machine only says so.

    Nor is an attempt given up whose work on the disks is done, where only the BMC couldn't be asked for power just now.
    """
    before = world.status
    if before.operation is None or (fault.reason in PASSING and before.operation.step in WORK_DONE):
        return decide(replace(world, seen=replace(world.seen, power=Power.UNKNOWN, bmc_fault=fault)))
    seen = replace(world.seen, agent=None, first_boot=None, kept=None)
    status = failed(world, fault)
    following, failure = decide(replace(world, status=status, seen=seen, hurry=False)), status.last_failure
    if status.phase is before.phase or failure is None:
        return replace(following, failure=failure)
    words = f"{failure.message} {_ways_out(world.with_status(status))}"
    given_up = Turn(before.phase, status.phase, failure.reason, words)
    return replace(following, turns=(given_up, *following.turns), failure=failure)


def after_asking(world: World, at: datetime) -> Decision:
    """What follows when the system was asked to shut down: that is awaited, and recorded, for whoever goes on."""
    return decide(world.with_status(world.status.model_copy(update={"shutdown_asked_at": at})))


def after_refusal(world: World) -> Decision:
    """What follows when the agent took no command now: how far it is stays unclear until it is asked again."""
    agent = world.seen.agent
    unclear = replace(agent, command=CommandState.UNKNOWN) if agent is not None else None
    return decide(replace(world, seen=replace(world.seen, agent=unclear)))


def _is_urgent(records: Sequence[Record], step: Action | Pause) -> bool:
    """Whether a reading records more than what goes with the next write; an action that is announced needs one now."""
    announced_or_paused = isinstance(step, Pause) or step.stage is not None
    later = [each for each in records if isinstance(each, Advance) and each.with_the_next]
    return announced_or_paused or not records or len(later) < len(records)


def _intent(status: BareMetalMachineStatus) -> BareMetalMachineStatus:
    """Status without what only tells what was seen."""
    operation = status.operation.model_copy(update={"message": ""}) if status.operation else None
    blank: dict[str, object] = {"conditions": [], "power": Power.UNKNOWN, "powered_at": None, "observed_generation": 0}
    return status.model_copy(update={**blank, "shutdown_asked_at": None, "operation": operation})


def _verdicts(status: BareMetalMachineStatus) -> dict[str, str]:
    """How each condition stands, whatever it says of why."""
    return {condition.type: condition.status for condition in status.conditions}


def _after(world: World, status: BareMetalMachineStatus, row: Row) -> World:
    """The world as the next row sees it: a new attempt has not heard from anybody yet."""
    old, new = world.status.operation, status.operation
    seen = world.seen
    if (old and old.id) != (new and new.id):
        seen = replace(seen, agent=None, first_boot=None, kept=None)
    hurry = world.hurry and not isinstance(row.do, Fail | Begin)
    return replace(world, status=status, seen=seen, hurry=hurry)


def _decision(
    world: World, row: Row, step: Action | Pause, turns: tuple[Turn, ...], failure: Failure | None
) -> Decision:
    row, shown = _shown(row, step, world)
    reason, message = _explained(row, world)
    stage = None if isinstance(step, Pause) else step.stage
    status = world.status if stage is None else announced(world, stage)
    status = _observed(world, status)
    if status.shutdown_asked_at is not None and not isinstance(step, PowerOff):
        status = status.model_copy(update={"shutdown_asked_at": None})
    if world.deleting and isinstance(step, Hold) and not world.spec.locked:
        message = f"{message} {FORCE_DELETION}"
    if status.operation is not None:
        status = status.model_copy(update={"operation": status.operation.model_copy(update={"message": message})})
    status = status.model_copy(
        update={
            "observed_generation": world.generation,
            "conditions": conditions(world.with_status(status), shown, reason, message),
        }
    )
    skipped = _skipped(world) if isinstance(step, LetGo) else ""
    return Decision(step, status, reason, message, turns, failure, _look_again(world, step), skipped)


def _shown(row: Row, step: Action | Pause, world: World) -> tuple[Row, Action | Pause]:
    """What people are told of: noting in an annotation what is installed changes nothing for them."""
    if not isinstance(step, RecordEvidence):
        return row, step
    installed = world.status.installed
    noted = installed if installed is not None and installed.at is not None else None
    following = matching_row(replace(world, seen=replace(world.seen, evidence=noted)))
    return (following, following.do) if isinstance(following.do, Pause) else (row, step)


def _observed(world: World, status: BareMetalMachineStatus) -> BareMetalMachineStatus:
    if status.hardware is None and world.seen.inventory is not None:
        status = status.model_copy(update={"hardware": world.seen.inventory})
    power = Power.UNKNOWN if moved_by_hand(world.spec) else world.seen.power  # what is only assumed isn't shown
    if status.power is power:
        return status
    return status.model_copy(update={"power": power, "powered_at": world.now})


def _explained(row: Row, world: World) -> tuple[str, str]:
    """Reason and sentence of a row in this world."""
    match row.because:
        case str() as reason if reason == THE_FAULT and (failure := world.status.last_failure) is not None:
            operation = world.status.operation
            if operation is None or operation.next_retry_at is None:
                return failure.reason, f"{failure.message} {_ways_out(world)}"
            attempts = limits(world.spec, operation.name)[1]
            when = operation.next_retry_at.strftime("%H:%M:%SZ")
            return failure.reason, f"{failure.message} Attempt {operation.attempt} of {attempts} at {when}."
        case str() as reason if reason == THE_BMC_FAULT and world.seen.bmc_fault is not None:
            again = f" It is asked again after {format_duration(world.policy.poll)}, or later the longer this lasts."
            asked_again = isinstance(row.do, Rest) and world.status.operation is None
            return world.seen.bmc_fault.reason, world.seen.bmc_fault.message + (again if asked_again else "")
        case str() as reason if reason == THE_OBSTACLE and world.seen.obstacle is not None:
            return world.seen.obstacle.reason, world.seen.obstacle.message
        case reason if reason.startswith("("):
            return "Failed", "It failed, and why was not recorded. Recommission it with spec.commissioning.trigger."
        case reason:
            return reason, _told(reason, world)


def _ways_out(world: World) -> str:
    """What a person may do about a machine that has Failed."""
    may_be_released = world.status.installed is not None and world.spec.deployment is not None
    if world.status.phase is not Phase.FAILED or not may_be_released or gave_up(OperationName.RELEASE)(world):
        return LEAVE_FAILED
    return f"{LEAVE_FAILED} {ERASE_INSTEAD}"


def _told(reason: str, world: World) -> str:
    """The reason's sentence, with what this machine adds to it."""
    spec, words = world.spec, _words(reason, world)
    match reason:
        case "DuplicateMachine":
            return f"{world.seen.twin} has the same boot MAC address or BMC and comes first; this one is not touched."
        case "MarkedBroken" if spec.broken is not None:
            return _marked(spec.broken, world)
        case reason if reason == QUEUED and (place := world.seen.queued) is not None:
            return f"Waiting: {_ordinal(place.number)} of {place.of} for an install slot. {words}"
        case "AwaitingStartFromNetwork" | "AwaitingStartFromDisk":
            return words.format(name=world.name)
        case _:
            return " ".join((words, *_details(reason, world)))


def _details(reason: str, world: World) -> Iterator[str]:
    """What this machine adds behind the reason's sentence."""
    spec = world.spec
    match reason:
        case "RescueOpen" if spec.broken is not None:
            yield _marked(spec.broken, world)
        case "StoppingSafely" if write_cut_off(world):
            yield CUTTING_OFF
        case "FaultReported" if spec.release.fault is not None:
            yield f"{spec.release.fault.category}: {spec.release.fault.summary}"
        case "SystemOnOtherDisk":
            left = world.seen.left_behind
            yield f"Choose {left} in place of {world.seen.root_disk} in spec.storage.rootDeviceHints;"
            yield "or withdraw spec.deployment to have every disk erased first."
        case "ReadinessGatesClosed":
            yield f"Not True: {', '.join(closed_gates(world))}."
        case "ReinstallNeeded":
            yield f"What differs: {', '.join(differences(world))}."
        case _:
            pass


def _marked(mark: Broken, world: World) -> str:
    """What was marked, and what whoever repairs it has to know beside that."""
    said = f"Marked as broken: {mark.reason}"
    if world.status.phase is Phase.RESCUE:
        return f"{closed(said)} {BROKEN_AFTER_RESCUE}"
    installed = world.status.installed
    return f"{closed(said)} {MAYBE_CUT_OFF}" if installed is not None and installed.at is None else said


def _words(reason: str, world: World) -> str:
    """The reason's sentence, which is another one of a record that is deleted while something is installed."""
    match reason:
        case "Deleted" if world.status.installed is not None:
            return LET_GO_AS_IT_RUNS
        case "DeploymentWithdrawn" if world.deleting:
            return RELEASED_FIRST
        case _:
            return sentence(reason)


def _skipped(world: World) -> str:
    """What letting go of the record leaves undone: a release, and whatever is under way if somebody forced it."""
    status, evidence, skipped = world.status, world.seen.evidence, []
    if status.installed is not None:
        owner = f", owner {status.owner}" if status.owner else ""
        skipped.append(f"the release of {status.installed.image or 'what was adopted'}{owner}")
    elif status.phase is None and evidence is not None:
        skipped.append(f"the release of {evidence.image or 'something'}, which its annotation says is installed")
    elif status.phase is None and past_unknown(world):
        skipped.append("the release of whatever is installed: its record comes from a backup")
    if world.force_delete and status.operation is not None:
        at = f", under way at {status.operation.step}" if status.operation.step else ", which was about to begin"
        skipped.append(f"the operation {status.operation.name}{at}")
    return f"Skipped: {'; '.join(skipped)}." if skipped else ""


def _look_again(world: World, step: Action | Pause) -> timedelta:
    match step:
        case Wait(soon=True):
            left = world.status.operation.deadline - world.now if world.status.operation else world.policy.watch
            return max(min(left, world.policy.watch), timedelta(seconds=1))
        case Wait():
            retry = world.status.operation.next_retry_at if world.status.operation else None
            return retry - world.now if retry is not None and retry_ahead(world) else world.policy.poll
        case Rest() | Hold():
            return world.policy.poll
        case _:
            return timedelta()


def _ordinal(number: int) -> str:
    """As in "37th"."""
    teen = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
