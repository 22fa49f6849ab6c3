"""What of a decision is news: what `kubectl describe` is to tell of it, once, and not again at every look.

A phase that changes, an operation that begins or ends, an attempt that fails, power that is switched on a machine at
rest, and the beginning of a wait for somebody else; never a poll. `events.py` writes it, and counts what recurs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, NamedTuple

from rackwright.api.conditions import ConditionType
from rackwright.api.machine import BareMetalMachineSpec, BareMetalMachineStatus, Failure, Phase
from rackwright.lifecycle.decide import Decision, Turn
from rackwright.lifecycle.operations import limits
from rackwright.lifecycle.reasons import FOR_SOMEBODY
from rackwright.lifecycle.steps import LetGo, PowerOff, PowerOn

_AT_REST = (Phase.READY, Phase.ALLOCATED, Phase.DEPLOYED)
"""Phases in which power is as spec wishes, and switched for its own sake."""


@dataclass(frozen=True, slots=True)
class News:
    """One Event to be."""

    kind: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str
    words: str
    """What recurs with the same words is one Event that is counted, whatever else its note says."""


class _Said(NamedTuple):
    """What a condition says; nothing, where it isn't set."""

    status: str = ""
    reason: str = ""
    message: str = ""


def news(spec: BareMetalMachineSpec, before: BareMetalMachineStatus, decision: Decision) -> tuple[News, ...]:
    """What became of a machine whose status was `before`, as soon as the decision's status is recorded."""
    found = _of_turns(decision.turns)
    told, failure = {item.reason for item in found}, decision.failure
    if failure is not None and failure.reason not in told:
        found.append(_of_failure(spec, failure))
        told.add(failure.reason)
    told |= {_condition(before, kind).reason for kind in (ConditionType.READY, ConditionType.BMC_REACHABLE)}
    return (*found, *_of_conditions(decision.status, told))


def of_deed(before: BareMetalMachineStatus, decision: Decision) -> News | None:
    """What is to be told of a step that was carried out: of most, what was recorded before it said enough."""
    reason, message = decision.reason, decision.message
    match decision.step:
        case LetGo() if decision.skipped:
            forced = reason == "DeletionForced"
            return _news("Warning" if forced else "Normal", reason, "LetGo", f"{message} {decision.skipped}")
        case PowerOff() | PowerOn() if before.operation is None and before.phase in _AT_REST:
            done = "Switched off" if isinstance(decision.step, PowerOff) else "Switched on"
            return _news("Normal", reason, type(decision.step).__name__, f"{done}: {message}")
        case _:
            return None


def _news(kind: Literal["Normal", "Warning"], reason: str, action: str, note: str) -> News:
    return News(kind, reason, action, note, note)


def _of_turns(turns: Sequence[Turn]) -> list[News]:
    """Each turn; but a machine that is reserved and deployed at once tells of both in one piece."""
    found: list[News] = []
    passed = ""
    for turn, following in zip_longest(turns, turns[1:]):
        item = _of_turn(turn)
        if following is not None and turn.reason == "AllocationDeclared":
            passed = f"{item.note} "
            continue
        found.append(_news(item.kind, item.reason, item.action, passed + item.note))
        passed = ""
    return found


def _of_turn(turn: Turn) -> News:
    after = turn.after.value if turn.after else "unknown"
    bad = turn.after in (Phase.FAILED, Phase.BROKEN) and turn.before is not turn.after and turn.reason != "RescueEnded"
    return _news("Warning" if bad else "Normal", turn.reason, after, f"{after}: {turn.message}")


def _of_failure(spec: BareMetalMachineSpec, failure: Failure) -> News:
    """Told by its own sentence, whichever attempt it was: attempts that fail alike are one Event, but for the last."""
    most = limits(spec, failure.operation)[1]
    if failure.attempt >= most:
        note = f"{failure.message} That was attempt {failure.attempt} of {most}."
        return _news("Warning", failure.reason, failure.operation, note)
    note = f"{failure.message} Attempt {failure.attempt + 1} of {most} follows."
    return News("Warning", failure.reason, failure.operation, note, failure.message)


def _of_conditions(after: BareMetalMachineStatus, told: Collection[str]) -> list[News]:
    """A machine that begins to wait for somebody, or whose BMC falls silent, says so unless it was told already."""
    ready, stalled = _condition(after, ConditionType.READY), _condition(after, ConditionType.STALLED)
    bmc = _condition(after, ConditionType.BMC_REACHABLE)
    if stalled.status == "True" and stalled.reason not in told:
        return [_news("Warning", stalled.reason, "Reconcile", stalled.message)]
    if bmc.status == "False" and bmc.reason not in told:
        return [_news("Warning", bmc.reason, "Reconcile", bmc.message)]
    if ready.reason in FOR_SOMEBODY and ready.reason not in told:
        return [_news("Normal", ready.reason, "Reconcile", ready.message)]
    return []


def _condition(status: BareMetalMachineStatus, kind: ConditionType) -> _Said:
    return next((_Said(c.status, c.reason, c.message) for c in status.own_conditions if c.type == kind), _Said())
