"""Taking in large bodies from whoever sends them, without letting that hold up everybody else.

A report is megabytes long, and nobody knows who sent it before it is read. So only a few are read at a time, one from
each address, while the others wait in their connections, which costs next to nothing; and what would take long to
parse is refused by a count of its values, because Python parses JSON without letting go of the interpreter: while
that lasts, a thread beside it can't even renew the operator's Lease.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rackwright.agent.sessions import Address

AT_ONCE = 8
"""Bodies that are read at a time; with all of them as long as they may be, some 150 MiB."""
TURN_SECONDS = 2.0
"""How long a sender waits for its turn before it is told to come again."""
MOST_VALUES = 100_000
"""An honest report has some thousands. So many are parsed in 50 ms; 8 MiB can hold 5 million, for half a second."""
_STRUCTURE = (b",", b":", b"[", b"{")
"""Each value of a JSON text but the first has one of these before it."""


class Full(Exception):
    """There is no place now; the sender may come again."""


class Overloaded(Exception):
    """The body holds more values than anything honest does."""


class Intake:
    """Belongs to one event loop."""

    def __init__(self, *, at_once: int = AT_ONCE, turn_seconds: float = TURN_SECONDS) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._turn_seconds = turn_seconds
        self._senders: set[Address] = set()
        self._parsing = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, sender: Address) -> AsyncIterator[None]:
        """A place to read one body in; raises Full where there is none in time, or the sender has one."""
        if sender in self._senders:
            raise Full
        self._senders.add(sender)
        try:
            try:
                async with asyncio.timeout(self._turn_seconds):
                    await self._places.acquire()
            except TimeoutError:
                raise Full from None
            try:
                yield
            finally:
                self._places.release()
        finally:
            self._senders.discard(sender)

    async def parsed(self, body: bytes) -> Any:
        """As `parsed`, one at a time, so that everybody else gets a turn in between."""
        async with self._parsing:
            await asyncio.sleep(0)  # not in a thread: whoever parses keeps the interpreter all the same
            return parsed(body)


def parsed(body: bytes) -> Any:
    """The JSON value that a body is.

    Raises:
        Overloaded: there are too many values in it.
        ValueError, RecursionError: it isn't JSON, or is nested too deeply.
    """
    if sum(map(body.count, _STRUCTURE)) > MOST_VALUES:
        raise Overloaded
    return json.loads(body)
