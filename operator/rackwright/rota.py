"""Whose turn it is to install: one rule, by which turns are given and by which they are foretold.

Next is a machine of the namespace that has the fewest slots, and of those that have equally many, of the one that has
waited for longest since it came or since a slot of its came back: so that goes to another namespace before its own gets
it again. Among the racks of a namespace it is the same, and within a rack who came to Deploying first comes first.

So turns go round. A namespace that waits without a slot is overtaken by each other one once at the most where both
could begin, however many machines those have and however old they are: whoever gets a slot meanwhile has more until
it comes back, and is behind from then on. All that is remembered for it is how many slots had come back by then, and
that of nobody who doesn't wait; without a memory, who came first decides among equals.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from rackwright.record import Key


class Waiter(NamedTuple):
    """A machine that waits for its turn; in the order of their coming."""

    since: datetime
    """When it came to Deploying: a restart and a retry change nothing of that."""
    uid: str
    key: Key
    rack: str

    @property
    def spot(self) -> Spot:
        """Where it would have a slot."""
        return Spot(self.key.namespace, self.rack)


class Spot(NamedTuple):
    """What a slot counts for."""

    namespace: str
    rack: str


class _Rank(NamedTuple):
    """What decides between two that wait, in this order."""

    slots: int
    turn: int
    """How many slots had come back, to anybody, when it came to wait or when one of its own did."""
    since: datetime
    """When the first of its machines that wait came."""
    name: str


class _Line:
    """Names that have slots, and those of them that wait in the order of their turns."""

    def __init__(self) -> None:
        self._slots: Counter[str] = Counter()
        self._ranks: dict[str, _Rank] = {}
        self._ranked: list[_Rank] = []

    def __bool__(self) -> bool:
        return bool(self._slots or self._ranks)

    def __iter__(self) -> Iterator[str]:
        return (rank.name for rank in self._ranked)

    def copy(self) -> _Line:
        """One that goes its own way."""
        other = _Line()
        other._slots, other._ranks, other._ranked = self._slots.copy(), self._ranks.copy(), self._ranked.copy()
        return other

    def join(self, name: str, turn: int, since: datetime) -> None:
        """One more waits under this name."""
        before = self._ranks.get(name)
        if before is None:
            self._put(_Rank(self._slots[name], turn, since, name))
        elif since < before.since:
            self._put(before._replace(since=since))

    def leave(self, name: str) -> None:
        """Nobody waits under this name any more."""
        del self._ranked[bisect_left(self._ranked, self._ranks.pop(name))]

    def count(self, name: str, change: int, turn: int | None = None) -> None:
        """It has so many slots more; `turn`: since then it has waited."""
        self._slots[name] += change
        slots = self._slots[name]
        if not slots:
            del self._slots[name]
        if (before := self._ranks.get(name)) is not None:
            self._put(before._replace(slots=slots, turn=before.turn if turn is None else turn))

    def _put(self, rank: _Rank) -> None:
        if rank.name in self._ranks:
            self.leave(rank.name)
        self._ranks[rank.name] = rank
        insort(self._ranked, rank)


class Rota:
    """Who has a slot and who waits for one; at most so many slots in all, and so many in each rack."""

    def __init__(self, most: int | None, most_in_rack: int | None) -> None:
        self.most, self._most_in_rack = most, most_in_rack
        self.taken = 0
        """How many slots there are that somebody has."""
        self.waiting = 0
        """How many machines wait."""
        self._ended = 0
        """How many slots have come back."""
        self._namespaces = _Line()
        self._racks: dict[str, _Line] = defaultdict(_Line)
        """By namespace."""
        self._lanes: dict[Spot, list[Waiter]] = {}
        self._taken_in: Counter[str] = Counter()
        self._waiting_in: Counter[str] = Counter()
        self._full: set[str] = set()
        """The racks in which nobody may begin."""

    def copy(self) -> Rota:
        """One that goes its own way."""
        other = Rota(self.most, self._most_in_rack)
        other.taken, other.waiting, other._ended = self.taken, self.waiting, self._ended
        other._namespaces = self._namespaces.copy()
        other._racks.update((namespace, line.copy()) for namespace, line in self._racks.items())
        other._lanes = {spot: lane.copy() for spot, lane in self._lanes.items()}
        other._taken_in, other._waiting_in = self._taken_in.copy(), self._waiting_in.copy()
        other._full = self._full.copy()
        return other

    # --- what happens --------------------------------------------------------------------------------------------

    def join(self, waiter: Waiter) -> None:
        """A machine waits."""
        namespace, rack = spot = waiter.spot
        insort(self._lanes.setdefault(spot, []), waiter)
        self._namespaces.join(namespace, self._ended, waiter.since)
        self._racks[namespace].join(rack, self._ended, waiter.since)
        self._waiting_in[rack] += 1
        self.waiting += 1

    def leave(self, waiter: Waiter) -> None:
        """It doesn't any more."""
        namespace, rack = spot = waiter.spot
        lane = self._lanes[spot]
        del lane[bisect_left(lane, waiter)]
        self.waiting -= 1
        self._waiting_in[rack] -= 1
        if not self._waiting_in[rack]:
            del self._waiting_in[rack]
        if lane:
            return
        del self._lanes[spot]
        racks = self._racks[namespace]
        racks.leave(rack)
        if not any(True for _ in racks):
            self._namespaces.leave(namespace)
        self._tidy(namespace)

    def begin(self, spot: Spot) -> None:
        """A slot is taken."""
        self._count(spot, 1)

    def give_back(self, spot: Spot) -> None:
        """A slot comes back with which nothing was begun: as if it had never been taken."""
        self._count(spot, -1)

    def end(self, spot: Spot) -> None:
        """A slot comes back."""
        self._ended += 1
        self._count(spot, -1, self._ended)

    def _count(self, spot: Spot, change: int, turn: int | None = None) -> None:
        namespace, rack = spot
        self.taken += change
        self._namespaces.count(namespace, change, turn)
        self._racks[namespace].count(rack, change, turn)
        self._tidy(namespace)
        self._taken_in[rack] += change
        if self._most_in_rack is not None and self._taken_in[rack] >= self._most_in_rack:
            self._full.add(rack)
        else:
            self._full.discard(rack)
        if not self._taken_in[rack]:
            del self._taken_in[rack]

    def _tidy(self, namespace: str) -> None:
        if not self._racks[namespace]:
            del self._racks[namespace]

    def unlimit(self) -> None:
        """There is room for everybody."""
        self.most = self._most_in_rack = None
        self._full.clear()

    def fill(self) -> Iterator[Waiter]:
        """As many begin as there is room for, in the order of their turns."""
        while (spot := self._first()) is not None:
            waiter = self._lanes[spot][0]
            self.leave(waiter)
            self.begin(spot)
            yield waiter

    # --- what follows --------------------------------------------------------------------------------------------

    def calls(self) -> list[Waiter]:
        """Whose turn it is, as many as there is room for."""
        return list(self.copy().fill()) if self._first() is not None else []

    def foretold(self, slots: Iterable[Spot]) -> Iterator[Waiter]:
        """All that wait, in the order in which they are called if slots come back in this order, new ones last.

        Where none ever comes back, as if there was room for everybody.
        """
        rota, under_way = self.copy(), deque(slots)
        while rota.waiting:
            for waiter in rota.fill():
                under_way.append(waiter.spot)
                yield waiter
            if under_way:
                rota.end(under_way.popleft())
            else:
                rota.unlimit()

    def _first(self) -> Spot | None:
        """Where the next one is called from."""
        no_room = self.most is not None and self.taken >= self.most
        if no_room or self._waiting_in.keys() <= self._full:
            return None
        spots = (Spot(namespace, rack) for namespace in self._namespaces for rack in self._racks[namespace])
        return next(spot for spot in spots if spot.rack not in self._full)
