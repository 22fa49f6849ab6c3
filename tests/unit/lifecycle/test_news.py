"""What is news of a decision, where a timeline would only show that it is: once, to the point, and never a poll."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lifecycle.worlds import attempt, declared, installed, power_on, world

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.decide import Decision, after_fault, decide
from rackwright.lifecycle.news import News, news, of_deed
from rackwright.lifecycle.steps import Stage
from rackwright.lifecycle.world import Blame, Fault, World

REFUSED = Fault(Blame.BMC, "BMCProtocolError", "The BMC refused")
IMAGE = declared(owner="search", image="debian-12")
OTHER_IMAGE = declared(owner="search", image="fedora-42")
GATED = declared(readinessGates=[{"conditionType": "example.org/BurnIn"}])


def told(here: World, decision: Decision | None = None) -> list[News]:
    return list(news(here.spec, here.status, decision or decide(here)))


def later(here: World) -> World:
    """The world after its decision was recorded, a minute on."""
    return replace(here, status=decide(here).status, now=here.now + timedelta(minutes=1))


@pytest.mark.parametrize(
    "here",
    [
        world(Phase.READY, GATED),
        world(Phase.DEPLOYED, OTHER_IMAGE, power_on(), owner="search", installed=installed()),
        world(Phase.BROKEN, declared(broken="DIMM A3")),
        world(Phase.ALLOCATED, declared(owner="search", power="On", bmc=False, accepted=False), owner="search"),
    ],
    ids=["a closed gate", "a re-installation", "a mark", "a BMC"],
)
def test_who_waits_for_somebody_says_so_once(here: World) -> None:
    assert len(told(here)) == 1
    assert told(later(here)) == []


def test_a_lock_that_was_set_before_something_was_wished_is_told_as_one_that_was_set_with_it() -> None:
    locked = declared(owner="search", image="debian-12", locked=True)
    here = world(Phase.DEPLOYED, locked, power_on(), owner="search", installed=installed())
    wished = declared(owner="search", image="debian-12", locked=True, power="Off")
    then = world(Phase.DEPLOYED, wished, power_on(), owner="search", installed=installed())

    assert told(here) == []
    assert [item.reason for item in told(then.with_status(decide(here).status))] == ["Locked"]


def test_an_attempt_that_fails_in_a_step_and_is_the_last_says_what_to_do() -> None:
    here = world(Phase.COMMISSIONING, operation=attempt(OperationName.COMMISSION, Stage.BOOT_RAMDISK, number=3))
    (item,) = told(here, after_fault(here, REFUSED))

    assert item.note == "Failed: The BMC refused. Set spec.commissioning.trigger to a new value to try again."


def test_a_marked_machine_whose_last_attempt_fails_is_not_broken_for_the_failure() -> None:
    marked = declared(broken="DIMM A3")
    here = world(
        Phase.COMMISSIONING,
        marked,
        power_on(),
        operation=attempt(OperationName.COMMISSION, Stage.POWER_OFF, number=3),
    )

    decision = after_fault(here, REFUSED)

    assert [(t.before, t.after, t.reason) for t in decision.transitions] == [
        (Phase.COMMISSIONING, Phase.FAILED, "BMCProtocolError"),
        (Phase.FAILED, Phase.BROKEN, "MarkedBroken"),
    ]


def test_an_adopted_machine_that_is_let_go_of_is_not_said_to_hold_nothing() -> None:
    here = world(
        Phase.DEPLOYED,
        declared(owner="search", existing=True),
        power_on(),
        owner="search",
        installed=installed(None),
        deleting=True,
    )

    item = of_deed(here.status, decide(here))

    assert item is not None
    assert (item.kind, item.reason) == ("Normal", "Deleted")
    assert item.note == (
        "Deleted; it was adopted, and is let go of as it runs. Skipped: the release of what was adopted, owner search."
    )


def test_only_what_is_switched_at_rest_is_told_when_it_is_done() -> None:
    off = declared(owner="search", image="debian-12", power="Off")
    at_rest = world(Phase.DEPLOYED, off, power_on(), owner="search", installed=installed())
    at_work = world(
        Phase.DEPLOYING, IMAGE, power_on(), owner="search", operation=attempt(OperationName.DEPLOY, Stage.POWER_OFF)
    )

    switched = of_deed(at_rest.status, decide(at_rest))

    assert switched is not None
    assert (switched.reason, switched.note) == ("PowerOffWanted", "Switched off: spec.power is Off.")
    assert of_deed(at_work.status, decide(at_work)) is None
