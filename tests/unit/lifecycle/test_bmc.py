"""A BMC that is missing, silent or slow: said as a reason, waited for, never hammered."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lifecycle.worlds import anywhere, attempt, declared, installed, power_off, world

from rackwright.api.machine import BareMetalMachineSpec, OperationName, Phase
from rackwright.lifecycle.decide import after_fault, decide
from rackwright.lifecycle.steps import BootRamdisk, Hold, Rest, Stage, Wait
from rackwright.lifecycle.world import Blame, Fault, Seen

MINUTES = timedelta(minutes=1)


@pytest.mark.parametrize(
    "spec",
    [
        declared(accepted=False, bmc=False),
        declared(owner="search", image="debian-12", reinstall="again", accepted=False, bmc=False),
        declared(owner="search", existing=True, rescue=True, bmc=False),
        declared(owner="search", existing=True, power="Off", bmc=False),
    ],
    ids=["withdrawn", "re-install", "rescue", "power"],
)
def test_a_deployed_machine_without_a_bmc_stays_so_and_says_what_it_needs(spec: BareMetalMachineSpec) -> None:
    decision = decide(world(Phase.DEPLOYED, spec, owner="search", installed=installed(None)))

    assert (decision.step, decision.reason, decision.status.phase) == (Hold(), "BMCMissing", Phase.DEPLOYED)


def test_a_deployment_of_an_allocated_machine_without_a_bmc_is_not_begun_and_says_what_it_needs() -> None:
    spec = declared(owner="search", image="debian-12", accepted=False, bmc=False)

    decision = decide(world(Phase.ALLOCATED, spec, owner="search"))

    assert (decision.step, decision.reason, decision.status.phase) == (Hold(), "BMCMissing", Phase.ALLOCATED)


def test_a_missing_secret_is_waited_for_without_using_an_attempt() -> None:
    missing = Seen(bmc_fault=Fault(Blame.CONFIGURATION, "SecretMissing", "The Secret node-07-bmc does not exist."))
    waiting = attempt(OperationName.COMMISSION, number=2, since=2 * MINUTES, retry_in=-MINUTES)

    decision = decide(world(Phase.COMMISSIONING, seen=missing, operation=waiting))

    assert (decision.step, decision.reason) == (Hold(), "SecretMissing")
    assert decision.status.operation is not None
    assert decision.status.operation.attempt == 2


def test_the_time_of_an_attempt_that_a_missing_secret_held_up_begins_when_it_is_there() -> None:
    missing = Seen(bmc_fault=Fault(Blame.CONFIGURATION, "SecretMissing", "The Secret node-07-bmc does not exist."))
    waited = attempt(OperationName.COMMISSION, since=300 * MINUTES)
    held = decide(world(Phase.COMMISSIONING, seen=missing, operation=waited))
    assert held.step == Hold()

    there = replace(world(Phase.COMMISSIONING, seen=power_off(), operation=waited), status=held.status)
    decision = decide(there)

    assert decision.step == BootRamdisk()
    assert decision.status.operation is not None
    assert (decision.status.operation.attempt, decision.status.operation.deadline) == (1, there.now + 30 * MINUTES)
    assert decision.status.last_failure is None


def test_an_operation_whose_bmc_was_taken_away_waits_for_a_person_and_not_for_its_deadline() -> None:
    spec = declared(accepted=False, bmc=False)
    releasing = attempt(OperationName.RELEASE, Stage.ERASE_DISKS, since=40 * MINUTES)

    decision = decide(world(Phase.RELEASING, spec, owner="search", installed=installed(), operation=releasing))

    assert (decision.step, decision.reason) == (Hold(), "BMCMissing")


IN_PROGRESS = [
    (Phase.COMMISSIONING, OperationName.COMMISSION, Stage.BOOT_RAMDISK, "AwaitingAgent"),
    (Phase.RELEASING, OperationName.RELEASE, Stage.BOOT_RAMDISK, "AwaitingAgent"),
    (Phase.RELEASING, OperationName.RELEASE, Stage.SHUT_DOWN, "BMCUnreachable"),
    (Phase.DEPLOYING, OperationName.DEPLOY, Stage.BOOT_DISK, "AwaitingFirstBoot"),
]
SILENT = Seen(bmc_fault=Fault(Blame.BMC, "BMCUnreachable", "The BMC does not answer."))


@pytest.mark.parametrize(("phase", "operation", "stage", "reason"), IN_PROGRESS)
def test_a_bmc_that_is_silent_for_a_moment_undoes_nothing(
    phase: Phase, operation: OperationName, stage: Stage, reason: str
) -> None:
    spec = declared(owner="search", image="debian-12")
    owner = None if phase is Phase.COMMISSIONING else "search"
    going_on = attempt(operation, stage, since=2 * MINUTES)

    decision = decide(world(phase, spec, SILENT, owner=owner, operation=going_on))

    assert (decision.step, decision.reason) == (Wait(), reason)
    assert decision.status.operation is not None
    assert (decision.status.operation.attempt, decision.status.operation.step) == (1, stage)


@pytest.mark.parametrize("fault", ["BMCUnreachable", "BMCBusy"])
@pytest.mark.parametrize(
    ("phase", "operation", "stage"),
    [
        (Phase.RELEASING, OperationName.RELEASE, Stage.SHUT_DOWN),
        (Phase.COMMISSIONING, OperationName.COMMISSION, Stage.SHUT_DOWN),
        (Phase.DEPLOYING, OperationName.DEPLOY, Stage.BOOT_DISK),
        (Phase.RESCUE, OperationName.END_RESCUE, Stage.BOOT_DISK),
    ],
)
def test_a_bmc_that_cannot_be_asked_once_the_disks_are_done_does_not_have_them_done_again(
    phase: Phase, operation: OperationName, stage: Stage, fault: str
) -> None:
    spec = declared(owner="search", image="debian-12")
    owner = None if phase is Phase.COMMISSIONING else "search"
    came_from = Phase.DEPLOYED if phase is Phase.RESCUE else None
    going_on = attempt(operation, stage, since=2 * MINUTES)
    nearly_done = world(phase, spec, power_off(), owner=owner, operation=going_on, rescued_from=came_from)

    decision = after_fault(nearly_done, Fault(Blame.BMC, fault, "The BMC broke the connection off."))

    assert isinstance(decision.step, Wait)
    assert decision.failure is None
    assert decision.status.operation is not None
    assert (decision.status.operation.attempt, decision.status.operation.step) == (1, stage)
    reachable = next(c for c in decision.status.own_conditions if c.type == "BMCReachable")
    assert (reachable.status, reachable.reason) == ("False", fault)


def test_a_bmc_that_refuses_once_the_disks_are_done_costs_the_attempt() -> None:
    spec = declared(owner="search", image="debian-12")
    written = attempt(OperationName.DEPLOY, Stage.BOOT_DISK, since=2 * MINUTES)
    nearly_done = world(Phase.DEPLOYING, spec, power_off(), owner="search", operation=written)

    decision = after_fault(nearly_done, Fault(Blame.BMC, "BMCProtocolError", "The BMC does nothing."))

    assert decision.failure is not None
    assert decision.status.operation is not None
    assert decision.status.operation.attempt == 2


@pytest.mark.parametrize(("phase", "operation", "stage"), [row[:3] for row in IN_PROGRESS[:3]])
def test_a_bmc_that_is_silent_for_as_long_as_a_boot_may_take_costs_the_attempt(
    phase: Phase, operation: OperationName, stage: Stage
) -> None:
    owner = None if phase is Phase.COMMISSIONING else "search"
    going_on = attempt(operation, stage, since=16 * MINUTES)

    decision = decide(world(phase, declared(owner="search"), SILENT, owner=owner, operation=going_on))

    assert decision.failure is not None
    assert decision.failure.reason == "BMCUnreachable"
    assert decision.status.operation is not None
    assert decision.status.operation.attempt == 2


@pytest.mark.parametrize(
    ("phase", "power", "settled"),
    [
        (Phase.READY, None, False),
        (Phase.ALLOCATED, None, True),
        (Phase.DEPLOYED, None, True),
        (Phase.ALLOCATED, "Off", False),
        (Phase.DEPLOYED, "On", False),
    ],
)
def test_an_idle_machine_is_ready_only_if_its_power_is_known_to_be_as_declared(
    phase: Phase, power: str | None, *, settled: bool
) -> None:
    owner = None if phase is Phase.READY else "search"
    spec = declared(owner=owner, image="debian-12" if phase is Phase.DEPLOYED else None, power=power)

    decision = decide(anywhere(phase, spec, seen=SILENT, installed=installed() if phase is Phase.DEPLOYED else None))

    assert decision.step == Rest(settled=settled)
    assert (decision.reason == "BMCUnreachable") is not settled
