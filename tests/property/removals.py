"""The exhaustive search can fail: it is asked of tables that lack a row, from the worlds in which that row applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import pytest
from tests.property.alphabet import EXPECTED
from tests.property.exhaustive import Explored, Found, Search, Violation, Witness, copied
from tests.property.likeness import likeness

from rackwright.lifecycle import decide
from rackwright.lifecycle.table import LOCKED, TABLE, Row

ROWS = (*TABLE, LOCKED)
"""What can be taken away; of LOCKED, that it stands in."""
FROM_WITNESSES, NEAR_WITNESSES = 24, 6
"""How many witnesses of a row are asked what follows at once, and how many what is around them."""
WORLDS_AROUND = 30
"""How many worlds are looked at around one witness."""


@contextmanager
def table(rows: Sequence[Row], *, locks: bool = True) -> Iterator[None]:
    """With another table than the right one; without `locks`, LOCKED stands in for nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decide, "TABLE", tuple(rows))
        if not locks:
            patch.setattr(decide, "applies", lambda row, _: row)
        yield


def without(number: int) -> AbstractContextManager[None]:
    """With the table less one row."""
    return table([row for row in TABLE if row is not ROWS[number]], locks=ROWS[number] is not LOCKED)


def found_out(witnesses: Sequence[Witness], wrong: Callable[[], AbstractContextManager[None]]) -> Violation | None:
    """What shows that a table is wrong: what follows from its witnesses, else what is around some of them.

    Around them the right table is asked as well: what it does wrong there too doesn't count.
    """
    for number, most in ((FROM_WITNESSES, 1), (NEAR_WITNESSES, WORLDS_AROUND)):
        for witness in _spread(witnesses, number):
            with wrong():
                violation = _around(witness, most)
            if violation is not None and _around(witness, most) is None:
                return violation
    return None


def _spread(witnesses: Sequence[Witness], number: int) -> Sequence[Witness]:
    """So many of them, of early and late families."""
    return witnesses[:: max(1, len(witnesses) // number)][:number]


def _around(witness: Witness, most: int) -> Violation | None:
    """The first violation that is found from a witness's event onwards, without further surprises."""
    explored = Explored()
    search = Search(witness.changes, explored)
    found = list(search.follow(Found(witness.history, None, "a witness"), [witness.event]))
    for here in found:  # which grows
        if explored.violations or explored.worlds >= most:
            break
        if here.history.rig.exists:
            found.extend(search.follow(here, (*EXPECTED, *search.changes)))
    return explored.violations[0] if explored.violations else None


def differs(witnesses: Sequence[Witness], wrong: Callable[[], AbstractContextManager[None]]) -> bool:
    """Whether a table does something else at one of the witnesses, beyond what it says about it."""
    for witness in _spread(witnesses, FROM_WITNESSES):
        likenesses = []
        for meanwhile in (nullcontext(), wrong()):
            history = copied(witness.history)
            history.rig.watch = None
            with meanwhile:
                witness.event.happens(history)
            likenesses.append(likeness(history))
        if likenesses[0] != likenesses[1]:
            return True
    return False


# --- all of them -------------------------------------------------------------------------------------------------


@dataclass
class Removals:
    """What became of each row's removal, by the row's number."""

    caught: dict[int, Violation] = field(default_factory=dict)
    only_said: list[int] = field(default_factory=list)
    """What is done stays the same at every witness: the row gives a reason, or one below does as much."""
    not_missed: list[int] = field(default_factory=list)
    """Something else is done, which breaks no promise."""
    not_reached: list[int] = field(default_factory=list)
    """No world had it: nothing is said of it."""

    def __str__(self) -> str:
        """A line that counts, and the rows that are not caught, each with its number."""
        lines = [f"removals    {len(self.caught)} of {len(ROWS)} rows are missed when they are gone"]
        for because, numbers in (
            ("nothing else is done without", self.only_said),
            ("something else is done, and no promise is broken, without", self.not_missed),
            ("not reached", self.not_reached),
        ):
            lines += [f"  {because}: {told(number)}" for number in numbers]
        return "\n".join(lines)


def told(number: int) -> str:
    """A row, for a person."""
    row = ROWS[number]
    at = ", ".join(str(phase) for phase in row.at) if len(row.at) < len(ROWS[0].at) else "any phase"
    return f"row {number + 1}, {at}: when {row.when.name}: {type(row.do).__name__} {row.because}"


def of_every_row(witnesses: Mapping[int, Sequence[Witness]]) -> Removals:
    """Take each row away in turn."""
    removals = Removals()
    for number in range(len(ROWS)):
        there, wrong = witnesses.get(number, ()), partial(without, number)
        violation = found_out(there, wrong)
        if not there:
            removals.not_reached.append(number)
        elif violation is not None:
            removals.caught[number] = violation
        elif differs(there, wrong):
            removals.not_missed.append(number)
        else:
            removals.only_said.append(number)
    return removals
