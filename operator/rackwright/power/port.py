"""The port through which the operator moves a machine's power, whatever its BMC speaks.

A driver is one connection to one BMC. It makes no decisions: each call does one thing, is safe to repeat, ends
within its time limit, and fails with a `PowerError` whose class says whose fault it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

BIOSAttributes = Mapping[str, str | int | bool | None]
"""Names and values as the vendor's BIOS has them: `{"ProcTurboMode": "Enabled"}`."""


class PowerState(StrEnum):
    """What the BMC says of the machine's power."""

    ON = "On"
    OFF = "Off"
    UNKNOWN = "Unknown"
    """Neither: on its way from one to the other, or the BMC doesn't say."""


class BootTarget(StrEnum):
    """Where the next power-on boots from."""

    NETWORK = "Network"
    DISK = "Disk"


class FaultClass(StrEnum):
    """Whose fault it is; the condition's reason is made from it."""

    CREDENTIALS = "Credentials"
    """The BMC refuses the account: wait for another Secret, and don't hammer (BMCs lock accounts)."""
    UNREACHABLE = "Unreachable"
    """No answer: refused, timed out, no such name, broken off. Worth repeating."""
    TLS = "TLS"
    """The certificate or the handshake: wait for a person to change the CA, the name or the BMC."""
    UNSUPPORTED = "Unsupported"
    """The BMC hasn't got what was asked for: repeating is pointless."""
    BUSY = "Busy"
    """Not now: repeat, after `retry_after` if the BMC gave one."""
    NOT_ALLOWED = "NotAllowed"
    """The operator was started without the leave to use such an address: wait for a person."""
    PROTOCOL = "Protocol"
    """The BMC broke its promises: nonsense, an internal error, or something accepted that never happened."""


class PowerError(Exception):
    """A BMC did not do what it was asked; `args[0]` is one sentence for a person, free of secrets."""

    def __init__(
        self, fault: FaultClass, message: str, *, retry_after: float | None = None, of_secret: bool = False
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.retry_after = retry_after
        """Seconds that the BMC asked to be left alone for, if it did."""
        self.of_secret = of_secret
        """Whether the Secret is wrong that holds the account (CREDENTIALS) or the CA (TLS), as far as can be seen."""


class WrongState(PowerError):
    """BUSY for as long as the machine is in its present state: what was asked for is not to be had in that."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A BMC account; never shown by repr."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Everything needed to reach one BMC."""

    address: str
    """As in `spec.bmc.address`, scheme included: `redfish+https://10.0.0.7/redfish/v1/Systems/1`."""
    credentials: Credentials | None = None
    ca: str | None = None
    """PEM certificates to verify the BMC against; None for the system's."""
    insecure_skip_tls_verify: bool = False
    machine: str = ""
    """The machine's uid where the address doesn't tell which one it is: for simulated ones, which share addresses."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many seconds a driver gives a BMC before it gives up. The defaults suit slow BMCs, not slow networks."""

    connect: float = 10.0
    """For a connection to be accepted."""
    read: float = 60.0
    """Between two bytes of an answer."""
    exchange: float = 120.0
    """For one exchange as a whole: a state read, a command given."""
    turn: float = 180.0
    """For an answer to anybody, until those who wait for their turn with the BMC are told that it is busy."""
    settle: float = 120.0
    """From an accepted power command to the state that it promises."""
    remember: float = 15.0
    """From an accepted boot device to the BMC naming it."""
    poll: float = 2.0
    """Between two looks at a BMC that something is awaited from."""


DEFAULT_LIMITS = Limits()


class PowerDriver(Protocol):
    """One machine behind one BMC. Exchanges with one BMC never overlap; each call raises `PowerError`."""

    async def power_state(self) -> PowerState:
        """Read the power state."""

    async def power_on(self) -> None:
        """Switch on, and return when the BMC reports it on. Nothing happens to a machine that is on."""

    async def ask_to_shut_down(self) -> bool:
        """Ask the operating system to switch off, and return at once.

        False where there is nothing to wait for: the machine is off, or its system can't be asked. Where the BMC says
        not now it is BUSY: a system that may be asked later doesn't lose its power.
        """

    async def power_off(self, *, grace: float) -> None:
        """Switch off, and return when the BMC reports it off.

        Asks the operating system first and waits `grace` seconds for it; 0 cuts the power at once.
        """

    async def cycle(self, *, grace: float) -> None:
        """Off, then on."""

    async def set_boot(self, target: BootTarget, *, uefi: bool) -> None:
        """Choose what the next power-on boots from: the network once, or the disk from now on.

        Called while the machine is off: many BMCs apply it at power-on only.
        """

    async def bios_attributes(self) -> BIOSAttributes:
        """The BIOS attributes as the BMC reports them; empty where it has none."""

    async def set_bios_attributes(self, wanted: BIOSAttributes) -> bool:
        """Ask for BIOS attributes; True if any differed, and then they count from the next boot."""

    async def close(self) -> None:
        """End the session. Never raises: whoever closes has nothing left to do about it."""
