"""Machines that introduce themselves become records that nobody trusts: one for each machine, and not too many.

Who a machine is, and whether it is new, is decided in `inventory.enlistment`. Here it is written down: first the
machine, then its HardwareInventory, and only then is the report acknowledged; a crash in between is a report that the
agent sends again. One report is judged at a time, on what the one before it left.

Whatever a stranger makes us remember is bounded, and forgotten by a new operator, who finds out again at the price of
a detour: the machine boots the ramdisk once more, is recognised, and goes on to its disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, assert_never

from rackwright.agent.strangers import Enlisted, Introduction, NotYet, TurnedAway, Welcome
from rackwright.api import GROUP, VERSION
from rackwright.cache import Cache
from rackwright.events import Events
from rackwright.execute import INVENTORIES, MACHINES, inventory_of
from rackwright.fence import Fenced, fenced
from rackwright.inventory.enlistment import Enlist, Full, Known, Recognised, Stranger, judge, traits
from rackwright.inventory.report import Inspection, read
from rackwright.kube import Cluster, ClusterError, Conflict, Gone, Refused
from rackwright.logs import Line
from rackwright.metrics import Metrics, Outcome
from rackwright.observe import NO_OPERATION, KeptInventory, Observer
from rackwright.record import Key, Machine

INVITATIONS = 3
"""How often within `INVITED_SECONDS` one network card is sent to the ramdisk: a machine whose ramdisk fails to load, or
to report, ends up at its own disk instead of going round in circles."""
INVITED_SECONDS = 3600.0
TELL_SECONDS = 60.0
"""Between two words on machines that were turned away, however many ask."""
REMEMBERED = 4096
"""Network cards."""
_NAMES_TRIED = 5
"""In one report, while others take the names that it would have got."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EnlistmentSettings:
    """Enlistment as it was asked for."""

    namespace: str
    """Where machines that introduce themselves get their records."""
    at_most: int = 50
    """How many machines may wait for acceptance there."""


class _Recent(Generic[T]):
    """What is remembered of network cards: of the newest, and of no more than so many."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, T] = OrderedDict()

    def get(self, mac: str) -> T | None:
        """What is remembered of this one."""
        return self._entries.get(mac)

    def put(self, mac: str, entry: T) -> None:
        """Remember it, and forget the oldest if there are too many."""
        self._entries[mac] = entry
        self._entries.move_to_end(mac)
        if len(self._entries) > REMEMBERED:
            self._entries.popitem(last=False)

    def forget(self, mac: str) -> None:
        """Remember nothing of this one."""
        self._entries.pop(mac, None)


class Enlister:
    """Enlistment, switched on (`agent.strangers.Strangers`)."""

    def __init__(
        self,
        *,
        settings: EnlistmentSettings,
        cluster: Cluster,
        cache: Cache,
        observer: Observer,
        events: Events,
        metrics: Metrics,
        seen: Callable[[Mapping[str, Any]], None],
        wake: Callable[[str], None],
        may_act: Callable[[], bool],
    ) -> None:
        """`seen` takes a record into the cache, `wake` has the loop look at a machine, by uid."""
        self._settings = settings
        self._cluster = cluster
        self._cache = cache
        self._observer = observer
        self._events = events
        self._metrics = metrics
        self._seen = seen
        self._wake = wake
        self._may_act = may_act
        self._one_at_a_time = asyncio.Lock()
        self._invitations: _Recent[tuple[int, float]] = _Recent()
        """By network card: how many, and since when by the monotonic clock."""
        self._owners: _Recent[str] = _Recent()
        """By network card: the uid of the machine that a report said it belongs to."""
        self._turned_away = 0
        self._somebody_turned_away = asyncio.Event()

    # --- what the boot script asks -------------------------------------------------------------------------------

    def welcome(self, mac: str) -> Welcome:
        """What is offered to a network card that belongs to no known machine."""
        owner = self._owners.get(mac)
        if owner is not None and self._cache.with_uid(owner) is not None:
            return Welcome.SEEN
        count, since = self._invitations.get(mac) or (0, 0.0)
        if count >= INVITATIONS and time.monotonic() - since < INVITED_SECONDS:
            return Welcome.SEEN
        return Welcome.FULL if self._waiting >= self._settings.at_most else Welcome.OPEN

    def invited(self, mac: str) -> None:
        """It was sent to the ramdisk."""
        now = time.monotonic()
        count, since = self._invitations.get(mac) or (0, now)
        self._invitations.put(mac, (count + 1, since) if now - since < INVITED_SECONDS else (1, now))

    def turned_away(self) -> None:
        """Somebody was not, because enlistment is full."""
        self._metrics.enlistment(Outcome.FULL)
        self._turned_away += 1
        self._somebody_turned_away.set()

    async def tell(self) -> None:
        """Tell of those who were turned away, once in a while; runs until cancelled."""
        while True:
            await self._somebody_turned_away.wait()
            times, self._turned_away = self._turned_away, 0
            self._somebody_turned_away.clear()
            with suppress(Fenced):  # whoever leads now turns others away, and tells
                await self._events.enlistment_full(self._settings.namespace, self._settings.at_most, times)
            await asyncio.sleep(TELL_SECONDS)

    # --- a report ------------------------------------------------------------------------------------------------

    async def introduce(self, report: Mapping[str, Any]) -> Introduction:
        """Enlist the machine that a report describes, unless it is known."""
        inspection = read(report, datetime.now(UTC))
        stranger = Stranger.of(inspection)
        if stranger is None:
            return TurnedAway("The report names no network card with a MAC address of its own.")
        async with self._one_at_a_time:
            try:
                with fenced(self._may_act):
                    return await self._introduced(stranger, inspection)
            except Fenced:
                _log.info("a machine that introduced itself is left to the operator that leads now")
            except (Refused, Gone) as error:
                _log.error(
                    "a machine that introduced itself is not enlisted: %s. Does the namespace %s exist, and does the "
                    "operator have the rights of manifests/overlays/enlistment there?",
                    error, self._settings.namespace,
                )  # fmt: skip
            except ClusterError as error:
                _log.warning("a machine that introduced itself is not enlisted yet: %s", error)
            self._metrics.enlistment(Outcome.FAILED)
            return NotYet("The machine could not be enlisted: send the report again.")

    async def _introduced(self, stranger: Stranger, inspection: Inspection) -> Introduction:
        for _ in range(_NAMES_TRIED):
            if not self._may_act():
                return NotYet("Another operator leads, or will in a moment: send the report again.")
            verdict = judge(
                stranger,
                [machine.known() for machine in self._resembling(stranger)],
                taken=lambda name: self._cache.get(Key(self._settings.namespace, name)) is not None,
                waiting=self._waiting,
                at_most=self._settings.at_most,
            )
            match verdict:
                case Recognised(known):
                    return await self._recognised(known, stranger, inspection)
                case Full():
                    self.turned_away()
                    return TurnedAway("As many machines as may be new are waiting to be accepted.")
                case Enlist(name, spec):
                    machine = await self._create(name, spec)
                    if machine is not None:
                        return await self._keep(machine, stranger, inspection, Outcome.ENLISTED)
                case _ as never:
                    assert_never(never)
        return NotYet("Other records took its names: send the report again.")

    async def _recognised(self, known: Known, stranger: Stranger, inspection: Inspection) -> Introduction:
        machine = self._cache.with_uid(known.uid)
        if known.is_new and machine is not None:
            return await self._keep(machine, stranger, inspection, Outcome.RECOGNISED)
        self._remember(stranger, known.uid)
        self._metrics.enlistment(Outcome.RECOGNISED)
        _log.info(Line("it booted by itself from a network card that was not known to be its own", machine=known.name))
        return TurnedAway(f"It is {known.name}, which is not being booted into the ramdisk.")

    async def _create(self, name: str, spec: Mapping[str, Any]) -> Machine | None:
        """The new machine; None if there is another of its name, which is taken in."""
        namespace = self._settings.namespace
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "BareMetalMachine",
            "metadata": {"name": name, "namespace": namespace},
            "spec": dict(spec),
        }
        try:
            item = await self._cluster.create(MACHINES, namespace, body)
        except Conflict:
            if (there := await self._cluster.get(MACHINES, namespace, name)) is not None:
                self._seen(there)
            return None
        self._seen(item)
        _log.info(Line("enlisted", machine=f"{namespace}/{name}"))
        return self._cache.with_uid(item["metadata"]["uid"])

    async def _keep(
        self, machine: Machine, stranger: Stranger, inspection: Inspection, outcome: Outcome
    ) -> Introduction:
        """Write the machine's HardwareInventory unless it is there."""
        if await self._observer.inventory(machine) is None:
            report = inspection.report
            await self._cluster.apply(INVENTORIES, *machine.key, inventory_of(machine, report))
            self._observer.kept(machine, KeptInventory(NO_OPERATION, inspection.summary, tuple(report.disks)))
            self._wake(machine.uid)
        self._remember(stranger, machine.uid)
        for mac in stranger.hardware.mac_addresses:
            self._invitations.forget(mac)  # they led somewhere: should its record be deleted, it is invited anew
        self._metrics.enlistment(outcome)
        return Enlisted(machine.uid)

    def _resembling(self, stranger: Stranger) -> list[Machine]:
        return self._cache.resembling(traits(stranger.macs, stranger.bmc_host, stranger.hardware))

    def _remember(self, stranger: Stranger, uid: str) -> None:
        for mac in stranger.hardware.mac_addresses:
            self._owners.put(mac, uid)

    @property
    def _waiting(self) -> int:
        return self._cache.new_machines(self._settings.namespace)
