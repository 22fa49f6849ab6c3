"""Conditions: always all there, other writers' kept, their times moved by nothing but their status."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.lifecycle.every_world import worlds
from tests.unit.lifecycle.worlds import (
    NOW,
    anywhere,
    attempt,
    declared,
    installed,
    power_off,
    power_on,
    world,
)

from rackwright.api.conditions import Condition, ConditionType, OtherCondition
from rackwright.api.machine import OperationName, Phase, Power
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.guards import past_unknown, was_held_up
from rackwright.lifecycle.reasons import QUEUED, STATUS_LOST
from rackwright.lifecycle.steps import Hold, Rest
from rackwright.lifecycle.world import Blame, Fault, Seen, World

BURN_IN = OtherCondition({"type": "example.org/BurnIn", "status": "False", "reason": "Running", "message": "2 of 8 h."})
SILENT = Fault(Blame.BMC, "BMCUnreachable", "The BMC does not answer.")


def shown(here: World) -> dict[str, Condition]:
    return {each.type: each for each in decide(here).status.own_conditions}


def test_all_of_them_are_always_there() -> None:
    for here in worlds(500):
        conditions = list(shown(here).values())
        assert [c.type for c in conditions] == list(ConditionType)
        assert all(c.observed_generation == here.generation for c in conditions)
        assert all(c.reason.isidentifier() for c in conditions)


def test_those_of_other_writers_are_kept_as_they_are() -> None:
    here = anywhere(Phase.DEPLOYED, declared(owner="search", image="debian-12"), conditions=[BURN_IN])

    assert decide(here).status.conditions[-1] is BURN_IN


def test_what_others_give_as_a_reason_says_nothing_of_us() -> None:
    theirs = [replace(BURN_IN, given={**BURN_IN.given, "reason": reason}) for reason in (QUEUED, STATUS_LOST)]
    here = anywhere(Phase.COMMISSIONING, declared(), conditions=theirs)
    begun = attempt(OperationName.COMMISSION, since=timedelta(minutes=1))
    assert not was_held_up(here.with_status(here.status.model_copy(update={"operation": begun})))
    assert not past_unknown(replace(here, restored=True, seen=power_off()))


def test_their_times_move_with_their_status_and_with_nothing_else() -> None:
    ready = world(Phase.READY)
    first = decide(ready).status
    later = NOW + timedelta(hours=1)
    allocated = replace(ready, status=first, now=later, spec=declared(owner="search"))

    before, after = {c.type: c for c in first.own_conditions}, shown(allocated)

    assert after[ConditionType.READY].reason == "AwaitingDeployment" != before[ConditionType.READY].reason
    assert after[ConditionType.READY].last_transition_time == NOW
    assert after[ConditionType.ALLOCATED].status == "True" != before[ConditionType.ALLOCATED].status
    assert after[ConditionType.ALLOCATED].last_transition_time == later


def test_a_look_that_finds_nothing_new_changes_nothing_in_status() -> None:
    first = decide(world(Phase.READY)).status
    later = replace(world(Phase.READY), status=first, now=NOW + timedelta(minutes=5))

    assert decide(later).status == first


@pytest.mark.parametrize(
    ("here", "ready", "reconciling", "stalled"),
    [
        (world(Phase.READY), "True", "False", "False"),
        (world(Phase.NEW, declared(accepted=False)), "False", "False", "False"),
        (world(Phase.READY, seen=power_on()), "False", "True", "False"),
        (world(Phase.COMMISSIONING, operation=attempt(OperationName.COMMISSION)), "False", "True", "False"),
        (world(Phase.FAILED), "False", "False", "True"),
        (world(Phase.BROKEN, declared(broken="DIMM A3")), "False", "False", "True"),
    ],
    ids=["settled", "waiting for a wish", "acting", "at work", "failed", "broken"],
)
def test_gitops_tools_can_tell_who_is_to_move(here: World, ready: str, reconciling: str, stalled: str) -> None:
    conditions = shown(here)

    assert conditions[ConditionType.READY].status == ready
    assert conditions[ConditionType.RECONCILING].status == reconciling
    assert conditions[ConditionType.STALLED].status == stalled


@pytest.mark.parametrize(
    ("seen", "bmc", "status", "reason"),
    [
        (Seen(power=Power.OFF), True, "True", "Answered"),
        (Seen(bmc_fault=SILENT), True, "False", "BMCUnreachable"),
        (Seen(), True, "Unknown", "NotAsked"),
        (Seen(), False, "Unknown", "NoBMC"),
    ],
)
def test_whether_the_bmc_answers_is_a_condition_of_its_own(seen: Seen, status: str, reason: str, *, bmc: bool) -> None:
    spec = declared(owner="search", existing=True, bmc=bmc)

    condition = shown(anywhere(Phase.DEPLOYED, spec, seen=seen))[ConditionType.BMC_REACHABLE]

    assert (condition.status, condition.reason) == (status, reason)


@pytest.mark.parametrize(
    ("phase", "fields", "status", "reason"),
    [
        (Phase.READY, {}, "False", "NothingInstalled"),
        (Phase.FAILED, {"installed": installed(came_up=False)}, "False", "NotComplete"),
        (Phase.BROKEN, {}, "False", "NotRunning"),
        (Phase.DEPLOYED, {}, "True", "Installed"),
    ],
)
def test_deployed_is_only_what_runs_and_is_left_to_run(
    phase: Phase, fields: dict[str, Any], status: str, reason: str
) -> None:
    spec = declared(owner="search", image="debian-12", broken="DIMM A3" if phase is Phase.BROKEN else None)
    spec = declared() if phase is Phase.READY else spec

    condition = shown(anywhere(phase, spec, seen=power_off(), **fields))[ConditionType.DEPLOYED]

    assert (condition.status, condition.reason) == (status, reason)


def test_ready_and_stalled_go_by_the_step() -> None:
    for here in worlds(500):
        decision = decide(here)
        conditions = {c.type: c.status for c in decision.status.conditions}
        settled = isinstance(decision.step, Rest) and decision.step.settled
        if decision.reason != "EvidenceRecorded":
            assert (conditions[ConditionType.STALLED] == "True") >= isinstance(decision.step, Hold)
            assert (conditions[ConditionType.READY] == "True") >= settled


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (power_on(), "debian-12 runs as node-07."),
        (power_off(), "debian-12 is installed as node-07."),
    ],
)
def test_what_is_off_is_said_to_be_installed_and_not_to_run(seen: Seen, words: str) -> None:
    deployed = shown(anywhere(Phase.DEPLOYED, declared(owner="search", image="debian-12"), seen=seen))["Deployed"]

    assert (deployed.status, deployed.message) == ("True", words)
