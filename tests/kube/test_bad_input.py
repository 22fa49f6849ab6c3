"""Against a real API server: nonsense is refused with the field and the remedy, and what is right is accepted.

The rules are CEL in the CRDs, so only the API server can say what they do and what a person gets to read.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lab.kubectl import Kubectl
from lab.samples import ALLOCATED, DECLARED, DEPLOYED, Site, overlay
from rackwright.api.machine import BareMetalMachineStatus
from rackwright.status_patch import status_patch

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f you@example.org"
GONE = object()
"""In a change: the field is left out."""

MACHINE: dict[str, Any] = {
    "apiVersion": "metal.rackwright.io/v1alpha1",
    "kind": "BareMetalMachine",
    "metadata": {"name": "node-01"},
    "spec": {
        "bootMACAddress": "52:54:00:00:00:07",
        "bmc": {
            "address": "redfish+https://10.0.0.7/redfish/v1/Systems/1",
            "credentialsSecretRef": {"name": "node-01-bmc"},
        },
    },
}
IMAGE: dict[str, Any] = {
    "apiVersion": "metal.rackwright.io/v1alpha1",
    "kind": "OperatingSystemImage",
    "metadata": {"name": "test-image"},
    "spec": {"url": "http://images.example.org/i.raw", "checksum": "sha256:" + "0" * 64, "format": "raw"},
}
ALLOCATION = {"allocation": {"owner": "team-search"}}


def changed(document: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """A manifest with fields below spec set, by dotted path, or left out."""
    result: dict[str, Any] = copy.deepcopy(dict(document))
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = result["spec"]
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is GONE:
            del place[last]
        else:
            place[last] = value
    return json.dumps(result)


@pytest.fixture
def apply(kubectl: Kubectl, namespace: str) -> Callable[[str], str]:
    """Apply a manifest that must be accepted; the object's JSON."""

    def accepted(manifest: str) -> str:
        done = kubectl("apply", "--namespace", namespace, "-o", "json", "-f", "-", stdin=manifest)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return accepted


@pytest.fixture
def refusal(kubectl: Kubectl) -> Callable[..., str]:
    """Apply a manifest that must be refused; what kubectl says. What is refused leaves nothing in a namespace."""

    def refused(manifest: str, namespace: str = "default") -> str:
        done = kubectl("apply", "--namespace", namespace, "-f", "-", stdin=manifest)
        assert done.returncode != 0, f"accepted: {manifest}"
        return done.stderr

    return refused


# --- nonsense -----------------------------------------------------------------------------------------------------


class Bad(NamedTuple):
    """A change to something right, the field that is to be named and words of the remedy."""

    change: dict[str, Any]
    field: str
    remedy: str


SCHEME = "known scheme: redfish+https://HOST/redfish/v1/Systems/ID"
LIKE_30M = "a duration of hours, minutes and seconds like 30m"

BAD_MACHINES = {
    "a MAC address without colons": Bad({"bootMACAddress": "525400000007"}, "spec.bootMACAddress", "like 52:54:00"),
    "a MAC address with a byte too few": Bad({"bootMACAddress": "52:54:00:00:00"}, "spec.bootMACAddress", "six pairs"),
    "a MAC address with another letter": Bad(
        {"bootMACAddress": "52:54:00:00:00:0g"}, "spec.bootMACAddress", "hexadecimal"
    ),
    "a multicast MAC address": Bad({"bootMACAddress": "01:00:5e:00:00:07"}, "spec.bootMACAddress", "card that boots"),
    "the broadcast MAC address": Bad({"bootMACAddress": "FF:FF:FF:FF:FF:FF"}, "spec.bootMACAddress", "is a multicast"),
    "a BMC address without a scheme": Bad({"bmc.address": "10.0.0.7"}, "spec.bmc.address", SCHEME),
    "a BMC address with an unknown scheme": Bad({"bmc.address": "telnet://10.0.0.7"}, "spec.bmc.address", SCHEME),
    "a BMC address without a host": Bad({"bmc.address": "redfish+https:///redfish/v1"}, "spec.bmc.address", SCHEME),
    "an IPMI address without a host": Bad({"bmc.address": "ipmi://"}, "spec.bmc.address", SCHEME),
    "an IPMI address with a path": Bad(
        {"bmc.address": "ipmi://10.0.0.7/redfish/v1/Systems/1"}, "spec.bmc.address", "ipmi://HOST (no path)"
    ),
    "an IPMI BMC without an account": Bad(
        {"bmc": {"address": "ipmi://10.0.0.7"}}, "spec.bmc", "name the Secret with the account of the ipmi:// BMC"
    ),
    "an IPMI address with credentials": Bad(
        {"bmc.address": "ipmi://admin:secret@10.0.0.7"},
        "spec.bmc.address",
        "those belong in the Secret that credentialsSecretRef names",
    ),
    "a BMC address with credentials": Bad(
        {"bmc.address": "redfish+https://admin:secret@10.0.0.7/redfish/v1/Systems/1"},
        "spec.bmc.address",
        "those belong in the Secret that credentialsSecretRef names",
    ),
    "a webhook without a host": Bad({"bmc.address": "webhook+https:///outlets/7"}, "spec.bmc.address", SCHEME),
    "a webhook with a secret in its query": Bad(
        {"bmc.address": "webhook+https://power.example.org/outlets/7?token=secret"},
        "spec.bmc.address",
        "or webhook+https://HOST/PATH",
    ),
    "a webhook with credentials": Bad(
        {"bmc.address": "webhook+https://admin:secret@power.example.org/outlets/7"},
        "spec.bmc.address",
        "those belong in the Secret that credentialsSecretRef names",
    ),
    "a webhook without TLS to speak of": Bad(
        {"bmc.address": "webhook://power.example.org/outlets/7"}, "spec.bmc.address", SCHEME
    ),
    "a webhook whose calls nobody signs": Bad(
        {"bmc.address": "webhook+https://power.example.org/outlets/7", "bmc.credentialsSecretRef": GONE},
        "spec.bmc.credentialsSecretRef is missing",
        "the key that calls to the webhook are signed with",
    ),
    "power for a machine that a person moves": Bad(
        {"bmc": {"address": "manual://"}, "power": "On"}, "spec.power and spec.powerCycle need a BMC", "so remove them"
    ),
    "a restart of a machine that a person moves": Bad(
        {"bmc": {"address": "manual://"}, "powerCycle": {"trigger": "now"}}, "spec.powerCycle", "so remove them"
    ),
    "a rescue of a machine that a person moves": Bad(
        {"bmc": {"address": "manual://"}, "rescue": {"sshAuthorizedKeys": [KEY]}}, "spec.rescue needs a BMC", "manual"
    ),
    "a rescue of a machine that isn't known by its network card": Bad(
        {
            "bootMACAddress": GONE,
            "allocation.owner": "team-search",
            "deployment": {"existing": True},
            "rescue": {"sshAuthorizedKeys": [KEY]},
        },
        *("spec.rescue needs spec.bootMACAddress", "the network card"),
    ),
    "a manual address with a path": Bad({"bmc": {"address": "manual://a/b"}}, "spec.bmc.address", "manual:// where"),
    "a simulated machine of an unknown kind": Bad(
        {"bmc": {"address": "simulated://brisk"}}, "spec.bmc.address", "must be simulated://fast or simulated://slow"
    ),
    "a simulated machine with a parameter that isn't one": Bad(
        {"bmc": {"address": "simulated://slow?boot=90"}}, "spec.bmc.address", "durations like 500ms, 90s or 5m"
    ),
    "a simulated machine with a chance beyond certainty": Bad(
        {"bmc": {"address": "simulated://slow?fail=2"}}, "spec.bmc.address", "go from 0 to 1"
    ),
    "a simulated machine with a parameter given twice": Bad(
        {"bmc": {"address": "simulated://slow?boot=90s&fail=0.1&boot=3s"}}, "spec.bmc.address", "one parameter"
    ),
    "a simulated machine with a path": Bad(
        {"bmc": {"address": "simulated://fast/7"}}, "spec.bmc.address", "must be simulated"
    ),
    "a readiness gate without a domain": Bad(
        {"readinessGates": [{"conditionType": "Ready"}]}, "conditionType", "with its domain, like example.org/BurnIn"
    ),
    "two gates of one type": Bad(
        {"readinessGates": [{"conditionType": "example.org/BurnIn"}, {"conditionType": "example.org/BurnIn"}]},
        "spec.readinessGates",
        "Duplicate value",
    ),
    "a fault report without words": Bad(
        {"release.fault": {"category": "Hardware", "summary": ""}}, "spec.release.fault.summary", "at least 1"
    ),
    "a fault report of an unknown kind": Bad(
        {"release.fault": {"category": "Ghosts", "summary": "!"}}, "category", '"Hardware", "Network"'
    ),
    "a lock that isn't true or false": Bad({"locked": "yes"}, "spec.locked", "must be of type boolean"),
    "a BMC without an address": Bad({"bmc.address": GONE}, "spec.bmc.address", "Required value"),
    "an unknown architecture": Bad(
        {"architecture": "sparc"}, "spec.architecture", 'supported values: "amd64", "arm64"'
    ),
    "an unknown boot mode": Bad({"bootMode": "BIOS"}, "spec.bootMode", 'supported values: "UEFI", "Legacy"'),
    "a power that YAML read as a boolean": Bad({"power": True}, "spec.power", "must be of type string"),
    "an unknown way to erase": Bad({"release.erase": "Burn"}, "spec.release.erase", '"Full", "Quick", "None"'),
    "no attempts at all": Bad({"release.maxAttempts": 0}, "spec.release.maxAttempts", "greater than or equal to 1"),
    "attempts without end": Bad({"release.maxAttempts": 11}, "spec.release.maxAttempts", "less than or equal to 10"),
    "a duration as a number": Bad(
        {"commissioning.timeout": 1800}, "spec.commissioning.timeout", "must be of type string"
    ),
    "a duration without a unit": Bad({"commissioning.timeout": "1800"}, "spec.commissioning.timeout", LIKE_30M),
    "a duration in words": Bad({"release.timeout": "soon"}, "spec.release.timeout", LIKE_30M),
    "a duration of nothing": Bad({"release.timeout": "0s"}, "spec.release.timeout", "more than nothing"),
    "an empty duration": Bad({"release.timeout": ""}, "spec.release.timeout", LIKE_30M),
    "a duration in days": Bad({"release.timeout": "1d"}, "spec.release.timeout", LIKE_30M),
    "a deployment without an owner": Bad(
        {"deployment.image": "debian-12"}, "spec.deployment needs spec.allocation.owner", "say whose the machine is"
    ),
    "an owner with blanks": Bad({"allocation.owner": "Team Search"}, "spec.allocation.owner", "lower-case letters"),
    "an allocation to nobody": Bad({"allocation": {}}, "spec.allocation.owner", "Required value"),
    "an image for a machine that runs already": Bad(
        {**ALLOCATION, "deployment": {"existing": True, "image": "debian-12"}}, "spec.deployment", "exclude each other"
    ),
    "a deployment of nothing": Bad(
        {**ALLOCATION, "deployment": {}}, "spec.deployment", "name an OperatingSystemImage, or set existing: true"
    ),
    "a host name with an underscore": Bad(
        {**ALLOCATION, "deployment": {"image": "debian-12", "hostname": "node_01"}},
        "spec.deployment.hostname",
        "lower-case letters, digits and hyphens",
    ),
    "a private key as SSH key": Bad(
        {"rescue.sshAuthorizedKeys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]},
        "spec.rescue.sshAuthorizedKeys[0]",
        "one line of an OpenSSH public key",
    ),
    "a certificate as SSH key": Bad(
        {"rescue.sshAuthorizedKeys": [KEY.replace("ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com")]},
        "spec.rescue.sshAuthorizedKeys[0]",
        "no certificate",
    ),
    "an SSH key with a tab in its comment": Bad(
        {"rescue.sshAuthorizedKeys": [f"{KEY}\tat work"]}, "spec.rescue.sshAuthorizedKeys[0]", "no tabs"
    ),
    "two SSH keys in one string": Bad(
        {"rescue.sshAuthorizedKeys": [f"{KEY}\n{KEY}"]}, "spec.rescue.sshAuthorizedKeys[0]", "must be one line"
    ),
    "a rescue that nobody can log in to": Bad({"rescue": {}}, "spec.rescue.sshAuthorizedKeys", "Required value"),
    "a rescue with an empty list of keys": Bad(
        {"rescue.sshAuthorizedKeys": []}, "spec.rescue.sshAuthorizedKeys", "at least 1 item"
    ),
    "a mark without a reason": Bad({"broken": {}}, "spec.broken.reason", "Required value"),
    "a certificate that is not looked at": Bad(
        {"bmc.insecureSkipTLSVerify": True, "bmc.caSecretRef": {"name": "ca"}}, "spec.bmc", "keep one of the two"
    ),
    "a CA for a BMC that speaks no TLS": Bad(
        {"bmc.address": "ipmi://10.0.0.7", "bmc.caSecretRef": {"name": "ca"}}, "spec.bmc", "have no effect without TLS"
    ),
    "trust in a BMC that shows no certificate": Bad(
        {"bmc.address": "redfish+http://10.0.0.7/redfish/v1/Systems/1", "bmc.insecureSkipTLSVerify": True},
        *("spec.bmc", "have no effect without TLS"),
    ),
    "an accepted machine without a BMC": Bad({"bmc": GONE}, "spec.bmc is missing", "the address of its BMC"),
    "an accepted machine without a MAC address": Bad(
        {"bootMACAddress": GONE}, "spec.bootMACAddress is missing", "the network card that it boots from"
    ),
    "a field that does not exist": Bad({"typo": "x"}, 'unknown field "spec.typo"', "strict decoding error"),
    "an inner field that does not exist": Bad(
        {"bmc.adress": "x"}, 'unknown field "spec.bmc.adress"', "strict decoding"
    ),
    "null for something required": Bad({"bmc.address": None}, "spec.bmc.address", "Required value"),
}


@pytest.mark.parametrize("name", BAD_MACHINES)
def test_a_machine_is_refused_for(name: str, refusal: Callable[..., str]) -> None:
    bad = BAD_MACHINES[name]
    said = refusal(changed(MACHINE, bad.change))
    assert bad.field in said
    assert bad.remedy in said


BAD_IMAGES = {
    "a checksum that is too short": Bad({"checksum": "sha256:" + "0" * 63}, "spec.checksum", "sha256: and 64"),
    "a checksum in upper case": Bad({"checksum": "sha256:" + "A" * 64}, "spec.checksum", "lower-case"),
    "a checksum without its kind": Bad({"checksum": "0" * 64}, "spec.checksum", "must be sha256:"),
    "an MD5 checksum": Bad({"checksum": "md5:" + "0" * 32}, "spec.checksum", "sha256sum IMAGE"),
    "SHA-512 with the length of SHA-256": Bad({"checksum": "sha512:" + "0" * 64}, "spec.checksum", "sha512: and 128"),
    "no checksum": Bad({"checksum": GONE}, "spec.checksum", "Required value"),
    "a URL of a file": Bad({"url": "file:///tmp/i.raw"}, "spec.url", "http:// or https://"),
    "a URL with credentials": Bad({"url": "https://me:secret@example.org/i.raw"}, "spec.url", "must be an http://"),
    "an unknown format": Bad({"format": "iso"}, "spec.format", 'supported values: "raw", "qcow2"'),
    "an unknown architecture": Bad({"architecture": "x86_64"}, "spec.architecture", '"amd64", "arm64"'),
    "a size with a comma": Bad({"minDisk": "4,5Gi"}, "spec.minDisk", "like 4Gi"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_an_image_is_refused_for(name: str, refusal: Callable[..., str]) -> None:
    bad = BAD_IMAGES[name]
    said = refusal(changed(IMAGE, bad.change))
    assert bad.field in said
    assert bad.remedy in said


def test_an_owner_stays_until_the_machine_is_given_back(
    namespace: str, apply: Callable[[str], str], refusal: Callable[..., str]
) -> None:
    apply(changed(MACHINE, {"allocation.owner": "team-search"}))

    said = refusal(changed(MACHINE, {"allocation.owner": "team-maps"}), namespace)

    assert "spec.allocation.owner can't change while it is set" in said
    assert "remove spec.deployment and spec.allocation" in said
    apply(changed(MACHINE, {"allocation.owner": "team-search", "deployment.image": "debian-12"}))
    apply(changed(MACHINE, {}))
    apply(changed(MACHINE, {"allocation.owner": "team-maps"}))


def test_a_machine_that_is_being_installed_is_not_declared_to_run_already(
    kubectl: Kubectl, namespace: str, apply: Callable[[str], str], refusal: Callable[..., str]
) -> None:
    """It would be taken for withdrawn, and its disks be erased."""

    def is_now(phase: str) -> None:
        patch = json.dumps({"status": {"phase": phase}})
        done = kubectl("patch", "bmm", "node-01", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
        assert done.returncode == 0, done.stderr

    installing = {"allocation.owner": "team-search", "deployment.image": "debian-12"}
    running = {"allocation.owner": "team-search", "deployment.existing": True}
    apply(changed(MACHINE, installing))
    is_now("Deploying")
    said = refusal(changed(MACHINE, running), namespace)
    assert "spec.deployment.existing can't take the place of an image" in said
    assert "wait until it is Deployed, or remove spec.deployment" in said
    apply(changed(MACHINE, {**installing, "deployment.trigger": "again"}))
    is_now("Deployed")
    apply(changed(MACHINE, running))
    is_now("Deploying")
    apply(changed(MACHINE, {**running, "locked": True}))  # it was declared so before


# --- what is right ------------------------------------------------------------------------------------------------

GOOD_MACHINES: dict[str, dict[str, Any]] = {
    "a machine as small as it can be": {"bmc.credentialsSecretRef": GONE},
    "a MAC address in upper case": {"bootMACAddress": "52:54:00:AB:CD:EF"},
    "a BMC by name and port": {"bmc.address": "redfish+https://bmc-7.rack-a.example.org:8443/redfish/v1/Systems/1"},
    "a BMC without TLS": {"bmc.address": "redfish+http://127.0.0.1:8000/redfish/v1/Systems/437XR1138R2"},
    "a machine that a person moves": {"bmc": {"address": "manual://"}},
    "a machine that a person moves, by name": {"bmc": {"address": "manual://rack-7.slot-3"}},
    "a simulated machine": {"bmc": {"address": "simulated://fast"}},
    "a simulated machine with everything that can be asked of one": {
        "bmc": {
            "address": "simulated://slow?answer=250ms&power=6s&boot=90s&inspect=20s&write=5m&erase=1h&start=1m"
            "&spread=0.25&fail=0.02&hang=0.01&lost=1&broken=0&disks=12&seed=7"
        }
    },
    "an enlisted IPMI BMC that nobody has an account for": {"accepted": False, "bmc": {"address": "ipmi://10.0.0.7"}},
    "a restart, a lock, a gate and a fault report": {
        "powerCycle": {"trigger": "now"},
        "locked": True,
        "readinessGates": [{"conditionType": "example.org/BurnIn"}],
        "release.fault": {"summary": "DIMM A3"},
    },
    "an IPMI BMC": {"bmc.address": "ipmi://10.0.0.7"},
    "an IPMI BMC by name and port": {"bmc.address": "ipmi://bmc-7.rack-a.example.org:6230"},
    "an IPMI BMC by IPv6 address": {"bmc.address": "ipmi://[fd00::7]:623"},
    "a BMC by IPv6 address": {"bmc.address": "redfish+https://[fd00::7]/redfish/v1/Systems/1"},
    "a webhook": {"bmc.address": "webhook+https://power.example.org/outlets/7/"},
    "a webhook without TLS, by IPv6 address and port": {"bmc.address": "webhook+http://[fd00::7]:8080/outlets/7"},
    "a webhook at its host's root": {"bmc.address": "webhook+https://socket-7.example.org"},
    "a BMC with a CA": {"bmc.caSecretRef": {"name": "rack-a-ca"}},
    "a BMC that is not verified": {"bmc.insecureSkipTLSVerify": True},
    "a machine that enlisted itself": {"accepted": False, "bmc": GONE},
    "a machine that runs already": {
        **ALLOCATION,
        "deployment": {"existing": True},
        "bmc": GONE,
        "bootMACAddress": GONE,
    },
    "durations of every kind": {"release.timeout": "36h", "commissioning.timeout": "1h30m"},
    "a rescue": {"rescue.sshAuthorizedKeys": [KEY]},
    "an allocation without a deployment": ALLOCATION,
    "everything about a deployment": {
        **ALLOCATION,
        "deployment": {
            "image": "debian-12",
            "hostname": "node-01.search.example.org",
            "userDataSecretRef": {"name": "node-01-user-data"},
            "sshAuthorizedKeys": [KEY, "ecdsa-sha2-nistp256 AAAAE2VjZHNh"],
            "timeout": "45m",
        },
        "storage.rootDeviceHints": {"minSizeGiB": 100, "rotational": False},
        "power": "On",
    },
}


@pytest.mark.parametrize("name", GOOD_MACHINES)
def test_a_machine_is_accepted_that_is(name: str, apply: Callable[[str], str]) -> None:
    assert json.loads(apply(changed(MACHINE, GOOD_MACHINES[name])))["metadata"]["generation"] == 1


def test_defaults_appear_at_every_depth(apply: Callable[[str], str]) -> None:
    spec = json.loads(apply(changed(MACHINE, {**ALLOCATION, "deployment": {"image": "debian-12"}})))["spec"]
    assert spec["accepted"] is True
    assert (spec["architecture"], spec["bootMode"]) == ("amd64", "UEFI")
    assert spec["bmc"]["insecureSkipTLSVerify"] is False
    assert spec["commissioning"] == {"timeout": "30m", "maxAttempts": 3}
    assert spec["release"] == {"erase": "Full", "timeout": "24h", "maxAttempts": 3}
    assert spec["deployment"]["timeout"] == "1h"


def test_the_samples_are_accepted_and_an_earlier_one_takes_back_what_a_later_one_asked_for(
    kubectl: Kubectl, tmp_path: Path
) -> None:
    site = Site(
        bmc_address="redfish+https://192.0.2.11:8443/redfish/v1/Systems/1",
        boot_mac_address="52:54:00:00:00:11",
        boot_mode="Legacy",
        username="operator",
        password="made up",
        ca="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        root_disk_serial="RACK0001",
        image_url="http://192.0.2.1/debian.raw",
        image_format="raw",
        checksum="sha256:" + "5" * 64,
        ssh_key=KEY,
    )
    specs = []
    for stage in (DECLARED, ALLOCATED, DEPLOYED, DECLARED):
        applied = kubectl("apply", "-k", str(overlay(tmp_path, stage, site)))
        assert applied.returncode == 0, applied.stderr
        got = kubectl("get", "bmm", "node-01", "--namespace", "machines", "-o", "json")
        specs.append(json.loads(got.stdout)["spec"])
    declared, allocated, deployed, again = specs
    assert again == declared
    assert declared["bmc"]["address"] == site.bmc_address
    assert allocated["allocation"] == {"owner": "team-search"}
    assert deployed["deployment"]["sshAuthorizedKeys"] == [KEY]
    assert not {"allocation", "deployment"} & again.keys()
    image = kubectl("get", "osimage", "debian-12", "--no-headers")
    assert site.image_url in image.stdout


# --- what people and tools read -----------------------------------------------------------------------------------


def test_explain_prints_the_documentation(kubectl: Kubectl) -> None:
    said = kubectl("explain", "bmm.spec.bmc.address").stdout
    assert "FIELD: address <string>" in said
    assert "Where the BMC answers and which system it is" in said
    assert "one physical server" in kubectl("explain", "bmm").stdout


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    """A condition as it is on the wire."""
    since = "2026-01-02T03:04:05Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


def test_a_failed_machine_says_why_in_the_table(kubectl: Kubectl, namespace: str, apply: Callable[[str], str]) -> None:
    apply(changed(MACHINE, {}))
    status = {
        "phase": "Failed",
        "power": "Off",
        "hardware": {"cpus": 64, "memoryMiB": 262144, "diskGiB": 894},
        "conditions": [condition("Ready", "False", "ImageChecksumMismatch", "the image isn't what its checksum says")],
    }
    patch = json.dumps({"status": status})
    patched = kubectl("patch", "bmm", "node-01", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    assert patched.returncode == 0, patched.stderr

    header, row = kubectl("get", "bmm", "-n", namespace).stdout.splitlines()
    assert header.split() == ["NAME", "PHASE", "OWNER", "OS", "POWER", "STEP", "READY", "STALLED", "REASON", "AGE"]
    assert row.split()[:5] == ["node-01", "Failed", "Off", "False", "ImageChecksumMismatch"]
    wide_header, wide_row = kubectl("get", "bmm", "-n", namespace, "-o", "wide").stdout.splitlines()
    assert wide_header.split()[10:] == ["CPU", "MEMORYMIB", "DISKGIB", "BMC", "MESSAGE"]
    assert wide_row.endswith("redfish+https://10.0.0.7/redfish/v1/Systems/1   the image isn't what its checksum says")


def test_machines_are_found_by_owner_and_by_image(
    kubectl: Kubectl, namespace: str, apply: Callable[[str], str]
) -> None:
    names = {"node-a": {"allocation.owner": "team-search"}, "node-b": {"allocation.owner": "team-maps"}, "node-c": {}}
    for name, change in names.items():
        deployed = {"deployment.image": "debian-12"} if name == "node-b" else {}
        apply(changed({**MACHINE, "metadata": {"name": name}}, {**change, **deployed}))

    def found(selector: str) -> list[str]:
        return kubectl("get", "bmm", "-n", namespace, "-o", "name", "--field-selector", selector).stdout.split()

    assert found("spec.allocation.owner=team-search") == ["baremetalmachine.metal.rackwright.io/node-a"]
    assert found("spec.deployment.image=debian-12") == ["baremetalmachine.metal.rackwright.io/node-b"]


def test_conditions_of_other_writers_survive_ours(
    kubectl: Kubectl, namespace: str, apply: Callable[[str], str]
) -> None:
    """We replace the list by a merge patch; the resourceVersion in it sees to it that we replace what we have read."""
    apply(changed(MACHINE, {}))
    foreign = {**MACHINE, "status": {"conditions": [condition("example.org/BurnIn", "True", "Passed")]}}
    del foreign["spec"]

    def apply_foreign(document: dict[str, Any]) -> None:
        arguments = ("apply", "--server-side", "--field-manager=burn-in", "--subresource=status", "-n", namespace)
        done = kubectl(*arguments, "-f", "-", stdin=json.dumps(document))
        assert done.returncode == 0, done.stderr

    def patch(conditions: list[dict[str, str]], version: str) -> tuple[int, str]:
        body = json.dumps({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}})
        arguments = ("patch", "bmm", "node-01", "-n", namespace, "--subresource=status", "--type=merge", "-p", body)
        done = kubectl(*arguments)
        return done.returncode, done.stderr

    def read() -> tuple[list[dict[str, str]], str]:
        machine = json.loads(kubectl("get", "bmm", "node-01", "-n", namespace, "-o", "json").stdout)
        return machine.get("status", {}).get("conditions", []), machine["metadata"]["resourceVersion"]

    before, stale = read()
    apply_foreign(foreign)
    code, said = patch([*before, condition("Ready", "True", "AsDeclared")], stale)
    assert code != 0
    assert "the object has been modified" in said

    known, version = read()
    assert patch([*known, condition("Ready", "True", "AsDeclared")], version)[0] == 0
    apply_foreign(foreign)
    assert {c["type"] for c in read()[0]} == {"example.org/BurnIn", "Ready"}


def test_what_another_writer_wrote_stays_its_own_however_it_spells_it(
    kubectl: Kubectl, namespace: str, apply: Callable[[str], str]
) -> None:
    """Who writes a field differently owns it: the writer's next apply would be a conflict, and its gate stay open."""
    apply(changed(MACHINE, {}))
    passed = {"type": "example.org/BurnIn", "status": "True", "reason": "Passed"}
    passed["lastTransitionTime"] = "2026-01-02T05:04:05.678+02:00"
    mine = {key: value for key, value in MACHINE.items() if key != "spec"}
    as_writer = ("apply", "--server-side", "--field-manager=burn-in", "--subresource=status", "-n", namespace)
    as_operator = ("patch", "bmm", "node-01", "-n", namespace, "--subresource=status", "--type=merge", "-p")

    def write(verdict: str) -> None:
        document = {**mine, "status": {"conditions": [{**passed, "status": verdict}]}}
        done = kubectl(*as_writer, "-f", "-", stdin=json.dumps(document))
        assert done.returncode == 0, done.stderr

    def read() -> BareMetalMachineStatus:
        found = json.loads(kubectl("get", "bmm", "node-01", "-n", namespace, "-o", "json").stdout)
        return BareMetalMachineStatus.model_validate(found["status"])

    write("True")
    before = read()
    ready = BareMetalMachineStatus.model_validate({"conditions": [condition("Ready", "True", "AsDeclared")]})
    after = before.model_copy(update={"conditions": [*ready.conditions, *before.conditions]})
    done = kubectl(*as_operator, json.dumps({"status": status_patch(before, after)}))
    assert done.returncode == 0, done.stderr
    write("False")
    assert {each.type: each.status for each in read().conditions} == {"Ready": "True", "example.org/BurnIn": "False"}


def test_two_conditions_of_one_type_are_refused(kubectl: Kubectl, namespace: str, apply: Callable[[str], str]) -> None:
    apply(changed(MACHINE, {}))
    twice = [condition("Ready", "True", "AsDeclared"), condition("Ready", "False", "Waiting")]
    body = json.dumps({"status": {"conditions": twice}})
    done = kubectl("patch", "bmm", "node-01", "-n", namespace, "--subresource=status", "--type=merge", "-p", body)
    assert done.returncode != 0
    assert "Duplicate value" in done.stderr
