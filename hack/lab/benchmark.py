"""How the operator scales: a fleet of simulated machines through its life, and what that took.

The machines answer at once, so what is measured is the operator and the API server beside it. Each size has an API
server and an operator of its own, freshly started. Wall times are what a person who declared the change would see: from
the first request to the last machine's record that says so.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lab import controlplane, fleet, installation, simulated, usage
from lab.bare import Written, write
from lab.console import stage
from lab.controlplane_services import services
from lab.fleet import Fleet
from lab.installation import Operated
from lab.samples import SAMPLES
from lab.usage import Usage

PORT = 18080
ARGUMENTS = ("--allow-simulated", "--log-level", "warning", "--max-concurrent-deployments", "0")
"""Machines that answer at once need no turns to install."""
FAST, HANGING = "simulated://fast", "simulated://fast?hang=1"
READS = ("get", "list")
WISHES = 200
"""Changes that are made one after the other, to see how soon each is acted upon."""
HANGS = 10
"""One machine in so many, in the storm."""
SECONDS_PER_MACHINE = 0.5
"""Given up after that, and a minute."""


@dataclass
class Figures:
    """What one scenario took."""

    wall: float = 0.0
    """Seconds, until the last machine was there."""
    operator: float = 0.0
    """Processor seconds of the operator."""
    server: float = 0.0
    """Of kube-apiserver and etcd."""
    peak: int = 0
    """The most memory that the operator had resident so far, bytes."""
    requests: dict[str, float] = field(default_factory=dict)
    """Of the operator, a machine, by verb and resource."""
    further: dict[str, float] = field(default_factory=dict)
    """What only this scenario has."""

    @property
    def requests_per_machine(self) -> float:
        """But for listings, which are of the whole fleet."""
        return round(sum(each for what, each in self.requests.items() if not what.startswith("list")), 2)


@dataclass
class Bench:
    """One size of fleet."""

    here: Operated
    fleet: Fleet
    count: int
    arguments: Sequence[str] = ()
    """More of the operator's."""
    results: dict[str, Figures] = field(default_factory=dict)

    @asynccontextmanager
    async def measured(self, name: str, say: str) -> AsyncIterator[Figures]:
        """What happens within, with its wall time unless that is set there."""
        figures = Figures()
        with stage(f"{self.count} machines: {say}") as shown:
            self.say = shown.say
            asked, before = self.here.audit(), self._usage()
            begun = time.monotonic()
            yield figures
            figures.wall = figures.wall or time.monotonic() - begun
            after = self._usage()
            figures.operator, figures.server = after.operator - before.operator, after.server - before.server
            figures.peak = after.peak
            figures.requests = {what: round(each / self.count, 3) for what, each in asked.so_far().items()}
        self.results[name] = figures

    def _usage(self) -> Usage:
        return Usage.of(self.here.operator.require(), self._servers())

    def server_seconds(self) -> float:
        """Processor seconds of the API server so far."""
        return sum(map(usage.processor_seconds, self._servers()))

    def _servers(self) -> list[int]:
        etcd, server, _ = services(self.here.name)
        return [pid for pid in (etcd.pid, server.pid) if pid is not None]

    async def all_rest(self, names: Sequence[str], phase: str) -> float:
        """Wait until all of these do; when that was."""
        patience = 60 + SECONDS_PER_MACHINE * len(names)
        if len(names) == len(self.fleet.machines) or not self.fleet.machines:
            return await self.fleet.until(lambda: self.fleet.resting[phase] == len(names), patience, self.say)
        return await self.fleet.until(lambda: self.fleet.rest(names, phase) == len(names), patience, self.say)


@asynccontextmanager
async def bench(name: str, count: int, arguments: Sequence[str], *, operated: bool = True) -> AsyncIterator[Bench]:
    """A fresh control plane, and an operator unless nobody is to operate; nothing is left of them."""
    try:
        here = Operated(controlplane.up(name))
        here.install()
        if operated:
            start_operator(here, arguments)
        here.kubectl("apply", "-f", str(SAMPLES / "machines-namespace.yaml"))
        here.kubectl("apply", "-f", "-", stdin=json.dumps(simulated.image()))
        async with Fleet.of(here.plane) as machines:
            yield Bench(here, machines, count, arguments)
    finally:
        installation.stop(name)


def start_operator(here: Operated, arguments: Sequence[str]) -> None:
    """With its ServiceAccount's rights, as everywhere."""
    here.start(
        base_url=f"http://127.0.0.1:{PORT}",
        address=f"127.0.0.1:{PORT}",
        arguments=["--ramdisk", installation.scratch(here.name, "no-ramdisk"), *ARGUMENTS, *arguments],
    )


# --- the scenarios, in the order in which one fleet goes through them -----------------------------------------------


async def created(it: Bench) -> None:
    """All are declared, and become Ready."""
    specs = fleet.specs(it.count, FAST)
    async with it.measured("created", "declared → Ready") as figures:
        begun = time.monotonic()
        creating = asyncio.create_task(it.fleet.create(specs))
        most = it.count - it.count // HANGS
        soon = await it.fleet.until(
            lambda: it.fleet.resting["Ready"] >= most, 60 + SECONDS_PER_MACHINE * it.count, it.say
        )
        figures.further["seconds until 90 % are Ready"] = soon - begun
        await creating
        await it.all_rest(list(specs), "Ready")


async def changed(it: Bench) -> None:
    """One change is applied to all of them, as GitOps does."""
    names = list(it.fleet.machines)
    async with it.measured("changed", "one change to each"):
        await it.fleet.change(names, {"release": {"erase": "Quick"}})  # at once known to be unanswered
        await it.all_rest(names, "Ready")


async def wished(it: Bench) -> None:
    """One by one, some are wished to be on: how soon the BMC was told and the record says so."""
    names = random.Random(7).sample(list(it.fleet.machines), min(WISHES, it.count))  # noqa: S311 (a choice, no secret)
    delays = []
    async with it.measured("wished", f"{len(names)} wishes for power, one after the other") as figures:
        for name in names:
            begun = time.monotonic()
            await it.fleet.change([name], {"power": "On"})
            delays.append(await it.fleet.until(_is_on(it.fleet, name), 30, it.say) - begun)
    await it.fleet.change(names, {"power": None})  # an idle machine goes off again
    await it.fleet.until(lambda: not any(known.power == "On" for known in it.fleet.machines.values()), 60, it.say)
    ordered = sorted(delays)
    figures.further["milliseconds to act, half"] = 1000 * statistics.median(ordered)
    figures.further["milliseconds to act, 99 %"] = 1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def _is_on(machines: Fleet, name: str) -> Callable[[], bool]:
    return lambda: machines.machines[name].power == "On"


async def idle(it: Bench, seconds: float) -> None:
    """Nothing is wanted for a while."""
    async with it.measured("idle", f"at rest for {seconds:.0f} s") as figures:
        await asyncio.sleep(seconds)  # what is measured is how little happens meanwhile
    figures.further["percent of a core"] = 100 * figures.operator / seconds
    figures.further["writes"] = it.count * sum(
        each for name, each in figures.requests.items() if not name.startswith(READS)
    )


async def restarted(it: Bench) -> None:
    """The operator ends and is started again."""
    it.here.operator.stop()
    with stage(f"{it.count} machines: operator started again") as shown:
        it.say = shown.say
        asked = it.here.audit()
        begun = time.monotonic()
        await asyncio.to_thread(start_operator, it.here, it.arguments)
        ready = time.monotonic() - begun
        await asyncio.to_thread(_until_looked_at, it.count)
        wall = time.monotonic() - begun
        after = it._usage()  # noqa: SLF001 (of the operator's whole life so far: it is new)
        writes = sum(count for what, count in asked.so_far().items() if not what.startswith(READS))
        further = {"seconds until ready": ready, "writes": float(writes)}
        it.results["restarted"] = Figures(wall, after.operator, 0.0, after.peak, {}, further)


def _until_looked_at(count: int) -> None:
    """Wait until the operator has looked at each machine."""
    while usage.metric(PORT, "rackwright_reconcile_duration_seconds_count") < count:
        time.sleep(0.05)


async def deployed(it: Bench) -> None:
    """All are reserved and deployed."""
    names = list(it.fleet.machines)
    wish = {"allocation": {"owner": "team-search"}, "deployment": {"image": simulated.IMAGE}}
    async with it.measured("deployed", "Ready → Deployed"):
        await asyncio.gather(it.fleet.change(names, wish), it.all_rest(names, "Deployed"))


async def released(it: Bench) -> None:
    """All are given back."""
    names = list(it.fleet.machines)
    async with it.measured("released", "Deployed → Ready"):
        await asyncio.gather(
            it.fleet.change(names, {"allocation": None, "deployment": None}), it.all_rest(names, "Ready")
        )


async def storm(it: Bench, calm: float) -> None:
    """As many are declared again, of which one in ten has a BMC that never answers; `calm` is what 90 % took before."""
    hanging = it.count // HANGS
    specs = fleet.specs(hanging, HANGING, kind="h") | fleet.specs(it.count - hanging, FAST)
    async with it.measured("storm", f"declared → Ready, {hanging} BMCs hang") as figures:
        begun = time.monotonic()
        creating = asyncio.create_task(it.fleet.create(specs))
        ends = await it.fleet.until(
            lambda: it.fleet.resting["Ready"] >= it.count - hanging, 120 + SECONDS_PER_MACHINE * it.count, it.say
        )
        figures.wall = ends - begun
        await creating
    figures.further["percent slower than without"] = 100 * (figures.wall / calm - 1)


async def bare(it: Bench, written: Written) -> None:
    """The same requests without an operator, and two who watch."""
    with stage(f"{it.count} machines: the same requests, nobody decides"):
        async with Fleet.of(it.here.plane):
            before = it.server_seconds()
            wall = await write(it.fleet, fleet.specs(it.count, FAST), written)
            it.results["bare"] = Figures(wall, server=it.server_seconds() - before)


SCENARIOS = ("created", "changed", "wished", "idle", "restarted", "deployed", "released", "storm", "bare")


async def run(
    name: str, count: int, wanted: Sequence[str], idle_seconds: float, arguments: Sequence[str] = ()
) -> dict[str, Figures]:
    """Take a fleet of this size through the scenarios that are wanted; what comes first of all always happens."""
    async with bench(name, count, arguments) as it:
        await created(it)
        written = Written.about(it.here, next(iter(it.fleet.machines)))
        for scenario, tell in (
            ("changed", changed),
            ("wished", wished),
            ("idle", lambda it: idle(it, idle_seconds)),
            ("restarted", restarted),
            ("deployed", deployed),
            ("released", released),
        ):
            if scenario in wanted:
                await tell(it)
        results = it.results
    if "storm" in wanted:
        async with bench(name, count, arguments) as it:
            await storm(it, results["created"].further["seconds until 90 % are Ready"])
        results |= it.results
    if "bare" in wanted:
        async with bench(name, count, arguments, operated=False) as it:
            await bare(it, written)
        results |= it.results
    return results


def require(counts: Sequence[int], name: str) -> None:
    """Refuse, before anything is made, what this machine is too small for."""
    usage.require_memory(max(counts))
    controlplane.check(name)
