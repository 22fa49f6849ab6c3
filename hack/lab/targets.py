"""What the bench is held to: Metal3's baremetal-operator measured on the same kind of machine, and our own aims.

Its figures are for its fixture provisioner, which answers at once as `simulated://fast` does, client limits off, from
creation to `available`, on 2 cores with API server and etcd beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from lab.bench_options import IDLE_SECONDS
from lab.measured import Figures
from lab.scenarios import SLOWER

_KIB, _MB = 2**10, 10**6
_FEW, _MANY = 1_000, 10_000
"""Sizes between which memory grows."""
Scenarios = Mapping[str, Figures]
Results = Mapping[int, Scenarios]
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


TARGETS = (
    Target("created", "wall", lambda f: f.wall, 20, "s", _FEW, "202 s"),
    Target("created", "operator's processor time", lambda f: f.operator, 12, "s", _FEW, "44 s"),
    Target("created", "API requests a machine", lambda f: f.requests_per_machine, 7, "", None, "18.7"),
    Target("created", "wall", lambda f: f.wall, 240, "s", _MANY, "not run"),
    Target("created", "operator's processor time", lambda f: f.operator, 120, "s", _MANY, "not run"),
    Target("deployed", "API requests a machine", lambda f: f.requests_per_machine, 8, ""),
    Target("idle", "of a core", _further("percent of a core"), 3, "%", _MANY, "a reconcile per host and minute"),
    Target("idle", "writes", lambda f: f.writes, 0, ""),
    Target("restarted", "all looked at", lambda f: f.wall, 12, "s", _MANY),
    Target("restarted", "writes", lambda f: f.writes, 0, ""),
    Target("wished", "change → acted and shown, 99 %", _further("milliseconds to act, 99 %"), 150, "ms", _MANY),
    Target("storm", "the others slower by", _further(SLOWER), 10, "%"),
)


def verdicts(results: Results, kept: Results) -> Iterator[Verdict]:
    """Every target that something was measured for; `kept` is what was recorded before, where that is needed too."""
    for machines, scenarios in sorted(results.items()):
        for target in TARGETS:
            figures = scenarios.get(target.scenario)
            if figures is None or target.machines not in (None, machines):
                continue
            if (here := target.of(figures)) is not None:
                yield Verdict(_over_what_time(target, figures), machines, here)
    if _MANY in results:
        yield from _memory(results[_MANY], results.get(_FEW), kept.get(_FEW, {}))


def _over_what_time(target: Target, figures: Figures) -> Target:
    """How little happens in a shorter time than is asked for says less."""
    if target.scenario != "idle" or figures.wall >= IDLE_SECONDS:
        return target
    return replace(target, figure=f"{target.figure}, over {figures.wall:.0f} s only")


def _memory(many: Scenarios, few: Scenarios | None, recorded: Scenarios) -> Iterator[Verdict]:
    """The most of all scenarios, whichever that was; what a machine adds, in those that both sizes went through."""
    peaks, less = _peaks(many), _peaks(recorded if few is None else few)
    if not peaks:
        return
    highest = max(peaks, key=peaks.__getitem__)
    most = Target(highest, "operator's peak memory", lambda _: None, 400, "MB", _MANY, "102 MB at 1,000, created")
    yield Verdict(most, _MANY, peaks[highest] / _MB)
    if both := {name: peak for name, peak in peaks.items() if name in less}:
        highest = max(both, key=both.__getitem__)
        whence = " that are recorded" if few is None else ""
        growth = Target(highest, f"memory a machine beyond the first 1,000{whence}", lambda _: None, 30, "KiB", _MANY)
        more = both[highest] - max(less[name] for name in both)
        yield Verdict(growth, _MANY, more / (_MANY - _FEW) / _KIB)


def _peaks(scenarios: Scenarios) -> dict[str, int]:
    return {name: figures.peak for name, figures in scenarios.items() if figures.peak is not None}
