"""The life-cycle as documentation, drawn from the rows that the operator reads.

The README has the whole table and a diagram; each phase's page has what the rows say of that phase.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.reasons import THE_BMC_FAULT, THE_FAULT, THE_OBSTACLE, sentence
from rackwright.lifecycle.steps import Action, Advance, Begin, Fail, Hold, LetGo, Record, Rest, Wait
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
    body = "\n".join(
        f"    {_node(before)} --> {_node(after)}: {_label(reasons)}" for (before, after), reasons in _arrows().items()
    )
    return f"```mermaid\nstateDiagram-v2\n{body}\n    Deployed --> [*]: released, then Deleted\n```"


def facts(phase: Phase) -> str:
    """What the rows say of one phase: how it is entered and left, and what `kubectl get` may show meanwhile."""
    arrows = _arrows()
    ways_in = [(_named(before), _label(reasons)) for (before, after), reasons in arrows.items() if after is phase]
    ways_out = [(_named(after), _label(reasons)) for (before, after), reasons in arrows.items() if before is phase]
    gone = [row.because for row in TABLE if phase in row.at and isinstance(row.do, LetGo)]
    return "\n\n".join(
        (
            _markdown(("comes from", "because"), ways_in),
            _markdown(("goes on to", "because"), [*ways_out, ("(gone)", ", ".join(dict.fromkeys(gone)))]),
            _shown([row for row in TABLE if phase in row.at and tuple(row.at) != ANY]),
        )
    )


def anywhere() -> str:
    """What `kubectl get` may show in every phase."""
    return _shown([*(row for row in TABLE if tuple(row.at) == ANY), LOCKED])


def _shown(rows: Iterable[Row]) -> str:
    """The rows that people get to see, a line each reason; a record is followed by another row before anybody looks."""
    alike: dict[str, list[Row]] = {}
    for row in rows:
        if not isinstance(row.do, Record):
            alike.setdefault(row.because, []).append(row)
    lines = [
        (
            f"({because})" if (because := _because(same[0])) != reason else reason,
            _distinct("True" if _health(row) == "Current" else "False" for row in same),
            _distinct(map(_health, same)),
            _distinct(map(_step, same)),
            "see [troubleshooting](TROUBLESHOOTING.md)" if reason in _FAULTS else _said(reason),
        )
        for reason, same in alike.items()
    ]
    return _markdown(("REASON", "READY", "kstatus", "the operator", "in words"), lines)


def _health(row: Row) -> str:
    """What kstatus makes of the conditions that go with a row."""
    match row.do:
        case Rest(settled=True):
            return "Current"
        case Hold():
            return "Failed"
        case _:
            return "InProgress"


def _said(reason: str) -> str:
    return sentence(reason).replace("{name}", "it")


def _distinct(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _markdown(heading: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = "---".join("|" * (len(heading) + 1))
    return "\n".join((_line(heading), rule, *map(_line, lines)))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _arrows() -> dict[tuple[Phase | None, Phase | None], list[str]]:
    """From phase to phase, with every reason for it."""
    arrows: dict[tuple[Phase | None, Phase | None], list[str]] = {}
    for row in TABLE:
        for before in row.at:
            for after in _destinations(row):
                if after != before:
                    reasons = arrows.setdefault((before, after), [])
                    reasons += [because] if (because := _because(row)) not in reasons else []
    return arrows


def _destinations(row: Row) -> Iterable[Phase | None]:
    match row.then:
        case Then.STAY:
            return (Phase.FAILED,) if isinstance(row.do, Fail) and _may_fail(row) else ()
        case Then.RETURN:
            return (Phase.READY, Phase.ALLOCATED, Phase.DEPLOYED, Phase.BROKEN, Phase.FAILED)
        case phase:
            return (phase,)


def _label(reasons: list[str]) -> str:
    return _distinct("attempts used up" if "failure" in reason else reason for reason in reasons)


def _node(phase: Phase | None) -> str:
    return phase.value if phase is not None else "[*]"


def _named(phase: Phase | None) -> str:
    return f"[{phase}]({phase}.md)" if phase is not None else "(none yet)"


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
