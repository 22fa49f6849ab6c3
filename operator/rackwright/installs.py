"""Who may install now, and who waits for it: so many in the fleet and in each rack, in an order that starves nobody.

An installation loads a ramdisk and an image, and ten thousand at once would take the network from everybody. A machine
has a *slot* from its attempt's first step until its image is written, and waits at the attempt's start before anything
is done to it.

No slot is handed out that could be lost: who has one is read off the records, so that it is free again whatever becomes
of the attempt, and an operator that was restarted knows the same. A slot ends with its attempt's deadline at the
latest, because a machine that is locked meanwhile has nobody who would fail it. All that is kept beside the records is
who was told to go on and hasn't been recorded yet; that ends with the machine's next record.

Next is a machine of the namespace that has the fewest slots, then of the rack that has the fewest, then the one that
came to Deploying first: one machine of one tenant is not behind five thousand of another.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from rackwright.api.conditions import ConditionType
from rackwright.api.machine import BareMetalMachineStatus, Operation, OperationName, Phase
from rackwright.lifecycle.steps import Stage
from rackwright.lifecycle.world import Place

if TYPE_CHECKING:
    from rackwright.cache import Key, Machine

_LOADING = frozenset({Stage.POWER_OFF, Stage.BOOT_RAMDISK, Stage.WRITE_IMAGE})
_AT_REST = frozenset({Phase.READY, Phase.ALLOCATED, Phase.DEPLOYED})
"""Where an installation begins in the very pass that finds it wanted."""
_PROMISE_SECONDS = 30.0
"""How long after its turn an installation may take to be recorded; it isn't begun after that without another turn."""
_NEVER = datetime.max.replace(tzinfo=UTC)
_EXACT = 10
"""Up to this place every step forward is told; further back a machine is told when a fifth of its way is done."""
_LONG, _ORDER_SECONDS = 500, 1.0
"""In a queue of this length, how old the order may be that places are told from; whose turn it is, is looked up."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many may install at once; None for as many as there are."""

    fleet: int | None = None
    rack: int | None = None
    """In each rack."""

    @property
    def unlimited(self) -> bool:
        """Whether nobody ever waits."""
        return self.fleet is None and self.rack is None


UNLIMITED = Capacity()


class Installations(NamedTuple):
    """How many there are; nobody is counted where nobody ever waits."""

    under_way: int
    """They have a slot."""
    waiting: int


@dataclass(frozen=True, slots=True, order=True)
class _Waiter:
    since: datetime
    """When it came to Deploying: a restart and a retry change nothing of that."""
    uid: str
    key: Key = field(compare=False)
    rack: str = field(compare=False)

    @property
    def namespace(self) -> str:
        return self.key.namespace


@dataclass(frozen=True, slots=True)
class _Holder:
    namespace: str
    rack: str
    until: datetime


class Installs:
    """The machines that install and those that wait for it. Belongs to one event loop; answers at once."""

    def __init__(self, capacity: Capacity = UNLIMITED, clock: Callable[[], datetime] | None = None) -> None:
        self._capacity = capacity
        self._clock = clock or (lambda: datetime.now(UTC))
        self._holding: dict[str, _Holder] = {}
        self._waiting: dict[str, _Waiter] = {}
        self._lanes: dict[tuple[str, str], list[_Waiter]] = defaultdict(list)
        """By namespace and rack, those that wait, in the order of their operations."""
        self._going: dict[str, _Holder] = {}
        """Who was told to go on: the next record of each says that it does."""
        self._told: dict[str, Place] = {}
        self._order: dict[str, int] = {}
        self._ordered_at = float("-inf")

    def note(self, machine: Machine) -> set[Key]:
        """A machine's record has changed; returns whose turn has come with it."""
        if self._capacity.unlimited:
            return set()
        had_slot, waited = self._leave(machine.uid)
        operation = machine.status.operation
        if _installing(machine.status) and operation is not None:
            if operation.step in _LOADING:
                self._holding[machine.uid] = _Holder(machine.key.namespace, machine.rack, operation.deadline)
                return set()
            if _ready_to_begin(machine, operation, self._clock()):
                self._join(machine, _came_at(machine.status, operation))
                return self._called() if had_slot else set()
        self._told.pop(machine.uid, None)
        return self._called() if had_slot or waited else set()

    def forget(self, uid: str) -> set[Key]:
        """A machine's record is gone; returns whose turn has come with it."""
        self._told.pop(uid, None)
        return self._called() if any(self._leave(uid)) else set()

    def place(self, machine: Machine, *, take: bool) -> Place | None:
        """Its place among those that wait, or None if it may install; with `take` it has a slot from then on.

        One whose operation isn't recorded yet is let through while there is room, and else waits once that is recorded.
        """
        uid, operation = machine.uid, machine.status.operation
        if self._capacity.unlimited or uid in self._holding or self._promised(uid) or _held_up(machine):
            return None
        recorded = _installing(machine.status) and operation is not None
        if recorded and operation is not None and operation.step != Stage.START:
            return None
        now = self._clock()
        if not recorded and machine.status.phase not in _AT_REST:
            return Place(len(self._waiting) + 1, len(self._waiting) + 1)
        since = _came_at(machine.status, operation) if recorded and operation is not None else now
        waiter = self._waiting.get(uid) or self._join(machine, since)
        called = any(each.uid == uid for each in self._next())
        if called and take:
            until = _NEVER if recorded else now + timedelta(seconds=_PROMISE_SECONDS)
            self._leave(uid)
            self._going[uid] = _Holder(waiter.namespace, waiter.rack, until)
            self._told.pop(uid, None)
            return None
        place = None if called else self._tell(uid)
        if operation is None or not recorded or not _ready_to_begin(machine, operation, now):
            self._leave(uid)
        return place

    def counts(self) -> Installations:
        """How many have a slot, and how many wait for one."""
        return Installations(len(self._slots()), len(self._waiting))

    def _promised(self, uid: str) -> bool:
        return uid in self._going and self._going[uid].until > self._clock()

    # --- who waits -----------------------------------------------------------------------------------------------

    def _join(self, machine: Machine, since: datetime) -> _Waiter:
        waiter = _Waiter(since, machine.uid, machine.key, machine.rack)
        self._waiting[machine.uid] = waiter
        insort(self._lanes[waiter.namespace, waiter.rack], waiter)
        return waiter

    def _leave(self, uid: str) -> tuple[bool, bool]:
        """Whether it had a slot, and whether it waited for one."""
        held, waiter = self._holding.pop(uid, None), self._waiting.pop(uid, None)
        if waiter is not None:
            lane = self._lanes[waiter.namespace, waiter.rack]
            lane.remove(waiter)
            if not lane:
                del self._lanes[waiter.namespace, waiter.rack]
        return held is not None or self._going.pop(uid, None) is not None, waiter is not None

    # --- whose turn it is ----------------------------------------------------------------------------------------

    def _slots(self) -> list[tuple[str, str]]:
        """Namespace and rack of each slot that is taken."""
        now = self._clock()
        both = (*self._holding.values(), *self._going.values())
        return [(each.namespace, each.rack) for each in both if each.until > now]

    def _next(self) -> Iterator[_Waiter]:
        """Whose turn it is, as many as there are free slots."""
        taken = self._slots()
        tenants, racks = Counter(namespace for namespace, _ in taken), Counter(rack for _, rack in taken)
        free = None if self._capacity.fleet is None else self._capacity.fleet - len(taken)
        heads = dict.fromkeys(self._lanes, 0) if free is None or free > 0 else {}
        while heads and (free is None or free > 0):
            fitting = [each for each in heads if self._capacity.rack is None or racks[each[1]] < self._capacity.rack]
            if not fitting:
                return
            lane = min(fitting, key=lambda each: (tenants[each[0]], racks[each[1]], self._lanes[each][heads[each]]))
            chosen = self._lanes[lane][heads[lane]]
            yield chosen
            tenants[lane[0]] += 1
            racks[lane[1]] += 1
            free = None if free is None else free - 1
            heads[lane] += 1
            if heads[lane] == len(self._lanes[lane]):
                del heads[lane]

    def _called(self) -> set[Key]:
        return {each.key for each in self._next()}

    # --- what is told of it --------------------------------------------------------------------------------------

    def _tell(self, uid: str) -> Place:
        """Its place, and the one that it was told before while that is still about right: to tell is to write."""
        waiting = len(self._waiting)
        if waiting < _LONG or time.monotonic() - self._ordered_at > _ORDER_SECONDS:
            self._order = self._ordered()
            self._ordered_at = time.monotonic()
        now = Place(self._order.get(uid, waiting), waiting)
        before = self._told.get(uid)
        if before is None or not _about(before.number, now.number) or not _about(before.of, now.of):
            self._told[uid] = before = now
        return before

    def _ordered(self) -> dict[str, int]:
        """The place of each that waits, as if slots came one by one and every rack had room."""
        tenants = Counter(namespace for namespace, _ in self._slots())
        queues: dict[str, list[_Waiter]] = defaultdict(list)
        for (namespace, _), waiters in self._lanes.items():
            queues[namespace].extend(waiters)
        turns: list[tuple[int, _Waiter]] = []
        for namespace, waiters in queues.items():
            turns.extend((tenants[namespace] + ahead, each) for ahead, each in enumerate(sorted(waiters)))
        return {waiter.uid: number for number, (_, waiter) in enumerate(sorted(turns), start=1)}


def _about(told: int, now: int) -> bool:
    return told == now if min(told, now) <= _EXACT else abs(told - now) * 5 <= told


def _installing(status: BareMetalMachineStatus) -> bool:
    operation = status.operation
    return status.phase is Phase.DEPLOYING and operation is not None and operation.name is OperationName.DEPLOY


def _came_at(status: BareMetalMachineStatus, operation: Operation) -> datetime:
    return status.phase_since or operation.began_at


def _ready_to_begin(machine: Machine, operation: Operation, now: datetime) -> bool:
    """Whether it would go on at once if it was its turn: nobody waits behind one that is held up by something else."""
    waits_to_retry = operation.next_retry_at is not None and operation.next_retry_at > now
    held_up = _held_up(machine) or _stalled(machine.status)
    return operation.step == Stage.START and not held_up and not waits_to_retry


def _held_up(machine: Machine) -> bool:
    """Whether the life-cycle doesn't go on to install it, slot or no slot."""
    spec = machine.spec
    return machine.deleting or spec.locked or spec.broken is not None or spec.bmc is None or spec.deployment is None


def _stalled(status: BareMetalMachineStatus) -> bool:
    return any(each.type == ConditionType.STALLED and each.status == "True" for each in status.conditions)
