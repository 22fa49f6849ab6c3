"""Drivers that are timed: each call to a BMC is told of, with how long it took and whose fault it was if it failed.

What it took is the BMC's time: where it waits for its turn, it waits for us.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

from rackwright.power.connect import Factory
from rackwright.power.line import WAITED, Line, Waited
from rackwright.power.port import (
    BIOSAttributes,
    BootTarget,
    Endpoint,
    FaultClass,
    Limits,
    PowerDriver,
    PowerError,
    PowerState,
)

T = TypeVar("T")
Heard = Callable[[str, str, float, FaultClass | None], None]
"""Told of each call: driver, call, seconds, and the fault if there was one."""


def metered(drivers: Mapping[str, Factory], heard: Heard) -> dict[str, Factory]:
    """The same drivers by scheme, each of whose calls is told to `heard` by the driver's name, like `redfish`."""
    return {scheme: partial(_metered, factory, scheme.partition("+")[0], heard) for scheme, factory in drivers.items()}


def _metered(factory: Factory, name: str, heard: Heard, endpoint: Endpoint, line: Line, limits: Limits) -> PowerDriver:
    return _Metered(factory(endpoint, line, limits), name, heard)


class _Metered:
    """A driver that does what another does, and tells of it. A call that was given up by its caller isn't told of."""

    def __init__(self, driver: PowerDriver, name: str, heard: Heard) -> None:
        self._driver = driver
        self._name = name
        self._heard = heard

    async def _told(self, call: str, doing: Awaitable[T]) -> T:
        began, waited = time.monotonic(), Waited()
        before = WAITED.set(waited)
        try:
            answer = await doing
        except PowerError as error:
            self._heard(self._name, call, time.monotonic() - began - waited.seconds, error.fault)
            raise
        finally:
            WAITED.reset(before)
        self._heard(self._name, call, time.monotonic() - began - waited.seconds, None)
        return answer

    async def power_state(self) -> PowerState:
        return await self._told("power_state", self._driver.power_state())

    async def power_on(self) -> None:
        await self._told("power_on", self._driver.power_on())

    async def ask_to_shut_down(self) -> bool:
        return await self._told("ask_to_shut_down", self._driver.ask_to_shut_down())

    async def power_off(self, *, grace: float) -> None:
        await self._told("power_off", self._driver.power_off(grace=grace))

    async def cycle(self, *, grace: float) -> None:
        await self._told("cycle", self._driver.cycle(grace=grace))

    async def set_boot(self, target: BootTarget, *, uefi: bool) -> None:
        await self._told("set_boot", self._driver.set_boot(target, uefi=uefi))

    async def bios_attributes(self) -> BIOSAttributes:
        return await self._told("bios_attributes", self._driver.bios_attributes())

    async def set_bios_attributes(self, wanted: BIOSAttributes) -> bool:
        return await self._told("set_bios_attributes", self._driver.set_bios_attributes(wanted))

    async def close(self) -> None:
        await self._driver.close()
