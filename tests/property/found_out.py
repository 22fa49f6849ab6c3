"""The exhaustive search can fail: it is asked of tables that are wrong in one place, from worlds where that shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from tests.property.alphabet import EXPECTED
from tests.property.exhaustive import Explored, Found, Search, Violation, Witness, copied
from tests.property.mutations import Mutation, Removed, wrong
from tests.property.rig import Moment, Rig

FROM_WITNESSES, NEAR_WITNESSES = 24, 6
"""How many witnesses of a row are asked what follows at once, and how many what is around them."""
WORLDS_AROUND = 30
"""How many worlds are looked at around one witness."""


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
    """Whether a table does or says something else at one of the witnesses."""
    return any(
        _told(witness, nullcontext()) != _told(witness, wrong()) for witness in _spread(witnesses, FROM_WITNESSES)
    )


def _told(witness: Witness, meanwhile: AbstractContextManager[None]) -> Sequence[object]:
    """What is done, said and recorded from a witness's event on."""
    told: list[object] = []

    def watch(rig: Rig, moment: Moment) -> None:
        told.append((moment.decision, moment.action, rig.stored))

    history = copied(witness.history)
    history.rig.watch = watch
    with meanwhile:
        witness.event.happens(history)
    return told


# --- all of them -------------------------------------------------------------------------------------------------


NOT_MISSED: Mapping[Mutation, str] = {}
"""Tables that may do or say something else, and why nobody is the worse for it."""


@dataclass
class Outcome:
    """What became of some wrong tables."""

    caught: dict[Mutation, Violation] = field(default_factory=dict)
    not_missed: list[Mutation] = field(default_factory=list)
    """Something else is done or said, and no promise is broken."""
    same: list[Mutation] = field(default_factory=list)
    """What is done and said is the same at every witness."""
    not_shown: list[Mutation] = field(default_factory=list)
    """No reading that was reached is another one: the rows above, or the other guards, say as much."""

    def unexcused(self, *, everywhere: bool) -> list[Mutation]:
        """What ought to have been found out.

        A row without which nothing is otherwise is a dead one, if `everywhere` was looked: in all families, with a
        surprise.
        """
        idle = (*self.same, *self.not_shown) if everywhere else ()
        dead = [mutation for mutation in idle if isinstance(mutation, Removed)]
        return [mutation for mutation in (*self.not_missed, *dead) if mutation not in NOT_MISSED]


def of_every(mutations: Iterable[Mutation], witnesses: Mapping[Mutation, Sequence[Witness]]) -> Outcome:
    """Try each of them in turn."""
    outcome = Outcome()
    for mutation in mutations:
        there, meanwhile = witnesses.get(mutation, ()), partial(wrong, mutation)
        violation = found_out(there, meanwhile)
        if not there:
            outcome.not_shown.append(mutation)
        elif violation is not None:
            outcome.caught[mutation] = violation
        elif differs(there, meanwhile):
            outcome.not_missed.append(mutation)
        else:
            outcome.same.append(mutation)
    return outcome
