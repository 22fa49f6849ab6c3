"""Manners: power, and what a machine is started for."""

from __future__ import annotations

from tests.property.manners.passes import (
    IDLE,
    at_liberty,
    begun,
    command,
    in_ramdisk,
    is_at,
    path,
    same_attempt,
    shutting_down,
    unclaimed,
    unhindered,
    untouched,
)
from tests.property.rig import Moment

from rackwright.api.machine import OperationName, Phase, Power
from rackwright.lifecycle.guards import (
    agent_heard,
    at_stage,
    doing,
    erase_unwanted,
    erased,
    evidence_stale,
    no_bmc,
    off_wanted,
    on_wanted,
    overdue,
    power_undeclared,
    powered_off,
    powered_on,
    restart_triggered,
    retry_not_due,
    under_way,
    was_held_up,
)
from rackwright.lifecycle.steps import BootDisk, BootRamdisk, PowerOff, PowerOn, Stage
from rackwright.lifecycle.world import CommandState


def power_is_moved_only_as_wished(moment: Moment) -> None:
    """Without `spec.power`, power that somebody switched is shown and left; a Ready machine is off unless it says On.

    A boot begins from off, so that it is the one that was asked for.
    """
    world, action = moment.world, moment.action
    if isinstance(action, PowerOff):
        assert world.seen.power is Power.ON, "switched off, and it wasn't on"
    if isinstance(action, PowerOn | BootRamdisk | BootDisk):
        assert world.seen.power is Power.OFF, f"{action}, and it wasn't off"
    if is_at(moment, *IDLE) and isinstance(action, PowerOff | PowerOn) and not doing(OperationName.RESTART)(world):
        wished = off_wanted(world) if isinstance(action, PowerOff) else on_wanted(world)
        idle = is_at(moment, Phase.READY) and isinstance(action, PowerOff) and power_undeclared(world)
        assert wished or idle, f"{action} that nobody wished"


def a_disk_write_is_not_cut_off(moment: Moment) -> None:
    """A disk write is finished; large disks take hours, and only a deadline or another wish ends that."""
    world = moment.world
    busy = command(world) in (CommandState.RUNNING, CommandState.UNKNOWN) and agent_heard(world) and in_ramdisk(world)
    if isinstance(moment.decision.step, PowerOff) and same_attempt(moment):
        assert not busy or overdue(world), "switched off in the middle of a disk"


def a_restart_goes_through_off(moment: Moment) -> None:
    """`powerCycle.trigger` restarts a machine that is on, once: asked to shut down, then cut off if it doesn't."""
    world, before, after = moment.world, moment.before, moment.after
    if not doing(OperationName.RESTART)(world) or after.operation is not None or after.history == before.history:
        return
    if after.history[0].name is OperationName.RESTART and after.history[0].outcome == "Succeeded":
        assert at_stage(Stage.POWER_ON)(world), "restarted, and never off"
        assert powered_on(world), "restarted, and not on"


def what_is_off_is_not_restarted(moment: Moment) -> None:
    """The machine is off: nothing to restart. It isn't, then or later; nor is one that shall be off."""
    world, after = moment.world, moment.after
    if begun(moment) is OperationName.RESTART:
        assert not off_wanted(world), "restarted, and it shall be off"
        assert not is_at(moment, Phase.READY) or on_wanted(world), "restarted, and it shall be off"
    if not is_at(moment, *IDLE) or under_way(world) or path(moment) or after.operation is not None:
        return
    if after.observed_triggers.power_cycle != moment.before.observed_triggers.power_cycle:
        assert powered_off(world), "a restart that is still to be done is noted as done"
    if isinstance(moment.decision.step, PowerOn) and at_liberty(moment) and not evidence_stale(world):
        assert not restart_triggered(world.with_status(after)), "it is switched on, and restarted after that"


def no_ramdisk_is_booted_for_nothing(moment: Moment) -> None:
    """Nothing was written to its disks, or `release.erase` is None: nothing is erased, and no ramdisk booted for it.

    Nor to leave a rescue. What shall be erased after all, before the release is over, is.
    """
    world = moment.world
    if doing(OperationName.END_RESCUE)(world) and same_attempt(moment):
        assert not isinstance(moment.decision.step, BootRamdisk), "a ramdisk is booted to leave one"
    if not is_at(moment, Phase.RELEASING) or not doing(OperationName.RELEASE)(world) or not unhindered(moment):
        return
    if moment.decision.failure is not None or retry_not_due(world) or was_held_up(world) or no_bmc(world):
        return
    released = any(start is Phase.RELEASING for start, _ in path(moment))
    nothing = erase_unwanted(world) or (untouched(world) and unclaimed(world))
    if nothing:
        assert released or not powered_off(world), "nothing is to be erased, and it goes on"
        assert begun(moment) is not OperationName.RELEASE, "nothing is to be erased, and it is released anew"
    elif shutting_down(world) and not erased(world):
        assert not same_attempt(moment), "it is to be erased after all, and isn't"
