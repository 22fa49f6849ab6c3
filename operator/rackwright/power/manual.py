"""A machine whose power a person moves: there is nobody to send anything to.

The life-cycle says in a condition what the person is to do, and goes on when it hears the machine. So each call
succeeds at once, and the power state is never known.
"""

from __future__ import annotations

from rackwright.power.line import Line
from rackwright.power.port import BIOSAttributes, BootTarget, Endpoint, FaultClass, Limits, PowerError, PowerState


class ManualDriver:
    """`power.port.PowerDriver` for `manual://` addresses."""

    def __init__(self, endpoint: Endpoint, line: Line, limits: Limits) -> None:
        """Nothing is needed of either."""

    async def power_state(self) -> PowerState:
        """Nobody can be asked."""
        return PowerState.UNKNOWN

    async def power_on(self) -> None:
        """A person is told by the machine's conditions."""

    async def ask_to_shut_down(self) -> bool:
        """Nobody can be asked."""
        return False

    async def power_off(self, *, grace: float) -> None:
        """A ramdisk is switched off by its agent; anything else by a person, who is told when that matters."""

    async def cycle(self, *, grace: float) -> None:
        """As the two it is made of."""

    async def set_boot(self, target: BootTarget, *, uefi: bool) -> None:
        """A person is told by the machine's conditions."""

    async def bios_attributes(self) -> BIOSAttributes:
        """None are known."""
        return {}

    async def set_bios_attributes(self, wanted: BIOSAttributes) -> bool:
        """Refused: there is no BMC that could."""
        raise PowerError(FaultClass.UNSUPPORTED, f"Nobody but a person can set {', '.join(wanted)} on this machine")

    async def close(self) -> None:
        """Nothing is open."""
