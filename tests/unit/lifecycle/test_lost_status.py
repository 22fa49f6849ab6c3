"""Lost status: what the annotation remembers is believed, and nothing that it speaks of is ever wiped."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.lifecycle.worlds import NOW, anywhere, declared, failure, installed, power_off, power_on, world

from rackwright.api.machine import BareMetalMachineSpec, Installed, OperationName, Phase
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.steps import BootRamdisk, Hold, LetGo, RecordEvidence
from rackwright.lifecycle.world import Seen

FREE, TAKEN = declared(), declared(owner="search", image="debian-12")


def test_the_annotation_outlives_a_write_or_an_erase_that_did_not_end_well() -> None:
    spec = declared(owner="search", image="debian-12")
    failed = world(
        Phase.FAILED,
        spec,
        power_off(evidence=installed("debian-11")),
        owner="search",
        installed=installed(came_up=False),
        last_failure=failure(OperationName.DEPLOY),
    )

    assert decide(failed).step != RecordEvidence()


def test_the_annotation_goes_when_its_system_was_erased() -> None:
    assert decide(world(Phase.READY, seen=power_off(evidence=installed()))).step == RecordEvidence()


def test_a_deleted_record_that_lost_its_status_is_not_let_go_while_the_annotation_tells_of_a_system() -> None:
    decision = decide(world(None, declared(), power_off(evidence=installed()), deleting=True))

    assert (decision.step, decision.reason) == (Hold(), "DeclarationLost")


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        pytest.param(TAKEN, power_off(), id="it is reserved, and off"),
        pytest.param(TAKEN, power_on(), id="it is reserved, and runs"),
        pytest.param(declared(owner="search"), power_off(), id="it is reserved for an owner who declares nothing"),
        pytest.param(FREE, power_on(), id="it is free, and runs"),
        pytest.param(FREE, Seen(), id="it is free, and nobody knows whether it runs"),
        pytest.param(declared(owner="search", broken="DIMM A3"), power_off(), id="it is reserved, and broken"),
    ],
)
@pytest.mark.parametrize("deleting", [False, True], ids=["kept", "deleted"])
def test_a_record_from_a_backup_is_held_where_something_may_run(
    spec: BareMetalMachineSpec, seen: Seen, deleting: bool
) -> None:
    decision = decide(world(None, spec, seen, restored=True, deleting=deleting))

    assert (decision.step, decision.reason) == (Hold(), "StatusLost")
    assert decide(world(None, spec, seen, deleting=deleting)).reason != "StatusLost", "one that is new isn't"


def test_a_machine_of_the_pool_that_is_off_is_commissioned_again_from_a_backup() -> None:
    assert decide(world(None, FREE, power_off(), restored=True)).status.phase is Phase.COMMISSIONING


def test_nothing_that_is_withdrawn_or_switched_off_frees_a_machine_that_was_held() -> None:
    held = decide(world(None, TAKEN, power_on(), restored=True)).status

    later = decide(replace(world(None, FREE, power_off(), restored=True), status=held))

    assert (later.step, later.reason) == (Hold(), "StatusLost")


def test_a_person_who_knows_better_says_so() -> None:
    held = decide(world(None, TAKEN, power_on(), restored=True)).status
    adopted = declared(owner="search", existing=True)

    runs = decide(replace(world(None, adopted, power_on(), restored=True), status=held)).status
    needless = decide(replace(world(None, TAKEN, power_on()), status=held)).status

    assert (runs.phase, runs.owner) == (Phase.DEPLOYED, "search")
    assert needless.phase is Phase.COMMISSIONING


def test_a_record_from_a_backup_that_is_deleted_by_force_says_that_nothing_was_released() -> None:
    decision = decide(world(None, TAKEN, restored=True, deleting=True, force_delete=True))

    assert (decision.step, decision.reason) == (LetGo(), "DeletionForced")
    assert "whatever is installed" in decision.skipped


@pytest.mark.parametrize("phase", [Phase.COMMISSIONING, Phase.DEPLOYING, Phase.RELEASING])
def test_a_phase_whose_operation_was_lost_begins_it_anew(phase: Phase) -> None:
    spec = declared(owner="search", image="debian-12" if phase is Phase.DEPLOYING else None)
    whole = anywhere(phase, spec)
    torn = replace(whole, status=whole.status.model_copy(update={"operation": None}))

    decision = decide(torn)

    assert (decision.step, decision.status.phase) == (BootRamdisk(), phase)
    assert decision.status.operation is not None


def test_an_annotation_that_cannot_be_read_tells_of_a_system_that_is_never_installed_over() -> None:
    spec = declared(owner="search", image="debian-12")

    restored = decide(world(None, spec, power_on(evidence=Installed(hostname="unknown")))).status

    assert restored.phase is Phase.DEPLOYED
    assert restored.installed == Installed(hostname="unknown", at=NOW)


def test_what_is_left_on_an_allocated_machine_goes_with_the_deployment_that_put_it_there() -> None:
    spec = declared(owner="search")
    left = world(Phase.ALLOCATED, spec, power_off(), owner="search", installed=installed(came_up=False))

    assert decide(left).status.phase is Phase.RELEASING
