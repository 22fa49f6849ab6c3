"""What is asked of one machine's chassis over IPMI, a step at a time.

The steps have a way to ask, and know nothing of how it is done. Section and table numbers are those of the IPMI
specification 2.0, revision 1.1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import IntEnum

from rackwright.power.port import BootTarget, FaultClass, PowerError, PowerState

LOG = logging.getLogger(__name__)

Ask = Callable[[int, int, bytes], bytes]
"""Network function, command and data; gives back the answer's data, and raises `PowerError` for a refusal."""

CHASSIS = 0x00
GET_CHASSIS_STATUS = 0x01
CHASSIS_CONTROL = 0x02
SET_BOOT_OPTIONS = 0x08
GET_BOOT_OPTIONS = 0x09

KEPT = bytes((0x03, 0x08))
"""Boot option 3 (table 28-14): the boot flags stay valid for longer than 60 seconds without a power command."""
BOOT_FLAGS = 0x05
"""Boot option 5."""
VALID, LASTING, UEFI = 0x80, 0x40, 0x20
"""Its first byte."""
LOCKED = 0x80
"""In the answer, beside the option's number: what follows is not valid."""

DEVICES: Mapping[BootTarget, int] = {BootTarget.NETWORK: 1, BootTarget.DISK: 2}
"""Its second byte, bits 5 to 2."""
DEVICE_NAMES: Mapping[int, str] = {
    0: "no device",
    1: "the network",
    2: "the disk",
    3: "the disk in safe mode",
    4: "the diagnostic partition",
    5: "the CD",
    6: "its setup",
    15: "a removable device",
}


class Control(IntEnum):
    """What Chassis Control may be asked for (table 28-4)."""

    POWER_DOWN = 0
    POWER_UP = 1
    SOFT_SHUTDOWN = 5


def power(ask: Ask) -> PowerState:
    """On or off: IPMI knows nothing between."""
    return PowerState.ON if ask(CHASSIS, GET_CHASSIS_STATUS, b"")[0] & 1 else PowerState.OFF


def switch_on(ask: Ask) -> bool:
    """Switch on; False if nothing needs to be waited for."""
    return _control(ask, Control.POWER_UP, unless=PowerState.ON)


def ask_to_shut_down(ask: Ask) -> bool:
    """Press the power button for the operating system to see; False if nothing needs to be waited for."""
    return _control(ask, Control.SOFT_SHUTDOWN, unless=PowerState.OFF)


def cut_power(ask: Ask) -> bool:
    """Switch off at once; False if nothing needs to be waited for."""
    return _control(ask, Control.POWER_DOWN, unless=PowerState.OFF)


def choose_boot(ask: Ask, target: BootTarget, *, uefi: bool) -> None:
    """Boot from the network once, or from the disk from now on.

    The order that BMCs forget the choice after a minute unless they are told comes first; those that don't (OpenBMC's)
    refuse to be told.
    """
    try:
        ask(CHASSIS, SET_BOOT_OPTIONS, KEPT)
    except PowerError as error:
        if error.fault not in {FaultClass.UNSUPPORTED, FaultClass.PROTOCOL}:
            raise
        LOG.debug("The boot device may be forgotten after a minute: %s", error)
    flags = VALID | (LASTING if target is BootTarget.DISK else 0) | (UEFI if uefi else 0)
    ask(CHASSIS, SET_BOOT_OPTIONS, bytes((BOOT_FLAGS, flags, DEVICES[target] << 2, 0, 0, 0)))


def boot_device(ask: Ask) -> int | None:
    """The device that the BMC says it will boot from; None where it doesn't say.

    Whether once or for good is not looked at: some BMCs show nothing of it and yet do as they were told.
    """
    try:
        answer = ask(CHASSIS, GET_BOOT_OPTIONS, bytes((BOOT_FLAGS, 0, 0)))
    except PowerError as error:
        if error.fault is not FaultClass.UNSUPPORTED:
            raise
        return None
    _, number, flags, device = answer[:4]
    return None if number & LOCKED or not flags & VALID else (device >> 2) & 0xF


def _control(ask: Ask, control: Control, *, unless: PowerState) -> bool:
    if power(ask) is unless:
        return False
    ask(CHASSIS, CHASSIS_CONTROL, bytes((control,)))
    return True
