"""Lost status: what the annotation remembers is believed, and nothing that it speaks of is ever wiped."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.lifecycle.worlds import NOW, anywhere, declared, failure, installed, power_off, power_on, world

from rackwright.api.machine import Installed, OperationName, Phase
from rackwright.lifecycle.decide import decide
from rackwright.lifecycle.steps import BootRamdisk, Hold, RecordEvidence


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

    assert (decision.step, decision.reason) == (Hold(), "StatusLost")


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
