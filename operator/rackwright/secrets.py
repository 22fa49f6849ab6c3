"""Secrets, read when they are needed and watched only while a machine waits for one to appear or to change.

The operator has no right to list Secrets and keeps none longer than it needs: a few minutes, so that a machine's
every step doesn't cost a request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from rackwright.kube import Cluster, ClusterError, Refused, Secret
from rackwright.lifecycle.world import Blame, Fault

KEPT_SECONDS = 300.0
WATCH_SECONDS = 600
_PAUSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Obstructed(Exception):
    """A step can't be carried out, for this reason."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Name(NamedTuple):
    """Names a Secret."""

    namespace: str
    name: str


@dataclass(slots=True)
class _Awaited:
    """A Secret that somebody waits for, and who."""

    version: str | None
    uids: set[str] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


class Secrets:
    """Reads Secrets. `changed(uid)` is called for each machine that awaited a Secret which is there, or other, now."""

    def __init__(self, cluster: Cluster, changed: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._changed = changed
        self._kept: dict[Name, tuple[float, Secret]] = {}
        self._awaited: dict[Name, _Awaited] = {}

    async def read(self, name: Name, *, fresh: bool = False) -> Secret | None:
        """The Secret, None if it isn't there; `fresh` asks the cluster even if it was read a moment ago.

        Obstructed where the operator may not read it.
        """
        kept = self._kept.get(name)
        if not fresh and kept is not None and time.monotonic() - kept[0] < KEPT_SECONDS:
            return kept[1]
        try:
            secret = await self._cluster.secret(*name)
        except Refused:
            raise Obstructed(
                Fault(
                    Blame.CONFIGURATION,
                    "SecretForbidden",
                    f"The operator may not read the Secret {name.name}: bind the ClusterRole rackwright-secret-reader "
                    f"to it in the namespace {name.namespace}.",
                )
            ) from None
        if secret is None:
            self._kept.pop(name, None)
        else:
            self._kept[name] = (time.monotonic(), secret)
        return secret

    def awaiting(self, name: Name, uid: str) -> None:
        """Tell this machine when the Secret appears or differs from what was read last."""
        kept = self._kept.get(name)
        awaited = self._awaited.setdefault(name, _Awaited(kept[1].version if kept else None))
        awaited.uids.add(uid)
        if awaited.task is None:
            awaited.task = asyncio.create_task(self._watch(name, awaited))

    async def close(self) -> None:
        """Stop watching."""
        tasks = [awaited.task for awaited in self._awaited.values() if awaited.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, name: Name, awaited: _Awaited) -> None:
        """Watch until it changes; whoever still waits when the watch has lasted long enough asks again by itself."""
        until = time.monotonic() + WATCH_SECONDS
        try:
            while time.monotonic() < until:
                try:
                    async for version in self._cluster.secret_changes(*name, seconds=WATCH_SECONDS):
                        if version != awaited.version:
                            return
                except ClusterError as error:
                    _log.warning("%s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            self._kept.pop(name, None)
            self._awaited.pop(name, None)
            for uid in awaited.uids:
                self._changed(uid)
