"""One machine behind a Redfish BMC: in which order it is asked for what, and how long for each answer.

The waiting is here, in the event loop, between exchanges: a machine that shuts down for ten minutes holds neither a
thread nor its BMC's turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from rackwright.power import redfish_system
from rackwright.power.line import Line
from rackwright.power.port import (
    DEFAULT_LIMITS,
    BIOSAttributes,
    BootTarget,
    Endpoint,
    FaultClass,
    Limits,
    PowerError,
    PowerState,
)
from rackwright.power.redfish import Service
from rackwright.power.redfish_system import BOOT_CHOICES, BootChoice
from rackwright.power.settle import wait_for

LOG = logging.getLogger(__name__)

T = TypeVar("T")

REFUSED = frozenset({FaultClass.UNSUPPORTED, FaultClass.PROTOCOL})
"""Another way to the same end may work."""


class RedfishDriver:
    """One ComputerSystem. Drops nothing on a fault: the next call connects and logs in again if it has to."""

    def __init__(self, endpoint: Endpoint, line: Line, limits: Limits = DEFAULT_LIMITS) -> None:
        self._service = Service(endpoint, limits)
        self._line = line
        self._limits = limits

    async def power_state(self) -> PowerState:
        """Read the power state."""
        return await self._do("report its power state", redfish_system.power)

    async def power_on(self) -> None:
        """Switch on and wait for it."""
        if await self._do("switch the machine on", redfish_system.switch_on):
            await self._reach(PowerState.ON, "to switch the machine on")

    async def power_off(self, *, grace: float) -> None:
        """Shut down, wait `grace` seconds, cut the power if need be, and wait for that."""
        if grace > 0 and await self._shut_down(grace):
            return
        if await self._do("cut the power", redfish_system.cut_power):
            await self._reach(PowerState.OFF, "to cut the power")

    async def cycle(self, *, grace: float) -> None:
        """Off, then on; never a reset, because many BMCs apply a chosen boot device at power-on only."""
        await self.power_off(grace=grace)
        await self.power_on()

    async def set_boot(self, target: BootTarget, *, uefi: bool) -> None:
        """Choose mode and device, and see that the BMC remembers them."""
        choose_mode = partial(redfish_system.choose_mode, uefi=uefi)
        await self._do("set the boot mode", choose_mode)
        choice = await self._choose_boot(target, uefi=uefi)
        await self._do("set the boot mode", choose_mode)  # again: Supermicro's go back to BIOS with a new device
        if choice.enabled != "Disabled":
            await self._remembers(choice)

    async def bios_attributes(self) -> BIOSAttributes:
        """The BIOS attributes as the BMC reports them; empty where it has none."""
        return await self._do("report its BIOS attributes", redfish_system.bios_attributes)

    async def set_bios_attributes(self, wanted: BIOSAttributes) -> bool:
        """Ask for BIOS attributes; True if any differed, and then they count from the next boot."""
        return await self._do("set BIOS attributes", partial(redfish_system.set_bios_attributes, wanted=wanted))

    async def close(self) -> None:
        """End the session, so that it doesn't hold one of the BMC's few places (often eight) until it times out."""
        try:
            await self._line.call(self._service.close, self._limits)
        except PowerError as error:
            LOG.debug("A session is left to time out: %s", error)

    async def _do(self, what: str, step: Callable[[Any], T]) -> T:
        return await self._line.call(lambda: self._service.exchange(what, step), self._limits)

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

    async def _shut_down(self, grace: float) -> bool:
        """Is it off by shutting down? A BMC that can't ask the operating system may still cut the power."""
        try:
            asked = await self._do("shut the machine down", redfish_system.ask_to_shut_down)
        except PowerError as error:
            if error.fault not in REFUSED | {FaultClass.BUSY}:
                raise
            LOG.info("No shutdown before the power is cut: %s", error)
            return False
        if not asked:
            return True
        return await self._awaited(PowerState.OFF, within=grace) is PowerState.OFF

    async def _choose_boot(self, target: BootTarget, *, uefi: bool) -> BootChoice:
        refusal = PowerError(
            FaultClass.UNSUPPORTED, f"The BMC at {self._line.place} offers no boot from {target.value.lower()}"
        )
        for choice in BOOT_CHOICES[target]:
            if choice.source.startswith("Uefi") and not uefi:
                continue
            try:
                if await self._do("set the boot device", partial(redfish_system.choose_boot, choice=choice)):
                    return choice
            except PowerError as error:
                if error.fault not in REFUSED:
                    raise
                LOG.debug("Another boot device is tried: %s", error)
                refusal = error
        raise refusal

    async def _remembers(self, choice: BootChoice) -> None:
        read = partial(redfish_system.boot_sources, document=self._service.document)
        named = await wait_for(
            partial(self._do, "report its boot device", read),
            lambda sources: not sources or choice.source in sources,
            within=self._limits.remember,
            every=self._limits.poll,
        )
        if named and choice.source not in named:
            raise PowerError(
                FaultClass.PROTOCOL,
                f"The BMC at {self._line.place} accepted {choice.source} as the boot device, but after"
                f" {self._limits.remember:g} s it still names {' and '.join(sorted(named))}",
            )
