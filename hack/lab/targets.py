"""What the bench is held to: Metal3's baremetal-operator measured on the same kind of machine, and our own aims.

Its figures are for its fixture provisioner, which answers at once as `simulated://fast` does, client limits off, from
creation to `available`, on 2 cores with API server and etcd beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.measured import Figures

_KIB, _MIB = 2**10, 2**20
_FEW, _MANY = 1_000, 10_000
"""Sizes between which memory grows."""
Results = Mapping[int, Mapping[str, Figures]]
"""By number of machines and scenario."""


@dataclass(frozen=True)
class Target:
    """The most that a figure may be."""

    scenario: str
    figure: str
    of: Callable[[Figures], float | None]
    most: float
    unit: str
    machines: int | None = None
    """For this size of fleet; None: for every one."""
    metal3: str = ""
    """What baremetal-operator took."""


@dataclass(frozen=True)
class Verdict:
    """A figure beside its target."""

    target: Target
    machines: int
    here: float

    @property
    def met(self) -> bool:
        """Whether it is as low as it is to be."""
        return self.here <= self.target.most

    def row(self) -> tuple[str, ...]:
        """For a table."""
        target, unit = self.target, self.target.unit
        verdict = "met" if self.met else "MISSED"
        here, most = (f"{value:.3g} {unit}".strip() for value in (self.here, target.most))
        return str(self.machines), target.scenario, target.figure, here, f"≤ {most}", verdict, target.metal3


HEADINGS = ("machines", "scenario", "figure", "here", "target", "", "baremetal-operator")


def _further(name: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.further.get(name)


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


TARGETS = (
    Target("created", "wall", lambda f: f.wall, 20, "s", _FEW, "202 s"),
    Target("created", "operator's processor time", lambda f: f.operator, 12, "s", _FEW, "44 s"),
    Target("created", "API requests a machine", lambda f: f.requests_per_machine, 7, "", None, "18.7"),
    Target("created", "wall", lambda f: f.wall, 240, "s", _MANY, "not run"),
    Target("created", "operator's processor time", lambda f: f.operator, 120, "s", _MANY, "not run"),
    Target("created", "operator's peak memory", lambda f: _over(f.peak, _MIB), 400, "MiB", _MANY, "102 MB at 1,000"),
    Target("deployed", "API requests a machine", lambda f: f.requests_per_machine, 8, ""),
    Target("idle", "of a core", _further("percent of a core"), 3, "%", _MANY, "a reconcile per host and minute"),
    Target("idle", "writes", lambda f: f.writes, 0, ""),
    Target("restarted", "all looked at", lambda f: f.wall, 12, "s", _MANY),
    Target("restarted", "writes", lambda f: f.writes, 0, ""),
    Target("wished", "change → acted and shown, 99 %", _further("milliseconds to act, 99 %"), 150, "ms", _MANY),
    Target("storm", "the others slower by", _further("percent slower than without"), 10, "%"),
)


def verdicts(results: Results, kept: Path) -> Iterator[Verdict]:
    """Every target that something was measured for; `kept` is the file of what was recorded of 1,000 machines."""
    for machines, scenarios in sorted(results.items()):
        for target in TARGETS:
            figures = scenarios.get(target.scenario)
            if figures is None or target.machines not in (None, machines):
                continue
            if (here := target.of(figures)) is not None:
                yield Verdict(target, machines, here)
    if _MANY in results and (first := _peak_of_few(results, kept)) is not None:
        (less, whence), most = first, results[_MANY]["created"].peak
        growth = Target("created", f"memory a machine beyond the first 1,000{whence}", lambda _: None, 30, "KiB")
        if most is not None:
            yield Verdict(growth, _MANY, (most - less) / (_MANY - _FEW) / _KIB)


def _peak_of_few(results: Results, kept: Path) -> tuple[int, str] | None:
    """The operator's memory with 1,000 machines, and where that is from if it wasn't measured now."""
    if _FEW in results:
        peak = results[_FEW]["created"].peak
        return None if peak is None else (peak, "")
    if not kept.exists():
        return None
    it = json.loads(kept.read_text())["scenarios"]["created"]
    return int(it["peak"]), f", which were measured on {it['when']} at {it['commit']}"
