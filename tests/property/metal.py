"""A simulated machine: what is really on its disks and running, whatever anybody believes.

It knows nothing of the life-cycle. It does what a BMC, a ramdisk's agent and an installed system do, including what
they do badly: not answering, answering late, failing, rebooting by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from rackwright.lifecycle.world import CommandState

DISKS = ("/dev/sda", "/dev/sdb")
"""An image is written to the first unless hints choose the second; what an owner keeps is on both."""


class Running(Enum):
    """What the processor executes."""

    NOTHING = auto()
    RAMDISK = auto()
    SYSTEM = auto()
    UNBOOTABLE = auto()
    """On, and nothing that could be started was found."""


class Boot(Enum):
    """Where the next power-on starts from."""

    NETWORK = auto()
    DISK = auto()


@dataclass(slots=True)
class Ramdisk:
    """A ramdisk that was booted, with its agent."""

    attempt: str
    """Id of the attempt that it was booted for."""
    inspected: bool = False
    """Whether it has found out what the machine is made of."""
    beating: bool = False
    """Whether it has started to report."""
    answers: bool = True
    """Whether it says how far its command is."""
    command: CommandState = CommandState.NONE
    doing: str = ""
    """What the command is: Write, Erase or Rescue."""
    erased: tuple[bool, ...] = ()
    """Per disk: whether reading back showed that it is erased."""


@dataclass(slots=True)
class Metal:
    """The machine and its BMC."""

    on: bool = False
    running: Running = Running.NOTHING
    next_boot: Boot = Boot.DISK
    ramdisk: Ramdisk | None = None

    image: str | None = None
    """The attempt whose image is complete on a disk; `existing` for a system that nobody of us installed."""
    scribbled: bool = False
    """Whether a disk holds an image that was begun and not finished."""
    owned_by: set[str] = field(default_factory=set)
    """Owners whose data can be read off its disks."""
    first_boot_due: str | None = None
    """The attempt whose system runs for the first time and has not been thanked for its report."""
    calls_home: bool = True
    """Whether the installed system can reach the operator."""

    commands_fail: bool = False
    """Whether the agent's commands fail."""
    stubborn_disk: bool = False
    """Whether the second disk can't be erased."""

    bmc_silent: bool = False
    secret_missing: bool = False
    """The BMC can't be talked to because something that spec names is missing."""
    on_its_way: bool = False
    """Whether the BMC answers and doesn't say how the power is, for it is between on and off."""
    refusals: int = 0
    """How many of the next power actions the BMC refuses."""

    starts: int = 0
    """How often it was started."""
    writes: list[str] = field(default_factory=list)
    """Attempts that began to write an image, in order."""
    erasures: int = 0
    """How often an erase was begun."""

    @property
    def blank(self) -> bool:
        """Whether nothing can be read off its disks."""
        return self.image is None and not self.scribbled and not self.owned_by

    def as_it_is(self) -> Metal:
        """A copy that what happens next doesn't change."""
        ramdisk = replace(self.ramdisk) if self.ramdisk is not None else None
        return replace(self, ramdisk=ramdisk, owned_by=set(self.owned_by), writes=list(self.writes))

    # --- power ---------------------------------------------------------------------------------------------------

    def switch_off(self) -> None:
        """Power is cut; whatever was in memory is gone."""
        if self.ramdisk is not None and self.ramdisk.command is CommandState.RUNNING and self.ramdisk.doing == "Erase":
            self.image = None  # half erased: nothing boots from it any more
            self.scribbled = True
        self.on = False
        self.running = Running.NOTHING
        self.ramdisk = None

    def switch_on(self, *, attempt: str | None) -> None:
        """Power comes; `attempt` is what the operator's boot script would start, if it is asked."""
        if self.on:
            return
        self.on = True
        self.starts += 1
        target, self.next_boot = self.next_boot, Boot.DISK
        if target is Boot.NETWORK and attempt is not None:
            self.running, self.ramdisk = Running.RAMDISK, Ramdisk(attempt)
        elif self.image is not None and not self.scribbled:
            self.running = Running.SYSTEM
        else:
            self.running = Running.UNBOOTABLE

    def reset(self) -> None:
        """It restarts by itself, from its disk."""
        if self.on:
            self.switch_off()
            self.switch_on(attempt=None)

    # --- the agent's commands ------------------------------------------------------------------------------------

    def command(self, doing: str) -> None:
        """The agent begins a command; it has one at a time."""
        ramdisk = self.ramdisk
        if ramdisk is None or ramdisk.command is CommandState.RUNNING:
            return
        ramdisk.command, ramdisk.doing, ramdisk.erased = CommandState.RUNNING, doing, ()
        if doing == "Write":
            self.writes.append(ramdisk.attempt)
            self.image, self.scribbled, self.first_boot_due = None, True, None
        elif doing == "Erase":
            self.erasures += 1
            self.image, self.first_boot_due = None, None

    def finish(self) -> None:
        """The command that runs ends."""
        ramdisk, well = self.ramdisk, not self.commands_fail
        if ramdisk is None or ramdisk.command is not CommandState.RUNNING:
            return
        ramdisk.command = CommandState.SUCCEEDED if well else CommandState.FAILED
        if ramdisk.doing == "Write" and well:
            self.image, self.scribbled, self.first_boot_due = ramdisk.attempt, False, ramdisk.attempt
        elif ramdisk.doing == "Erase":
            ramdisk.erased = (well, well and not self.stubborn_disk)
            if all(ramdisk.erased):
                self.image, self.scribbled = None, False
                self.owned_by.clear()
            else:
                self.scribbled = True
