"""What the bench keeps of what it measured, from one run to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.measured import Figures
from lab.paths import REPOSITORY
from lab.records import keep, recorded

HOST = {"cores": 2, "processor": "one"}


def measured(commit: str, *scenarios: str, host: dict[str, Any] = HOST, wall: float = 1.0) -> dict[str, Any]:
    """A run with a hundred machines."""
    return {
        "when": "2026-11-26",
        "commit": commit,
        "host": host,
        "machines": {"100": {name: {"machines": 100, "wall": wall} for name in scenarios}},
        "targets": [{"machines": "100", "scenario": name} for name in scenarios],
    }


def kept(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "100.json").read_text())
    return found


def told(folder: Path) -> dict[str, tuple[str, float]]:
    """Of each scenario in order, at which commit it was measured, and its wall time."""
    return {name: (it["commit"], it["wall"]) for name, it in kept(folder)["scenarios"].items()}


def test_what_is_measured_anew_takes_its_place_and_the_rest_stays(tmp_path: Path) -> None:
    keep(measured("first", "created", "idle", "deployed"), ["created", "idle", "deployed"], tmp_path)
    keep(measured("second", "created", "idle", "storm", wall=2.0), ["idle", "storm"], tmp_path)
    assert list(told(tmp_path).items()) == [
        ("created", ("first", 1.0)),  # the second run needed it, and wasn't asked for it
        ("idle", ("second", 2.0)),
        ("deployed", ("first", 1.0)),
        ("storm", ("second", 2.0)),
    ]


def test_what_is_needed_is_kept_where_nothing_else_is_known_of_it(tmp_path: Path) -> None:
    keep(measured("first", "created", "storm"), ["storm"], tmp_path / "new")
    assert list(told(tmp_path / "new")) == ["created", "storm"]


def test_figures_of_another_host_go(tmp_path: Path) -> None:
    keep(measured("first", "created", "idle"), ["created", "idle"], tmp_path)
    keep(measured("second", "created", host={**HOST, "processor": "another"}), ["created"], tmp_path)
    assert told(tmp_path) == {"created": ("second", 1.0)}


def test_what_was_thought_of_figures_is_not_kept_but_thought_anew(tmp_path: Path) -> None:
    keep(measured("first", "created"), ["created"], tmp_path)
    assert "targets" not in kept(tmp_path)
    assert recorded(tmp_path) == {100: {"created": Figures(100, wall=1.0)}}
    assert recorded(tmp_path / "nowhere") == {}


def test_all_that_was_ever_recorded_can_be_read() -> None:
    found = recorded(REPOSITORY / "hack/bench.d/results")
    assert list(found) == sorted(found)
    assert all(figures.wall > 0 for scenarios in found.values() for figures in scenarios.values())
