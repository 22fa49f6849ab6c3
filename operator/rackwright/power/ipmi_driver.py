"""One machine behind an IPMI BMC: `switching`'s order of things, and how its boot device is chosen."""

from __future__ import annotations

from functools import partial

from rackwright.power import ipmi_chassis
from rackwright.power.ipmi import Service
from rackwright.power.ipmi_chassis import DEVICE_NAMES, DEVICES, Ask
from rackwright.power.line import Line
from rackwright.power.port import DEFAULT_LIMITS, BIOSAttributes, BootTarget, Endpoint, FaultClass, Limits, PowerError
from rackwright.power.settle import wait_for
from rackwright.power.switching import SwitchingDriver


class IPMIDriver(SwitchingDriver[Ask]):
    """One chassis."""

    def __init__(self, endpoint: Endpoint, line: Line, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(Service(endpoint, limits), ipmi_chassis, line, limits)

    async def set_boot(self, target: BootTarget, *, uefi: bool) -> None:
        """Choose mode and device, and see that the BMC remembers the device, where it says which."""
        await self._do("set the boot device", partial(ipmi_chassis.choose_boot, target=target, uefi=uefi))
        wanted = DEVICES[target]
        named = await wait_for(
            partial(self._do, "report its boot device", ipmi_chassis.boot_device),
            lambda device: device in {None, wanted},
            within=self._limits.remember,
            every=self._limits.poll,
        )
        if named not in {None, wanted}:
            raise PowerError(
                FaultClass.PROTOCOL,
                f"The BMC at {self._line.place} accepted {DEVICE_NAMES[wanted]} as the boot device, but after"
                f" {self._limits.remember:g} s it still names {DEVICE_NAMES.get(named, f'device {named}')}",
            )

    async def bios_attributes(self) -> BIOSAttributes:
        """None: IPMI has no way to them."""
        return {}

    async def set_bios_attributes(self, wanted: BIOSAttributes) -> bool:
        """Refuse them, unless there are none."""
        if not wanted:
            return False
        raise PowerError(
            FaultClass.UNSUPPORTED,
            f"The BMC at {self._line.place} cannot set BIOS attributes over IPMI: give its Redfish address, if any",
        )
