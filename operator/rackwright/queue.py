"""What to look at next: a queue of keys that holds each once, hands none to two workers, and can wait.

A key that is woken while a worker has it is handed out once more afterwards, so no event is lost and none is seen
twice. A timer is only ever brought forward: whoever wants an earlier look gets it.

Keys that something has happened to go before those whose time has merely come: after a restart, an agent waits seconds
for its report to be taken, and not until every BMC of a large fleet was asked. Of the former, most turns go to those
that something is being done to: a fleet that is declared at once is worked through machine by machine, and no agent
tires of waiting because thousands of others are to be begun. But nobody waits for ever: of a number of turns each has
one that is its own, for deadlines end and retries are due however much else goes on. Among equals, lanes take turns.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Hashable
from enum import IntEnum
from typing import Generic, TypeVar

from rackwright.lanes import Lane, Lanes

Key = TypeVar("Key", bound=Hashable)


class Rank(IntEnum):
    """What comes first."""

    UNDER_WAY = 0
    """Something has happened to what is being done."""
    FRESH = 1
    """Something has happened."""
    CAN_WAIT = 2
    """Its time has come."""


TURNS = 16
"""How many there are until each of `OWN_TURNS` comes again."""
OWN_TURNS = {0: Rank.FRESH, TURNS // 2: Rank.CAN_WAIT}
"""Turns that are for a rank whoever comes before it."""


class WorkQueue(Generic[Key]):
    """Belongs to one event loop; `lane` names whom a key takes turns for, `under_way` says what is being done to it."""

    def __init__(
        self, lane: Callable[[Key], Lane] = lambda _: Lane(), under_way: Callable[[Key], bool] = lambda _: False
    ) -> None:
        self._under_way = under_way
        self._lanes = {rank: Lanes(lane) for rank in Rank}
        self._entries = asyncio.Semaphore(0)
        """As many as there are in all of them."""
        self._queued: dict[Key, Rank] = {}
        """As what each is in; an entry in another is void."""
        self._busy: set[Key] = set()
        self._again: dict[Key, bool] = {}
        """Those of `_busy` that are to be handed out again, and whether each can wait."""
        self._due: dict[Key, float] = {}
        self._timers: list[tuple[float, int, Key]] = []
        self._sequence = 0
        self._turn = 0
        self._alarm = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queued)

    def wake(self, key: Key, *, can_wait: bool = False) -> None:
        """Look at this key as soon as a worker is free; one that can wait mostly does, while any is left that can't."""
        self._due.pop(key, None)
        if key in self._busy:
            self._again[key] = can_wait and self._again.get(key, True)
            return
        rank = Rank.CAN_WAIT if can_wait else Rank.UNDER_WAY if self._under_way(key) else Rank.FRESH
        if rank < self._queued.get(key, len(Rank)):
            self._queued[key] = rank
            self._lanes[rank].put(key)
            self._entries.release()

    def rouse(self, key: Key) -> None:
        """Look at this key if nobody would otherwise."""
        if key not in self._due and key not in self._busy:
            self.wake(key, can_wait=True)

    def wake_after(self, key: Key, seconds: float) -> None:
        """Look at this key then at the latest."""
        if seconds <= 0:
            self.wake(key)
            return
        due = time.monotonic() + seconds
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._timers, (due, self._number(), key))
        if self._timers[0][2] == key:
            self._alarm.set()

    def forget(self, key: Key) -> None:
        """Drop the key's timer; it is gone."""
        self._due.pop(key, None)

    async def get(self) -> Key:
        """The next key; nobody else gets it until `done`."""
        while True:
            await self._entries.acquire()
            rank = self._next()
            key = self._lanes[rank].pop()
            if self._queued.get(key) is rank:
                del self._queued[key]
                self._busy.add(key)
                return key

    def done(self, key: Key) -> None:
        """The worker has finished with it."""
        self._busy.discard(key)
        if key in self._again:
            self.wake(key, can_wait=self._again.pop(key))

    async def run_timers(self) -> None:
        """Wake keys when their time comes; runs until cancelled."""
        while True:
            self._alarm.clear()
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                due, _, key = heapq.heappop(self._timers)
                if self._due.get(key) == due:
                    self.wake(key, can_wait=True)
            delay = self._timers[0][0] - now if self._timers else None
            try:
                async with asyncio.timeout(delay):
                    await self._alarm.wait()
            except TimeoutError:
                continue

    def _next(self) -> Rank:
        """Whose turn it is, of those that somebody waits in."""
        self._turn = (self._turn + 1) % TURNS
        own = OWN_TURNS.get(self._turn)
        if own is not None and self._lanes[own]:
            return own
        return next(rank for rank in Rank if self._lanes[rank])

    def _number(self) -> int:
        self._sequence += 1
        return self._sequence
