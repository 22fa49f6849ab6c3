"""Events: what happened to a machine, for `kubectl describe`. One per phase change and failure, never one per poll.

What concerns machines that have no record is said of the namespace that they would be in.

What recurs with the same words within an hour is counted in the Event that is there already; a failure's words are
its own, whichever attempt it was, so that attempts that fail alike are one Event.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from rackwright.api import GROUP, VERSION
from rackwright.api.conditions import Condition, ConditionType
from rackwright.api.machine import BareMetalMachineStatus, Failure
from rackwright.cache import Machine
from rackwright.kube import Cluster, ClusterError
from rackwright.lifecycle.decide import Decision
from rackwright.lifecycle.operations import limits
from rackwright.logs import Line

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
    """Writes Events. A lost one is logged and never stops a machine."""

    def __init__(self, cluster: Cluster, instance: str) -> None:
        self._cluster = cluster
        self._instance = instance
        self._written: dict[tuple[_Subject, str, str], _Written] = {}

    async def tell(self, machine: Machine, decision: Decision) -> None:
        """Write what this decision changed."""
        passed = ""
        for transition, following in zip_longest(decision.transitions, decision.transitions[1:]):
            after = transition.after.value if transition.after else "unknown"
            warning = after in ("Failed", "Broken")
            note = f"{passed}{after}: {transition.message}"
            if following is not None and transition.reason == "AllocationDeclared":
                passed = f"{note} "  # reserved and deployed at once is one piece of news
                continue
            passed = ""
            await self._write(machine, "Warning" if warning else "Normal", transition.reason, after, note)
        told, failure = {transition.reason for transition in decision.transitions}, decision.failure
        if failure is not None and failure.reason not in told:
            told.add(failure.reason)
            note = f"{failure.message} {_what_follows(machine, failure)}"
            await self._write(machine, "Warning", failure.reason, failure.operation, note, words=failure.message)
        told |= {condition.reason for condition in machine.status.conditions}
        await self._tell_conditions(machine, decision.status, told)

    async def let_go(self, machine: Machine, decision: Decision) -> None:
        """Say what was skipped, where a record was let go of with something still installed."""
        installed = machine.status.installed
        if installed is None:
            return
        note = f"{decision.message} Skipped: the release of {installed.image or 'what was adopted'}"
        note += f", owner {machine.status.owner}." if machine.status.owner else "."
        _log.warning(Line(note, machine=machine.key, reason=decision.reason))
        await self._write(machine, "Warning", decision.reason, "LetGo", note)

    async def enlistment_full(self, namespace: str, at_most: int, times: int) -> None:
        """Say that so many times a machine nobody declared was left alone."""
        note = (
            f"{at_most} machines wait to be accepted, as many as --enlist-at-most allows. Machines nobody declared "
            "boot their own disks until some of those are accepted (spec.accepted: true) or deleted."
        )
        _log.warning(Line(note, namespace=namespace, reason="EnlistmentFull", times=times))
        subject = _Subject("v1", "Namespace", namespace, namespace)
        await self._write_about(subject, "Warning", "EnlistmentFull", "Enlist", note, times=times)

    async def _tell_conditions(self, machine: Machine, after: BareMetalMachineStatus, told: Collection[str]) -> None:
        """A machine that begins to wait for a person, or whose BMC falls silent, says so unless it was told already."""
        for kind, bad in ((ConditionType.STALLED, "True"), (ConditionType.BMC_REACHABLE, "False")):
            now = _condition(after, kind)
            if now is None or now.status != bad or now.reason in told:
                continue
            await self._write(machine, "Warning", now.reason, "Reconcile", now.message)
            return

    async def _write(
        self, machine: Machine, kind: str, reason: str, action: str, note: str, *, words: str | None = None
    ) -> None:
        subject = _Subject(f"{GROUP}/{VERSION}", "BareMetalMachine", *machine.key, machine.uid)
        await self._write_about(subject, kind, reason, action, note, words=words)

    async def _write_about(
        self,
        subject: _Subject,
        kind: str,
        reason: str,
        action: str,
        note: str,
        *,
        words: str | None = None,
        times: int = 1,
    ) -> None:
        """Write an Event, or count it in an earlier one with the same `words`, which the whole note is without them."""
        key = (subject, reason, note if words is None else words)
        written = self._written.get(key)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        try:
            if written is not None and time.monotonic() - written.first < SAME_SECONDS:
                written.count += times
                series = {"series": {"count": written.count, "lastObservedTime": now}}
                await self._cluster.patch_event(subject.namespace, written.name, series)
                return
            body = self._body(subject, kind, reason, action, note.encode()[:_NOTE].decode(errors="ignore"), now)
            name = await self._cluster.create_event(subject.namespace, body)
        except ClusterError as error:
            _log.warning(Line(f"an Event was lost: {error}", about=f"{subject.namespace}/{subject.name}"))
            return
        if len(self._written) >= _REMEMBERED:
            self._written.pop(next(iter(self._written)))
        self._written[key] = _Written(name, time.monotonic(), times)

    def _body(self, subject: _Subject, kind: str, reason: str, action: str, note: str, now: str) -> dict[str, Any]:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{subject.name}-", "namespace": subject.namespace},
            "eventTime": now,
            "reportingController": GROUP,
            "reportingInstance": self._instance[:128],
            "action": action,
            "reason": reason,
            "type": kind,
            "note": note,
            "regarding": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            },
        }


def _what_follows(machine: Machine, failure: Failure) -> str:
    """Which attempt comes next; when, is in the condition, where it is replaced and not kept."""
    most = limits(machine.spec, failure.operation)[1]
    if failure.attempt < most:
        return f"Attempt {failure.attempt + 1} of {most} follows."
    return f"That was attempt {failure.attempt} of {most}."


def _condition(status: BareMetalMachineStatus, kind: ConditionType) -> Condition | None:
    return next((c for c in status.conditions if c.type == kind), None)
