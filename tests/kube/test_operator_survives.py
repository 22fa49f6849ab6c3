"""Operators are killed, the API server goes away, clocks jump, records get lost: nothing is done twice.

The operator reaches the API server through a `Wire`, which holds it up, interferes or breaks.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import yaml
from tests.kube.metal import BOOTED, ERASING, FIRST_BOOT, INSPECTION, IPXE, LOOKUP, RESCUING, WRITING, Flaw, reset
from tests.kube.operators import (
    COMMISSIONED,
    DEPLOYED,
    IMAGE_CHECKSUM,
    PATIENCE,
    RELEASED,
    SYSTEM,
    Machine,
    Site,
    attempts,
    condition,
    deployed,
    elapsed,
    kept_running,
    ready,
    site,
)
from tests.kube.wire import Ended, Left, Moment, Recorded

from lab.controlplane import ControlPlane
from lab.process import wait_until

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

AWAY = 60.0
"""Seconds without an API server."""
BUSY = 20.0
"""Seconds that whatever should happen at once may take on a busy host."""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f you@example.org"


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    arguments = ("--retry-base", "10")
    with site(control_plane, tmp_path_factory.mktemp("survives"), "survives", arguments=arguments, wired=True) as it:
        it.create(it.image("debian-12"))
        yield it


# --- an operator that is killed -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """What is done to a machine, and where in it an operator may be killed."""

    name: str
    steps: Sequence[str]
    """Every `status.operation.step`, in order: at each it is killed before anything of it was done, and after all."""
    places: Sequence[str]
    """Where the machine is on its way when it is killed, besides."""
    begins: Callable[[Machine], None]
    arrives: str
    told: Sequence[str]
    """Every reset that the BMC is given."""
    once: str = ""
    """What must never happen twice."""
    again: str = ""
    """What tells it from an earlier one of that name."""
    first: Callable[[Machine], None] = lambda _: None
    """What is done to the machine before."""
    inspected_again: Sequence[Moment | str] = ()
    """Where it costs one boot more: that its ramdisk is done with is recorded with what comes of it."""

    def __str__(self) -> str:
        return f"{self.name} {self.again}".strip()

    @property
    def moments(self) -> Sequence[Moment | str]:
        """All of them."""
        return [*(kind(step) for step in self.steps for kind in (Recorded, Left)), Ended(), *self.places]

    def may_be_told(self, at: Moment | str | None) -> Sequence[Sequence[str]]:
        """Every reset that the BMC is given where the operator is killed there; None: wherever it happens to be."""
        if not self.inspected_again or at not in (*self.inspected_again, None):
            return [self.told]
        off = self.told.index("ForceOff") + 1
        once_more = [*self.told[:off], "On", "ForceOff", *self.told[off:]]
        return [once_more] if at is not None else [self.told, once_more]


def _marked_broken(node: Machine) -> None:
    node.change(broken={"reason": "DIMM A3"})
    node.reaches("Broken")


OPERATIONS = (
    Operation(
        "Commission",
        ("BootRamdisk",),
        (IPXE, INSPECTION, reset("ForceOff")),
        Machine.declare,
        "Ready",
        COMMISSIONED,
        inspected_again=(Left("BootRamdisk"), reset("ForceOff")),
    ),
    Operation(
        "Deploy",
        ("BootRamdisk", "WriteImage", "BootDisk"),
        (reset("On"), IPXE, LOOKUP, WRITING, reset("ForceOff"), FIRST_BOOT),
        Machine.deploy,
        "Deployed",
        ["On", "ForceOff", "On"],
        once=WRITING,
    ),
    Operation(
        "Restart",
        ("PowerOff", "PowerOn"),
        (reset("GracefulShutdown"), reset("On")),
        lambda node: node.change(powerCycle={"trigger": "kernel-update"}),
        "Deployed",
        ["GracefulShutdown", "On"],
    ),
    Operation(
        "Deploy",
        ("PowerOff", "BootRamdisk", "WriteImage", "BootDisk"),
        (reset("GracefulShutdown"), WRITING, reset("ForceOff")),
        lambda node: node.deploy(trigger="1"),
        "Deployed",
        ["GracefulShutdown", "On", "ForceOff", "On"],
        once=WRITING,
        again="again",
    ),
    Operation(
        "Commission",
        ("PowerOff", "BootRamdisk", "BootDisk"),
        (reset("GracefulShutdown"), INSPECTION, reset("ForceOff")),
        lambda node: node.change(broken=None),
        "Deployed",
        ["GracefulShutdown", "On", "ForceOff", "On"],
        again="with a system on it",
        first=_marked_broken,
        inspected_again=(Left("BootRamdisk"), reset("ForceOff")),
    ),
    Operation(
        "Rescue",
        ("PowerOff", "BootRamdisk", "OpenRescue"),
        (reset("GracefulShutdown"), RESCUING),
        lambda node: node.change(rescue={"sshAuthorizedKeys": [KEY]}),
        "Rescue",
        ["GracefulShutdown", "On"],
        once=RESCUING,
    ),
    Operation(
        "EndRescue",
        ("PowerOff", "BootDisk"),
        (reset("GracefulShutdown"), reset("On")),
        lambda node: node.change(rescue=None),
        "Deployed",
        ["GracefulShutdown", "On"],
    ),
    Operation(
        "Release",
        ("PowerOff", "BootRamdisk", "EraseDisks", "ShutDown"),
        (reset("GracefulShutdown"), ERASING, reset("ForceOff")),
        Machine.release,
        "Ready",
        ["GracefulShutdown", "On", "ForceOff"],
        once=ERASING,
    ),
)


@pytest.fixture(scope="module")
def fleet(here: Site) -> list[Machine]:
    """A machine for each moment of the operation that has most, and one that is left in peace."""
    return [here.machine(f"fleet-{n}") for n in range(max(len(each.moments) for each in OPERATIONS) + 1)]


# One fleet, whose story these tests tell in order.


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_an_operator_that_is_killed_at_any_step_goes_on_where_it_was(
    here: Site, fleet: Sequence[Machine], operation: Operation
) -> None:
    for node in fleet:
        operation.first(node)
    befores, names = [Before(node) for node in fleet], [node.name for node in fleet]
    held = list(zip(fleet, operation.moments, strict=False))
    visits = {node.name: node.metal.journal.count(at) + 1 for node, at in held if isinstance(at, str)}
    for node, at in held:
        if isinstance(at, str):
            node.metal.halt_at(at)
        else:
            here.wire.hold(node.name, at)
    for node in fleet:
        operation.begins(node)
    for node, at in held:
        if isinstance(at, str):
            node.metal.arrived(at, visits[node.name])
        else:
            here.wire.holds(node.name)
    assert here.operator.end(signal.SIGKILL) == -signal.SIGKILL
    here.wire.drop()
    for node in fleet:
        node.metal.go_on()
    here.plane.ctl("-n", SYSTEM, "delete", "lease", "rackwright")  # it is known to be dead: no need to wait that out
    here.operator.start()
    for node, before in zip(fleet, befores, strict=True):
        status = settled(node, operation.arrives)
        killed_at = dict(zip(names, operation.moments, strict=False)).get(node.name)
        assert node.metal.told[len(before.told) :] in operation.may_be_told(killed_at), node.name
        assert [number for _, number in attempts(node, operation.name) - before.attempts] == [1], node.name
        assert node.metal.journal[len(before.journal) :].count(operation.once) == bool(operation.once), node.name
        assert (status["history"][0]["name"], status["history"][0]["outcome"]) == (operation.name, "Succeeded")
    assert steps(fleet[-1], operation.name) == list(operation.steps), "a step that is not in the table"
    if operation.name == "Release":
        assert all(node.status["erasure"][0]["verified"] for node in fleet)


class Before:
    """What a machine's metal and record have told so far."""

    def __init__(self, node: Machine) -> None:
        self.told = list(node.metal.told)
        self.journal = list(node.metal.journal)
        self.attempts = set().union(*(attempts(node, operation.name) for operation in OPERATIONS))


def settled(node: Machine, phase: str) -> Mapping[str, Any]:
    """Wait until it is in a phase with nothing under way."""
    return node.until(lambda s: s.get("phase") == phase and "operation" not in s, f"was {phase}, and done")


def steps(node: Machine, name: str) -> list[str]:
    """The steps that its record went through in the last operation of this name."""
    operations = [version.get("status", {}).get("operation") or {} for version in node.versions]
    named = [each for each in operations if each.get("name") == name]
    return list(dict.fromkeys(str(each["step"]) for each in named if each["id"] == named[-1]["id"]))


# --- the API server -----------------------------------------------------------------------------------------------


def test_somebody_else_writes_first_each_time_and_nothing_is_done_twice(here: Site) -> None:
    node = here.machine("contested")
    here.wire.conflicts.clear()
    here.wire.meddles = True
    try:
        node.declare()
        node.reaches("Ready")
        node.deploy()
        node.reaches("Deployed")
        node.metal.arrived(BOOTED)
        node.release()
        status = node.reaches("Ready")
    finally:
        here.wire.meddles = False
    assert here.wire.conflicts["baremetalmachine"] >= len(steps(node, "Commission") + steps(node, "Deploy"))
    assert here.wire.conflicts["lease"] > 0
    assert node.metal.told == RELEASED
    assert node.metal.images_written == [IMAGE_CHECKSUM]
    assert [(entry["name"], entry["attempts"]) for entry in status["history"]] == [
        ("Release", 1),
        ("Deploy", 1),
        ("Commission", 1),
    ]


def failure(code: int, reason: str) -> Mapping[str, Any]:
    """How the API server says in a watch that it ends."""
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "-"}


@pytest.mark.parametrize("another_waits", [False, True], ids=["alone", "and another watch waits for an answer"])
@pytest.mark.parametrize(
    "errors",
    [(), (failure(410, "Expired"),), (failure(500, "InternalError"),)],
    ids=["it breaks off", "it is too old to go on", "the API server has an internal error"],
)
def test_what_happens_while_a_watch_is_broken_is_seen_afterwards(
    here: Site, pooled: Machine, errors: Sequence[Mapping[str, Any]], *, another_waits: bool
) -> None:
    here.wire.errors += errors
    with (
        here.wire.images_unanswered() if another_waits else nullcontext(),
        kept_running(here.operator),  # what kopf can't go on after ends the process, in good order
    ):
        with here.wire.cut_off():
            pooled.change(allocation={"owner": "team-search"})
        pooled.reaches("Allocated")
        assert wait_until(lambda: not here.wire.errors, PATIENCE)
        pooled.change(allocation=None)
        pooled.reaches("Ready")
        assert wait_until(lambda: here.operator.probe("readyz"), PATIENCE)


SILENCE = 5.0
"""Seconds after which this operator doesn't believe in a silent watch, or lists what watches don't tell."""


@pytest.mark.parametrize(
    ("all_of_them", "bounded_by"),
    [(False, "--watch-silence"), (True, "--resync")],
    ids=["the watches that there are", "every watch"],
)
def test_what_happens_while_watches_stay_open_and_say_nothing_is_seen_in_time(
    here: Site, pooled: Machine, bounded_by: str, *, all_of_them: bool
) -> None:
    never = ("--watch-silence", "3600", "--resync", "3600")
    with (
        started_with(here, *never, bounded_by, f"{SILENCE:.0f}"),
        here.wire.silent(all_of_them=all_of_them),
    ):
        since = time.monotonic()
        pooled.change(allocation={"owner": "team-search"})
        pooled.reaches("Allocated")
        assert elapsed(since) < SILENCE + BUSY
    pooled.change(allocation=None)
    pooled.reaches("Ready")


@contextmanager
def started_with(here: Site, *arguments: str) -> Iterator[None]:
    """The operator was started with these arguments too, in this context."""
    usual = here.operator.arguments
    here.operator.end()
    here.operator.arguments = (*usual, *arguments)
    here.operator.start()
    try:
        yield
    finally:
        here.operator.end()
        here.operator.arguments = usual
        here.operator.start()


@pytest.fixture(scope="module")
def pooled(here: Site) -> Machine:
    (node,) = ready(here, "in-the-pool")
    return node


def test_a_minute_without_the_api_server_costs_no_attempt(here: Site) -> None:
    idle, erasing = deployed(here, "away-idle", "away-erasing")
    writing, starting = ready(here, "away-writing", "away-starting")
    booting = here.machine("away-booting")
    erasing.metal.halt_at(ERASING)
    writing.metal.halt_at(WRITING)
    starting.metal.halt_at(FIRST_BOOT)
    booting.metal.halt_at(IPXE)
    erasing.release()
    writing.deploy()
    starting.deploy()
    booting.declare()
    for node, place in ((erasing, ERASING), (writing, WRITING), (starting, FIRST_BOOT), (booting, IPXE)):
        node.metal.arrived(place)
    nodes = (idle, erasing, writing, starting, booting)
    told = [list(node.metal.told) for node in nodes]
    with kept_running(here.operator):
        with here.wire.cut_off():
            since = time.monotonic()
            for node in nodes:
                node.metal.go_on()
            time.sleep(AWAY - elapsed(since))  # nothing is what is waited for
            assert [node.metal.told for node in nodes] == told, "nothing is done that can't be recorded before"
        for node in (writing, starting):
            node.reaches("Deployed")
            assert node.metal.told == DEPLOYED
            assert node.metal.images_written == [IMAGE_CHECKSUM]
        erasing.reaches("Ready")
        assert erasing.metal.told == RELEASED
        assert erasing.metal.journal.count(ERASING) == 1
        booting.reaches("Ready")
        assert booting.metal.told == COMMISSIONED
    assert idle.metal.told == DEPLOYED
    assert all(entry["attempts"] == 1 for node in nodes for entry in node.status["history"])


# --- the clock ----------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_costs_an_attempt_at_most_and_never_stops_a_machine(here: Site) -> None:
    (idle,) = deployed(here, "clock-idle")
    writing, slow = ready(here, "clock-writing", "clock-slow")
    waiting = here.machine("clock-waiting")
    set_clock(here, timedelta())
    here.operator.end()
    here.operator.clock = here.operator.folder / "clock"
    here.operator.start()
    try:
        # Ahead by less than an attempt may take: whoever works goes on, and was heard a moment ago.
        writing.metal.halt_at(WRITING)
        writing.deploy()
        writing.metal.arrived(WRITING)
        slow.metal.halt_at(WRITING)
        slow.deploy()
        slow.metal.arrived(WRITING)
        writing.metal.flaws.add(Flaw.MUTE)
        set_clock(here, timedelta(minutes=50))
        writing.change(deployment={"sshAuthorizedKeys": [KEY]})  # which has the operator look
        assert "lastFailure" not in writing.until(lambda s: s["phase"] == "Deploying", "was looked at")
        writing.metal.mend()
        assert writing.reaches("Deployed")["history"][0]["attempts"] == 1
        assert writing.metal.told == DEPLOYED
        # Ahead by more: that attempt is over.
        set_clock(here, timedelta(hours=2))
        status = slow.until(lambda s: "nextRetryAt" in s.get("operation", {}), "was over")
        assert status["lastFailure"]["reason"] == "DeadlineExceeded"
        slow.metal.arrived(WRITING, 2)
        slow.metal.go_on()
        assert slow.reaches("Deployed")["history"][0]["attempts"] == 2
        # Back by a year: what waits for a time that is a year away now doesn't wait for it.
        here.metal.listen(waiting.metal, on=False)
        waiting.declare()
        waiting.until(lambda s: "nextRetryAt" in s.get("operation", {}), "failed once")
        here.metal.listen(waiting.metal)
        set_clock(here, -timedelta(days=365))
        assert waiting.reaches("Ready")["history"][0]["attempts"] == 2
        assert idle.metal.told == DEPLOYED
    finally:
        here.operator.end()
        here.operator.clock = None
        here.operator.start()


def set_clock(here: Site, off_by: timedelta) -> None:
    """Have an operator that runs by it believe that it is later, or earlier."""
    shown = here.operator.folder / "clock"
    following = shown.with_suffix(".next")
    following.write_text(f"{off_by.total_seconds()}")
    following.rename(shown)  # at once: the operator looks at it all the time


# --- records ------------------------------------------------------------------------------------------------------


def test_a_deleted_machine_that_holds_nothing_is_gone_at_once(here: Site) -> None:
    (node,) = ready(here, "to-be-deleted")
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
    backup = lost(here, node)
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


def test_a_deployed_machine_whose_status_and_deployment_were_lost_is_held_untouched(here: Site) -> None:
    (node,) = deployed(here, "half-restored")
    installed = node.status["installed"]
    backup = lost(here, node)
    deployment = backup["spec"].pop("deployment")
    changes = list(node.metal.bmc.changes)
    node.restore(backup)
    status = node.stalls("DeclarationLost")
    assert "phase" not in status
    assert "operation" not in status
    assert condition(status, "Ready")["status"] == "False"
    node.event("DeclarationLost", says="Declare the deployment again")
    here.operator.end()
    here.operator.start()  # which doesn't think better of it
    node.change(power="Off")
    assert "phase" not in node.stalls("DeclarationLost")
    node.change(power=None, deployment=deployment)
    status = node.reaches("Deployed")
    assert status["installed"] == installed
    assert status["owner"] == "team-search"
    assert node.metal.bmc.changes == changes
    assert node.metal.on


def test_a_backup_from_before_the_deployment_is_held_until_a_person_says_what_runs(here: Site) -> None:
    (node,) = ready(here, "restored-older")
    backup = backed_up(here, node)
    node.deploy()
    node.reaches("Deployed")
    declared = node.record()["spec"]
    forget(here, node)
    changes = list(node.metal.bmc.changes)
    node.restore(backup | {"spec": declared})  # the record of last night, and what is declared today
    status = node.stalls("StatusLost")
    assert "phase" not in status
    node.event("StatusLost", says="adopt it")
    node.change(allocation=None, deployment=None)
    node.stalls("StatusLost")
    here.operator.end()
    here.operator.start()  # which doesn't think better of it
    node.change(allocation=declared["allocation"], deployment={"existing": True})
    status = node.reaches("Deployed")
    assert status["owner"] == "team-search"
    assert node.metal.bmc.changes == changes
    assert node.metal.on
    node.release()
    assert node.reaches("Ready")["erasure"][0]["verified"]


def test_a_person_may_say_that_nothing_is_needed_of_what_a_backup_does_not_know(here: Site) -> None:
    (node,) = ready(here, "restored-free")
    backup = backed_up(here, node)
    forget(here, node)
    node.metal.press_power()
    node.restore(backup)
    node.stalls("StatusLost")
    here.kubectl("annotate", "bmm", node.name, "metal.rackwright.io/record-")
    node.reaches("Ready")
    metadata = node.record()["metadata"]
    assert metadata["annotations"]["metal.rackwright.io/record"] == metadata["uid"]


def lost(here: Site, node: Machine) -> dict[str, Any]:
    """A backup of it that knows what is installed; its record has vanished since."""
    node.noted()
    backup = backed_up(here, node)
    forget(here, node)
    return backup


def forget(here: Site, node: Machine) -> None:
    """Have its record vanish, and nothing else."""
    here.kubectl("annotate", "bmm", node.name, "metal.rackwright.io/force-delete=true")
    here.machines.until_deleted(node.delete())


def backed_up(here: Site, node: Machine) -> dict[str, Any]:
    """Its record as a backup keeps it: without status, as most are."""
    backup: dict[str, Any] = yaml.safe_load(here.kubectl("get", "bmm", node.name, "-o", "yaml"))
    del backup["status"]
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
        del backup["metadata"][field]
    return backup


def test_nothing_of_it_shows_a_secret_a_traceback_or_a_refusal(here: Site) -> None:
    here.assert_discreet()
