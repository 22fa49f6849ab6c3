"""What a pass found and what it did, in the words that the promises of manners share."""

from __future__ import annotations

from tests.property.rig import Moment

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.guards import (
    accepted,
    at_stage,
    deployment_wanted,
    doing,
    evidence_lost,
    holds_data,
    marked_broken,
    no_install_slot,
    past_unknown,
)
from rackwright.lifecycle.steps import Stage
from rackwright.lifecycle.world import CommandState, World

WORKING = (Phase.COMMISSIONING, Phase.DEPLOYING, Phase.RELEASING)
IDLE = (Phase.READY, Phase.ALLOCATED, Phase.DEPLOYED)
"""Where power is as spec wishes."""
RESTING = (Phase.NEW, *IDLE, Phase.BROKEN, Phase.FAILED)

untouched = at_stage(Stage.START, Stage.POWER_OFF)
at_work = at_stage(Stage.WRITE_IMAGE, Stage.ERASE_DISKS, Stage.OPEN_RESCUE)
booting = at_stage(Stage.BOOT_RAMDISK)
in_ramdisk = booting | at_work
awaits_its_turn = at_stage(Stage.START) & no_install_slot
shutting_down = at_stage(Stage.SHUT_DOWN)
unwanted = holds_data & ~deployment_wanted
unclaimed = ~holds_data

Path = list[tuple[Phase | None, Phase | None]]


def unwritten(world: World) -> bool:
    """Whether its deployment hasn't come to its disk yet: no image is under way to it, or on it."""
    started = untouched(world) or (in_ramdisk(world) and command(world) in (None, CommandState.NONE))
    return doing(OperationName.DEPLOY)(world) and started


def at_liberty(moment: Moment) -> bool:
    """Whether the operator may do anything to the machine: its record is held, its own, and not locked."""
    world = moment.world
    return world.held and world.seen.twin is None and not world.spec.locked


def unhindered(moment: Moment) -> bool:
    """Whether moreover nobody wants to be rid of it, and what was tried worked."""
    world = moment.world
    wanted = accepted(world) and not world.deleting and not marked_broken(world)
    return at_liberty(moment) and wanted and moment.fault is None


def is_at(moment: Moment, *phases: Phase | None) -> bool:
    """Whether it was in one of these phases."""
    return moment.before.phase in phases


def lost_its_status(moment: Moment) -> bool:
    """Whether only an annotation remembers what is installed, or not even that."""
    return is_at(moment, None) and (evidence_lost(moment.world) or past_unknown(moment.world))


def path(moment: Moment) -> Path:
    """The phases that the pass led through."""
    return [(transition.before, transition.after) for transition in moment.decision.transitions]


def goes_first_to(moment: Moment, phase: Phase) -> bool:
    """Whether the pass led there before it led anywhere else."""
    return path(moment)[:1] == [(moment.before.phase, phase)]


def begun(moment: Moment) -> OperationName | None:
    """The operation that was begun, and is under way now."""
    before, after = moment.before.operation, moment.after.operation
    if after is None or (before is not None and (before.id == after.id or after.attempt > 1)):
        return None
    return after.name


def same_attempt(moment: Moment) -> bool:
    """Whether the attempt that was under way still is; one of the same instant that was begun anew has another past."""
    before, after = moment.before.operation, moment.after.operation
    same = before is not None and after is not None and before.id == after.id
    return same and moment.before.history == moment.after.history


def command(world: World) -> CommandState | None:
    """Where the agent says that its command is."""
    return world.seen.agent.command if world.seen.agent is not None else None
