"""What an agent's finished command is taken to mean."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.agent.world import MAC, UID, boot, identity

from rackwright.agent.client import Command, CommandStatus
from rackwright.agent.sessions import Session, Sessions
from rackwright.agent.tokens import Tokens
from rackwright.api.conditions import Condition
from rackwright.api.inventory import DiskInventory
from rackwright.api.machine import (
    Deployment,
    HardwareSummary,
    Installed,
    Phase,
    Power,
    ReadinessGate,
    Rescue,
    RescueEnvironment,
    RootDeviceHints,
)
from rackwright.bmcs import Reading
from rackwright.cache import Cache
from rackwright.install.faults import Doing
from rackwright.install.phone_home import PhoneHome
from rackwright.installs import Capacity
from rackwright.lifecycle.world import Agent, Blame, CommandState, Fault, Place, Policy
from rackwright.observe import KeptInventory, Observer
from rackwright.record import Machine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AT = "2026-01-01T00:00:00Z"
BLOB = len(b"ssh-ed25519").to_bytes(4, "big") + b"ssh-ed25519" + b"k" * 36
KEY = f"ssh-ed25519 {base64.b64encode(BLOB).decode()}"
IN_RESCUE = Machine.read(
    {
        "metadata": {"namespace": "rack-a", "name": "node-07", "uid": UID, "resourceVersion": "1"},
        "spec": {"bootMACAddress": MAC, "bmc": {"address": "redfish+https://10.0.0.7"}},
        "status": {
            "phase": "Rescue",
            "operation": {"id": "op-1", "name": "Rescue", "beganAt": AT, "startedAt": AT, "deadline": AT},
        },
    }
)


def observer(sessions: Sessions) -> Observer:
    nobody: Any = None
    return Observer(
        cluster=nobody,
        cache=Cache(),
        bmcs=nobody,
        secrets=nobody,
        sessions=sessions,
        tokens=Tokens(b"k" * 32),
        policy=Policy(),
    )


async def test_a_report_that_is_in_the_cluster_is_let_go_and_counts_all_the_same() -> None:
    sessions, operation = Sessions(), IN_RESCUE.status.operation
    assert operation is not None
    sessions.reported(boot(machine_uid=IN_RESCUE.uid, operation_id=operation.id), {"inventory": {}})
    here = observer(sessions)
    here.kept(IN_RESCUE, KeptInventory(operation.id, HardwareSummary(cpus=8), ()))
    assert sessions.inspection(IN_RESCUE.uid, operation.id) is None
    agent = await here._agent(IN_RESCUE, operation, NOW)
    assert agent is not None
    assert agent.inspected
    assert here.found(IN_RESCUE) == HardwareSummary(cpus=8)


async def test_an_open_rescue_environment_says_where_and_how_to_log_in() -> None:
    sessions = Sessions()
    session = Session("op-1", "https://[2001:db8::7]:9999", identity().certificate, 0.0, "13.0.0")
    sessions.heard(boot(), session, ip_address("2001:db8::7"))
    done = Command(
        "c-1",
        "execute_clean_step",
        CommandStatus.SUCCEEDED,
        {"clean_result": {"user": "rescue", "hostKeys": [KEY, "no key at all"]}},
    )

    agent = await observer(sessions)._at_work(IN_RESCUE, Agent(NOW), done, Doing.RESCUE, NOW)

    assert agent.command is CommandState.SUCCEEDED
    assert agent.rescue == RescueEnvironment(user="rescue", addresses=["2001:db8::7"], ssh_host_keys=[KEY])


async def test_what_an_installed_system_reported_is_forgotten_once_status_has_it() -> None:
    at_rest = Machine.read(
        {
            "metadata": {
                "namespace": "rack-a",
                "name": "node-07",
                "uid": UID,
                "resourceVersion": "2",
                "finalizers": ["metal.rackwright.io/release"],
                "annotations": {"metal.rackwright.io/record": UID},
            },
            "spec": {"bootMACAddress": MAC, "bmc": {"address": "manual://"}},
            "status": {"phase": "Deployed"},
        }
    )
    here = observer(Sessions())
    here._bmcs = SimpleNamespace(turn_to=lambda _machine: None)  # type: ignore[assignment]
    here.reported(UID, PhoneHome("op-1", "10.0.0.7", "web-1", ()))
    await here.world(at_rest, hurry=False)
    assert not here._first_boots


@pytest.mark.parametrize(("owner", "known"), [(UID, True), ("an earlier machine's", False)])
async def test_the_inventory_of_an_earlier_machine_of_its_name_is_not_its_own(owner: str, known: bool) -> None:
    async def get(_plural: str, _namespace: str, _name: str) -> dict[str, Any]:
        return {"metadata": {"ownerReferences": [{"uid": owner}]}, "report": {"disks": [{"name": "/dev/sda"}]}}

    here = observer(Sessions())
    here._cluster = SimpleNamespace(get=get)  # type: ignore[assignment]
    assert (await here.inventory(IN_RESCUE) is not None) is known


class Asked:
    """BMCs that answer as they are told to; `fresh` is how new each answer had to be."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.fresh: list[float] = []
        self.last: Reading | None = None

    def turn_to(self, _machine: Machine) -> None:
        """Nothing to leave."""

    def known(self, _machine: Machine) -> Reading | None:
        return self.last

    async def power(self, machine: Machine, *, fresh: timedelta, poll: timedelta) -> Reading:
        assert poll == Policy().poll
        self.fresh.append(fresh.total_seconds())
        return Reading(Power.UNKNOWN if self.fault else Power.OFF, self.fault, 0.0, machine.spec.bmc)


# --- how often a BMC is asked while its agent reports -----------------------------------------------------------------


def at_work(heard: float) -> tuple[Observer, Asked, Machine]:
    """A machine that is being commissioned, whose agent was heard so many seconds ago."""
    sessions, asked = Sessions(), Asked()
    session = Session("op-n1", "https://10.0.0.7:9999", identity().certificate, time.monotonic() - heard, "13.0.0")
    sessions.heard(boot(machine_uid="n1", operation_id="op-n1"), session, ip_address("10.0.0.7"))
    here, machine = observer(sessions), to_install("n1")
    here._cache = Cache(Capacity(fleet=100))  # as by default; it waits for no turn before it is Ready
    operation = machine.status.operation
    assert operation is not None
    began = operation.model_copy(update={"name": "Commission", "step": "BootRamdisk"})
    status = machine.status.model_copy(update={"phase": Phase.COMMISSIONING, "operation": began})
    here._bmcs = asked  # type: ignore[assignment]
    here.kept(machine, KeptInventory("op-0", HardwareSummary(), ()))
    return here, asked, replace(machine, status=status)


@pytest.mark.parametrize(
    ("heard", "power", "fresh"),
    [(1, Power.ON, 60), (19, Power.ON, 60), (25, Power.ON, 5), (1, Power.OFF, 5), (1, None, 5)],
)
async def test_a_bmc_is_asked_rarely_while_the_agent_proves_that_the_power_is_on(
    heard: float, power: Power | None, fresh: float
) -> None:
    here, asked, machine = at_work(heard)
    if power is not None:
        asked.last = Reading(power, None, 0.0, machine.spec.bmc)
    await here.world(machine, hurry=False)
    assert asked.fresh == [fresh]


@pytest.mark.parametrize(("ago", "fresh"), [(3600, 0), (10, 0), (3, 5), (0, 5), (-60, 5)])
async def test_an_attempt_asks_a_bmc_anew_that_was_asked_in_vain_before_it_began(ago: float, fresh: float) -> None:
    here, asked, machine = at_work(heard=1)
    operation = machine.status.operation
    assert operation is not None
    begun = datetime.now(UTC) - timedelta(seconds=60)
    status = machine.status.model_copy(update={"operation": operation.model_copy(update={"started_at": begun})})
    fault = Fault(Blame.BMC, "BMCCredentialsRejected", "The BMC refuses the credentials.")
    asked.last = Reading(Power.UNKNOWN, fault, time.monotonic() - 60 - ago, machine.spec.bmc)
    await here.world(replace(machine, status=status), hurry=False)
    assert asked.fresh == [fresh]


async def test_an_agent_that_counts_as_lost_proves_nothing() -> None:
    here, asked, machine = at_work(heard=15)
    here._policy = Policy(silence=timedelta(seconds=12))
    asked.last = Reading(Power.ON, None, 0.0, machine.spec.bmc)
    await here.world(machine, hurry=False)
    assert asked.fresh == [5]


@pytest.mark.parametrize(("generation", "fresh"), [(3, 300), (4, 5)])
async def test_an_idle_machine_has_its_bmc_asked_anew_when_something_was_declared(
    generation: int, fresh: float
) -> None:
    here, asked, machine = at_work(heard=1)
    idle = machine.status.model_copy(update={"phase": Phase.BROKEN, "operation": None, "observed_generation": 3})
    await here.world(replace(machine, status=idle, generation=generation), hurry=False)
    assert asked.fresh == [fresh]


# --- whose turn it is to install ------------------------------------------------------------------------------------


def to_install(name: str) -> Machine:
    operation = {"id": f"op-{name}", "name": "Deploy", "beganAt": AT, "startedAt": AT, "deadline": AT}
    return Machine.read(
        {
            "metadata": {
                "namespace": "rack-a",
                "name": name,
                "uid": name,
                "resourceVersion": "1",
                "finalizers": ["metal.rackwright.io/release"],
                "annotations": {"metal.rackwright.io/record": name},
            },
            "spec": {
                "bootMACAddress": f"52:54:00:00:00:0{name[-1]}",
                "bmc": {"address": f"redfish+https://{name}.example"},
                "allocation": {"owner": "o"},
                "deployment": {"image": "debian-12"},
            },
            "status": {"phase": "Deploying", "owner": "o", "operation": operation},
        }
    )


SYSTEM, DATA = (
    DiskInventory(name="/dev/sda", size_bytes=16 * 2**30, serial="SYSTEM"),
    DiskInventory(name="/dev/sdb", size_bytes=32 * 2**30, serial="DATA"),
)


@pytest.fixture
def two_for_one_slot() -> tuple[Observer, Asked, Machine, Machine]:
    here, asked, first, second = observer(Sessions()), Asked(), to_install("n1"), to_install("n2")
    here._cache = Cache(Capacity(fleet=1))
    here._bmcs = asked  # type: ignore[assignment]
    for machine in (first, second):
        here._cache.put(machine)
        here.kept(machine, KeptInventory("op-0", HardwareSummary(disks=2), (SYSTEM, DATA)))
    return here, asked, first, second


async def test_a_machine_that_waits_for_its_turn_has_its_bmc_asked_as_rarely_as_an_idle_one(
    two_for_one_slot: tuple[Observer, Asked, Machine, Machine],
) -> None:
    here, asked, first, second = two_for_one_slot
    assert (await here.world(second, hurry=False)).seen.queued == Place(2, 2)
    assert (await here.world(first, hurry=False)).seen.queued is None
    assert asked.fresh == [Policy().poll.total_seconds(), 5.0]
    assert (await here.world(second, hurry=False)).seen.queued == Place(1, 1)


async def nothing(*_: object) -> None:
    """Nothing stands in a deployment's way."""


async def test_what_is_to_be_written_is_known_though_a_reinstallation_is_asked_for_meanwhile(
    two_for_one_slot: tuple[Observer, Asked, Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be recorded as unknown, never be what the agent is about to be told, and never be written."""
    here, _, first, _ = two_for_one_slot
    monkeypatch.setattr(here, "_obstacle", nothing)
    before = (await here.world(first, hurry=False)).seen.user_data
    deployment = first.spec.deployment.model_copy(update={"trigger": "again"}) if first.spec.deployment else None
    asked_anew = replace(first, version=2, spec=first.spec.model_copy(update={"deployment": deployment}))
    here._cache.put(asked_anew)
    assert before is not None
    assert (await here.world(asked_anew, hurry=False)).seen.user_data == before


async def test_an_open_rescue_goes_on_whatever_becomes_of_what_the_deployment_names(
    two_for_one_slot: tuple[Observer, Asked, Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _, first, _ = two_for_one_slot
    read: list[Machine] = []

    async def noted(machine: Machine, _deployment: Deployment) -> None:
        read.append(machine)

    monkeypatch.setattr(here, "_obstacle", noted)
    spec = first.spec.model_copy(update={"rescue": Rescue(ssh_authorized_keys=[KEY])})
    in_rescue = first.status.model_copy(update={"phase": Phase.RESCUE, "operation": None})
    await here.world(replace(first, spec=spec, status=in_rescue), hurry=False)
    assert read == [], "its user data aren't asked for"
    await here.world(replace(first, status=in_rescue), hurry=False)
    assert len(read) == 1, "once it is withdrawn the deployment may follow at once"


async def test_a_machine_whose_system_would_stay_on_another_disk_takes_no_slot(
    two_for_one_slot: tuple[Observer, Asked, Machine, Machine],
) -> None:
    here, _, first, second = two_for_one_slot
    on_data = first.status.model_copy(update={"installed": Installed(image="debian-12", disk="DATA")})
    first = replace(first, version=2, status=on_data)
    here._cache.put(first)
    seen = (await here.world(first, hurry=False)).seen
    assert (seen.root_disk, seen.left_behind) == ("SYSTEM", "DATA")
    assert (await here.world(second, hurry=False)).seen.queued == Place(2, 2)
    hints = first.spec.storage.model_copy(update={"root_device_hints": RootDeviceHints(serial="DATA")})
    chosen = replace(first, version=3, spec=first.spec.model_copy(update={"storage": hints}))
    here._cache.put(chosen)
    seen = (await here.world(chosen, hurry=False)).seen
    assert (seen.root_disk, seen.left_behind, seen.queued) == ("DATA", None, None)


@pytest.mark.parametrize(("gates", "queued"), [([], Place(1, 1)), (["example.org/BurnIn"], None)])
async def test_a_machine_that_stays_in_the_pool_takes_no_slot(
    two_for_one_slot: tuple[Observer, Asked, Machine, Machine], gates: list[str], queued: Place | None
) -> None:
    here, _, first, second = two_for_one_slot
    spec = first.spec.model_copy(update={"readiness_gates": [ReadinessGate(condition_type=gate) for gate in gates]})
    ready = first.status.model_copy(update={"phase": Phase.READY, "operation": None, "owner": None})
    first = replace(first, version=2, spec=spec, status=ready)
    here._cache = Cache(Capacity(fleet=1))
    here._obstacle = nothing  # type: ignore[assignment,method-assign]
    here._cache.put(first)
    await here.world(first, hurry=False)
    here._cache.put(second)
    assert (await here.world(second, hurry=False)).seen.queued == queued


async def test_a_machine_whose_bmc_is_misconfigured_takes_no_slot(
    two_for_one_slot: tuple[Observer, Asked, Machine, Machine],
) -> None:
    here, asked, first, second = two_for_one_slot
    asked.fault = Fault(Blame.CONFIGURATION, "SecretMissing", "The Secret is missing.")
    assert (await here.world(first, hurry=False)).seen.queued is None
    at = datetime.fromisoformat(AT)
    held = Condition(type="Stalled", status="True", reason="SecretMissing", last_transition_time=at)
    status = first.status.model_copy(update={"conditions": [held]})
    here._cache.put(replace(first, version=2, status=status))
    asked.fault = None
    assert (await here.world(second, hurry=False)).seen.queued is None
