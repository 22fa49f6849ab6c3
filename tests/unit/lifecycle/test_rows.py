"""The table as a whole: it has a row for every world, every row is needed, and each says why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from tests.unit.lifecycle.every_world import worlds

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle import decide, document
from rackwright.lifecycle.operations import recorded
from rackwright.lifecycle.reasons import FAULTS, SENTENCES, THE_BMC_FAULT, THE_FAULT, THE_OBSTACLE
from rackwright.lifecycle.steps import Action, Advance, Begin, Fail, Hold, Pause, Record, Rest, Stage, Wait
from rackwright.lifecycle.table import LOCKED, TABLE, Row, Then
from rackwright.lifecycle.world import World

BROUGHT = {THE_FAULT, THE_BMC_FAULT, THE_OBSTACLE}
"""Reasons that a fault brings with it."""


def test_every_reason_has_a_sentence_and_every_sentence_a_row() -> None:
    reasons = {row.because for row in (*TABLE, LOCKED)} - BROUGHT

    assert reasons == set(SENTENCES)


def test_every_fault_that_the_table_finds_is_named_by_its_reason() -> None:
    found = {row.do.fault.reason for row in TABLE if isinstance(row.do, Fail) and row.do.fault is not None}

    assert found == set(FAULTS) - {"AgentError"}
    assert all(name == fault.reason for name, fault in FAULTS.items())


@pytest.mark.parametrize("sentence", [*SENTENCES.values(), *(fault.message for fault in FAULTS.values())])
def test_every_sentence_is_one_for_a_person(sentence: str) -> None:
    assert sentence[0].isupper() or sentence.startswith(("spec.", "release."))
    assert sentence.endswith((".", "?"))


@pytest.mark.parametrize("row", TABLE, ids=[f"{n} {row.because}" for n, row in enumerate(TABLE, 1)])
def test_only_a_record_leads_to_another_phase(row: Row) -> None:
    assert isinstance(row.do, Record) or row.then is Then.STAY
    assert isinstance(row.do, Record | Action | Pause)


@cache
def readings() -> tuple[frozenset[int], int]:
    """The rows that apply in some world, by their place, and the most records that one reading makes."""
    applied, longest = set(), 0
    for world in (*worlds(40_000), *worlds(300, torn=True)):
        rows = list(read(world))
        applied |= {TABLE.index(row) for row in rows if row is not LOCKED}
        longest = max(longest, len(rows) - 1)
    return frozenset(applied), longest


def read(world: World) -> Iterator[Row]:
    """The rows of one reading: records, and then an action or a pause."""
    for _ in range(decide._LONGEST_READING):
        row = decide.matching_row(world)
        yield row
        if not isinstance(row.do, Record):
            return
        status = recorded(row.do, world, to=decide.destination(row, world))
        world = decide._after(world, status, row)
    raise AssertionError(f"the table reads in circles at {world.status.phase}")


def test_every_world_has_a_row_and_every_row_a_world() -> None:
    applied, _ = readings()

    assert [f"{n + 1} {TABLE[n].when.name}" for n in range(len(TABLE)) if n not in applied] == []


def test_the_longest_reading_is_shorter_than_the_limit() -> None:
    _, longest = readings()

    assert 5 <= longest < decide._LONGEST_READING


def test_no_decision_waits_without_a_deadline_or_looks_away_for_ever() -> None:
    for world in worlds(1_500):
        decision = decide.decide(world)
        assert decision.reason.isidentifier()
        assert decision.message
        match decision.step:
            case Wait():
                assert decision.status.operation is not None
                assert decision.look_again.total_seconds() > 0
            case Rest() | Hold():
                assert decision.look_again == world.policy.poll
            case _:
                assert isinstance(decision.step, Action)


def test_a_decision_that_was_recorded_is_not_recorded_again() -> None:
    for world in worlds(1_500):
        first = decide.decide(world)
        seen = replace(world.seen, agent=None, kept=None)
        again = decide.decide(replace(world, status=first.status, hurry=False, seen=seen))
        if again.step == first.step and isinstance(first.step, Action):
            assert not again.announces(first.status), first.reason


def test_every_operation_is_begun_by_some_row_and_every_stage_is_come_to() -> None:
    begun = {row.do.operation for row in TABLE if isinstance(row.do, Begin)}
    come_to = {row.do.stage for row in TABLE if isinstance(row.do, Action | Advance)}

    assert begun == set(OperationName)
    assert come_to == {None, *Stage} - {Stage.START}


def test_the_documentation_has_a_line_for_every_row_and_an_arrow_for_every_phase() -> None:
    table, diagram = document.table().splitlines(), document.diagram()

    assert len([line for line in table if line.startswith("|")]) == len(("heading", "rule", *TABLE, LOCKED))
    assert all(f"--> {phase}" in diagram and f"{phase} -->" in diagram for phase in Phase)
