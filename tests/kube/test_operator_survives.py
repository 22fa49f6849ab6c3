"""Operators come and go, records are deleted, status gets lost: machines arrive, and nothing is done twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.kube.metal import BOOTED, ERASING, FIRST_BOOT, INSPECTION, IPXE, WRITING, reset
from tests.kube.operators import (
    COMMISSIONED,
    DEPLOYED,
    IMAGE_CHECKSUM,
    PATIENCE,
    RELEASED,
    Site,
    attempts,
    deployed,
    ready,
    site,
)

from lab.controlplane import ControlPlane

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    with site(control_plane, tmp_path_factory.mktemp("survives"), "survives") as it:
        it.create(it.image("debian-12"))
        yield it


def test_a_killed_operator_goes_on_where_it_was(here: Site) -> None:
    (releasing,) = deployed(here, "erasing")
    writing, written, starting = ready(here, "writing", "written", "starting")
    booting, inspected = here.machine("booting"), here.machine("inspected")
    releasing.metal.halt_at(ERASING)
    writing.metal.halt_at(WRITING)
    written.metal.halt_at(WRITING)
    starting.metal.halt_at(FIRST_BOOT)
    booting.metal.halt_at(IPXE)
    inspected.metal.halt_at(INSPECTION)
    releasing.release()
    for node in (writing, written, starting):
        node.deploy()
    here.create(booting.manifest(), inspected.manifest())
    written.metal.arrived(WRITING)
    written.metal.halt_at(reset("ForceOff"))
    written.metal.go_on(WRITING)
    for node, place, times in (
        (releasing, ERASING, 1),
        (writing, WRITING, 1),
        (written, reset("ForceOff"), 2),
        (starting, FIRST_BOOT, 1),
        (booting, IPXE, 1),
        (inspected, INSPECTION, 1),
    ):
        node.metal.arrived(place, times)
    assert here.operator.end(signal.SIGKILL) == -signal.SIGKILL
    for node in (releasing, writing, written, starting, booting, inspected):
        node.metal.go_on()
    writing.metal.arrived(WRITING)
    here.operator.start()
    for node in (writing, written, starting):
        node.reaches("Deployed")
        node.metal.arrived(BOOTED)
        assert node.metal.images_written == [IMAGE_CHECKSUM]
        assert node.metal.journal.count(WRITING) == 1
        assert node.metal.told == DEPLOYED
        assert [number for _, number in attempts(node, "Deploy")] == [1]
    for node in (booting, inspected):
        node.reaches("Ready")
        assert node.metal.told == COMMISSIONED
        assert [number for _, number in attempts(node, "Commission")] == [1]
    releasing.reaches("Ready")
    assert releasing.metal.journal.count(ERASING) == 1
    assert releasing.metal.told == RELEASED
    assert [number for _, number in attempts(releasing, "Release")] == [1]
    assert releasing.status["erasure"][0]["verified"]


def test_a_deleted_machine_that_holds_nothing_is_gone_at_once(here: Site) -> None:
    (node,) = ready(here, "pooled")
    here.machines.until_deleted(node.delete())
    assert node.metal.told == COMMISSIONED
    here.kubectl("wait", "--for=delete", f"hwi/{node.name}", f"--timeout={PATIENCE:.0f}s")
    assert here.operator.text().count(f"machine={here.namespace}/{node.name} step=LetGo") == 1


def test_a_deleted_machine_with_a_system_is_released_first(here: Site) -> None:
    (node,) = deployed(here, "in-service")
    here.machines.until_deleted(node.delete())
    assert node.metal.told == RELEASED
    assert node.metal.system is None
    assert not node.metal.on
    assert node.phases()[-2:] == ["Releasing", "Ready"] or node.phases()[-1] == "Releasing"


def test_a_machine_deleted_by_force_is_left_as_it_is(here: Site) -> None:
    (node,) = deployed(here, "forced")
    here.kubectl("annotate", "bmm", node.name, "metal.rackwright.io/force-delete=true")
    here.machines.until_deleted(node.delete())
    assert node.metal.told == DEPLOYED
    assert node.metal.system is not None
    assert node.metal.on
    assert "Skipped: the release of" in node.event("DeletionForced", "Warning")["note"]


def test_a_deployed_machine_whose_status_was_lost_is_deployed_again_untouched(here: Site) -> None:
    (node,) = deployed(here, "restored")
    installed = node.status["installed"]
    noted = r"jsonpath={.metadata.annotations.metal\.rackwright\.io/installed}"
    here.kubectl("wait", "bmm", node.name, f"--for={noted}", f"--timeout={PATIENCE:.0f}s")  # right after the status
    backup: dict[str, Any] = yaml.safe_load(here.kubectl("get", "bmm", node.name, "-o", "yaml"))
    del backup["status"]
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
        del backup["metadata"][field]
    here.kubectl("annotate", "bmm", node.name, "metal.rackwright.io/force-delete=true")
    here.machines.until_deleted(node.delete())
    changes = list(node.metal.bmc.changes)
    node.restore(backup)
    status = node.reaches("Deployed")
    assert status["installed"] == installed
    assert status["owner"] == "team-search"
    assert "operation" not in status
    node.event("StatusRestored", "Normal")
    assert node.metal.bmc.changes == changes
    assert node.metal.on
    # It is a machine like any other again: its owner may give it back.
    node.release()
    assert node.reaches("Ready")["erasure"][0]["verified"]


def test_nothing_of_it_shows_a_secret_a_traceback_or_a_refusal(here: Site) -> None:
    here.assert_discreet()
