"""What a row does: a closed set of values. An executor carries one out and has nothing left to choose.

Two kinds never meet. A *record* changes status and touches nothing else; an *action* touches the machine (or its
record's metadata) and was announced in status before. So intent always precedes the act, and each may be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rackwright.api.machine import OperationName
from rackwright.lifecycle.world import Fault


class Stage(StrEnum):
    """How far an attempt has come; kept in `status.operation.step`, so a restarted operator goes on from there."""

    START = ""
    POWER_OFF = "PowerOff"
    BOOT_RAMDISK = "BootRamdisk"
    WRITE_IMAGE = "WriteImage"
    BOOT_DISK = "BootDisk"
    ERASE_DISKS = "EraseDisks"
    OPEN_RESCUE = "OpenRescue"
    SHUT_DOWN = "ShutDown"
    POWER_ON = "PowerOn"


WORK_DONE = (Stage.BOOT_DISK, Stage.SHUT_DOWN)
"""Stages at which the disks are as they should be, and only power is left: to begin anew would do all of it again."""

# --- records ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin an operation, with its first attempt's id and deadline."""

    operation: OperationName


@dataclass(frozen=True, slots=True)
class Advance:
    """The attempt has come to another stage."""

    stage: Stage
    with_the_next: bool = False
    """Whether it is only recorded with what follows: to do the stage before once more is all that a crash costs."""


@dataclass(frozen=True, slots=True)
class Renew:
    """The attempt hasn't touched the machine yet: its time begins now, and with a first attempt the operation's."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The attempt failed: schedule the next, or give up. Without a fault, the one that was seen."""

    fault: Fault | None = None
    final: bool = False
    """Whether another attempt couldn't help."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The operation succeeded."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """The operation isn't wanted any more."""


@dataclass(frozen=True, slots=True)
class Move:
    """Only the phase changes, and with it what the phase implies: New and Ready have no owner."""


@dataclass(frozen=True, slots=True)
class NoteMark:
    """The rescue leads to Broken now, wherever it was entered from."""


@dataclass(frozen=True, slots=True)
class Allocate:
    """Reserve the machine for the owner that spec names."""


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Note that a restart was asked for, where there is nothing to restart."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take a running machine over as it is."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Believe the annotation: the machine was deployed when its status was lost."""


@dataclass(frozen=True, slots=True)
class RecordErasure:
    """Put the erase's evidence into status, whatever it says."""


Record = (
    Begin
    | Advance
    | Renew
    | Fail
    | Finish
    | Abandon
    | Move
    | NoteMark
    | Allocate
    | Acknowledge
    | Adopt
    | Restore
    | RecordErasure
)

# --- actions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PowerOff:
    """Ask the system to switch off, cut its power if it doesn't, and return when it is off."""

    stage: Stage | None = Stage.POWER_OFF


@dataclass(frozen=True, slots=True)
class PowerOn:
    """Switch a machine on as it is."""

    stage: Stage | None = None


@dataclass(frozen=True, slots=True)
class BootRamdisk:
    """Boot from the network, once."""

    stage: Stage = Stage.BOOT_RAMDISK


@dataclass(frozen=True, slots=True)
class BootDisk:
    """Boot from the disk, from now on."""

    stage: Stage = Stage.BOOT_DISK


@dataclass(frozen=True, slots=True)
class KeepInventory:
    """Write the HardwareInventory."""

    stage: Stage | None = None


@dataclass(frozen=True, slots=True)
class WriteImage:
    """Have the agent write and verify the image, with the first boot's configuration."""

    stage: Stage = Stage.WRITE_IMAGE


@dataclass(frozen=True, slots=True)
class EraseDisks:
    """Have the agent erase every disk and read back what is left."""

    stage: Stage = Stage.ERASE_DISKS


@dataclass(frozen=True, slots=True)
class OpenRescue:
    """Have the agent let the given SSH keys in."""

    stage: Stage = Stage.OPEN_RESCUE


@dataclass(frozen=True, slots=True)
class TakeHold:
    """Put our finalizer on the record, and note beside it which record that is."""

    stage: Stage | None = None


@dataclass(frozen=True, slots=True)
class LetGo:
    """Take our finalizer off: the record may vanish."""

    stage: Stage | None = None


@dataclass(frozen=True, slots=True)
class RecordEvidence:
    """Make the annotation say what is installed, for a backup that has no status."""

    stage: Stage | None = None


Action = (
    PowerOff
    | PowerOn
    | BootRamdisk
    | BootDisk
    | KeepInventory
    | WriteImage
    | EraseDisks
    | OpenRescue
    | TakeHold
    | LetGo
    | RecordEvidence
)

# --- nothing to do ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wait:
    """Something is under way; an event, or a look after `watch`, goes on."""

    soon: bool = True


@dataclass(frozen=True, slots=True)
class Rest:
    """What is observed is what is declared (`settled`), or nobody has declared more."""

    settled: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing goes on until somebody changes something."""


Pause = Wait | Rest | Hold

Bookkeeping = TakeHold | RecordEvidence
"""Actions on the record alone, which keep it safe and which nobody notices."""

Step = Record | Action | Pause
