"""The sample manifests with one site's values: what a person does who copies and edits them, for the demo and tests.

The samples stay as they are. Beside a copy of them stands a kustomization that patches in what differs from rack to
rack, so what is applied is what the documentation shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.paths import REPOSITORY

SAMPLES = REPOSITORY / "manifests/samples"
DECLARED, ALLOCATED, DEPLOYED = "node-01.yaml", "node-01-allocated.yaml", "node-01-deployed.yaml"
"""The three files that say what is wanted of node-01; only one is applied at a time."""
NODE, IMAGE = "node-01", "debian-12"
_SHARED = ("machines-namespace.yaml", "image.yaml", "node-01-secrets.yaml")


@dataclass(frozen=True)
class Site:
    """What differs from one rack to the next."""

    bmc_address: str
    boot_mac_address: str
    boot_mode: str
    username: str
    password: str
    ca: str
    """PEM."""
    root_disk_serial: str
    image_url: str
    image_format: str
    checksum: str
    ssh_key: str
    """One line of an OpenSSH public key."""


def overlay(
    folder: Path,
    machine: str,
    site: Site,
    node: str = NODE,
    *,
    labels: Mapping[str, str] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> Path:
    """Fill a folder for `kubectl apply -k`: the samples, `machine` as one of the three files, the site's values.

    `labels` are put on every object, `spec` has further fields of the machine's. For another node than the samples'
    it is as if somebody had searched and replaced the name.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    image = IMAGE if site.image_format == "raw" else f"{IMAGE}-{site.image_format}"
    for name in (*_SHARED, machine):
        (folder / name).write_text((SAMPLES / name).read_text().replace(NODE, node).replace(IMAGE, image))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [*_SHARED, machine],
        "labels": [{"pairs": dict(labels)}] if labels else [],
        "patches": [
            _patch(
                "OperatingSystemImage",
                image,
                *_replace(
                    {"spec/url": site.image_url, "spec/checksum": site.checksum, "spec/format": site.image_format}
                ),
            ),
            _patch(
                "Secret",
                f"{node}-bmc",
                *_replace(
                    {
                        "stringData/username": site.username,
                        "stringData/password": site.password,
                        "stringData/ca.crt": site.ca,
                    }
                ),
            ),
            _patch(
                "BareMetalMachine",
                node,
                *_replace(_machine_values(machine, site)),
                *_add(
                    {
                        "spec/bootMode": site.boot_mode,
                        "spec/storage": {"rootDeviceHints": {"serial": site.root_disk_serial}},
                        **{f"spec/{field}": value for field, value in (spec or {}).items()},
                    }
                ),
            ),
        ],
    }
    # JSON is YAML too, and needs no library.
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization, indent=2) + "\n")
    return folder


def _machine_values(machine: str, site: Site) -> dict[str, Any]:
    values: dict[str, Any] = {
        "spec/bmc/address": site.bmc_address,
        "spec/bootMACAddress": site.boot_mac_address,
    }
    if machine == DEPLOYED:
        values["spec/deployment/sshAuthorizedKeys"] = [site.ssh_key]
    return values


def _patch(kind: str, name: str, *operations: dict[str, Any]) -> dict[str, Any]:
    """A JSON patch (RFC 6902) of one object."""
    return {"target": {"kind": kind, "name": name}, "patch": json.dumps(operations)}


def _replace(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Only what is there can be replaced, so a sample that changed its shape is noticed."""
    for path, value in values.items():
        yield {"op": "replace", "path": f"/{path}", "value": value}


def _add(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What most people leave to its default, and the samples leave out."""
    for path, value in values.items():
        yield {"op": "add", "path": f"/{path}", "value": value}
