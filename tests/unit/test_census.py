"""The fleet in numbers: right after any changes, and never found out by going through the machines."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.lifecycle.worlds import declared, power_off, world

from rackwright.api.machine import BareMetalMachineStatus, Phase
from rackwright.census import EXPECTED, PHASES, UNDECIDED, UNREADABLE, Census, counted
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.world import Blame, Fault, Place, Seen, World

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def status(phase: Phase | None, *, since: datetime | None = NOW, **more: Any) -> BareMetalMachineStatus:
    return BareMetalMachineStatus.model_validate({"phase": phase, "phaseSince": since, **more})


def condition(kind: str, standing: str, reason: str = "Because") -> dict[str, Any]:
    return {"type": kind, "status": standing, "reason": reason, "lastTransitionTime": NOW}


QUEUED = [condition("Reconciling", "True", "AwaitingInstallSlot")]


def under_way(since: datetime, name: str = "Rescue", **more: Any) -> dict[str, Any]:
    return {"id": "op", "name": name, "beganAt": since, "startedAt": since, "deadline": since, **more}


def shown(numbers: Counter[Any]) -> dict[Any, int]:
    return {what: number for what, number in numbers.items() if number}


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d"]),
        st.none()
        | st.builds(
            status,
            st.sampled_from([None, *Phase]),
            since=st.sampled_from([None, NOW, NOW + HOUR, NOW + 2 * HOUR]),
            conditions=st.sampled_from([[], [condition("Ready", "True")], [condition("Ready", "False")], QUEUED]),
            operation=st.sampled_from([None, under_way(NOW), under_way(NOW + HOUR)]),
        ),
        st.integers(0, 50),
    ),
    max_size=30,
)
"""Of a record: what it becomes, None if it is gone; and how many hours later it is looked at."""


@given(CHANGES)
def test_the_numbers_are_what_counting_every_machine_would_find(
    changes: list[tuple[str, BareMetalMachineStatus | None, int]],
) -> None:
    census, fleet, now = Census(), dict[str, BareMetalMachineStatus](), NOW
    for uid, became, hours in changes:
        if became is None:
            fleet.pop(uid, None)
            census.remove(uid)
        else:
            fleet[uid] = became
            census.put(uid, became)
        now += hours * HOUR
        everyone = [counted(each) for each in fleet.values()]
        assert shown(census.phases) == Counter(each.phase for each in everyone)
        assert shown(census.conditions) == Counter(c for each in everyone for c in each.conditions)
        late = (
            e.phase
            for e in everyone
            if e.since and e.phase in census.expected and e.since + census.expected[e.phase] <= now
        )
        assert shown(census.overdue(now)) == Counter(late)


def test_a_machine_is_overdue_from_then_on_until_it_moves_on() -> None:
    census, limit = Census(), EXPECTED[Phase.DEPLOYING]
    census.put("uid", status(Phase.DEPLOYING))
    assert not shown(census.overdue(NOW + limit - HOUR / 3600))
    assert shown(census.overdue(NOW + limit)) == {"Deploying": 1}
    census.put("uid", status(Phase.DEPLOYING, conditions=[condition("Ready", "False")]))
    assert shown(census.overdue(NOW + limit)) == {"Deploying": 1}
    census.put("uid", status(Phase.DEPLOYED, since=NOW + limit))
    assert not shown(census.overdue(NOW + 1000 * limit))


def test_a_rescue_is_timed_while_it_is_opened_and_left_and_not_while_it_is_open() -> None:
    census, limit = Census(), EXPECTED[Phase.RESCUE]
    census.put("uid", status(Phase.RESCUE, operation=under_way(NOW)))
    assert shown(census.overdue(NOW + limit)) == {"Rescue": 1}
    census.put("uid", status(Phase.RESCUE))
    assert not shown(census.overdue(NOW + 100 * limit))
    census.put("uid", status(Phase.RESCUE, operation=under_way(NOW + 100 * limit)))
    assert not shown(census.overdue(NOW + 100 * limit))
    assert shown(census.overdue(NOW + 101 * limit)) == {"Rescue": 1}


def test_a_machine_that_waits_for_its_turn_to_install_is_not_overdue_however_long_it_waits() -> None:
    census, limit, turn = Census(), EXPECTED[Phase.DEPLOYING], NOW + 100 * HOUR
    census.put("uid", status(Phase.DEPLOYING, operation=under_way(NOW, "Deploy"), conditions=QUEUED))
    assert not shown(census.overdue(turn))
    census.put("uid", status(Phase.DEPLOYING, operation=under_way(turn, "Deploy")))
    assert not shown(census.overdue(turn + limit - HOUR / 3600))
    assert shown(census.overdue(turn + limit)) == {"Deploying": 1}


def test_a_later_attempt_is_timed_from_the_first_and_stops_counting_only_while_it_waits_for_its_turn() -> None:
    census, limit = Census(), EXPECTED[Phase.DEPLOYING]
    retry = under_way(NOW, "Deploy", attempt=3, startedAt=NOW + limit)
    census.put("uid", status(Phase.DEPLOYING, operation=retry))
    assert shown(census.overdue(NOW + limit)) == {"Deploying": 1}
    census.put("uid", status(Phase.DEPLOYING, operation=retry, conditions=QUEUED))
    assert not shown(census.overdue(NOW + 2 * limit))
    census.put("uid", status(Phase.DEPLOYING, operation=retry))
    assert shown(census.overdue(NOW + 2 * limit)) == {"Deploying": 1}


def test_an_installation_that_waited_for_hours_and_then_fails_becomes_overdue_with_its_attempts() -> None:
    census, limit = Census(), EXPECTED[Phase.DEPLOYING]
    spec = declared(owner="search", image="debian-12")
    begins = world(Phase.ALLOCATED, spec, power_off(queued=Place(1, 2)), owner="search")

    def recorded(before: World) -> World:
        after = before.with_status(decide(before).status)
        census.put("uid", after.status)
        return after

    waits = recorded(begins)
    assert not shown(census.overdue(waits.now + 99 * HOUR))
    turn = recorded(replace(waits, now=waits.now + 100 * HOUR, seen=power_off()))
    assert not shown(census.overdue(turn.now))
    silent = Seen(bmc_fault=Fault(Blame.BMC, "BMCUnreachable", "The BMC does not answer."))
    failed = recorded(replace(turn, now=turn.now + limit - HOUR / 60, seen=silent))
    assert failed.status.operation is not None
    assert failed.status.operation.attempt == 2
    assert not shown(census.overdue(failed.now))
    assert shown(census.overdue(turn.now + limit)) == {"Deploying": 1}


def test_a_deployment_whose_operation_was_lost_is_timed_by_its_phase() -> None:
    census, limit = Census(), EXPECTED[Phase.DEPLOYING]
    census.put("uid", status(Phase.DEPLOYING, conditions=QUEUED))
    assert shown(census.overdue(NOW + limit)) == {"Deploying": 1}


def test_a_phase_that_nothing_is_expected_of_is_never_overdue() -> None:
    census = Census({})
    census.put("uid", status(Phase.DEPLOYING))
    assert not shown(census.overdue(NOW + 1000 * HOUR))
    assert not census._awaited


def test_conditions_that_others_write_are_not_counted() -> None:
    census = Census()
    census.put("uid", status(Phase.READY, conditions=[condition("example.org/BurnIn", "True")]))
    assert not shown(census.conditions)


def test_every_phase_has_a_name_and_a_record_without_one_too() -> None:
    census = Census()
    census.put("uid", status(None))
    assert shown(census.phases) == {UNDECIDED: 1}
    census.put("unread", None)
    assert shown(census.phases) == {UNDECIDED: 1, UNREADABLE: 1}
    assert set(PHASES) == {UNDECIDED, UNREADABLE, *Phase}


def test_where_nobody_scrapes_the_stays_that_have_ended_are_let_go_of() -> None:
    census = Census()
    for number in range(5_000):
        census.put("uid", status(Phase.DEPLOYING, since=NOW + number * HOUR))
    assert len(census._awaited) < 1_100
    assert shown(census.overdue(NOW + 10_000 * HOUR)) == {"Deploying": 1}


def test_what_a_scrape_works_off_is_each_stay_once() -> None:
    census = Census()
    for number in range(1000):
        census.put(f"uid-{number}", status(Phase.DEPLOYING))
    census.overdue(NOW + 1000 * HOUR)
    assert not census._awaited  # nothing is left for a second scrape
