"""Switching a machine and waiting until it is so: the same order of things whatever its BMC speaks.

The waiting is here, in the event loop, between exchanges: a machine that shuts down for ten minutes holds neither a
thread nor its BMC's turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from rackwright.fence import Fenced
from rackwright.power.line import Line
from rackwright.power.port import FaultClass, Limits, PowerError, PowerState, WrongState
from rackwright.power.settle import wait_for

LOG = logging.getLogger(__name__)

T = TypeVar("T")
M = TypeVar("M")
"""What a step is done to: the machine, as the protocol's library knows it."""
M_co = TypeVar("M_co", covariant=True)
M_contra = TypeVar("M_contra", contravariant=True)

REFUSED = frozenset({FaultClass.UNSUPPORTED, FaultClass.PROTOCOL})
"""Another way to the same end may work."""
NOT_DONE = REFUSED | {FaultClass.BUSY}
"""The BMC has answered, and says no."""


class Service(Protocol[M_co]):
    """One BMC, as a protocol's library sees it. Blocks; for one thread at a time."""

    def exchange(self, what: str, step: Callable[[M_co], T]) -> T:
        """Run a step; whatever goes wrong is raised as `PowerError`. `what` completes "The BMC cannot ..."."""

    def close(self) -> None:
        """End the session, if one is kept."""


class Steps(Protocol[M_contra]):
    """The module that says how each step is asked for in one protocol's words."""

    def power(self, machine: M_contra, /) -> PowerState:
        """On or off; UNKNOWN on the way from one to the other."""

    def switch_on(self, machine: M_contra, /) -> bool:
        """Switch on; False if nothing needs to be waited for, as below."""

    def ask_to_shut_down(self, machine: M_contra, /) -> bool:
        """Press the power button for the operating system to see."""

    def cut_power(self, machine: M_contra, /) -> bool:
        """Switch off at once."""


class SwitchingDriver(Generic[M]):
    """The power half of a `PowerDriver`. Drops nothing on a fault: the next call connects anew if it has to."""

    def __init__(self, service: Service[M], steps: Steps[M], line: Line, limits: Limits) -> None:
        self._service = service
        self._steps = steps
        self._line = line
        self._limits = limits

    async def power_state(self) -> PowerState:
        """Read the power state."""
        return await self._do("report its power state", self._steps.power)

    async def power_on(self) -> None:
        """Switch on and wait for it."""
        await self._switch("switch the machine on", self._steps.switch_on, PowerState.ON)

    async def ask_to_shut_down(self) -> bool:
        """Press the power button; a BMC that can't ask the operating system may still cut the power."""
        try:
            return await self._do("shut the machine down", self._steps.ask_to_shut_down)
        except PowerError as error:
            if not self._cannot_ask(error):
                raise
            LOG.info("No shutdown before the power is cut: %s", error)
            return False

    async def power_off(self, *, grace: float) -> None:
        """Shut down, wait `grace` seconds, cut the power if need be, and wait for that."""
        if grace > 0 and await self.ask_to_shut_down() and await self._goes_off(grace):
            return
        await self._switch("cut the power", self._steps.cut_power, PowerState.OFF)

    async def cycle(self, *, grace: float) -> None:
        """Off, then on; never a reset, because many BMCs apply a chosen boot device at power-on only."""
        await self.power_off(grace=grace)
        await self.power_on()

    async def close(self) -> None:
        """End the session, so that it doesn't hold one of the BMC's few places (often eight) until it times out."""
        try:
            await self._line.call(self._service.close, self._limits)
        except PowerError as error:
            LOG.debug("A session is left to time out: %s", error)
        except Fenced:
            LOG.debug("A session at %s is left to time out: another operator speaks to it", self._line.place)

    def _cannot_ask(self, error: PowerError) -> bool:
        """Whether this says that the operating system can't be asked, now or later."""
        return error.fault in REFUSED or isinstance(error, WrongState)

    async def _do(self, what: str, step: Callable[[M], T]) -> T:
        return await self._line.call(lambda: self._service.exchange(what, step), self._limits)

    async def _switch(self, what: str, step: Callable[[M], bool], wanted: PowerState) -> None:
        """Take the step and wait for what it promises.

        A system that was asked to shut down may be off just before its power is cut, and most BMCs refuse that then.
        """
        try:
            promised = await self._do(what, step)
        except PowerError as error:
            if error.fault not in NOT_DONE or await self.power_state() is not wanted:
                raise
            return
        if promised:
            await self._reach(wanted, f"to {what}")

    async def _reach(self, wanted: PowerState, what: str) -> None:
        seen = await self._awaited(wanted, within=self._limits.settle)
        if seen is not wanted:
            raise PowerError(
                FaultClass.PROTOCOL,
                f"The BMC at {self._line.place} accepted {what}, but after {self._limits.settle:g} s"
                f" it reports the power as {seen}",
            )

    async def _awaited(self, wanted: PowerState, *, within: float) -> PowerState:
        return await wait_for(self.power_state, lambda seen: seen is wanted, within=within, every=self._limits.poll)

    async def _goes_off(self, grace: float) -> bool:
        return await self._awaited(PowerState.OFF, within=grace) is PowerState.OFF
