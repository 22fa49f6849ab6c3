"""What Prometheus reads: every series from the start, in the format that it asks for, and never too many."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.unit.test_cache import item, machine

from lab.paths import REPOSITORY
from rackwright import __version__
from rackwright.api.conditions import ConditionType
from rackwright.api.machine import OperationName, Phase
from rackwright.cache import Cache
from rackwright.census import UNDECIDED
from rackwright.installs import Installations
from rackwright.lifecycle.decide import Decision
from rackwright.lifecycle.steps import Rest
from rackwright.metrics import Metrics, Outcome, Result
from rackwright.metrics.families import (
    CALLS,
    CODES,
    FAMILIES,
    MOST,
    REASONS,
    RESOURCES,
    VERBS,
    Kind,
)
from rackwright.power.connect import DRIVERS
from rackwright.power.port import FaultClass
from rackwright.power.traffic import Exchanges
from rackwright.record import Machine

FLEET = 10_000
ACCEPTS_OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75"


class Shown:
    """Metrics of an operator with nothing but a cache."""

    def __init__(self) -> None:
        self.metrics, self.cache, self.queued, self.waiting, self.held = Metrics(), Cache(), 0, 0, 0
        self.installations, self.exchanges = Installations(0, 0), Exchanges(0, 0, 0)
        self.metrics.shows(
            census=self.cache.census,
            new_machines=self.cache.new_machines,
            installations=lambda: self.installations,
            exchanges=lambda: self.exchanges,
            queued=lambda: self.queued,
            waiting=lambda: self.waiting,
            workers=64,
            shards=8,
            held=lambda: self.held,
        )

    async def scraped(self, accept: str = "") -> tuple[str, str]:
        """Content type and text."""
        app = web.Application()
        app.add_routes(self.metrics.routes())
        async with TestClient(TestServer(app)) as client:
            response = await client.get("/metrics", headers={"Accept": accept})
            assert response.status == 200
            return response.headers["Content-Type"], await response.text()

    async def samples(self) -> dict[str, float]:
        """Our own samples by name and labels."""
        lines = (await self.scraped())[1].splitlines()
        pairs = (line.rpartition(" ") for line in lines if line.startswith("rackwright_"))
        return {name: float(value) for name, _, value in pairs}


@pytest.fixture
def shown() -> Shown:
    return Shown()


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_name_follows_the_conventions(family: Any) -> None:
    assert re.fullmatch(r"rackwright_[a-z_]+", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert family.name.endswith("_seconds") == ("seconds" in family.name)
    assert bool(family.buckets) == (family.kind is Kind.HISTOGRAM)
    assert list(family.buckets) == sorted(set(family.buckets))
    assert family.says.endswith((".", "none"))
    assert "machine" not in family.labels
    assert not {"name", "namespace", "uid", "le"} & family.labels.keys()


async def test_what_is_served_is_what_is_declared(shown: Shown) -> None:
    served = set(re.findall(r"^# TYPE (rackwright_\w+) (\w+)", (await shown.scraped())[1], re.MULTILINE))
    assert served == {(family.name, family.kind.value) for family in FAMILIES}


# --- formats -----------------------------------------------------------------------------------------------------


async def test_whoever_asks_for_nothing_gets_prometheus_text(shown: Shown) -> None:
    kind, text = await shown.scraped()
    assert kind.startswith("text/plain; version=0.0.4")
    assert "# EOF" not in text


async def test_whoever_accepts_openmetrics_gets_it_and_can_read_it(shown: Shown) -> None:
    shown.metrics.enlistment(Outcome.ENLISTED)
    kind, text = await shown.scraped(ACCEPTS_OPENMETRICS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    read: Iterator[Any] = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    samples = {(s.name, *s.labels.values()): s.value for family in read for s in family.samples}
    assert samples["rackwright_enlistments_total", "enlisted"] == 1


# --- what is, and what happened ----------------------------------------------------------------------------------


async def test_zeros_are_there_before_anything_happened(shown: Shown) -> None:
    samples = await shown.samples()
    assert samples['rackwright_machines{phase="Failed"}'] == 0
    assert samples[f'rackwright_machines{{phase="{UNDECIDED}"}}'] == 0
    assert samples['rackwright_machines_overdue{phase="Deploying"}'] == 0
    assert samples['rackwright_phase_expected_seconds{phase="Deploying"}'] == 3600
    assert samples['rackwright_machine_conditions{condition="BMCReachable",status="False"}'] == 0
    assert samples['rackwright_enlistments_total{outcome="failed"}'] == 0
    assert samples['rackwright_operations_total{operation="Deploy",outcome="Failed"}'] == 0
    assert samples['rackwright_reconcile_duration_seconds_count{result="internal_error"}'] == 0
    assert samples['rackwright_bmc_errors_total{driver="redfish",fault="Unreachable"}'] == 0
    assert (samples["rackwright_workers"], samples["rackwright_workers_busy"]) == (64, 0)
    assert (samples["rackwright_shards"], samples["rackwright_shards_held"], samples["rackwright_leader"]) == (8, 0, 0)
    assert samples[f'rackwright_build_info{{version="{__version__}"}}'] == 1
    assert samples["rackwright_passes_waiting"] == 0
    assert samples['rackwright_installations{state="waiting"}'] == 0
    assert samples['rackwright_bmc_exchanges{state="aside"}'] == 0
    assert samples["rackwright_watch_unheard_seconds"] == 0


async def test_what_others_keep_is_asked_for_at_each_scrape(shown: Shown) -> None:
    shown.cache.put(machine(spec={"accepted": False}))
    shown.queued, shown.waiting, shown.held = 7, 5, 3
    shown.installations, shown.exchanges = Installations(under_way=1, waiting=2), Exchanges(3, aside=4, waiting=6)
    samples = await shown.samples()
    assert samples["rackwright_new_machines"] == 1
    assert (samples["rackwright_queue_depth"], samples["rackwright_passes_waiting"]) == (7, 5)
    assert (samples["rackwright_shards_held"], samples["rackwright_leader"]) == (3, 1)
    assert {name: value for name, value in samples.items() if "state=" in name} == {
        'rackwright_installations{state="under_way"}': 1,
        'rackwright_installations{state="waiting"}': 2,
        'rackwright_bmc_exchanges{state="under_way"}': 3,
        'rackwright_bmc_exchanges{state="aside"}': 4,
        'rackwright_bmc_exchanges{state="waiting"}': 6,
    }
    shown.cache.remove(machine().key, machine().uid)
    assert (await shown.samples())["rackwright_new_machines"] == 0


async def test_a_worker_is_busy_while_it_is_with_a_pass(shown: Shown) -> None:
    with shown.metrics.busy():
        assert (await shown.samples())["rackwright_workers_busy"] == 1
    assert (await shown.samples())["rackwright_workers_busy"] == 0


async def test_a_pass_is_timed(shown: Shown) -> None:
    with shown.metrics.passing() as it:
        it.result = Result.CONFLICT
    samples = await shown.samples()
    assert samples['rackwright_reconcile_duration_seconds_count{result="conflict"}'] == 1


async def test_a_pass_that_breaks_off_was_a_defect(shown: Shown) -> None:
    with pytest.raises(RuntimeError), shown.metrics.passing():
        raise RuntimeError
    assert (await shown.samples())['rackwright_reconcile_duration_seconds_count{result="internal_error"}'] == 1


def decided(before: Mapping[str, Any], after: Mapping[str, Any], failure: Mapping[str, Any] | None = None) -> Any:
    """A machine and what was decided on it."""
    here = machine(status=dict(before))
    becomes = machine(status={**after, **({"lastFailure": dict(failure)} if failure else {})}).status
    return here, Decision(Rest(), becomes, "Because", "", failure=becomes.last_failure if failure else None)


def ended(name: str, outcome: str, reason: str, *, at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"name": name, "outcome": outcome, "reason": reason, "startedAt": at, "duration": "5m"}


def failed(operation: str, reason: str) -> dict[str, Any]:
    at = "2026-01-01T00:00:00Z"
    return {"operation": operation, "class": "BMC", "reason": reason, "message": "No.", "at": at}


async def test_a_stay_in_a_phase_is_counted_when_it_ends(shown: Shown) -> None:
    shown.metrics.recorded(
        *decided(
            {"phase": "Deploying", "phaseSince": "2026-01-01T00:00:00Z"},
            {"phase": "Deployed", "phaseSince": "2026-01-01T00:10:00Z"},
        )
    )
    samples = await shown.samples()
    assert samples['rackwright_phase_duration_seconds_sum{phase="Deploying"}'] == 600
    assert samples['rackwright_phase_duration_seconds_bucket{le="600.0",phase="Deploying"}'] == 1
    assert samples['rackwright_phase_duration_seconds_bucket{le="300.0",phase="Deploying"}'] == 0


async def test_each_operation_that_ended_is_counted_once(shown: Shown) -> None:
    first, second = ended("Commission", "Succeeded", ""), ended("Deploy", "Failed", "AgentMissing")
    shown.metrics.recorded(*decided({"history": []}, {"history": [first]}))
    shown.metrics.recorded(*decided({"history": [first]}, {"history": [second, first]}))
    shown.metrics.recorded(*decided({"history": [second, first]}, {"history": [second, first]}))
    samples = await shown.samples()
    counted = {name: n for name, n in samples.items() if name.startswith("rackwright_operations_total") and n}
    assert counted == {
        'rackwright_operations_total{operation="Commission",outcome="Succeeded"}': 1,
        'rackwright_operations_total{operation="Deploy",outcome="Failed"}': 1,
    }


async def test_each_attempt_that_failed_is_counted_by_its_reason_and_whether_it_was_the_last(shown: Shown) -> None:
    shown.metrics.recorded(*decided({}, {}, failed("Deploy", "AgentMissing")))
    given_up = {"history": [ended("Deploy", "Failed", "AgentLost")]}
    shown.metrics.recorded(*decided({}, given_up, failed("Deploy", "AgentLost")))
    samples = await shown.samples()
    counted = {name: n for name, n in samples.items() if name.startswith("rackwright_failed_attempts_total")}
    assert counted == {
        'rackwright_failed_attempts_total{last="false",operation="Deploy",reason="AgentMissing"}': 1,
        'rackwright_failed_attempts_total{last="true",operation="Deploy",reason="AgentLost"}': 1,
    }


# --- how many there are ------------------------------------------------------------------------------------------


def fleet(machines: int) -> Iterator[dict[str, Any]]:
    """Machines in every phase, with every condition standing every way."""
    for number in range(machines):
        standing = ("True", "False", "Unknown")[number % 3]
        at = "2026-01-01T00:00:00Z"
        conditions = [
            {"type": kind, "status": standing, "reason": f"Reason{number}", "lastTransitionTime": at}
            for kind in (*ConditionType, f"example.org/{number}")
        ]
        phase = [None, *Phase][number % (len(Phase) + 1)]
        yield item(
            f"node-{number}",
            mac=f"52:54:00:00:{number // 256:02x}:{number % 256:02x}",
            bmc=f"redfish+https://10.0.{number // 256}.{number % 256}/redfish/v1/Systems/1",
            status={"phase": phase, "phaseSince": at, "conditions": conditions},
        )


def everything_happens(metrics: Metrics, reasons: int) -> None:
    """Every value that every label can have, and more reasons than there may be."""
    for driver in {scheme.partition("+")[0] for scheme in DRIVERS}:
        for call in CALLS:
            for fault in (None, *FaultClass):
                metrics.bmc_call(driver, call, 1.0, fault)
    for verb in VERBS:
        for resource in RESOURCES:
            for code in (*CODES, "other", "none"):
                metrics.request(verb, resource, code, 0.1)
    for result in Result:
        with metrics.passing() as it:
            it.result = result
    for phase in Phase:
        other = Phase.NEW if phase is not Phase.NEW else Phase.READY
        since = {"phaseSince": "2026-01-01T00:00:00Z"}
        metrics.recorded(*decided({"phase": phase, **since}, {"phase": other, **since}))
    for number in range(reasons):
        for operation in OperationName:
            for outcome in ("Succeeded", "Failed", "Abandoned"):
                metrics.recorded(*decided({}, {"history": [ended(operation, outcome, f"Reason{number}")]}))
            metrics.recorded(*decided({}, {}, failed(operation, f"Reason{number}")))
            given_up = {"history": [ended(operation, "Failed", f"Reason{number}")]}
            metrics.recorded(*decided({}, given_up, failed(operation, f"Reason{number}")))


def test_what_is_declared_is_within_the_bound() -> None:
    assert sum(family.most for family in FAMILIES) <= MOST


async def test_ten_thousand_machines_are_no_more_series_than_fifty_and_within_the_bound() -> None:
    numbers = []
    for machines in (50, FLEET):
        shown = Shown()
        for each in fleet(machines):
            shown.cache.put(Machine.read(each))
        everything_happens(shown.metrics, 2 * REASONS)
        samples = await shown.samples()
        assert sum(value for name, value in samples.items() if name.startswith("rackwright_machines{")) == machines
        numbers.append(Counter(name.partition("{")[0] for name in samples))
    print(f"\nseries with {FLEET} machines, when all has happened that can: {numbers[1].total()}")
    assert numbers[0] == numbers[1]
    assert numbers[1].total() <= MOST
    told = (REPOSITORY / "operator/README.md").read_text()
    assert f"at most {MOST:,} series, and {numbers[1].total():,} of them when all has happened that can" in told


async def test_a_scrape_asks_no_machine(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in fleet(50):
        shown.cache.put(Machine.read(each))
    await shown.samples()  # who is overdue is worked off once
    for name in ("_machines", "_by_uid"):
        monkeypatch.setattr(shown.cache, name, None)
    monkeypatch.setattr(shown.cache.census, "_counted", None)
    assert sum(v for name, v in (await shown.samples()).items() if name.startswith("rackwright_machines{")) == 50


async def test_reasons_beyond_the_number_that_there_may_be_are_one() -> None:
    shown = Shown()
    for number in range(REASONS + 3):
        shown.metrics.recorded(*decided({}, {}, failed("Deploy", f"Reason{number}")))
    samples = await shown.samples()
    assert samples['rackwright_failed_attempts_total{last="false",operation="Deploy",reason="Other"}'] == 3
