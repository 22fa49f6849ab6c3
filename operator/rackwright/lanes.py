"""Fairness: whoever waits takes turns by whom it is for, not by who came first.

Five thousand machines of one namespace are one lane, and another's only machine comes next. Within a namespace each
rack is a lane in the same way: what happens to one holds up no other.

For exchanges with BMCs those that something is being done to go first, and idle machines are looked at in between: of a
number of turns one is theirs, however much else goes on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key")


class Lane(NamedTuple):
    """Whom something is for."""

    namespace: str = ""
    rack: str = ""
    """One for all machines that have none."""


class Rank(IntEnum):
    """What comes first."""

    AT_WORK = 0
    """Something is being done to the machine, or is to be."""
    IDLE = 1
    """It is merely looked at."""


NOBODY = Lane()
ON_BEHALF_OF: ContextVar[Lane] = ContextVar("on_behalf_of", default=NOBODY)
"""The lane of what goes on in this context: that of the machine that a pass is about."""
RANK: ContextVar[Rank] = ContextVar("rank", default=Rank.AT_WORK)
"""The rank of what goes on in this context."""
TURNS = 16
"""How many there are until one is again for those that merely look, whoever else waits."""


@contextmanager
def ranked(rank: Rank) -> Iterator[None]:
    """What is waited for in this context is waited for as one of this rank."""
    before = RANK.set(rank)
    try:
        yield
    finally:
        RANK.reset(before)


class Lanes(Generic[Key]):
    """Keys in the order of their coming in each lane; namespaces in turn, and of each its racks."""

    __slots__ = ("_lane", "_namespaces")

    def __init__(self, lane: Callable[[Key], Lane]) -> None:
        self._lane = lane
        self._namespaces: OrderedDict[str, OrderedDict[str, deque[Key]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._namespaces)

    def put(self, key: Key) -> None:
        """At the end of its lane; a new lane comes after those that are there."""
        namespace, rack = self._lane(key)
        self._namespaces.setdefault(namespace, OrderedDict()).setdefault(rack, deque()).append(key)

    def pop(self) -> Key:
        """The first of the lane whose turn it is."""
        namespace, racks = self._namespaces.popitem(last=False)
        rack, keys = racks.popitem(last=False)
        key = keys.popleft()
        if keys:
            racks[rack] = keys
        if racks:
            self._namespaces[namespace] = racks
        return key


class Errand:
    """What somebody waits for turns for. It becomes more urgent while it waits when more urgent ones wait for it."""

    __slots__ = ("_stand_anew", "lane", "rank")

    def __init__(self) -> None:
        self.lane = ON_BEHALF_OF.get()
        self.rank = RANK.get()
        self._stand_anew: Callable[[], None] | None = None

    def hasten(self) -> None:
        """From now on it is as urgent as anything, where it waits now and wherever it waits next."""
        if self.rank is not Rank.AT_WORK:
            self.rank = Rank.AT_WORK
            if self._stand_anew is not None:
                self._stand_anew()

    @contextmanager
    def standing(self, stand: Callable[[], None]) -> Iterator[None]:
        """It waits, for as long as the context lasts, where `stand` puts it by its rank."""
        stand()
        self._stand_anew = stand
        try:
            yield
        finally:
            self._stand_anew = None


class _Waiting(NamedTuple):
    lane: Lane
    granted: asyncio.Future[None]


class Turns:
    """A semaphore for which those who wait take turns by rank and lane. Belongs to one event loop."""

    __slots__ = ("_places", "_turn", "_waiting", "free", "waiting")

    def __init__(self, places: int) -> None:
        self._places = places
        self.free = places
        """Places that nobody has."""
        self.waiting = 0
        """How many wait for one."""
        self._waiting: dict[Rank, Lanes[_Waiting]] = {}
        """Of the ranks in which somebody waits; an entry whose future is done is void."""
        self._turn = 0

    @property
    def taken(self) -> int:
        """Places that somebody has."""
        return self._places - self.free

    @property
    def pressed(self) -> bool:
        """Whether anybody waits for whom something is being done."""
        return Rank.AT_WORK in self._waiting

    async def acquire(self, errand: Errand | None = None) -> None:
        """Wait for a place; without an errand, as this context's lane and rank have it."""
        if self.free > 0:
            self.free -= 1
            return
        errand = errand if errand is not None else Errand()
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting += 1
        try:
            with errand.standing(lambda: self._put(errand.rank, _Waiting(errand.lane, granted))):
                await granted
        except asyncio.CancelledError:
            if not granted.cancelled():
                self.release()  # granted at the moment at which it was given up
            raise
        finally:
            self.waiting -= 1

    def release(self) -> None:
        """Give a place back."""
        while self._waiting:
            granted = self._pop().granted
            if not granted.done():
                granted.set_result(None)
                return
        self.free += 1

    @asynccontextmanager
    async def turn(self, errand: Errand | None = None) -> AsyncIterator[None]:
        """A place for as long as the context lasts."""
        await self.acquire(errand)
        try:
            yield
        finally:
            self.release()

    def _put(self, rank: Rank, waiting: _Waiting) -> None:
        if rank not in self._waiting:
            self._waiting[rank] = Lanes(_lane)
        self._waiting[rank].put(waiting)

    def _pop(self) -> _Waiting:
        """Whose turn it is: of the first rank, or once in so many turns of the last."""
        self._turn = (self._turn + 1) % TURNS
        rank = (min if self._turn else max)(self._waiting)
        lanes = self._waiting[rank]
        waiting = lanes.pop()
        if not lanes:
            del self._waiting[rank]
        return waiting


def _lane(waiting: _Waiting) -> Lane:
    return waiting.lane
