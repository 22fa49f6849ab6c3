"""Secrets, read when they are needed and watched only while a machine waits for one to appear or to change.

The operator has no right to list Secrets and keeps none for longer than a few minutes, so that a machine's every step
doesn't cost a request: what isn't read again by then is forgotten. (A BMC's driver keeps what it was made with.)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple

from rackwright.kube import Cluster, ClusterError, Refused, Secret
from rackwright.lifecycle.world import Blame, Fault

KEPT_SECONDS = 300.0
WATCH_SECONDS = 600
"""How long the API server is asked to watch at a time."""
AWAITED_SECONDS = 1800.0
"""Longer than a machine waits for anything before it asks again; one that doesn't ask again waits no more."""
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


@dataclass(frozen=True, slots=True)
class _Kept:
    secret: Secret
    expiry: asyncio.TimerHandle


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A machine that knows this version, None for no Secret at all, and waits for another."""

    version: str | None
    until: float
    """By the monotonic clock."""


@dataclass(slots=True)
class _Awaited:
    """A Secret that somebody waits for, and who, by machine uid."""

    machines: dict[str, _Waiting] = field(default_factory=dict)
    newest: tuple[str | None] | None = None
    """The version that the watch told last, once it has told one."""
    task: asyncio.Task[None] | None = None


class Secrets:
    """Reads Secrets. `changed(uid)` is called for each machine that awaited another version than there is now."""

    def __init__(self, cluster: Cluster, changed: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._changed = changed
        self._kept: dict[Name, _Kept] = {}
        self._awaited: dict[Name, _Awaited] = {}

    async def read(self, name: Name, *, fresh: bool = False) -> Secret | None:
        """The Secret, None if it isn't there; `fresh` asks the cluster even if it was read a moment ago.

        Obstructed where the operator may not read it.
        """
        kept = self._kept.get(name)
        if not fresh and kept is not None:
            return kept.secret
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
        self._forget(name)
        if secret is not None:
            expiry = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget, name)
            self._kept[name] = _Kept(secret, expiry)
        return secret

    def awaiting(self, name: Name, uid: str, version: str | None) -> None:
        """Tell this machine when the Secret is another than `version`; None: when it is there."""
        awaited = self._awaited.setdefault(name, _Awaited())
        awaited.machines[uid] = _Waiting(version, time.monotonic() + AWAITED_SECONDS)
        if awaited.newest is not None:
            asyncio.get_running_loop().call_soon(self._tell, awaited)  # once the caller is done with what it read
        if awaited.task is None:
            awaited.task = asyncio.create_task(self._watch(name, awaited))

    async def close(self) -> None:
        """Stop watching, and forget."""
        tasks = [awaited.task for awaited in self._awaited.values() if awaited.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name in tuple(self._kept):
            self._forget(name)

    def _forget(self, name: Name) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            kept.expiry.cancel()

    async def _watch(self, name: Name, awaited: _Awaited) -> None:
        """Watch for as long as somebody waits: a watch that merely ended says nothing, and another one begins."""
        try:
            while awaited.machines:
                pause = _PAUSE_SECONDS
                try:
                    async with aclosing(self._cluster.secret_changes(*name, seconds=WATCH_SECONDS)) as versions:
                        async for version in versions:
                            self._changed_to(name, version, awaited)
                            if not awaited.machines:
                                pause = 0.0
                                break
                except ClusterError as error:
                    _log.warning("%s", error)
                awaited.newest = None
                await asyncio.sleep(pause)
                now = time.monotonic()
                awaited.machines = {uid: each for uid, each in awaited.machines.items() if each.until > now}
        finally:
            self._awaited.pop(name, None)

    def _changed_to(self, name: Name, version: str | None, awaited: _Awaited) -> None:
        kept = self._kept.get(name)
        if kept is not None and kept.secret.version != version:
            self._forget(name)
        awaited.newest = (version,)
        self._tell(awaited)

    def _tell(self, awaited: _Awaited) -> None:
        """Tell those who know another version than the newest; they wait no longer."""
        if awaited.newest is None:
            return  # the watch has ended meanwhile: the next one tells
        told = [uid for uid, each in awaited.machines.items() if (each.version,) != awaited.newest]
        for uid in told:
            del awaited.machines[uid]
            self._changed(uid)
