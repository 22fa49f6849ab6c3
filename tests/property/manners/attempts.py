"""Manners: how an attempt waits, goes on and ends."""

from __future__ import annotations

from tests.property.manners.open_wishes import open_wishes
from tests.property.manners.passes import (
    IDLE,
    at_liberty,
    at_work,
    awaits_its_turn,
    booting,
    command,
    goes_first_to,
    in_ramdisk,
    is_at,
    same_attempt,
    shutting_down,
    unclaimed,
    unhindered,
    untouched,
)
from tests.property.rig import Moment

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.guards import (
    accepted,
    agent_heard,
    agent_lost,
    agent_takes_commands,
    at_stage,
    bmc_misconfigured,
    bmc_silent,
    deployment_obstructed,
    deployment_wanted,
    doing,
    every_disk_erased,
    first_boot_reported,
    hardware_unknown,
    holds_data,
    inspection_arrived,
    inventory_kept,
    leaves_a_system,
    live_machine,
    marked_broken,
    no_bmc,
    overdue,
    powered_off,
    rescue_wanted,
    retry_not_due,
    stage_overdue,
    under_way,
    was_held_up,
)
from rackwright.lifecycle.steps import EraseDisks, Hold, KeepInventory, OpenRescue, Stage, Wait, WriteImage
from rackwright.lifecycle.world import CommandState, World

COMMANDS = (WriteImage, EraseDisks, OpenRescue)


def what_spec_or_a_secret_lacks_spends_no_attempt(moment: Moment) -> None:
    """What a Secret or `spec.bmc` lacks, or hints that choose another disk, hold it without using up attempts."""
    world, failed = moment.world, moment.decision.failure is not None
    assert not (failed and no_bmc(world)), "an attempt is spent without a BMC"
    before_anything = untouched(world) and not doing(OperationName.RESTART)(world) and not retry_not_due(world)
    if bmc_misconfigured(world) and before_anything and unhindered(moment):
        assert not failed, "an attempt is spent on what a Secret lacks"
    if _leaves_a_system(world) and before_anything and unhindered(moment):
        assert not failed, "an attempt is spent on hints that choose another disk"


def a_deadline_stays(moment: Moment) -> None:
    """Every attempt has a deadline, and it stays; only what waited for somebody has all its time from then on."""
    world, before, after = moment.world, moment.before.operation, moment.after.operation
    if before is None or after is None or not same_attempt(moment) or before.next_retry_at is not None:
        return
    if not untouched(world) or isinstance(moment.decision.step, Hold) or awaits_its_turn(world):
        assert after.deadline == before.deadline, "its deadline moves"
    elif was_held_up(world) and unhindered(moment) and not is_at(moment, *IDLE):
        assert after.started_at == world.now, "it waited for somebody, and its time is spent"


def a_machine_waits_for_its_turn(moment: Moment) -> None:
    """Nothing is done to such a machine before its turn."""
    world, before, after = moment.world, moment.before.operation, moment.after.operation
    if world.seen.queued is None or moment.after.phase is not Phase.DEPLOYING or after is None:
        return
    begun = same_attempt(moment) and before is not None and before.step != Stage.START
    assert begun or marked_broken(world) or after.step == Stage.START, "it doesn't wait for its turn"


def a_failure_has_a_visible_next_try(moment: Moment) -> None:
    """Where something failed there is a visible next retry, and until then nothing is done."""
    world = moment.world
    if not at_liberty(moment) or world.deleting or marked_broken(world) or not retry_not_due(world):
        return
    more = is_at(moment, *IDLE) and open_wishes(world) - {"restart", "power", "on", "off"}
    if same_attempt(moment) and not more and (holds_data(world) or accepted(world)):
        assert isinstance(moment.decision.step, Wait), "it doesn't wait for the next attempt's time"


def _can_end(moment: Moment) -> bool:
    """Whether the attempt has begun, and nothing else is to become of the machine."""
    before = moment.before.operation
    begun = before is not None and before.next_retry_at is None
    return begun and unhindered(moment) and same_attempt(moment) and not no_bmc(moment.world)


def _held(world: World) -> bool:
    held = bmc_misconfigured(world) or was_held_up(world) or awaits_its_turn(world) or _leaves_a_system(world)
    return untouched(world) and held


def _leaves_a_system(world: World) -> bool:
    return doing(OperationName.DEPLOY)(world) and leaves_a_system(world)


def an_attempt_ends_when_its_time_is_up(moment: Moment) -> None:
    """Whatever is under way has a deadline, and a boot no more time than a boot takes; that is when it ends.

    A BMC that is silent uses up attempts: one that wouldn't be heard of before anything is done isn't waited for.
    """
    world = moment.world
    if not _can_end(moment) or _held(world):
        return
    if is_at(moment, *IDLE):
        held = rescue_wanted(world) or deployment_obstructed(world) or leaves_a_system(world)
        assert held or not overdue(world), "its deadline has passed"
        return
    assert not overdue(world), "its deadline has passed"
    assert not (untouched(world) and bmc_silent(world)), "a silent BMC is waited for before anything is done"
    lost = booting(world) and not inventory_kept(world) and not powered_off(world) and not agent_heard(world)
    assert not (lost and stage_overdue(world)), "a boot that doesn't arrive is waited for"
    stuck = shutting_down(world) and bmc_silent(world)
    assert not (stuck and stage_overdue(world)), "a BMC that doesn't switch off is waited for"


def an_attempt_ends_when_it_has_failed(moment: Moment) -> None:
    """What can't succeed any more fails at once, not at its deadline.

    An agent that stopped reporting while it worked; a command that failed; an inspection that isn't there, and its
    agent is; an agent that tells of the hardware and never takes a command.
    """
    world = moment.world
    if not _can_end(moment) or powered_off(world):
        return
    assert not (at_work(world) and agent_lost(world)), "an agent that is lost is waited for"
    if not agent_heard(world):
        return
    assert not (at_work(world) and command(world) is CommandState.FAILED), "a command that failed is waited for"
    if is_at(moment, Phase.COMMISSIONING) and in_ramdisk(world):
        assert inspection_arrived(world), "an inspection that doesn't arrive is waited for"
    if is_at(moment, Phase.RELEASING) and in_ramdisk(world) and not hardware_unknown(world):
        assert agent_takes_commands(world) or not stage_overdue(world), "an agent that takes no command is waited for"


def an_erase_that_is_not_verified_has_failed(moment: Moment) -> None:
    """A disk that isn't verified keeps the machine out of the pool, and its release has failed.

    Evidence is what the erase returned that is under way, not one that was stopped.
    """
    world = moment.world
    if same_attempt(moment) and moment.after.erasure not in ([], moment.before.erasure):
        assert in_ramdisk(world), "an erase that was stopped is believed"
    erasing = is_at(moment, Phase.RELEASING) and at_stage(Stage.ERASE_DISKS)(world) and agent_heard(world)
    if erasing and command(world) is CommandState.SUCCEEDED and unhindered(moment) and not powered_off(world):
        failed = moment.decision.failure is not None or no_bmc(world)
        assert failed or every_disk_erased(world), "a disk isn't verified, and nothing has failed"


def what_succeeded_goes_on(moment: Moment) -> None:
    """It is Deployed when the installed system has called home from its first boot, whatever the time.

    An inspection that arrived is written to the HardwareInventory.
    """
    world = moment.world
    called = first_boot_reported(world) and at_stage(Stage.WRITE_IMAGE, Stage.BOOT_DISK)(world)
    if called and is_at(moment, Phase.DEPLOYING) and at_liberty(moment) and not marked_broken(world):
        wanted = deployment_wanted(world) and not live_machine(world)
        assert not wanted or goes_first_to(moment, Phase.DEPLOYED), "it called home, and isn't Deployed"
    if not unhindered(moment) or not under_way(world):
        return
    taken_over = live_machine(world) and unclaimed(world) and is_at(moment, Phase.COMMISSIONING)
    unknown = is_at(moment, Phase.COMMISSIONING) or (is_at(moment, Phase.RELEASING) and hardware_unknown(world))
    inspected = in_ramdisk(world) and not powered_off(world) and agent_heard(world) and inspection_arrived(world)
    if unknown and inspected and not inventory_kept(world) and not taken_over and not overdue(world):
        excused = command(world) is CommandState.UNKNOWN or no_bmc(world)
        if same_attempt(moment) or moment.decision.failure is not None:
            assert excused or isinstance(moment.decision.step, KeepInventory), "what was found isn't kept"


def commands_go_to_an_agent_that_is_free(moment: Moment) -> None:
    """The agent that reports, of this attempt's boot, is given a command once it takes commands, and one at a time."""
    world = moment.world
    if isinstance(moment.action, COMMANDS) or isinstance(moment.decision.step, COMMANDS):
        assert agent_takes_commands(world), "it hasn't sent a heartbeat"
        assert agent_heard(world), "it isn't heard"
        assert command(world) is CommandState.NONE, f"its command is {command(world)}"
    if isinstance(moment.action, KeepInventory):
        assert inspection_arrived(world), "there is nothing to keep"
        assert not inventory_kept(world), "it is kept already"
