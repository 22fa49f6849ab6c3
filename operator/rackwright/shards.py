"""The shards of the fleet that this operator holds: a Lease each, shared among however many operators there are.

Every operator watches all machines and acts on those of its shards. The Leases are all that operators know of each
other: who holds which, how many shards there are by its holder's account, and where its machines reach it.

With one shard, which is what nobody asked anything else for, this is one operator that leads and others that stand by.

Two operators that were started with different numbers of shards must not both act, for a machine would be in two. So
each that takes a Lease reads all Leases afterwards, and gives it back if somebody with another number holds one. Both
write before they read: of two at once, at least one sees the other.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from rackwright.api import GROUP
from rackwright.assignment import Holders, Plan, asks_for, excess, gives_up, shard_of
from rackwright.fence import Mandate
from rackwright.kube import Cluster, ClusterError
from rackwright.lease import WANTED, Leadership, Sighting, Terms
from rackwright.record import Machine

LEASE = "rackwright"
"""Of shard 0; the others' end in their number."""
SHARDS = f"{GROUP}/shards"
"""Annotation of a Lease: how many shards there are, 1 where it is missing."""
URL = f"{GROUP}/url"
"""Annotation of a Lease: where machines reach its holder."""
WATCH_SECONDS = 600
HESITATION_SECONDS = 0.5
"""For which a free shard is left to others, for each that an operator has more than they."""
GIVEN_UP_SECONDS = 2.0
"""Longer than it takes whoever asked for a shard to take it."""
ASK_SECONDS = 10.0
"""After which an operator asks again that wasn't heard."""

_OURS = re.compile(rf"{LEASE}(-[0-9]+)?")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ours:
    """This operator acts on the machine, as long as the mandate holds."""

    mandate: Mandate


@dataclass(frozen=True, slots=True)
class Theirs:
    """Another operator does, or will."""


@dataclass(frozen=True, slots=True)
class ToBeMoved:
    """Nobody acts on the machine before it is written down what puts it into a shard, and that is ours to do."""

    key: str
    mandate: Mandate


Jurisdiction = Ours | Theirs | ToBeMoved
Leave: TypeAlias = Callable[[int], Awaitable[Collection[str]]]


class Shards:
    """What this operator holds. `stand_by`, then `keep`; `release` at the end."""

    def __init__(
        self, cluster: Cluster, namespace: str, identity: str, plan: Plan, url: str, terms: Terms | None = None
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._identity = identity
        self._plan = plan
        self._url = url
        self._terms = terms or Terms()
        annotations = {SHARDS: str(plan.shards), URL: url} if plan.shards > 1 else {}
        self._leases = {
            shard: Leadership(cluster, namespace, lease_name(shard), identity, self._terms, annotations=annotations)
            for shard in range(plan.shards)
        }
        self._sightings: dict[str, Sighting] = {}
        """Of all Leases that are like ours, by name."""
        self._confirmed: set[int] = set()
        """The shards whose Lease was taken, and which nobody divides differently."""
        self._leaving: set[int] = set()
        self._news = asyncio.Event()
        self._said = ""

    @property
    def alone(self) -> bool:
        """Whether the fleet is one shard, and who doesn't hold it has nothing to do."""
        return self._plan.shards == 1

    def holds(self, shard: int = 0) -> bool:
        """Whether acting on this shard's machines is safe right now."""
        return shard in self._confirmed and self._leases[shard].holds()

    def held(self) -> list[int]:
        """The shards that are held right now."""
        return [shard for shard in self._leases if self.holds(shard)]

    def holds_any(self) -> bool:
        """Whether any shard is."""
        return any(self.holds(shard) for shard in self._confirmed)

    def mandate(self, shard: int) -> Mandate:
        """The right to act on a shard's machines, from now until it is lost or given up."""
        return self._leases[shard].mandate() if shard in self._confirmed else lambda: False

    def of(self, machine: Machine) -> int:
        """The shard that a machine is in: where it was put, until that shard's operator has let go of it."""
        return shard_of(machine.sharded_by or machine.shard_key or str(machine.key), self._plan.shards)

    def jurisdiction(self, machine: Machine) -> Jurisdiction:
        """Whether this operator acts on a machine.

        What puts a machine into its shard can change while something is being done to it. So it is written down, and
        only the operator that acts on it writes down another, between two passes. A machine that is in no
        shard yet is put there by whose it would be; of two that disagree about that, one has seen an older record, and
        the API server refuses its write.
        """
        shard = self.of(machine)
        if shard in self._leaving or not self.holds(shard):
            return Theirs() if not self.alone else Ours(self.mandate(0))
        if not self.alone and machine.sharded_by != machine.shard_key:
            return ToBeMoved(machine.shard_key, self.mandate(shard))
        return Ours(self.mandate(shard))

    def holder_url(self, shard: int) -> str | None:
        """Where machines reach the operator that holds a shard; None where nobody does, as far as is known."""
        seen = self._leases[shard].seen
        if seen is None or seen.left(self._terms.duration) <= 0:
            return None
        return seen.annotations.get(URL)

    # --- taking and giving up ------------------------------------------------------------------------------------

    async def stand_by(self) -> None:
        """Return when there is a reason to watch machines: at once, unless one operator does everything."""
        if not self.alone:
            return
        async with self._watched():
            await self._take(0)

    async def keep(self, taken: Callable[[int], None], leave: Leave) -> None:
        """Hold what this operator should; return when a Lease was lost that it didn't give up.

        `taken` is told of each shard from when it may be acted upon. `leave` is told of each that another operator is
        to have: it returns when nothing is begun with its machines any more, with the BMCs that haven't answered yet.
        """
        if self.alone:
            taken(0)
            async with self._watched():
                await self._leases[0].keep()
            return
        tasks = [asyncio.create_task(self._contend(shard, taken, leave)) for shard in sorted(self._plan.mine)]
        tasks += [asyncio.create_task(self._watch()), asyncio.create_task(self._balance())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _ended(*tasks)

    async def release(self, unfinished: Collection[str] = ()) -> None:
        """Give everything up; `unfinished` are the BMCs that haven't answered yet. `keep` has ended by then."""
        self._confirmed.clear()
        await asyncio.gather(*(lease.release(unfinished) for lease in self._leases.values()))

    def withdraw(self, *shards: int) -> None:
        """Whoever is in the middle of something with these shards' machines is to stop."""
        for shard in shards:
            self._leases[shard].withdraw()

    def unfinished(self, shard: int) -> Collection[str]:
        """The BMCs that may still be at what the operator asked that had this shard before and gave it up."""
        return self._leases[shard].unfinished

    async def _contend(self, shard: int, taken: Callable[[int], None], leave: Leave) -> None:
        """Take a shard, keep it, give it up when another operator is to have it, and again; return when it was lost."""
        lease = self._leases[shard]
        while True:
            await self._take(shard)
            self._tell()
            taken(shard)
            keeping, leaving = asyncio.create_task(lease.keep()), asyncio.create_task(self._left(shard, leave))
            try:
                await asyncio.wait({keeping, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if keeping.done():
                    return
                unfinished = leaving.result()
            finally:
                await _ended(keeping, leaving)
            self._confirmed.discard(shard)
            await lease.release(unfinished)
            self._leaving.discard(shard)
            await asyncio.sleep(GIVEN_UP_SECONDS)

    async def _take(self, shard: int) -> None:
        """Return when a shard is held, and nobody acts who divides the fleet differently."""
        lease = self._leases[shard]
        while True:
            while (other := self._otherwise()) is not None:
                self._say(f"standing by: {other}")
                await asyncio.sleep(self._terms.period)
            await lease.acquire(self._hesitation)
            try:
                for each in await self._cluster.leases(self._namespace, seconds=self._terms.deadline / 2):
                    self._heard(each)
            except ClusterError as error:
                _log.warning("%s; nothing is done before it is known whether another operator acts", error)
            else:
                if self._otherwise() is None and lease.holds():
                    self._confirmed.add(shard)
                    return
            await lease.release(lease.unfinished)
            await asyncio.sleep(self._terms.period * random.uniform(0.5, 1.5))  # noqa: S311 (spreads, guards nothing)

    async def _left(self, shard: int, leave: Leave) -> Collection[str]:
        """Return when another operator is to have this shard and nothing is begun with its machines any more."""
        while (to := self._wanted_by(shard)) is None:
            await self._news.wait()
        _log.info("shard %d goes to %s, which has fewer", shard, to)
        self._leaving.add(shard)
        return await leave(shard)

    def _wanted_by(self, shard: int) -> str | None:
        """Who asks for a shard, if it is to have it."""
        seen = self._leases[shard].seen
        to = seen.annotations.get(WANTED) if seen is not None else None
        return to if to and gives_up(self._holders(), self._identity, to) else None

    async def _balance(self) -> None:
        """Ask for shards as long as another operator has more than is fair."""
        asked = -math.inf
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._terms.period):
                    await self._news.wait()
            holders = self._holders()
            mine = {shard for shard in self._plan.mine if not self._leases[shard].refused}
            shard = asks_for(holders, self._identity, mine)
            if shard is None or not holders.keys() >= mine or self._otherwise() is not None:
                continue  # what is free comes first; and who divides the fleet differently waits for the others' end
            seen = self._leases[shard].seen
            already = seen is not None and seen.annotations.get(WANTED) == self._identity
            if already and time.monotonic() - asked < ASK_SECONDS:
                continue
            asked = time.monotonic()
            with suppress(ClusterError):
                await self._leases[shard].ask_for()

    def _hesitation(self) -> float:
        """Seconds for which what is free is left to those that have fewer."""
        return min(HESITATION_SECONDS * excess(self._holders(), self._identity), GIVEN_UP_SECONDS)

    def _holders(self) -> Holders:
        """Who holds which shard, as if what is being left had gone already."""
        found: dict[int, str] = {}
        for shard, lease in self._leases.items():
            seen = lease.seen
            if shard in self._leaving and seen is not None:
                found[shard] = seen.annotations.get(WANTED) or ""
            elif lease.holds():
                found[shard] = self._identity
            elif seen is not None and seen.left(self._terms.duration) > 0 and seen.holder != self._identity:
                found[shard] = seen.holder
        return found

    def _otherwise(self) -> str | None:
        """Who divides the fleet into another number of shards, in a sentence."""
        for seen in self._sightings.values():
            shards = seen.annotations.get(SHARDS, "1")
            lives = seen.holder not in ("", self._identity) and seen.left(self._terms.duration) > 0
            if lives and shards != str(self._plan.shards):
                return f"{seen.holder} shares {shards} shards, and here there are {self._plan.shards}"
        return None

    # --- what is heard of Leases ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Hear of Leases meanwhile."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            await _ended(watching)

    async def _watch(self) -> None:
        """Hear of every Lease that changes; runs until cancelled. Without it, they are read every few seconds."""
        while True:
            try:
                async with aclosing(self._cluster.lease_changes(self._namespace, seconds=WATCH_SECONDS)) as changes:
                    async for lease in changes:
                        self._heard(lease)
            except ClusterError as error:
                _log.warning("%s", error)
            await asyncio.sleep(self._terms.period / 2)

    def _heard(self, lease: Mapping[str, Any]) -> None:
        name = str(lease["metadata"]["name"])
        if not _OURS.fullmatch(name):
            return
        self._sightings[name] = Sighting.of(lease, self._sightings.get(name))
        for shard, each in self._leases.items():
            if name == lease_name(shard):
                each.heard(lease)
        self._tell()

    def _say(self, sentence: str) -> None:
        """Log what is so for a while, once."""
        if sentence != self._said:
            _log.info("%s", sentence)
        self._said = sentence

    def _tell(self) -> None:
        """Have everybody look who waits for news."""
        self._news.set()
        self._news = asyncio.Event()


def lease_name(shard: int) -> str:
    """Of a shard's Lease."""
    return f"{LEASE}-{shard}" if shard else LEASE


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
