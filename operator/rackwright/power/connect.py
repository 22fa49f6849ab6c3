"""Every BMC of the fleet, each behind one driver that is kept: sessions are few and logging in is slow.

Exchanges are queued per BMC, that is per host and port, because the systems of a chassis share one; how many go on in
the whole fleet, `traffic` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from rackwright.power.address import Address, bmc_key, parse
from rackwright.power.ipmi_driver import IPMIDriver
from rackwright.power.line import Line
from rackwright.power.manual import ManualDriver
from rackwright.power.one_bmc import OneBMC
from rackwright.power.port import DEFAULT_LIMITS, Endpoint, FaultClass, Limits, PowerDriver, PowerError
from rackwright.power.redfish_driver import RedfishDriver
from rackwright.power.simulated import simulation_not_allowed
from rackwright.power.traffic import HANGING_SECONDS, Exchanges, Traffic
from rackwright.power.webhook_driver import WebhookDriver

__all__ = ["DRIVERS", "Connections", "Factory", "bmc_key"]

Factory = Callable[[Endpoint, Line, Limits], PowerDriver]

DRIVERS: Mapping[str, Factory] = {
    "ipmi": IPMIDriver,
    "manual": ManualDriver,
    "redfish+http": RedfishDriver,
    "redfish+https": RedfishDriver,
    "simulated": simulation_not_allowed,
    "webhook+http": WebhookDriver,
    "webhook+https": WebhookDriver,
}
"""The driver for each scheme of `spec.bmc.address`; a new protocol is a line here. Simulated machines are refused here:
an operator that may simulate brings their driver."""


@dataclass(frozen=True, slots=True)
class _Kept:
    endpoint: Endpoint
    driver: PowerDriver


class Connections:
    """Gives the driver for an endpoint. Belongs to one event loop."""

    def __init__(
        self,
        *,
        concurrency: int = 32,
        per_second: float | None = None,
        limits: Limits = DEFAULT_LIMITS,
        drivers: Mapping[str, Factory] = DRIVERS,
        hanging: float = HANGING_SECONDS,
    ) -> None:
        """`concurrency` exchanges go on at once, `per_second` begin in a second (None: as many as can)."""
        self._limits = limits
        self._drivers = drivers
        self._traffic = Traffic(concurrency, per_second, hanging)
        self._bmcs: WeakValueDictionary[str, OneBMC] = WeakValueDictionary()
        self._kept: dict[str, _Kept] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._others: set[asyncio.Task[None]] = set()
        """What keeps a BMC for whoever asked it something before us."""

    def driver(self, endpoint: Endpoint) -> PowerDriver:
        """The driver for this endpoint: the one given before, unless the account, the CA or their use have changed.

        Nothing is sent yet. Raises `PowerError` (UNSUPPORTED) for an address that can't be used.
        """
        address = parse(endpoint.address)
        endpoint = replace(endpoint, address=str(address))
        key = _key(endpoint.address, endpoint.machine)
        kept = self._kept.get(key)
        if kept is not None and kept.endpoint == endpoint:
            return kept.driver
        factory = self._drivers.get(address.scheme)
        if factory is None:
            known = ", ".join(f"{scheme}://" for scheme in sorted(self._drivers))
            raise PowerError(
                FaultClass.UNSUPPORTED, f"There is no driver for BMC addresses with {address.scheme}://, only {known}"
            )
        driver = factory(endpoint, self._line(address, endpoint.machine), self._limits)
        self._end(key)
        self._kept[key] = _Kept(endpoint, driver)
        return driver

    def exchanges(self) -> Exchanges:
        """How many exchanges with BMCs there are now."""
        return self._traffic.counts()

    def forget(self, address: str, machine: str = "") -> None:
        """End the session of a machine that is gone, in the background; nothing happens if there is none.

        `machine` is as in the `Endpoint`.
        """
        with suppress(PowerError):  # an address that never led anywhere
            self._end(_key(bmc_key(address), machine))

    def _end(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            closing = asyncio.ensure_future(kept.driver.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def closed(self, *, within: float) -> None:
        """Return when the sessions that are being ended are, or after so many seconds."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=within)

    def busy(self, machines: Iterable[tuple[str, str]]) -> set[str]:
        """The BMCs of these machines with which an exchange goes on, as `spare` takes them.

        A machine is the two that an `Endpoint` has: address, and machine.
        """
        keys = {_bmc(parse(address), machine) for address, machine in machines}
        return {key for key in keys if (one := self._bmcs.get(key)) is not None and one.asked}

    def spare(self, bmcs: Collection[str], seconds: float) -> None:
        """Begin no exchange with these BMCs for so long: they may be at what another operator asked."""
        for key in bmcs:
            kept = asyncio.ensure_future(_kept_for(self._one(key), seconds))
            self._others.add(kept)
            kept.add_done_callback(self._others.discard)

    async def close(self, *, within: float = 20.0) -> set[str]:
        """Wait for the exchanges that are under way, and for all sessions to end, `within` seconds at the most.

        Which BMCs have not answered by then, as `spare` takes them. Sessions that are left they end by themselves.
        """
        under_way = {asyncio.ensure_future(bmc.free()): key for key, bmc in self._bmcs.items() if bmc.asked}
        for key in list(self._kept):
            self._end(key)  # behind the former: turns of one rank are had in the order in which they were asked for
        ends = {*under_way, *self._closing}
        if ends:
            await asyncio.wait(ends, timeout=within)
        unanswered = {key for released, key in under_way.items() if not released.done()}
        for unfinished in (*ends, *self._others):
            unfinished.cancel()
        self._traffic.threads.shutdown(wait=False, cancel_futures=True)
        return unanswered

    def _line(self, address: Address, machine: str) -> Line:
        place = f"{address.scheme}://{address.host}" if machine else address.place
        return Line(place, self._one(_bmc(address, machine)), self._traffic)

    def _one(self, key: str) -> OneBMC:
        one = self._bmcs.get(key)
        if one is None:
            one = self._bmcs[key] = OneBMC()
        return one


def _bmc(address: Address, machine: str) -> str:
    """What tells one BMC from the others."""
    return _key(address.authority or str(address), machine)


def _key(place: str, machine: str) -> str:
    """What tells one machine's driver, or one BMC's queue, from the others."""
    return f"{place}#{machine}" if machine else place


async def _kept_for(bmc: OneBMC, seconds: float) -> None:
    async with bmc.kept():
        await asyncio.sleep(seconds)
