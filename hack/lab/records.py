"""What the bench keeps: a file for each size of fleet, and in it each scenario with its day and its commit."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lab.bench_options import SCENARIOS

JSON = Mapping[str, Any]


def keep(document: JSON, asked: Collection[str], folder: Path) -> None:
    """Write what was measured (`report.described`) into the files of its sizes.

    A scenario that was `asked` for takes the place of what is kept of it; one that was merely needed for that doesn't.
    Figures of another host go, for they can't be compared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whence = {"when": document["when"], "commit": document["commit"]}
    for count, scenarios in document["machines"].items():
        file = folder / f"{count}.json"
        before = _kept(file, document["host"])
        fresh = {name for name in scenarios if name in asked or name not in before["scenarios"]}
        measured = [row for row in document["targets"] if row["machines"] == count and row["scenario"] in fresh]
        others = [row for row in before["targets"] if row["scenario"] not in fresh]
        known = {**before["scenarios"], **{name: {**whence, **scenarios[name]} for name in fresh}}
        kept = {
            "host": document["host"],
            "machines": count,
            "targets": sorted([*others, *measured], key=lambda row: SCENARIOS.index(row["scenario"])),
            "scenarios": {name: known[name] for name in SCENARIOS if name in known},
        }
        file.write_text(json.dumps(kept, indent=2) + "\n")


def _kept(file: Path, host: JSON) -> JSON:
    it: JSON = json.loads(file.read_text()) if file.exists() else {}
    return it if it.get("host") == host else {"targets": [], "scenarios": {}}
