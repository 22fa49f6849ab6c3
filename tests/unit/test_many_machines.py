"""Many machines at once: who is slow holds up nobody else, and nobody is asked or waited for twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.agent.world import boot

from rackwright.agent.sessions import Sessions
from rackwright.api.machine import Power
from rackwright.cache import Cache
from rackwright.execute import SECOND_THOUGHT_SECONDS, UNRECORDED_SECONDS, AskedToShutDown, Executor, Means
from rackwright.lanes import ON_BEHALF_OF, Lane
from rackwright.lifecycle.steps import PowerOff
from rackwright.lifecycle.world import Seen, World
from rackwright.metrics import Metrics
from rackwright.power.port import PowerState
from rackwright.queue import WorkQueue
from rackwright.reconcile import Reconciler
from rackwright.record import Key, Machine
from rackwright.shards import Ours

GRACE = 60.0
AT = "2026-01-01T00:00:00Z"


@dataclass
class BMC:
    """One whose machine shuts down when it likes to, or never."""

    shuts_down_in: float | None = None
    on: bool = True
    told: list[str] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    looks: int = 0

    async def ask_to_shut_down(self) -> bool:
        self.told.append("shut down")
        self.asked.set()
        if self.shuts_down_in is not None:
            asyncio.get_running_loop().call_later(self.shuts_down_in, self._off)
        return True

    async def power_state(self) -> PowerState:
        self.looks += 1
        return PowerState.ON if self.on else PowerState.OFF

    async def power_off(self, *, grace: float) -> None:
        assert grace == 0
        if self.on:
            self.told.append("cut")
        self._off()

    async def set_boot(self, _target: object, *, uefi: bool) -> None:
        del uefi

    async def power_on(self) -> None:
        self.told.append("on")
        self.started.set()
        self.on = True

    def _off(self) -> None:
        self.on = False


class Around:
    """Everything that a loop has around it, with a scripted BMC for each machine; the loop is the real one."""

    def __init__(self, *, grace: float, patience: float) -> None:
        self.bmcs: dict[str, BMC] = {}
        self.cache, self.queue = Cache(), WorkQueue[Key](lane=lambda key: Lane(key.namespace))
        unused: Any = None
        me: Any = self
        self.metrics = Metrics()
        self.executor = Executor(
            cluster=unused, bmcs=me, sessions=Sessions(), tokens=unused, observer=me, means=Means("", grace)
        )
        self.reconciler = Reconciler(
            cluster=me,
            cache=self.cache,
            queue=self.queue,
            observer=me,
            executor=self.executor,
            events=me,
            jurisdiction=lambda _: Ours(lambda: True),
            patience=patience,
            metrics=self.metrics,
        )
        self.items: dict[str, dict[str, Any]] = {}
        self.lanes: dict[str, Lane] = {}
        """Whom each pass took turns for."""
        self.statuses: list[dict[str, Any]] = []
        """As they were recorded, of whatever machine."""

    def declare(
        self, namespace: str, name: str, bmc: BMC, status: Mapping[str, Any] | None = None, rack: str = ""
    ) -> None:
        """Have a watch bring a machine."""
        number = len(self.items)
        self.bmcs[name] = bmc
        self.items[name] = {
            "metadata": {
                "namespace": namespace,
                "name": name,
                "uid": name,
                "resourceVersion": "1",
                "generation": 1,
                "labels": {"metal.rackwright.io/rack": rack},
                "finalizers": ["metal.rackwright.io/release"],
                "annotations": {"metal.rackwright.io/record": name},
            },
            "spec": {
                "bootMACAddress": f"52:54:00:00:{number // 256:02x}:{number % 256:02x}",
                "bmc": {"address": f"redfish+https://{name}.example"},
            },
            "status": status or {},
        }
        self.reconciler.seen(self.items[name])

    @asynccontextmanager
    async def working(self, workers: int) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.reconciler.work()) for _ in range(workers)]
        tasks.append(asyncio.create_task(self.queue.run_timers()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # what stands around it

    async def world(self, machine: Machine, *, hurry: bool) -> World:
        self.lanes[machine.uid] = ON_BEHALF_OF.get()
        return World(
            uid=machine.uid,
            name=machine.key.name,
            generation=machine.generation,
            spec=machine.spec,
            status=machine.status,
            now=datetime.now(UTC).replace(microsecond=0),
            seen=Seen(power=Power((await self.bmcs[machine.uid].power_state()).value)),
            hurry=hurry,
        )

    async def patch_status(self, _plural: str, _namespace: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        before = self.items[name]
        assert body["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        changes = body["status"]
        status = {k: v for k, v in (before["status"] | changes).items() if v is not None}
        if changes.get("operation"):
            status["operation"] = (before["status"].get("operation") or {}) | changes["operation"]
        self.statuses.append(status)
        version = str(int(before["metadata"]["resourceVersion"]) + 1)
        self.items[name] = before | {"metadata": before["metadata"] | {"resourceVersion": version}, "status": status}
        return self.items[name]

    async def driver(self, machine: Machine) -> BMC:
        return self.bmcs[machine.uid]

    def session(self, _machine: Machine) -> None:
        return None

    def stale(self, _uid: str) -> None:
        """Every look is a new one."""

    async def tell(self, _machine: Machine, _decision: object) -> None:
        """Nobody listens."""

    def forget(self, _machine: Machine) -> None:
        """Nothing is remembered."""


async def latency(around: Around, workers: int) -> float:
    """Seconds from one tenant's declaration to its machine's boot, while another's two hundred shut down."""
    crowd = [BMC() for _ in range(200)]
    async with around.working(workers):
        for number, bmc in enumerate(crowd):
            around.declare("many", f"crowd-{number}", bmc)
        async with asyncio.timeout(10):
            await crowd[0].asked.wait()
        begun = time.monotonic()
        around.declare("few", "only", BMC(on=False))
        async with asyncio.timeout(10):
            await around.bmcs["only"].started.wait()
        taken = time.monotonic() - begun
        async with asyncio.timeout(10):
            await asyncio.gather(*(bmc.asked.wait() for bmc in crowd))
        assert all(bmc.told == ["shut down"] for bmc in crowd), "their time isn't over"
    assert around.reconciler._slow == 0, "nothing is left behind"
    return taken


def busy(around: Around) -> float:
    """How many workers are, as Prometheus is told."""
    return float(around.metrics._busy._value.get())


async def test_a_machine_is_commissioned_at_once_while_two_hundred_of_another_tenant_shut_down_slowly() -> None:
    assert await latency(Around(grace=GRACE, patience=0.05), workers=4) < 0.5


async def test_a_pass_takes_turns_for_its_machines_namespace_and_rack() -> None:
    around = Around(grace=GRACE, patience=1.0)
    async with around.working(1):
        for name, rack in (("n1", "r1"), ("n2", "")):
            around.declare("a", name, BMC(on=False), rack=rack)
        async with asyncio.timeout(10):
            await asyncio.gather(*(bmc.started.wait() for bmc in around.bmcs.values()))
    assert around.lanes == {"n1": Lane("a", "r1"), "n2": Lane("a")}


async def test_a_pass_that_goes_on_without_its_worker_is_counted_as_that_and_the_worker_as_idle() -> None:
    around, crowd = Around(grace=GRACE, patience=0.05), [BMC() for _ in range(20)]
    async with around.working(4):
        for number, bmc in enumerate(crowd):
            around.declare("many", f"crowd-{number}", bmc)
        async with asyncio.timeout(10):
            await crowd[0].asked.wait()
            assert (busy(around), around.reconciler.waiting()) == (4, 0)
            while around.reconciler.waiting() < len(crowd):  # noqa: ASYNC110 (nobody is told of it)
                await asyncio.sleep(0.01)
        assert (busy(around), len(around.queue)) == (0, 0)
    assert (busy(around), around.reconciler.waiting()) == (0, 0)


async def test_a_slow_api_server_is_asked_by_no_more_than_there_are_workers() -> None:
    around = Around(grace=GRACE, patience=0.01)
    at_once = most = 0
    goes_on, all_ask = asyncio.Event(), asyncio.Event()
    patch_status = around.patch_status

    async def slow(*arguments: Any) -> dict[str, Any]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 4:
            all_ask.set()
        await goes_on.wait()
        at_once -= 1
        return await patch_status(*arguments)

    around.patch_status = slow  # type: ignore[method-assign,assignment]
    async with around.working(4):
        for number in range(40):
            around.declare("many", f"n{number}", BMC(on=False))
        async with asyncio.timeout(10):
            await all_ask.wait()
            await asyncio.sleep(0.1)  # ten times as long as a worker stays with other passes
            assert most == 4
            assert (busy(around), around.reconciler.waiting()) == (4, 0)
            goes_on.set()
            await asyncio.gather(*(bmc.started.wait() for bmc in around.bmcs.values()))


# --- the time that a system is given ----------------------------------------------------------------------------------


def in_service(asked: datetime | None = None, step: str = "PowerOff") -> Machine:
    operation = {"id": "op-1", "name": "Release", "step": step, "beganAt": AT, "startedAt": AT, "deadline": AT}
    status: dict[str, Any] = {"phase": "Releasing", "operation": operation}
    if asked is not None:
        status["shutdownAskedAt"] = asked.isoformat()
    return Machine.read(
        {
            "metadata": {"namespace": "rack-a", "name": "n", "uid": "n", "resourceVersion": "1"},
            "spec": {"bmc": {"address": "redfish+https://n.example"}, "bootMACAddress": "52:54:00:00:00:01"},
            "status": status,
        }
    )


class Clock:
    """A loop's time that passes only while everybody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept = 0.0
        loop = asyncio.get_running_loop()
        real, sleep = loop.time, asyncio.sleep

        async def skip(seconds: float) -> None:
            self.slept += seconds
            await sleep(0)

        monkeypatch.setattr(loop, "time", lambda: real() + self.slept)
        monkeypatch.setattr("rackwright.power.settle.asyncio.sleep", skip)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def around(bmc: BMC, grace: float = GRACE) -> Executor:
    it = Around(grace=grace, patience=1.0)
    it.bmcs["n"] = bmc
    return it.executor


async def test_a_system_that_takes_its_time_is_asked_once_and_that_is_recorded(clock: Clock) -> None:
    bmc = BMC()
    outcome = await around(bmc).carry_out(PowerOff(), in_service())
    assert isinstance(outcome, AskedToShutDown)
    assert bmc.told == ["shut down"]
    assert clock.slept == pytest.approx(UNRECORDED_SECONDS, abs=0.5)


async def test_a_system_that_shuts_down_in_a_moment_costs_no_record(clock: Clock) -> None:
    bmc = BMC()
    bmc.shuts_down_in = 0.0
    assert await around(bmc).carry_out(PowerOff(), in_service()) is None
    assert bmc.told == ["shut down"]
    assert clock.slept < UNRECORDED_SECONDS


@pytest.mark.parametrize(("ago", "left"), [(0, 60), (20, 40), (59, 1), (61, 0), (3600, 0), (-3600, 60)])
async def test_an_operator_that_takes_over_waits_what_is_left_and_asks_nobody_again(
    clock: Clock, ago: int, left: int
) -> None:
    bmc, begun = BMC(), datetime.now(UTC)
    asked = begun - timedelta(seconds=ago)
    passes, before = 0, 0.0
    while (outcome := await around(bmc).carry_out(PowerOff(), in_service(asked))) is not None:
        assert isinstance(outcome, AskedToShutDown)
        assert bmc.told == []
        passes += 1
        asked = outcome.at - timedelta(seconds=clock.slept - before)  # the wall's clock doesn't go with the loop's
        before = clock.slept
    assert bmc.told == ["cut"]
    stalled = (datetime.now(UTC) - begun).total_seconds()  # by the wall's clock, on a machine that is busy
    assert clock.slept == pytest.approx(max(left - stalled, 0), abs=1.0)
    assert passes == max(left - 1, 0) // SECOND_THOUGHT_SECONDS, "it is decided anew, so that it may be taken back"
    assert bmc.looks <= 24


async def test_without_grace_the_power_is_cut_at_once(clock: Clock) -> None:
    bmc = BMC()
    assert await around(bmc, grace=0.0).carry_out(PowerOff(), in_service()) is None
    assert (bmc.told, clock.slept) == (["cut"], 0.0)


async def test_a_ramdisk_that_has_only_told_what_the_machine_is_made_of_is_asked_nothing(clock: Clock) -> None:
    bmc = BMC()
    executor = around(bmc)
    executor._sessions.reported(boot(machine_uid="n", operation_id="op-1"), {"inventory": {}})
    executor._sessions.inspection_kept("n", "op-1")
    assert await executor.carry_out(PowerOff(), in_service(step="BootRamdisk")) is None
    assert (bmc.told, clock.slept) == (["cut"], 0.0)


async def test_a_short_grace_is_waited_out_without_a_record(clock: Clock) -> None:
    bmc = BMC()
    assert await around(bmc, grace=3.0).carry_out(PowerOff(), in_service()) is None
    assert bmc.told == ["shut down", "cut"]
    assert clock.slept == pytest.approx(3.0, abs=0.5)


async def test_what_was_asked_is_recorded_until_it_is_off_and_forgotten_then() -> None:
    around = Around(grace=UNRECORDED_SECONDS + 0.2, patience=0.01)
    async with around.working(2):
        around.declare("a", "n", BMC())
        async with asyncio.timeout(20):
            await around.bmcs["n"].started.wait()
    asked = [status for status in around.statuses if "shutdownAskedAt" in status]
    assert {status["operation"]["step"] for status in asked} == {"PowerOff"}
    assert around.bmcs["n"].told == ["shut down", "cut", "on"]
    assert "shutdownAskedAt" not in around.items["n"]["status"]
