"""The bench with a small fleet: what it counts is held to, what it times is not, for this host may be busy."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.laboratories import own

from lab import installation
from lab.paths import REPOSITORY, STATE, run_path

pytestmark = pytest.mark.kube

MACHINES, FEW = 100, 20
MOST_REQUESTS = 8
NAME = "benched"
STEADY = "--operator-argument=--show-progress-after=3600"
"""However busy this host is: a step that takes longer than half a minute would be shown to take its time."""


@pytest.fixture(scope="module", autouse=True)
def laboratory() -> Iterator[None]:
    """Nobody else's meanwhile."""
    with own(NAME, installation.stop):
        yield


def command(*arguments: str) -> list[str]:
    """As a person types it."""
    return [sys.executable, "hack/bench", *arguments, "--name", NAME]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(command(*arguments), cwd=REPOSITORY, capture_output=True, text=True, check=False)


def left_over() -> list[str]:
    """Folders, and processes that have one of them in their command line."""
    folders = [run_path(NAME), STATE / NAME]
    found = [str(folder) for folder in folders if folder.exists()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended
        found += [told] if any(f"{folder}/" in told for folder in folders) else []
    return found


def test_a_hundred_machines_cost_a_counted_number_of_requests_each_and_nothing_is_left_of_them() -> None:
    wanted = [f"--scenario={name}" for name in ("deployed", "released", "bare")]
    done = bench("--machines", str(MACHINES), *wanted, "--json", STEADY)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout
    assert left_over() == []
    measured = json.loads(done.stdout)
    scenarios = measured["machines"][str(MACHINES)]
    assert set(scenarios) == {"created", "deployed", "released", "bare"}
    bare = scenarios.pop("bare")
    assert bare["wall"] > 0 < bare["server"]
    assert bare["operator"] is bare["peak"] is bare["requests"] is None
    for name, figures in scenarios.items():
        assert MACHINES <= sum(figures["requests"].values()) <= MOST_REQUESTS * MACHINES, (name, figures["requests"])
        assert figures["operator"] > 0
        assert figures["peak"] > 2**20
    assert {each["verdict"] for each in measured["targets"]} == {"met"}


def test_twenty_machines_that_are_changed_rest_and_meet_a_new_operator_cost_what_is_counted() -> None:
    wanted = [f"--scenario={name}" for name in ("changed", "wished", "idle", "restarted", "storm")]
    done = bench("--machines", str(FEW), *wanted, "--idle-seconds", "5", "--json", STEADY)
    assert done.returncode in (0, 1), done.stderr[-3000:]  # 1: the storm is judged by its time
    measured = json.loads(done.stdout)
    scenarios = measured["machines"][str(FEW)]
    assert set(scenarios) == {"created", "changed", "wished", "idle", "restarted", "storm"}
    for name in ("idle", "restarted"):
        assert writes(scenarios[name]) == {}, name
    assert writes(scenarios["changed"]) == {"patch baremetalmachines/status": FEW}
    assert writes(scenarios["wished"]) == {"patch baremetalmachines/status": FEW, "create events": FEW}
    storm = scenarios["storm"]
    assert storm["machines"] == FEW
    assert storm["requests"]["patch hardwareinventories"] == FEW - FEW // 10  # those that work, and all of them
    assert sum(storm["requests"].values()) <= MOST_REQUESTS * storm["machines"]
    assert {"percent slower than where the tenth is locked", "seconds, on average"} <= storm["further"].keys()
    for name, figures in scenarios.items():
        assert figures["server"] > 0 < figures["operator"] or name == "idle"
        assert figures["further"]["machines that wait for a worker, at most"] <= storm["machines"]
    assert scenarios["created"]["further"]["milliseconds from a write to its watch, 99 %"] > 0
    assert {each["verdict"] for each in measured["targets"] if each["scenario"] != "storm"} == {"met"}
    assert left_over() == []


def writes(figures: dict[str, dict[str, int]]) -> dict[str, int]:
    """The requests that weren't only read, by verb and resource."""
    return {what: count for what, count in figures["requests"].items() if not what.startswith(("get ", "list "))}


def test_ctrl_c_leaves_nothing_however_often_it_is_pressed() -> None:
    with subprocess.Popen(
        command("--machines", str(MACHINES)), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as under_way:
        assert under_way.stdout is not None
        assert under_way.stderr is not None
        said, pressed = [], 0
        for line in under_way.stderr:
            said.append(line)
            if re.search(
                r"(declared|Commissioning|Ready) \d|✗", line
            ):  # they are being created; they are being removed
                under_way.send_signal(signal.SIGINT)
                pressed += 1
        output = under_way.stdout.read()
    told = "".join(said)
    assert pressed > 1, told
    assert under_way.returncode == 130, told
    assert told.endswith("interrupted\n")
    assert "Traceback" not in told
    assert output == ""
    assert left_over() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--machines", "0"], "--machines: must be a number, 1 or more"),
        (["--machines", "900000000"], "measure at most"),
    ],
)
def test_what_cant_be_measured_here_is_said_before_it_begins(arguments: list[str], says: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
