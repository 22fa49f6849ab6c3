"""What the operator itself costs, machine by machine, where nobody else costs anything.

Beside an API server on two cores one sees mostly the API server. So here is none: the operator as `app` wires it, with
its queue, workers, cache, decisions, status patches and Events, between a store in memory and simulated machines that
answer at once. The clock stands still while there is anything to do, so no poll and no heartbeat comes in between, and
each run does the same. What is left is the least that a machine costs our processor, however fast the rest becomes.

Machines live in batches, each with an operator of its own, so that a hundred thousand fit into the memory of one batch.
What it costs to hold all of them at once is told by the memory that one takes, which is measured apart.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from tests.unit.simulated.rack import CHECKSUM, NAMESPACE, merged
from tests.unit.simulated.virtual import EPOCH, live

from lab.bench_options import STAGES
from lab.errors import Unfit
from rackwright.agent.tokens import Tokens
from rackwright.app import Operator, Settings
from rackwright.installs import Capacity
from rackwright.kube import Conflict, Secret
from rackwright.metrics import Metrics
from rackwright.netboot.script import RamdiskSettings
from rackwright.record import Machine
from rackwright.shards import Ours

JSON = dict[str, Any]
ADDRESS = "simulated://fast"
IMAGE = "debian-12"
DEPLOYMENT: Mapping[str, JSON] = {"allocation": {"owner": "team-search"}, "deployment": {"image": IMAGE}}
PROBED = 100
"""Machines whose memory is traced; tracing is slow, so these aren't timed."""
_AT_ONCE = 100
"""Deployments, as the operator has it unless it is told otherwise."""
_PATIENCE = 3600.0
_SETTLED = 1.0
"""Both by the virtual clock."""


@dataclass
class Stage:
    """What all machines together took for one stage of their lives."""

    processor: float = 0.0
    """Seconds, the store's own work taken off."""
    passes: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    """What an API server would have been asked, by verb and resource."""

    def add(self, other: Stage) -> None:
        """Another batch's."""
        self.processor += other.processor
        self.passes += other.passes
        self.requests += other.requests


@dataclass(frozen=True)
class Held:
    """Bytes a machine, on average."""

    operator_ready: float
    """In the operator's memory, with the simulated machine itself."""
    operator_deployed: float
    record_ready: float
    """JSON as an API server would answer it, without `managedFields`."""
    record_deployed: float
    inventory: float


@dataclass
class Floor:
    """The whole of it."""

    machines: int
    batch: int
    stages: dict[str, Stage]
    held: Held
    wall: float = 0.0
    """Seconds of the timed batches."""

    def rows(self) -> dict[str, dict[str, float]]:
        """A stage's figures, for programs."""
        return {
            name: {
                "processor milliseconds a machine": 1000 * it.processor / self.machines,
                "passes a machine": it.passes / self.machines,
                "passes a second": it.passes / it.processor,
                "requests a machine": it.requests.total() / self.machines,
            }
            for name, it in self.stages.items()
        }

    def described(self) -> dict[str, Any]:
        """All of it, for programs."""
        requests = {
            name: {what: count / self.machines for what, count in sorted(it.requests.items())}
            for name, it in self.stages.items()
        }
        return {
            "machines": self.machines,
            "batch": self.batch,
            "wall seconds": self.wall,
            "stages": self.rows(),
            "requests": requests,
            "bytes a machine": vars(self.held),
        }

    def __str__(self) -> str:
        """For people."""
        lines = [f"{self.machines} machines in batches of {self.batch}, no API server, {self.wall:.0f} s"]
        for name, row in self.rows().items():
            lines.append(
                f"  {name:9} {row['processor milliseconds a machine']:6.2f} ms of the processor a machine;"
                f" {row['passes a machine']:5.2f} passes a machine, {row['passes a second']:.0f} a second;"
                f" {row['requests a machine']:.2f} requests a machine"
            )
        total = sum(it.processor for it in self.stages.values())
        lines.append(f"  together  {1000 * total / self.machines:6.2f} ms of the processor a machine")
        ready, deployed = self.held.operator_ready / 1024, self.held.operator_deployed / 1024
        lines.append(f"  the operator holds {ready:.1f} KiB for a machine that is Ready, {deployed:.1f} KiB Deployed")
        lines.append(
            f"  JSON without managedFields: record {self.held.record_ready:.0f} bytes Ready, "
            f"{self.held.record_deployed:.0f} bytes Deployed; HardwareInventory {self.held.inventory:.0f} bytes"
        )
        return "\n".join(lines)


class _Counted(Metrics):
    """Metrics that can be asked how many passes there were."""

    passes = 0

    @contextmanager
    def passing(self) -> Iterator[Any]:
        self.passes += 1
        with super().passing() as it:
            yield it


class _Unwatched(Operator):
    """The operator, which is told of records by the store instead of by watches."""

    def begin(self) -> None:
        """Know the one image that there is, and let machines boot."""
        image = {"url": "http://images.example/debian-12.raw", "checksum": CHECKSUM, "format": "raw"}
        self._image({"metadata": {"name": IMAGE, "resourceVersion": "1"}, "spec": image}, deleted=False)
        self._synced = True

    def tell(self, record: Mapping[str, Any]) -> None:
        """As a watch does."""
        self._machine(record, deleted=False)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """With its workers, until the end of the context."""
        tasks = [asyncio.create_task(self._reconciler.work()) for _ in range(self._settings.workers)]
        tasks.append(asyncio.create_task(self._queue.run_timers()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._simulation is not None:
                self._simulation.close()
            await self._connections.close()


@dataclass
class Store:
    """An API server as far as the operator uses one, and its Lease: JSON in memory, and who rests in which phase."""

    records: dict[str, bytes] = field(default_factory=dict)
    inventories: dict[str, bytes] = field(default_factory=dict)
    resting: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    aside: float = 0.0
    """Processor seconds of what an API server would do; to read its answer is the operator's own business."""
    operator: _Unwatched = field(init=False)
    metrics: _Counted = field(default_factory=_Counted)
    _version: int = 0
    _phases: dict[str, str] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    alone = True

    def __post_init__(self) -> None:
        """With an operator, which isn't at work yet."""
        me: Any = self
        url = "http://10.0.0.1"
        settings = Settings(
            url, "127.0.0.1", 0, "system", RamdiskSettings(url), capacity=Capacity(_AT_ONCE, None), allow_simulated=True
        )
        self.operator = _Unwatched(me, Tokens(bytes(32)), settings, me, self.metrics)
        self.operator.begin()

    # --- what people do -------------------------------------------------------------------------------------------

    def declare(self, number: int) -> str:
        """A machine that nobody spoke to yet; its name."""
        name = f"node-{number:07}"
        mac = ":".join(f"{part:02x}" for part in (0x52, 0x54, *number.to_bytes(4, "big")))
        metadata = {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"{number:08x}-0000-4000-8000-000000000000",
            "generation": 1,
            "creationTimestamp": f"{EPOCH:%Y-%m-%dT%H:%M:%SZ}",
        }
        spec = {"bootMACAddress": mac, "bmc": {"address": ADDRESS}}
        kind = {"apiVersion": "metal.rackwright.io/v1alpha1", "kind": "BareMetalMachine"}
        self._put(name, {**kind, "metadata": metadata, "spec": spec})
        return name

    def change(self, name: str, spec: Mapping[str, JSON | None]) -> None:
        """Declare something else."""
        with self._apart():
            record = merged(json.loads(self.records[name]), {"spec": spec})
            record["metadata"]["generation"] += 1
        self._put(name, record)

    async def reach(self, phase: str, count: int) -> None:
        """Wait until so many machines rest in a phase, and nothing is left to be done about any.

        The clock stands still until then, so a second of it is no wait but the end of all work.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                while self.resting[phase] < count:
                    self._changed.clear()
                    await self._changed.wait()
                await asyncio.sleep(_SETTLED)
        except TimeoutError:
            raise Unfit(
                f"Of {count} machines {self.resting[phase]} became {phase}; all that rest: {dict(self.resting)}.",
                "run hack/test --no-rack tests/unit/simulated, which tells single lives",
            ) from None

    # --- the API server and the Lease, as far as the operator uses them -------------------------------------------

    def holds(self) -> bool:
        """Nobody else leads."""
        return True

    holds_any = holds

    def jurisdiction(self, _machine: Machine) -> Ours:
        """Every machine is ours."""
        return Ours(self.holds)

    async def patch_status(self, plural: str, _namespace: str, name: str, body: JSON) -> JSON:
        """Merge it into the version that it names."""
        return self._patched(f"patch {plural}/status", name, body["metadata"], {"status": body["status"]})

    async def patch_metadata(self, plural: str, _namespace: str, name: str, metadata: JSON) -> JSON:
        """The same for finalizers and annotations."""
        wanted = {key: value for key, value in metadata.items() if key not in ("uid", "resourceVersion")}
        return self._patched(f"patch {plural}", name, metadata, {"metadata": wanted})

    async def apply(self, plural: str, _namespace: str, _name: str, body: JSON) -> None:
        """Keep an inventory."""
        self.requests[f"patch {plural}"] += 1
        with self._apart():
            self.inventories[body["metadata"]["name"]] = _encoded(body)

    async def get(self, plural: str, _namespace: str, name: str) -> JSON | None:
        """A record or an inventory."""
        self.requests[f"get {plural}"] += 1
        stored = (self.records if plural == "baremetalmachines" else self.inventories).get(name)
        return None if stored is None else json.loads(stored)

    async def secret(self, _namespace: str, _name: str) -> Secret | None:
        """There is none: simulated BMCs have no account."""
        self.requests["get secrets"] += 1
        return None

    async def create_event(self, _namespace: str, _body: JSON) -> str:
        """Nobody reads them."""
        self.requests["create events"] += 1
        return f"event-{self.requests['create events']}"

    async def patch_event(self, _namespace: str, _name: str, _body: JSON) -> None:
        """One that says the same once more."""
        self.requests["patch events"] += 1

    def _patched(self, request: str, name: str, guard: JSON, patch: JSON) -> JSON:
        self.requests[request] += 1
        with self._apart():
            before = json.loads(self.records[name])
            if guard["resourceVersion"] != before["metadata"]["resourceVersion"]:
                raise Conflict("somebody else wrote first")
            record = merged(before, patch)
        return self._put(name, record)

    def _put(self, name: str, record: JSON) -> JSON:
        with self._apart():
            self._version += 1
            record["metadata"]["resourceVersion"] = str(self._version)
            self.records[name] = stored = _encoded(record)
            status = record.get("status") or {}
            self.resting[self._phases.get(name, "")] -= 1
            self._phases[name] = phase = "" if "operation" in status else status.get("phase", "")
            self.resting[phase] += 1
            self._changed.set()
        answer: JSON = json.loads(stored)
        self.operator.tell(answer)
        return answer

    @contextmanager
    def _apart(self) -> Iterator[None]:
        begun = time.process_time()
        try:
            yield
        finally:
            self.aside += time.process_time() - begun


def _encoded(record: JSON) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()


async def _live_through(
    store: Store, numbers: range, took: Callable[[str, Stage], None], until: str = STAGES[-1]
) -> None:
    """Take these machines, the store's first, from declared to released, or to an earlier stage."""
    with _taking(store, "created", took):
        names = [store.declare(number) for number in numbers]
        await store.reach("Ready", len(names))
    if until == "created":
        return
    with _taking(store, "deployed", took):
        for name in names:
            store.change(name, DEPLOYMENT)
        await store.reach("Deployed", len(names))
    if until == "deployed":
        return
    with _taking(store, "released", took):
        for name in names:
            store.change(name, dict.fromkeys(DEPLOYMENT))
        await store.reach("Ready", len(names))


@contextmanager
def _taking(store: Store, name: str, took: Callable[[str, Stage], None]) -> Iterator[None]:
    requests, passes, aside = store.requests.copy(), store.metrics.passes, store.aside
    begun = time.process_time()
    yield
    spent = time.process_time() - begun - (store.aside - aside)
    took(name, Stage(spent, store.metrics.passes - passes, store.requests - requests))


def measure(
    machines: int, *, batch: int = 1_000, until: str = STAGES[-1], say: Callable[[str], None] = lambda _: None
) -> Floor:
    """Take so many machines through their lives, or up to a stage of them."""
    held = _held(min(machines, PROBED))
    stages = {name: Stage() for name in STAGES[: STAGES.index(until) + 1]}

    def took(name: str, stage: Stage) -> None:
        stages[name].add(stage)

    async def life(numbers: range) -> None:
        store = Store()
        async with store.operator.at_work():
            await _live_through(store, numbers, took, until)

    begun = time.perf_counter()
    for first in range(0, machines, batch):
        numbers = range(first, min(first + batch, machines))
        _by_a_virtual_clock(partial(life, numbers))
        gc.collect()
        say(f"{numbers.stop}/{machines}")
    return Floor(machines, batch, stages, held, time.perf_counter() - begun)


def _held(count: int) -> Held:
    """What one machine more takes: what all have in common is there by then, for as many have lived before."""
    found: list[Held] = []

    async def life() -> None:
        store = Store()
        async with store.operator.at_work():
            await _live_through(store, range(count), lambda _name, _stage: None)
            before = _traced(store)
            more = range(count, 2 * count)
            names = [store.declare(number) for number in more]
            await store.reach("Ready", 2 * count)
            ready, record_ready = _traced(store), _mean(store.records, names)
            for name in names:
                store.change(name, DEPLOYMENT)
            await store.reach("Deployed", count)
            deployed = _traced(store)
            found.append(
                Held(
                    operator_ready=(ready - before) / count,
                    operator_deployed=(deployed - before) / count,
                    record_ready=record_ready,
                    record_deployed=_mean(store.records, names),
                    inventory=_mean(store.inventories, names),
                )
            )

    tracemalloc.start()
    try:
        _by_a_virtual_clock(life)
    finally:
        tracemalloc.stop()
    return found[0]


def _traced(store: Store) -> int:
    """Bytes in memory, what the store keeps taken off."""
    gc.collect()
    kept = sum(sys.getsizeof(each) for each in (*store.records.values(), *store.inventories.values()))
    return tracemalloc.get_traced_memory()[0] - kept


def _mean(stored: Mapping[str, bytes], names: list[str]) -> float:
    return sum(len(stored[name]) for name in names) / len(names)


def _by_a_virtual_clock(life: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        live(patch, life)
