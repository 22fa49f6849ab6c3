"""The way to one BMC: one exchange at a time, because a BMC is a small computer that answers two askers badly.

An exchange runs in a thread (the libraries that speak to BMCs block). A thread can't be ended from outside, so the
turn is given back when the thread ends, not when its caller gave up: a BMC that hangs holds one thread and no more, and
the next caller is told that it is busy. What its caller has given up a thread sends nothing more for, and reads no
further: an attempt that failed, or a wish that was withdrawn, moves no power a minute later, and no BMC that answers
byte by byte holds its next caller up for an hour.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TypeVar

from rackwright import fence
from rackwright.lanes import Errand
from rackwright.power.one_bmc import Manner, OneBMC
from rackwright.power.port import FaultClass, Limits, PowerError
from rackwright.power.traffic import Place, Traffic

T = TypeVar("T")


@dataclass(slots=True)
class Waited:
    """For how many seconds somebody waited for turns."""

    seconds: float = 0.0


WAITED: ContextVar[Waited | None] = ContextVar("waited", default=None)
"""What waiting for turns is added to, for whoever wants to know."""


class Line:
    """One BMC's queue, and its share of the exchanges that may go on at once in the fleet.

    `bmc` is shared by all lines to one BMC, `traffic` by all lines there are. `place` names the BMC in messages.
    """

    def __init__(self, place: str, bmc: OneBMC, traffic: Traffic) -> None:
        self.place = place
        self._bmc = bmc
        self._traffic = traffic

    async def call(self, work: Callable[[], T], limits: Limits) -> T:
        """Run `work` in a thread when it is this BMC's turn, and give back what it returns or raises.

        Raises `PowerError`: BUSY if no turn came while the BMC was asked for `limits.turn` and answered nobody,
        UNREACHABLE if the exchange took longer than `limits.exchange`. `fence.Fenced` if it may not be spoken to any
        more, here or within `work`, which may speak to it for as long as somebody waits for it.
        """
        place = await self._take_turn(limits.turn)
        begun, given_up = asyncio.get_running_loop().time(), Event()
        try:
            fence.check()
            with fence.narrowed(lambda: not given_up.is_set()):
                context = copy_context()
            exchange = asyncio.get_running_loop().run_in_executor(self._traffic.threads, context.run, work)
        except BaseException:
            self._end_turn(place)
            raise
        self._bmc.begins()
        exchange.add_done_callback(partial(self._ended, place, begun))
        try:
            done, _ = await asyncio.wait({exchange}, timeout=limits.exchange)
        finally:
            given_up.set()
        if not done:
            self._bmc.manner = Manner.HANGS
            raise PowerError(
                FaultClass.UNREACHABLE,
                f"The BMC at {self.place} did not finish its answer within {limits.exchange:g} s",
            )
        return exchange.result()

    @asynccontextmanager
    async def turn(self, limits: Limits) -> AsyncIterator[None]:
        """This BMC's turn, for an exchange that needs no thread. Raises as `call` does where no turn came."""
        place = await self._take_turn(limits.turn)
        begun = asyncio.get_running_loop().time()
        try:
            fence.check()
            self._bmc.begins()
            yield
            self._behaved(begun, None)
        except BaseException as error:
            self._behaved(begun, error)
            raise
        finally:
            self._end_turn(place)

    async def _take_turn(self, patience: float) -> Place:
        """Whoever else speaks to this BMC comes first, then the fleet's limits: those are ours, and no fault of its."""
        errand = Errand()
        with _waiting():
            try:
                await self._bmc.take_turn(errand, patience)
            except TimeoutError:
                raise PowerError(
                    FaultClass.BUSY,
                    f"The BMC at {self.place} is still at what it was asked before,"
                    f" and has answered nobody for {patience:g} s",
                ) from None
            try:
                # After the BMC's turn: who waits for a slow BMC keeps no place from the others.
                return await self._traffic.enter(self._bmc.manner, errand)
            except BaseException:
                self._bmc.end_turn()
                raise

    def _ended(self, place: Place, begun: float, exchange: asyncio.Future[T]) -> None:
        if not exchange.cancelled():
            self._behaved(begun, exchange.exception())  # seen, even if the caller left
        self._end_turn(place)

    def _behaved(self, begun: float, error: BaseException | None) -> None:
        took = asyncio.get_running_loop().time() - begun
        manner = _manner(error, hung=took >= self._traffic.hanging)
        self._bmc.manner = manner or self._bmc.manner
        self._bmc.ended(answered=manner is Manner.ANSWERS)

    def _end_turn(self, place: Place) -> None:
        place.give_back()
        self._bmc.end_turn()


@contextmanager
def _waiting() -> Iterator[None]:
    came = time.monotonic()
    try:
        yield
    finally:
        if (waited := WAITED.get()) is not None:
            waited.seconds += time.monotonic() - came


def _manner(error: BaseException | None, *, hung: bool) -> Manner | None:
    """How a BMC behaves whose exchange ended like this, None if that doesn't tell; one that refuses has answered."""
    if error is not None and not isinstance(error, Exception):
        return None  # it was we who ended it
    if not isinstance(error, PowerError) or error.fault is not FaultClass.UNREACHABLE:
        return Manner.ANSWERS
    return Manner.HANGS if hung else Manner.UNPROVEN
