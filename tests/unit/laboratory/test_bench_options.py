"""What hack/bench is asked is understood as it is meant, or refused in a sentence before anything is made."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lab.bench_options import SCENARIOS, read
from lab.paths import REPOSITORY


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        read("Measure.", "results", arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_fleet_goes_through_all_scenarios_unless_some_are_named() -> None:
    asked = read("Measure.", "results", ["--machines", "100", "--machines", "1000"])
    assert (asked.machines, asked.scenario, asked.idle_seconds) == ([100, 1000], SCENARIOS, 300)
    assert (asked.name, asked.operator_argument, asked.record, asked.json) == ("bench", (), False, False)
    some = ("--scenario=idle", "--scenario=storm", "--idle-seconds=5", "--operator-argument=--resync=9", "--record")
    asked = read("Measure.", "results", ["--machines", "1", *some])
    assert (asked.scenario, asked.idle_seconds) == (["idle", "storm"], 5)
    assert (asked.operator_argument, asked.record) == (["--resync=9"], True)


def test_the_floor_goes_through_all_stages_unless_one_is_named() -> None:
    asked = read("Measure.", "results", ["--floor", "5"])
    assert (asked.floor, asked.batch, asked.until) == (5, 1_000, "released")
    asked = read("Measure.", "results", ["--floor", "5", "--batch", "2", "--until", "created", "--json"])
    assert (asked.batch, asked.until, asked.json) == (2, "created", True)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "a while"])
def test_an_operator_is_left_alone_for_some_time_or_not_at_all(
    capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    said = refusal(capsys, "--machines", "1", f"--idle-seconds={seconds}")
    assert said.endswith("argument --idle-seconds: must be a number of seconds, more than 0")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--idle-seconds", "5"),
        ("--operator-argument", "--resync=9"),
        ("--name", "other"),
        ("--scenario", "idle"),
        ("--record", None),
    ],
)
def test_what_the_floor_has_no_use_for_is_not_silently_ignored(
    capsys: pytest.CaptureFixture[str], option: str, value: str | None
) -> None:
    given = [option] if value is None else [f"{option}={value}"]
    said = refusal(capsys, "--floor", "5", *given)
    assert said.endswith(f"--floor takes --batch, --until and --json, and has no use for {option}")


def test_what_a_fleet_has_no_use_for_is_not_either(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "--machines", "5", "--batch", "2", "--until", "created")
    assert said.endswith("only --floor takes --batch, --until")


@pytest.mark.parametrize("option", ["--machines", "--floor", "--batch"])
@pytest.mark.parametrize("number", ["0", "-3", "1.5", "many"])
def test_there_is_a_whole_number_of_machines(capsys: pytest.CaptureFixture[str], option: str, number: str) -> None:
    others = ["--floor", "1"] if option == "--batch" else []
    assert refusal(capsys, *others, f"{option}={number}").endswith(f"argument {option}: must be a number, 1 or more")


def test_a_scenario_that_there_isnt_is_answered_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "--machines", "1", "--scenario", "nonsense")
    assert "nonsense" in said
    assert all(name in said for name in SCENARIOS)


def test_the_command_says_what_there_is_and_refuses_without_a_traceback() -> None:
    def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "hack/bench", *arguments]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    helped = bench("--help")
    assert helped.returncode == 0
    assert ", ".join(SCENARIOS) in " ".join(helped.stdout.split())
    refused = bench("--machines", "1", "--idle-seconds", "0")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        "hack/bench: error: argument --idle-seconds: must be a number of seconds, more than 0"
    )
