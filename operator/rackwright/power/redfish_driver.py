"""One machine behind a Redfish BMC: `switching`'s order of things, and how its boot device and BIOS are chosen."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from rackwright.power import redfish_system
from rackwright.power.line import Line
from rackwright.power.port import DEFAULT_LIMITS, BIOSAttributes, BootTarget, Endpoint, FaultClass, Limits, PowerError
from rackwright.power.redfish import Service
from rackwright.power.redfish_system import BOOT_CHOICES, BootChoice
from rackwright.power.settle import wait_for
from rackwright.power.switching import REFUSED, SwitchingDriver

LOG = logging.getLogger(__name__)


class RedfishDriver(SwitchingDriver[Any]):
    """One ComputerSystem."""

    def __init__(self, endpoint: Endpoint, line: Line, limits: Limits = DEFAULT_LIMITS) -> None:
        self._bmc = Service(endpoint, limits)
        super().__init__(self._bmc, redfish_system, line, limits)

    async def set_boot(self, target: BootTarget, *, uefi: bool) -> None:
        """Choose mode and device, and see that the BMC remembers them.

        The mode twice, for Supermicro's go back to BIOS with a new device. Others (iDRACs) take it in at the next boot,
        and until then refuse it a second time.
        """
        taken_in = await self._choose_mode(uefi=uefi)
        choice = await self._choose_boot(target, uefi=uefi)
        try:
            await self._choose_mode(uefi=uefi)
        except PowerError as error:
            if not taken_in or error.fault not in REFUSED:
                raise
            LOG.debug("The boot mode is taken to be on its way: %s", error)
        if choice.enabled != "Disabled":
            await self._remembers(choice)

    async def bios_attributes(self) -> BIOSAttributes:
        """The BIOS attributes as the BMC reports them; empty where it has none."""
        return await self._do("report its BIOS attributes", redfish_system.bios_attributes)

    async def set_bios_attributes(self, wanted: BIOSAttributes) -> bool:
        """Ask for BIOS attributes; True if any differed, and then they count from the next boot."""
        return await self._do("set BIOS attributes", partial(redfish_system.set_bios_attributes, wanted=wanted))

    async def _choose_mode(self, *, uefi: bool) -> bool:
        try:
            return await self._do("set the boot mode", partial(redfish_system.choose_mode, uefi=uefi))
        except PowerError as error:
            if error.fault not in REFUSED:
                raise
            mode = "UEFI" if uefi else "Legacy"
            raise PowerError(
                error.fault, f"{error.message}; choose {mode} in the machine's firmware, or another spec.bootMode"
            ) from error

    async def _choose_boot(self, target: BootTarget, *, uefi: bool) -> BootChoice:
        refusal = PowerError(
            FaultClass.UNSUPPORTED, f"The BMC at {self._line.place} offers no boot from {target.value.lower()}"
        )
        for choice in BOOT_CHOICES[target]:
            if choice.source.startswith("Uefi") and not uefi:
                continue
            try:
                step = partial(redfish_system.choose_boot, choice=choice, document=self._bmc.document)
                if await self._do("set the boot device", step):
                    return choice
            except PowerError as error:
                if error.fault not in REFUSED:
                    raise
                LOG.debug("Another boot device is tried: %s", error)
                refusal = error
        raise refusal

    async def _remembers(self, choice: BootChoice) -> None:
        read = partial(redfish_system.boot_sources, document=self._bmc.document)
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
