"""A small part of what `hack/lifecycle-check` explores, and that what is wrong in a table is found there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
from tests.property.alphabet import FAMILIES, Family
from tests.property.exhaustive import Explored, explore
from tests.property.removals import ROWS, found_out, table, without

from rackwright.lifecycle.guards import allocation_declared
from rackwright.lifecycle.table import LOCKED, TABLE, Row

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


def test_every_world_of_some_families_keeps_the_invariants_and_settles() -> None:
    found = explored()

    assert [str(violation) for violation in found.violations] == []
    assert found.settled == found.worlds
    assert found.edges > found.worlds > 1000


def test_a_second_search_finds_the_same() -> None:
    def counts() -> tuple[int, int]:
        found = explore(Family("locked", ("ready",), ("lock", "unlock")), 1)
        return found.worlds, found.edges

    assert counts() == counts()


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(row("ImageWritten", "Deploying"), id="a written image is written again"),
        pytest.param(row("DisksErased", "Releasing"), id="an erase is never over"),
        pytest.param(row("EvidenceReturned", "Releasing"), id="evidence is lost"),
        pytest.param(row("StartingFromOff", "Deploying"), id="it is not switched off first"),
        pytest.param(row("IdleIsOff", "Ready"), id="an idle machine stays on"),
        pytest.param(row("ErasingDisks", "Releasing"), id="policy that changed is too late"),
        pytest.param(ROWS.index(LOCKED), id="a lock stops nothing"),
    ],
)
def test_a_table_without_a_row_is_found_out(number: int) -> None:
    assert found_out(explored().witnesses[number], lambda: without(number)) is not None


def test_a_row_without_one_of_its_guards_is_found_out() -> None:
    given = row("AllocationDeclared", "Ready")
    hasty = [replace(r, when=allocation_declared) if r is ROWS[given] else r for r in TABLE]

    assert found_out(explored().witnesses[row("ReadinessGatesClosed", "Ready")], lambda: table(hasty)) is not None


def test_two_rows_in_the_wrong_order_are_found_out() -> None:
    kept, pool = row("AwaitingDeployment", "Allocated"), row("DeploymentDeclared", "Allocated")
    rows: Sequence[Row] = list(TABLE)
    swapped = [rows[{kept: pool, pool: kept}.get(i, i)] for i in range(len(rows))]

    assert found_out(explored().witnesses[pool], lambda: table(swapped)) is not None


def test_the_right_table_is_not_found_out() -> None:
    assert found_out(explored().witnesses[row("ImageWritten", "Deploying")], lambda: table(TABLE)) is None
