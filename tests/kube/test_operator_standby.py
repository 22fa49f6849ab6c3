"""Two operators, of which one acts: the other takes over when the first gives up, and nothing is done by both.

When who took over is read from the Lease, whose times the operators write on this machine's clock.
"""

from __future__ import annotations

import asyncio
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import groupby

import pytest
from aiohttp import web
from tests.kube.metal import IPXE, WRITING
from tests.kube.operators import (
    COMMISSIONED,
    DEPLOYED,
    IMAGE_CHECKSUM,
    PATIENCE,
    RELEASED,
    Machine,
    Operator,
    Site,
    attempts,
    deployed,
    elapsed,
    leases,
    ready,
    site,
)

from lab.controlplane import ControlPlane
from lab.process import wait_until

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

TAKE_OVER = 8.0
"""Seconds within which a standby is ready, all machines listed, once the Lease was given up."""
HANDED_OVER, TAKEN = 2.0, 20.0
"""Seconds until another operator leads, after one was told to end, and after one was killed."""


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


def in_the_middle_of_something(operator: Operator) -> None:
    """Return when it has begun two more steps, or has none to begin."""

    def begun() -> int:
        return len(re.findall("step=", operator.text()))

    before = begun()
    wait_until(lambda: begun() >= before + 2, 5)


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
    leads, stands_by, enough = here.operator, here.another_operator(), threading.Event()
    stand_by(stands_by)
    try:
        with leases(here.plane) as watched, ThreadPoolExecutor(len(nodes)) as people:
            lived = [people.submit(lives, node, enough) for node in nodes]
            try:
                for sign in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                    before = watched.until(lambda holders: bool(holders.get("rackwright")))["rackwright"]
                    assert wait_until(partial(leads.probe, "readyz"), PATIENCE), leads.text()[-2000:]
                    in_the_middle_of_something(leads)
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
    finally:
        stands_by.end(signal.SIGKILL)
    for node, count in zip(nodes, counts, strict=True):
        told = [kind for kind, _ in groupby(node.metal.told)]  # what a repeated step may send once more
        assert told == COMMISSIONED + count * RELEASED[len(COMMISSIONED) :], (node.name, node.metal.told)
        assert node.metal.images_written == count * [IMAGE_CHECKSUM]
        for operation, times in (("Commission", 1), ("Deploy", count), ("Release", count)):
            assert [number for _, number in attempts(node, operation)] == times * [1], (node.name, operation)
    here.assert_discreet()
