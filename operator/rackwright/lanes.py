"""Fairness among tenants: whoever waits takes turns by whom it is for, not by who came first.

Five thousand machines of one namespace are one lane, and another's only machine comes next.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from operator import itemgetter
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

ON_BEHALF_OF: ContextVar[Hashable] = ContextVar("on_behalf_of", default=None)
"""The lane of what goes on in this context: the namespace of the machine that a pass is about."""


class Lanes(Generic[Key]):
    """Keys in the order of their coming in each lane, and the lanes in turn."""

    def __init__(self, lane: Callable[[Key], Hashable]) -> None:
        self._lane = lane
        self._lanes: OrderedDict[Hashable, deque[Key]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def put(self, key: Key) -> None:
        """At the end of its lane; a new lane comes after those that are there."""
        self._lanes.setdefault(self._lane(key), deque()).append(key)

    def pop(self) -> Key:
        """The first of the lane whose turn it is."""
        name, keys = self._lanes.popitem(last=False)
        key = keys.popleft()
        if keys:
            self._lanes[name] = keys
        return key


class Turns:
    """A semaphore for which those who wait take turns by `ON_BEHALF_OF`. Belongs to one event loop."""

    def __init__(self, places: int) -> None:
        self._places = places
        self.free = places
        """Places that nobody has."""
        self.waiting = 0
        """How many wait for one."""
        self._waiting: Lanes[tuple[Hashable, asyncio.Future[None]]] = Lanes(itemgetter(0))

    @property
    def taken(self) -> int:
        """Places that somebody has."""
        return self._places - self.free

    async def acquire(self) -> None:
        """Wait for a place."""
        if self.free > 0:
            self.free -= 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put((ON_BEHALF_OF.get(), granted))
        self.waiting += 1
        try:
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
            _, granted = self._waiting.pop()
            if not granted.done():
                granted.set_result(None)
                return
        self.free += 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place for as long as the context lasts."""
        await self.acquire()
        try:
            yield
        finally:
            self.release()
