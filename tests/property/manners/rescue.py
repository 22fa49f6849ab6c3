"""Manners: a rescue environment, for as long as it is wished."""

from __future__ import annotations

from tests.property.manners.passes import at_liberty, command, is_at, path
from tests.property.rig import Moment

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.guards import came_from, doing, powered_off, powered_on, rescue_wanted
from rackwright.lifecycle.steps import LetGo
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
    """The machine returns to where it came from; a Deployed one starts its disk again, and others are off."""
    world = moment.world
    if not doing(OperationName.END_RESCUE)(world) or moment.decision.failure is not None:
        return
    for start, end in path(moment):
        if start is Phase.RESCUE:
            assert end is moment.before.rescued_from, f"{end}, and it came from {moment.before.rescued_from}"
            runs = came_from(Phase.DEPLOYED)(world)
            assert powered_on(world) if runs else powered_off(world), f"{end}, and its power is {world.seen.power}"
