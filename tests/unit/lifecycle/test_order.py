"""What wins over what: the order of the table, pinned where two rows apply and the order is a promise."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.lifecycle.worlds import (
    anywhere,
    attempt,
    declared,
    failure,
    heard,
    installed,
    power_off,
    power_on,
    world,
)

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.decide import matching_row
from rackwright.lifecycle.steps import Action, Stage
from rackwright.lifecycle.table import TABLE
from rackwright.lifecycle.world import Blame, CommandState, Fault, Seen, World

MINUTES = timedelta(minutes=1)
WANTED = declared(owner="search", image="debian-12")
SILENT = Fault(Blame.BMC, "BMCUnreachable", "The BMC does not answer.")
MISSING = Fault(Blame.CONFIGURATION, "SecretMissing", "The Secret node-07-bmc does not exist.")
DEPLOY = OperationName.DEPLOY
TWIN = "rack/node-01"

BROKEN_AND_WANTED = declared(owner="search", image="debian-12", broken="DIMM A3")
AGAIN = declared(owner="search", image="debian-12", reinstall="again", recommission="again", rescue=True, power="Off")

WINS: dict[str, tuple[World, str]] = {
    "force over a twin": (
        anywhere(Phase.DEPLOYED, WANTED, seen=Seen(twin=TWIN), deleting=True, force_delete=True),
        "DeletionForced",
    ),
    "a twin over taking hold": (world(None, seen=Seen(twin=TWIN), held=False), "DuplicateMachine"),
    "a twin over work": (anywhere(Phase.DEPLOYING, WANTED, seen=Seen(twin=TWIN)), "DuplicateMachine"),
    "taking hold over everything that touches the machine": (world(None, WANTED, held=False), "RecordHeld"),
    "evidence over a new beginning": (world(None, WANTED, power_on(evidence=installed())), "StatusRestored"),
    "the annotation over the next operation": (
        world(Phase.DEPLOYED, AGAIN, power_on(evidence=installed("x")), owner="search", installed=installed()),
        "EvidenceRecorded",
    ),
    "a mark over a wish": (
        anywhere(Phase.DEPLOYED, declared(owner="search", image="debian-12", broken="!", rescue=True)),
        "MarkedBroken",
    ),
    "a running write over the mark": (
        anywhere(
            Phase.DEPLOYING,
            BROKEN_AND_WANTED,
            seen=power_on(agent=heard(command=CommandState.RUNNING)),
            operation=attempt(DEPLOY, Stage.WRITE_IMAGE),
        ),
        "FinishingDiskWrite",
    ),
    "the mark over the deadline": (
        anywhere(Phase.DEPLOYING, BROKEN_AND_WANTED, operation=attempt(DEPLOY, Stage.WRITE_IMAGE, since=40 * MINUTES)),
        "MarkedBroken",
    ),
    "a withdrawal over a back-off": (
        anywhere(Phase.DEPLOYING, declared(owner="search"), operation=attempt(DEPLOY, number=2, retry_in=MINUTES)),
        "DeploymentWithdrawn",
    ),
    "a new trigger over a back-off": (
        anywhere(Phase.DEPLOYING, AGAIN, operation=attempt(DEPLOY, number=2, retry_in=MINUTES)),
        "ReinstallRequested",
    ),
    "a first boot over the deadline": (
        anywhere(
            Phase.DEPLOYING,
            WANTED,
            seen=power_on(first_boot=installed()),
            operation=attempt(DEPLOY, Stage.BOOT_DISK, since=40 * MINUTES),
        ),
        "FirstBootReported",
    ),
    "a missing Secret over a silent BMC": (
        anywhere(Phase.DEPLOYING, WANTED, seen=Seen(bmc_fault=MISSING), operation=attempt(DEPLOY)),
        "(the BMC fault's)",
    ),
    "nothing to erase over the ramdisk": (
        world(
            Phase.RELEASING,
            declared(),
            power_off(),
            owner="search",
            operation=attempt(OperationName.RELEASE, Stage.POWER_OFF),
        ),
        "NothingToErase",
    ),
    "a rescue over a release": (
        anywhere(Phase.DEPLOYED, declared(owner="search", rescue=True)),
        "RescueRequested",
    ),
    "a rescue over a re-install and over power": (anywhere(Phase.DEPLOYED, AGAIN), "RescueRequested"),
    "a recommission over a release": (
        anywhere(Phase.FAILED, declared(recommission="again"), last_failure=failure(DEPLOY)),
        "RecommissionRequested",
    ),
    "distrust over an allocation": (world(Phase.READY, declared(owner="search", accepted=False)), "Withdrawn"),
    "a recommission over an allocation": (
        world(Phase.READY, declared(owner="search", recommission="again")),
        "RecommissionRequested",
    ),
    "an obstacle over a deployment": (
        world(Phase.ALLOCATED, WANTED, power_off(obstacle=MISSING), owner="search"),
        "(the obstacle's)",
    ),
    "declared power over another image": (
        anywhere(Phase.DEPLOYED, declared(owner="search", image="fedora-42", power="Off"), seen=power_on()),
        "PowerOffWanted",
    ),
}


@pytest.mark.parametrize(("here", "because"), WINS.values(), ids=WINS.keys())
def test_the_more_urgent_row_is_read_first(here: World, because: str) -> None:
    assert matching_row(here).because == because


def test_nothing_is_done_to_a_machine_before_its_record_is_held() -> None:
    held = next(n for n, row in enumerate(TABLE) if row.because == "RecordHeld")

    assert {type(row.do).__name__ for row in TABLE[:held] if isinstance(row.do, Action)} == {"LetGo"}
