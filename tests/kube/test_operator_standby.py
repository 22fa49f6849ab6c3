"""Two operators, of which one acts: the other takes over when the first gives up, and nothing is done by both.

When who took over is read from the Lease, whose times the operators write on this machine's clock.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import pytest
from aiohttp import web
from tests.kube.metal import IPXE, WRITING
from tests.kube.operators import (
    COMMISSIONED,
    DEPLOYED,
    IMAGE_CHECKSUM,
    PATIENCE,
    Machine,
    Operator,
    Site,
    attempts,
    deployed,
    elapsed,
    leases,
    process_of,
    ready,
    site,
)
from tests.kube.witness import NOBODY, Exchange, Witness, assert_each_in_its_time, assert_never_two_at_once, done

from lab.controlplane import ControlPlane
from lab.process import wait_until

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

TAKE_OVER = 8.0
"""Seconds within which a standby is ready, all machines listed, once the Lease was given up."""
HANDED_OVER, TAKEN = 2.0, 20.0
"""Seconds until another operator leads, after one was told to end, and after one was killed."""
SPARED = 15.0
"""Seconds for which an operator that leads asks a BMC nothing that had not answered the one before it."""
LIFE = ["On", "image", "ForceOff", "On", "GracefulShutdown", "On", "erase", "ForceOff"]
"""What is done to a machine that is deployed and released."""
ANSWER_SECONDS = 0.15
"""How long a BMC takes to answer, where operators are to be ended and killed in the middle of that."""


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operators watch them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    with site(control_plane, tmp_path_factory.mktemp("standby"), "standby", behind_service=True) as it:
        it.create(it.image("debian-12"))
        yield it


def test_a_standby_takes_over_at_once_and_nothing_is_done_by_both(here: Site) -> None:
    (idle,), (writing,), booting = deployed(here, "idle"), ready(here, "writing"), here.machine("booting")
    first, second = here.operator, here.another_operator()
    try:
        second.start(ready="healthz")
        assert not second.probe("readyz")
        writing.metal.halt_at(WRITING)
        booting.metal.halt_at(IPXE)
        writing.deploy()
        booting.declare()
        writing.metal.arrived(WRITING)
        booting.metal.arrived(IPXE)
        assert "step=" not in second.text()
        since = time.monotonic()
        assert first.end(signal.SIGTERM) == 0
        assert wait_until(lambda: second.probe("readyz"), PATIENCE)
        assert elapsed(since) < TAKE_OVER
        writing.metal.go_on()
        booting.metal.go_on()
        writing.reaches("Deployed")
        booting.reaches("Ready")
        assert writing.metal.told == DEPLOYED
        assert booting.metal.told == COMMISSIONED
        assert idle.metal.told == DEPLOYED
        assert [number for _, number in attempts(writing, "Deploy")] == [1]
        here.assert_discreet()
    finally:
        first.end()
        here.operator = second


def test_an_operator_that_was_frozen_does_nothing_more_when_it_is_back(here: Site) -> None:
    (idle,), (writing,), booting = deployed(here, "f-idle"), ready(here, "f-writing"), here.machine("f-booting")
    first, second = here.operator, here.another_operator()
    second.start(ready="healthz")
    try:
        writing.metal.halt_at(WRITING)
        booting.metal.halt_at(IPXE)
        writing.deploy()
        booting.declare()
        writing.metal.arrived(WRITING)
        booting.metal.arrived(IPXE)
        first.send(signal.SIGSTOP)
        assert wait_until(lambda: second.probe("readyz"), PATIENCE)  # the Lease has run out
        writing.metal.go_on()
        writing.reaches("Deployed")
        logged = len(first.text())
        first.send(signal.SIGCONT)
        assert wait_until(first.ended, PATIENCE)
        assert "step=" not in first.text()[logged:]
        booting.metal.go_on()
        booting.reaches("Ready")
        assert writing.metal.told == DEPLOYED
        assert booting.metal.told == COMMISSIONED
        assert idle.metal.told == DEPLOYED
        assert [number for _, number in attempts(writing, "Deploy")] == [1]
        assert first.end() == 1
    finally:
        first.end(signal.SIGKILL)
        here.operator = second
    here.assert_discreet()


def test_an_operator_that_was_frozen_in_the_middle_of_a_switch_sends_the_bmc_nothing_more(here: Site) -> None:
    node = here.machine("switching")
    first, second = here.operator, here.another_operator()
    second.start(ready="healthz")
    chosen, goes_on = threading.Event(), threading.Event()
    asked: list[tuple[str, str]] = []
    """Every request to the BMC, with the session that it belongs to."""

    async def note(request: web.Request) -> None:
        asked.append((request.headers.get("X-Auth-Token", ""), f"{request.method} {request.path}"))

    async def hold_the_first(_: web.Request) -> None:
        if not chosen.is_set():
            chosen.set()
            await asyncio.to_thread(goes_on.wait)

    for method in ("GET", "PATCH", "POST", "DELETE"):
        node.metal.bmc.fail(method, "", note)
    node.metal.bmc.fail("PATCH", "Systems/one", hold_the_first)
    try:
        node.declare()
        assert chosen.wait(PATIENCE), "it chooses the boot device, and would switch the machine on next"
        first.send(signal.SIGSTOP)
        goes_on.set()
        (session,) = {token for token, _ in asked if token}
        before = len([each for each in asked if each[0] == session])
        node.reaches("Ready")
        first.send(signal.SIGCONT)
        assert wait_until(first.ended, PATIENCE)
        assert first.end() == 1
        assert len([each for each in asked if each[0] == session]) == before
        assert len({token for token, _ in asked if token}) == 2, "nor did it log in again"
        assert node.metal.told == COMMISSIONED
        assert not node.metal.on
    finally:
        goes_on.set()
        first.end(signal.SIGKILL)
        here.operator = second
    here.assert_discreet()


def stand_by(operator: Operator) -> None:
    """Start it again, and return when it has seen who leads: from then on it knows when that one falls silent."""
    before = len(operator.text())
    operator.launch()
    assert wait_until(lambda: "standing by: " in operator.text()[before:], PATIENCE)


def lives(node: Machine, enough: threading.Event) -> int:
    """A machine's lives, from its declaration until it is released once there were enough; how many."""
    node.declare()
    node.reaches("Ready")
    count = 0
    while count == 0 or not enough.is_set():
        node.deploy()
        node.reaches("Deployed")
        node.release()
        node.reaches("Ready")
        count += 1
    return count


def test_operators_that_are_ended_and_killed_in_turn_lead_whole_lives_and_do_nothing_twice(here: Site) -> None:
    nodes = [here.machine(f"life-{number}") for number in range(4)]
    leads, stands_by, enough, witness = here.operator, here.another_operator(), threading.Event(), Witness()
    for node in nodes:
        node.metal.witness, node.metal.bmc.seconds_per_answer = witness, ANSWER_SECONDS
    stand_by(stands_by)
    cut: list[str] = []
    """What operators were in the middle of when they went."""
    try:
        with leases(here.plane) as watched, ThreadPoolExecutor(len(nodes)) as people:
            lived = [people.submit(lives, node, enough) for node in nodes]
            try:
                for sign in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                    before = watched.until(lambda holders: bool(holders.get("rackwright")))["rackwright"]
                    assert wait_until(partial(leads.probe, "readyz"), PATIENCE), leads.text()[-2000:]
                    numbers = [node.metal.number for node in nodes]
                    if (middle := witness.in_the_middle_of(process_of(before), numbers, 20)) is not None:
                        cut.append(middle.what)
                    at = datetime.now(UTC)
                    leads.send(sign)
                    watched.until_another_holds("rackwright", before)
                    took = (watched.changes_of_hands("rackwright")[-1][1] - at).total_seconds()
                    assert took <= (HANDED_OVER if sign is signal.SIGTERM else TAKEN), (sign, took)
                    leads.end(signal.SIGKILL)
                    leads, stands_by = stands_by, leads
                    here.operator = leads
                    stand_by(stands_by)
            finally:
                enough.set()
            counts = [life.result() for life in lived]
            held = watched.tenures("rackwright")
    finally:
        stands_by.end(signal.SIGKILL)
    assert len(cut) == 4, cut
    actors: set[int] = set()
    for node, count in zip(nodes, counts, strict=True):
        exchanges = witness.with_machine(node.metal.number)
        assert_never_two_at_once(exchanges)
        assert_each_in_its_time(exchanges, held)
        actors |= {each.who for each in exchanges}
        assert done(exchanges) == COMMISSIONED + count * LIFE, node.name
        assert node.metal.images_written == count * [IMAGE_CHECKSUM]
        for operation, times in (("Commission", 1), ("Deploy", count), ("Release", count)):
            assert [number for _, number in attempts(node, operation)] == times * [1], (node.name, operation)
    assert actors - {NOBODY} == {process for process, *_ in held}, "each of the five was seen, and nobody else"
    here.assert_discreet()


def test_an_operator_hands_over_at_once_although_a_bmc_hangs_and_that_machine_waits(here: Site) -> None:
    hangs, reads, other = (here.machine(f"hangs-{name}") for name in ("told", "asked", "not"))
    first, second, witness = here.operator, here.another_operator(), Witness()
    chosen, answers = threading.Event(), threading.Event()

    async def hang(_: web.Request) -> None:
        chosen.set()
        await asyncio.to_thread(answers.wait)

    async def never(_: web.Request) -> None:
        await asyncio.sleep(PATIENCE)

    for node in (hangs, reads, other):
        node.metal.witness = witness
    try:
        second.start(ready="healthz")
        hangs.metal.bmc.fail("POST", "ComputerSystem.Reset", hang)
        reads.metal.bmc.fail("GET", "Systems/one", never)
        for node in (hangs, reads):
            node.declare()
        assert chosen.wait(PATIENCE), "it is told to switch on, and doesn't answer"
        assert wait_until(lambda: any("Systems/one" in x.what for x in seen(reads, witness)), PATIENCE)
        with leases(here.plane) as watched:
            before = watched.until(lambda holders: bool(holders.get("rackwright")))["rackwright"]
            at = datetime.now(UTC)
            first.send(signal.SIGTERM)
            watched.until_another_holds("rackwright", before)
            taken = watched.changes_of_hands("rackwright")[-1][1]
        assert wait_until(first.ended, HANDED_OVER), "it waits for no thread"
        assert (taken - at).total_seconds() <= HANDED_OVER, (at, taken)
        assert first.end() == 0
        reads.metal.bmc.faults.pop()
        other.declare()
        other.reaches("Ready")
        assert (datetime.now(UTC) - taken).total_seconds() < SPARED, "whose BMCs answer needn't wait"
        assert {x.who for x in [*seen(hangs, witness), *seen(reads, witness)]} == {process_of(before)}
        answers.set()
        for node in (hangs, reads):
            node.reaches("Ready")
            later = [x for x in seen(node, witness) if x.who != process_of(before)]
            assert later[0].begun >= taken.timestamp() + SPARED - 1, "as long as after an operator that was killed"
            assert node.metal.told == COMMISSIONED
            assert [number for _, number in attempts(node, "Commission")] == [1]
        assert_never_two_at_once(seen(hangs, witness))
    finally:
        answers.set()
        first.end(signal.SIGKILL)
        here.operator = second
    here.assert_discreet()


def seen(node: Machine, witness: Witness) -> list[Exchange]:
    """What operators asked of a machine so far."""
    return witness.with_machine(node.metal.number)
