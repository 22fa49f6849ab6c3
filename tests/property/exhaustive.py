"""Every abstract world that a machine can get to with so many surprises: breadth first, with the real `decide`.

Random histories may miss a corner; here there are none left, within what is said below. A *world* is a `History`: the
record, the operator's memory, the metal and the witness's chronicle. From each, every event of a fixed alphabet
happens (`alphabet.py`): a pass of the operator under each class of what it may observe, what metal and clock do, and
what people declare. The promises look at every pass, those of manners too, and from every world a willing machine has
to settle.

**What is abstract.** Two worlds are one if `likeness` says the same of both. Times become what they mean (overdue,
stage overdue, retry ahead, agent heard or lost, held up before), an attempt's id whose it is and its number first,
between or last, a trigger whether it was acted upon, history which operation gave up, the last failure its operation.
One concrete world stands for each class: the first that was found. What only another one of its class would do isn't
seen; the random histories may.

**What is bounded.** Three things, so that "every" is said of no more than was looked at:

- *Specs.* Each `Family` is a set of starts and of changes to spec, which people make in any order and as often as they
  like. Changes of different families are not mixed, and deadlines and numbers of attempts are the defaults but where a
  family changes them.
- *Surprises.* A pass, an agent that gets on and what people declare are nothing special and happen without limit.
  Whatever goes wrong (a silent BMC, a crash, a power failure, a jump of the clock, ...) is a surprise, and a history
  has no more of them than was asked for. A fault outside lasts for one event; one that lasts is several surprises.
- *The metal.* A command of the agent ends when the agent gets on, and the clock is never set.

**Settlement** is walked from every world, with everything well and a person who does what is asked for, until the way
meets one that was walked before: after a person has helped, only one that needs no more help.
"""

from __future__ import annotations

import copy
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tests.property.alphabet import EXPECTED, SURPRISES, Family, named
from tests.property.histories import Event, History, begun
from tests.property.likeness import likeness
from tests.property.mutations import Mutation, shown
from tests.property.rig import Moment, Rig

from rackwright.lifecycle import decide
from rackwright.lifecycle.table import Row
from rackwright.lifecycle.world import World

WITNESSES = 4
"""Per wrong table and family: early worlds that show it, from which it is tried."""


def copied(history: History) -> History:
    """A world to let something happen to; specs and stored status are values and stay shared."""
    rig, chronicle = copy.copy(history.rig), copy.copy(history.chronicle)
    rig.metal, rig.memory = rig.metal.as_it_is(), replace(rig.memory)
    chronicle.excused, chronicle.written = set(chronicle.excused), set(chronicle.written)
    chronicle.attempts = dict(chronicle.attempts)
    again = History(rig, chronicle)
    rig.watch = again.check
    return again


@dataclass(frozen=True)
class Violation:
    """What is wrong, and a way to it with as few surprises as it takes."""

    way: tuple[str, ...]
    because: str

    def __str__(self) -> str:
        return f"{self.because} ({', '.join(self.way)})"


@dataclass(frozen=True)
class Witness:
    """A world and an event that show a wrong table, and what people changed in its family."""

    history: History
    event: Event
    changes: tuple[Event, ...]


@dataclass
class Explored:
    """What a search found."""

    worlds: int = 0
    edges: int = 0
    passes: int = 0
    settled: int = 0
    violations: list[Violation] = field(default_factory=list)
    witnesses: dict[Mutation, list[Witness]] = field(default_factory=dict)
    """Where a table that is wrong in one place would be read otherwise."""


class AlreadySettles(Exception):
    """The rest of the way is known."""


@dataclass
class Settling:
    """Invariant 7 from many worlds: two ways that meet in one world are walked on once."""

    known: set[Hashable] = field(default_factory=set)
    unaided: set[Hashable] = field(default_factory=set)
    """Of these, the worlds that settle without a person's help: others may have used up theirs before they meet."""

    def holds(self, history: History) -> None:
        """AssertionError unless it settles."""
        rig = history.rig
        since_help: list[Hashable] = []
        before_help: list[Hashable] = []
        generation = rig.generation

        def watch(seen: Rig, moment: Moment) -> None:
            nonlocal generation, since_help
            history.check(seen, moment)
            if seen.generation != generation:
                generation = seen.generation
                before_help.extend(since_help)
                since_help = []
            like = likeness(history)
            if like in self.unaided or (not before_help and like in self.known):
                raise AlreadySettles
            since_help.append(like)

        rig.watch = watch
        met_unaided = True
        try:
            history.settles()
        except AlreadySettles:
            met_unaided = likeness(history) in self.unaided
        self.known.update(before_help, since_help)
        if met_unaided:
            self.unaided.update(since_help)


@contextmanager
def _noting(mutations: set[Mutation]) -> Iterator[None]:
    """With every mutation that a reading shows added to `mutations`."""
    real = decide.matching_row

    def matching_row(world: World) -> Row:
        row = real(world)
        mutations.update(shown(world, row))
        return row

    decide.matching_row = matching_row
    try:
        yield
    finally:
        decide.matching_row = real


@dataclass(frozen=True)
class Found:
    """A world, and how it came about."""

    history: History
    before: Found | None
    by: str
    """The event that led here, or the start."""

    def way(self) -> tuple[str, ...]:
        """The start, and the events since."""
        return (*(self.before.way() if self.before is not None else ()), self.by)


class Search:
    """One family's worlds, each followed once."""

    def __init__(self, changes: tuple[Event, ...], explored: Explored) -> None:
        self.changes = changes
        self._explored = explored
        self._settling = Settling()
        self._seen: set[Hashable] = set()
        self._shown: set[Mutation] = set()
        self._times: Counter[Mutation] = Counter()

    def add(self, found: Found) -> bool:
        """Whether it is a new one; that it settles is seen to at once."""
        like = likeness(found.history)
        if like in self._seen:
            return False
        self._seen.add(like)
        self._explored.worlds += 1
        if found.history.rig.exists:
            settling = copied(found.history)
            self._explored.settled += self._is_kept(found, lambda: self._settling.holds(settling))
        return True

    def follow(self, here: Found, events: Iterable[Event]) -> Iterator[Found]:
        """Let each event happen here; the worlds that are new."""
        for event in events:
            there = Found(copied(here.history), here, event.name)
            self._shown.clear()
            with _noting(self._shown):
                kept = self._is_kept(there, lambda: event.happens(there.history))  # noqa: B023 (called at once)
            self._explored.edges += 1
            self._explored.passes += bool(self._shown)
            self._note(here.history, event)
            if kept and self.add(there):
                yield there

    def _note(self, history: History, event: Event) -> None:
        for mutation in self._shown:
            self._times[mutation] += 1
            times = self._times[mutation]
            if times & (times - 1) == 0 or times <= WITNESSES:  # early ones, and some from far away
                self._explored.witnesses.setdefault(mutation, []).append(Witness(history, event, self.changes))

    def _is_kept(self, found: Found, happens: Callable[[], None]) -> bool:
        try:
            happens()
        except StopIteration:
            self._explored.violations.append(Violation(found.way(), "no row applies"))
            return False
        except AssertionError as broken:
            self._explored.violations.append(Violation(found.way(), str(broken).partition("\n")[0] or _where(broken)))
            return False
        return True


def _where(broken: AssertionError) -> str:
    """The line of an assertion that has no words."""
    return str(traceback.extract_tb(broken.__traceback__)[-1].line)


def explore(family: Family, surprises: int, explored: Explored | None = None) -> Explored:
    """Everything that a family gets to with so many surprises at most: with none first, then with one, and so on."""
    explored = explored if explored is not None else Explored()
    search = Search(named(*family.changes), explored)
    layer = [found for start in family.starts if search.add(found := Found(copied(begun(start)), None, start))]
    for left in reversed(range(surprises + family.surprises + 1)):
        for here in layer:  # which grows
            if here.history.rig.exists:
                layer.extend(search.follow(here, (*EXPECTED, *search.changes)))
        if left:
            layer = [there for here in layer if here.history.rig.exists for there in search.follow(here, SURPRISES)]
    return explored
