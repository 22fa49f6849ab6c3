"""In a cluster of somebody's own the demo takes nothing over, and takes away what it made and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import controlplane, installation
from lab import rack as racks
from lab.controlplane import ControlPlane
from lab.errors import Unfit
from lab.installation import NAMESPACE, Installation
from lab.kubectl import Kubectl
from lab.paths import REPOSITORY, STATE, run_dir
from lab.plan import Plan, default_nodes, subnets
from lab.rack import Rack
from lab.samples import DECLARED, DEPLOYED, Site
from rackwright.api import FINALIZER

pytestmark = pytest.mark.kube

SITE = Site(
    bmc_address="redfish+https://192.0.2.11:8443/redfish/v1/Systems/1",
    boot_mac_address="52:54:00:00:00:11",
    boot_mode="UEFI",
    username="operator",
    password="made up",
    ca="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    root_disk_serial="RACK0001",
    image_url="http://192.0.2.1/debian.raw",
    image_format="raw",
    checksum="sha256:" + "5" * 64,
    ssh_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@example.org",
)
THEIRS = """\
apiVersion: metal.rackwright.io/v1alpha1
kind: BareMetalMachine
metadata: {name: theirs, namespace: machines, finalizers: [example.org/kept]}
spec: {accepted: false, bootMACAddress: "52:54:00:00:00:22"}
"""


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """Somebody's own: beside the session's, because CRDs and what is under them go away here."""
    name = "own" + control_plane.name[-4:]
    try:
        yield controlplane.up(name)
    finally:
        controlplane.down(name)


@pytest.fixture
def here(cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """A laboratory that uses the cluster as it is, without a rack."""
    name = "lab" + cluster.name[-4:]
    monkeypatch.setattr(Installation, "site", lambda *_: SITE)
    monkeypatch.setattr(racks, "down", lambda _: None)
    plan = Plan.of(name, default_nodes(1), subnet=next(subnets(name)), run=tmp_path, state=tmp_path)
    try:
        plane = controlplane.up(name, current=str(cluster.kubeconfig))
        yield Installation(plane, Rack(plan, SITE.username, SITE.password, SITE.ca))
    finally:
        controlplane.down(name)


def everything(kubectl: Kubectl) -> set[str]:
    """Every object of the cluster by kind and name, those aside that come and go by themselves."""
    found = set()
    for scope in ("true", "false"):
        told = kubectl("api-resources", f"--namespaced={scope}", "--verbs=list", "-o", "name")
        assert told.returncode == 0, told.stderr
        kinds = [kind for kind in told.stdout.split() if kind.partition(".")[0] not in ("events", "leases")]
        listed = kubectl("get", ",".join(kinds), "-A", "-o", "json")
        assert listed.returncode == 0, listed.stderr
        objects: list[dict[str, Any]] = json.loads(listed.stdout)["items"]
        found |= {f"{o['kind']} {o['metadata'].get('namespace', '')}/{o['metadata']['name']}" for o in objects}
    return found


def held_by_the_operator(here: Installation, machine: str) -> None:
    """What the operator adds to a machine and makes for itself."""
    patch = json.dumps({"metadata": {"finalizers": [FINALIZER]}})
    here.kubectl("patch", "bmm", machine, "-n", "machines", "--type=merge", "-p", patch)
    here.kubectl("create", "secret", "generic", "rackwright-tokens", "-n", NAMESPACE)


def test_down_takes_away_all_that_the_demo_made(cluster: ControlPlane, here: Installation) -> None:
    before = everything(cluster.ctl)
    here.install()
    for sample in (DECLARED, DEPLOYED):
        here.apply_sample(sample)
    held_by_the_operator(here, "node-01")
    assert len(everything(cluster.ctl)) > len(before) + 15
    here.install()  # it knows its own again
    installation.down(here.name)
    assert everything(cluster.ctl) == before
    assert controlplane.find(here.name) is None
    assert not [
        folder for folder in (STATE / here.name, run_dir(here.name)) if folder.exists() and any(folder.iterdir())
    ]


def test_what_others_put_beside_it_stays_and_is_said(
    cluster: ControlPlane, here: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    here.install()
    here.apply_sample(DECLARED)
    held_by_the_operator(here, "node-01")
    assert cluster.ctl("apply", "-f", "-", stdin=THEIRS).returncode == 0
    assert cluster.ctl("create", "configmap", "theirs", "-n", "machines").returncode == 0
    installation.down(here.name)
    left = everything(cluster.ctl)
    assert {"BareMetalMachine machines/theirs", "ConfigMap machines/theirs", "Namespace /machines"} <= left
    assert "BareMetalMachine machines/node-01" not in left
    assert not [each for each in left if each.startswith("Secret ") or NAMESPACE in each]
    assert "CustomResourceDefinition /operatingsystemimages.metal.rackwright.io" not in left
    told = capsys.readouterr().err
    assert "namespace/machines stays: the laboratory didn't make" in told
    assert "configmap/theirs" in told
    assert "baremetalmachines.metal.rackwright.io stays" in told


def test_a_rackwright_of_somebody_elses_is_not_taken_over(cluster: ControlPlane, here: Installation) -> None:
    assert cluster.ctl("apply", "-k", str(REPOSITORY / "crds")).returncode == 0
    before = everything(cluster.ctl)
    with pytest.raises(Unfit, match=r"not from laboratory .*CustomResourceDefinition baremetalmachines"):
        here.install()
    assert everything(cluster.ctl) == before
    installation.down(here.name)
    assert everything(cluster.ctl) == before


def test_a_namespace_of_somebody_elses_gets_no_machines(cluster: ControlPlane, here: Installation) -> None:
    assert cluster.ctl("create", "namespace", "machines").returncode == 0
    before = everything(cluster.ctl)
    here.install()
    with pytest.raises(Unfit, match=r"not from laboratory .*: Namespace machines"):
        here.apply_sample(DECLARED)
    installation.down(here.name)
    assert everything(cluster.ctl) == before


def test_a_cluster_that_does_not_answer_is_not_forgotten(cluster: ControlPlane, here: Installation) -> None:
    here.install()
    here.plane.kubeconfig.rename(here.plane.kubeconfig.with_name("away"))
    with pytest.raises(Unfit, match="what was made in it is still there") as refused:
        installation.down(here.name)
    assert f"hack/control-plane down --name {here.name}" in refused.value.remedy
    here.plane.kubeconfig.with_name("away").rename(here.plane.kubeconfig)
    installation.down(here.name)
    assert cluster.ctl("get", "crd", "-o", "name").stdout == ""
