"""Events: writes what happened to a machine, for `kubectl describe`. What is news of it, `lifecycle.news` says.

What concerns machines that have no record is said of the namespace that they would be in.

What recurs with the same words within an hour is counted in the Event that is there already.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rackwright.api import GROUP, VERSION
from rackwright.kube import Cluster, ClusterError, Gone
from rackwright.lifecycle.decide import Decision
from rackwright.lifecycle.news import News, news, of_deed
from rackwright.logs import Line
from rackwright.record import Machine

SAME_SECONDS = 3600.0
_REMEMBERED = 10_000
_NOTE = 1024
"""The API server's limit for a note, in bytes."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whom an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


@dataclass(slots=True)
class _Written:
    name: str
    first: float
    count: int = 1


class Events:
    """Writes Events. A lost one is logged and never stops a machine; each is waited for for 3 s at most."""

    def __init__(self, cluster: Cluster, instance: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._instance = instance
        self._clock = clock
        self._written: dict[tuple[_Subject, str, str], _Written] = {}

    async def tell(self, machine: Machine, decision: Decision) -> None:
        """Write what this decision changed."""
        for item in news(machine.spec, machine.status, decision):
            await self._write(machine, item)

    async def acted(self, machine: Machine, decision: Decision) -> None:
        """Write what the decision's step was, now that it is carried out, if that is news."""
        item = of_deed(machine.status, decision)
        if item is None:
            return
        if item.kind == "Warning":
            _log.warning(Line(item.note, machine=machine.key, reason=item.reason))
        await self._write(machine, item)

    async def enlistment_full(self, namespace: str, at_most: int, times: int) -> None:
        """Say that so many times a machine nobody declared was left alone."""
        note = (
            f"{at_most} machines wait to be accepted, as many as --enlist-at-most allows. Machines nobody declared "
            "boot their own disks until some of those are accepted (spec.accepted: true) or deleted."
        )
        _log.warning(Line(note, namespace=namespace, reason="EnlistmentFull", times=times))
        subject = _Subject("v1", "Namespace", namespace, namespace)
        await self._write_about(subject, News("Warning", "EnlistmentFull", "Enlist", note, note), times=times)

    async def _write(self, machine: Machine, item: News) -> None:
        subject = _Subject(f"{GROUP}/{VERSION}", "BareMetalMachine", *machine.key, machine.uid)
        await self._write_about(subject, item)

    async def _write_about(self, subject: _Subject, item: News, *, times: int = 1) -> None:
        """Write an Event, or count it in an earlier one with the same words."""
        key = (subject, item.reason, item.words)
        written = self._written.get(key)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        try:
            if written is not None and self._clock() - written.first < SAME_SECONDS:
                written.count += times
                series = {"series": {"count": written.count, "lastObservedTime": now}}
                with suppress(Gone):  # somebody deleted it, or it has had its time
                    await self._cluster.patch_event(subject.namespace, written.name, series)
                    return
            name = await self._cluster.create_event(subject.namespace, self._body(subject, item, now))
        except ClusterError as error:
            _log.warning(Line(f"an Event was lost: {error}", about=f"{subject.namespace}/{subject.name}"))
            return
        if len(self._written) >= _REMEMBERED:
            self._written.pop(next(iter(self._written)))
        self._written[key] = _Written(name, self._clock(), times)

    def _body(self, subject: _Subject, item: News, now: str) -> dict[str, Any]:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{subject.name}-", "namespace": subject.namespace},
            "eventTime": now,
            "reportingController": GROUP,
            "reportingInstance": self._instance[:128],
            "action": item.action,
            "reason": item.reason,
            "type": item.kind,
            "note": item.note.encode()[:_NOTE].decode(errors="ignore"),
            "regarding": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            },
        }
