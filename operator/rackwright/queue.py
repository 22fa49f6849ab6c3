"""What to look at next: a queue of keys that holds each once, hands none to two workers, and can wait.

A key that is woken while a worker has it is handed out once more afterwards, so no event is lost and none is seen
twice. A timer is only ever brought forward: whoever wants an earlier look gets it.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class WorkQueue(Generic[Key]):
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._timers: list[tuple[float, int, Key]] = []
        self._sequence = 0
        self._alarm = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queued)

    def wake(self, key: Key) -> None:
        """Look at this key as soon as a worker is free."""
        self._due.pop(key, None)
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def wake_after(self, key: Key, seconds: float) -> None:
        """Look at this key then at the latest."""
        if seconds <= 0:
            self.wake(key)
            return
        due = time.monotonic() + seconds
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._timers, (due, self._sequence, key))
        if self._timers[0][2] == key:
            self._alarm.set()

    def forget(self, key: Key) -> None:
        """Drop the key's timer; it is gone."""
        self._due.pop(key, None)

    async def get(self) -> Key:
        """The next key; nobody else gets it until `done`."""
        key = await self._ready.get()
        self._queued.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: Key) -> None:
        """The worker has finished with it."""
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.wake(key)

    async def run_timers(self) -> None:
        """Wake keys when their time comes; runs until cancelled."""
        while True:
            self._alarm.clear()
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                due, _, key = heapq.heappop(self._timers)
                if self._due.get(key) == due:
                    self.wake(key)
            delay = self._timers[0][0] - now if self._timers else None
            try:
                async with asyncio.timeout(delay):
                    await self._alarm.wait()
            except TimeoutError:
                continue
