"""Manners: in which phase a machine is, for whom and why."""

from __future__ import annotations

from tests.property.manners.passes import (
    RESTING,
    WORKING,
    at_liberty,
    begun,
    goes_first_to,
    in_ramdisk,
    is_at,
    lost_its_status,
    path,
    shutting_down,
    unclaimed,
    unhindered,
    unwanted,
)
from tests.property.rig import Moment

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.guards import (
    accepted,
    agent_heard,
    at_stage,
    came_up,
    deployment_wanted,
    disks_busy,
    evidence_stale,
    fault_reported,
    gates_closed,
    gave_up,
    inventory_kept,
    live_machine,
    marked_broken,
    overdue,
    powered_off,
    powered_on,
    recommission_triggered,
    rescue_wanted,
    seen_off,
    still_allocated,
    was_held_up,
)
from rackwright.lifecycle.steps import LetGo, PowerOff, Rest, Stage


def who_is_not_accepted_is_new(moment: Moment) -> None:
    """Nobody trusts it yet, so nothing is done to it.

    A machine whose acceptance is withdrawn before anything was installed on it is switched off and New.
    """
    world, step = moment.world, moment.decision.step
    if not at_liberty(moment) or world.deleting or accepted(world) or marked_broken(world) or live_machine(world):
        return
    if is_at(moment, None) and not lost_its_status(moment):
        assert path(moment) == [(None, Phase.NEW)], "more is done to it than to note it"
    if is_at(moment, Phase.NEW):
        assert isinstance(step, Rest), "something is done to it"
    if is_at(moment, Phase.COMMISSIONING) and unclaimed(world) and moment.fault is None:
        if powered_on(world):
            assert isinstance(step, PowerOff), "it is left on"
        else:
            assert path(moment) == [(Phase.COMMISSIONING, Phase.NEW)], "it is commissioned"


def a_live_machine_is_taken_over_as_it_runs(moment: Moment) -> None:
    """`deployment.existing` adopts a machine that runs already: Deployed at once, never commissioned or rebooted."""
    world = moment.world
    if not at_liberty(moment) or world.deleting or not live_machine(world) or lost_its_status(moment):
        return
    free = not (marked_broken(world) or fault_reported(world) or rescue_wanted(world) or evidence_stale(world))
    before_use = is_at(moment, None, Phase.NEW, Phase.COMMISSIONING) and not marked_broken(world)
    repaired = is_at(moment, Phase.BROKEN) and free
    found_running = is_at(moment, Phase.ALLOCATED) and free and deployment_wanted(world) and powered_on(world)
    if (unclaimed(world) and (before_use or found_running)) or ((unclaimed(world) or came_up(world)) and repaired):
        assert goes_first_to(moment, Phase.DEPLOYED), "it isn't taken over"


def what_is_off_is_not_said_to_run(moment: Moment) -> None:
    """A machine from the pool that is off runs nothing that could be adopted: who says so is told, and it stays."""
    world = moment.world.with_status(moment.after)
    if is_at(moment, Phase.ALLOCATED) and live_machine(world) and unclaimed(moment.world) and seen_off(world):
        assert Phase.DEPLOYED not in (after for _, after in path(moment)), "nothing runs on it"


def it_comes_back_to_its_owner_or_to_the_pool(moment: Moment) -> None:
    """A machine also comes back to Allocated when its deployment is withdrawn and its allocation isn't.

    Otherwise it is Ready, and off; handed back with a fault it is Broken; what ran before goes back to running it.
    """
    world = moment.world
    for start, end in path(moment):
        if start in (Phase.RELEASING, Phase.COMMISSIONING) and end in (Phase.READY, Phase.ALLOCATED):
            assert (end is Phase.ALLOCATED) == still_allocated(world), f"{start} → {end}"
            assert powered_off(world), f"{end}, and its power is {world.seen.power}"
        if (start, end) == (Phase.RELEASING, Phase.BROKEN):
            assert fault_reported(world) or marked_broken(world), "Broken, and nobody reported a fault"
            assert marked_broken(world) or powered_off(world), f"Broken, and its power is {world.seen.power}"
        if (start, end) == (Phase.DEPLOYING, Phase.DEPLOYED):
            written = at_stage(Stage.WRITE_IMAGE, Stage.BOOT_DISK)(world)
            assert written, "it called home, and was started to be written again since"
        if (start, end) == (Phase.COMMISSIONING, Phase.READY):
            assert not came_up(world), "what is installed is not started again"
        if (start, end) == (Phase.COMMISSIONING, Phase.DEPLOYED):
            assert live_machine(world) or powered_on(world), "Deployed, and off"
            assert live_machine(world) or came_up(world), "Deployed, and it never was"
        if (start, end) == (Phase.BROKEN, Phase.DEPLOYED):
            assert live_machine(world), "nobody checked it"
            kept = moment.before.installed in (None, moment.after.installed)
            assert kept or moment.after.phase is not Phase.DEPLOYED, "what is installed is not remembered"


def a_gate_is_waited_for_until_the_timeout(moment: Moment) -> None:
    """It waits for a condition that others write, until the timeout; then it is Failed at once.

    For another attempt couldn't help.
    """
    world = moment.world
    if is_at(moment, Phase.COMMISSIONING) and unhindered(moment) and shutting_down(world) and powered_off(world):
        for_the_pool = not unwanted(world) and not came_up(world) and not still_allocated(world)
        if for_the_pool and overdue(world) and gates_closed(world):
            assert goes_first_to(moment, Phase.FAILED), "a closed gate is waited for once more"


def what_is_withdrawn_is_released(moment: Moment) -> None:
    """Withdraw the deployment, and what was installed is erased; nothing else does that.

    A machine that is being checked is released as soon as that is over, and isn't started for it again.
    """
    world = moment.world
    for start, end in path(moment):
        if end is Phase.RELEASING:
            assert not deployment_wanted(world) or live_machine(world), "it is released, and nobody withdrew it"
            assert start is Phase.DEPLOYING or not unclaimed(world), "nothing is installed that could be released"
        if (start, end) == (Phase.COMMISSIONING, Phase.RELEASING):
            assert at_stage(Stage.SHUT_DOWN, Stage.BOOT_DISK)(world) or inventory_kept(world), "it wasn't checked"
            assert powered_off(world), f"{end}, and its power is {world.seen.power}"
    if is_at(moment, Phase.FAILED) and at_liberty(moment) and unwanted(world) and not marked_broken(world):
        before = rescue_wanted(world) or recommission_triggered(world) or evidence_stale(world)
        kept = before or gave_up(OperationName.RELEASE)(world) or isinstance(moment.decision.step, LetGo)
        assert kept or goes_first_to(moment, Phase.RELEASING), "it isn't released"
    checked = at_stage(Stage.SHUT_DOWN, Stage.BOOT_DISK)(world) or (in_ramdisk(world) and inventory_kept(world))
    idle = is_at(moment, Phase.COMMISSIONING) and checked and powered_off(world)
    if idle and unhindered(moment) and unwanted(world) and not overdue(world) and not was_held_up(world):
        assert goes_first_to(moment, Phase.RELEASING), "it isn't released"


def a_mark_stops_safely(moment: Moment) -> None:
    """Marked: a disk write is finished, then nothing is done to it until the mark is gone.

    What is on is switched off, but where its time was up: it is left as it is then.
    """
    world = moment.world
    if not at_liberty(moment) or not marked_broken(world) or moment.fault is not None:
        return
    if isinstance(moment.action, LetGo):
        return
    if is_at(moment, None) and accepted(world) and not live_machine(world) and not lost_its_status(moment):
        assert goes_first_to(moment, Phase.BROKEN), "marked, and something is begun"
    if is_at(moment, *RESTING) and not is_at(moment, Phase.BROKEN) and not evidence_stale(world):
        assert goes_first_to(moment, Phase.BROKEN), "marked, and goes on"
    taken_over = live_machine(world) and unclaimed(world) and is_at(moment, Phase.COMMISSIONING)
    if is_at(moment, *WORKING) and not taken_over:
        if not overdue(world) and agent_heard(world) and disks_busy(world):
            assert not path(moment), "stopped in the middle of a disk"
        elif not overdue(world) and powered_on(world):
            assert isinstance(moment.decision.step, PowerOff), "marked, and left on"
        else:
            assert goes_first_to(moment, Phase.BROKEN), "marked, and goes on"


def a_broken_machine_stays_so_until_it_is_repaired(moment: Moment) -> None:
    """Once it is repaired take the mark or the report away; until then nothing is done to it but a rescue."""
    world = moment.world
    if is_at(moment, Phase.BROKEN) and (marked_broken(world) or fault_reported(world)):
        assert not path(moment) or goes_first_to(moment, Phase.RESCUE), "nobody says that it is repaired"
        assert begun(moment) in (None, OperationName.RESCUE), "nobody says that it is repaired"
