"""How long news take: from a changed spec to what is done about it, and from a write to the watch that tells of it.

Both are measured by this process's monotonic clock, between two things that it sees itself. Times that an API server
or a person's machine wrote are never compared with ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rackwright.record import Machine

Clock = Callable[[], float]


class Reactions:
    """Specs that came and that nothing was done about yet, by machine uid."""

    def __init__(self, took: Callable[[float], None], clock: Clock = time.monotonic) -> None:
        """`took` is told the seconds of each."""
        self._took = took
        self._clock = clock
        self._came: dict[str, float] = {}

    def seen(self, before: Machine | None, machine: Machine) -> None:
        """A record came, of which `before` was known; only one whose spec is news begins anything."""
        known = before.generation if before is not None and before.uid == machine.uid else None
        if machine.generation not in {known, machine.status.observed_generation}:
            self._came.setdefault(machine.uid, self._clock())

    def acted(self, uid: str) -> None:
        """A decision on this machine was recorded or carried out."""
        came = self._came.pop(uid, None)
        if came is not None:
            self._took(self._clock() - came)

    def forget(self, uid: str) -> None:
        """The machine is gone."""
        self._came.pop(uid, None)


class Echoes:
    """Our own writes that no watch has told of yet, by machine uid: of several, the first."""

    def __init__(self, took: Callable[[float], None], clock: Clock = time.monotonic) -> None:
        """`took` is told the seconds of each that a watch tells of."""
        self._took = took
        self._clock = clock
        self._awaited: dict[str, tuple[int, float]] = {}
        """Version and time of each; the dictionary's order is the order of time."""
        self._heard: dict[str, int] = {}
        """The newest version of each that was told of."""

    def wrote(self, item: Mapping[str, Any]) -> None:
        """The API server has answered a write with this record."""
        uid, version = _named(item)
        if self._heard.get(uid, -1) >= version:
            return  # the watch was faster than the answer
        self._awaited.setdefault(uid, (version, self._clock()))

    def told(self, item: Mapping[str, Any], *, listed: bool = False) -> None:
        """A watch told of this record; a listing shows that it did not."""
        uid, version = _named(item)
        self._heard[uid] = max(self._heard.get(uid, -1), version)
        awaited = self._awaited.get(uid)
        if awaited is not None and version >= awaited[0]:
            del self._awaited[uid]
            if not listed:
                self._took(self._clock() - awaited[1])

    def forget(self, uid: str) -> None:
        """The machine is gone."""
        self._awaited.pop(uid, None)
        self._heard.pop(uid, None)

    def oldest(self) -> float:
        """Seconds that the oldest write has waited for; 0 if none waits."""
        first = next(iter(self._awaited.values()), None)
        return self._clock() - first[1] if first is not None else 0.0


def _named(item: Mapping[str, Any]) -> tuple[str, int]:
    metadata = item["metadata"]
    return metadata["uid"], int(metadata["resourceVersion"])
