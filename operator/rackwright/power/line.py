"""The way to one BMC: one exchange at a time, because a BMC is a small computer that answers two askers badly.

An exchange runs in a thread (the libraries that speak to BMCs block). A thread can't be ended from outside, so the
turn is given back when the thread ends, not when its caller gave up: a BMC that answers byte by byte for an hour
holds one thread and no more, and the next caller is told that it is busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from typing import TypeVar

from rackwright import fence
from rackwright.power.port import FaultClass, Limits, PowerError

T = TypeVar("T")


class Line:
    """One BMC's queue, and its share of the exchanges that may go on at once in the fleet.

    `lock` is shared by all lines to one BMC, `slots` and `executor` by all lines there are. `place` names the BMC in
    messages.
    """

    def __init__(self, place: str, lock: asyncio.Lock, slots: asyncio.Semaphore, executor: Executor) -> None:
        self.place = place
        self._lock = lock
        self._slots = slots
        self._executor = executor

    async def call(self, work: Callable[[], T], limits: Limits) -> T:
        """Run `work` in a thread when it is this BMC's turn, and give back what it returns or raises.

        Raises `PowerError`: BUSY if no turn came within `limits.turn`, UNREACHABLE if the exchange took longer than
        `limits.exchange`. `fence.Fenced` if it may not be spoken to any more, here or within `work`.
        """
        await self._take_turn(limits.turn)
        try:
            fence.check()
            exchange = asyncio.get_running_loop().run_in_executor(self._executor, copy_context().run, work)
        except BaseException:
            self._end_turn()
            raise
        exchange.add_done_callback(self._ended)
        done, _ = await asyncio.wait({exchange}, timeout=limits.exchange)
        if not done:
            raise PowerError(
                FaultClass.UNREACHABLE,
                f"The BMC at {self.place} did not finish its answer within {limits.exchange:g} s",
            )
        return exchange.result()

    async def _take_turn(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._lock.acquire()
                try:
                    # After the lock: who waits for a slow BMC keeps no place from the others.
                    await self._slots.acquire()
                except BaseException:
                    self._lock.release()
                    raise
        except TimeoutError:
            raise PowerError(
                FaultClass.BUSY,
                f"The BMC at {self.place} had no turn within {patience:g} s: earlier exchanges still go on",
            ) from None

    def _ended(self, exchange: asyncio.Future[T]) -> None:
        if not exchange.cancelled():
            exchange.exception()  # seen, even if the caller left: nothing to report as never retrieved
        self._end_turn()

    def _end_turn(self) -> None:
        self._slots.release()
        self._lock.release()
