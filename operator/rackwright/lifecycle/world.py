"""Everything a decision may look at, in one frozen value.

An unreachable BMC or an absent agent is data here, never an exception: the table has rows for them. Time and chance
are arguments too, so that a decision can be replayed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from rackwright.api.machine import (
    BareMetalMachineSpec,
    BareMetalMachineStatus,
    Erasure,
    HardwareSummary,
    Installed,
    Power,
    RescueEnvironment,
)


class Blame(StrEnum):
    """Whose fault a fault is."""

    BMC = "BMC"
    AGENT = "Agent"
    IMAGE = "Image"
    DISK = "Disk"
    CONFIGURATION = "Configuration"
    OPERATING_SYSTEM = "OperatingSystem"
    TIMEOUT = "Timeout"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that went wrong, said to a person: whose fault, one CamelCase word, one sentence free of secrets."""

    blame: Blame
    reason: str
    message: str
    retry_after: timedelta | None = None
    """How long the other side asked to be left alone."""


class CommandState(StrEnum):
    """Where the command that the agent was given is."""

    NONE = "None"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"
    """The agent reports, but doesn't answer when it is asked."""


@dataclass(frozen=True, slots=True)
class Agent:
    """The ramdisk's agent, of the present attempt's own boot."""

    heard_at: datetime
    inspected: bool = False
    """Whether its inspection has arrived, kept or not."""
    command: CommandState = CommandState.NONE
    fault: Fault | None = None
    """Why the command failed."""
    erasure: tuple[Erasure, ...] = ()
    """Evidence that a finished erase returned."""
    rescue: RescueEnvironment | None = None
    """How to log in, once a rescue environment is open."""
    takes_commands: bool = True
    """Whether it has sent a heartbeat; before that it can only have reported its hardware."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a queue: the `number`th `of` so many."""

    number: int
    of: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What was observed in this pass."""

    power: Power = Power.UNKNOWN
    bmc_fault: Fault | None = None
    """Why power is unknown, if it was asked for."""
    agent: Agent | None = None
    first_boot: Installed | None = None
    """What the installed system reported, with the present attempt's token."""
    twin: str | None = None
    """`namespace/name` of the machine that a boot MAC or BMC of this one belongs to: it holds data, or is older."""
    kept: HardwareSummary | None = None
    """What the present attempt's inspection found, once it was kept as a HardwareInventory."""
    inventory: HardwareSummary | None = None
    """What the HardwareInventory says of a machine that nobody trusts yet; looked at until status has it."""
    obstacle: Fault | None = None
    """Why the declared deployment can't begin: something it names is missing or doesn't fit."""
    evidence: Installed | None = None
    """`status.installed` as the machine's annotation remembers it."""
    image_checksum: str | None = None
    """Of the image that is declared now, where it exists."""
    root_disk: str | None = None
    """The disk that the image would go to now, by its serial number, WWN or path, where the inventory tells."""
    left_behind: str | None = None
    """The disk that holds what was written before, where an image would go to another one now."""
    user_data: str | None = None
    """Keyed digest of the user data that is declared now, where it is known."""
    queued: Place | None = None
    """Where it waits for its turn to install; None where it has its turn, or nothing to install."""
    listening_since: datetime | None = None
    """Since when agents could be heard: an operator that just started has heard nobody yet."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's own settings that decisions depend on."""

    boot_timeout: timedelta = timedelta(minutes=15)
    """Power-on until the agent reports."""
    silence: timedelta = timedelta(minutes=3)
    """An agent that was at work and isn't heard for this long is lost."""
    poll: timedelta = timedelta(minutes=5)
    """How often an idle machine's power is looked at."""
    watch: timedelta = timedelta(seconds=15)
    """How often a machine that should be doing something is looked at, beside the events that wake it."""
    retry_base: timedelta = timedelta(minutes=2)
    """Before the second attempt, then twice as long each time: a BMC that resets itself is away for minutes."""
    retry_limit: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class World:
    """One machine, as declared, recorded and observed, at one instant."""

    uid: str
    name: str
    generation: int
    spec: BareMetalMachineSpec
    status: BareMetalMachineStatus
    now: datetime
    seen: Seen = Seen()
    policy: Policy = Policy()
    deleting: bool = False
    force_delete: bool = False
    held: bool = True
    """Whether our finalizer keeps the record until the machine is released."""
    restored: bool = False
    """Whether the record comes from a backup of another, which was held before it."""
    locked_by: str | None = None
    """The client that set `spec.locked`, as the API server's field managers tell."""
    hurry: bool = False
    """Something that a retry waits for has changed: try now."""
    chance: float = 0.5
    """A random number from 0 to 1, which spreads retries."""

    def with_status(self, status: BareMetalMachineStatus) -> World:
        """The same world after a status was recorded."""
        return replace(self, status=status)
