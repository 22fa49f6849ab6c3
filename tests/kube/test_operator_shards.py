"""Operators that share a fleet: each machine is one operator's, whichever of them it reaches, and who goes is replaced.

All of them are behind one Service, as a site may have it; a machine that reaches the wrong one is sent on.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from tests.kube.metal import ERASING, IPXE, SWITCHED_OFF, WRITING
from tests.kube.operators import (
    COMMISSIONED,
    DEPLOYED,
    IMAGE_CHECKSUM,
    PATIENCE,
    RELEASED,
    Leases,
    Machine,
    Operator,
    Site,
    attempts,
    leases,
    ready,
    site,
)

from lab.controlplane import ControlPlane
from lab.process import wait_until

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

SHARDS = 4
HANDED_OVER, TAKEN = 2.0, 20.0
"""Seconds until another operator has a shard, after one was told to end, and after one was killed."""


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operators watch them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    arguments = ("--shards", str(SHARDS), "--enlist-namespace", "shards")
    folder = tmp_path_factory.mktemp("shards")
    with site(control_plane, folder, "shards", arguments=arguments, behind_service=True) as it:
        it.create(it.image("debian-12"))
        yield it


@pytest.fixture(scope="module")
def watched(here: Site) -> Iterator[Leases]:
    with leases(here.plane) as found:
        found.until(lambda holders: len(holders) == SHARDS and all(holders.values()))
        yield found


@contextmanager
def sharing(here: Site, watched: Leases, operators: int) -> Iterator[list[Operator]]:
    """So many operators that have their shares; whoever is left at the end has everything again."""
    more = [here.another_operator() for _ in range(operators - 1)]
    everybody = [here.operator, *more]
    try:
        for operator in more:
            operator.start()
        watched.until(lambda _: len(watched.shares()) == operators and watched.shares()[0] >= SHARDS // operators)
        yield everybody
    finally:
        running = [operator for operator in everybody if not operator.ended()]
        here.operator = running[0]
        for operator in running[1:]:
            operator.end()
        watched.until(lambda _: watched.shares() == [SHARDS], 2 * TAKEN)
        here.front.ports[:] = [here.operator.port]


def fleet(here: Site, prefix: str) -> list[Machine]:
    """Two machines for each shard, not declared yet."""
    return [here.machine(f"{prefix}-{number}") for number in range(2 * SHARDS)]


def in_shards(nodes: list[Machine], **spec: object) -> list[dict[str, object]]:
    """Their records, spread over the shards by their labels."""
    manifests = [node.manifest(**spec) for node in nodes]
    for number, manifest in enumerate(manifests):
        manifest["metadata"]["labels"] = {"metal.rackwright.io/shard": str(number % SHARDS)}
    return manifests


def taken_after(watched: Leases, before: dict[str, str], gone: str, at: datetime) -> dict[str, float]:
    """Seconds until each Lease that one operator had was another's."""
    theirs = [name for name, holder in before.items() if holder == gone]
    assert theirs
    watched.until(lambda holders: all(holders[name] not in ("", gone) for name in theirs))
    after = {name: [t for holder, t in watched.changes_of_hands(name) if holder != gone and t > at] for name in theirs}
    return {name: (times[0] - at).total_seconds() for name, times in after.items()}


def identity(operator: Operator, holders: dict[str, str]) -> str:
    """By what name an operator holds its Leases: host, process, and something made up."""
    assert operator.process is not None
    (found,) = {holder for holder in holders.values() if f"-{operator.process.pid}-" in holder}
    return found


def test_each_machine_is_one_operators_whichever_of_them_it_reaches(here: Site, watched: Leases) -> None:
    nodes = fleet(here, "each")
    with sharing(here, watched, 2) as (first, second):
        here.create(*in_shards(nodes))
        for node in nodes:
            node.reaches("Ready")
            node.deploy()
        for node in nodes:
            node.reaches("Deployed")
            node.release()
        for node in nodes:
            node.reaches("Ready")
            assert node.metal.told == RELEASED
            assert node.metal.images_written == [IMAGE_CHECKSUM]
        acted = [operator.acted_on() & {node.name for node in nodes} for operator in (first, second)]
        assert not acted[0] & acted[1]
        assert [len(each) for each in acted] == [SHARDS, SHARDS]
        for operator in (first, second):
            assert operator.metric("rackwright_shards") == SHARDS
            assert operator.metric("rackwright_shards_held") == SHARDS / 2
        here.assert_discreet()


def test_every_operator_knows_what_any_machine_is_to_boot(here: Site, watched: Leases) -> None:
    nodes = fleet(here, "boots")
    with sharing(here, watched, 3) as everybody:
        for node in nodes:
            node.metal.halt_at(IPXE)
        here.create(*in_shards(nodes))
        for node in nodes:
            node.metal.arrived(IPXE)
            asked = node.metal.mac.replace(":", "-")
            for operator in everybody:
                assert f"machine shards/{node.name}, Commission" in operator.get(f"boot/ipxe?mac={asked}")
            node.metal.go_on()
        for node in nodes:
            node.reaches("Ready")
            assert node.metal.told == COMMISSIONED


@pytest.mark.parametrize(
    ("sign", "within"), [(signal.SIGTERM, HANDED_OVER), (signal.SIGKILL, TAKEN)], ids=["ended", "killed"]
)
def test_the_shards_of_an_operator_that_goes_are_taken_and_what_it_did_goes_on(
    sign: signal.Signals, within: float, here: Site, watched: Leases
) -> None:
    nodes = fleet(here, f"goes-{int(sign)}")
    here.create(*in_shards(nodes))
    for node in nodes:
        node.reaches("Ready")
    with sharing(here, watched, 3) as (first, second, third):
        for node in nodes:
            node.metal.halt_at(WRITING)
            node.deploy()
        for node in nodes:
            node.metal.arrived(WRITING)
        before = watched.holders()
        gone, at = identity(second, before), datetime.now(UTC)
        second.send(sign)
        times = taken_after(watched, before, gone, at)
        assert max(times.values()) <= within, times
        for node in nodes:
            node.metal.go_on()
        for node in nodes:
            node.reaches("Deployed")
            assert node.metal.told == DEPLOYED
            assert node.metal.images_written == [IMAGE_CHECKSUM]
            assert [number for _, number in attempts(node, "Deploy")] == [1]
        second.end()
        assert not first.ended()
        assert not third.ended()


def test_an_operator_that_comes_gets_its_share_in_the_middle_of_everything(here: Site, watched: Leases) -> None:
    nodes = fleet(here, "comes")
    here.create(*in_shards(nodes))
    for node in nodes:
        node.reaches("Ready")
        node.deploy()
    for node in nodes:
        node.reaches("Deployed")
        node.metal.halt_at(ERASING)
        node.release()
    for node in nodes:
        node.metal.arrived(ERASING)
    before = watched.holders()
    with sharing(here, watched, 2) as (first, second):
        moved = [name for name, holder in watched.holders().items() if holder != before[name]]
        assert len(moved) == SHARDS // 2
        for node in nodes:
            node.metal.go_on()
        for node in nodes:
            node.reaches("Ready")
            assert node.metal.told == RELEASED
            assert [number for _, number in attempts(node, "Release")] == [1]
        assert second.acted_on() & {node.name for node in nodes}
        assert "internal error" not in first.text()


def number_of_one(operator: Operator, holders: dict[str, str]) -> int:
    """One of the shards that an operator holds."""
    name = next(name for name, holder in holders.items() if holder == identity(operator, holders))
    return int(name.removeprefix("rackwright").removeprefix("-") or 0)


def put_by(node: Machine, number: int) -> bool | None:
    """True once it is written down that this number puts the machine into its shard."""
    annotations = node.record()["metadata"]["annotations"]
    return annotations.get("metal.rackwright.io/sharded-by") == f"shard/{number}" or None


def test_a_machine_whose_shard_changes_goes_from_one_operator_to_the_other_and_nothing_is_done_twice(
    here: Site, watched: Leases
) -> None:
    (node,) = ready(here, "moves")
    with sharing(here, watched, 2) as everybody:
        node.metal.halt_at(WRITING)
        node.deploy()
        node.metal.arrived(WRITING)
        held = watched.holders()
        numbers = {identity(operator, held): number_of_one(operator, held) for operator in everybody}
        for number in numbers.values():  # one of them has it already, and the other one gets it
            here.kubectl("label", "bmm", node.name, f"metal.rackwright.io/shard={number}", "--overwrite")
            put = here.machines.until(lambda: put_by(node, number), PATIENCE)  # noqa: B023 (called at once)
            assert put, node.record()["metadata"]
        node.metal.go_on()
        node.reaches("Deployed")
        here.kubectl("label", "bmm", node.name, f"metal.rackwright.io/shard={min(numbers.values())}", "--overwrite")
        node.release()
        node.reaches("Ready")
        assert node.metal.told == RELEASED
        assert node.metal.images_written == [IMAGE_CHECKSUM]
        assert [number for _, number in attempts(node, "Deploy")] == [1]


def test_a_machine_nobody_declared_gets_one_record_whichever_operators_it_reaches(here: Site, watched: Leases) -> None:
    strangers = [here.undeclared() for _ in range(3)]
    with sharing(here, watched, 3) as everybody:
        holders = watched.holders()
        enlists = next(o for o in everybody if identity(o, holders) == holders["rackwright"])
        here.front.ports.sort(key=lambda port: port == enlists.port)  # whom machines reach is another one
        before = here.records()
        for node in strangers:
            node.metal.press_power()
        for node in strangers:
            node.metal.arrived(SWITCHED_OFF)
            assert node.until(lambda status: status.get("phase") == "New", "was New")
        assert here.records() - before == {node.name for node in strangers}
        assert enlists.text().count(" enlisted") == len(strangers)


def test_operators_that_were_told_of_another_number_of_shards_do_nothing_until_the_others_are_gone(
    here: Site, watched: Leases
) -> None:
    other = here.another_operator()
    other.arguments = ("--shards", "2")
    before = watched.holders()
    try:
        other.start()
        (node,) = ready(here, "divided")
        assert wait_until(lambda: "standing by:" in other.text(), PATIENCE)
        assert watched.holders() == before
        assert other.acted_on() == set()
        assert node.metal.told == COMMISSIONED
    finally:
        other.end()
        here.front.ports.remove(other.port)
