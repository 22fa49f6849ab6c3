"""What `kubectl describe` tells of a failure: its own sentence, once, with how often it recurred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.lifecycle.worlds import attempt, declared, installed, power_off, power_on, world

from rackwright.api.machine import OperationName, Phase
from rackwright.events import Events
from rackwright.kube import Gone
from rackwright.lifecycle.decide import Decision, after_fault, decide
from rackwright.lifecycle.steps import Stage
from rackwright.lifecycle.world import Blame, Fault
from rackwright.record import Machine

SILENT = Fault(Blame.BMC, "BMCUnreachable", "The BMC is silent.")
MACHINE = Machine.read(
    {
        "metadata": {"namespace": "rack-a", "name": "node-07", "uid": "0f1e", "resourceVersion": "1"},
        "spec": {"bootMACAddress": "52:54:00:00:00:07", "bmc": {"address": "redfish+https://10.0.0.7"}},
    }
)


@dataclass
class Cluster:
    """Keeps the Events that are written."""

    notes: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)

    async def create_event(self, _namespace: str, body: Mapping[str, Any]) -> str:
        self.notes.append(body["note"])
        return f"event-{len(self.notes)}"

    async def patch_event(self, _namespace: str, name: str, body: Mapping[str, Any]) -> None:
        if name in self.gone:
            raise Gone("it isn't there")
        self.counts.append(body["series"]["count"])


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def failed(number: int, fault: Fault = SILENT) -> Decision:
    """What follows when this attempt at a commissioning failed."""
    operation = attempt(OperationName.COMMISSION, Stage.BOOT_RAMDISK, number=number)
    return after_fault(world(Phase.COMMISSIONING, operation=operation), fault)


async def test_attempts_that_fail_alike_are_one_event_that_counts_them(cluster: Cluster) -> None:
    events = Events(cluster, "operator")  # type: ignore[arg-type]
    for number in (1, 2):
        await events.tell(MACHINE, failed(number))
    assert cluster.notes == ["The BMC is silent. Attempt 2 of 3 follows."]
    assert cluster.counts == [2]


async def test_what_recurs_after_its_event_was_deleted_is_told_anew(cluster: Cluster) -> None:
    events = Events(cluster, "operator")  # type: ignore[arg-type]
    await events.tell(MACHINE, failed(1))
    cluster.gone.add("event-1")
    for _ in range(2):
        await events.tell(MACHINE, failed(2))
    assert cluster.notes == [f"The BMC is silent. Attempt {number} of 3 follows." for number in (2, 3)]
    assert cluster.counts == [2]


async def test_the_time_of_the_next_attempt_is_in_the_condition_and_not_in_the_event(cluster: Cluster) -> None:
    decision = failed(1)
    await Events(cluster, "operator").tell(MACHINE, decision)  # type: ignore[arg-type]
    assert "Attempt 2 of 3 at 08:" in decision.message
    assert ":" not in cluster.notes[0]


async def test_attempts_that_fail_differently_are_events_of_their_own(cluster: Cluster) -> None:
    events = Events(cluster, "operator")  # type: ignore[arg-type]
    await events.tell(MACHINE, failed(1))
    await events.tell(MACHINE, failed(2, Fault(Blame.BMC, "BMCBusy", "The BMC is busy.")))
    assert cluster.notes[1] == "The BMC is busy. Attempt 3 of 3 follows."


async def test_the_last_attempt_is_told_with_the_phase_that_it_leads_to(cluster: Cluster) -> None:
    await Events(cluster, "operator").tell(MACHINE, failed(3))  # type: ignore[arg-type]
    assert cluster.notes == ["Failed: The BMC is silent. Set spec.commissioning.trigger to a new value to try again."]


async def test_a_restart_that_is_given_up_tells_why_and_not_that_the_machine_runs(cluster: Cluster) -> None:
    operation = attempt(OperationName.RESTART, Stage.POWER_OFF, number=3, since=timedelta(hours=1))
    running = world(
        Phase.DEPLOYED,
        declared(owner="search", image="debian-12"),
        power_on(),
        owner="search",
        installed=installed(),
        operation=operation,
    )
    decision = decide(running)
    assert decision.status.phase is Phase.DEPLOYED
    await Events(cluster, "operator").tell(MACHINE, decision)  # type: ignore[arg-type]
    assert cluster.notes == [
        "The attempt took longer than its timeout in spec. That was attempt 3 of 3.",
    ]


async def test_a_machine_that_is_reserved_and_deployed_at_once_is_one_piece_of_news(cluster: Cluster) -> None:
    declares = declared(owner="search", image="debian-12")
    decision = decide(world(Phase.READY, declares, power_off()))
    assert [transition.after for transition in decision.transitions] == [Phase.ALLOCATED, Phase.DEPLOYING]
    await Events(cluster, "operator").tell(MACHINE, decision)  # type: ignore[arg-type]
    assert cluster.notes == ["Allocated: Reserved for its owner. Deploying: A deployment is declared."]


async def test_a_machine_that_is_only_reserved_says_so(cluster: Cluster) -> None:
    decision = decide(world(Phase.READY, declared(owner="search"), power_off()))
    await Events(cluster, "operator").tell(MACHINE, decision)  # type: ignore[arg-type]
    assert cluster.notes == ["Allocated: Reserved for its owner."]
