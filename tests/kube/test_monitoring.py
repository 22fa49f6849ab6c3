"""A real Prometheus scrapes a real operator: all that alerts and dashboard ask has an answer, and idleness no line."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml
from tests.kube.operators import HOST, PATIENCE, Machine, Site, deployed, free_port, site

from lab import dashboard, prometheus, system
from lab.controlplane import ControlPlane
from lab.process import wait_until
from lab.prometheus import Prometheus

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

POLLS = 25
"""Looks at an idle machine's power, none of which is worth a line."""
INTERVALS = {"$__rate_interval": "1m"}
RULES: list[dict[str, Any]] = yaml.safe_load(prometheus.RULES.read_text())["groups"][0]["rules"]
HOLDS = {"RackwrightMachinesOverdue", "RackwrightBMCsUnreachable"}
"""What the scenario is to be told of: a machine in Ready for longer than a second, one without a BMC that answers."""


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    arguments = [
        *("--power-poll", "0.2"),
        *("--retry-base", "0.1"),
        *("--expected-time", "Ready=1s"),
        *("--log-format", "json"),
    ]
    with site(control_plane, tmp_path_factory.mktemp("monitoring"), "monitoring", arguments=arguments) as it:
        it.create(it.image("debian-12"))
        yield it


@pytest.fixture(scope="module")
def idle(here: Site) -> Machine:
    (node,) = deployed(here, "idle")
    node.release()
    node.reaches("Ready")
    return node


@pytest.fixture(scope="module")
def unreachable(here: Site) -> Machine:
    node = here.machine("unreachable")
    node.declare(bmc={"address": f"redfish+http://{HOST}:{free_port()}/redfish/v1/Systems/1"})
    node.stalls("BMCUnreachable")
    return node


@pytest.fixture(scope="module")
def server(
    here: Site,
    idle: Machine,  # noqa: ARG001 (there is to be something to be asked for)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prometheus]:
    if not prometheus.is_installed():
        system.ensure_packages(prometheus.PACKAGES)
    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus.scraping(folder, f"{HOST}:{here.operator.port}", free_port()) as it:
        yield it


def polls(here: Site) -> float:
    """How often a BMC was asked for the power."""
    return here.operator.metric('rackwright_bmc_call_duration_seconds_count{call="power_state",driver="redfish"}')


def lines(here: Site) -> list[dict[str, Any]]:
    """What the operator has logged."""
    return [json.loads(line) for line in here.operator.text().splitlines()]


# One story, in order.


def test_each_decision_is_a_line_with_machine_phase_step_and_reason(here: Site, idle: Machine) -> None:
    def told() -> list[dict[str, Any]]:
        return [line for line in lines(here) if line.get("machine") == f"{here.namespace}/{idle.name}"]

    def moves() -> list[tuple[str, str]]:
        return [(line["was"], line["phase"]) for line in told() if "was" in line]

    story = ["Commissioning", "Ready", "Deploying", "Deployed", "Releasing", "Ready"]
    assert wait_until(lambda: len(moves()) >= len(story) - 1, PATIENCE)  # the watch may be faster than the log
    assert moves() == list(pairwise(story))
    acts = [line["step"] for line in told() if "step" in line and "operation" not in line]
    assert acts.count("WriteImage") == 1
    assert all(line["reason"] and line["level"] == "info" for line in told() if "phase" in line)


def test_an_idle_machine_has_no_line_however_often_it_is_looked_at(here: Site, idle: Machine) -> None:
    idle.until(lambda status: status.get("phase") == "Ready" and status.get("power") == "Off", "was Ready and off")
    asked = polls(here)
    assert wait_until(lambda: polls(here) > asked + 5, PATIENCE)  # whatever led here has been told of by now
    before, asked = here.operator.text(), polls(here)
    assert wait_until(lambda: polls(here) > asked + POLLS, PATIENCE)
    assert here.operator.text() == before


@pytest.mark.usefixtures("unreachable")
def test_prometheus_takes_what_it_scrapes_and_every_rule(server: Prometheus) -> None:
    assert wait_until(lambda: bool(server.series("rate(rackwright_queue_depth[1m])")), PATIENCE)
    assert wait_until(lambda: not server.complaints(), PATIENCE), server.complaints()


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize("expression", dashboard.queries())
def test_each_query_of_the_dashboard_has_an_answer(server: Prometheus, expression: str) -> None:
    for name, value in INTERVALS.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    assert wait_until(lambda: bool(server.series(expression)), PATIENCE), expression


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_each_alert_asks_for_series_that_there_are(server: Prometheus, rule: dict[str, Any]) -> None:
    server.series(rule["expr"])  # which is refused if it can't be read
    for selector in re.findall(r"rackwright_\w+(?:\{[^}]*\})?", rule["expr"]):
        if "code=" not in selector:  # nothing that the API server was asked for has failed
            assert server.series(selector), selector


@pytest.mark.usefixtures("unreachable")
def test_what_is_so_is_told_of_and_nothing_else(server: Prometheus) -> None:
    assert wait_until(lambda: server.alerts() >= HOLDS, PATIENCE), server.alerts()
    assert server.alerts() == HOLDS


@pytest.mark.usefixtures("unreachable")
def test_what_prometheus_knows_is_what_happened(server: Prometheus) -> None:
    def value(expression: str) -> float:
        (found,) = server.series(expression)
        return float(found["value"][1])

    assert value('rackwright_machines{phase="Ready"}') == 1
    assert value('rackwright_machines{phase="Failed"}') == 1
    assert value('rackwright_operations_total{operation="Deploy",outcome="Succeeded"}') == 1
    assert value('rackwright_failed_attempts_total{reason="BMCUnreachable",last="true"}') == 1
    assert value('rackwright_failed_attempts_total{reason="BMCUnreachable",last="false"}') == 2
    assert value('rackwright_bmc_errors_total{driver="redfish",fault="Unreachable"}') >= 3
    assert value('rackwright_phase_duration_seconds_count{phase="Deploying"}') == 1
    assert value("rackwright_spec_reaction_seconds_count") >= 3
    assert value("rackwright_watch_lag_seconds_count") > 0
    assert value('sum(rackwright_api_requests_total{verb="patch",resource="baremetalmachines/status"})') >= 10
    assert value('sum(rackwright_api_requests_total{verb="update",resource="leases"})') > 1
    assert value("rackwright_leader") == 1
    assert (value("rackwright_shards"), value("rackwright_shards_held")) == (1, 1)


@pytest.mark.usefixtures("unreachable")
def test_an_operator_that_is_gone_is_missed(here: Site, server: Prometheus) -> None:
    here.assert_discreet()
    here.operator.send(signal.SIGSTOP)
    try:
        assert wait_until(lambda: "RackwrightNoLeader" in server.alerts(), PATIENCE)
    finally:
        here.operator.send(signal.SIGCONT)
    assert wait_until(lambda: "RackwrightNoLeader" not in server.alerts(), PATIENCE)
