"""What a scenario of the bench takes, measured from outside: by the kernel, the API server's audit log, the metrics."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from lab import installation
from lab.audit import Audit
from lab.console import stage
from lab.controlplane_services import services
from lab.errors import Unfit
from lab.fleet import Fleet
from lab.installation import Operated
from lab.scrape import Metrics, scrape, watched
from lab.usage import Usage

PORT = 18080
ARGUMENTS = ("--allow-simulated", "--log-level", "warning", "--max-concurrent-deployments", "0")
"""Machines that answer at once need no turns to install."""
READS = ("get ", "list ")
SECONDS_PER_MACHINE = 0.5
"""Given up after that, and a minute."""
QUIET, LOOK = 3, 1.0
"""Looks in a row without a new request, after which no more are expected; seconds between two."""
QUEUE, BUSY, LAG = "rackwright_queue_depth", "rackwright_workers_busy", "rackwright_watch_lag_seconds"
PASSES = "rackwright_reconcile_duration_seconds_count"


@dataclass
class Figures:
    """What one scenario took; None is what nobody measured."""

    machines: int
    """Of which it is told."""
    wall: float = 0.0
    """Seconds, until the last machine was there."""
    quiet: float | None = None
    """Seconds, until the operator asked nothing more, which it does some time after `wall`: what it asked, and all that
    was used, is counted until then. None where nobody waited for that: it is counted until `wall`."""
    server: float = 0.0
    """Processor seconds of kube-apiserver and etcd."""
    operator: float | None = None
    """Of the operator."""
    peak: int | None = None
    """The most memory that the operator had resident since its process began, bytes. It is a fresh one for `created`,
    `restarted` and `storm`; the scenarios between them go on with the one that they find."""
    requests: dict[str, int] | None = None
    """Of the operator, all machines together, by verb and resource."""
    further: dict[str, float] = field(default_factory=dict)
    """What only this scenario has, or some."""

    @property
    def requests_per_machine(self) -> float | None:
        """But for listings, which are of the whole fleet."""
        if self.requests is None:
            return None
        asked = sum(count for what, count in self.requests.items() if not what.startswith("list "))
        return round(asked / self.machines, 2)

    @property
    def of_each(self) -> dict[str, int]:
        """Requests for each machine, by verb and resource, in whole numbers; listings are of the whole fleet."""
        asked = self.requests or {}
        return {what: round(count / self.machines) for what, count in asked.items() if not what.startswith("list ")}

    @property
    def writes(self) -> int | None:
        """All that wasn't only read."""
        if self.requests is None:
            return None
        return sum(count for what, count in self.requests.items() if not what.startswith(READS))


@dataclass
class Bench:
    """One size of fleet."""

    here: Operated
    fleet: Fleet
    count: int
    arguments: Sequence[str] = ()
    """More of the operator's."""
    operated: bool = True
    """Whether there is an operator, which is then measured."""
    results: dict[str, Figures] = field(default_factory=dict)

    @asynccontextmanager
    async def measured(
        self, name: str, title: str, *, machines: int | None = None, rests: bool = True
    ) -> AsyncIterator[Figures]:
        """What happens within to that many, if not to all; with its wall time unless that is set there.

        What the operator has left to do when all is there is counted too, unless it never `rests`. Unfit if it goes on
        for as long as the fleet would have for anything.
        """
        figures = Figures(machines or self.count)
        with stage(f"{self.count} machines: {title}") as shown:
            self.say: Callable[[str], None] = shown.say
            asked = self.here.audit()
            running = self.here.operator.pid
            earlier = Metrics() if running is None else await asyncio.to_thread(scrape, PORT)
            before = Usage.of(running, self._servers())
            begun = time.monotonic()
            async with self._watched() as waiting:
                yield figures
                figures.wall = figures.wall or time.monotonic() - begun
            after = self._look(asked)
            if self.operated and rests:
                after = await last_words(lambda: self._look(asked), after, self.patience, shown.say)
                figures.quiet = after.at - begun
            figures.server = after.used.server - before.server
            if self.operated:
                figures.operator, figures.peak = after.used.operator - before.operator, after.used.peak
                figures.requests = dict(after.asked)
                figures.further |= _queue(waiting) | _lag(await asyncio.to_thread(scrape, PORT), earlier)
        self.results[name] = figures

    def _watched(self) -> AbstractAsyncContextManager[list[float]]:
        return watched(PORT, QUEUE) if self.operated else nullcontext([])

    def _look(self, asked: Audit) -> Look:
        """The log is read first, so that the processor's time is that of all requests that are counted, at least."""
        counted = asked.so_far()
        pid = self.here.operator.require() if self.operated else None
        return Look(counted, Usage.of(pid, self._servers()), time.monotonic())

    def _servers(self) -> list[int]:
        etcd, server, _ = services(self.here.name)
        return [pid for pid in (etcd.pid, server.pid) if pid is not None]

    @property
    def patience(self) -> float:
        """Seconds that the whole fleet has for anything."""
        return 60 + SECONDS_PER_MACHINE * self.count

    async def all_rest(self, names: Sequence[str], phase: str) -> float:
        """Wait until all of these do; when that was."""
        if len(names) == len(self.fleet.machines) or not self.fleet.machines:
            return await self.fleet.until(lambda: self.fleet.resting[phase] == len(names), self.patience, self.say)
        return await self.fleet.until(lambda: self.fleet.rest(names, phase) == len(names), self.patience, self.say)

    async def all_looked_at(self) -> None:
        """Wait until an operator that has just started has looked at each machine, and at none now."""
        deadline = time.monotonic() + self.patience
        while True:
            now = await asyncio.to_thread(scrape, PORT)
            passes, waiting, busy = (now.value(each) for each in (PASSES, QUEUE, BUSY))
            if passes >= self.count and not waiting and not busy:
                return
            if time.monotonic() > deadline:
                raise Unfit(
                    f"After {self.patience:.0f} s the operator has looked at {self.count} machines {passes:.0f} times,"
                    f" and {waiting:.0f} wait for it.",
                    "see the operator's log; measure fewer machines",
                )
            await asyncio.sleep(0.1)


@dataclass(frozen=True)
class Look:
    """What there was at one moment."""

    asked: Counter[str]
    """The operator's requests since the scenario began."""
    used: Usage
    at: float
    """By the monotonic clock, seconds."""


async def last_words(look: Callable[[], Look], first: Look, patience: float, say: Callable[[str], None]) -> Look:
    """Look until the operator has asked nothing for a while: the first look that saw all of it.

    Unfit if it doesn't come to an end in so many seconds, for then nothing that it costs would be known.
    """
    last, silent = first, 0
    while silent < QUIET:
        say(f"{last.asked.total()} requests; until there are no more")
        await asyncio.sleep(LOOK)
        seen = look()
        if seen.asked == last.asked:
            silent += 1
        elif seen.at > first.at + patience:
            raise Unfit(
                f"{patience:.0f} s after the last machine was there the operator still asks:"
                f" {dict(seen.asked - last.asked)} within {seen.at - last.at:.1f} s.",
                "see the operator's log for what it is busy with; measure fewer machines",
            )
        else:
            last, silent = seen, 0
    return last


def start_operator(here: Operated, arguments: Sequence[str]) -> None:
    """With its ServiceAccount's rights, as everywhere."""
    here.start(
        base_url=f"http://127.0.0.1:{PORT}",
        address=f"127.0.0.1:{PORT}",
        arguments=["--ramdisk", installation.scratch(here.name, "no-ramdisk"), *ARGUMENTS, *arguments],
    )


def _queue(waiting: Sequence[float]) -> dict[str, float]:
    if not waiting:
        return {}
    return {
        "machines that wait for a worker, at most": max(waiting),
        "machines that wait for a worker, on average": sum(waiting) / len(waiting),
    }


def _lag(now: Metrics, earlier: Metrics) -> dict[str, float]:
    """How long the operator didn't know of its own writes; empty if it made none."""
    shares = {"half": 0.5, "99 %": 0.99}
    lags = {
        f"milliseconds from a write to its watch, {of}": now.quantile(LAG, it, earlier) for of, it in shares.items()
    }
    return {what: 1000 * seconds for what, seconds in lags.items() if seconds is not None}
