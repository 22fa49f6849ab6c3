"""What people type: `kubectl get` says who needs somebody, `describe` why and what next, `wait` when it is over."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.kube.metal import BOOTED, ERASING, INSPECTION, Flaw
from tests.kube.operators import JSON, Site, site
from tests.unit.lifecycle.kstatus import Verdict, compute

from lab.controlplane import ControlPlane

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

WAIT = "--timeout=25s"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f you@example.org"


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    with site(control_plane, tmp_path_factory.mktemp("wait"), "wait", arguments=("--grace", "1")) as it:
        it.create(it.image("debian-12"))
        yield it


@contextmanager
def waiting(here: Site, name: str, what: str) -> Iterator[None]:
    """`kubectl wait` begins before what is done in this context, and has to return after it."""
    command = [str(here.plane.kubectl), f"--kubeconfig={here.plane.kubeconfig}", "-n", here.namespace]
    command += ["wait", f"bmm/{name}", f"--for={what}", WAIT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
            printed, _ = process.communicate()
        finally:
            process.kill()
    assert printed == f"baremetalmachine.metal.rackwright.io/{name} condition met\n"


def as_it_is(here: Site, name: str) -> JSON:
    """A machine as the API server returns it now."""
    found: JSON = json.loads(here.kubectl("get", "bmm", name, "-o", "json"))
    return found


def table(printed: str) -> dict[str, dict[str, str]]:
    """What `kubectl get` printed, by machine and column; an empty cell is an empty string."""
    header, *lines = printed.splitlines()
    places = [match.span() for match in re.finditer(r"\S+\s*", header)]
    rows = [[line[start:end].strip() for start, end in places] for line in lines]
    return {row[0]: dict(zip(header.split(), row, strict=True)) for row in rows}


def test_wait_returns_when_a_machine_is_as_declared_and_not_for_what_it_was_before(here: Site) -> None:
    node = here.machine("waited-for")
    node.declare()
    with waiting(here, node.name, "condition=Ready"):
        pass
    found = as_it_is(here, node.name)
    assert (found["status"]["phase"], compute(found)) == ("Ready", Verdict.CURRENT)

    with waiting(here, node.name, "jsonpath={.status.phase}=Deployed"):
        node.deploy()
        with waiting(here, node.name, "condition=Ready"):
            pass
        found = as_it_is(here, node.name)
    assert (found["status"]["phase"], compute(found)) == ("Deployed", Verdict.CURRENT)
    verdicts = [compute(version) for version in node.versions]
    changes = [new for old, new in itertools.pairwise([None, *verdicts]) if new is not old]
    assert changes == [Verdict.IN_PROGRESS, Verdict.CURRENT] * 2, "kstatus never saw it as declared when it wasn't"


def test_wait_is_told_of_a_rescue_a_broken_machine_and_the_way_back(here: Site) -> None:
    node = here.machine("wished-for")
    node.metal.halt_at(INSPECTION)
    node.declare(allocation={"owner": "team-search"}, deployment={"image": "debian-12"})
    with waiting(here, node.name, "jsonpath={.status.phase}=Commissioning"):
        pass
    assert compute(as_it_is(here, node.name)) is Verdict.IN_PROGRESS
    node.metal.go_on()
    with waiting(here, node.name, "jsonpath={.status.phase}=Deployed"):
        pass
    node.metal.arrived(BOOTED)

    for wish, what, phase, verdict in (
        ({"rescue": {"sshAuthorizedKeys": [KEY]}}, "condition=Ready", "Rescue", Verdict.CURRENT),
        ({"rescue": None}, "condition=Ready", "Deployed", Verdict.CURRENT),
        ({"broken": {"reason": "DIMM A3"}}, "condition=Stalled", "Broken", Verdict.FAILED),
        ({"broken": None}, "condition=Ready", "Deployed", Verdict.CURRENT),
    ):
        node.change(**wish)
        with waiting(here, node.name, what):
            pass
        found = as_it_is(here, node.name)
        assert (found["status"]["phase"], compute(found)) == (phase, verdict)
        assert "operation" not in found["status"], "it is over"
        assert ("rescue" in found["status"]) is (phase == "Rescue")

    node.metal.halt_at(ERASING)
    node.release()
    with waiting(here, node.name, "jsonpath={.status.phase}=Releasing"):
        pass
    assert compute(as_it_is(here, node.name)) is Verdict.IN_PROGRESS
    node.metal.go_on()
    with waiting(here, node.name, "condition=Ready"):
        pass
    assert as_it_is(here, node.name)["status"]["phase"] == "Ready"


def test_of_a_handful_it_is_shown_who_needs_somebody_why_and_what_next(here: Site) -> None:
    pool, runs, held, failed = (here.machine(name) for name in ("pool", "runs", "held", "failed"))
    allocation = {"owner": "team-search"}
    here.create(pool.manifest(), runs.manifest(allocation=allocation, deployment={"image": "debian-12"}))
    failed.metal.flaws.add(Flaw.STAYS_DARK)
    here.create(
        held.manifest(allocation=allocation, deployment={"image": "of-nobody"}),
        failed.manifest(commissioning={"timeout": "3s", "maxAttempts": 1}),
    )
    for node, what in (
        (held, "condition=Stalled"),
        (failed, "condition=Stalled"),
        (runs, "jsonpath={.status.phase}=Deployed"),
        (runs, "condition=Ready"),
        (pool, "condition=Ready"),
    ):
        with waiting(here, node.name, what):
            pass

    shown = table(here.kubectl("get", "bmm", *(node.name for node in (pool, runs, held, failed))))
    columns = ("PHASE", "OWNER", "OS", "POWER", "STEP", "READY", "STALLED", "REASON")
    assert {name: tuple(row[column] for column in columns) for name, row in shown.items()} == {
        "pool": ("Ready", "", "", "Off", "", "True", "False", "Available"),
        "runs": ("Deployed", "team-search", "debian-12", "On", "", "True", "False", "Running"),
        "held": ("Allocated", "team-search", "", "Off", "", "False", "True", "ImageMissing"),
        "failed": ("Failed", "", "", "Off", "", "False", "True", "DeadlineExceeded"),
    }
    assert {node.name: compute(as_it_is(here, node.name)) for node in (pool, runs, held, failed)} == {
        "pool": Verdict.CURRENT,
        "runs": Verdict.CURRENT,
        "held": Verdict.FAILED,
        "failed": Verdict.FAILED,
    }

    for node, reason, why, next_step in (
        (held, "ImageMissing", "The OperatingSystemImage of-nobody", "It is used as soon as it is there."),
        (
            failed,
            "DeadlineExceeded",
            "longer than its timeout in spec",
            "Set spec.commissioning.trigger to a new value",
        ),
    ):
        node.event(reason)
        conditions, events = here.kubectl("describe", "bmm", node.name).split("\nEvents:")
        assert why in conditions
        assert next_step in conditions
        assert any(reason in line and why in line for line in events.splitlines() if "Warning" in line), events


def test_nothing_of_it_shows_a_secret_a_traceback_or_a_refusal(here: Site) -> None:
    here.assert_discreet()
