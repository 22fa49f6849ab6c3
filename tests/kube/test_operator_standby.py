"""Two operators, of which one acts: the other takes over when the first gives up, and nothing is done by both."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from tests.kube.metal import IPXE, WRITING
from tests.kube.operators import COMMISSIONED, DEPLOYED, PATIENCE, Site, attempts, deployed, elapsed, ready, site

from lab.controlplane import ControlPlane
from lab.process import wait_until

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

TAKE_OVER = 8.0
"""Seconds within which a standby leads, once the Lease was given up."""


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
