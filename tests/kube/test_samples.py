"""What people copy is accepted by a real API server, as it stands and with a rack's values in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab import samples
from lab.controlplane import ControlPlane
from lab.kubectl import Kubectl
from lab.plan import Firmware

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds", "machines")]

STAGES = (samples.DECLARED, samples.ALLOCATED, samples.DEPLOYED)
SITE = samples.Site(
    bmc_address="redfish+https://198.18.0.2:8000/redfish/v1/Systems/5ee0",
    boot_mac_address="52:54:00:00:00:02",
    boot_mode=Firmware.LEGACY.value,
    username="admin",
    password="hunter2",
    ca="-----BEGIN CERTIFICATE-----\n",
    root_disk_serial="disk-0",
    image_url="http://198.18.0.1:8080/images/debian.qcow2",
    image_format="qcow2",
    checksum=f"sha256:{'0' * 64}",
    ssh_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test",
)


@pytest.fixture(scope="module")
def machines(control_plane: ControlPlane) -> None:
    """The samples' namespace: without it a dry run can't say anything of what is in it."""
    made = control_plane.ctl("apply", "-f", str(samples.SAMPLES / "machines-namespace.yaml"))
    assert made.returncode == 0, made.stderr


def tried(kubectl: Kubectl, *what: str) -> list[dict[str, Any]]:
    """The objects as the API server would keep them; a field that it doesn't know is an error."""
    done = kubectl("apply", "--dry-run=server", "--validate=strict", "-o", "json", *what)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return list(found["items"]) if found["kind"] == "List" else [found]


@pytest.mark.parametrize("stage", STAGES)
def test_a_sample_is_accepted(kubectl: Kubectl, stage: str) -> None:
    (machine,) = tried(kubectl, "-f", str(samples.SAMPLES / stage))
    assert machine["spec"]["bootMode"] == "UEFI"  # what the samples leave out has a default


def test_a_machine_that_does_not_exist_needs_no_secret(kubectl: Kubectl) -> None:
    (machine,) = tried(kubectl, "-f", str(samples.SAMPLES / "simulated-01.yaml"))
    assert machine["spec"]["bmc"].keys() == {"address", "insecureSkipTLSVerify"}


@pytest.mark.parametrize("name", ["image.yaml", "node-01-secrets.yaml"])
def test_what_a_machine_refers_to_is_accepted(kubectl: Kubectl, name: str) -> None:
    assert tried(kubectl, "-f", str(samples.SAMPLES / name))


@pytest.mark.parametrize("stage", STAGES)
def test_a_rack_finds_its_own_values_in_them(kubectl: Kubectl, stage: str, tmp_path: Path) -> None:
    folder = samples.overlay(tmp_path / "samples", stage, SITE, "node-02")
    objects = {(o["kind"], o["metadata"]["name"]): o for o in tried(kubectl, "-k", str(folder))}
    spec = objects["BareMetalMachine", "node-02"]["spec"]
    assert (spec["bootMode"], spec["bootMACAddress"]) == (SITE.boot_mode, SITE.boot_mac_address)
    assert spec["bmc"]["address"] == SITE.bmc_address
    assert spec["storage"] == {"rootDeviceHints": {"serial": SITE.root_disk_serial}}
    assert objects["OperatingSystemImage", "debian-12-qcow2"]["spec"]["url"] == SITE.image_url
    if stage == samples.DEPLOYED:
        assert spec["deployment"]["sshAuthorizedKeys"] == [SITE.ssh_key]
        assert spec["deployment"]["image"] == "debian-12-qcow2"
