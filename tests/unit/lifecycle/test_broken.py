"""Broken: powered as found, left alone for as long as the mark is there, checked again when it is withdrawn."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.lifecycle.worlds import NOW, attempt, declared, heard, installed, power_on, world

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.steps import Hold, PowerOff, Stage, Wait
from rackwright.lifecycle.world import CommandState


def test_a_machine_that_is_declared_broken_from_the_start_is_left_as_it_is_powered() -> None:
    decision = decide(world(None, declared(broken="DIMM A3"), power_on()))

    assert (decision.step, decision.status.phase) == (Hold(), Phase.BROKEN)
    assert decision.message == "Marked as broken: DIMM A3"


@pytest.mark.parametrize("command", [CommandState.RUNNING, CommandState.UNKNOWN])
def test_a_disk_that_is_written_or_may_be_is_not_cut_off_by_the_mark(command: CommandState) -> None:
    erasing = world(
        Phase.RELEASING,
        declared(broken="DIMM A3"),
        power_on(agent=heard(command=command)),
        owner="search",
        installed=installed(came_up=False),
        operation=attempt(OperationName.RELEASE, Stage.ERASE_DISKS),
    )

    decision = decide(erasing)

    assert (decision.step, decision.reason) == (Wait(), "FinishingDiskWrite")


def test_an_agent_that_is_gone_writes_to_no_disk_that_the_mark_would_have_to_wait_for() -> None:
    gone = heard(command=CommandState.UNKNOWN, at=NOW - timedelta(minutes=4))
    erasing = world(
        Phase.RELEASING,
        declared(broken="DIMM A3"),
        power_on(agent=gone),
        owner="search",
        installed=installed(came_up=False),
        operation=attempt(OperationName.RELEASE, Stage.ERASE_DISKS, since=timedelta(hours=1), lasts=timedelta(days=1)),
    )

    decision = decide(erasing)

    assert decision.step == PowerOff()
    assert decision.message == (
        "Marked broken: being switched off. "
        "An image or an erase was under way on its disks, and may be cut off by that."
    )
