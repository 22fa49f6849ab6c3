"""One operator's numbers: told of what happens where it happens, and served to whoever scrapes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import product, takewhile
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rackwright import __version__
from rackwright.api.machine import BareMetalMachineStatus, HistoryEntry
from rackwright.census import Census
from rackwright.installs import Installations
from rackwright.lifecycle.decide import Decision
from rackwright.metrics import families
from rackwright.metrics.delays import Echoes, Reactions
from rackwright.metrics.families import OTHER, REASONS, Family, Outcome, Result
from rackwright.metrics.fleet import Fleet
from rackwright.power.port import FaultClass
from rackwright.power.traffic import Exchanges
from rackwright.record import Machine

PATH = "/metrics"
T = TypeVar("T", Counter, Histogram)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series beside each counter that says when it began


@dataclass(slots=True)
class Pass:
    """One pass over a machine; whoever makes it says how it ended."""

    result: Result = Result.INTERNAL_ERROR


class Metrics:
    """Belongs to one event loop. What nobody shows (`shows`) is left out of the exposition."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._reasons: set[str] = set()
        self._enlistments = self._counter(families.ENLISTMENTS)
        self._phase_duration = self._histogram(families.PHASE_DURATION)
        self._operations = self._counter(families.OPERATIONS)
        self._failed_attempts = self._counter(families.FAILED_ATTEMPTS)
        self._bmc_duration = self._histogram(families.BMC_DURATION)
        self._bmc_errors = self._counter(families.BMC_ERRORS)
        self._busy = self._gauge(families.BUSY)
        self._reconcile = self._histogram(families.RECONCILE)
        self._requests = self._counter(families.REQUESTS)
        self._request_duration = self._histogram(families.REQUEST_DURATION)
        self._reactions = Reactions(self._histogram(families.REACTION).observe)
        self._echoes = Echoes(self._histogram(families.WATCH_LAG).observe)
        self._gauge(families.BUILD).labels(__version__).set(1)
        self._gauge(families.UNHEARD).set_function(self._echoes.oldest)

    def shows(
        self,
        *,
        census: Census,
        new_machines: Callable[[], int],
        installations: Callable[[], Installations],
        exchanges: Callable[[], Exchanges],
        queued: Callable[[], int],
        waiting: Callable[[], int],
        workers: int,
        shards: int,
        held: Callable[[], int],
    ) -> None:
        """Show what others keep: asked for when Prometheus asks. `waiting` are passes, `held` are shards."""
        self._registry.register(Fleet(census, new_machines, installations, exchanges))
        self._gauge(families.QUEUE).set_function(queued)
        self._gauge(families.WAITING).set_function(waiting)
        self._gauge(families.WORKERS).set(workers)
        self._gauge(families.LEADER).set_function(lambda: held() > 0)
        self._gauge(families.SHARDS).set(shards)
        self._gauge(families.HELD).set_function(held)

    # --- what happened ---------------------------------------------------------------------------------------------

    def enlistment(self, outcome: Outcome) -> None:
        """Count one machine that nobody declared."""
        self._enlistments.labels(outcome.value).inc()

    def bmc_call(self, driver: str, call: str, seconds: float, fault: FaultClass | None) -> None:
        """A BMC was asked something, and did it or, by a fault, not (`power.metered.Heard`)."""
        self._bmc_duration.labels(driver, call).observe(seconds)
        if fault is not None:
            self._bmc_errors.labels(driver, fault.value).inc()

    def request(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """The API server was asked something (`requests.Counted`)."""
        self._requests.labels(verb, resource, code).inc()
        self._request_duration.labels(verb).observe(seconds)

    def busy(self) -> AbstractContextManager[object]:
        """A worker stays with a pass in this context; the pass may take longer."""
        return self._busy.track_inprogress()

    @contextmanager
    def passing(self) -> Iterator[Pass]:
        """A machine is looked at in this context."""
        began, it = time.perf_counter(), Pass()
        try:
            yield it
        finally:
            self._reconcile.labels(it.result.value).observe(time.perf_counter() - began)

    def seen(self, before: Machine | None, machine: Machine) -> None:
        """A record was taken in, of which `before` was known."""
        self._reactions.seen(before, machine)

    def told(self, item: Mapping[str, Any], *, listed: bool) -> None:
        """A watch or a listing told of a record."""
        self._echoes.told(item, listed=listed)

    def wrote(self, item: Mapping[str, Any]) -> None:
        """The API server answered a write with this record."""
        self._echoes.wrote(item)

    def recorded(self, machine: Machine, decision: Decision) -> None:
        """A decision was written to the machine's status."""
        self._reactions.acted(machine.uid)
        before, after = machine.status, decision.status
        moved = before.phase is not None and before.phase is not after.phase
        if moved and before.phase_since is not None and after.phase_since is not None:
            stay = (after.phase_since - before.phase_since).total_seconds()
            self._phase_duration.labels(before.phase).observe(max(stay, 0.0))
        ended = list(_ended(before, after))
        for entry in ended:
            self._operations.labels(entry.name.value, entry.outcome).inc()
        if decision.failure is not None:
            failure, last = decision.failure, any(entry.outcome == "Failed" for entry in ended)
            self._failed_attempts.labels(failure.operation.value, self._reason(failure.reason), str(last).lower()).inc()

    def acted(self, machine: Machine) -> None:
        """A decision on this machine was carried out."""
        self._reactions.acted(machine.uid)

    def forget(self, uid: str) -> None:
        """The machine is gone."""
        self._reactions.forget(uid)
        self._echoes.forget(uid)

    def _reason(self, reason: str) -> str:
        """The reason, as long as there aren't too many."""
        if reason not in self._reasons:
            if len(self._reasons) >= REASONS:
                return OTHER
            self._reasons.add(reason)
        return reason

    # --- what is read ----------------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        """What the application serves for Prometheus."""
        return [web.get(PATH, self._exposition)]

    async def _exposition(self, request: web.Request) -> web.Response:
        """OpenMetrics for whoever accepts it, else Prometheus's own text; the loop goes on while it is written."""
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = await asyncio.to_thread(encoder, _Collected(list(self._registry.collect())))
        return web.Response(body=body, headers={"Content-Type": content_type})

    def _counter(self, family: Family) -> Counter:
        return _from_zero(family, Counter(family.name, family.says, tuple(family.labels), registry=self._registry))

    def _gauge(self, family: Family) -> Gauge:
        return Gauge(family.name, family.says, tuple(family.labels), registry=self._registry)

    def _histogram(self, family: Family) -> Histogram:
        labels = tuple(family.labels)
        made = Histogram(family.name, family.says, labels, registry=self._registry, buckets=family.buckets)
        return _from_zero(family, made)


class _Collected(Collector):
    """What was collected at one moment, in the event loop, as all that is counted belongs to it."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


_FEW = 200


def _from_zero(family: Family, made: T) -> T:
    """Have few series present from the start: a rate needs the zero before the one."""
    values = [each for each in family.labels.values() if not isinstance(each, int)]
    if values and len(values) == len(family.labels) and family.most <= _FEW:
        for combination in product(*values):
            made.labels(*map(str, combination))
    return made


def _ended(before: BareMetalMachineStatus, after: BareMetalMachineStatus) -> Iterator[HistoryEntry]:
    """The operations that have ended since; history has the newest first."""
    last = before.history[0] if before.history else None
    return takewhile(lambda entry: entry != last, after.history)
