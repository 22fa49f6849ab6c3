"""What the machine behind a network card boots now.

The ramdisk is for machines that the operator itself is booting, and for those alone: a deployed machine that was
restarted by its owner, a machine nobody declared and a laptop in the wrong socket all go on to their own disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rackwright.agent.sessions import Boot, Boots

ASKS = 12
"""How often a machine asks again while the operator is starting, before it boots its disk like without us."""


class Why(StrEnum):
    """Why a machine boots its own disk."""

    NOT_BEING_BOOTED = "NotBeingBooted"
    UNKNOWN_MACHINE = "UnknownMachine"
    OPERATOR_NOT_READY = "OperatorNotReady"


@dataclass(frozen=True, slots=True)
class Ramdisk:
    """Boot the ramdisk, for this boot's operation."""

    boot: Boot
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


Decision = Ramdisk | LocalDisk | AskAgain


def decide(mac: str, boots: Boots, *, ready: bool, asked: int = 0) -> Decision:
    """What the machine with this canonical MAC address boots.

    `ready` says whether `boots` can be believed: an operator that has just started knows of no machine yet, and must
    not send one to its disk that it switched on a minute ago. `asked` counts how often this machine was told so.
    """
    if not ready:
        return AskAgain(mac, asked + 1) if asked < ASKS else LocalDisk(Why.OPERATOR_NOT_READY)
    boot = boots.by_mac((mac,))
    if boot is not None and mac in boot.macs:
        return Ramdisk(boot, mac)
    return LocalDisk(Why.NOT_BEING_BOOTED if boots.knows(mac) else Why.UNKNOWN_MACHINE)
