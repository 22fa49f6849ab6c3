"""A small part of what `hack/lifecycle-check` explores, and that what is wrong in a table is found there."""

from __future__ import annotations

from functools import cache

import pytest
from tests.property.alphabet import FAMILIES, Family
from tests.property.exhaustive import Explored, explore
from tests.property.found_out import NOT_MISSED, found_out, of_every
from tests.property.mutations import (
    REMOVALS,
    ROWS,
    SWAPPED,
    UNGUARDED,
    Mutation,
    Removed,
    Swapped,
    Unguarded,
    table,
    wrong,
)

from rackwright.lifecycle.table import LOCKED, TABLE

SMALL = {"power": 1, "lock": 0, "gates": 0, "erase policy": 1, "by hand": 0, "a deployment": 0}
"""Families that are explored here, with so many surprises."""


@cache
def explored() -> Explored:
    """All of the small families, once."""
    together = Explored()
    for family in FAMILIES:
        if family.name in SMALL:
            explore(family, SMALL[family.name], together)
    return together


def row(because: str, at: str) -> int:
    """The number of the first row that says so there."""
    return next(i for i, row in enumerate(ROWS) if row.because == because and at in row.at)


def guard(name: str, of: int) -> int:
    """The number of that guard among a row's."""
    return next(i for i, guard in enumerate(TABLE[of].when.joined) if guard.name == name)


def test_every_world_of_some_families_keeps_the_promises_and_settles() -> None:
    found = explored()

    assert [str(violation) for violation in found.violations] == []
    assert found.settled == found.worlds
    assert found.edges > found.worlds > 1000


def test_a_second_search_finds_the_same() -> None:
    def counts() -> tuple[int, int]:
        found = explore(Family("locked", ("ready",), ("lock", "unlock")), 1)
        return found.worlds, found.edges

    assert counts() == counts()


ALLOCATION, ERASE = row("AllocationDeclared", "Ready"), row("DisksErased", "Releasing")


@pytest.mark.parametrize(
    "mutation",
    [
        pytest.param(Removed(row("ImageWritten", "Deploying")), id="a written image is written again"),
        pytest.param(Removed(ERASE), id="an erase is never over"),
        pytest.param(Removed(row("EvidenceReturned", "Releasing")), id="evidence is lost"),
        pytest.param(Removed(row("StartingFromOff", "Deploying")), id="it is not switched off first"),
        pytest.param(Removed(row("IdleIsOff", "Ready")), id="an idle machine stays on"),
        pytest.param(Removed(row("ErasingDisks", "Releasing")), id="policy that changed is too late"),
        pytest.param(Removed(row("AwaitingStartFromDisk", "Deploying")), id="a person isn't told whom it waits for"),
        pytest.param(Removed(row("NothingToRestart", "Ready")), id="a restart that needs nothing is never done"),
        pytest.param(Removed(row("ReadinessGatesClosed", "Ready")), id="a closed gate is no secret"),
        pytest.param(Removed(ROWS.index(LOCKED)), id="a lock stops nothing"),
        pytest.param(Unguarded(ALLOCATION, guard("not gates closed", ALLOCATION)), id="a gate is passed by"),
        pytest.param(Swapped(row("PowerOnWanted", "Ready")), id="what is switched on is restarted after that"),
    ],
)
def test_a_table_that_is_wrong_in_one_place_is_found_out(mutation: Mutation) -> None:
    assert found_out(explored().witnesses[mutation], lambda: wrong(mutation)) is not None


def test_the_right_table_is_not_found_out() -> None:
    witnesses = explored().witnesses[Removed(row("ImageWritten", "Deploying"))]

    assert found_out(witnesses, lambda: table(TABLE)) is None


def test_a_reading_shows_only_tables_that_read_otherwise() -> None:
    shown = {type(mutation) for mutation in explored().witnesses}

    assert shown == {Removed, Unguarded, Swapped}
    assert set(explored().witnesses) <= {*REMOVALS, *UNGUARDED, *SWAPPED}


@pytest.mark.nightly
def test_every_row_every_guard_and_the_order_of_all_rows_is_missed() -> None:
    found = Explored()
    for family in FAMILIES:
        explore(family, 1, found)

    assert [str(violation) for violation in found.violations] == []
    for mutations in (REMOVALS, UNGUARDED, SWAPPED):
        outcome = of_every(mutations, found.witnesses)
        assert [str(mutation) for mutation in outcome.unexcused(everywhere=True)] == []
    assert set(NOT_MISSED) <= {*REMOVALS, *UNGUARDED, *SWAPPED}
