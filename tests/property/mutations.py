"""Tables that are wrong in one place: without a row, a row without one of its guards, two rows in the wrong order.

Each is known by a small value, and each reading of the right table shows which of them would read otherwise there:
from those worlds they are tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_

import pytest

from rackwright.api.machine import Phase
from rackwright.lifecycle import decide
from rackwright.lifecycle.guards import Guard
from rackwright.lifecycle.table import LOCKED, TABLE, Row
from rackwright.lifecycle.world import World

ROWS = (*TABLE, LOCKED)
"""What can be taken away; of LOCKED, that it stands in."""
NUMBERS = {id(row): number for number, row in enumerate(ROWS)}


@contextmanager
def table(rows: Sequence[Row], *, locks: bool = True) -> Iterator[None]:
    """With another table than the right one; without `locks`, LOCKED stands in for nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decide, "TABLE", tuple(rows))
        if not locks:
            patch.setattr(decide, "applies", lambda row, _: row)
        yield


@dataclass(frozen=True, slots=True)
class Removed:
    """A row isn't there."""

    row: int

    def rows(self) -> Sequence[Row]:
        """The table without it."""
        return [row for number, row in enumerate(TABLE) if number != self.row]

    def __str__(self) -> str:
        return f"without {told(self.row)}"


@dataclass(frozen=True, slots=True)
class Unguarded:
    """A row lacks one of its guards."""

    row: int
    guard: int

    def rows(self) -> Sequence[Row]:
        """The table with a row that applies more often."""
        row = TABLE[self.row]
        kept = (guard for number, guard in enumerate(row.when.joined) if number != self.guard)
        return [*TABLE[: self.row], replace(row, when=reduce(and_, kept)), *TABLE[self.row + 1 :]]

    def __str__(self) -> str:
        return f'without "{TABLE[self.row].when.joined[self.guard].name}" in {told(self.row)}'


@dataclass(frozen=True, slots=True)
class Swapped:
    """A row is read before the one above it."""

    row: int

    def rows(self) -> Sequence[Row]:
        """The table with the two the other way round."""
        above = self.row - 1
        return [*TABLE[:above], TABLE[self.row], TABLE[above], *TABLE[self.row + 1 :]]

    def __str__(self) -> str:
        return f"with {told(self.row)} before the one above it"


Mutation = Removed | Unguarded | Swapped

REMOVALS: tuple[Mutation, ...] = tuple(Removed(number) for number in range(len(ROWS)))
UNGUARDED: tuple[Mutation, ...] = tuple(
    Unguarded(number, guard) for number, row in enumerate(TABLE) for guard in range(len(row.when.joined))
)
SWAPPED: tuple[Mutation, ...] = tuple(Swapped(number) for number in range(1, len(TABLE)))


def told(number: int) -> str:
    """A row, for a person."""
    row = ROWS[number]
    at = ", ".join(str(phase) for phase in row.at) if len(row.at) < len(ROWS[0].at) else "any phase"
    return f"row {number + 1}, {at}: when {row.when.name}: {type(row.do).__name__} {row.because}"


@contextmanager
def wrong(mutation: Mutation) -> Iterator[None]:
    """With a table that is wrong there."""
    lockless = isinstance(mutation, Removed) and ROWS[mutation.row] is LOCKED
    with table(TABLE if lockless else mutation.rows(), locks=not lockless):
        yield


# --- which of them a reading shows -----------------------------------------------------------------------------------

_AT: dict[Phase | None, list[tuple[int, tuple[Guard, ...]]]] = {
    phase: [(number, row.when.joined or (row.when,)) for number, row in enumerate(TABLE) if phase in row.at]
    for phase in (None, *Phase)
}


def shown(world: World, row: Row) -> Iterator[Mutation]:
    """The mutations that read otherwise than the right table, which reads `row` in this world."""
    number = NUMBERS.get(id(row))
    if number is None:
        return
    yield Removed(number)
    if row is LOCKED:
        return
    for above, guards in _AT[world.status.phase]:
        if above >= number:
            break
        failing = _only_failing(world, guards) if len(guards) > 1 else None
        if failing is not None:
            yield Unguarded(above, failing)
    below = number + 1
    if below < len(TABLE) and world.status.phase in TABLE[below].at and TABLE[below].when(world):
        yield Swapped(below)


def _only_failing(world: World, guards: Sequence[Guard]) -> int | None:
    """The one guard that doesn't hold, if the others do."""
    failing = None
    for number, guard in enumerate(guards):
        if not guard(world):
            if failing is not None:
                return None
            failing = number
    return failing
