"""What the watches have told: every machine and image, in memory, found by name, uid, MAC address or BMC.

The newest resourceVersion wins, whoever brought it: a watch, a listing, or the answer to our own patch. So a pass
that begins right after a patch already sees it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from rackwright.agent.sessions import Boot
from rackwright.api.image import OperatingSystemImageSpec
from rackwright.census import Census
from rackwright.installs import UNLIMITED, Capacity, Installs
from rackwright.inventory.enlistment import mac_trait
from rackwright.lanes import Lane
from rackwright.record import Key, Machine, Revision

_REMEMBERED = 10_000
"""Deleted machines: more than a fleet loses while it is listed."""
_NO_IMAGE: tuple[int, None] = (0, None)


class Memory(NamedTuple):
    """What was known at one time. It keeps no records, for while a busy fleet is listed most are written anew."""

    machines: Mapping[Key, Revision]
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
        """A machine by uid, if its record can be read: nobody takes in what is told of another."""
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
        if machine.readable:
            self._by_uid[machine.uid] = machine.key
        else:
            self._by_uid.pop(machine.uid, None)
        self._new[machine.key.namespace] += machine.is_new
        self.census.put(machine.uid, machine.status if machine.readable else None)
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
        self._by_uid.pop(uid, None)
        self.census.remove(uid)
        affected = self._unclaim(machine) | self.installs.forget(uid)
        self._tell(uid)
        self._changed.pop(uid, None)
        return affected

    def memory(self) -> Memory:
        """What is known now: something that is asked for afterwards isn't older."""
        images = {name: version for name, (version, _) in self._images.items()}
        machines = {key: machine.revision for key, machine in self._machines.items()}
        return Memory(machines, frozenset(self._deleted), images)

    def undelete(self, uid: str) -> None:
        """A machine is there again that was deleted: the API server's store was restored from a backup."""
        self._deleted.pop(uid, None)

    def put_image(
        self, name: str, image: OperatingSystemImageSpec | None, version: int | None, known: int | None = None
    ) -> set[Key]:
        """Take a newer version of an image in, or take it out; returns the machines that name it, if it is another now.

        `known` is what was the newest when the cluster was asked. Where it still is, the answer holds even if it is
        older, for then the API server's store was restored from a backup; or without a version, which is what a listing
        says of one that it lacks.
        """
        newest, before = self._images.get(name, _NO_IMAGE)
        if (version is None or version < newest) and newest != known:
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


def _withdraw(key: Key, entries: Collection[str], index: dict[str, set[Key]]) -> None:
    """Take a machine out of an index."""
    for entry in entries:
        holders = index.get(entry, set())
        holders.discard(key)
        if not holders:
            index.pop(entry, None)
