"""Leadership: one operator acts, by a Lease; another takes over when the holder stops renewing it or gives it up.

A leader that can't renew stops acting *before* another may start: `holds` is measured on this machine's own
monotonic clock against a deadline shorter than the Lease's duration, and asked before whatever is sent (`fence`). Times
written by other machines are never compared with ours: a holder is gone when nothing it wrote into its Lease has
changed for its whole duration.

That clock stands still while a virtual machine is paused: an operator that goes on afterwards may hold its Lease by it
when another one has it. So whoever sees that another took it after its own last renewal has lost it at once.

What a watch tells of the Lease is taken in by `heard`, so that one that is given up is taken at once. Without a watch
it is read every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rackwright.api import GROUP
from rackwright.fence import Mandate
from rackwright.kube import Cluster, ClusterError, Conflict, Gone, Refused

WANTED = f"{GROUP}/wanted-by"
"""Annotation of a Lease: who asks its holder for it."""
UNFINISHED = f"{GROUP}/unfinished-bmcs"
"""Annotation of a Lease that was given up: the BMCs that had not answered its holder by then, separated by spaces."""
RELEASE_TRIES = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things last, in seconds; as kube-controller-manager's, a standby takes over within `duration`."""

    duration: float = 15.0
    """Of the Lease: how long a silent holder keeps it."""
    deadline: float = 10.0
    """After the last renewal, the holder stops acting."""
    period: float = 2.0
    """Between renewals."""


@dataclass(slots=True)
class Sighting:
    """A Lease as it was last seen, and since when its holder has written nothing new into it."""

    spec: Mapping[str, Any]
    annotations: Mapping[str, str]
    since: float
    """By the monotonic clock."""

    @classmethod
    def of(cls, lease: Mapping[str, Any], before: Sighting | None) -> Sighting:
        """What is seen now; somebody else's annotation, or an answer that came late, is no sign of life."""
        spec = lease.get("spec") or {}
        sight = cls(spec, lease["metadata"].get("annotations") or {}, time.monotonic())
        if before is not None and before._written == sight._written:  # noqa: SLF001 (of its own kind)
            sight.since = before.since
        return sight

    @property
    def holder(self) -> str:
        """Who holds it, empty for nobody."""
        return str(self.spec.get("holderIdentity") or "")

    @property
    def _written(self) -> tuple[Any, ...]:
        """What a holder's every write changes, whichever way a time is spelt."""
        renewed = self.spec.get("renewTime")
        with suppress(TypeError, ValueError):
            renewed = datetime.fromisoformat(str(renewed)).timestamp()
        return self.holder, self.spec.get("leaseTransitions"), renewed

    def left(self, duration: float) -> float:
        """Seconds until the holder has lost it, if nothing more is heard; `duration` where it doesn't say."""
        if not self.holder:
            return 0.0
        return self.since + float(self.spec.get("leaseDurationSeconds") or duration) - time.monotonic()


class Leadership:
    """One candidate for one Lease."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        terms: Terms | None = None,
        *,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """`annotations` are what the Lease says of its holder while it is this one."""
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._terms = terms or Terms()
        self._annotations = dict(annotations or {})
        self.unfinished: frozenset[str] = frozenset()
        """The BMCs that had not answered whoever gave the Lease up before this candidate took it."""
        self._renewed = float("-inf")
        self._mandate = 0
        self._claimed: tuple[int, int] | None = None
        """Version and transitions of the Lease as this candidate last wrote it; None once it is given up or lost."""
        self._written: dict[str, Any] | None = None
        self._seen: Sighting | None = None
        self._free = asyncio.Event()
        self.refused = False
        """Whether the API server doesn't let this candidate have the Lease, whoever holds it."""

    def holds(self) -> bool:
        """Whether acting is safe right now."""
        return time.monotonic() - self._renewed < self._terms.deadline

    def mandate(self) -> Mandate:
        """The right to act from now until the Lease is lost, given up, or the right is withdrawn; never again then."""
        mine = self._mandate
        return lambda: self._mandate == mine and self.holds()

    def withdraw(self) -> None:
        """End every mandate so far, and keep the Lease: whoever is in the middle of something is to stop."""
        self._mandate += 1

    @property
    def seen(self) -> Sighting | None:
        """The Lease as it was last seen, None if it never was."""
        return self._seen

    def heard(self, lease: Mapping[str, Any]) -> None:
        """Take in what a watch tells, which may be late."""
        self._seen = Sighting.of(lease, self._seen)
        if not self._seen.holder:
            self._free.set()
        if self._is_later(lease) and self._was_taken(lease):
            self._lose()

    async def acquire(self, hesitation: Callable[[], float] = lambda: 0.0) -> None:
        """Return when this candidate is the leader.

        `hesitation` says for how many seconds a Lease that is free is left to others.
        """
        told = False
        while True:
            self._free.clear()
            if await self._renew(hesitation):
                break
            if not told and self._is_anothers():
                _log.info("standing by: another operator holds the Lease %s/%s", self._namespace, self._name)
                told = True
            left = self._seen.left(self._terms.duration) if self._seen is not None else 0.0
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._terms.period, left) if left > 0 else self._terms.period):
                    await self._free.wait()
        _log.info("leading: holds the Lease %s/%s", self._namespace, self._name)

    async def keep(self) -> None:
        """Renew until leadership is lost, then return."""
        while self.holds():
            with suppress(TimeoutError):  # a request that hangs is not waited for beyond the deadline
                async with asyncio.timeout(self._renewed + self._terms.deadline - time.monotonic()):
                    await asyncio.sleep(self._terms.period)
                    if self.holds():
                        await self._renew()

    async def release(self, unfinished: Collection[str] = ()) -> None:
        """Give the Lease up, so that a standby needn't wait for it to run out. Nobody may be renewing it meanwhile.

        `unfinished` are the BMCs that may still be at something that was asked by this Lease: whoever takes it is told.
        """
        if not self.holds():
            return
        self.withdraw()
        self._renewed, self._claimed = float("-inf"), None
        lease, self._written = self._written, None
        for _ in range(RELEASE_TRIES):
            try:
                await self._give_up(lease or await self._read(), unfinished)
            except Conflict:
                lease = None  # somebody asked for it, or our own last renewal was still on its way
            except ClusterError as error:
                _log.warning("the Lease could not be given up: %s", error)
                return
            else:
                return

    async def ask_for(self) -> None:
        """Ask whoever holds it to give it up; nothing happens where nobody does."""
        lease = await self._read()
        if lease is None or not (lease.get("spec") or {}).get("holderIdentity"):
            return
        metadata = lease["metadata"]
        wanted = {**(metadata.get("annotations") or {}), WANTED: self._identity}
        await self._write({**lease, "metadata": {**metadata, "annotations": wanted}})

    async def _give_up(self, lease: Mapping[str, Any] | None, unfinished: Collection[str]) -> None:
        if lease is None or lease["spec"].get("holderIdentity") != self._identity:
            return
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        annotations = {UNFINISHED: " ".join(sorted(unfinished))} if unfinished else {}
        await self._write({**lease, "metadata": self._metadata(lease, annotations), "spec": spec})

    async def _renew(self, hesitation: Callable[[], float] = lambda: 0.0) -> bool:
        """Take the Lease or keep it. A holder writes upon its own last version: whoever wrote since is a conflict."""
        asked = time.monotonic()
        try:
            lease = self._written or await self._read()
            if self._was_taken(lease):
                self._lose()
                return False
            if not self._mine_to_take(lease):
                return False
            if not self._is_mine(lease) and (pause := hesitation()) > 0:
                await asyncio.sleep(pause)
                asked = time.monotonic()
            if not self._is_mine(lease):  # before it is: the answer to the write may be lost
                self.unfinished = _unfinished(lease)
            self._written = await self._write(self._claim(lease))
            self.refused = False
        except (Conflict, Gone):
            again, self._written = self._written is not None, None
            return again and await self._renew()  # somebody may only have asked for it, or deleted it
        except Refused as error:
            if not self.refused:
                _log.error(
                    "%s. Does the Role rackwright-operator in the namespace %s name this Lease? That of "
                    "manifests/base/rbac.yaml names those of 16 shards",
                    error, self._namespace,
                )  # fmt: skip
            self.refused = True
            return False
        except ClusterError as error:
            _log.warning("the Lease could not be renewed: %s", error)
            return False
        if not self._is_mine(lease):
            self.withdraw()  # whatever still runs from an earlier time that it was held
        self._renewed = asked
        self._claimed = _version(self._written), self._written["spec"]["leaseTransitions"]
        return True

    def _is_later(self, lease: Mapping[str, Any]) -> bool:
        return self._claimed is not None and _version(lease) > self._claimed[0]

    def _was_taken(self, lease: Mapping[str, Any] | None) -> bool:
        """Whether another has or had the Lease that this candidate took before."""
        if self._claimed is None or lease is None or self._is_mine(lease):
            return False
        spec = lease.get("spec") or {}
        return bool(spec.get("holderIdentity")) or spec.get("leaseTransitions") != self._claimed[1]

    def _lose(self) -> None:
        """Hold it no longer, whatever the clock says."""
        _log.warning("another operator has taken the Lease %s/%s", self._namespace, self._name)
        self.withdraw()
        self._renewed, self._claimed = float("-inf"), None

    def _is_mine(self, lease: Mapping[str, Any] | None) -> bool:
        return ((lease or {}).get("spec") or {}).get("holderIdentity") == self._identity

    def _mine_to_take(self, lease: Mapping[str, Any] | None) -> bool:
        """Whether nobody can hold it any more; a Lease that was deleted is its holder's for as long as it was."""
        return self._is_mine(lease) or not self._is_anothers()

    def _is_anothers(self) -> bool:
        """Whether another may hold it, by what was seen of it."""
        seen = self._seen
        return seen is not None and seen.holder not in {"", self._identity} and seen.left(self._terms.duration) >= 0

    def _claim(self, lease: Mapping[str, Any] | None) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = (lease or {}).get("spec") or {}
        same = self._is_mine(lease)
        annotations = (lease or {"metadata": {}})["metadata"].get("annotations") or {} if same else {}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": self._metadata(lease, {**annotations, **self._annotations}),
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": round(self._terms.duration),
                "acquireTime": before.get("acquireTime") if same else now,
                "renewTime": now,
                "leaseTransitions": before.get("leaseTransitions", 0) + (0 if same else 1),
            },
        }

    def _metadata(self, lease: Mapping[str, Any] | None, annotations: Mapping[str, str]) -> dict[str, Any]:
        metadata = dict((lease or {}).get("metadata") or {"name": self._name, "namespace": self._namespace})
        metadata.pop("annotations", None)
        return {**metadata, "annotations": dict(annotations)} if annotations else metadata

    async def _read(self) -> dict[str, Any] | None:
        lease = await self._cluster.lease(self._namespace, self._name, seconds=self._terms.deadline / 2)
        if lease is not None:
            self._seen = Sighting.of(lease, self._seen)
        return lease

    async def _write(self, body: Mapping[str, Any]) -> dict[str, Any]:
        written = await self._cluster.put_lease(self._namespace, self._name, body, seconds=self._terms.deadline / 2)
        self._seen = Sighting.of(written, self._seen)
        return written


def _version(lease: Mapping[str, Any]) -> int:
    return int(lease["metadata"]["resourceVersion"])


def _unfinished(lease: Mapping[str, Any] | None) -> frozenset[str]:
    annotations = (lease or {"metadata": {}})["metadata"].get("annotations") or {}
    return frozenset(annotations.get(UNFINISHED, "").split())
