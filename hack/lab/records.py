"""What the bench keeps: a file for each size of fleet, and in it each scenario with its day and its commit.

Figures are kept, not what was thought of them: they are held to today's targets whenever they are told.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lab.bench_options import SCENARIOS
from lab.measured import Figures

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
        known = {**before["scenarios"], **{name: {**whence, **scenarios[name]} for name in fresh}}
        kept = {
            "host": document["host"],
            "machines": count,
            "scenarios": {name: known[name] for name in SCENARIOS if name in known},
        }
        file.write_text(json.dumps(kept, indent=2) + "\n")


def _kept(file: Path, host: JSON) -> JSON:
    it: JSON = json.loads(file.read_text()) if file.exists() else {}
    return it if it.get("host") == host else {"scenarios": {}}


def recorded(folder: Path) -> dict[int, dict[str, Figures]]:
    """All that is kept, by size of fleet and scenario."""
    files = sorted((json.loads(file.read_text()) for file in folder.glob("*.json")), key=lambda it: int(it["machines"]))
    return {int(it["machines"]): {name: _figures(of) for name, of in it["scenarios"].items()} for it in files}


def _figures(kept: JSON) -> Figures:
    """Without their day and commit; those of an earlier bench may lack some."""
    known = {each.name for each in fields(Figures)}
    return Figures(**{name: value for name, value in kept.items() if name in known})
