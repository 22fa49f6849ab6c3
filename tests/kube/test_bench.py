"""The bench with a small fleet: what it counts is held to, what it times is not, for this host may be busy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lab.paths import REPOSITORY, run_dir

pytestmark = pytest.mark.kube

MACHINES = 100
MOST_REQUESTS = 8
NAME = "benchci"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as a person does."""
    command = [sys.executable, "hack/bench", *arguments, "--name", NAME]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_a_hundred_machines_cost_a_counted_number_of_requests_each_and_nothing_is_left_of_them() -> None:
    # However busy this host is: a step that takes longer than half a minute would be shown to take its time.
    steady = "--operator-argument=--show-progress-after=3600"
    wanted = [f"--scenario={name}" for name in ("deployed", "released", "bare")]
    done = bench("--machines", str(MACHINES), *wanted, "--json", steady)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout
    measured = json.loads(done.stdout)
    scenarios = measured["machines"][str(MACHINES)]
    assert set(scenarios) == {"created", "deployed", "released", "bare"}
    bare = scenarios.pop("bare")
    assert bare["wall"] > 0 < bare["server"]
    assert bare["operator"] == 0
    for name, figures in scenarios.items():
        assert 0 < sum(figures["requests"].values()) <= MOST_REQUESTS, (name, figures["requests"])
        assert figures["operator"] > 0
        assert figures["peak"] > 2**20
    assert {each["verdict"] for each in measured["targets"]} == {"met"}
    run_dir(NAME).rmdir()  # which fails if anything is left in it


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--machines", "0"], "--machines must be 1 or more"),
        (["--machines", "100", "--scenario", "nonsense"], "no such scenario: nonsense; there are created, changed"),
        (["--machines", "900000000"], "measure at most"),
    ],
)
def test_what_cant_be_measured_here_is_said_before_it_begins(arguments: list[str], says: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
