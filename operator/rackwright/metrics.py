"""What the operator counts, as Prometheus reads it at `/metrics`.

Every label has a fixed set of values, so that nobody on the machines' network can make the list grow.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

PATH = "/metrics"

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series beside each counter that says when it began


class Outcome(StrEnum):
    """What became of a machine that nobody declared."""

    ENLISTED = "enlisted"
    RECOGNISED = "recognised"
    """It has a record."""
    FULL = "full"
    """As many as may wait for acceptance were waiting; counted when it asks what to boot, too."""
    FAILED = "failed"
    """Its record or inventory could not be written; it reports again."""


class Metrics:
    """One operator's numbers."""

    def __init__(self, *, new_machines: Callable[[], int]) -> None:
        """`new_machines` tells how many machines wait for acceptance."""
        self._registry = CollectorRegistry()
        self._enlistments = Counter(
            "rackwright_enlistments_total",
            "Machines that nobody declared and that booted from the network, by what became of them.",
            ["outcome"],
            registry=self._registry,
        )
        for outcome in Outcome:
            self._enlistments.labels(outcome.value)  # present from the start: a rate needs the zero before the one
        new = Gauge(
            "rackwright_new_machines", "Machines that wait for somebody to accept them.", registry=self._registry
        )
        new.set_function(new_machines)

    def enlistment(self, outcome: Outcome) -> None:
        """Count one machine that nobody declared."""
        self._enlistments.labels(outcome.value).inc()

    def routes(self) -> list[web.RouteDef]:
        """What the application serves for Prometheus."""
        return [web.get(PATH, self._exposition)]

    async def _exposition(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
