"""Manners: a rescue environment, for as long as it is wished."""

from __future__ import annotations

from tests.property.manners.passes import at_liberty, command, is_at, path
from tests.property.rig import Moment

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.guards import doing, marked_broken, powered_off, powered_on, rescue_wanted
from rackwright.lifecycle.steps import BootDisk, LetGo
from rackwright.lifecycle.world import CommandState


def a_rescue_lasts_as_long_as_it_is_wished(moment: Moment) -> None:
    """A rescue environment in memory, for as long as `spec.rescue` is there.

    `READY` is True once it is open; it loses power, and is opened again.
    """
    world, after = moment.world, moment.after
    if not is_at(moment, Phase.RESCUE) or after.phase is not Phase.RESCUE or isinstance(moment.action, LetGo):
        return
    operation = after.operation.name if after.operation is not None else None
    if doing(OperationName.RESCUE)(world) and operation is None:
        assert command(world) is CommandState.SUCCEEDED, "it is said to be open, and isn't"
    if at_liberty(moment) and rescue_wanted(world):
        assert operation is not OperationName.END_RESCUE, "it is left, and wished"
        assert operation is not None or not powered_off(world), "it lost its power, and isn't opened again"
    elif at_liberty(moment):
        assert operation is OperationName.END_RESCUE, "it stays, and nobody wishes it"


def it_returns_to_where_it_came_from(moment: Moment) -> None:
    """The machine returns to where it came from; a Deployed one starts its disk again, and others are off.

    One that was marked meanwhile is Broken, whatever it came from.
    """
    world = moment.world
    if not doing(OperationName.END_RESCUE)(world) or moment.decision.failure is not None:
        return
    for start, end in path(moment):
        if start is Phase.RESCUE:
            origin = Phase.BROKEN if marked_broken(world) else moment.before.rescued_from
            assert end is origin, f"{end}, and it came from {origin}"
            runs = origin is Phase.DEPLOYED
            assert powered_on(world) if runs else powered_off(world), f"{end}, and its power is {world.seen.power}"


def a_mark_is_noted_during_a_rescue(moment: Moment) -> None:
    """A rescue that is open, entered or left goes on, and the machine is Broken after it, not started from its disk."""
    world, after = moment.world, moment.after
    if not is_at(moment, Phase.RESCUE) or not marked_broken(world) or not at_liberty(moment):
        return
    assert not isinstance(moment.action, BootDisk), "marked, and its disk is started"
    if after.phase is Phase.RESCUE and moment.fault is None and not isinstance(moment.action, LetGo):
        assert after.rescued_from is Phase.BROKEN, f"marked, and it leads to {after.rescued_from}"
