"""Leadership: one operator acts, by a Lease; a standby takes over when the holder stops renewing it.

A leader that can't renew stops acting *before* another may start: `holds` is measured on this machine's own
monotonic clock against a deadline shorter than the Lease's duration, and asked before each action. Times written by
other machines are never compared with ours: a holder is gone when its Lease hasn't changed for its whole duration.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rackwright.kube import Cluster, ClusterError, Conflict

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


class Leadership:
    """One candidate for one Lease."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, identity: str, terms: Terms | None = None) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._terms = terms or Terms()
        self._renewed = float("-inf")
        self._written: dict[str, Any] | None = None
        self._seen: tuple[object, float] = (None, time.monotonic())

    def holds(self) -> bool:
        """Whether acting is safe right now."""
        return time.monotonic() - self._renewed < self._terms.deadline

    async def acquire(self) -> None:
        """Return when this candidate is the leader."""
        told = False
        while not await self._renew():
            if not told:
                _log.info("standing by: another operator holds the Lease %s/%s", self._namespace, self._name)
                told = True
            await asyncio.sleep(self._terms.period)
        _log.info("leading: holds the Lease %s/%s", self._namespace, self._name)

    async def keep(self) -> None:
        """Renew until leadership is lost, then return."""
        while self.holds():
            with suppress(TimeoutError):  # a request that hangs is not waited for beyond the deadline
                async with asyncio.timeout(self._renewed + self._terms.deadline - time.monotonic()):
                    await asyncio.sleep(self._terms.period)
                    await self._renew()

    async def release(self) -> None:
        """Give the Lease up, so that a standby needn't wait for it to run out."""
        if not self.holds():
            return
        self._renewed = float("-inf")
        self._written = None
        try:
            lease = await self._read()
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._write({**lease, "spec": spec})
        except ClusterError as error:
            _log.warning("the Lease could not be given up: %s", error)

    async def _renew(self) -> bool:
        """Take the Lease or keep it. A holder writes upon its own last version: whoever wrote since is a conflict."""
        asked = time.monotonic()
        try:
            lease = self._written or await self._read()
            if lease is not None and not self._mine_to_take(lease):
                return False
            self._written = await self._write(self._claim(lease))
        except Conflict:
            self._written = None
            return False
        except ClusterError as error:
            _log.warning("the Lease could not be renewed: %s", error)
            return False
        self._renewed = asked
        return True

    def _mine_to_take(self, lease: Mapping[str, Any]) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, time.monotonic())
        return time.monotonic() - self._seen[1] > float(spec.get("leaseDurationSeconds") or self._terms.duration)

    def _claim(self, lease: Mapping[str, Any] | None) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = (lease or {}).get("spec") or {}
        same = before.get("holderIdentity") == self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": (lease or {}).get("metadata") or {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": round(self._terms.duration),
                "acquireTime": before.get("acquireTime") if same else now,
                "renewTime": now,
                "leaseTransitions": before.get("leaseTransitions", 0) + (0 if same else 1),
            },
        }

    async def _read(self) -> dict[str, Any] | None:
        return await self._cluster.lease(self._namespace, self._name, seconds=self._terms.deadline / 2)

    async def _write(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._cluster.put_lease(self._namespace, self._name, body, seconds=self._terms.deadline / 2)
