"""A machine that introduced itself: shown with its hardware, trusted by nobody, commissioned once it is accepted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.lifecycle.worlds import declared, failure, power_off, world

from rackwright.api.conditions import Condition, ConditionType
from rackwright.api.machine import BareMetalMachineSpec, HardwareSummary, OperationName, Phase
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.steps import Rest
from rackwright.lifecycle.world import Seen, World

HARDWARE = HardwareSummary(cpus=8, memory_mib=16384, serial="SN0007", mac_addresses=["52:54:00:00:00:07"])


def enlisted(*, bmc: bool = False) -> BareMetalMachineSpec:
    return declared(accepted=False, bmc=bmc)


def commissioned(here: World) -> Condition:
    return next(c for c in decide(here).status.own_conditions if c.type == ConditionType.COMMISSIONED)


def test_its_hardware_is_in_status_from_the_first_patch_on() -> None:
    decision = decide(world(None, enlisted(), Seen(inventory=HARDWARE)))
    assert (decision.status.phase, decision.status.hardware) == (Phase.NEW, HARDWARE)
    assert [(t.before, t.after, t.reason) for t in decision.transitions] == [(None, Phase.NEW, "Enlisted")]


def test_an_inventory_that_comes_later_is_recorded_too() -> None:
    here = world(Phase.NEW, enlisted(), Seen(inventory=HARDWARE))
    decision = decide(here)
    assert decision.announces(here.status)
    again = decide(replace(here, status=decision.status, seen=Seen()))
    assert again.status == decision.status
    assert not again.announces(decision.status)


def test_hardware_that_a_commissioning_found_is_kept() -> None:
    found = HardwareSummary(cpus=64)
    assert decide(world(Phase.NEW, enlisted(), Seen(inventory=HARDWARE), hardware=found)).status.hardware == found


@pytest.mark.parametrize("bmc", [True, False])
def test_it_waits_for_somebody_and_is_not_said_to_be_commissioned(bmc: bool) -> None:
    here = world(Phase.NEW, enlisted(bmc=bmc), Seen(), hardware=HARDWARE)
    decision = decide(here)
    assert (decision.step, decision.reason) == (Rest(settled=False), "AwaitingAcceptance")
    assert (commissioned(here).status, commissioned(here).reason) == ("False", "NotAccepted")


def test_accepted_it_is_commissioned() -> None:
    decision = decide(world(Phase.NEW, declared(), power_off(), hardware=HARDWARE))
    assert [(t.after, t.reason) for t in decision.transitions] == [(Phase.COMMISSIONING, "Accepted")]
    assert decision.status.hardware == HARDWARE


def test_one_whose_first_commissioning_failed_is_not_said_to_be_commissioned() -> None:
    gave_up = failure(OperationName.COMMISSION, "AgentMissing")
    here = world(Phase.FAILED, declared(), power_off(), hardware=HARDWARE, last_failure=gave_up)
    assert (commissioned(here).status, commissioned(here).reason) == ("False", "AgentMissing")


def test_a_machine_that_failed_at_something_else_stays_commissioned() -> None:
    gave_up = failure(OperationName.RELEASE, "EraseNotVerified")
    here = world(Phase.FAILED, declared(), power_off(), owner="search", hardware=HARDWARE, last_failure=gave_up)
    assert commissioned(here).status == "True"
