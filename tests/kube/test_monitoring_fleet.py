"""A real Prometheus scrapes an operator that is busy with a fleet: what waits is seen, and the series stay few."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kube.operators import HOST, PATIENCE, Machine, Site, free_port, site
from tests.kube.test_monitoring import INTERVALS
from tests.kube.test_operator_simulated import declared

from lab import dashboard, prometheus, system
from lab.controlplane import ControlPlane
from lab.process import wait_until
from lab.prometheus import Prometheus
from rackwright.metrics.families import MOST

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

FLEET = 100
SLOTS, PLACES = 10, 4
"""Far fewer installations and exchanges at once than machines want."""
ADDRESS = "simulated://fast?answer=50ms&boot=15s&write=60s"
"""A boot takes longer than a hundred to begin, an image longer to write than a hundred deployments to declare."""
FAULTY = "simulated://fast?fail=1"


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    arguments = [
        "--allow-simulated",
        *("--max-concurrent-deployments", str(SLOTS)),
        *("--bmc-concurrency", str(PLACES)),
    ]
    folder = tmp_path_factory.mktemp("monitoring-fleet")
    with site(control_plane, folder, "monitoring-fleet", arguments=arguments) as it:
        it.create(it.image("debian-12"))
        yield it


@pytest.fixture(scope="module")
def server(here: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    if not prometheus.is_installed():
        system.ensure_packages(prometheus.PACKAGES)
    folder = tmp_path_factory.mktemp("prometheus-fleet")
    with prometheus.scraping(folder, f"{HOST}:{here.operator.port}", free_port()) as it:
        yield it


@pytest.fixture(scope="module")
def fleet(here: Site, server: Prometheus) -> list[Machine]:
    """Machines that are being commissioned, while somebody looks."""
    assert wait_until(lambda: bool(server.series("rackwright_leader == 1")), PATIENCE)
    return declared(here, FLEET, ADDRESS)


@pytest.fixture(scope="module")
def faulty(here: Site, server: Prometheus) -> None:
    """A machine whose attempts fail, and one is seen to."""
    node = here.machine("faulty")
    manifest = node.manifest(bmc={"address": FAULTY})
    del manifest["spec"]["bmc"]["credentialsSecretRef"]
    here.create(manifest)
    assert wait_until(lambda: value(server, "sum(rackwright_failed_attempts_total)") > 0, PATIENCE)


def value(server: Prometheus, expression: str) -> float:
    """What the series of an expression are together."""
    return sum(float(found["value"][1]) for found in server.series(expression))


# One story, in order.


def test_a_fleet_that_is_commissioned_is_seen_at_it_and_so_are_its_bmcs(
    server: Prometheus, fleet: list[Machine]
) -> None:
    assert wait_until(lambda: value(server, 'rackwright_machines{phase="Commissioning"}') > FLEET / 2, PATIENCE)
    assert wait_until(lambda: value(server, 'rackwright_machines{phase="Ready"}') == len(fleet), 2 * PATIENCE)
    most = 'max_over_time(rackwright_bmc_exchanges{{state="{}"}}[10m])'
    assert 0 < value(server, most.format("under_way")) <= PLACES
    assert value(server, most.format("waiting")) > PLACES
    assert value(server, most.format("aside")) == 0


def test_who_installs_and_who_waits_for_it_is_seen(server: Prometheus, fleet: list[Machine]) -> None:
    for node in fleet:
        node.deploy()
    states = 'rackwright_installations{{state="{}"}}'
    assert wait_until(lambda: value(server, states.format("waiting")) >= FLEET / 2, PATIENCE)
    assert wait_until(lambda: value(server, states.format("under_way")) == SLOTS, PATIENCE)
    assert value(server, f"max_over_time({states.format('under_way')}[10m])") == SLOTS


@pytest.mark.usefixtures("fleet", "faulty")
def test_every_query_of_the_dashboard_has_an_answer_that_no_machine_adds_a_line_to(server: Prometheus) -> None:
    (interval,) = INTERVALS.items()
    asked = [query.replace(*interval) for query in dashboard.queries()]

    def unanswered() -> list[str]:
        return [query for query in asked if not server.series(query)]

    assert wait_until(lambda: not unanswered(), PATIENCE), unanswered()
    assert max(len(server.series(query)) for query in asked) < FLEET


@pytest.mark.usefixtures("fleet")
def test_a_busy_fleet_has_no_more_series_than_the_documentation_says(server: Prometheus) -> None:
    served = value(server, 'count({__name__=~"rackwright_.+"})')
    assert 0 < served <= MOST
    (alike,) = server.series('count by (machine, name, namespace, uid) ({__name__=~"rackwright_.+"})')
    assert alike["metric"] == {}, "a series tells of one machine"
