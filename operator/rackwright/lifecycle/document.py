"""The life-cycle as documentation: the README's table and diagram, drawn from the rows that the operator reads."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.reasons import THE_BMC_FAULT, THE_FAULT, THE_OBSTACLE
from rackwright.lifecycle.steps import Action, Advance, Begin, Fail, Rest, Wait
from rackwright.lifecycle.table import ANY, LOCKED, RESTING, TABLE, TRANSIENT, WORKING, Row, Then

_FAULTS = {THE_FAULT, THE_BMC_FAULT, THE_OBSTACLE}


def table() -> str:
    """Every row, in order, as a Markdown table."""
    lines = ["| # | in phase | when | do | then | because |", "|--:|---|---|---|---|---|"]
    for number, row in (*enumerate(TABLE, 1), ("*", LOCKED)):
        cells = (str(number), _phases(row), row.when.name, _step(row), _then(row), _because(row))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n\\* instead of any row that would do something to the machine."


def diagram() -> str:
    """The transitions between phases as a Mermaid state diagram; several reasons for one arrow share it."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for row in TABLE:
        for before in row.at:
            for after in _destinations(row):
                if after != before:
                    reasons = arrows.setdefault((_node(before), _node(after)), [])
                    reasons += [because] if (because := _because(row)) not in reasons else []
    body = "\n".join(f"    {before} --> {after}: {_label(reasons)}" for (before, after), reasons in arrows.items())
    return f"```mermaid\nstateDiagram-v2\n{body}\n    Deployed --> [*]: released, then Deleted\n```"


def _destinations(row: Row) -> Iterable[Phase | None]:
    match row.then:
        case Then.STAY:
            return (Phase.FAILED,) if isinstance(row.do, Fail) and _may_fail(row) else ()
        case Then.RETURN:
            return (Phase.READY, Phase.ALLOCATED, Phase.DEPLOYED, Phase.BROKEN, Phase.FAILED)
        case phase:
            return (phase,)


def _label(reasons: list[str]) -> str:
    return "attempts used up" if any("failure" in reason for reason in reasons) else ", ".join(reasons)


def _node(phase: Phase | None) -> str:
    return phase.value if phase is not None else "[*]"


def _phases(row: Row) -> str:
    for phases, name in (
        (ANY, "any"),
        (TRANSIENT, "any transient"),
        (WORKING, "any working"),
        (RESTING, "any at rest"),
    ):
        if tuple(row.at) == phases:
            return name
    return ", ".join(phase.value if phase is not None else "(none yet)" for phase in row.at)


def _step(row: Row) -> str:
    match row.do:
        case Begin(operation):
            return f"begin *{_words(operation)}*"
        case Advance(stage):
            return f"go on to *{_words(stage)}*"
        case Fail(final=True):
            return "fail for good"
        case Fail():
            return "fail the attempt"
        case Wait():
            return "wait"
        case Rest(settled=False):
            return "rest, not Ready"
        case step:
            words = _words(type(step).__name__)
            return f"**{words}**" if isinstance(step, Action) else words.lower()


def _words(name: str | OperationName) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(name)).capitalize()


def _then(row: Row) -> str:
    match row.then:
        case Then.STAY:
            return _failed(row, row.do) if isinstance(row.do, Fail) else "—"
        case Then.RETURN:
            return "where it came from"
        case phase:
            return f"**{phase}**"


def _failed(row: Row, step: Fail) -> str:
    if step.final:
        return "**Failed**"
    return "Failed when attempts are used up" if _may_fail(row) else "given up when attempts are used up"


def _may_fail(row: Row) -> bool:
    """Whether the machine is Failed when the attempts are used up; a restart is no more than given up."""
    return set(row.at) <= set(TRANSIENT)


def _because(row: Row) -> str:
    return row.because.strip("()") if row.because in _FAULTS else row.because
