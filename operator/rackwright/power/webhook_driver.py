"""One machine behind a webhook: `switching`'s order of things, and what becomes of what its device hasn't got.

The least that a device must do is to switch its machine on and off and to say which it is. One that cannot press the
power button has its power cut; one that cannot choose a boot device leaves it to the firmware's boot order.
"""

from __future__ import annotations

import logging
from functools import partial

from rackwright.power import webhook_actions
from rackwright.power.line import Line
from rackwright.power.port import DEFAULT_LIMITS, BIOSAttributes, BootTarget, Endpoint, FaultClass, Limits, PowerError
from rackwright.power.switching import SwitchingDriver
from rackwright.power.webhook import Call, Unimplemented, Webhook

LOG = logging.getLogger(__name__)


class WebhookDriver(SwitchingDriver[Call]):
    """One webhook."""

    def __init__(self, endpoint: Endpoint, line: Line, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(Webhook(endpoint, limits), webhook_actions, line, limits)

    def _cannot_ask(self, error: PowerError) -> bool:
        return isinstance(error, Unimplemented)

    async def set_boot(self, target: BootTarget, *, uefi: bool) -> None:
        """Choose the device, where there is a choice.

        Where there is none, the firmware tries the network first, whatever is wanted: our boot script sends a machine
        on to its disk unless the operator is booting it into the ramdisk (`netboot/decision.py`).
        """
        try:
            await self._do("set the boot device", partial(webhook_actions.choose_boot, target=target, uefi=uefi))
        except Unimplemented as error:
            LOG.info("%s; the firmware's boot order decides, and must begin with the network", error)

    async def bios_attributes(self) -> BIOSAttributes:
        """None: the contract knows of no firmware settings."""
        return {}

    async def set_bios_attributes(self, wanted: BIOSAttributes) -> bool:
        """Raise, if there is anything to set."""
        if wanted:
            raise PowerError(FaultClass.UNSUPPORTED, f"The BMC at {self._line.place} is a webhook: it sets no BIOS")
        return False
