"""What the demonstration does next, from wherever its machine is: never a step back that nobody asked for."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lab.samples import ALLOCATED, DECLARED, DEPLOYED, SAMPLES
from lab.stages import OWNER, Arrived, Go, Stop, next_stage
from rackwright.api.machine import BareMetalMachineSpec, Phase

HELD_SPEC = {"allocation": {"owner": OWNER}, "deployment": {"image": "debian-12"}}
HELD_STATUS = {"owner": OWNER, "installed": {"image": "debian-12"}}
AGAIN, SHELL = "hack/demo --name b", "eval there"


def machine(phase: str, *, held: bool = True, **spec: Any) -> dict[str, Any]:
    """A record; `held`: with an owner and something installed."""
    return {
        "metadata": {"name": "node-01"},
        "spec": {**(HELD_SPEC if held else {}), **spec},
        "status": {"phase": phase, **(HELD_STATUS if held else {})},
    }


def after(record: dict[str, Any]) -> Go | Stop | Arrived:
    return next_stage("node-01", record, now="2026")


def test_from_nothing_it_declares_allocates_and_deploys() -> None:
    declared, allocated, deployed = (
        after(record) for record in ({}, machine("Ready", held=False), machine("Allocated"))
    )
    assert isinstance(declared, Go)
    assert (declared.apply, declared.until) == (DECLARED, ("Ready",))
    assert isinstance(allocated, Go)
    assert (allocated.apply, allocated.until) == (ALLOCATED, ("Allocated",))
    assert isinstance(deployed, Go)
    assert (deployed.apply, deployed.until) == (DEPLOYED, ("Deployed",))


WITH_AN_OWNER = {
    Phase.NEW: "stops: it isn't accepted",
    Phase.COMMISSIONING: "waits for Ready, Allocated, Deployed",
    Phase.READY: "applies node-01-deployed.yaml",
    Phase.ALLOCATED: "applies node-01-deployed.yaml",
    Phase.DEPLOYING: "waits for Deployed",
    Phase.DEPLOYED: "has arrived",
    Phase.RELEASING: "waits for Ready, Allocated",
    Phase.RESCUE: "stops: its disks are left alone",
    Phase.BROKEN: "stops: somebody marked it (DIMM A3)",
    Phase.FAILED: "stops: stays out of the pool until recommissioned: no answer",
}


@pytest.mark.parametrize("phase", Phase)
def test_a_machine_with_an_owner_is_never_given_an_earlier_manifest(phase: Phase) -> None:
    record = machine(phase, broken={"reason": "DIMM A3"})
    record["status"]["lastFailure"] = {"message": "no answer"}
    match after(record):
        case Go(apply=None, until=until):
            assert WITH_AN_OWNER[phase] == f"waits for {', '.join(until)}"
        case Go(apply=manifest):
            assert WITH_AN_OWNER[phase] == f"applies {manifest}"
            assert manifest == DEPLOYED
        case Arrived():
            assert WITH_AN_OWNER[phase] == "has arrived"
        case Stop(sentence):
            assert WITH_AN_OWNER[phase].removeprefix("stops: ") in sentence


@pytest.mark.parametrize("phase", [Phase.COMMISSIONING, Phase.READY])
@pytest.mark.parametrize(
    "held",
    [
        {"spec": {"allocation": {"owner": OWNER}}, "status": {}},
        {"spec": {}, "status": {"owner": OWNER}},
        {"spec": {}, "status": {"installed": {"image": "debian-12"}}},
    ],
    ids=["reserved", "owned", "installed"],
)
def test_any_trace_of_an_owner_keeps_the_first_manifest_away(phase: Phase, held: dict[str, dict[str, Any]]) -> None:
    stage = after({"spec": held["spec"], "status": {"phase": phase, **held["status"]}})
    assert isinstance(stage, Go)
    assert stage.apply not in (DECLARED, ALLOCATED)


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (machine("Broken", broken={"reason": "x"}), """-p '{"spec": {"broken": null}}'"""),
        (machine("Broken", release={"fault": {"category": "Disk"}}), """-p '{"spec": {"release": {"fault": null}}}'"""),
        (machine("Rescue"), """-p '{"spec": {"rescue": null}}'"""),
        (machine("Failed"), """-p '{"spec": {"commissioning": {"trigger": "2026"}}}'"""),
        (machine("New", held=False), """-p '{"spec": {"accepted": true}}'"""),
        (machine("Deployed", locked=True), """-p '{"spec": {"locked": false}}'"""),
        (machine("Ready", held=False, allocation={"owner": "somebody"}), '"allocation": null, "deployment": null'),
    ],
)
def test_what_a_person_asked_for_is_for_a_person_to_end_with_one_command(record: dict[str, Any], command: str) -> None:
    stop = after(record)
    assert isinstance(stop, Stop)
    remedy = stop.remedy("node-01", AGAIN, SHELL)
    assert remedy.startswith("eval there; kubectl patch bmm node-01 -n machines --type merge -p ")
    assert command in remedy
    assert remedy.endswith("; then run hack/demo --name b again")
    BareMetalMachineSpec.model_validate({"bootMACAddress": "52:54:00:10:00:01", **(stop.spec or {})})


def test_a_machine_that_is_being_deleted_is_waited_for_by_the_person() -> None:
    record = machine("Releasing")
    record["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    stop = after(record)
    assert isinstance(stop, Stop)
    assert stop.remedy("node-01", AGAIN, SHELL) == "wait until it is gone; then run hack/demo --name b again"


def test_the_samples_reserve_the_machine_for_whom_the_demo_thinks() -> None:
    for name in (ALLOCATED, DEPLOYED):
        assert yaml.safe_load((SAMPLES / name).read_text())["spec"]["allocation"]["owner"] == OWNER
