"""The log's line for a decision that changed something: whom, where it is now, what follows and why.

What went wrong, or waits for somebody, is a warning with its sentence; the rest is for whoever follows along.
"""

from __future__ import annotations

import logging

from rackwright.api.conditions import Condition, ConditionType
from rackwright.api.machine import BareMetalMachineStatus
from rackwright.lifecycle.decide import Decision
from rackwright.lifecycle.steps import Action
from rackwright.logs import Line
from rackwright.record import Machine

_BAD = ((ConditionType.STALLED, "True"), (ConditionType.BMC_REACHABLE, "False"))
"""Conditions that call upon somebody, and how they stand then."""


def recorded(machine: Machine, decision: Decision) -> tuple[int, Line]:
    """Level and line of a decision that was written to status."""
    before, status = machine.status, decision.status
    operation, trouble = status.operation, _turned(before, status)
    level, reason, sentence = logging.INFO, decision.reason, ""
    if decision.failure is not None:
        level, reason, sentence = logging.WARNING, decision.failure.reason, decision.failure.message
    elif trouble is not None:
        level, reason, sentence = logging.WARNING, trouble.reason, trouble.message
    return level, Line(
        sentence,
        machine=machine.key,
        phase=status.phase,
        was=before.phase if before.phase is not status.phase else None,
        step=operation.step if operation is not None else None,
        reason=reason,
        operation=operation.name if operation is not None else None,
        attempt=operation.attempt if operation is not None else None,
    )


def begun(machine: Machine, decision: Decision, action: Action) -> Line:
    """The line of an action that is carried out now."""
    return Line(machine=machine.key, step=type(action).__name__, reason=decision.reason, phase=machine.status.phase)


def _turned(before: BareMetalMachineStatus, after: BareMetalMachineStatus) -> Condition | None:
    """What begins to call upon somebody, if something does."""
    known = {(c.type, c.status, c.reason) for c in before.own_conditions}
    bad = (c for c in after.own_conditions if (c.type, c.status) in _BAD)
    return next((c for c in bad if (c.type, c.status, c.reason) not in known), None)
