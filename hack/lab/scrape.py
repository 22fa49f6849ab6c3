"""What the operator counts itself: its metrics, read once, and one of them looked at every few seconds."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException

from lab.errors import Unfit

EVERY = 3.0
"""Seconds between two looks."""


@dataclass(frozen=True)
class Metrics:
    """All of them, at one moment."""

    text: str = ""
    """In Prometheus' format."""

    def value(self, sample: str) -> float:
        """A sample, all its labels together; 0 if there is none."""
        return sum(map(float, re.findall(rf"^{re.escape(sample)}(?:{{.*}})? (\S+)$", self.text, re.MULTILINE)))

    def buckets(self, histogram: str) -> dict[float, float]:
        """How many were at most so large, by that bound; of a histogram without further labels."""
        found = re.findall(rf'^{re.escape(histogram)}_bucket{{le="(.+)"}} (\S+)$', self.text, re.MULTILINE)
        return {float(bound): float(count) for bound, count in found}

    def quantile(self, histogram: str, of_all: float, since: Metrics) -> float | None:
        """The value that this share of those since then isn't above; None if there were none."""
        before = since.buckets(histogram)
        return quantile({it: n - before.get(it, 0.0) for it, n in self.buckets(histogram).items()}, of_all)


def quantile(buckets: Mapping[float, float], of_all: float) -> float | None:
    """As Prometheus' `histogram_quantile`: linear within a bucket, the last bound for whatever is above that."""
    bounds = sorted(buckets)
    if not bounds or not (total := buckets[bounds[-1]]):
        return None
    rank = of_all * total
    below, lower = 0.0, 0.0
    for bound in bounds[:-1]:
        if (count := buckets[bound]) >= rank:
            return lower + (bound - lower) * (rank - below) / (count - below)
        below, lower = count, bound
    return lower


def scrape(port: int) -> Metrics:
    """Of the operator that listens there; Unfit if it doesn't answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return Metrics(answer.read().decode())
    except (OSError, HTTPException) as error:
        raise Unfit(f"The operator on port {port} tells no metrics: {error}", "see the operator's log") from error


@asynccontextmanager
async def watched(port: int, sample: str) -> AsyncIterator[list[float]]:
    """What that sample was, again and again, as long as this lasts; without those moments when nobody answered."""
    found: list[float] = []

    async def look() -> None:
        while True:
            with suppress(Unfit):  # the operator is being started
                found.append((await asyncio.to_thread(scrape, port)).value(sample))
            await asyncio.sleep(EVERY)

    looking = asyncio.create_task(look())
    try:
        yield found
    finally:
        looking.cancel()
        await asyncio.wait([looking])
