"""Secrets, read when they are needed and watched only while a machine waits for one to appear or to change.

The operator has no right to list Secrets and keeps none for longer than a few minutes, so that a machine's every step
doesn't cost a request: what isn't read again by then is forgotten. (A BMC's driver keeps what it was made with.)

So each Secret that is awaited needs a watch of its own, and a connection. Only so many have one; the others, as where
ten thousand machines are declared before their Secrets, are read in turn until one of those is free.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple

from rackwright.kube import Cluster, ClusterError, Refused, Secret
from rackwright.lifecycle.world import Blame, Fault

KEPT_SECONDS = 300.0
WATCH_SECONDS = 600
"""How long the API server is asked to watch at a time."""
AWAITED_SECONDS = 1800.0
"""One that hasn't asked again for so long, and for longer than any lets pass, waits no more."""
WATCHES = 200
"""Secrets that are watched at once."""
READS_PER_SECOND = 50.0
"""Of those that are awaited and not watched, one after the other: of 10,000, each is looked at every 200 s."""
_PAUSE_SECONDS = 5.0
"""About so long until the API server is asked again after it has ended a watch, or hasn't answered."""

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

    def awaits(self, version: str | None) -> bool:
        """Whether this version is news: of two, the greater is the newer, and a watch may be late with the other."""
        if self.version is None or version is None:
            return self.version != version
        return int(self.version) < int(version)


@dataclass(slots=True)
class _Awaited:
    """A Secret that somebody waits for, and who, by machine uid."""

    machines: dict[str, _Waiting] = field(default_factory=dict)
    newest: tuple[str | None] | None = None
    """The version that the watch told last, once it has told one."""
    told: set[str] = field(default_factory=set)
    """The machines that were told of the newest: one that waits again knows better, and the watch is late."""

    def drop_late(self) -> None:
        """Leave out whoever has not asked again for too long."""
        now = time.monotonic()
        self.machines = {uid: each for uid, each in self.machines.items() if each.until > now}


class Secrets:
    """Reads Secrets. `changed(uid)` is called for each machine that awaited a newer version, once there is one."""

    def __init__(self, cluster: Cluster, changed: Callable[[str], None], *, at_rarest: float = 0.0) -> None:
        """`at_rarest` is how many seconds a machine that waits may let pass before it asks again."""
        self._at_rarest = at_rarest
        self._cluster = cluster
        self._changed = changed
        self._kept: dict[Name, _Kept] = {}
        self._awaited: dict[Name, _Awaited] = {}
        self._watches: dict[Name, asyncio.Task[None]] = {}
        self._unwatched: dict[Name, None] = {}
        """Those that are read in turn, the one that waits longest for it first."""
        self._reading: asyncio.Task[None] | None = None

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
        """Tell this machine when the Secret is newer than `version`, or gone; None: when it is there."""
        awaited = self._awaited.setdefault(name, _Awaited())
        until = time.monotonic() + max(AWAITED_SECONDS, 1.5 * self._at_rarest)
        awaited.machines[uid] = _Waiting(version, until)
        if awaited.newest is not None:
            asyncio.get_running_loop().call_soon(
                self._tell_newest, awaited
            )  # once the caller is done with what it read
        if name not in self._watches:
            self._unwatched.setdefault(name)
        self._attend()

    async def close(self) -> None:
        """Stop watching, and forget."""
        tasks = [*self._watches.values(), *([self._reading] if self._reading is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name in tuple(self._kept):
            self._forget(name)

    def _forget(self, name: Name) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            kept.expiry.cancel()

    def _attend(self) -> None:
        """Watch as many as may be, and read the others in turn."""
        while self._unwatched and len(self._watches) < WATCHES:
            name = next(iter(self._unwatched))
            del self._unwatched[name]
            self._watches[name] = asyncio.create_task(self._watch(name, self._awaited[name]))
        if self._unwatched and self._reading is None:
            self._reading = asyncio.create_task(self._read_in_turn())

    async def _watch(self, name: Name, awaited: _Awaited) -> None:
        """Watch for as long as somebody waits: a watch that merely ended says nothing, and another one begins."""
        try:
            while awaited.machines:
                pause = _pause()
                try:
                    async with aclosing(self._cluster.secret_changes(*name, seconds=WATCH_SECONDS)) as versions:
                        async for version in versions:
                            awaited.newest = (version,)
                            awaited.told = self._found(name, version, awaited)
                            if not awaited.machines:
                                pause = 0.0
                                break
                except ClusterError as error:
                    _log.warning("%s", error)
                awaited.newest = None
                await asyncio.sleep(pause)
                awaited.drop_late()
        finally:
            del self._watches[name], self._awaited[name]
        self._attend()

    async def _read_in_turn(self) -> None:
        """Read what isn't watched, the next one after a moment."""
        try:
            while self._unwatched:
                name = next(iter(self._unwatched))
                self._unwatched[name] = self._unwatched.pop(name)  # the last one from now on
                await self._look_at(name)
                await asyncio.sleep(1 / READS_PER_SECOND)
        finally:
            self._reading = None

    async def _look_at(self, name: Name) -> None:
        try:
            secret = await self._cluster.secret(*name)
        except Refused as error:
            _log.debug("%s", error)  # whoever needs it is told by `read`
        except ClusterError as error:
            _log.warning("%s", error)
            await asyncio.sleep(_pause())
        else:
            self._found(name, secret.version if secret is not None else None, self._awaited.get(name))
        if name in self._unwatched:  # otherwise it is watched by now
            self._awaited[name].drop_late()
            if not self._awaited[name].machines:
                del self._unwatched[name], self._awaited[name]

    def _found(self, name: Name, version: str | None, awaited: _Awaited | None) -> set[str]:
        kept = self._kept.get(name)
        if kept is not None and kept.secret.version != version:
            self._forget(name)
        return self._tell(awaited, version) if awaited is not None else set()

    def _tell_newest(self, awaited: _Awaited) -> None:
        if awaited.newest is not None:  # or the watch has ended meanwhile: the next one tells
            awaited.told |= self._tell(awaited, *awaited.newest, but=awaited.told)

    def _tell(self, awaited: _Awaited, version: str | None, *, but: Collection[str] = ()) -> set[str]:
        """Tell those for whom this version is news; they wait no longer, and are returned."""
        told = [uid for uid, each in awaited.machines.items() if uid not in but and each.awaits(version)]
        for uid in told:
            del awaited.machines[uid]
            self._changed(uid)
        return set(told)


def _pause() -> float:
    return _PAUSE_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311 (spreads watches that broke off at once)
