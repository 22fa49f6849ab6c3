"""What people may wish beyond a deployment, as golden timelines: restart, lock, gates, fault report, by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.property.metal import Metal, Running
from tests.unit.lifecycle.story import Story
from tests.unit.lifecycle.test_timelines import DEPLOYED, IMAGE, RELEASED
from tests.unit.lifecycle.worlds import KEY, declared

from rackwright.api.machine import Phase, Power

GATE = "example.org/BurnIn"
GATED: dict[str, Any] = {"readinessGates": [{"conditionType": GATE}]}
BY_HAND: dict[str, Any] = {"bmc": {"address": "manual://"}}
REPORT: dict[str, Any] = {"release": {"fault": {"category": "Hardware", "summary": "DIMM A3 is dying."}}}


def deployed() -> Story:
    story = Story(declared(**IMAGE))
    story.settles()
    return story


# --- restart --------------------------------------------------------------------------------------------------------


def test_a_restart_switches_a_machine_off_and_on_once_and_changes_no_phase() -> None:
    story = deployed()
    starts = story.rig.metal.starts

    assert story.declare(**IMAGE, powerCycle={"trigger": "now"}) == ["Deployed: Restarting", "Deployed: Running"]
    assert (story.rig.metal.starts, story.running()) == (starts + 1, Running.SYSTEM)
    assert story.rig.status.history[0].name == "Restart"
    assert story.settles() == ["Deployed: Running"]


def test_a_restart_that_fails_is_given_up_and_leaves_the_machine_what_it_was() -> None:
    story = deployed()
    story.rig.metal.refusals = 99

    told = story.declare(**IMAGE, powerCycle={"trigger": "now"})

    assert told[-1] == "Deployed: Running"
    status = story.rig.status
    assert (status.phase, status.operation) == (Phase.DEPLOYED, None)
    assert (status.history[0].outcome, status.history[0].attempts) == ("Failed", 3)
    assert status.last_failure is not None
    assert status.last_failure.operation == "Restart"


def test_a_restart_of_a_machine_that_is_off_is_noted_and_nothing_else() -> None:
    story = Story()
    story.settles()
    starts = story.rig.metal.starts

    assert story.declare(powerCycle={"trigger": "now"}) == ["Ready: Available"]
    assert story.rig.metal.starts == starts
    assert story.rig.status.observed_triggers.power_cycle == "now"


def test_a_restart_that_waits_for_a_silent_bmc_is_not_taken_for_done() -> None:
    story = deployed()
    story.rig.metal.bmc_silent = True

    assert story.declare(**IMAGE, powerCycle={"trigger": "now"}) == ["Deployed: BMCUnreachable"]
    story.rig.metal.bmc_silent = False
    assert story.settles() == ["Deployed: Restarting", "Deployed: Running"]


# --- lock -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", [{"broken": "DIMM A3"}, {"rescue": True}, {"reinstall": "again"}, {"power": "Off"}])
def test_a_locked_machine_says_so_where_something_else_is_wished_and_goes_on_after_that(
    wish: dict[str, Any],
) -> None:
    story = deployed()
    assert story.declare(**IMAGE, locked=True) == ["Deployed: Running"], "nothing is wished that isn't so"

    assert story.declare(**IMAGE, locked=True, **wish) == ["Deployed: Locked"]
    assert story.running() is Running.SYSTEM
    assert story.declare(**IMAGE, **wish)[-1] != "Deployed: Locked"


def test_a_machine_that_is_locked_in_the_middle_stays_there() -> None:
    story = Story(declared(owner="search"))
    story.settles()
    story.rig.declare(declared(**IMAGE))
    story.reaches("WriteImage")

    assert story.declare(**IMAGE, locked=True)[-1] == "Deploying: Locked"
    assert story.rig.metal.on
    assert story.declare(**IMAGE)[-1] == "Deployed: Running"
    assert len(story.rig.metal.writes) == 1


def test_a_locked_record_that_is_deleted_stays_and_nobody_is_told_that_force_would_help() -> None:
    story = deployed()
    story.declare(**IMAGE, locked=True)
    story.rig.delete()

    assert story.settles() == ["Deployed: Locked"]
    assert "force" not in next(c.message for c in story.rig.status.conditions if c.type == "Ready")


# --- readiness gates ------------------------------------------------------------------------------------------------


def test_a_machine_joins_the_pool_when_its_gate_opens() -> None:
    story = Story(declared(**GATED))
    until = lambda rig: "ReadinessGatesClosed" in {c.reason for c in rig.status.conditions}  # noqa: E731

    assert story.settles(until=until)[-1] == "Commissioning: ReadinessGatesClosed"
    assert not story.rig.metal.on
    story.rig.write_condition(GATE, "True")
    assert story.settles()[-1] == "Ready: Available"

    story.rig.write_condition(GATE, "False")
    assert story.declare(**GATED, owner="search") == ["Ready: ReadinessGatesClosed"]
    story.rig.write_condition(GATE, "True")
    assert story.settles() == ["Allocated: AwaitingDeployment"]


def test_a_gate_that_stays_closed_ends_the_commissioning_at_its_deadline_for_good() -> None:
    story = Story(declared(**GATED))

    assert story.settles()[-1] == "Failed: ReadinessGatesClosed"
    assert story.rig.status.last_failure is not None
    assert GATE in story.rig.status.last_failure.message
    assert story.rig.status.history[0].attempts == 1


# --- fault report ---------------------------------------------------------------------------------------------------


def test_a_reported_fault_leads_an_erased_machine_to_broken_until_it_is_repaired() -> None:
    story = deployed()

    assert story.declare(**REPORT) == [*RELEASED, "Broken: FaultReported"]
    assert story.rig.metal.blank
    assert story.rig.status.owner is None
    assert story.declare()[-1] == "Ready: Available"


def test_a_reported_fault_has_no_effect_before_the_release() -> None:
    assert deployed().declare(**IMAGE, **REPORT) == ["Deployed: Running"]


# --- by hand --------------------------------------------------------------------------------------------------------


def test_a_person_who_moves_the_power_is_told_when_and_is_believed_when_the_machine_is_heard() -> None:
    story = Story(declared(**BY_HAND))

    told = story.settles()
    assert told[-1] == "Ready: Available"
    assert "Commissioning: AwaitingStartFromNetwork" in told
    assert story.rig.status.power is Power.UNKNOWN, "what is only assumed isn't shown"

    told = story.declare(**IMAGE, **BY_HAND)
    assert "Deploying: AwaitingStartFromNetwork" in told
    assert "Deploying: AwaitingStartFromDisk" in told
    assert told[-1] == DEPLOYED[-1]

    assert story.declare(**BY_HAND)[-1] == "Ready: Available"
    assert story.rig.metal.blank


def test_a_person_has_as_long_as_the_attempt_may_take() -> None:
    story = Story(declared(**BY_HAND, commissioning={"timeout": "8h", "trigger": ""}))
    story.reaches("BootRamdisk")

    assert story.waits(for_=timedelta(hours=7))[-1] == "Commissioning: AwaitingStartFromNetwork"
    assert "Commissioning: DeadlineExceeded" in story.waits(for_=timedelta(hours=2))


# --- live machines --------------------------------------------------------------------------------------------------


def test_a_live_machine_is_inspected_before_it_is_erased() -> None:
    story = Story(declared(owner="search", existing=True), Metal(on=True, running=Running.SYSTEM, image="existing"))
    story.settles()
    assert story.rig.status.hardware is None

    told = story.declare()

    assert told.index("Releasing: KeepingInventory") < told.index("Releasing: ErasingDisks")
    assert told[-1] == "Ready: Available"
    assert story.rig.status.hardware is not None


def test_a_rescue_of_a_locked_machine_waits() -> None:
    story = deployed()
    assert story.declare(**IMAGE, locked=True, rescue={"sshAuthorizedKeys": [KEY]}) == ["Deployed: Locked"]
