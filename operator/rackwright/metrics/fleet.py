"""The fleet in numbers, and what waits in it, read when Prometheus asks: as many reads as there are series."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from rackwright.census import Census
from rackwright.installs import Installations
from rackwright.metrics.families import (
    CONDITIONS,
    EXCHANGES,
    EXPECTED,
    INSTALLATIONS,
    MACHINES,
    NEW,
    OVERDUE,
    Family,
)
from rackwright.power.traffic import Exchanges


class Fleet(Collector):
    """What Prometheus's library asks for the machines' numbers."""

    def __init__(
        self,
        census: Census,
        new_machines: Callable[[], int],
        installations: Callable[[], Installations],
        exchanges: Callable[[], Exchanges],
    ) -> None:
        """`new_machines` tells how many wait for acceptance."""
        self._census = census
        self._new_machines = new_machines
        self._installations = installations
        self._exchanges = exchanges

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Every series, those at zero included: an alert needs the zero before the one."""
        census, overdue = self._census, self._census.overdue()
        yield _gauges(MACHINES, (((phase,), census.phases[phase]) for phase in _values(MACHINES, "phase")))
        yield _gauges(OVERDUE, (((phase,), overdue[phase]) for phase in census.expected))
        expected = ((phase, time.total_seconds()) for phase, time in census.expected.items())
        yield _gauges(EXPECTED, (((phase,), seconds) for phase, seconds in expected))
        standing = (
            (kind, status) for kind in _values(CONDITIONS, "condition") for status in _values(CONDITIONS, "status")
        )
        yield _gauges(CONDITIONS, ((both, census.conditions[both]) for both in standing))
        yield _gauges(NEW, [((), self._new_machines())])
        yield _by_state(INSTALLATIONS, self._installations())
        yield _by_state(EXCHANGES, self._exchanges())


def _gauges(family: Family, samples: Iterable[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
    gauges = GaugeMetricFamily(family.name, family.says, labels=tuple(family.labels))
    for labels, value in samples:
        gauges.add_metric(labels, value)
    return gauges


def _by_state(family: Family, counts: Iterable[int]) -> GaugeMetricFamily:
    return _gauges(family, (((state,), count) for state, count in zip(_values(family, "state"), counts, strict=True)))


def _values(family: Family, label: str) -> tuple[str, ...]:
    values = family.labels[label]
    assert not isinstance(values, int)  # noqa: S101 (a family of the table whose values are listed)
    return values
