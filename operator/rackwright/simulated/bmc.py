"""A simulated machine's BMC: `power.port.PowerDriver`, with answers, faults and silences as the address asks for.

It takes its turn like any other (`power.line`): exchanges with one BMC never overlap, and the fleet's limit holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rackwright.power.line import Line
from rackwright.power.port import BIOSAttributes, BootTarget, FaultClass, Limits, PowerError, PowerState
from rackwright.simulated.chance import What
from rackwright.simulated.machine import Machine

_FAULTS = (
    (FaultClass.UNREACHABLE, "cannot be reached: connection refused"),
    (FaultClass.BUSY, "is too busy to {what}"),
    (FaultClass.PROTOCOL, "failed to {what} (HTTP 500)"),
)
"""Those that may be over the next time."""


class SimulatedBMC:
    """One machine's BMC."""

    __slots__ = ("_left", "_limits", "_line", "_machine")

    def __init__(self, machine: Machine, line: Line, limits: Limits, left: Callable[[Machine], None]) -> None:
        """`left` is told when the driver is closed."""
        self._left = left
        self._machine = machine
        self._line = line
        self._limits = limits

    async def power_state(self) -> PowerState:
        """Read the power state."""
        await self._exchange("report its power state", What.ANSWER)
        return self._machine.power

    async def power_on(self) -> None:
        """Switch on and wait for it."""
        await self._switch("switch the machine on", on=True)

    async def ask_to_shut_down(self) -> bool:
        """Nothing has to be waited for: a simulated system loses nothing when its power is cut."""
        return False

    async def power_off(self, *, grace: float) -> None:
        """Switch off and wait for it; a simulated system shuts down within any grace."""
        del grace
        await self._switch("cut the power", on=False)

    async def cycle(self, *, grace: float) -> None:
        """Off, then on."""
        await self.power_off(grace=grace)
        await self.power_on()

    async def set_boot(self, target: BootTarget, *, uefi: bool) -> None:
        """Choose what the next power-on boots from."""
        del uefi
        await self._exchange("choose the boot device", What.OBEY)
        self._machine.target = target

    async def bios_attributes(self) -> BIOSAttributes:
        """It has none."""
        return {}

    async def set_bios_attributes(self, wanted: BIOSAttributes) -> bool:
        """It has none."""
        raise PowerError(FaultClass.UNSUPPORTED, f"The simulated BMC has no BIOS attributes: {', '.join(wanted)}")

    async def close(self) -> None:
        """Nothing is open; whoever keeps the machine may let go of it."""
        self._left(self._machine)

    async def _switch(self, what: str, *, on: bool) -> None:
        await self._exchange(what, What.OBEY)
        wanted = PowerState.ON if on else PowerState.OFF
        if (switched := self._machine.switch(on=on)) is not None:
            await asyncio.wait({switched}, timeout=self._limits.settle)
        if (seen := self._machine.power) is not wanted:
            raise PowerError(
                FaultClass.PROTOCOL,
                f"The BMC at {self._line.place} accepted to {what}, but after {self._limits.settle:g} s it reports the "
                f"power as {seen}",
            )

    async def _exchange(self, what: str, kind: What) -> None:
        """One question or command, until it is answered; raises `PowerError` as often as the address says."""
        machine, behaviour = self._machine, self._machine.behaviour
        number = machine.happens(kind)
        fate = machine.chance(kind, number, "fate") if behaviour.hang or behaviour.fail else 1.0
        async with self._line.turn(self._limits):
            if fate < behaviour.hang:
                await asyncio.sleep(self._limits.exchange)
                raise PowerError(
                    FaultClass.UNREACHABLE,
                    f"The BMC at {self._line.place} did not finish its answer within {self._limits.exchange:g} s",
                )
            if behaviour.answer:
                await asyncio.sleep(machine.duration(behaviour.answer, kind, number))
        if fate < behaviour.hang + behaviour.fail:
            fault, says = _FAULTS[int(machine.chance(kind, number, "fault") * len(_FAULTS))]
            raise PowerError(fault, f"The BMC at {self._line.place} {says.format(what=what)}")
