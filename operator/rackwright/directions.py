"""Where a machine, its agent or its system is to call, when it calls an operator that doesn't act on it.

What they say is kept in memory, so it has to reach the operator that holds the machine's shard. Any other answers 307,
with that one's address: ironic-python-agent and cloud-init follow it with the same method and body, and the machine
itself makes the call, so that the address that it comes from is still its own. What is asked of a record alone, which
script to boot by, every operator answers.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from aiohttp import web

from rackwright.cache import Cache
from rackwright.execute import MACHINES
from rackwright.kube import Cluster, ClusterError
from rackwright.reconcile import Reconciler
from rackwright.shards import Shards

_log = logging.getLogger(__name__)


class Directions:
    """Knows the way."""

    def __init__(self, *, shards: Shards, cache: Cache, cluster: Cluster, reconciler: Reconciler, url: str) -> None:
        """`url` is where machines reach this very operator."""
        self._shards = shards
        self._cache = cache
        self._cluster = cluster
        self._reconciler = reconciler
        self._url = url

    def guide(self, request: web.Request, uid: str | None) -> None:
        """Return for what is to be answered here; `uid` is None for a machine that nobody knows.

        Raises:
            web.HTTPTemporaryRedirect: another operator answers it.
            web.HTTPServiceUnavailable: nobody does now: it is to be asked again.
        """
        if self._shards.alone:
            return
        machine = self._cache.with_uid(uid) if uid is not None else None
        shard = self._shards.of(machine) if machine is not None else 0  # whose operator enlists
        if self._shards.holds(shard):
            return
        url = self._shards.holder_url(shard)
        if url is None or url == self._url:
            raise web.HTTPServiceUnavailable(text=f"no operator acts on this machine now (shard {shard}): ask again\n")
        raise web.HTTPTemporaryRedirect(f"{url}{request.raw_path}")

    async def fresh(self, macs: Collection[str]) -> bool:
        """Take in what is recorded now of another operator's machine: it may have been switched on a moment ago.

        False where that can't be read now.
        """
        if self._shards.alone:
            return True
        for machine in self._cache.with_macs(macs):
            if not self._shards.holds(self._shards.of(machine)):
                try:
                    item = await self._cluster.get(MACHINES, *machine.key)
                except ClusterError as error:
                    _log.warning("%s; the machine is to ask again what to boot", error)
                    return False
                if item is not None:
                    self._reconciler.seen(item)
        return True
