"""What all lines to one BMC share: whose turn it is, and how it behaves.

To wait for one's turn is no fault of the BMC's: hundreds of systems may be behind one host, each asked after the other,
and whoever has the turn may wait for a place in the fleet's traffic first. It is one when the BMC answers nobody. So
patience is counted in the seconds for which it was being asked and gave no answer, and each answer begins it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum, auto

from rackwright.lanes import Errand, Rank, Turns

_LOOKS = 8
"""In how many parts patience is counted, at most, while it doesn't run."""


class Manner(Enum):
    """How a BMC behaved the last time."""

    UNPROVEN = auto()
    """It wasn't asked yet, or couldn't be reached and that showed at once."""
    ANSWERS = auto()
    HANGS = auto()


class OneBMC:
    """One BMC. Belongs to one event loop."""

    __slots__ = ("__weakref__", "_begun", "_errand", "_turns", "_unanswered", "manner")

    def __init__(self) -> None:
        self.manner = Manner.UNPROVEN
        self._turns = Turns(1)
        self._errand: Errand | None = None
        """Of whoever has the turn."""
        self._begun: float | None = None
        """Since when it is being asked, by the loop's clock."""
        self._unanswered = 0.0
        """For how many seconds it was asked since it answered last, without what goes on."""

    @property
    def asked(self) -> bool:
        """Whether an exchange goes on, or may."""
        return self._begun is not None

    async def take_turn(self, errand: Errand, patience: float) -> None:
        """Wait for the turn; TimeoutError if the BMC was being asked for so long meanwhile, and answered nobody.

        Whoever has it, and waits for a place in the traffic, does so for this errand too.
        """
        if errand.rank is Rank.AT_WORK and self._errand is not None:
            self._errand.hasten()
        if self._turns.free:
            await self._turns.acquire(errand)
        else:
            async with self._limited(patience):
                await self._turns.acquire(errand)
        self._errand = errand
        if self._turns.pressed:
            errand.hasten()

    def begins(self) -> None:
        """Whoever has the turn begins to ask."""
        self._begun = asyncio.get_running_loop().time()

    def ended(self, *, answered: bool) -> None:
        """What began has ended."""
        self._unanswered = 0.0 if answered else self._silence()
        self._begun = None

    def end_turn(self) -> None:
        """The next may have it."""
        self._errand = None
        self._turns.release()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Nobody asks it in this context, for it may be at what others have asked."""
        async with self._turns.turn():
            self.begins()
            try:
                yield
            finally:
                self._begun = None

    async def free(self) -> None:
        """Return when those who have the turn or wait for it have had it."""
        async with self._turns.turn():
            return

    def _silence(self) -> float:
        """For how many seconds it was asked since it answered last."""
        going_on = asyncio.get_running_loop().time() - self._begun if self._begun is not None else 0.0
        return self._unanswered + going_on

    @asynccontextmanager
    async def _limited(self, patience: float) -> AsyncIterator[None]:
        """TimeoutError as soon as the BMC was silent for so much longer than it had been at the beginning."""
        async with asyncio.timeout(None) as limit:
            running = _Patience(patience, self._silence, lambda: limit.reschedule(asyncio.get_running_loop().time()))
            try:
                yield
            finally:
                running.end()


class _Patience:
    """Tells when a BMC was silent for so many seconds; those for which nobody asked it don't count."""

    __slots__ = ("_before", "_over", "_seconds", "_silence", "_timer")

    def __init__(self, seconds: float, silence: Callable[[], float], over: Callable[[], None]) -> None:
        self._seconds = seconds
        self._silence = silence
        self._over = over
        self._before = silence()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def end(self) -> None:
        """Tell nothing any more."""
        self._timer.cancel()

    def _look(self) -> None:
        silence = self._silence()
        self._before = min(self._before, silence)  # it has answered
        if (left := self._seconds - (silence - self._before)) <= 0:
            self._over()
        else:
            self._timer = asyncio.get_running_loop().call_later(max(left, self._seconds / _LOOKS), self._look)
