"""Manners: what people wish of a machine at rest is done, or the machine says what keeps it from that."""

from __future__ import annotations

from tests.property.manners.open_wishes import NEED_BMC, NEED_IMAGE, open_wishes
from tests.property.manners.passes import (
    RESTING,
    at_liberty,
    begun,
    goes_first_to,
    is_at,
    same_attempt,
    unhindered,
    untouched,
    unwritten,
)
from tests.property.rig import Moment

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.guards import (
    deployment_obstructed,
    doing,
    evidence_stale,
    leaves_a_system,
    no_bmc,
    recommission_triggered,
    reinstall_triggered,
    rescue_wanted,
    retry_not_due,
    seen_off,
)
from rackwright.lifecycle.steps import BootRamdisk, Hold, PowerOff, Rest


def who_rests_has_no_wish_left(moment: Moment) -> None:
    """What you can do in a phase is done at the next pass.

    Or what is declared can't be done without a BMC, what the deployment names isn't right, or nothing runs that could
    be adopted: the machine says so.
    """
    world, step = moment.world.with_status(moment.after), moment.decision.step
    if not at_liberty(moment) or world.deleting or moment.fault is not None or not isinstance(step, Rest | Hold):
        return
    wishes, obstacle = open_wishes(world), None
    if wishes & NEED_IMAGE and world.seen.left_behind is not None:
        obstacle = "SystemOnOtherDisk"
    if wishes & NEED_IMAGE and world.seen.obstacle is not None:
        obstacle = world.seen.obstacle.reason
    if wishes & NEED_BMC and no_bmc(world):
        obstacle = "BMCMissing"
    if "adoption" in wishes and seen_off(world):
        obstacle = "NothingToAdopt"
    if obstacle is not None:
        assert isinstance(step, Hold), f"{wishes} can't be done, and nobody is told"
        assert moment.decision.reason == obstacle, f"{moment.decision.reason}, not {obstacle}"
    else:
        assert not wishes, f"it rests as {moment.decision.reason}, and spec wishes {', '.join(sorted(wishes))}"


def what_can_not_be_done_is_not_begun(moment: Moment) -> None:
    """Nothing was done to the machine, and it goes on as soon as that is right."""
    world, operation = moment.world, begun(moment)
    if is_at(moment, *RESTING) and no_bmc(world):
        impossible = {OperationName.RESCUE, OperationName.DEPLOY, OperationName.RESTART}
        if is_at(moment, Phase.DEPLOYED):
            impossible.add(OperationName.RELEASE)
        assert operation not in impossible, f"{operation} is begun without a BMC"
    if operation is OperationName.DEPLOY and (deployment_obstructed(world) or leaves_a_system(world)):
        assert is_at(moment, Phase.DEPLOYING), "a deployment is begun that can't be done"
    if leaves_a_system(world) and unwritten(world) and untouched(world) and unhindered(moment):
        assert not isinstance(moment.action, PowerOff | BootRamdisk), "it is started for an image that isn't written"


def a_new_trigger_tries_at_once(moment: Moment) -> None:
    """To try again at once: commissioning and Failed with a new `spec.commissioning.trigger`, deploying with its own.

    An attempt that is under way goes on: the trigger is for another one.

    Recommissioning is the way out of Failed, whatever else is wished.
    """
    world = moment.world
    if not unhindered(moment):
        return
    waiting = retry_not_due(world)
    if waiting and is_at(moment, Phase.COMMISSIONING) and recommission_triggered(world):
        assert not same_attempt(moment), "the trigger waits for the next attempt's time"
    if waiting and is_at(moment, Phase.DEPLOYING) and reinstall_triggered(world):
        assert not same_attempt(moment), "the trigger waits for the next attempt's time"
    goes_on = not waiting and moment.decision.failure is None and not moment.decision.transitions
    if goes_on and is_at(moment, Phase.COMMISSIONING) and doing(OperationName.COMMISSION)(world):
        assert begun(moment) is not OperationName.COMMISSION, "an attempt that is under way is begun anew"
    if is_at(moment, Phase.FAILED) and recommission_triggered(world):
        sooner = rescue_wanted(world) or evidence_stale(world)
        assert sooner or goes_first_to(moment, Phase.COMMISSIONING), "it isn't recommissioned"


def a_machine_in_use_is_not_recommissioned(moment: Moment) -> None:
    """A machine that is Allocated or Deployed isn't interrupted: it is recommissioned once it is Ready or Failed."""
    if is_at(moment, Phase.ALLOCATED, Phase.DEPLOYED):
        assert not goes_first_to(moment, Phase.COMMISSIONING), "it is recommissioned, and in use"
