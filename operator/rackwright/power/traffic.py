"""How many exchanges with BMCs go on in the fleet, so that those that hang take no place from those that answer.

A BMC that hangs holds a thread for a minute or two, and a fleet has some at any time. So there are kinds of places:

- `concurrency` for BMCs that are at work; a quarter of them only for BMCs that have answered the last time;
- many more aside, for exchanges that take longer than `HANGING_SECONDS`: each moves there and frees its place;
- a BMC that hung the last time begins aside, where a quarter of the places is for those: they wait for each other, and
  leave room for those that turn out to hang, who would else keep the places of those that answer.

Whoever waits for a place, or for the moment at which another exchange may begin, takes turns (`lanes`), and waits for
as long as it takes: that there are no more places is no BMC's fault.

A thread that hangs costs some 50 KiB of memory and nothing else. Where there is no room aside, those that turn out to
hang keep the places of those that answer. Whether a BMC hangs is known only by asking it: one that is asked for the
first time, or is back after it hung, shows it within `HANGING_SECONDS`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple, assert_never

from rackwright.lanes import Errand, Turns
from rackwright.power.one_bmc import Manner

HANGING_SECONDS = 3.0
"""Most BMCs answer within this, and slower ones lose nothing but their place."""
ASIDE = 48
"""For each place, how many there are aside: with 32, a thread for each of 1,536 BMCs at the very most. A tenth of ten
thousand may turn out to hang within the two minutes that each is given, and known ones have room beside them."""


class Exchanges(NamedTuple):
    """How many exchanges there are in the fleet; those that wait for an earlier one with their BMC aren't counted."""

    under_way: int
    """They have a place among those that are at work."""
    aside: int
    waiting: int
    """For a place or for the rate; those that have a place and wait are both under way and waiting."""


class Place:
    """What one exchange has of the fleet's traffic, from its beginning until it is given back."""

    def __init__(self, held: list[Turns], aside: Turns, after: float) -> None:
        """After so many seconds the exchange hangs, and moves aside."""
        self._held = held
        self._aside = aside
        self._moving: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if aside not in held:
            self._timer = asyncio.get_running_loop().call_later(after, self._move)

    def give_back(self) -> None:
        """The exchange is over."""
        if self._timer is not None:
            self._timer.cancel()
        if self._moving is not None:
            self._moving.cancel()
        self._release([])

    def _move(self) -> None:
        self._moving = asyncio.get_running_loop().create_task(self._step_aside())

    async def _step_aside(self) -> None:
        await self._aside.acquire()
        self._release([self._aside])

    def _release(self, now: list[Turns]) -> None:
        held, self._held = self._held, now
        for semaphore in held:
            semaphore.release()


class Traffic:
    """The places of a fleet. Belongs to one event loop."""

    def __init__(self, concurrency: int, per_second: float | None, hanging: float = HANGING_SECONDS) -> None:
        self.hanging = hanging
        """Seconds after which an exchange is taken to hang."""
        self._between = 1 / per_second if per_second else 0.0
        self._next = float("-inf")
        self._gate = Turns(1)
        """Whoever has it is the next to begin."""
        self._places = Turns(concurrency)
        self._unproven = Turns(concurrency - concurrency // 4)
        self._aside = Turns(concurrency * ASIDE)
        self._hung = Turns(concurrency * ASIDE // 4)
        self.threads: Executor = ThreadPoolExecutor(concurrency * (1 + ASIDE), thread_name_prefix="bmc")

    def counts(self) -> Exchanges:
        """How many exchanges there are now."""
        kinds = (self._unproven, self._places, self._hung, self._aside, self._gate)
        return Exchanges(self._places.taken, self._aside.taken, sum(kind.waiting for kind in kinds))

    async def enter(self, manner: Manner, errand: Errand) -> Place:
        """Wait for a place among those that behave like this, and for the moment to begin, which it is then."""
        match manner:
            case Manner.ANSWERS:
                wanted = [self._places]
            case Manner.UNPROVEN:
                wanted = [self._unproven, self._places]
            case Manner.HANGS:
                wanted = [self._hung, self._aside]
            case _:
                assert_never(manner)
        held: list[Turns] = []
        try:
            for semaphore in wanted:
                await semaphore.acquire(errand)
                held.append(semaphore)
            await self._pace(errand)
        except BaseException:
            for semaphore in held:
                semaphore.release()
            raise
        return Place(held, self._aside, self.hanging)

    async def _pace(self, errand: Errand) -> None:
        """Wait until another exchange may begin: as many do in a second as are allowed."""
        if not self._between:
            return
        clock = asyncio.get_running_loop().time
        async with self._gate.turn(errand):
            if (left := self._next - clock()) > 0:
                await asyncio.sleep(left)
            self._next = clock() + self._between
