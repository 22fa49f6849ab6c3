"""The bench's own eyes: a fleet takes longer than any watch lasts."""

from __future__ import annotations

import time
from functools import partial
from itertools import count

import pytest

from lab import fleet
from lab.controlplane import ControlPlane
from lab.fleet import Fleet, specs

pytestmark = pytest.mark.kube


@pytest.mark.usefixtures("crds")
async def test_machines_are_seen_though_the_api_server_has_ended_the_watch_meanwhile(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "MACHINES", namespace)
    monkeypatch.setattr(fleet, "WATCH_SECONDS", 1)
    (spec,) = specs(1, "simulated://fast").values()
    began, names = time.monotonic(), (f"m-{number}" for number in count())
    async with Fleet.of(control_plane) as machines:
        while time.monotonic() < began + 3:
            name = next(names)
            await machines.declare(name, spec)
            await machines.until(partial(machines.machines.__contains__, name), 10, print)


def test_a_watch_ends_before_its_client_gives_it_up() -> None:
    assert fleet.WATCH_SECONDS < 300
