"""What spec asks of a machine at rest and isn't so: what the pages of the phases say that people can do."""

from __future__ import annotations

from tests.property.manners.passes import IDLE, unwanted

from rackwright.api.machine import OperationName, Phase, Power
from rackwright.lifecycle.guards import (
    accepted,
    allocation_declared,
    deployment_wanted,
    fault_reported,
    gates_closed,
    gave_up,
    live_machine,
    marked_broken,
    no_bmc,
    off_wanted,
    on_wanted,
    power_undeclared,
    powered_off,
    powered_on,
    recommission_triggered,
    reinstall_triggered,
    rescue_wanted,
    restart_triggered,
    still_allocated,
)
from rackwright.lifecycle.world import World

OUT = (Phase.BROKEN, Phase.FAILED)
NEED_BMC = frozenset(
    {"rescue", "restart", "power", "on", "off", "release of what runs", "reinstallation", "deployment"}
)
"""Wishes that aren't even begun without a BMC."""
NEED_IMAGE = frozenset({"deployment", "reinstallation"})
"""Wishes that aren't begun while what the deployment names is missing or doesn't fit."""


def open_wishes(world: World) -> set[str]:
    """Their names."""
    phase = world.status.phase
    idle, out = phase in IDLE, phase in OUT
    repaired = not (marked_broken(world) or fault_reported(world))
    wishes = {
        "rescue": rescue_wanted(world) and (idle or (out and not gave_up(OperationName.RESCUE)(world))),
        "restart": idle and restart_triggered(world) and (no_bmc(world) or world.seen.power is not Power.UNKNOWN),
        "power": idle and not power_undeclared(world) and no_bmc(world),
        "on": idle and on_wanted(world) and powered_off(world),
        "off": powered_on(world)
        and ((idle and off_wanted(world)) or (phase is Phase.READY and power_undeclared(world))),
        "release of what runs": phase is Phase.DEPLOYED and not deployment_wanted(world),
        "reinstallation": phase is Phase.DEPLOYED and deployment_wanted(world) and reinstall_triggered(world),
        "release": phase in (Phase.ALLOCATED, Phase.FAILED)
        and unwanted(world)
        and not (out and gave_up(OperationName.RELEASE)(world)),
        "acceptance": phase is Phase.NEW and accepted(world),
        "distrust": phase is Phase.READY and not accepted(world),
        "recommission": phase in (Phase.READY, Phase.FAILED) and recommission_triggered(world),
        "allocation": phase is Phase.READY and allocation_declared(world) and not gates_closed(world),
        "return": phase is Phase.ALLOCATED and not still_allocated(world),
        "deployment": phase is Phase.ALLOCATED and deployment_wanted(world) and not live_machine(world),
        "adoption": phase is Phase.ALLOCATED and deployment_wanted(world) and live_machine(world),
        "check after a repair": phase is Phase.BROKEN and repaired,
        "quarantine": phase is Phase.FAILED and powered_on(world),
    }
    return {wish for wish, is_open in wishes.items() if is_open}
