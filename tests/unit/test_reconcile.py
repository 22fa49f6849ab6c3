"""One pass of the loop: what is written, what is done, in which order, and what a failure leads to."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.simulated.rack import merged

from rackwright import fence
from rackwright.api.machine import BareMetalMachineSpec, HardwareSummary, Phase, Power
from rackwright.cache import Cache
from rackwright.execute import NotNow
from rackwright.installs import Capacity
from rackwright.kube import Conflict, Gone, Unavailable
from rackwright.lifecycle.decide import Decision
from rackwright.lifecycle.differences import configuration
from rackwright.lifecycle.steps import Action
from rackwright.lifecycle.world import Agent, Blame, CommandState, Fault, Seen, World
from rackwright.metrics import Result
from rackwright.queue import WorkQueue
from rackwright.reconcile import Reconciler
from rackwright.record import Key, Machine
from rackwright.shards import Jurisdiction, Ours, Theirs, ToBeMoved

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = Key("rack-a", "node-07")
SPEC = {"allocation": {"owner": "search"}, "deployment": {"image": "debian-12"}}
READY = {"phase": "Ready", "observedGeneration": 1}
DEPLOYED = {"phase": "Deployed", "observedGeneration": 2, "owner": "search", "installed": {"image": "debian-12"}}

# --- a pass -------------------------------------------------------------------------------------------------------


@dataclass
class Rig:
    """A reconciler with everything around it scripted; `deeds` tells in order what it wrote and did."""

    deeds: list[str] = field(default_factory=list)
    seen: Seen = field(default_factory=lambda: Seen(power=Power.OFF))
    outcome: Fault | NotNow | Mapping[str, Any] | None = None
    trouble: Exception | None = None
    there: bool = True
    """Whether the API server has its record."""
    leads: bool = True
    jurisdiction: Jurisdiction | None = None
    """None: ours, as long as it leads."""
    stuck: asyncio.Event | None = None
    """Set when an action in progress is to end."""
    later: timedelta = timedelta()
    bmc: str = "redfish+https://10.0.0.7"
    progress_seconds: float = 0.0
    shared: bool = False
    hurried: list[bool] = field(default_factory=list)
    cache: Cache = field(default_factory=Cache)
    queue: WorkQueue[Key] = field(default_factory=WorkQueue)

    def __post_init__(self) -> None:
        self.reconciler = Reconciler(
            cluster=self,  # type: ignore[arg-type]
            cache=self.cache,
            queue=self.queue,
            observer=self,  # type: ignore[arg-type]
            executor=self,  # type: ignore[arg-type]
            events=self,  # type: ignore[arg-type]
            jurisdiction=lambda _: self.jurisdiction or Ours(lambda: self.leads),
            progress_seconds=self.progress_seconds,
            shared=self.shared,
        )

    def declare(self, **changes: Any) -> None:
        """Have a watch bring the machine, held by our finalizer."""
        metadata = {
            "namespace": KEY.namespace,
            "name": KEY.name,
            "uid": "uid",
            "resourceVersion": "1",
            "generation": 1,
            "finalizers": ["metal.rackwright.io/release"],
            "annotations": {"metal.rackwright.io/record": "uid"},
            **changes,
        }
        spec = {"bootMACAddress": "52:54:00:00:00:07", "bmc": {"address": self.bmc}}
        self.item = {"metadata": metadata, "spec": spec}
        self.reconciler.seen(self.item)

    async def turn(self) -> float | None:
        """One pass; the delay that it asks for."""
        return await self.reconciler._pass(KEY)

    # what stands around it

    async def world(self, machine: Machine, *, hurry: bool) -> World:
        self.hurried.append(hurry)
        return World(
            uid=machine.uid,
            name=machine.key.name,
            generation=machine.generation,
            spec=machine.spec,
            status=machine.status,
            now=NOW + self.later,
            seen=self.seen,
            deleting=machine.deleting,
            held=machine.held,
            hurry=hurry,
        )

    async def patch_status(self, _plural: str, _namespace: str, _name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if self.trouble is not None:
            raise self.trouble
        assert body["metadata"]["resourceVersion"] == self.item["metadata"]["resourceVersion"]
        self.item = merged(self.item, {"status": body["status"]})
        self.item["metadata"]["resourceVersion"] = str(int(body["metadata"]["resourceVersion"]) + 1)
        self.deeds.append("write")
        return self.item

    async def carry_out(self, action: Action, _machine: Machine) -> Fault | NotNow | Mapping[str, Any] | None:
        if self.trouble is not None:
            raise self.trouble
        self.deeds.append(type(action).__name__)
        if self.stuck is not None:
            await self.stuck.wait()
            fence.check()
        return self.outcome

    async def patch_metadata(self, _plural: str, _namespace: str, _name: str, metadata: Mapping[str, Any]) -> Any:
        fence.check()
        assert metadata["resourceVersion"] == self.item["metadata"]["resourceVersion"]
        self.item = merged(
            self.item, {"metadata": {**metadata, "resourceVersion": f"{int(metadata['resourceVersion']) + 1}"}}
        )
        self.deeds.append("patch")
        return self.item

    async def get(self, _plural: str, _namespace: str, _name: str) -> dict[str, Any] | None:
        self.deeds += ["read"] if self.shared else []
        return self.item if self.there else None

    async def acted(self, _machine: Machine, decision: Decision) -> None:
        self.deeds.append(f"acted {decision.reason}")

    async def tell(self, _machine: Machine, decision: Decision) -> None:
        self.deeds.append(f"tell {decision.reason}")

    def forget(self, _machine: Machine) -> None:
        self.deeds.append("forget")

    def listens_to(self, uid: str) -> None:
        self.deeds.append(f"listen to {uid}")

    def doubt(self, _uid: str) -> None:
        self.deeds.append("doubt")


def present(rig: Rig) -> Machine:
    """The machine as the cache has it."""
    machine = rig.cache.get(KEY)
    assert machine is not None
    return machine


@pytest.fixture
def rig() -> Rig:
    it = Rig()
    it.declare()
    return it


async def test_what_is_meant_to_be_done_is_written_before_it_is_done(rig: Rig) -> None:
    assert await rig.turn() == 0.0
    assert rig.deeds == ["write", "tell BootingRamdisk"]
    assert await rig.turn() == 0.0
    assert rig.deeds[2:] == ["BootRamdisk", "acted BootingRamdisk"]


async def test_a_record_that_is_gone_is_given_up_without_waiting_for_a_watch(rig: Rig) -> None:
    rig.trouble, rig.there = Gone("it isn't there"), False
    await rig.reconciler._guarded(KEY)
    assert rig.cache.get(KEY) is None
    assert KEY not in rig.queue._due
    rig.reconciler.seen(rig.item, listed=True)  # an older listing
    assert rig.cache.get(KEY) is None


async def test_something_else_that_is_gone_is_tried_again_after_a_while_and_named(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.trouble = Gone("could not apply hardwareinventories: it isn't there")
    await rig.reconciler._guarded(KEY)
    assert "could not apply hardwareinventories: it isn't there" in caplog.text
    assert rig.cache.get(KEY) is not None
    assert 0.5 < rig.queue._due[KEY] - time.monotonic() < 2


@pytest.mark.parametrize("late", [True, False])
async def test_a_hurry_outlives_a_pass_that_came_to_nothing(rig: Rig, late: bool) -> None:
    rig.reconciler.hurry("uid")
    if late:
        rig.leads = False
    else:
        rig.trouble = RuntimeError("a defect")
    await rig.reconciler._guarded(KEY)
    rig.leads, rig.trouble = True, None
    await rig.turn()
    assert rig.hurried == [True, True]


async def test_a_pass_that_changes_nothing_writes_nothing(rig: Rig) -> None:
    await rig.turn()
    await rig.turn()
    rig.seen = replace(rig.seen, power=Power.ON)
    await rig.turn()
    rig.deeds.clear()
    assert await rig.turn() == 15.0
    assert rig.deeds == []


# --- progress: what an attempt looks like within a step -----------------------------------------------------------


class Clock:
    """The monotonic clock, by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    it = Clock()
    monkeypatch.setattr("rackwright.reconcile.monotonic", it)
    return it


async def booting(**rig: Any) -> Rig:
    """A machine that was just switched on, and of which progress is shown after half a minute."""
    it = Rig(progress_seconds=30.0, **rig)
    it.declare()
    for _ in range(2):
        await it.turn()
    assert it.deeds[-2:] == ["BootRamdisk", "acted BootingRamdisk"]
    it.deeds.clear()
    it.seen = replace(it.seen, power=Power.ON)
    return it


async def test_progress_is_written_once_it_has_been_so_for_a_while(clock: Clock) -> None:
    rig = await booting()
    assert await rig.turn() == 15.0
    clock.now += 20.0
    assert await rig.turn() == 10.0
    assert rig.deeds == []
    clock.now += 10.0
    assert await rig.turn() == 15.0
    assert rig.deeds == ["write", "tell AwaitingAgent"]
    clock.now += 60.0
    assert await rig.turn() == 15.0
    assert len(rig.deeds) == 2


async def test_progress_goes_along_with_whatever_is_written_before(clock: Clock) -> None:
    rig = await booting()
    await rig.turn()
    clock.now += 20.0
    rig.later += timedelta(seconds=20)
    rig.seen = replace(rig.seen, agent=Agent(heard_at=NOW))
    assert await rig.turn() == 0.0
    assert rig.deeds == ["write", "tell InspectionLost"]
    assert rig.item["status"]["power"] == "On"
    assert rig.item["status"]["poweredAt"] == f"{NOW:%FT%TZ}", "when it was seen, not when it was told"


async def test_a_ramdisk_that_has_told_all_is_switched_off_and_that_is_written_with_what_comes_of_it(
    clock: Clock,  # noqa: ARG001 (it stands still)
) -> None:
    rig = await booting()
    rig.seen = replace(rig.seen, agent=Agent(heard_at=NOW, inspected=True), kept=HardwareSummary(cpus=8))
    assert await rig.turn() == 0.0
    assert rig.deeds == ["PowerOff", "acted ShuttingDown"]
    rig.deeds.clear()
    rig.seen = Seen(power=Power.OFF, kept=HardwareSummary(cpus=8))
    await rig.turn()
    assert rig.deeds == ["write", "tell Available"]
    assert (rig.item["status"]["phase"], rig.item["status"]["hardware"]["cpus"]) == ("Ready", 8)


async def test_a_bmc_that_cannot_be_asked_then_does_not_have_the_machine_inspected_again(
    clock: Clock,  # noqa: ARG001 (it stands still)
) -> None:
    rig = await booting()
    rig.seen = replace(rig.seen, agent=Agent(heard_at=NOW, inspected=True), kept=HardwareSummary(cpus=8))
    rig.outcome = Fault(Blame.BMC, "BMCUnreachable", "The BMC broke the connection off.")
    await rig.turn()
    assert rig.item["status"]["operation"]["step"] == "ShutDown"
    assert rig.item["status"]["operation"]["attempt"] == 1


async def test_what_passed_within_the_while_is_never_told(clock: Clock) -> None:
    rig = await booting()
    clock.now += 30.0
    await rig.turn()
    clock.now += 30.0
    await rig.turn()
    rig.deeds.clear()
    unclear = Agent(heard_at=NOW, command=CommandState.UNKNOWN)
    for agent in (unclear, None, unclear, None):
        rig.seen = replace(rig.seen, agent=agent)
        await rig.turn()
        clock.now += 20.0
    assert rig.deeds == []


async def test_a_condition_that_turned_is_no_mere_progress(clock: Clock) -> None:  # noqa: ARG001 (it stands still)
    rig = await booting()
    rig.seen = Seen(bmc_fault=Fault(Blame.BMC, "BMCUnreachable", "The BMC is silent."))
    await rig.turn()
    assert rig.deeds[0] == "write"
    assert ("BMCReachable", "False") in [(c["type"], c["status"]) for c in rig.item["status"]["conditions"]]


async def test_a_spec_that_changed_is_taken_note_of_at_once(clock: Clock) -> None:  # noqa: ARG001 (it stands still)
    rig = await booting()
    rig.item = merged(rig.item, {"metadata": {"resourceVersion": "9", "generation": 2}})
    rig.reconciler.seen(rig.item)
    await rig.turn()
    assert rig.deeds[0] == "write"
    assert rig.item["status"]["observedGeneration"] == 2


async def test_whoever_has_to_do_something_is_told_at_once(clock: Clock) -> None:  # noqa: ARG001 (it stands still)
    rig = await booting(bmc="manual://")
    await rig.turn()
    assert rig.deeds == ["write", "tell AwaitingStartFromNetwork"]


async def test_nothing_is_remembered_of_a_machine_that_is_gone(clock: Clock) -> None:  # noqa: ARG001 (it stands still)
    rig = await booting()
    await rig.turn()
    assert rig.reconciler._progress
    rig.reconciler.gone(present(rig))
    assert not rig.reconciler._progress


# --- what goes wrong ----------------------------------------------------------------------------------------------


async def test_a_fault_of_an_action_is_written_with_the_next_attempts_time(rig: Rig) -> None:
    await rig.turn()
    rig.outcome = Fault(Blame.BMC, "BMCUnreachable", "The BMC is silent.")
    delay = await rig.turn()
    assert delay == 120.0
    assert rig.deeds[2:] == ["BootRamdisk", "write", "tell BMCUnreachable"]
    assert rig.item["status"]["operation"]["attempt"] == 2


async def test_the_pause_before_the_next_attempt_begins_when_the_action_has_failed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.turn()
    rig.outcome = Fault(Blame.BMC, "BMCProtocolError", "The BMC has not reached the power that it promised.")
    times = iter([1000.0, 1110.4])
    monkeypatch.setattr("rackwright.reconcile.monotonic", lambda: next(times))
    assert await rig.turn() == 120.0
    failed = NOW + timedelta(seconds=110)
    assert rig.item["status"]["lastFailure"]["at"] == f"{failed:%FT%TZ}"
    assert rig.item["status"]["operation"]["nextRetryAt"] == f"{failed + timedelta(minutes=2):%FT%TZ}"


async def test_an_agent_that_takes_no_command_is_left_in_peace_for_a_while(rig: Rig) -> None:
    rig.outcome, rig.seen = NotNow(), Seen(power=Power.ON, agent=Agent(heard_at=NOW))
    at = f"{NOW:%FT%TZ}"
    recorded = configuration(BareMetalMachineSpec.model_validate({"deployment": {"image": "debian-12"}}), KEY.name)
    operation = {"id": "op-1", "name": "Deploy", "step": "WriteImage", "beganAt": at, "startedAt": at}
    deploying = {
        "metadata": {"resourceVersion": "2", "generation": 2},
        "spec": {"allocation": {"owner": "a"}, "deployment": {"image": "debian-12"}},
        "status": {
            "phase": "Deploying",
            "owner": "a",
            "installed": {"image": "debian-12", "configuration": recorded},
            "operation": {**operation, "deadline": f"{NOW + timedelta(hours=1):%FT%TZ}"},
        },
    }
    rig.item = merged(rig.item, deploying)
    rig.reconciler.seen(rig.item)
    assert await rig.turn() == 15.0
    assert rig.deeds == ["WriteImage", "write", "tell AgentUnclear"]
    assert await rig.turn() == 15.0
    assert rig.deeds[3:] == ["WriteImage"]


async def test_a_machine_that_is_heard_of_goes_before_those_that_were_listed(rig: Rig) -> None:
    for number in range(3):
        metadata = {"name": f"listed-{number}", "uid": f"listed-{number}"}
        rig.reconciler.seen(merged(rig.item, {"metadata": metadata, "spec": {"bootMACAddress": None}}), listed=True)
    await rig.queue.get()
    rig.queue.done(KEY)
    rig.reconciler.wake("listed-2")
    assert [(await rig.queue.get()).name for _ in range(3)] == ["listed-2", "listed-0", "listed-1"]


async def test_an_image_that_changed_hurries_who_failed_for_its_sake(rig: Rig) -> None:
    rig.reconciler.image_changed(KEY)
    await rig.turn()
    failed = {"operation": "Deploy", "class": "Image", "reason": "ImageNotFound", "message": "-", "at": f"{NOW:%FT%TZ}"}
    rig.item = merged(rig.item, {"metadata": {"resourceVersion": "9"}, "status": {"lastFailure": failed}})
    rig.reconciler.seen(rig.item)
    rig.reconciler.image_changed(KEY)
    await rig.turn()
    assert rig.hurried == [False, True]


async def test_whoever_lost_leadership_writes_and_does_nothing_more_and_looks_again(rig: Rig) -> None:
    rig.leads = False
    await rig.reconciler._guarded(KEY)
    assert rig.deeds == []
    assert rig.queue._due[KEY] == pytest.approx(time.monotonic() + 1.0, abs=0.3)


async def test_an_action_that_ends_after_leadership_was_lost_is_not_recorded(rig: Rig) -> None:
    await rig.turn()
    rig.outcome = Fault(Blame.BMC, "BMCUnreachable", "The BMC is silent.")
    answers = iter([True, False])
    rig.jurisdiction = Ours(lambda: next(answers))
    await rig.turn()
    assert rig.deeds[2:] == ["BootRamdisk"]


async def test_another_operators_machine_is_left_alone_and_not_looked_at_again(rig: Rig) -> None:
    rig.jurisdiction = Theirs()
    assert await rig.turn() is None
    assert await rig.turn() is None
    assert rig.deeds == ["forget"], "once: what was known of it is that operator's business"
    assert rig.hurried == []


async def test_a_machine_that_comes_from_another_operator_is_listened_to_from_then_on(rig: Rig) -> None:
    rig.jurisdiction = Theirs()
    await rig.turn()
    rig.jurisdiction = None
    await rig.turn()
    await rig.turn()
    assert rig.deeds == [
        "forget", "listen to uid", "write", "tell BootingRamdisk", "BootRamdisk", "acted BootingRamdisk",
    ]  # fmt: skip


async def test_a_machine_that_comes_from_another_operator_is_left_alone_until_it_is_known_what_that_one_wrote() -> None:
    rig = Rig(shared=True, seen=Seen(power=Power.ON))
    rig.declare()
    rig.jurisdiction = Theirs()
    await rig.turn()
    rig.reconciler.seen(merged(rig.item, {"status": READY, "metadata": {"resourceVersion": "2"}}))
    rig.item = merged(
        rig.item, {"spec": SPEC, "status": DEPLOYED, "metadata": {"generation": 2, "resourceVersion": "9"}}
    )
    rig.jurisdiction = None
    for _ in range(3):
        await rig.turn()
    assert present(rig).status.phase == "Deployed"
    assert rig.deeds[:3] == ["forget", "listen to uid", "read"]
    assert "PowerOff" not in rig.deeds, "as idle machines are"
    assert rig.deeds.count("read") == 1, "once, as long as it stays"
    rig.jurisdiction = Theirs()
    await rig.turn()
    rig.jurisdiction = None
    await rig.turn()
    assert rig.deeds.count("read") == 2


async def test_a_machine_that_has_vanished_in_another_operators_hands_is_forgotten() -> None:
    rig = Rig(shared=True, there=False)
    rig.declare()
    assert await rig.turn() is None
    assert rig.cache.get(KEY) is None


async def test_what_is_read_after_the_shard_was_lost_counts_for_nothing() -> None:
    rig = Rig(shared=True)
    rig.declare()
    rig.leads = False
    await rig.reconciler._guarded(KEY)
    rig.leads = True
    await rig.turn()
    assert rig.deeds == ["read", "read"]


async def test_what_puts_a_machine_into_a_shard_is_written_down_before_anything_is_done_to_it(rig: Rig) -> None:
    rig.jurisdiction = ToBeMoved("rack/a12", lambda: True)
    assert await rig.turn() == 0.0
    assert rig.deeds == ["patch"]
    assert rig.item["metadata"]["annotations"]["metal.rackwright.io/sharded-by"] == "rack/a12"
    assert present(rig).sharded_by == "rack/a12"


async def test_nobody_moves_a_machine_who_lost_its_shard(rig: Rig) -> None:
    rig.jurisdiction = ToBeMoved("rack/a12", lambda: False)
    await rig.reconciler._guarded(KEY)
    assert rig.deeds == []


async def test_a_worker_outlives_an_action_that_was_stopped_in_the_middle(rig: Rig) -> None:
    await rig.turn()
    rig.stuck = asyncio.Event()
    passing = asyncio.create_task(rig.reconciler._guarded(KEY))
    await asyncio.sleep(0)
    assert not await rig.reconciler.quiet([KEY], within=0.01), "it is under way"
    rig.leads = False
    rig.stuck.set()
    assert await rig.reconciler.quiet([KEY], within=1.0)
    await passing
    assert rig.deeds == ["write", "tell BootingRamdisk", "BootRamdisk"], "and nothing is recorded of it"


async def test_whoever_is_not_at_work_is_quiet(rig: Rig) -> None:
    await rig.reconciler._guarded(KEY)
    assert await rig.reconciler.quiet([KEY, Key("rack-a", "unknown")], within=0.0)


async def test_hurry_brings_one_attempt_forward_and_never_the_next(rig: Rig) -> None:
    rig.reconciler.hurry("uid")
    rig.seen = Seen(bmc_fault=Fault(Blame.BMC, "BMCUnreachable", "The BMC is silent."))
    for _ in range(4):
        await rig.turn()
    assert rig.hurried == [True, False, False, False]
    assert rig.item["status"]["operation"]["attempt"] == 2


async def test_a_pass_that_failed_leaves_the_hurry_to_the_next(rig: Rig) -> None:
    rig.reconciler.hurry("uid")
    rig.trouble = Conflict("somebody else wrote first")
    await rig.reconciler._guarded(KEY)
    rig.trouble = None
    await rig.turn()
    assert rig.hurried == [True, True]


def test_a_secret_of_a_machine_that_is_gone_hurries_nobody(rig: Rig) -> None:
    rig.reconciler.hurry("long gone")
    rig.reconciler.hurry("uid")
    rig.reconciler.gone(present(rig))
    assert not rig.reconciler._hurry


def test_the_late_news_of_a_machines_end_leaves_its_successor_its_timer(rig: Rig) -> None:
    first = copy.deepcopy(rig.item)
    rig.declare(uid="second", resourceVersion="9")
    rig.queue.wake_after(KEY, 60)
    rig.reconciler.seen(first, deleted=True)
    assert KEY in rig.queue._due
    assert rig.cache.with_uid("second")
    rig.reconciler.seen(rig.item, deleted=True)
    assert KEY not in rig.queue._due


def test_a_machine_that_was_made_anew_is_forgotten_even_if_nobody_tells_of_its_end(rig: Rig) -> None:
    rig.reconciler.hurry("uid")
    rig.deeds.clear()
    rig.declare(uid="second", resourceVersion="9")
    assert rig.deeds == ["forget"]
    assert not rig.reconciler._hurry


async def test_a_pass_that_outlives_its_machine_leaves_nothing_behind(rig: Rig) -> None:
    async def world(machine: Machine, *, hurry: bool) -> World:
        rig.reconciler.gone(machine)
        rig.deeds.clear()
        return await Rig.world(rig, machine, hurry=hurry)

    rig.world = world  # type: ignore[method-assign]
    rig.trouble = Unavailable("no answer")
    rig.reconciler.hurry("uid")
    with pytest.raises(Unavailable):
        await rig.turn()
    assert rig.deeds == ["forget"]
    assert not rig.reconciler._hurry


async def test_a_pass_that_outlives_its_machine_keeps_no_turn_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(Capacity(fleet=1))
    rig = Rig(cache=cache)
    rig.declare()

    async def world(machine: Machine, *, hurry: bool) -> World:
        rig.reconciler.gone(machine)
        assert cache.installs.place(to_deploy(machine), take=True) is None
        return await Rig.world(rig, machine, hurry=hurry)

    monkeypatch.setattr(rig, "world", world)
    rig.trouble = Unavailable("no answer")
    with pytest.raises(Unavailable):
        await rig.turn()
    assert cache.installs.counts().under_way == 0


def to_deploy(machine: Machine) -> Machine:
    """The same, Allocated and with a deployment to begin."""
    spec = {"bmc": {"address": "manual://"}, "allocation": {"owner": "o"}, "deployment": {"image": "debian-12"}}
    return replace(
        machine,
        spec=BareMetalMachineSpec.model_validate(spec),
        status=machine.status.model_copy(update={"phase": Phase.ALLOCATED}),
    )


async def test_a_status_that_keeps_nothing_of_what_is_written_is_said_so_and_nothing_is_done(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the CRD of an earlier version."""

    async def patch_status(*_: object) -> dict[str, Any]:
        return rig.item

    monkeypatch.setattr(rig, "patch_status", patch_status)
    assert await rig.reconciler._guarded(KEY) is Result.CLUSTER_ERROR
    assert "status keeps no " in caplog.text
    assert "apply the CRDs of this version" in caplog.text
    assert rig.deeds == []
    assert KEY in rig.queue._due


async def test_a_record_that_is_gone_is_not_told_of(rig: Rig) -> None:
    rig.trouble = Gone("it isn't there")
    await rig.reconciler._guarded(KEY)
    assert rig.deeds == []


async def test_a_record_is_let_go_once_and_not_remembered_by_the_answer(rig: Rig) -> None:
    rig.declare(resourceVersion="5", deletionTimestamp="2026-01-01T00:00:00Z")
    rig.outcome = {**rig.item, "metadata": {**rig.item["metadata"], "resourceVersion": "6", "finalizers": []}}
    assert await rig.turn() is None
    assert rig.deeds == ["LetGo", "acted Deleted"]
    rig.reconciler.seen(rig.item, deleted=True)
    assert rig.cache.get(KEY) is None


@pytest.mark.parametrize(
    ("trouble", "delay"),
    [
        (Conflict("somebody else wrote first"), 0.2),
        (Unavailable("no answer"), 1.0),
        (RuntimeError("the-password"), 1.0),
    ],
)
async def test_whatever_goes_wrong_is_a_later_pass_and_no_traceback(
    rig: Rig, trouble: Exception, delay: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig.trouble = trouble
    await rig.reconciler._guarded(KEY)
    assert rig.queue._due[KEY] == pytest.approx(time.monotonic() + delay, abs=0.3)
    assert "Traceback" not in caplog.text
    assert "the-password" not in caplog.text


async def test_passes_that_fail_one_after_the_other_come_ever_later(rig: Rig) -> None:
    rig.trouble = Unavailable("no answer")
    delays = [rig.reconciler._later(KEY) for _ in range(12)]
    assert all(0.8 * 2**n <= delay <= 1.2 * 2**n for n, delay in enumerate(delays[:6]))
    assert max(delays) <= 1.2 * 60
    rig.trouble = None
    await rig.reconciler._guarded(KEY)
    assert rig.reconciler._later(KEY) <= 1.2


async def test_conflicts_one_after_the_other_are_tried_again_ever_later_and_soon_after_a_pass_without_one(
    rig: Rig,
) -> None:
    delays = []
    for trouble in [*[Conflict("somebody else wrote first")] * 10, None, Conflict("again")]:
        rig.trouble, before = trouble, time.monotonic()
        rig.queue.forget(KEY)
        await rig.reconciler._guarded(KEY)
        if trouble is not None:
            delays.append(rig.queue._due[KEY] - before)
    assert all(0.79 * 0.2 * 2**n <= delay <= 1.25 * 0.2 * 2**n for n, delay in enumerate(delays[:8])), delays
    assert max(delays) <= 1.2 * 60 + 0.1
    assert delays[-1] <= 0.3


# --- an API server whose store was restored from a backup ---------------------------------------------------------


@pytest.fixture
def restored(rig: Rig) -> Rig:
    """The API server has an older record than the operator, whose writes it therefore refuses."""
    rig.declare(resourceVersion="50", generation=3)
    rig.item = merged(rig.item, {"metadata": {"resourceVersion": "40", "generation": 2}, "status": READY})
    rig.trouble = Conflict("somebody else wrote first")
    rig.deeds.clear()
    return rig


async def test_a_record_that_went_back_is_taken_in_and_written_upon(restored: Rig) -> None:
    await restored.reconciler._guarded(KEY)
    assert (present(restored).version, present(restored).status.phase) == (40, Phase.READY)
    assert restored.deeds == ["forget", "listen to uid"], "as by an operator that begins anew"
    restored.trouble = None
    await restored.reconciler._guarded(KEY)
    assert restored.deeds[2:3] == ["write"]
    assert present(restored).version == 41


async def test_a_machine_that_was_deleted_and_made_anew_before_its_record_went_back_is_there_again(
    restored: Rig,
) -> None:
    restored.reconciler.gone(present(restored))
    restored.declare(uid="second", resourceVersion="60")
    restored.item = merged(restored.item, {"metadata": {"uid": "uid", "resourceVersion": "40"}})
    await restored.reconciler._guarded(KEY)
    assert (present(restored).uid, present(restored).version) == ("uid", 40)


async def test_an_answer_that_is_older_than_what_a_watch_told_meanwhile_is_none_that_went_back(
    restored: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(*_: str) -> dict[str, Any]:
        answer = restored.item
        restored.declare(resourceVersion="55")
        return answer

    monkeypatch.setattr(restored, "get", get)
    await restored.reconciler._guarded(KEY)
    assert present(restored).version == 55
    assert restored.deeds == []


async def test_an_answer_that_is_as_new_as_what_is_known_is_none_that_went_back(rig: Rig) -> None:
    rig.deeds.clear()
    rig.trouble = Conflict("somebody else wrote first")
    await rig.reconciler._guarded(KEY)
    assert rig.deeds == []


async def test_no_write_is_waited_for_that_was_undone(restored: Rig) -> None:
    metrics = restored.reconciler._metrics
    metrics.wrote({"metadata": {"uid": "uid", "resourceVersion": "50"}})
    assert metrics._echoes._awaited
    await restored.reconciler._guarded(KEY)
    assert not metrics._echoes._awaited


def test_what_is_known_already_is_not_read_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.reconciler.seen({**rig.item, "spec": {"commissioning": {"timeout": "soon"}}})
    assert rig.cache.get(KEY) is not None
    assert not caplog.text


async def test_an_unreadable_machine_is_left_alone_and_said_so(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    changed = {"resourceVersion": "9", "generation": 2}
    broken = merged(rig.item, {"metadata": changed, "spec": {"commissioning": {"timeout": "soon"}}})
    rig.reconciler.seen(broken)
    assert "rack-a/node-07: commissioning.timeout can't be read" in caplog.text
    assert rig.deeds == ["forget"]
    assert await rig.turn() is None
    assert rig.deeds == ["forget"]
    rig.declare(resourceVersion="10")
    assert await rig.turn() == 0.0
    assert rig.deeds == ["forget", "listen to uid", "write", "tell BootingRamdisk"]


NEWER = [{"spec": {"bootMode": "Newer"}}, {"status": {"phase": "Newer"}}]


@pytest.mark.parametrize("known", [True, False], ids=["read before", "at a start"])
@pytest.mark.parametrize("newer", NEWER, ids=["spec", "status"])
def test_an_unreadable_machine_is_no_other_records(newer: dict[str, Any], *, known: bool) -> None:
    before = Rig()
    before.declare()
    rig = before if known else Rig()
    twin = merged(before.item, {"metadata": {"name": "twin", "uid": "twin"}})
    unreadable = merged(merged(before.item, newer), {"metadata": {"resourceVersion": "9"}})
    rig.reconciler.seen(twin)
    rig.reconciler.seen(unreadable)
    other = rig.cache.get(Key("rack-a", "twin"))
    assert other is not None
    assert rig.cache.twin_of(other) == KEY
    assert rig.cache.census.phases["Unreadable"] == 1
    rig.reconciler.seen(merged(unreadable, {"metadata": {"resourceVersion": "10"}}), deleted=True)
    assert rig.cache.twin_of(other) is None
    assert rig.cache.census.phases["Unreadable"] == 0


def test_what_was_read_of_an_unreadable_machine_is_not_all_of_it_once_it_can_be(rig: Rig) -> None:
    spec = {"locked": True}
    rig.reconciler.seen(merged(rig.item, {"metadata": {"resourceVersion": "9"}, "spec": spec, **NEWER[1]}))
    assert rig.cache.with_uid("uid") is None, "nobody takes in what its agent tells"
    rig.reconciler.seen(merged(rig.item, {"metadata": {"resourceVersion": "10"}, "spec": spec}))
    assert present(rig).spec.locked
    assert rig.cache.with_uid("uid") is present(rig)


@pytest.mark.parametrize(
    "broken",
    [
        {"spec": {"release": {"timeout": f"{10**11}h"}}},
        {"metadata": {"annotations": {"metal.rackwright.io/installed": "[" * 100_000}}},
        {"metadata": {"annotations": {"metal.rackwright.io/installed": '{"at": "0001-01-01T00:00:00+14:00"}'}}},
    ],
)
def test_no_record_stops_the_others(rig: Rig, broken: dict[str, Any]) -> None:
    other = merged(rig.item, {"metadata": {"name": "other", "uid": "other", "resourceVersion": "2"}})
    rig.reconciler.seen(merged(merged(rig.item, {"metadata": {"resourceVersion": "3"}}), broken))
    rig.reconciler.seen(other)
    assert rig.cache.get(Key("rack-a", "other")) is not None


# --- what is said and counted ------------------------------------------------------------------------------------


async def test_a_machine_at_rest_has_no_line_however_often_it_is_looked_at(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.item = merged(rig.item, {"metadata": {"resourceVersion": "2"}, "status": {"phase": "Ready"}})
    rig.reconciler.seen(rig.item)
    while await rig.turn() == 0.0:
        pass
    rig.deeds.clear()
    caplog.set_level(logging.INFO)
    for _ in range(50):
        rig.later += timedelta(minutes=5)
        assert await rig.reconciler._guarded(KEY) is Result.DONE
    assert not rig.deeds
    assert not caplog.text


async def test_each_decision_that_changed_something_is_one_line(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await rig.turn()
    await rig.turn()
    assert [deed.partition(" ")[0] for deed in rig.deeds] == ["write", "tell", "BootRamdisk", "acted"]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        (
            "machine=rack-a/node-07 phase=Commissioning step=BootRamdisk reason=BootingRamdisk "
            "operation=Commission attempt=1"
        ),
        "machine=rack-a/node-07 step=BootRamdisk reason=BootingRamdisk phase=Commissioning",
    ]


async def test_a_new_spec_is_timed_until_it_is_recorded_what_it_leads_to(rig: Rig) -> None:
    reacted = rig.reconciler._metrics._registry.get_sample_value
    await rig.turn()
    assert reacted("rackwright_spec_reaction_seconds_count") == 1
    await rig.turn()
    assert reacted("rackwright_spec_reaction_seconds_count") == 1
