"""One machine's record, the operator around `decide`, and the simulated metal: the loop, without a cluster.

A pass does what the operator's does: observe, decide, then either record what is meant to be done or do it. Status
is kept as the JSON that the API server would store, so that every pass starts from what was really recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import lru_cache
from typing import Literal, assert_never

from tests.property.admission import admitted
from tests.property.metal import DISKS, Boot, Metal, Running

from rackwright.api.conditions import Condition
from rackwright.api.inventory import DiskInventory
from rackwright.api.machine import (
    BareMetalMachineSpec,
    BareMetalMachineStatus,
    Erasure,
    HardwareSummary,
    Installed,
    OperationName,
    Phase,
    Power,
)
from rackwright.install.image import left_behind, root_disk
from rackwright.lifecycle import decide, steps
from rackwright.lifecycle.by_hand import assumed_power, moved_by_hand
from rackwright.lifecycle.decide import Decision
from rackwright.lifecycle.steps import Action, Stage
from rackwright.lifecycle.world import Agent, Blame, CommandState, Fault, Place, Policy, Seen, World
from rackwright.record import wants_inspection

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
HARDWARE = HardwareSummary(cpus=8, memory_mib=32768, disks=len(DISKS), disk_gib=960, nics=2)
INVENTORY = tuple(DiskInventory(name=name, size_bytes=960 * 2**30) for name in DISKS)
IMAGES = {"debian-12": "sha256:" + "1" * 64, "fedora-42": "sha256:" + "2" * 64}

SILENT = Fault(Blame.BMC, "BMCUnreachable", "The BMC does not answer.")
REFUSED = Fault(Blame.BMC, "BMCProtocolError", "The BMC accepted the request, and nothing happened.")
SECRET_MISSING = Fault(Blame.CONFIGURATION, "SecretMissing", "The Secret node-07-bmc does not exist.")
IMAGE_MISSING = Fault(Blame.CONFIGURATION, "ImageMissing", "The OperatingSystemImage does not exist.")
AGENT_GONE = Fault(Blame.AGENT, "AgentLost", "The agent isn't there any more.")
COMMAND_FAILED = Fault(Blame.DISK, "DiskError", "The disk does not take what is written to it.")

_BOOTS_RAMDISK = frozenset({Stage.BOOT_RAMDISK, Stage.WRITE_IMAGE, Stage.ERASE_DISKS, Stage.OPEN_RESCUE})


class Crash(Enum):
    """Where the operator dies in a pass."""

    DECIDED = auto()
    """Nothing of the pass happens."""
    ACTED = auto()
    """The action is carried out, and how it went is never recorded."""


@lru_cache(maxsize=64)
def _read(stored: str) -> BareMetalMachineStatus:
    return BareMetalMachineStatus.model_validate_json(stored)


@dataclass(slots=True)
class Memory:
    """What an operator knows that isn't in the cluster; a restart forgets it."""

    listening_since: datetime
    session: tuple[str, datetime] | None = None
    """The attempt whose agent reports, and when it last did."""
    inspected: str | None = None
    """The attempt whose inspection arrived."""
    kept: str | None = None
    """The attempt whose inventory was written."""
    first_boot: str | None = None
    """The attempt whose system called."""
    power: Power | None = None
    """The last reading, until something is done to the machine."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One pass, for whoever checks it."""

    world: World
    decision: Decision
    action: Action | None
    """What was carried out, or tried."""
    fault: Fault | None
    """How that failed."""
    before: BareMetalMachineStatus
    after: BareMetalMachineStatus
    """What is recorded after the pass."""
    metal: Metal
    """As it was before the pass."""


@dataclass(slots=True)
class Rig:
    """A machine under an operator."""

    spec: BareMetalMachineSpec
    metal: Metal = field(default_factory=Metal)
    watch: Callable[[Rig, Moment], None] | None = None
    """Sees every pass."""

    now: datetime = START
    stored: str = "{}"
    generation: int = 1
    evidence: Installed | None = None
    held: bool = False
    restored: bool = False
    """Whether the record is a backup of the one that was held first."""
    deleting: bool = False
    force_delete: bool = False
    kept_by_others: bool = False
    """Whether somebody else's finalizer keeps the record too."""
    exists: bool = True
    twin: str | None = None
    image_missing: bool = False
    others_install: bool = False
    """Whether as many machines install as may."""
    passes: int = 0
    memory: Memory = field(default_factory=lambda: Memory(START))
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        self.spec = admitted(self.spec)

    # --- what people do ------------------------------------------------------------------------------------------

    def declare(self, spec: BareMetalMachineSpec) -> None:
        """Somebody applies another spec; Refused where the API server would."""
        self.spec = admitted(spec, self.spec)
        self.generation += 1

    def delete(self) -> None:
        """Somebody deletes the record; one that nobody holds vanishes."""
        self.deleting = True
        self.exists = self.held or self.kept_by_others

    def lose_status(self) -> None:
        """The record comes back from a backup, which has no status: as another, with the metadata that it had."""
        self.stored, self.restored = "{}", True

    def lose_operation(self) -> None:
        """A careless hand, or a backup of another day, leaves a phase without what is done in it."""
        status = self.status.model_copy(update={"operation": None})
        self.stored = status.model_dump_json(by_alias=True, exclude_none=True)

    def write_condition(self, kind: str, verdict: Literal["True", "False"]) -> None:
        """Somebody else's controller writes a condition of its own."""
        mine = Condition(type=kind, status=verdict, last_transition_time=self.now, reason="Measured")
        others = [condition for condition in self.status.conditions if condition.type != kind]
        changed = self.status.model_copy(update={"conditions": [*others, mine]})
        self.stored = changed.model_dump_json(by_alias=True, exclude_none=True)

    # --- what time does ------------------------------------------------------------------------------------------

    def advance(self, by: timedelta) -> None:
        """Time passes; an agent that reports goes on doing so."""
        self.now += by
        self.heartbeat()

    def set_clock(self, by: timedelta) -> None:
        """Somebody sets the clock, and no time passes: how long ago anything was is known by another clock."""
        self.now += by
        self.memory.listening_since += by
        if self.memory.session is not None:
            attempt, heard_at = self.memory.session
            self.memory.session = attempt, heard_at + by

    def heartbeat(self) -> None:
        """The agent reports, if it is one that the operator waits for."""
        ramdisk, operation = self.metal.ramdisk, self.status.operation
        if ramdisk is None or operation is None or ramdisk.attempt != operation.id:
            return
        if ramdisk.inspected and wants_inspection(self.status) and not ramdisk.beating:
            self.memory.inspected = ramdisk.attempt
        if ramdisk.beating:
            self.memory.session = (ramdisk.attempt, self.now)

    def oblige(self) -> None:
        """The metal does what it was asked for: the agent comes up, its command ends, the system calls home."""
        metal = self.metal
        if (ramdisk := metal.ramdisk) is not None:
            ramdisk.answers = True
            if not ramdisk.inspected:
                ramdisk.inspected = True
                self.heartbeat()
            ramdisk.beating = True
            metal.finish()
            self.heartbeat()
        if moved_by_hand(self.spec):
            self._moved()
        if metal.running is Running.SYSTEM and metal.first_boot_due and metal.calls_home:
            self.memory.first_boot = metal.first_boot_due

    def _moved(self) -> None:
        """The person at the machine does what its conditions ask for."""
        metal, operation = self.metal, self.status.operation
        if operation is None:
            return
        fetched = metal.ramdisk is not None and metal.ramdisk.attempt == operation.id
        if operation.step == Stage.BOOT_RAMDISK and not fetched:
            metal.switch_off()
            metal.next_boot = Boot.NETWORK
            metal.switch_on(attempt=operation.id)
        elif operation.step == Stage.BOOT_DISK and metal.running is not Running.SYSTEM:
            metal.switch_off()
            metal.switch_on(attempt=None)

    def restart(self) -> None:
        """A new operator takes over."""
        self.memory = Memory(self.now)

    # --- a pass --------------------------------------------------------------------------------------------------

    @property
    def status(self) -> BareMetalMachineStatus:
        """What is recorded."""
        return _read(self.stored)

    @property
    def root_disk(self) -> str | None:
        """The disk that an image goes to now."""
        disk = root_disk(self.spec.storage.root_device_hints, INVENTORY)
        return disk.identity if disk is not None else None

    def once(
        self, *, crash: Crash | None = None, hurry: bool = False, stale: bool = False, chance: float = 0.5
    ) -> Decision:
        """One pass of the operator; what it decided."""
        self.passes += 1
        world = self.world(hurry=hurry, stale=stale, chance=chance)
        decision = decide.decide(world)
        if crash is Crash.DECIDED:
            self.restart()
            return decision
        metal = self.metal.as_it_is()
        action: Action | None = None
        fault: Fault | None = None
        if decision.announces(world.status):
            self._record(decision)
        elif isinstance(decision.step, Action):
            action = decision.step
            fault = self._carry_out(action, world)
            if fault is not None and crash is None:
                decision = decide.after_fault(world.with_status(decision.status), fault)
                self._record(decision)
        else:
            self._record(decision)
        if self.watch is not None:
            self.watch(self, Moment(world, decision, action, fault, world.status, self.status, metal))
        if crash is not None:
            self.restart()
        return decision

    def world(self, *, hurry: bool = False, stale: bool = False, chance: float = 0.5) -> World:
        """What an operator observes now; `stale`: with the power as it was when it last looked."""
        status = self.status
        seen = Seen(
            twin=self.twin,
            evidence=self.evidence,
            image_checksum=self._checksum(),
            listening_since=self.memory.listening_since,
        )
        trusted = self.spec.accepted or status.phase is not None
        if self.twin is None and self.held and trusted and status.phase is not Phase.NEW:
            seen = self._asked(seen, status, stale=stale)
        return World(
            uid="0f1e",
            name="node-07",
            generation=self.generation,
            spec=self.spec,
            status=status,
            now=self.now,
            seen=seen,
            policy=self.policy,
            deleting=self.deleting,
            force_delete=self.force_delete,
            held=self.held,
            restored=self.restored,
            hurry=hurry,
            chance=chance,
        )

    def _asked(self, seen: Seen, status: BareMetalMachineStatus, *, stale: bool) -> Seen:
        operation = status.operation
        if moved_by_hand(self.spec):
            seen = replace(seen, power=assumed_power(status, self._agent(status)))
        elif self.spec.bmc is not None:
            seen = self._reading(seen, stale=stale)
        if self.image_missing and self._may_deploy(status):
            seen = replace(seen, obstacle=IMAGE_MISSING)
        if status.phase is Phase.DEPLOYING or self._may_deploy(status):
            holds = status.installed.disk if status.installed is not None else None
            left = left_behind(holds, self.root_disk, INVENTORY)
            seen = replace(seen, root_disk=self.root_disk, left_behind=left)
        if self.others_install and self._may_wait(status):
            seen = replace(seen, queued=Place(2, 2))
        if operation is None:
            return seen
        first_boot = None
        if self.memory.first_boot == operation.id:
            first_boot = Installed(hostname="node-07", addresses=["10.0.0.7"], ssh_host_keys=["k"], at=self.now)
        kept = HARDWARE if self.memory.kept == operation.id else None
        return replace(seen, agent=self._agent(status), first_boot=first_boot, kept=kept)

    def _reading(self, seen: Seen, *, stale: bool) -> Seen:
        if self.metal.on_its_way:
            return seen
        if not stale or self.memory.power is None:
            self.memory.power = self._power()
        power = self.memory.power
        silent = SECRET_MISSING if self.metal.secret_missing else SILENT
        return replace(seen, power=power, bmc_fault=silent if power is Power.UNKNOWN else None)

    def _may_deploy(self, status: BareMetalMachineStatus) -> bool:
        """Whether a pass may begin a deployment, whatever else it ends first: only then is looked at what it names."""
        deployment = self.spec.deployment
        if deployment is None or deployment.existing:
            return False
        begun = status.phase in (Phase.DEPLOYING, Phase.DEPLOYED)
        return not (begun and deployment.trigger == status.observed_triggers.deployment)

    def _may_wait(self, status: BareMetalMachineStatus) -> bool:
        """Whether a pass may begin to install, or would go on at an attempt's start."""
        operation = status.operation
        begins = status.phase is Phase.DEPLOYING and operation is not None and operation.step == Stage.START
        return begins or self._may_deploy(status)

    def _power(self) -> Power:
        if self.metal.bmc_silent or self.metal.secret_missing:
            return Power.UNKNOWN
        return Power.ON if self.metal.on else Power.OFF

    def _agent(self, status: BareMetalMachineStatus) -> Agent | None:
        operation, memory = status.operation, self.memory
        if operation is None:
            return None
        heard_at = memory.session[1] if memory.session is not None and memory.session[0] == operation.id else None
        inspected = memory.inspected == operation.id
        if heard_at is None and not inspected:
            return None
        agent = Agent(
            heard_at=heard_at or self.now,
            inspected=inspected,
            takes_commands=heard_at is not None,
        )
        if heard_at is None or operation.name is OperationName.COMMISSION:
            return agent
        ramdisk = self.metal.ramdisk
        if ramdisk is None or ramdisk.attempt != operation.id or not ramdisk.answers:
            return replace(agent, command=CommandState.UNKNOWN)
        at = status.erasure[0].at if status.erasure else self.now
        erasure = tuple(
            Erasure(device=device, method="Overwrite" if verified else "Failed", verified=verified, at=at)
            for device, verified in zip(DISKS, ramdisk.erased, strict=False)
        )
        failed = ramdisk.command is CommandState.FAILED
        return replace(agent, command=ramdisk.command, erasure=erasure, fault=COMMAND_FAILED if failed else None)

    def _checksum(self) -> str | None:
        deployment = self.spec.deployment
        if deployment is None or deployment.image is None or self.image_missing:
            return None
        return IMAGES[deployment.image]

    def _record(self, decision: Decision) -> None:
        if self.exists:
            self.stored = decision.status.model_dump_json(by_alias=True, exclude_none=True)

    # --- actions -------------------------------------------------------------------------------------------------

    def _carry_out(self, action: Action, world: World) -> Fault | None:
        match action:
            case steps.PowerOff() | steps.PowerOn() | steps.BootRamdisk() | steps.BootDisk():
                return self._power_action(action)
            case steps.WriteImage():
                return IMAGE_MISSING if self.image_missing else self._command("Write")
            case steps.EraseDisks():
                return self._command("Erase")
            case steps.OpenRescue():
                return self._command("Rescue")
            case steps.KeepInventory():
                operation = world.status.operation
                if operation is None or self.memory.inspected != operation.id:
                    return AGENT_GONE
                self.memory.kept = operation.id
            case steps.TakeHold():
                self.held = True
            case steps.LetGo():
                self.held = False
                self.exists = self.kept_by_others or not self.deleting
            case steps.RecordEvidence():
                installed = world.status.installed
                self.evidence = installed if installed is not None and installed.at is not None else None
            case _:
                assert_never(action)
        return None

    def _power_action(self, action: Action) -> Fault | None:
        metal, memory = self.metal, self.memory
        memory.power = None
        if moved_by_hand(self.spec):
            if isinstance(action, steps.PowerOff) and memory.session is not None:
                metal.switch_off()
            memory.session = memory.inspected = None
            return None
        if metal.secret_missing:
            return SECRET_MISSING
        if metal.bmc_silent:
            return SILENT
        if metal.refusals > 0:
            metal.refusals -= 1
            return REFUSED
        match action:
            case steps.PowerOff():
                metal.switch_off()
            case steps.BootRamdisk():
                metal.next_boot = Boot.NETWORK
                metal.switch_on(attempt=self._booted())
            case steps.BootDisk():
                metal.next_boot = Boot.DISK
                metal.switch_on(attempt=None)
            case _:
                metal.switch_on(attempt=self._booted())
        memory.session = memory.inspected = None
        return None

    def _booted(self) -> str | None:
        """The attempt that the boot script would start a machine for."""
        operation = self.status.operation
        return operation.id if operation is not None and operation.step in _BOOTS_RAMDISK else None

    def _command(self, doing: str) -> Fault | None:
        ramdisk, operation = self.metal.ramdisk, self.status.operation
        if ramdisk is None or operation is None or ramdisk.attempt != operation.id or not ramdisk.beating:
            return AGENT_GONE
        self.metal.command(doing)
        return None
