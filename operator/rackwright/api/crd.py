"""The CustomResourceDefinitions: which kinds there are, what `kubectl get` prints of them, and their schemas.

The models say what an object holds; what only a CRD knows, names, columns, scope, is the table `KINDS` below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from rackwright.api import GROUP, VERSION
from rackwright.api.fields import rules
from rackwright.api.image import OperatingSystemImageSpec
from rackwright.api.inventory import HardwareInventoryReport
from rackwright.api.machine import BareMetalMachineSpec, BareMetalMachineStatus
from rackwright.api.structural import Schema, structural

CATEGORY = "rackwright"
"""`kubectl get rackwright` lists every kind; not `all`, whose readers look for workloads."""

KEPT = {
    "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
}
"""With a definition go all its records, and with those of machines their disks: GitOps tools leave it where it is."""

_OBSERVED = {"status", "report"}
"""Top-level fields that the operator writes and nobody declares."""

_UNSEEN: Schema = {"default": {"observedGeneration": -1}}
"""Status before the operator has seen the record. Without any, kstatus takes it for one that is as declared; a
generation that never was makes it InProgress. Flux's own kinds have the same default."""


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`; `wide` ones appear with `-o wide`."""

    name: str
    path: str
    description: str
    type: Literal["string", "integer", "date"] = "string"
    wide: bool = False

    def as_json(self) -> Schema:
        """As a CRD holds it."""
        priority = {"priority": 1} if self.wide else {}
        return {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.path,
            "description": self.description,
            **priority,
        }


_AGE = Column("Age", ".metadata.creationTimestamp", "Time since it was created.", "date")


@dataclass(frozen=True)
class Kind:
    """One kind of object: its models by top-level field, and what only a CRD knows."""

    name: str
    plural: str
    short: str
    description: str
    fields: Mapping[str, type[BaseModel]]
    columns: tuple[Column, ...]
    scope: Literal["Namespaced", "Cluster"] = "Namespaced"
    selectable: tuple[str, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()
    """Of what spec may become at a certain status; what spec alone says is ruled by its model."""

    @property
    def crd_name(self) -> str:
        """The name of its CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


def _condition(of: str, what: str) -> str:
    return f'.status.conditions[?(@.type=="{of}")].{what}'


KINDS = (
    Kind(
        name="BareMetalMachine",
        plural="baremetalmachines",
        short="bmm",
        description=(
            "BareMetalMachine is one physical server. Apply one and the operator commissions it into the pool; set "
            "spec.allocation and spec.deployment and it installs an operating system; remove them and it erases the "
            "disks and returns the machine."
        ),
        fields={"spec": BareMetalMachineSpec, "status": BareMetalMachineStatus},
        rules=(
            (
                (
                    "!has(self.spec.deployment) || !self.spec.deployment.existing || !has(self.status)"
                    " || !has(self.status.phase) || self.status.phase != 'Deploying'"
                    " || has(oldSelf.spec.deployment) && oldSelf.spec.deployment.existing"
                ),
                (
                    "spec.deployment.existing can't take the place of an image while the machine is Deploying: wait "
                    "until it is Deployed, or remove spec.deployment, which erases its disks"
                ),
            ),
        ),
        columns=(
            Column("Phase", ".status.phase", "Where the machine is in its life-cycle."),
            Column("Owner", ".status.owner", "Whose the machine is until it is released."),
            Column("OS", ".status.installed.image", "Image that is installed on it."),
            Column("Power", ".status.power", "Power, as the BMC reported it."),
            Column("Step", ".status.operation.step", "What the operation under way is doing now."),
            Column("Ready", _condition("Ready", "status"), "Whether what is observed equals what is declared."),
            Column("Stalled", _condition("Stalled", "status"), "Whether it waits for a person to change something."),
            Column(
                "Reason", _condition("Ready", "reason"), "Why it is ready or not: what it waits for or what failed."
            ),
            _AGE,
            Column("CPU", ".status.hardware.cpus", "Logical processors.", "integer", wide=True),
            Column("MemoryMiB", ".status.hardware.memoryMiB", "Physical memory in MiB.", "integer", wide=True),
            Column("DiskGiB", ".status.hardware.diskGiB", "All disks together in GiB.", "integer", wide=True),
            Column("BMC", ".spec.bmc.address", "Address of its baseboard management controller.", wide=True),
            Column("Message", _condition("Ready", "message"), "The reason in a sentence.", wide=True),
        ),
        selectable=(".spec.allocation.owner", ".spec.deployment.image"),
    ),
    Kind(
        name="OperatingSystemImage",
        plural="operatingsystemimages",
        short="osimage",
        description=(
            "OperatingSystemImage is something that can be written to a machine's disk. Every namespace shares it; "
            "machines name it in spec.deployment.image."
        ),
        fields={"spec": OperatingSystemImageSpec},
        columns=(
            Column("Format", ".spec.format", "How the image is encoded."),
            Column("Architecture", ".spec.architecture", "Processor architecture it runs on."),
            Column("Checksum", ".spec.checksum", "Checksum of the file at its URL.", wide=True),
            Column("URL", ".spec.url", "Where machines download it from."),
            _AGE,
        ),
        scope="Cluster",
    ),
    Kind(
        name="HardwareInventory",
        plural="hardwareinventories",
        short="hwi",
        description=(
            "HardwareInventory is all that was seen of a machine's hardware when it was last commissioned. It has the "
            "machine's name and goes with it; the operator writes it, nobody declares it."
        ),
        fields={"report": HardwareInventoryReport},
        columns=(
            Column("CPUs", ".report.cpu.count", "Logical processors.", "integer"),
            Column("MemoryMiB", ".report.memoryMiB", "Physical memory in MiB.", "integer"),
            Column("Disks", ".report.diskCount", "Number of disks.", "integer"),
            Column("Vendor", ".report.system.vendor", "Manufacturer."),
            Column("Product", ".report.system.product", "Product name."),
            _AGE,
        ),
    ),
)


def schema(kind: Kind) -> Schema:
    """The schema of a whole object."""
    return {
        "type": "object",
        "description": kind.description,
        "required": [name for name in kind.fields if name != "status"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"Always {kind.name}."},
            "metadata": {"type": "object"},
            **{
                name: structural(model, observed=name in _OBSERVED) | (_UNSEEN if name == "status" else {})
                for name, model in kind.fields.items()
            },
        },
        **(rules(*kind.rules) if kind.rules else {}),
    }


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [column.as_json() for column in kind.columns],
        "schema": {"openAPIV3Schema": schema(kind)},
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    if "status" in kind.fields:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name, "annotations": KEPT},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": [CATEGORY],
            },
            "scope": kind.scope,
            "versions": [version],
        },
    }
