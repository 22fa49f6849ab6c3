"""Live machines: Deployed at once, wherever they are found, never commissioned and never rebooted."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.lifecycle.worlds import attempt, declared, heard, installed, power_on, world

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.steps import RecordEvidence, Stage

LIVE = declared(owner="search", existing=True)


@pytest.mark.parametrize(
    ("phase", "fields"),
    [
        (None, {}),
        (Phase.NEW, {}),
        (Phase.COMMISSIONING, {"operation": attempt(OperationName.COMMISSION)}),
        (Phase.BROKEN, {}),
        (Phase.ALLOCATED, {"owner": "search"}),
    ],
)
def test_a_live_machine_is_taken_over_as_it_runs(phase: Phase | None, fields: dict[str, Any]) -> None:
    decision = decide(world(phase, LIVE, power_on(), **fields))

    assert decision.step == RecordEvidence()
    assert decision.status.phase is Phase.DEPLOYED
    assert decision.status.owner == "search"
    assert decision.status.operation is None
    assert decision.status.installed is not None
    assert decision.status.installed.image is None
    assert decision.status.installed.at is not None


def test_a_machine_that_turns_out_to_be_live_leaves_its_commissioning_in_the_history() -> None:
    commissioning = attempt(OperationName.COMMISSION, Stage.BOOT_RAMDISK)

    decision = decide(world(Phase.COMMISSIONING, LIVE, power_on(agent=heard()), operation=commissioning))

    assert [(e.name, e.outcome) for e in decision.status.history] == [(OperationName.COMMISSION, "Abandoned")]


def test_a_live_machine_that_is_mended_is_back_without_a_reboot() -> None:
    decision = decide(world(Phase.BROKEN, LIVE, power_on(), owner="search", installed=installed(None)))

    assert (decision.status.phase, decision.reason) == (Phase.DEPLOYED, "Running")


def test_a_half_written_machine_is_not_taken_for_a_live_one_when_it_is_mended() -> None:
    broken = world(Phase.BROKEN, LIVE, power_on(), owner="search", installed=installed(came_up=False))

    assert decide(broken).status.phase is Phase.COMMISSIONING


def test_a_live_machine_of_another_owner_is_released_before_it_is_taken_over() -> None:
    broken = world(Phase.BROKEN, LIVE, power_on(), owner="maps", installed=installed(None))

    decision = decide(broken)

    assert [t.after for t in decision.transitions] == [Phase.DEPLOYED, Phase.RELEASING]
