"""More machines than may install at once: who waits says so and keeps its place, whatever becomes of the operator."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.kube.metal import WRITING
from tests.kube.operators import COMMISSIONED, Machine, Site, site

from lab.controlplane import ControlPlane
from lab.process import wait_until

NUMBERS = count(1)
ARGUMENTS = ("--max-concurrent-deployments", "1", "--show-progress-after", "0", "--power-poll", "5")


@pytest.fixture
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path: Path,
) -> Iterator[Site]:
    namespace = f"turns-{next(NUMBERS)}"  # the one before may still be on its way out
    with site(control_plane, tmp_path, namespace, arguments=ARGUMENTS) as it:
        it.create(it.image("debian-12"))
        yield it


def waits(node: Machine, place: str) -> dict[str, Any]:
    """Wait until it says that it waits at this place."""
    said = f"Waiting: {place} for an install slot."
    return node.until(lambda s: (s.get("operation") or {}).get("message", "").startswith(said), f"said {said!r}")


def test_machines_install_one_after_the_other_in_the_order_of_their_declaration(here: Site) -> None:
    first, second, third = nodes = [here.machine(f"turn-{number}") for number in (1, 2, 3)]
    for node in nodes:
        node.declare()
    for node in nodes:
        node.reaches("Ready")

    first.metal.halt_at(WRITING)
    first.deploy()
    first.metal.arrived(WRITING)
    third.deploy()
    status = waits(third, "1st of 1")
    assert third.condition("Reconciling")["reason"] == "AwaitingInstallSlot"
    assert status["phase"] == "Deploying"
    a_second_passes()
    second.deploy()
    waits(second, "2nd of 2")

    here.operator.end(signal.SIGKILL)
    here.operator.start()
    assert [node.metal.told for node in (second, third)] == [COMMISSIONED] * 2

    second.change(deployment=None)
    second.reaches("Allocated")
    a_second_passes()
    second.deploy()
    waits(second, "2nd of 2")

    first.metal.go_on()
    for node in nodes:
        node.reaches("Deployed")
    written = {node.name: node.versions for node in nodes}
    slots = {
        name: [v["metadata"]["resourceVersion"] for v in versions if _step(v) in ("BootRamdisk", "WriteImage")]
        for name, versions in written.items()
    }
    order = sorted(slots, key=lambda name: int(slots[name][0]))
    assert order == ["turn-1", "turn-3", "turn-2"]
    for before, after in pairwise(order):
        ended = next(v for v in written[before] if int(v["metadata"]["resourceVersion"]) > int(slots[before][-1]))
        assert int(ended["metadata"]["resourceVersion"]) <= int(slots[after][0]), "no two at once"
    assert all(len(node.metal.images_written) == 1 for node in nodes)
    here.assert_discreet()


def test_a_slot_comes_back_from_a_machine_that_is_released_or_deleted_in_the_middle(here: Site) -> None:
    released, deleted, last = nodes = [here.machine(f"back-{number}") for number in (1, 2, 3)]
    for node in nodes:
        node.declare()
    for node in nodes:
        node.reaches("Ready")
    released.metal.halt_at(WRITING)
    deleted.metal.halt_at(WRITING)
    released.deploy()
    released.metal.arrived(WRITING)
    deleted.deploy()
    waits(deleted, "1st of 1")
    a_second_passes()
    last.deploy()
    waits(last, "2nd of 2")

    released.release()
    deleted.metal.arrived(WRITING)
    waits(last, "1st of 1")
    uid = deleted.delete()
    last.reaches("Deployed")
    here.machines.until_deleted(uid)


def a_second_passes() -> None:
    """Who waited longer is known to the second: of two that came within one, either may be first."""
    now = int(time.time())
    assert wait_until(lambda: int(time.time()) > now, 5)


def _step(version: dict[str, Any]) -> str:
    """Where its deployment is; a commissioning boots into memory as well."""
    operation = version.get("status", {}).get("operation") or {}
    return str(operation.get("step", "")) if operation.get("name") == "Deploy" else ""
