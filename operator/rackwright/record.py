"""One BareMetalMachine as it was last read: what it declares, what its status says, and what follows from the two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from rackwright.agent.sessions import Boot
from rackwright.api import (
    FINALIZER,
    FORCE_DELETE_ANNOTATION,
    INSTALLED_ANNOTATION,
    RACK_LABEL,
    RECORD_ANNOTATION,
    SHARDED_BY_ANNOTATION,
)
from rackwright.api.machine import BareMetalMachineSpec, BareMetalMachineStatus, Installed, OperationName, Phase
from rackwright.assignment import shard_key
from rackwright.inventory.enlistment import Known, bmc_host, traits
from rackwright.lifecycle.by_hand import moved_by_hand
from rackwright.lifecycle.steps import Stage
from rackwright.power.address import NO_STAKE, Stake, parse, stake
from rackwright.power.port import PowerError

_IN_RAMDISK = frozenset({Stage.BOOT_RAMDISK, Stage.WRITE_IMAGE, Stage.ERASE_DISKS, Stage.OPEN_RESCUE})


class Key(NamedTuple):
    """Names a machine."""

    namespace: str
    name: str

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Key:
        """Of the machine that this metadata is of."""
        return cls(metadata["namespace"], metadata["name"])

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Revision(NamedTuple):
    """Which record it is, and how new."""

    uid: str
    version: int


@dataclass(frozen=True, slots=True)
class Machine:
    """One BareMetalMachine, as last read."""

    key: Key
    uid: str
    version: int
    generation: int
    created: str
    spec: BareMetalMachineSpec
    status: BareMetalMachineStatus
    deleting: bool = False
    force_delete: bool = False
    finalizers: tuple[str, ...] = ()
    held_as: str | None = None
    """The uid that the record had when it was first held: its own, unless it comes from a backup of another."""
    rack: str = ""
    """Where it stands, as its label says; one rack for all that have none."""
    evidence: Installed | None = None
    locked_by: str | None = None
    """Who set `spec.locked`, where the API server's field managers tell."""
    stake: Stake = NO_STAKE
    """What only one machine may have: its boot MAC address, and its BMC or a system behind one."""
    declared: int = 0
    """A hash of spec as it was read: after a restore of etcd another spec may have the same generation."""
    shard_key: str = ""
    """What puts it into a shard, by what is declared now (`assignment.shard_key`)."""
    sharded_by: str | None = None
    """What put it into the shard whose operator acts on it; None where none has yet."""
    traits: frozenset[str] = frozenset()
    """What it may be recognised by when it introduces itself: all of its network cards, its BMC, its serial number."""
    readable: bool = True
    """False for what is known of a record that can't be read: nobody acts on it, and on its machine nobody else."""

    @classmethod
    def read(cls, item: Mapping[str, Any], before: Machine | None = None) -> Machine:
        """From the API server's JSON; ValueError, with the field, for one that the schema should have refused.

        Of an earlier version, what has the same spec is kept: most changes are our own, of status.
        """
        metadata = item["metadata"]
        annotations = metadata.get("annotations") or {}
        declared = hash(json.dumps(item.get("spec"), sort_keys=True))
        if before is not None and (before.uid, before.declared) != (metadata["uid"], declared):
            before = None
        try:
            spec = before.spec if before else BareMetalMachineSpec.model_validate(item.get("spec") or {})
            status = BareMetalMachineStatus.model_validate(item.get("status") or {})
            return cls(
                key=before.key if before else Key.of(metadata),
                uid=metadata["uid"],
                version=int(metadata["resourceVersion"]),
                generation=metadata.get("generation", 0),
                created=metadata.get("creationTimestamp", ""),
                spec=spec,
                status=status,
                declared=declared,
                deleting="deletionTimestamp" in metadata,
                force_delete=annotations.get(FORCE_DELETE_ANNOTATION) == "true",
                finalizers=tuple(metadata.get("finalizers") or ()),
                held_as=annotations.get(RECORD_ANNOTATION),
                rack=(metadata.get("labels") or {}).get(RACK_LABEL, ""),
                evidence=_evidence(annotations.get(INSTALLED_ANNOTATION)),
                locked_by=_manager_of_lock(metadata) if spec.locked else None,
                shard_key=shard_key(metadata, spec),
                sharded_by=annotations.get(SHARDED_BY_ANNOTATION),
                stake=before.stake if before else _stake(spec),
                traits=traits(_macs(spec, status), _bmc_host(spec), status.hardware),
            )
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise ValueError(f"{metadata['namespace']}/{metadata['name']}: {where} can't be read") from None

    @classmethod
    def unread(cls, item: Mapping[str, Any]) -> Machine:
        """Of a record that `read` refuses: which machine it means, and nothing of what becomes of that."""
        return replace(cls.read(_identity(item)), readable=False)

    @property
    def revision(self) -> Revision:
        """Tells this reading from any other."""
        return Revision(self.uid, self.version)

    @property
    def held(self) -> bool:
        """Whether our finalizer is on it, and it says as which record."""
        return FINALIZER in self.finalizers and (self.deleting or self.held_as is not None)

    @property
    def finalizers_of_others(self) -> list[str]:
        """All but ours."""
        return [each for each in self.finalizers if each != FINALIZER]

    @property
    def restored(self) -> bool:
        """Whether it comes from a backup of another record."""
        return self.held_as not in (None, self.uid)

    @property
    def precedence(self) -> tuple[bool, bool, bool, str, str]:
        """Sorts first whom a MAC address or BMC belongs to that two claim: who holds data, who is trusted, the older.

        So a mistake in another record, however old, never reaches a machine that somebody uses; and a machine that
        enlisted itself gives way to the record that somebody declares for it. What can't be read may say anything, so
        it comes before all.
        """
        unused = self.status.installed is None and self.evidence is None
        return self.readable, unused, not self.spec.accepted, self.created, self.uid

    @property
    def is_new(self) -> bool:
        """Whether it waits for somebody to accept it."""
        return not self.deleting and not self.spec.accepted and self.status.phase in (None, Phase.NEW)

    def known(self) -> Known:
        """What tells which machine it is."""
        status = self.status
        return Known(
            name=str(self.key),
            uid=self.uid,
            macs=_macs(self.spec, status),
            bmc_host=_bmc_host(self.spec),
            hardware=status.hardware,
            in_use=not self.readable
            or status.installed is not None
            or self.evidence is not None
            or status.owner is not None,
            is_new=self.is_new,
        )

    def boot(self) -> Boot | None:
        """The boot that the machine's present operation asked for, if it has one."""
        operation = self.status.operation
        if operation is None or self.spec.boot_mac_address is None:
            return None
        return Boot(
            machine_uid=self.uid,
            namespace=self.key.namespace,
            name=self.key.name,
            operation_id=operation.id,
            operation=operation.name,
            attempt=operation.attempt,
            macs=(self.spec.boot_mac_address,),
            wants_inventory=wants_inspection(self.status),
            goes_off=operation.name is OperationName.COMMISSION and moved_by_hand(self.spec),
            agent_known=operation.step != Stage.BOOT_RAMDISK,
        )

    @property
    def in_ramdisk(self) -> bool:
        """Whether the present attempt wants the machine to boot the ramdisk, or to be in it."""
        operation, phase = self.status.operation, self.status.phase
        return operation is not None and phase is not Phase.DEPLOYED and operation.step in _IN_RAMDISK


def wants_inspection(status: BareMetalMachineStatus) -> bool:
    """Whether the present operation begins with an inspection: a release does where nobody ever inspected."""
    name = status.operation.name if status.operation is not None else None
    return name is OperationName.COMMISSION or (name is OperationName.RELEASE and status.hardware is None)


def _identity(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record with what tells which machine it means, whatever else is in it."""
    address, cards = _text(item, "spec", "bmc", "address"), _at(item, "status", "hardware", "macAddresses")
    hardware = {name: _text(item, "status", "hardware", name) or "" for name in ("vendor", "model", "serial")}
    macs = [card for card in cards if isinstance(card, str)] if isinstance(cards, list) else []
    return {
        "metadata": item["metadata"],
        "spec": {
            "bootMACAddress": _text(item, "spec", "bootMACAddress"),
            "bmc": {"address": address} if address is not None else None,
        },
        "status": {"hardware": {**hardware, "macAddresses": macs}},
    }


def _text(item: Any, *path: str) -> str | None:
    found = _at(item, *path)
    return found if isinstance(found, str) else None


def _at(item: Any, *path: str) -> Any:
    """What the JSON has there, None for nothing."""
    for name in path:
        item = item.get(name) if isinstance(item, Mapping) else None
    return item


def _macs(spec: BareMetalMachineSpec, status: BareMetalMachineStatus) -> frozenset[str]:
    found = set(status.hardware.mac_addresses) if status.hardware is not None else set()
    return frozenset(found | {spec.boot_mac_address} if spec.boot_mac_address else found)


def _bmc_host(spec: BareMetalMachineSpec) -> str:
    """The BMC's IP address, if spec names one."""
    if spec.bmc is None:
        return ""
    with suppress(PowerError):
        return bmc_host(parse(spec.bmc.address).host)
    return ""


def _stake(spec: BareMetalMachineSpec) -> Stake:
    mac = frozenset({spec.boot_mac_address} if spec.boot_mac_address else ())
    bmc = NO_STAKE
    if spec.bmc is not None and not moved_by_hand(spec):
        with suppress(PowerError):  # an address that can't be used is reported when it is used
            bmc = stake(spec.bmc.address)
    return Stake(mac | bmc.holds, mac | bmc.rivals)


def _manager_of_lock(metadata: Mapping[str, Any]) -> str | None:
    """The field manager that set `spec.locked`, like kubectl-patch or argocd-controller."""
    for entry in metadata.get("managedFields") or ():
        if "f:locked" in entry.get("fieldsV1", {}).get("f:spec", {}):
            return str(entry.get("manager") or "") or None
    return None


def _evidence(annotation: str | None) -> Installed | None:
    """What the annotation remembers; something unreadable is evidence that something was installed."""
    if annotation is None:
        return None
    try:
        return Installed.model_validate(json.loads(annotation))
    except (ValueError, OverflowError, RecursionError):
        return Installed(hostname="unknown")
