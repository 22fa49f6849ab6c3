"""Troubleshooting: every reason that the code can give has its remedy, and no remedy is for a reason that it can't."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.lifecycle.worlds import world

import rackwright
from rackwright import bmcs
from rackwright.agent.client import AgentFault
from rackwright.api.machine import Phase
from rackwright.install import faults
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.reasons import FAULTS, SENTENCES, THE_BMC_FAULT, THE_FAULT, THE_OBSTACLE
from rackwright.lifecycle.steps import Record, Rest
from rackwright.lifecycle.table import LOCKED, TABLE

PACKAGE = Path(rackwright.__file__).parent
PAGE = PACKAGE / "lifecycle/phases/TROUBLESHOOTING.md"

UNRECORDED = "Failed"
"""Stands for a failure that is in status no more."""

TABLES = {
    "_REASONS[error.fault]": set(bmcs._REASONS.values()),
    "row.reason": {row.reason for row in faults._TABLE},
    "f'Agent{error.fault.value}'": {
        f"Agent{fault}" for fault in AgentFault if fault not in (AgentFault.BUSY, AgentFault.UNREACHABLE)
    },
}
"""Reasons that aren't written where the fault is made, by the expression that stands there."""


def remedies() -> dict[str, tuple[str, ...]]:
    """What the page says, by reason: what it means, what to do."""
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| `", line)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {reason.strip("`"): tuple(rest) for reason, *rest in cells}
    assert len(found) == len(lines), "a reason has two remedies"
    return found


def of_rows() -> set[str]:
    """Reasons of the rows that people get to see while the machine isn't Ready."""
    seen = {row.because for row in (*TABLE, LOCKED) if not isinstance(row.do, Record) and row.do != Rest()}
    return seen - {THE_FAULT, THE_BMC_FAULT, THE_OBSTACLE} | {UNRECORDED}


def faults_made(source: str) -> Iterator[str]:
    """The reasons of the faults that a module makes, from its text."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Fault":
                named = {keyword.arg: keyword.value for keyword in call.keywords}
                yield from _reasons(named["reason"] if "reason" in named else call.args[1], function)


def _reasons(expression: ast.expr, function: ast.AST) -> set[str]:
    match expression:
        case ast.Constant(str(reason)):
            return {reason}
        case ast.Name(name):
            assigned = {value for node in ast.walk(function) for value in _assigned(node, name)}
            assert assigned, f"nobody knows what {name} is"
            return assigned
        case _:
            return TABLES[ast.unparse(expression)]


def _assigned(node: ast.AST, name: str) -> Iterator[str]:
    """The words that an assignment gives to a name, alone or beside others."""
    if not isinstance(node, ast.Assign):
        return
    (target,) = node.targets
    pairs = (
        zip(target.elts, node.value.elts, strict=True)
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
        else [(target, node.value)]
    )
    for to, value in pairs:
        if isinstance(to, ast.Name) and to.id == name:
            assert isinstance(value, ast.Constant), f"{name} is no plain word"
            yield str(value.value)


def of_faults() -> set[str]:
    """The reasons of all faults."""
    made = {reason for file in PACKAGE.rglob("*.py") for reason in faults_made(file.read_text())}
    assert set().union(*TABLES.values()) <= made, "a table that no fault is made from"
    return made | set(FAULTS)


def test_every_reason_has_a_remedy_and_every_remedy_a_reason() -> None:
    assert sorted(remedies()) == sorted(of_rows() | of_faults())


def test_a_remedy_is_a_sentence() -> None:
    for reason, (meaning, remedy) in remedies().items():
        assert meaning, reason
        assert re.match(r"[A-Z`].*[.)]$", remedy), reason


def test_reasons_are_found_however_the_code_writes_them() -> None:
    source = """
def one(late):
    raise Obstructed(Fault(Blame.BMC, "Plain", "It."))
async def two(late):
    if late:
        reason, message = "Late", "It is late."
    else:
        reason = "Early"
    return Fault(Blame.BMC, message=message, reason=reason)
"""
    assert sorted(faults_made(source)) == ["Early", "Late", "Plain"]


@pytest.mark.parametrize("source", ["def a():\n    Fault(b, c(d), e)", "def a(c):\n    Fault(b, c, e)"])
def test_a_reason_that_cannot_be_found_is_noticed(source: str) -> None:
    with pytest.raises((KeyError, AssertionError)):
        list(faults_made(source))


def test_a_failure_that_is_in_status_no_more_has_a_reason_too() -> None:
    here = world(Phase.FAILED)

    assert decide(here.with_status(here.status.model_copy(update={"last_failure": None}))).reason == UNRECORDED


def test_every_sentence_is_of_a_row() -> None:
    assert set(SENTENCES) == {row.because for row in (*TABLE, LOCKED)} - {THE_FAULT, THE_BMC_FAULT, THE_OBSTACLE}
