"""The line of a decision: whom, where it is now, what follows and why; a warning where somebody should look."""

from __future__ import annotations

import logging
from typing import Any

from tests.unit.lifecycle.worlds import attempt, declared, world
from tests.unit.test_cache import machine

from rackwright import journal
from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.decide import after_fault, decide
from rackwright.lifecycle.steps import Action, Stage
from rackwright.lifecycle.world import Blame, Fault, Seen, World
from rackwright.record import Machine

UNREACHABLE = Fault(Blame.BMC, "BMCUnreachable", "The BMC at 10.0.0.7 does not answer.")


def recorded_of(here: World) -> Machine:
    status = here.status.model_dump(by_alias=True, mode="json", exclude_none=True)
    return machine(status=status)


def line(here: World, *, fault: Fault | None = None) -> tuple[int, str]:
    """What is logged once this world's decision is recorded."""
    decision = decide(here) if fault is None else after_fault(here, fault)
    level, told = journal.recorded(recorded_of(here), decision)
    return level, str(told)


def test_a_move_is_one_line_with_where_it_came_from() -> None:
    assert line(world(Phase.ALLOCATED, declared(owner="a", image="debian-12"), owner="a")) == (
        logging.INFO,
        (
            "machine=rack-a/node-07 phase=Deploying was=Allocated step=BootRamdisk reason=BootingRamdisk "
            "operation=Deploy attempt=1"
        ),
    )


def test_a_failed_attempt_is_a_warning_with_its_sentence() -> None:
    here = world(Phase.COMMISSIONING, operation=attempt(OperationName.COMMISSION, Stage.BOOT_RAMDISK))
    assert line(here, fault=UNREACHABLE) == (
        logging.WARNING,
        (
            "machine=rack-a/node-07 phase=Commissioning reason=BMCUnreachable operation=Commission attempt=2 "
            "The BMC at 10.0.0.7 does not answer."
        ),
    )


def test_what_begins_to_call_upon_somebody_is_a_warning_and_what_goes_on_is_not() -> None:
    silent = world(Phase.READY, declared(), Seen(bmc_fault=UNREACHABLE))
    level, told = line(silent)
    assert (level, "reason=BMCUnreachable The BMC" in told) == (logging.WARNING, True)
    again = silent.with_status(decide(silent).status)
    assert line(again)[0] == logging.INFO


def test_an_action_is_found_by_machine_step_and_reason() -> None:
    here = world(Phase.READY, declared(power="On"))
    decision = decide(here)
    step: Any = decision.step
    assert isinstance(step, Action)
    told = str(journal.begun(recorded_of(here), decision, step))
    assert told == "machine=rack-a/node-07 step=PowerOn reason=PowerOnWanted phase=Ready"
