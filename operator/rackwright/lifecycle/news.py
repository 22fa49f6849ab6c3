"""What of a decision is news: what `kubectl describe` is to tell of it, once, and not again at every look.

A phase that changes, an attempt that fails, and the beginning of a wait for somebody else; never a poll. `events.py`
writes it, and counts what recurs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from rackwright.api.conditions import Condition, ConditionType
from rackwright.api.machine import BareMetalMachineSpec, BareMetalMachineStatus, Failure, Phase
from rackwright.lifecycle.decide import Decision, Transition
from rackwright.lifecycle.operations import limits


@dataclass(frozen=True, slots=True)
class News:
    """One Event to be."""

    kind: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str
    words: str
    """What recurs with the same words is one Event that is counted, whatever else its note says."""


def news(spec: BareMetalMachineSpec, before: BareMetalMachineStatus, decision: Decision) -> tuple[News, ...]:
    """What became of a machine whose status was `before`, as soon as the decision's status is recorded."""
    found = [_of_transition(transition) for transition in decision.transitions]
    told, failure = {item.reason for item in found}, decision.failure
    if failure is not None and failure.reason not in told:
        found.append(_of_failure(spec, failure))
        told.add(failure.reason)
    told |= {condition.reason for condition in before.conditions}
    return (*found, *_of_conditions(decision.status, told))


def parting(before: BareMetalMachineStatus, decision: Decision) -> News | None:
    """What was skipped, where a record is let go of with something still installed."""
    if before.installed is None:
        return None
    note = f"{decision.message} Skipped: the release of {before.installed.image or 'what was adopted'}"
    note += f", owner {before.owner}." if before.owner else "."
    return News("Warning", decision.reason, "LetGo", note, note)


def _of_transition(transition: Transition) -> News:
    after = transition.after.value if transition.after else "unknown"
    note = f"{after}: {transition.message}"
    bad = transition.after in (Phase.FAILED, Phase.BROKEN)
    return News("Warning" if bad else "Normal", transition.reason, after, note, note)


def _of_failure(spec: BareMetalMachineSpec, failure: Failure) -> News:
    """Told by its own sentence, whichever attempt it was: attempts that fail alike are one Event."""
    note = f"{failure.message} {_what_follows(spec, failure)}"
    return News("Warning", failure.reason, failure.operation, note, failure.message)


def _what_follows(spec: BareMetalMachineSpec, failure: Failure) -> str:
    """Which attempt comes next; when, is in the condition, where it is replaced and not kept."""
    most = limits(spec, failure.operation)[1]
    if failure.attempt < most:
        return f"Attempt {failure.attempt + 1} of {most} follows."
    return f"That was attempt {failure.attempt} of {most}."


def _of_conditions(after: BareMetalMachineStatus, told: Collection[str]) -> list[News]:
    """A machine that begins to wait for a person, or whose BMC falls silent, says so unless it was told already."""
    for kind, bad in ((ConditionType.STALLED, "True"), (ConditionType.BMC_REACHABLE, "False")):
        now = _condition(after, kind)
        if now is not None and now.status == bad and now.reason not in told:
            return [News("Warning", now.reason, "Reconcile", now.message, now.message)]
    return []


def _condition(status: BareMetalMachineStatus, kind: ConditionType) -> Condition | None:
    return next((c for c in status.conditions if c.type == kind), None)
