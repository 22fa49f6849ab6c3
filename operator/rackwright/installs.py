"""Who may install now, and who waits for it: so many in the fleet and in each rack, in an order that starves nobody.

An installation loads a ramdisk and an image, and ten thousand at once would take the network from everybody. A machine
has a *slot* from its attempt's first step until its image is written, and waits at the attempt's start before anything
is done to it.

No slot is handed out that could be lost: who has one is read off the records, so that it is free again whatever becomes
of the attempt, and an operator that was restarted knows the same. A slot ends with its attempt's deadline at the
latest, because a machine that is locked meanwhile has nobody who would fail it. All that is kept beside the records is
who was told to go on and hasn't been recorded yet, which ends with the machine's next record; and what `rota.py`
remembers, by which turns go round among namespaces.

Operators that share a fleet share its slots by their shards. Each gives turns to its own machines alone and has a part
of the slots for them, because it learns of what another begins only by its watch: were there one pool, each would fill
it by itself before it hears of the others. What one operator's machines don't need isn't lent to another's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from rackwright.api.conditions import ConditionType
from rackwright.api.machine import BareMetalMachineStatus, Operation, OperationName, Phase
from rackwright.lifecycle.steps import Stage
from rackwright.lifecycle.world import Place
from rackwright.record import Key, Machine
from rackwright.rota import Rota, Spot, Waiter

_LOADING = frozenset({Stage.POWER_OFF, Stage.BOOT_RAMDISK, Stage.WRITE_IMAGE})
_AT_REST = frozenset({Phase.READY, Phase.ALLOCATED, Phase.DEPLOYED})
"""Where an installation begins in the very pass that finds it wanted."""
_PROMISE_SECONDS = 30.0
"""How long after its turn an installation may take to be recorded; it isn't begun after that without another turn."""
_NEVER = datetime.max.replace(tzinfo=UTC)
_EXACT = 10
"""Up to this place every step forward is told; further back a machine is told when a fifth of its way is done."""
_LONG, _ORDER_SHARE = 100, 0.05
"""In a queue of this length places are told from an order that may be older, so that no more of the time than this goes
into foretelling it; whose turn it is, is looked up."""


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

    def part(self, held: int, shards: int, elsewhere: int) -> int | None:
        """How many an operator may have that holds so many of the shards, while other operators have so many slots.

        One at least, for nobody is to wait for ever.
        """
        if self.fleet is None or shards == 1:
            return self.fleet
        return max(1, min(self.fleet * held // shards, self.fleet - elsewhere))


UNLIMITED = Capacity()


class Installations(NamedTuple):
    """How many there are in the fleet; nobody is counted where nobody ever waits."""

    under_way: int
    """They have a slot."""
    waiting: int


class _Slot(NamedTuple):
    shard: int
    spot: Spot
    until: datetime
    begun: bool
    """Its record says so."""


class _Wait(NamedTuple):
    shard: int
    waiter: Waiter


class Installs:
    """The machines that install and those that wait for it. Belongs to one event loop; answers at once."""

    def __init__(self, capacity: Capacity = UNLIMITED, clock: Callable[[], datetime] | None = None) -> None:
        self._capacity = capacity
        self._clock = clock or (lambda: datetime.now(UTC))
        self._shards = 1
        self._shard_of: Callable[[Machine], int] = lambda _: 0
        self._held: Callable[[], Collection[int]] = lambda: (0,)
        self._ours = frozenset({0})
        """The shards to whose machines turns are given here."""
        self._slots: dict[str, _Slot] = {}
        """Of whoever has one, in the whole fleet: by its record, or because it was told to go on."""
        self._elsewhere = 0
        """How many of them aren't ours."""
        self._soonest = _NEVER
        """None of them ends by itself before."""
        self._waiting: dict[str, _Wait] = {}
        self._rota = Rota(capacity.fleet, capacity.rack)
        """Of those that are ours."""
        self._calls: dict[str, Key] | None = {}
        """Whose turn it is, unless that is to be found out."""
        self._told: dict[str, Place] = {}
        self._order: Mapping[str, int] = {}
        self._order_stands, self._order_lasts = True, 0.0

    def divide(self, shards: int, of: Callable[[Machine], int], held: Callable[[], Collection[int]]) -> None:
        """Give turns to the machines of those shards alone that are held; before any machine is known."""
        self._shards, self._shard_of, self._held = shards, of, held

    def note(self, machine: Machine) -> set[Key]:
        """A machine's record has changed; returns whose turn has come with it."""
        if self._capacity.unlimited:
            return set()
        self._catch_up()
        now, operation, slot, wait = self._clock(), machine.status.operation, None, None
        if _installing(machine.status) and operation is not None:
            if operation.step in _LOADING and operation.deadline > now:
                slot = self._slot(machine, operation.deadline, begun=True)
            elif _ready_to_begin(machine, operation, now):
                wait = self._wait(machine, _came_at(machine.status, operation))
        if wait is None:
            self._told.pop(machine.uid, None)
        return self._called_keys() if self._set(machine.uid, slot, wait) else set()

    def forget(self, uid: str) -> set[Key]:
        """A machine's record is gone; returns whose turn has come with it."""
        self._told.pop(uid, None)
        self._catch_up()
        return self._called_keys() if self._set(uid) else set()

    def called(self) -> set[Key]:
        """Whose turn it is now: more of them where a shard has come with its part of the slots."""
        self._catch_up()
        return self._called_keys()

    def place(self, machine: Machine, *, take: bool) -> Place | None:
        """Its place among those that wait, or None if it may install; with `take` it has a slot from then on.

        One whose operation isn't recorded yet is let through while there is room, and else waits once that is recorded.
        """
        uid, operation = machine.uid, machine.status.operation
        self._catch_up()
        if self._capacity.unlimited or uid in self._slots or _held_up(machine):
            return None
        recorded = _installing(machine.status) and operation is not None
        if recorded and operation is not None and operation.step != Stage.START:
            return None
        now = self._clock()
        if self._shard_of(machine) not in self._ours or not (recorded or machine.status.phase in _AT_REST):
            return Place(self._rota.waiting + 1, self._rota.waiting + 1)
        if uid not in self._waiting:
            since = _came_at(machine.status, operation) if recorded and operation is not None else now
            self._set(uid, wait=self._wait(machine, since))
        called = uid in self._called()
        if called and take:
            until = _NEVER if recorded else now + timedelta(seconds=_PROMISE_SECONDS)
            self._take(uid, self._slot(machine, until, begun=False))
            return None
        place = None if called else self._tell(uid)
        if operation is None or not recorded or not _ready_to_begin(machine, operation, now):
            self._set(uid)
        return place

    def counts(self) -> Installations:
        """How many have a slot, and how many wait for one."""
        self._catch_up()
        return Installations(len(self._slots), len(self._waiting))

    # --- who has a slot, who waits -------------------------------------------------------------------------------

    def _slot(self, machine: Machine, until: datetime, *, begun: bool) -> _Slot:
        return _Slot(self._shard_of(machine), Spot(machine.key.namespace, machine.rack), until, begun)

    def _wait(self, machine: Machine, since: datetime) -> _Wait:
        return _Wait(self._shard_of(machine), Waiter(since, machine.uid, machine.key, machine.rack))

    def _set(self, uid: str, slot: _Slot | None = None, wait: _Wait | None = None) -> bool:
        """What a machine has from now on, or waits for; whether others may get on by that."""
        had, waited = self._slots.pop(uid, None), self._waiting.pop(uid, None)
        if slot is not None:
            self._slots[uid] = slot
            self._soonest = min(self._soonest, slot.until)
        if wait is not None:
            self._waiting[uid] = wait
        self._count(had, slot)
        left, came = self._waiter(waited), self._waiter(wait)
        self._queue(left, came)
        return slot is None and (had is not None or (left is not None and came is None))

    def _count(self, had: _Slot | None, has: _Slot | None) -> None:
        """One slot is gone, another is there."""
        before, after = self._spot(had), self._spot(has)
        elsewhere = self._is_elsewhere(has) - self._is_elsewhere(had)
        if before == after and not elsewhere:
            return
        self._calls, self._order_stands = None, False
        if had is not None and before is not None:
            (self._rota.end if had.begun else self._rota.give_back)(before)
        if after is not None:
            self._rota.begin(after)
        self._elsewhere += elsewhere
        self._rota.most = self._capacity.part(len(self._ours), self._shards, self._elsewhere)

    def _queue(self, left: Waiter | None, came: Waiter | None) -> None:
        """One waits no more, another does."""
        if left == came:
            return
        self._calls, self._order_stands = None, False
        if left is not None:
            self._rota.leave(left)
        if came is not None:
            self._rota.join(came)

    def _take(self, uid: str, slot: _Slot) -> None:
        """Who is called has its slot; the others are called as before."""
        others = {each: key for each, key in self._called().items() if each != uid}
        self._told.pop(uid, None)
        self._set(uid, slot)
        self._calls = others

    def _spot(self, slot: _Slot | None) -> Spot | None:
        """What a slot of ours counts for."""
        return slot.spot if slot is not None and slot.shard in self._ours else None

    def _is_elsewhere(self, slot: _Slot | None) -> bool:
        return slot is not None and slot.shard not in self._ours

    def _waiter(self, wait: _Wait | None) -> Waiter | None:
        """Who waits, if that is for a turn of ours."""
        return wait.waiter if wait is not None and wait.shard in self._ours else None

    def _catch_up(self) -> None:
        """Slots whose time is over come back, and the shards that are held by now are ours."""
        now, ours = self._clock(), frozenset(self._held())
        if now >= self._soonest:
            for uid in [uid for uid, slot in self._slots.items() if slot.until <= now]:
                self._set(uid)
            self._soonest = min((slot.until for slot in self._slots.values()), default=_NEVER)
        if ours != self._ours:
            self._ours = ours
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Other machines are ours now."""
        self._calls, self._order_stands = None, False
        self._elsewhere = sum(map(self._is_elsewhere, self._slots.values()))
        self._rota = Rota(self._capacity.part(len(self._ours), self._shards, self._elsewhere), self._capacity.rack)
        for slot in self._slots.values():
            if (spot := self._spot(slot)) is not None:
                self._rota.begin(spot)
        for wait in self._waiting.values():
            if (waiter := self._waiter(wait)) is not None:
                self._rota.join(waiter)

    # --- whose turn it is, and what is told of it ----------------------------------------------------------------

    def _called(self) -> Mapping[str, Key]:
        if self._calls is None:
            self._calls = {waiter.uid: waiter.key for waiter in self._rota.calls()}
        return self._calls

    def _called_keys(self) -> set[Key]:
        return set(self._called().values())

    def _tell(self, uid: str) -> Place:
        """Its place, and the one that it was told before while that is still about right: to tell is to write."""
        waiting = self._rota.waiting
        now = Place(self._places().get(uid, waiting), waiting)
        before = self._told.get(uid)
        if before is None or not _about(before.number, now.number) or not _about(before.of, now.of):
            self._told[uid] = before = now
        return before

    def _places(self) -> Mapping[str, int]:
        """The place of each that waits, if slots come back in the order of their deadlines."""
        begun = time.monotonic()
        if not self._order_stands and (self._rota.waiting < _LONG or begun > self._order_lasts):
            slots = sorted(self._slots.values(), key=lambda slot: slot.until)
            spots = [spot for slot in slots if (spot := self._spot(slot)) is not None]
            self._order = {each.uid: number for number, each in enumerate(self._rota.foretold(spots), start=1)}
            self._order_stands = True
            ended = time.monotonic()
            self._order_lasts = ended + (ended - begun) / _ORDER_SHARE
        return self._order


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
    return any(each.type == ConditionType.STALLED and each.status == "True" for each in status.own_conditions)
