"""GitOps tools: by kstatus' published rules a machine is Current, InProgress or Failed when it should be, always."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.lifecycle.every_world import worlds
from tests.unit.lifecycle.kstatus import Verdict, compute
from tests.unit.lifecycle.worlds import anywhere, attempt, declared, installed, power_off, power_on, world

from rackwright.api import GROUP
from rackwright.api.conditions import ConditionType
from rackwright.api.crd import KINDS, schema
from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.decide import Decision, decide
from rackwright.lifecycle.steps import Action, Hold, Pause, RecordEvidence, Rest, Stage
from rackwright.lifecycle.world import Blame, Fault, World

MANY = 3_000
MANIFESTS = Path(__file__).parents[3] / "manifests/README.md"
MISSING = Fault(Blame.CONFIGURATION, "ImageMissing", "The OperatingSystemImage does not exist.")
DEPLOYMENT = declared(owner="search", image="debian-12")


def resource(here: World, decision: Decision, **metadata: Any) -> dict[str, Any]:
    """The machine as the API server returns it once a decision was recorded."""
    deleted = {"deletionTimestamp": "2026-03-01T08:00:00Z"} if here.deleting else {}
    status = decision.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"metadata": {"generation": here.generation, **deleted, **metadata}, "status": status}


def verdict(here: World) -> Verdict:
    """What kstatus says of a machine in this world."""
    return compute(resource(here, decide(here)))


def shown(here: World) -> Action | Pause:
    """What the machine is at; one at rest stays so while what is installed is noted in an annotation."""
    decision = decide(here)
    if not isinstance(decision.step, RecordEvidence) or decision.reason == "EvidenceRecorded":
        return decision.step
    system = decision.status.installed
    noted = replace(here.seen, evidence=system if system is not None and system.at is not None else None)
    return decide(replace(here.with_status(decision.status), seen=noted)).step


def wanted(step: Action | Pause) -> Verdict:
    """What kstatus should say of a machine that is at this."""
    match step:
        case Rest(settled=True):
            return Verdict.CURRENT
        case Hold():
            return Verdict.FAILED
        case _:
            return Verdict.IN_PROGRESS


def test_current_is_what_is_as_declared_failed_is_what_needs_a_person_all_else_is_in_progress() -> None:
    came_up = set()
    for here in worlds(MANY):
        alive = replace(here, deleting=False, force_delete=False)
        expected = wanted(shown(alive))
        came_up.add(expected)
        assert verdict(alive) is expected, decide(alive).reason
    assert came_up == {Verdict.CURRENT, Verdict.FAILED, Verdict.IN_PROGRESS}


def test_whatever_is_deleted_is_terminating_until_it_is_gone() -> None:
    found = [verdict(here) for here in worlds(MANY) if here.deleting]
    assert found
    assert set(found) == {Verdict.TERMINATING}


def test_no_machine_is_worked_on_and_waits_for_a_person() -> None:
    both = {"Reconciling", "Stalled"}
    for here in worlds(MANY):
        true = {c.type for c in decide(here).status.conditions if c.status == "True"}
        assert not both <= true, decide(here).reason
        assert not ("Ready" in true and both & true), decide(here).reason


def test_every_condition_is_set_in_every_world_and_answers_its_spec() -> None:
    for here in worlds(MANY, torn=True):
        status = decide(here).status
        assert {c.type for c in status.conditions} >= set(ConditionType)
        assert status.observed_generation == here.generation
        assert all(c.observed_generation == here.generation for c in status.own_conditions)


def test_a_change_of_spec_is_in_progress_from_the_moment_it_is_accepted() -> None:
    here = world(Phase.READY)
    settled = resource(here, decide(here))
    changed = {**settled, "metadata": {"generation": here.generation + 1}}

    assert (compute(settled), compute(changed)) == (Verdict.CURRENT, Verdict.IN_PROGRESS)


def test_a_record_that_nobody_has_read_is_in_progress() -> None:
    """Without any status kstatus takes it for one that is as declared, and the operator may be away for long."""
    (machine,) = (kind for kind in KINDS if "status" in kind.fields)
    filled_in = schema(machine)["properties"]["status"]["default"]
    record = {"metadata": {"generation": 1}}

    assert compute(record) is Verdict.CURRENT
    assert compute({**record, "status": filled_in}) is Verdict.IN_PROGRESS


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        pytest.param(world(Phase.NEW, declared(accepted=False)), "InProgress", id="New waits to be accepted"),
        pytest.param(
            world(Phase.COMMISSIONING, operation=attempt(OperationName.COMMISSION)),
            "InProgress",
            id="Commissioning is at work",
        ),
        pytest.param(world(Phase.READY), "Current", id="Ready is in the pool, and nobody declared more"),
        pytest.param(
            anywhere(Phase.ALLOCATED, declared(owner="search")), "Current", id="Allocated is reserved, as declared"
        ),
        pytest.param(
            anywhere(Phase.ALLOCATED, DEPLOYMENT, seen=power_off(obstacle=MISSING)),
            "Failed",
            id="Allocated can't be deployed for want of an image",
        ),
        pytest.param(
            world(
                Phase.DEPLOYING, DEPLOYMENT, owner="search", operation=attempt(OperationName.DEPLOY, Stage.BOOT_DISK)
            ),
            "InProgress",
            id="Deploying is at work",
        ),
        pytest.param(anywhere(Phase.DEPLOYED, DEPLOYMENT, seen=power_on()), "Current", id="Deployed runs its system"),
        pytest.param(
            anywhere(Phase.RELEASING, operation=attempt(OperationName.RELEASE)), "InProgress", id="Releasing is at work"
        ),
        pytest.param(
            anywhere(
                Phase.RESCUE, declared(owner="search", image="debian-12", rescue=True), seen=power_on(), operation=None
            ),
            "Current",
            id="Rescue is open",
        ),
        pytest.param(world(Phase.BROKEN, declared(broken="DIMM A3")), "Failed", id="Broken waits for its repair"),
        pytest.param(
            anywhere(Phase.FAILED, DEPLOYMENT, seen=power_off(), installed=installed(came_up=False)),
            "Failed",
            id="Failed waits for a person",
        ),
    ],
)
def test_what_each_phase_is_to_gitops(here: World, expected: str) -> None:
    assert verdict(here) == expected


def test_argo_cds_check_is_for_our_kind_and_asks_for_our_conditions() -> None:
    """Run in the Lua that Argo CD embeds once, by hand; what it names must stay what there is."""
    (block,) = (part for part in re.findall(r"```yaml\n(.*?)```", MANIFESTS.read_text(), re.DOTALL) if "health" in part)
    ((key, check),) = yaml.safe_load(block)["data"].items()

    assert key == f"resource.customizations.health.{GROUP}_BareMetalMachine"
    assert re.findall(r'is\["(\w+)"\] then', check) == ["Reconciling", "Stalled", "Ready"]
    assert set(re.findall(r'status = "(\w+)"', check)) == {"Progressing", "Degraded", "Healthy"}
