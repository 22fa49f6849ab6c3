"""What the demonstration does with machines that don't exist: no earlier manifest, no more owners than asked."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from lab import simulated
from lab.crowd import Crowd, Sight, bar
from lab.paths import REPOSITORY
from rackwright.api.machine import BareMetalMachineSpec
from rackwright.simulated.behaviour import behaviour

NAMES = ["sim-00001", "sim-00002", "sim-00003"]


def record(phase: str, **spec: Any) -> dict[str, Any]:
    return {"spec": spec, "status": {"phase": phase}}


def test_a_manifest_is_one_that_the_operator_reads_and_no_two_share_a_network_card() -> None:
    manifests = [simulated.manifest(f"sim-{number:05}", number, {}) for number in (1, 255, 256, 10_000)]
    macs = {BareMetalMachineSpec.model_validate(each["spec"]).boot_mac_address for each in manifests}
    assert macs == {"52:54:00:00:00:01", "52:54:00:00:00:ff", "52:54:00:00:01:00", "52:54:00:00:27:10"}
    assert behaviour(simulated.ADDRESS).boot == 8.0


@pytest.mark.parametrize(
    ("records", "wanted", "chosen"),
    [
        ([record("Ready"), record("Ready"), record("Ready")], 2, ["sim-00001", "sim-00002"]),
        ([record("Failed"), record("Ready"), record("Ready")], 2, ["sim-00002", "sim-00003"]),
        ([record("Deployed", allocation={}), record("Ready"), record("Ready")], 2, ["sim-00002"]),
        ([record("Ready"), record("Deployed", allocation={}), record("Failed", allocation={})], 2, []),
        ([record("Commissioning"), record("Ready"), record("Broken")], 3, ["sim-00002"]),
    ],
)
def test_as_many_of_the_pool_get_an_owner_as_are_still_wanted(
    records: list[dict[str, Any]], wanted: int, chosen: list[str]
) -> None:
    assert simulated._to_deploy(dict(zip(NAMES, records, strict=True)), NAMES, wanted) == chosen


def told(*lines: str) -> list[list[str]]:
    """What a watch told, in columns."""
    return [line.split("|") for line in lines]


def test_a_crowd_is_counted_by_phase_as_it_was_seen_last() -> None:
    crowd = Crowd()
    crowd.take(told("sim-00001|||1|-1|", "sim-00002|Commissioning|Commission|1|1|Booting", "sim-00003|Ready||1|1|A"))
    assert str(crowd) == "declared 1  Commissioning 1  Ready 1"
    crowd.take(told("sim-00001|Ready||1|1|Available", "sim-00002|Rescue||1|1|RescueOpen"))
    assert str(crowd) == "Ready 2  Rescue 1"
    assert crowd.reasons(NAMES) == "1 Ready (Available), 1 Rescue (RescueOpen), 1 Ready (A)"


def test_who_works_or_has_not_seen_its_spec_is_not_there_yet() -> None:
    wanted = dict.fromkeys(NAMES, ("Ready",))
    crowd = Crowd()
    crowd.take(told("sim-00001|Ready||2|1|Available", "sim-00002|Ready|Restart|1|1|Off", "sim-00003|Ready||1|1|A"))
    assert crowd.are(wanted) == 1
    assert not Sight("sim-00004", "", "", "1", "-1", "").rests


def test_a_bar_is_full_when_all_are_there() -> None:
    assert bar(0, 50) == f"{'░' * 20} 0/50"
    assert bar(25, 50) == f"{'█' * 10}{'░' * 10} 25/50"
    assert bar(50, 50) == f"{'█' * 20} 50/50"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--simulated", "--release"], "leave them out with --simulated"),
        (["--simulated", "--nodes", "3"], "leave them out with --simulated"),
        (["--machines", "3"], "--machines needs --simulated"),
        (["--simulated", "--machines", "0"], "--machines must be a number from 1 to 10000"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_made(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "hack/demo", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert said in done.stderr
