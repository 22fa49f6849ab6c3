"""When a row applies. Each guard is a fact about one world and finishes the sentence "when ...".

Guards combine with `&`, `|` and `~`, and keep a readable name for the documentation's table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from rackwright.api.conditions import ConditionType
from rackwright.api.machine import EraseMode, OperationName, Phase, Power
from rackwright.lifecycle.by_hand import moved_by_hand
from rackwright.lifecycle.differences import differences
from rackwright.lifecycle.reasons import QUEUED, STATUS_LOST
from rackwright.lifecycle.steps import Stage
from rackwright.lifecycle.world import Blame, CommandState, World


@dataclass(frozen=True, slots=True)
class Guard:
    """A named predicate over a world."""

    name: str
    holds: Callable[[World], bool]
    """Whether it is so in a world."""
    joined: tuple[Guard, ...] = ()
    """What it joins, where it is several that must hold together."""

    def __call__(self, world: World) -> bool:  # noqa: D102 (the class says it)
        return self.holds(world)

    def __and__(self, other: Guard) -> Guard:
        both = (*(self.joined or (self,)), *(other.joined or (other,)))
        return Guard(f"{self.name}, {other.name}", lambda w: self.holds(w) and other.holds(w), both)

    def __or__(self, other: Guard) -> Guard:
        return Guard(f"{self.name} or {other.name}", lambda w: self.holds(w) or other.holds(w))

    def __invert__(self) -> Guard:
        return Guard(f"not {self.name}", lambda w: not self.holds(w))


def guard(holds: Callable[[World], bool]) -> Guard:
    """Name a predicate after its function."""
    return Guard(holds.__name__.replace("_", " "), holds)


always = Guard("always", lambda _: True)

# --- what is declared ------------------------------------------------------------------------------------------


@guard
def deletion_requested(world: World) -> bool:
    """Somebody deleted the record."""
    return world.deleting


@guard
def deletion_forced(world: World) -> bool:
    """Somebody deleted the record and accepts that nothing is released."""
    return world.deleting and world.force_delete


@guard
def accepted(world: World) -> bool:
    """An admin trusts the machine."""
    return world.spec.accepted


@guard
def live_machine(world: World) -> bool:
    """Spec adopts a machine that runs already."""
    return world.spec.deployment is not None and world.spec.deployment.existing


@guard
def locked(world: World) -> bool:
    """Spec tells the operator to stand down."""
    return world.spec.locked


@guard
def marked_broken(world: World) -> bool:
    """An admin marked it."""
    return world.spec.broken is not None


@guard
def rescue_wanted(world: World) -> bool:
    """A rescue environment is declared, and the record isn't being deleted."""
    return world.spec.rescue is not None and not world.deleting


@guard
def still_allocated(world: World) -> bool:
    """Spec names the owner that the machine has."""
    return (
        not world.deleting and world.spec.allocation is not None and world.spec.allocation.owner == world.status.owner
    )


@guard
def allocation_declared(world: World) -> bool:
    """Spec names an owner."""
    return not world.deleting and world.spec.allocation is not None


@guard
def deployment_declared(world: World) -> bool:
    """Spec says what should run."""
    return not world.deleting and world.spec.deployment is not None


@guard
def deployment_wanted(world: World) -> bool:
    """Spec says what should run, for the owner that the machine has."""
    return still_allocated(world) and world.spec.deployment is not None


@guard
def recommission_triggered(world: World) -> bool:
    """`spec.commissioning.trigger` has a value that wasn't acted upon."""
    return world.spec.commissioning.trigger != world.status.observed_triggers.commissioning


@guard
def reinstall_triggered(world: World) -> bool:
    """`spec.deployment.trigger` has a value that wasn't acted upon."""
    deployment = world.spec.deployment
    return (
        deployment is not None
        and not deployment.existing
        and deployment.trigger != world.status.observed_triggers.deployment
    )


@guard
def erase_unwanted(world: World) -> bool:
    """Policy says not to erase."""
    return world.spec.release.erase is EraseMode.NONE


@guard
def off_wanted(world: World) -> bool:
    """Spec wants it off."""
    return world.spec.power == "Off"


@guard
def on_wanted(world: World) -> bool:
    """Spec wants it on."""
    return world.spec.power == "On"


@guard
def power_undeclared(world: World) -> bool:
    """Spec leaves power to the phase."""
    return world.spec.power is None


@guard
def restart_triggered(world: World) -> bool:
    """`spec.powerCycle.trigger` has a value that wasn't acted upon."""
    return not world.deleting and world.spec.power_cycle.trigger != world.status.observed_triggers.power_cycle


@guard
def fault_reported(world: World) -> bool:
    """The owner who withdrew the deployment reported a fault."""
    return world.spec.release.fault is not None


@guard
def by_hand(world: World) -> bool:
    """A person moves the machine's power."""
    return moved_by_hand(world.spec)


@guard
def gates_closed(world: World) -> bool:
    """A condition that spec names as a readiness gate isn't True."""
    return bool(closed_gates(world))


def closed_gates(world: World) -> list[str]:
    """The readiness gates that aren't True, in the order of spec."""
    true = {condition.type for condition in world.status.conditions if condition.status == "True"}
    return [gate.condition_type for gate in world.spec.readiness_gates if gate.condition_type not in true]


@guard
def deployment_differs(world: World) -> bool:
    """What is declared is not what is installed."""
    return bool(differences(world))


# --- what is recorded ------------------------------------------------------------------------------------------


@guard
def holds_data(world: World) -> bool:
    """Something was, or may have been, written to its disks."""
    return world.status.installed is not None


@guard
def came_up(world: World) -> bool:
    """What was installed has run."""
    return world.status.installed is not None and world.status.installed.at is not None


@guard
def adopted(world: World) -> bool:
    """What is installed was taken over as it ran: nobody of us wrote it, so nobody of us erases it unasked."""
    return came_up(world) and world.status.installed is not None and world.status.installed.image is None


def gave_up(operation: OperationName) -> Guard:
    """That operation used up its attempts the last time, and the machine wasn't commissioned since.

    Only a person tries it again, by a recommission. History is asked and not the last failure: two operations that
    are both wanted would overwrite each other's, and take turns for ever.
    """

    def holds(world: World) -> bool:
        for entry in world.status.history:
            if entry.name is OperationName.COMMISSION:
                return False
            if entry.name is operation and entry.outcome != "Abandoned":
                return entry.outcome == "Failed"
        return False

    return Guard(f"{operation} gave up", holds)


@guard
def under_way(world: World) -> bool:
    """An operation is recorded."""
    return world.status.operation is not None


def doing(operation: OperationName) -> Guard:
    """That operation is under way."""
    return Guard(
        f"operation {operation}",
        lambda w: w.status.operation is not None and w.status.operation.name is operation,
    )


def at_stage(*stages: Stage) -> Guard:
    """The attempt has come to one of these stages."""
    return Guard(
        f"at {' or '.join(stage or 'start' for stage in stages)}",
        lambda w: w.status.operation is not None and w.status.operation.step in stages,
    )


@guard
def retry_ahead(world: World) -> bool:
    """The time of the next attempt is still to come."""
    operation = world.status.operation
    return (
        operation is not None
        and operation.next_retry_at is not None
        and _ahead(world.now, operation.started_at, operation.next_retry_at)
    )


@guard
def retry_not_due(world: World) -> bool:
    """The next attempt waits for its time, and nothing it waits for has changed."""
    return retry_ahead(world) and not world.hurry


@guard
def overdue(world: World) -> bool:
    """The attempt's deadline has passed."""
    operation = world.status.operation
    if operation is None:
        return False
    begun = operation.next_retry_at is None
    return world.now >= operation.deadline or (
        begun and not _ahead(world.now, operation.started_at, operation.deadline)
    )


def _ahead(now: datetime, begun: datetime, until: datetime) -> bool:
    """Whether this is still to come. A clock that was set back makes no wait longer than twice what was meant."""
    return now < until <= now + 2 * (until - begun)


@guard
def was_held_up(world: World) -> bool:
    """The attempt waited, until now, for somebody to change something or for its turn to install."""
    operation, stalled = world.status.operation, ConditionType.STALLED
    held = any(
        (condition.type == stalled and condition.status == "True") or condition.reason == QUEUED
        for condition in world.status.own_conditions
    )
    return held and operation is not None and operation.started_at < world.now


@guard
def erased(world: World) -> bool:
    """The release's evidence has a disk, and says of every disk that it was erased."""
    return bool(world.status.erasure) and all(erasure.verified for erasure in world.status.erasure)


def came_from(*phases: Phase) -> Guard:
    """The rescue was entered from one of these."""
    return Guard(f"rescued from {' or '.join(phases)}", lambda w: w.status.rescued_from in phases)


# --- what is observed ------------------------------------------------------------------------------------------


@guard
def record_unheld(world: World) -> bool:
    """Our finalizer isn't on the record."""
    return not world.held and not world.deleting


@guard
def let_go(world: World) -> bool:
    """The record is deleted and our finalizer is off it: whoever else keeps it, it isn't ours any more."""
    return not world.held and world.deleting


@guard
def twin_of_older(world: World) -> bool:
    """Another machine has the same boot MAC or BMC and comes first: one that holds data, or an older one."""
    return world.seen.twin is not None


@guard
def powered_on(world: World) -> bool:
    """The BMC says it is on."""
    return world.seen.power is Power.ON


@guard
def powered_off(world: World) -> bool:
    """The BMC says it is off."""
    return world.seen.power is Power.OFF


@guard
def seen_off(world: World) -> bool:
    """Its BMC says that it is off; of a machine that a person moves that is only assumed."""
    return powered_off(world) and not by_hand(world)


@guard
def bmc_silent(world: World) -> bool:
    """The BMC can't be talked to."""
    return world.seen.bmc_fault is not None


@guard
def bmc_misconfigured(world: World) -> bool:
    """The BMC can't be talked to because something that spec names is missing."""
    return world.seen.bmc_fault is not None and world.seen.bmc_fault.blame is Blame.CONFIGURATION


@guard
def no_bmc(world: World) -> bool:
    """Spec names no BMC."""
    return world.spec.bmc is None


@guard
def evidence_lost(world: World) -> bool:
    """There is no status, but the annotation says that something is installed."""
    return world.seen.evidence is not None


@guard
def past_unknown(world: World) -> bool:
    """The record comes from a backup without status, of a machine that is reserved or isn't seen to be off.

    One that was held for this stays so, whatever is withdrawn or switched off meanwhile, until a person knows better.
    """
    running = accepted(world) and not seen_off(world)
    held = any(condition.reason == STATUS_LOST for condition in world.status.own_conditions)
    return world.restored and (world.spec.allocation is not None or running or held)


@guard
def evidence_stale(world: World) -> bool:
    """The annotation lacks a system that came up, or tells of one that was erased.

    While disks are written or erased it stays as it is: what was there before isn't gone until that has ended.
    """
    installed = world.status.installed
    if installed is None:
        return world.seen.evidence is not None
    return installed.at is not None and world.seen.evidence != installed


@guard
def deployment_obstructed(world: World) -> bool:
    """Something that the deployment names is missing or doesn't fit."""
    return world.seen.obstacle is not None


@guard
def leaves_a_system(world: World) -> bool:
    """The image would go to another disk than what was written before, which could then start instead of it."""
    return world.seen.left_behind is not None


@guard
def no_install_slot(world: World) -> bool:
    """As many machines install as may, and others come before it."""
    return world.seen.queued is not None


@guard
def agent_heard(world: World) -> bool:
    """The agent of this attempt's boot has reported, and not too long ago."""
    return world.seen.agent is not None and world.now - world.seen.agent.heard_at < world.policy.silence


@guard
def agent_takes_commands(world: World) -> bool:
    """The agent of this attempt's boot has sent a heartbeat."""
    return world.seen.agent is not None and world.seen.agent.takes_commands


@guard
def hardware_unknown(world: World) -> bool:
    """The machine was never inspected."""
    return world.status.hardware is None


@guard
def inspection_arrived(world: World) -> bool:
    """The agent has told what the machine is made of."""
    return world.seen.agent is not None and world.seen.agent.inspected


@guard
def inventory_kept(world: World) -> bool:
    """The HardwareInventory of this attempt is written."""
    return world.seen.kept is not None


@guard
def agent_lost(world: World) -> bool:
    """The agent was heard in this attempt, and isn't any more."""
    operation = world.status.operation
    if operation is None or agent_heard(world):
        return False
    last = [
        t
        for t in (
            operation.step_started_at,
            world.seen.listening_since,
            world.seen.agent.heard_at if world.seen.agent else None,
        )
        if t is not None
    ]
    return bool(last) and world.now - max(last) >= world.policy.silence


@guard
def stage_overdue(world: World) -> bool:
    """The attempt has been at its stage for longer than a boot may take."""
    operation = world.status.operation
    if operation is None or operation.step_started_at is None:
        return False
    last = max(t for t in (operation.step_started_at, world.seen.listening_since) if t is not None)
    patience = _attempt_length(world)
    if not moved_by_hand(world.spec):
        patience = min(world.policy.boot_timeout, patience)
    return world.now - last >= patience


def _attempt_length(world: World) -> timedelta:
    operation = world.status.operation
    return operation.deadline - operation.started_at if operation is not None else timedelta.max


def command(*states: CommandState) -> Guard:
    """The agent's command is in one of these states."""
    return Guard(
        f"command {' or '.join(state.lower() for state in states)}",
        lambda w: w.seen.agent is not None and w.seen.agent.command in states,
    )


@guard
def disks_busy(world: World) -> bool:
    """The agent is writing or erasing, or may be."""
    busy = (CommandState.RUNNING, CommandState.UNKNOWN)
    return world.seen.agent is not None and world.seen.agent.command in busy


@guard
def write_cut_off(world: World) -> bool:
    """A disk was written or erased, and nobody says that this has ended: to stop it now may cut it off."""
    operation = world.status.operation
    at_a_disk = operation is not None and operation.step in (Stage.WRITE_IMAGE, Stage.ERASE_DISKS)
    return at_a_disk and (disks_busy(world) or not agent_heard(world))


@guard
def every_disk_erased(world: World) -> bool:
    """The evidence has a disk, and every disk's read-back was good."""
    return (
        world.seen.agent is not None
        and bool(world.seen.agent.erasure)
        and all(e.verified for e in world.seen.agent.erasure)
    )


@guard
def evidence_recorded(world: World) -> bool:
    """The erase's evidence is in status."""
    return world.seen.agent is not None and tuple(world.status.erasure) == world.seen.agent.erasure


@guard
def first_boot_reported(world: World) -> bool:
    """The installed system has called, with this attempt's token."""
    return world.seen.first_boot is not None
