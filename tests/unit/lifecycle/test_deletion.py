"""Deletion: what is installed is released first; what was only adopted, or holds nothing, is let go."""

from __future__ import annotations

import pytest
from tests.unit.lifecycle.worlds import anywhere, attempt, declared, installed, power_off, power_on, world

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.steps import Hold, LetGo, PowerOff, Rest, Stage
from rackwright.lifecycle.world import Blame, Fault, Seen

ADOPTED = installed(None)


@pytest.mark.parametrize("phase", [Phase.DEPLOYED, Phase.BROKEN, Phase.FAILED])
def test_an_adopted_machine_is_let_go_as_it_runs(phase: Phase) -> None:
    spec = declared(owner="search", existing=True, broken="DIMM A3" if phase is Phase.BROKEN else None)

    decision = decide(world(phase, spec, power_on(), owner="search", installed=ADOPTED, deleting=True))

    assert (decision.step, decision.reason) == (LetGo(), "Deleted")


def test_what_we_installed_is_not_let_go_because_spec_says_now_that_it_was_there_before() -> None:
    spec = declared(owner="search", existing=True)

    decision = decide(world(Phase.DEPLOYED, spec, power_on(), owner="search", installed=installed(), deleting=True))

    assert decision.status.phase is Phase.RELEASING


def test_a_deleted_machine_that_is_marked_broken_waits_until_the_mark_is_withdrawn() -> None:
    spec = declared(owner="search", image="debian-12", broken="DIMM A3")

    decision = decide(world(Phase.BROKEN, spec, power_on(), owner="search", installed=installed(), deleting=True))

    assert (decision.step, decision.reason) == (Hold(), "DeletionBlocked")


def test_a_deleted_machine_whose_mark_was_withdrawn_is_on_its_way_to_be_released() -> None:
    spec = declared(owner="search", image="debian-12")

    decision = decide(world(Phase.BROKEN, spec, power_off(), owner="search", installed=installed(), deleting=True))

    assert decision.status.phase is Phase.COMMISSIONING


@pytest.mark.parametrize("force", [False, True])
def test_a_record_that_somebody_else_keeps_is_let_go_of_once(*, force: bool) -> None:
    decision = decide(world(Phase.READY, deleting=True, force_delete=force, held=False))

    assert (decision.step, decision.reason) == (Rest(settled=False), "LetGo")


def test_a_twin_is_let_go_without_touching_the_machine_that_is_another_ones() -> None:
    commissioning = attempt(OperationName.COMMISSION, Stage.BOOT_RAMDISK)

    decision = decide(
        world(Phase.COMMISSIONING, seen=Seen(twin="rack/node-01"), operation=commissioning, deleting=True)
    )

    assert decision.step == LetGo()


def test_a_deleted_machine_is_stopped_before_its_commissioning_is_given_up() -> None:
    commissioning = attempt(OperationName.COMMISSION, Stage.BOOT_RAMDISK)

    decision = decide(world(Phase.COMMISSIONING, seen=power_on(), operation=commissioning, deleting=True))

    assert decision.step == PowerOff()


def test_a_deleted_machine_whose_bmc_is_silent_is_not_kept_for_the_sake_of_stopping_it() -> None:
    commissioning = attempt(OperationName.COMMISSION, Stage.BOOT_RAMDISK)
    silent = Seen(bmc_fault=Fault(Blame.BMC, "BMCUnreachable", "The BMC does not answer."))

    decision = decide(world(Phase.COMMISSIONING, seen=silent, operation=commissioning, deleting=True))

    assert decision.step == LetGo()


@pytest.mark.parametrize("phase", [None, *Phase])
def test_a_machine_that_is_deleted_by_force_is_let_go_whatever_it_is_doing(phase: Phase | None) -> None:
    decision = decide(anywhere(phase, deleting=True, force_delete=True))

    assert (decision.step, decision.reason) == (LetGo(), "DeletionForced")
    assert decision.status.installed == anywhere(phase).status.installed
