"""What the watches have told: every machine and image, in memory, found by name, uid, MAC address or BMC.

The newest resourceVersion wins, whoever brought it: a watch, a listing, or the answer to our own patch. So a pass
that begins right after a patch already sees it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
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
from rackwright.api.image import OperatingSystemImageSpec
from rackwright.api.machine import BareMetalMachineSpec, BareMetalMachineStatus, Installed, OperationName, Phase
from rackwright.assignment import shard_key
from rackwright.census import Census
from rackwright.install.image import root_device
from rackwright.installs import UNLIMITED, Capacity, Installs
from rackwright.inventory.enlistment import Known, bmc_host, mac_trait, traits
from rackwright.lanes import Lane
from rackwright.lifecycle.by_hand import moved_by_hand
from rackwright.lifecycle.steps import Stage
from rackwright.power.address import NO_STAKE, Stake, parse, stake
from rackwright.power.port import PowerError

_IN_RAMDISK = frozenset({Stage.BOOT_RAMDISK, Stage.WRITE_IMAGE, Stage.ERASE_DISKS, Stage.OPEN_RESCUE})


_REMEMBERED = 10_000
"""Deleted machines: more than a fleet loses while it is listed."""
_NO_IMAGE: tuple[int, None] = (0, None)


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
    shard_key: str = ""
    """What puts it into a shard, by what is declared now (`assignment.shard_key`)."""
    sharded_by: str | None = None
    """What put it into the shard whose operator acts on it; None where none has yet."""
    traits: frozenset[str] = frozenset()
    """What it may be recognised by when it introduces itself: all of its network cards, its BMC, its serial number."""

    @classmethod
    def read(cls, item: Mapping[str, Any], before: Machine | None = None) -> Machine:
        """From the API server's JSON; ValueError, with the field, for one that the schema should have refused.

        Of an earlier version, what has the same generation is kept: most changes are our own, of status.
        """
        metadata = item["metadata"]
        annotations = metadata.get("annotations") or {}
        if before is not None and (before.uid, before.generation) != (metadata["uid"], metadata.get("generation")):
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
    def precedence(self) -> tuple[bool, bool, str, str]:
        """Sorts first whom a MAC address or BMC belongs to that two claim: who holds data, who is trusted, the older.

        So a mistake in another record, however old, never reaches a machine that somebody uses; and a machine that
        enlisted itself gives way to the record that somebody declares for it.
        """
        unused = self.status.installed is None and self.evidence is None
        return unused, not self.spec.accepted, self.created, self.uid

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
            in_use=status.installed is not None or self.evidence is not None or status.owner is not None,
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
            root_device=root_device(self.spec.storage.root_device_hints),
            wants_inventory=wants_inspection(self.status),
            goes_off=operation.name is OperationName.COMMISSION and moved_by_hand(self.spec),
            agent_known=operation.step != Stage.BOOT_RAMDISK,
        )

    @property
    def in_ramdisk(self) -> bool:
        """Whether the present attempt wants the machine to boot the ramdisk, or to be in it."""
        operation, phase = self.status.operation, self.status.phase
        return operation is not None and phase is not Phase.DEPLOYED and operation.step in _IN_RAMDISK


class Memory(NamedTuple):
    """What was known at one time."""

    machines: Mapping[Key, Machine]
    deleted: Collection[str]
    """Uids."""
    images: Mapping[str, int]
    """The newest version that was told of, by name; also of those that aren't there any more."""


class Cache:
    """Machines and images. Belongs to one event loop; answers at once."""

    def __init__(self, capacity: Capacity = UNLIMITED, census: Census | None = None) -> None:
        self.installs = Installs(capacity)
        """Whose turn it is to install."""
        self.census = census if census is not None else Census()
        """The machines in numbers."""
        self._machines: dict[Key, Machine] = {}
        self._by_uid: dict[str, Key] = {}
        self._claims: dict[str, set[Key]] = {}
        self._traits: dict[str, set[Key]] = {}
        self._new: Counter[str] = Counter()
        """How many machines wait for acceptance, by namespace."""
        self._deleted: dict[str, None] = {}
        """The uids of those that were deleted last, in that order."""
        self._images: dict[str, tuple[int, OperatingSystemImageSpec | None]] = {}
        """With the newest version that was told of; None: there is none, or none that can be read."""
        self._changed: dict[str, asyncio.Event] = {}

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._machines))

    def get(self, key: Key) -> Machine | None:
        """A machine by name."""
        return self._machines.get(key)

    def under_way(self, key: Key) -> bool:
        """Whether something is being done to this machine."""
        machine = self._machines.get(key)
        return machine is not None and machine.status.operation is not None

    def lane(self, key: Key) -> Lane:
        """Whom this machine takes turns for."""
        machine = self._machines.get(key)
        return Lane(key.namespace, machine.rack if machine is not None else "")

    def has(self, metadata: Mapping[str, Any]) -> bool:
        """Whether the machine with this metadata is here already, as new or newer."""
        known = self._machines.get(Key.of(metadata))
        return known is not None and known.uid == metadata["uid"] and known.version >= int(metadata["resourceVersion"])

    def with_uid(self, uid: str) -> Machine | None:
        """A machine by uid."""
        key = self._by_uid.get(uid)
        return self._machines.get(key) if key else None

    def image(self, name: str) -> OperatingSystemImageSpec | None:
        """An image by name."""
        return self._images.get(name, _NO_IMAGE)[1]

    def put(self, machine: Machine) -> set[Key]:
        """Take a newer version in; returns who has to be looked at: it, its rivals, and whose turn came."""
        before = self._machines.get(machine.key)
        if machine.uid in self._deleted or (before is not None and before.version >= machine.version):
            return set()
        affected: set[Key] = set()
        if before is not None and before.uid != machine.uid:
            self._by_uid.pop(before.uid, None)
            affected |= self.installs.forget(before.uid)
            self.census.remove(before.uid)
            self._tell(before.uid)
        affected |= self._unclaim(before) | {machine.key} | self.installs.note(machine)
        self._machines[machine.key] = machine
        self._by_uid[machine.uid] = machine.key
        self._new[machine.key.namespace] += machine.is_new
        self.census.put(machine.uid, machine.status)
        for trait in machine.traits:
            self._traits.setdefault(trait, set()).add(machine.key)
        affected |= self._rivals(machine)
        for claim in machine.stake.holds:
            self._claims.setdefault(claim, set()).add(machine.key)
        self._tell(machine.uid)
        return affected

    def remove(self, key: Key, uid: str, *, deleted: bool = True) -> set[Key]:
        """Forget a machine; returns who shared a MAC address or BMC with it, and whose turn came.

        What is deleted doesn't come back, though a listing or an answer that is older may still tell of it.
        """
        if deleted:
            self._deleted[uid] = None
            while len(self._deleted) > _REMEMBERED:
                self._deleted.pop(next(iter(self._deleted)))
        machine = self._machines.get(key)
        if machine is None or machine.uid != uid:
            return set()
        del self._machines[key]
        del self._by_uid[uid]
        self.census.remove(uid)
        affected = self._unclaim(machine) | self.installs.forget(uid)
        self._tell(uid)
        self._changed.pop(uid, None)
        return affected

    def memory(self) -> Memory:
        """What is known now: something that is asked for afterwards isn't older."""
        images = {name: version for name, (version, _) in self._images.items()}
        return Memory(dict(self._machines), frozenset(self._deleted), images)

    def undelete(self, uid: str) -> None:
        """A machine is there again that was deleted: the API server's store was restored from a backup."""
        self._deleted.pop(uid, None)

    def put_image(
        self, name: str, image: OperatingSystemImageSpec | None, version: int | None, known: int | None = None
    ) -> set[Key]:
        """Take a newer version of an image in, or take it out; returns the machines that name it, if it is another now.

        A version isn't known of one that a listing lacks. One that was asked for when `known` was the newest, and is
        older, is taken in as well: the API server's store was restored from a backup.
        """
        newest, before = self._images.get(name, _NO_IMAGE)
        if version is not None and version < newest != known:
            return set()
        self._images[name] = (newest if version is None else version, image)
        if image == before:
            return set()
        return {k for k, m in self._machines.items() if m.spec.deployment and m.spec.deployment.image == name}

    def image_names(self) -> set[str]:
        """The images that are known."""
        return {name for name, (_, image) in self._images.items() if image is not None}

    def resembling(self, traits: Collection[str]) -> list[Machine]:
        """The machines that have one of these traits."""
        keys = {key for trait in traits for key in self._traits.get(trait, ())}
        return [self._machines[key] for key in sorted(keys)]

    def new_machines(self, namespace: str | None = None) -> int:
        """How many machines wait for acceptance, in one namespace or in all."""
        return self._new.total() if namespace is None else self._new[namespace]

    def twin_of(self, machine: Machine) -> Key | None:
        """The other machine that its boot MAC address or BMC belongs to, if it isn't its own."""
        others = (self._machines[key] for key in self._rivals(machine))
        before = [other for other in others if other.precedence < machine.precedence]
        return min(before, key=lambda m: m.precedence).key if before else None

    async def changed(self, uid: str) -> None:
        """Return when the machine's record has changed."""
        await self._changed.setdefault(uid, asyncio.Event()).wait()

    # --- what the HTTP server asks (`agent.sessions.Boots`) -------------------------------------------------------

    def by_mac(self, macs: Collection[str]) -> Boot | None:
        """The boot of the machine that owns one of these MAC addresses and is wanted in the ramdisk."""
        machine = self._owner(macs)
        return machine.boot() if machine is not None and machine.in_ramdisk else None

    def by_uid(self, uid: str) -> Boot | None:
        """The boot of this machine's present operation."""
        machine = self.with_uid(uid)
        return machine.boot() if machine is not None else None

    def with_macs(self, macs: Collection[str]) -> list[Machine]:
        """The machines that are declared with one of these MAC addresses to boot from."""
        keys = {key for mac in macs for key in self._claims.get(mac, ())}
        return [self._machines[key] for key in sorted(keys)]

    def knows(self, mac: str) -> bool:
        """Whether this network card is a known machine's: the one that it is to boot from, or another that it has."""
        return mac_trait(mac) in self._traits

    def _owner(self, macs: Collection[str]) -> Machine | None:
        return min(self.with_macs(macs), key=lambda m: m.precedence, default=None)

    def _rivals(self, machine: Machine) -> set[Key]:
        return {key for claim in machine.stake.rivals for key in self._claims.get(claim, ())} - {machine.key}

    def _unclaim(self, machine: Machine | None) -> set[Key]:
        if machine is None:
            return set()
        self._new[machine.key.namespace] -= machine.is_new
        affected = self._rivals(machine)
        _withdraw(machine.key, machine.stake.holds, self._claims)
        _withdraw(machine.key, machine.traits, self._traits)
        return affected

    def _tell(self, uid: str) -> None:
        event = self._changed.pop(uid, None)
        if event is not None:
            event.set()


def wants_inspection(status: BareMetalMachineStatus) -> bool:
    """Whether the present operation begins with an inspection: a release does where nobody ever inspected."""
    name = status.operation.name if status.operation is not None else None
    return name is OperationName.COMMISSION or (name is OperationName.RELEASE and status.hardware is None)


def _withdraw(key: Key, entries: Collection[str], index: dict[str, set[Key]]) -> None:
    """Take a machine out of an index."""
    for entry in entries:
        holders = index.get(entry, set())
        holders.discard(key)
        if not holders:
            index.pop(entry, None)


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
