"""What TENANTS.md and RACKS.md give people to copy does what they say, on a real API server."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import pod, samples
from lab.controlplane import ControlPlane
from lab.kubectl import Kubectl
from lab.process import wait_until
from rackwright.api import GROUP, VERSION

pytestmark = pytest.mark.kube

POLICY, WRITER = samples.SAMPLES / "admission-policy.yaml", samples.SAMPLES / "gate-writer.yaml"
TENANT = ("--as=tenant",)
ADMINISTRATOR = ("--as=anna", "--as-group=rackwright-admins")
OPERATOR = ("--as=system:serviceaccount:rackwright-system:rackwright",)
BURN_IN = ("--as=system:serviceaccount:burn-in:burn-in",)
BURNT_IN = "example.org/BurnIn"

Patch = Callable[..., subprocess.CompletedProcess[str]]


def code(page: str, language: str) -> list[str]:
    """The blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (pod.MANIFESTS / page).read_text(), re.MULTILINE | re.DOTALL)


def run(plane: ControlPlane, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A block as a person would run it, in a folder that has what it reads."""
    own = {"KUBECONFIG": str(plane.kubeconfig), "KUBERC": "off", "KUBECACHEDIR": str(folder / "cache")}
    path = f"{plane.kubectl.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **own, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane, crds: None) -> ControlPlane:  # noqa: ARG001 (the base builds on them)
    """The base with the samples' namespace, and two kinds of people who may edit machines there."""
    edits = ("--clusterrole=rackwright-edit", "--namespace=machines")
    views = ("--clusterrole=rackwright-view", "--namespace=machines")
    people = ("--user=tenant", "--group=rackwright-admins")
    for arguments in (
        ("apply", "--server-side", "-k", str(pod.MANIFESTS / "base")),
        ("apply", "-f", str(samples.SAMPLES / "machines-namespace.yaml")),
        ("create", "rolebinding", "people-edit", *edits, *people),
        ("create", "rolebinding", "people-view", *views, *people),
    ):
        done = control_plane.ctl(*arguments)
        assert done.returncode == 0, done.stderr
    return control_plane


@pytest.fixture
def machine(plane: ControlPlane) -> Iterator[Callable[[], dict[str, Any]]]:
    """The samples' machine, as it is now."""
    made = plane.ctl("apply", "-f", str(samples.SAMPLES / samples.DECLARED))
    assert made.returncode == 0, made.stderr
    yield lambda: json.loads(plane.ctl("get", "bmm", "node-01", "-n", "machines", "-o", "json").stdout)
    plane.ctl("delete", "bmm", "node-01", "-n", "machines")


@pytest.fixture
def change(plane: ControlPlane) -> Patch:
    """Somebody patches that machine: `change(TENANT, spec={...})`."""

    def patch(whom: tuple[str, ...], *more: str, **what: Any) -> subprocess.CompletedProcess[str]:
        told = json.dumps(what)
        return plane.ctl("patch", "bmm", "node-01", "-n", "machines", "--type=merge", "-p", told, *more, *whom)

    return patch


# --- the admission policy -------------------------------------------------------------------------------------------


DISTRUST = {"accepted": False}


@pytest.fixture
def policy(
    kubectl: Kubectl,
    change: Patch,
    machine: Callable[[], dict[str, Any]],  # noqa: ARG001 (the one that is changed)
) -> Iterator[None]:
    """The policy, in force; taken away again, for it holds in every namespace."""
    applied = kubectl("apply", "--validate=strict", "-f", str(POLICY))
    try:
        assert applied.returncode == 0, applied.stderr
        assert wait_until(lambda: change(TENANT, "--dry-run=server", spec=DISTRUST).returncode != 0, 30), "not enforced"
        yield
    finally:
        kubectl("delete", "-f", str(POLICY))


FORBIDDEN: tuple[tuple[str, dict[str, Any]], ...] = (
    ("spec.bmc,", {"spec": {"bmc": {"address": "redfish+https://198.18.0.66/redfish/v1/Systems/1"}}}),
    ("spec.bmc,", {"spec": {"bmc": None, "allocation": {"owner": "me"}, "deployment": {"existing": True}}}),
    ("spec.bootMACAddress", {"spec": {"bootMACAddress": "52:54:00:10:00:66"}}),
    ("spec.accepted", {"spec": {"accepted": False}}),
    ("spec.locked", {"spec": {"locked": True}}),
    ("spec.release.erase", {"spec": {"release": {"erase": "None"}}}),
    ("metal.rackwright.io/", {"metadata": {"annotations": {"metal.rackwright.io/force-delete": "true"}}}),
    ("metal.rackwright.io/", {"metadata": {"annotations": {"metal.rackwright.io/record": None}}}),
    ("metal.rackwright.io/rack", {"metadata": {"labels": {"metal.rackwright.io/rack": "elsewhere"}}}),
    ("metal.rackwright.io/shard", {"metadata": {"labels": {"metal.rackwright.io/shard": "7"}}}),
)
"""What is for administrators alone, by what the refusal names."""


@pytest.mark.usefixtures("policy")
def test_tenants_deploy_and_leave_what_a_machine_is_to_others(change: Patch) -> None:
    assert change(OPERATOR, metadata={"annotations": {"metal.rackwright.io/record": "a"}}).returncode == 0
    for named, what in FORBIDDEN:
        refused = change(TENANT, **what)
        assert refused.returncode != 0, what
        assert named in refused.stderr
        assert "rackwright-admins" in refused.stderr
        taken = change(ADMINISTRATOR, "--dry-run=server", **what)
        assert taken.returncode == 0, taken.stderr
    deployment = {"allocation": {"owner": "team-search"}, "deployment": {"image": "debian-12"}}
    taken = change(TENANT, spec=deployment, metadata={"annotations": {"example.org/ticket": "7"}})
    assert taken.returncode == 0, taken.stderr
    given_back = change(TENANT, spec={"allocation": None, "deployment": None})
    assert given_back.returncode == 0, given_back.stderr


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("fault", "mended"),
    [
        ({"release": {"fault": {"summary": "it is slow"}}}, {"release": {"fault": None}}),
        ({"broken": {"reason": "DIMM A3"}}, {"broken": None}),
    ],
    ids=["a report", "a mark"],
)
def test_tenants_tell_of_a_fault_and_others_say_that_it_is_mended(
    change: Patch, fault: dict[str, Any], mended: dict[str, Any]
) -> None:
    told = change(TENANT, spec=fault)
    assert told.returncode == 0, told.stderr
    assert "rackwright-admins" in change(TENANT, spec=mended).stderr
    taken = change(ADMINISTRATOR, spec=mended)
    assert taken.returncode == 0, taken.stderr


@pytest.mark.usefixtures("policy")
def test_only_administrators_declare_and_delete(plane: ControlPlane) -> None:
    another = (samples.SAMPLES / samples.DECLARED).read_text().replace("01", "02")
    for arguments in (("create", "-f", "-"), ("delete", "bmm", "node-01", "-n", "machines")):
        refused = plane.ctl(*arguments, "--dry-run=server", *TENANT, stdin=another)
        assert "declared and deleted by rackwright-admins" in refused.stderr
        done = plane.ctl(*arguments, "--dry-run=server", *ADMINISTRATOR, stdin=another)
        assert done.returncode == 0, done.stderr
    all_of_them = f"/apis/{GROUP}/{VERSION}/namespaces/machines/baremetalmachines"
    refused = plane.ctl("delete", "--raw", all_of_them, "--as=system:serviceaccount:kube-system:namespace-controller")
    assert "declared and deleted by rackwright-admins" in refused.stdout + refused.stderr, (
        "they go with their namespace"
    )
    assert plane.ctl("get", "bmm", "node-01", "-n", "machines").returncode == 0


# --- readiness gates ------------------------------------------------------------------------------------------------


def test_a_gates_writer_writes_its_condition_and_no_other_and_nothing_else(
    plane: ControlPlane, machine: Callable[[], dict[str, Any]], change: Patch, tmp_path: Path
) -> None:
    available = {"type": "Ready", "status": "True", "reason": "Available", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"phase": "Ready", "conditions": [available]}
    assert change((), "--subresource=status", status=status).returncode == 0
    bind, write = (each for each in code("TENANTS.md", "console") if "burn-in" in each)
    bound = run(plane, bind.replace("manifests/samples", str(samples.SAMPLES)), tmp_path)
    assert bound.returncode == 0, bound.stderr
    write = write.replace("kubectl apply", f"kubectl apply {BURN_IN[0]}")

    for script in (write, write.replace('"True"', '"False"')):
        written = run(plane, script, tmp_path)
        assert written.returncode == 0, written.stderr
    now = {each["type"]: each["status"] for each in machine()["status"]["conditions"]}
    assert now == {"Ready": "True", BURNT_IN: "False"}

    refused = run(plane, write.replace(BURNT_IN, "Ready").replace('"True"', '"False"'), tmp_path)
    assert "conflict" in refused.stderr
    assert change(BURN_IN, spec={"locked": True}).returncode != 0

    mine = [each for each in machine()["status"]["conditions"] if each["type"] == BURNT_IN]
    change((), "--subresource=status", status={"conditions": mine})
    assert machine()["status"]["conditions"] == mine, "a merge patch keeps what others wrote: say so in TENANTS.md"


# --- many machines --------------------------------------------------------------------------------------------------


def test_a_rack_is_declared_from_a_list_and_accepted_from_another(plane: ControlPlane, tmp_path: Path) -> None:
    machines, bmcs = code("RACKS.md", "csv")
    declare, accept = code("RACKS.md", "bash")
    (tmp_path / "machines.csv").write_text(machines)
    (tmp_path / "bmcs.csv").write_text(bmcs)
    declared = run(plane, declare, tmp_path)
    assert declared.returncode == 0, declared.stderr
    listed = json.loads(plane.ctl("get", "bmm", "-n", "machines", "-o", "json").stdout)["items"]
    assert [each["metadata"]["labels"] for each in listed] == [{"metal.rackwright.io/rack": "rack-a"}] * 2
    assert listed[1]["spec"]["bmc"]["credentialsSecretRef"] == {"name": "rack-a-bmc"}
    assert plane.ctl("delete", "bmm", "--all", "-n", "machines").returncode == 0

    for name, host in {"ours": "10.10.0.12", "stranger": "10.10.0.66"}.items():
        spec = {"accepted": False, "bootMACAddress": "52:54:00:10:00:02", "bmc": {"address": f"ipmi://{host}"}}
        kind = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "BareMetalMachine"}
        body = json.dumps({**kind, "metadata": {"name": name, "namespace": "machines"}, "spec": spec})
        assert plane.ctl("create", "-f", "-", stdin=body).returncode == 0
        new = ("--subresource=status", "--type=merge", "-p", '{"status": {"phase": "New"}}')
        assert plane.ctl("patch", "bmm", name, "-n", "machines", *new).returncode == 0
    accepted = run(plane, accept, tmp_path)
    assert accepted.returncode == 0, accepted.stderr
    assert "stranger is left alone: its BMC, 10.10.0.66, is none of ours" in accepted.stdout
    ours, stranger = json.loads(plane.ctl("get", "bmm", "-n", "machines", "-o", "json").stdout)["items"]
    assert (ours["spec"]["accepted"], stranger["spec"]["accepted"]) == (True, False)
    assert ours["spec"]["bmc"]["address"] == "redfish+https://10.10.0.12/redfish/v1/Systems/1"
    assert ours["metadata"]["labels"] == {"metal.rackwright.io/rack": "rack-a"}
    assert plane.ctl("delete", "bmm", "--all", "-n", "machines").returncode == 0
