"""Simulated machines against a real API server: everything above the wire is the operator's own.

They show that the operator is whole. What a BMC, firmware or an agent really does is told by the other tests here, with
the metal scripted at the wire, and by those in tests/rack.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kube.operators import Machine, Site, condition, site

from lab.controlplane import ControlPlane

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

FAULTY = "simulated://fast?fail=0.02&hang=0.005&lost=0.06&broken=0.06&seed=7"
PATIENT = {"timeout": "5s", "maxAttempts": 10}
"""For machines of which some boots are lost: given up soon, and tried again often enough."""
IMPATIENT = ("--boot-timeout", "2", "--retry-base", "1", "--bmc-timeout", "1", "--agent-silence", "20")


@pytest.fixture
def here(control_plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    arguments = getattr(request, "param", ("--allow-simulated",))
    namespace = f"simulated-{len(arguments)}"
    with site(control_plane, tmp_path, namespace, arguments=arguments) as it:
        it.create(it.image("debian-12"))
        yield it


def declared(here: Site, count: int, address: str, **spec: Any) -> list[Machine]:
    """So many machines with one address and without a Secret, declared in one go."""
    nodes = [here.machine(f"node-{number:02}") for number in range(1, count + 1)]
    manifests = [node.manifest(bmc={"address": address}, **spec) for node in nodes]
    for manifest in manifests:
        del manifest["spec"]["bmc"]["credentialsSecretRef"]
    here.create(*manifests)
    return nodes


def assert_lives(nodes: list[Machine], seconds: float, **deployment: Any) -> None:
    """All of them go Ready → Deployed → Ready, and their disks are erased with evidence."""
    for node in nodes:
        node.reaches("Ready", seconds)
    for node in nodes:
        node.deploy(**deployment)
    for node in nodes:
        status = node.reaches("Deployed", seconds)
        assert status["installed"]["sshHostKeys"][0].startswith("ssh-ed25519 ")
    for node in nodes:
        node.release()
    for node in nodes:
        status = node.reaches("Ready", seconds)
        assert [disk["verified"] for disk in status["erasure"]] == [True, True]
        assert "installed" not in status


def test_twenty_machines_live_their_whole_lives_without_hardware_and_without_secrets(here: Site) -> None:
    nodes = declared(here, 20, "simulated://fast")
    assert_lives(nodes, 90)
    for node in nodes:
        assert node.phases() == ["Commissioning", "Ready", "Deploying", "Deployed", "Releasing", "Ready"]
    addresses = {str(node.versions[-1]["status"]["hardware"]["serial"]) for node in nodes}
    assert len(addresses) == len(nodes)
    here.assert_discreet()


@pytest.mark.parametrize("here", [("--allow-simulated", *IMPATIENT)], indirect=True)
def test_twenty_machines_get_there_although_bmcs_fail_boots_are_lost_and_disks_break(here: Site) -> None:
    nodes = declared(here, 20, FAULTY, commissioning=PATIENT, release=PATIENT)
    assert_lives(nodes, 240, **PATIENT)
    failures = {version["status"].get("lastFailure", {}).get("reason") for node in nodes for version in node.versions
                if version.get("status")}  # fmt: skip
    assert {"AgentMissing", "ImageWriteFailed", "EraseNotVerified"} & failures, failures
    here.assert_discreet()


@pytest.mark.parametrize("here", [()], indirect=True)
def test_an_operator_of_real_machines_refuses_simulated_ones_until_it_is_allowed(here: Site) -> None:
    (node,) = declared(here, 1, "simulated://fast")
    status = node.stalls("SimulationNotAllowed")
    for kind in ("Ready", "BMCReachable"):
        assert condition(status, kind)["reason"] == "SimulationNotAllowed"
    assert "start the operator with --allow-simulated" in condition(status, "Ready")["message"]
    node.event("SimulationNotAllowed", says="a machine that doesn't exist")
    here.operator.end()
    here.operator.arguments = ("--allow-simulated",)
    here.operator.start()
    node.reaches("Ready")
