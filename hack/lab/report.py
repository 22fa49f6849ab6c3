"""What the bench found, for people and for programs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from lab import usage
from lab.measured import Figures
from lab.paths import REPOSITORY
from lab.targets import HEADINGS, Results, Verdict

LEAST_SHOWN = 0.005
"""Requests a machine: fewer would be shown as 0.00."""


def described(results: Results, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """All of it, for programs: counts are of all machines together, null is what wasn't measured."""
    commit = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    columns = ("machines", "scenario", "figure", "here", "target", "verdict", "baremetal-operator")
    return {
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit.stdout.strip(),
        "host": usage.host(),
        "machines": {
            str(count): {name: asdict(figures) for name, figures in scenarios.items()}
            for count, scenarios in results.items()
        },
        "targets": [dict(zip(columns, verdict.row(), strict=True)) for verdict in verdicts],
    }


def table(results: Results, verdicts: Sequence[Verdict]) -> str:
    """For people: every figure, then the targets."""
    lines = []
    for count, scenarios in results.items():
        lines.append(f"\n{count} machines")
        for name, figures in scenarios.items():
            lines += _told(name, figures)
    rows = [HEADINGS, *(verdict.row() for verdict in verdicts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines += [
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
        *_reached(results, verdicts),
    ]
    return "\n".join(lines)


def _told(name: str, it: Figures) -> Iterator[str]:
    operator, peak, requests = (
        "—" if value is None else form.format(value)
        for value, form in (
            (it.operator, "{:.1f} s"),
            (None if it.peak is None else it.peak / 10**6, "{:.0f} MB"),
            (it.requests_per_machine, "{:.2f}"),
        )
    )
    later = "" if it.quiet is None else f", quiet after {it.quiet:.1f} s"
    yield (
        f"  {name:10} {it.wall:7.1f} s{later}; operator {operator}, {peak}; API server {it.server:.1f} s;"
        f" {requests} requests a machine"
    )
    for what, count in (it.requests or {}).items():
        if (each := count / it.machines) >= LEAST_SHOWN:
            yield f"      {each:.2f} {what}"
        else:
            yield f"      {count} {what}, of all machines together"
    for what, value in it.further.items():
        yield f"      {value:.3g} {what}"


def _reached(results: Results, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Beside a wall time that is missed: what a client took that decides nothing."""
    for verdict in verdicts:
        bare = results[verdict.machines].get("bare")
        of_what = (verdict.target.scenario, verdict.target.figure)
        if bare is not None and not verdict.met and of_what == ("created", "wall"):
            took = f"{bare.wall:.0f} s for as many requests"
            yield f"{verdict.machines} machines: a client that decides nothing took {took}"
