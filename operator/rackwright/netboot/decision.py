"""What the machine behind a network card boots now.

The ramdisk is for machines that the operator itself is booting: a deployed machine that was restarted by its owner
goes on to its own disk. So does a machine nobody declared, unless enlistment is on: then it gets the ramdisk for one
inspection, in which nothing is written and no command is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from rackwright.agent.sessions import Boot, Boots
from rackwright.agent.strangers import Strangers, Welcome

ASKS = 12
"""How often a machine asks again while the operator is starting, before it boots its disk like without us."""


class Why(StrEnum):
    """Why a machine boots its own disk."""

    NOT_BEING_BOOTED = "NotBeingBooted"
    UNKNOWN_MACHINE = "UnknownMachine"
    OPERATOR_NOT_READY = "OperatorNotReady"
    ENLISTMENT_FULL = "EnlistmentFull"
    ALREADY_INSPECTED = "AlreadyInspected"


@dataclass(frozen=True, slots=True)
class Ramdisk:
    """Boot the ramdisk, for this boot's operation."""

    boot: Boot
    mac: str


@dataclass(frozen=True, slots=True)
class Introduce:
    """Boot the ramdisk for an inspection alone: nobody knows this machine."""

    mac: str


@dataclass(frozen=True, slots=True)
class LocalDisk:
    """Leave the network and go on with the firmware's next boot device."""

    reason: Why


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Nothing is known yet: ask once more in a moment."""

    mac: str
    asked: int
    """How often the machine will have asked by then."""


Decision = Ramdisk | Introduce | LocalDisk | AskAgain


def decide(mac: str, boots: Boots, strangers: Strangers, *, ready: bool, asked: int = 0) -> Decision:
    """What the machine with this canonical MAC address boots.

    `ready` says whether `boots` can be believed: an operator that has just started knows of no machine yet, and must
    not send one to its disk that it switched on a minute ago. `asked` counts how often this machine was told so.
    """
    if not ready:
        return AskAgain(mac, asked + 1) if asked < ASKS else LocalDisk(Why.OPERATOR_NOT_READY)
    boot = boots.by_mac((mac,))
    if boot is not None and mac in boot.macs:
        return Ramdisk(boot, mac)
    return LocalDisk(Why.NOT_BEING_BOOTED) if boots.knows(mac) else _unknown(mac, strangers.welcome(mac))


def _unknown(mac: str, welcome: Welcome) -> Decision:
    match welcome:
        case Welcome.OPEN:
            return Introduce(mac)
        case Welcome.OFF:
            return LocalDisk(Why.UNKNOWN_MACHINE)
        case Welcome.FULL:
            return LocalDisk(Why.ENLISTMENT_FULL)
        case Welcome.SEEN:
            return LocalDisk(Why.ALREADY_INSPECTED)
        case _ as never:
            assert_never(never)
