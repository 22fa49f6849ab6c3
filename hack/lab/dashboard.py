"""The Grafana dashboard, written down as what it shows: `hack/generate` makes the JSON that Grafana imports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8
"""Of Grafana's grid, in columns; of a panel, in rows."""


@dataclass(frozen=True)
class Query:
    """A line, or several, in a panel."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One graph."""

    title: str
    says: str
    queries: Sequence[Query]
    unit: str = "short"
    stacked: bool = False


def _quantile(share: float, histogram: str, *by: str, over: str = "$__rate_interval") -> str:
    labels = ", ".join(("le", *by))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket[{over}])))"


def _spread(histogram: str) -> list[Query]:
    return [Query(_quantile(share, histogram), f"{share:.0%}") for share in (0.5, 0.95, 0.99)]


ROWS: dict[str, Sequence[Panel]] = {
    "Machines": (
        Panel(
            "Machines by phase",
            "Undecided: declared, and not looked at yet. Unreadable: left alone, its record can't be read.",
            [Query("max by (phase) (rackwright_machines)", "{{phase}}")],
            stacked=True,
        ),
        Panel(
            "Overdue",
            "In their phase for longer than --expected-time says: stuck, or slower than usual.",
            [Query("max by (phase) (rackwright_machines_overdue)", "{{phase}}")],
            stacked=True,
        ),
        Panel(
            "In need of somebody",
            "Stalled machines say why in their condition; new ones wait to be accepted.",
            [
                Query('max(rackwright_machine_conditions{condition="Stalled",status="True"})', "stalled"),
                Query('max(rackwright_machine_conditions{condition="BMCReachable",status="False"})', "BMC unreachable"),
                Query("max(rackwright_new_machines)", "to be accepted"),
            ],
        ),
    ),
    "Operations": (
        Panel(
            "Time in phase, 95 % of those that left it within the hour, and what is expected",
            "Counted when a machine leaves the phase. Deploying's has the wait for a turn to install; what is expected "
            "of it hasn't.",
            [
                Query(_quantile(0.95, "rackwright_phase_duration_seconds", "phase", over="1h"), "{{phase}}"),
                Query("max by (phase) (rackwright_phase_expected_seconds)", "{{phase}} expected"),
            ],
            unit="s",
        ),
        Panel(
            "Operations that ended, per hour",
            "Abandoned: spec changed before they were through.",
            [
                Query(
                    "sum by (operation, outcome) (increase(rackwright_operations_total[1h]))",
                    "{{operation}} {{outcome}}",
                )
            ],
            stacked=True,
        ),
        Panel(
            "Failed attempts since the operator started, by reason",
            "What many have in common is seldom a machine's own fault.",
            [Query("sum by (operation, reason) (rackwright_failed_attempts_total)", "{{operation}}: {{reason}}")],
        ),
        Panel(
            "Installations",
            "Until the image is written: as many as --max-concurrent-deployments allows at once, and who waits for it.",
            [Query("max by (state) (rackwright_installations)", "{{state}}")],
            stacked=True,
        ),
        Panel(
            "Machines that nobody declared, per hour",
            "What became of them when they booted from the network.",
            [Query("sum by (outcome) (increase(rackwright_enlistments_total[1h]))", "{{outcome}}")],
        ),
    ),
    "BMCs": (
        Panel(
            "Answers of BMCs, 95 %",
            "Without the wait for its turn; to switch off waits for an operating system that shuts down.",
            [Query(_quantile(0.95, "rackwright_bmc_call_duration_seconds", "driver", "call"), "{{driver}} {{call}}")],
            unit="s",
        ),
        Panel(
            "Calls to BMCs",
            "By driver.",
            [
                Query(
                    "sum by (driver) (rate(rackwright_bmc_call_duration_seconds_count[$__rate_interval]))", "{{driver}}"
                )
            ],
            unit="reqps",
        ),
        Panel(
            "Errors of BMCs",
            "By whose fault it was.",
            [
                Query(
                    "sum by (driver, fault) (rate(rackwright_bmc_errors_total[$__rate_interval]))",
                    "{{driver}} {{fault}}",
                )
            ],
            unit="reqps",
        ),
        Panel(
            "Exchanges with BMCs",
            "As many as --bmc-concurrency are under way in each operator; those that hang go on aside. "
            "Where many wait for minutes, idle machines are looked at late: allow more at once.",
            [Query("sum by (state) (rackwright_bmc_exchanges)", "{{state}}")],
        ),
    ),
    "Operator": (
        Panel(
            "Queue and workers",
            "Saturated when all are busy and machines wait.",
            [
                Query("sum(rackwright_queue_depth)", "waiting"),
                Query("sum(rackwright_workers_busy)", "busy workers"),
                Query("sum(rackwright_workers)", "workers"),
            ],
        ),
        Panel(
            "Passes without a worker",
            "They wait for a BMC, or for a system that shuts down, and keep nobody from work.",
            [Query("sum(rackwright_passes_waiting)", "passes")],
        ),
        Panel(
            "From a new spec to the first thing done about it",
            "From its arrival in the watch.",
            _spread("rackwright_spec_reaction_seconds"),
            unit="s",
        ),
        Panel(
            "Watch lag",
            "From a write of the operator's until its own watch tells of it.",
            [
                *_spread("rackwright_watch_lag_seconds"),
                Query("max(rackwright_watch_unheard_seconds)", "oldest not heard of"),
            ],
            unit="s",
        ),
        Panel(
            "Passes over a machine, 95 %",
            "By how they ended. One that acts waits for the BMC.",
            [Query(_quantile(0.95, "rackwright_reconcile_duration_seconds", "result"), "{{result}}")],
            unit="s",
        ),
        Panel(
            "Passes",
            "By how they ended; an internal error is a defect.",
            [
                Query(
                    "sum by (result) (rate(rackwright_reconcile_duration_seconds_count[$__rate_interval]))",
                    "{{result}}",
                )
            ],
            unit="ops",
        ),
        Panel(
            "Requests to the API server",
            "By verb and resource; watches when they begin.",
            [
                Query(
                    "sum by (verb, resource) (rate(rackwright_api_requests_total[$__rate_interval]))",
                    "{{verb}} {{resource}}",
                )
            ],
            unit="reqps",
        ),
        Panel(
            "Answers of the API server",
            "None: there was no answer.",
            [Query("sum by (code) (rate(rackwright_api_requests_total[$__rate_interval]))", "{{code}}")],
            unit="reqps",
        ),
        Panel(
            "Answers of the API server, 95 %",
            "Until the answer begins.",
            [Query(_quantile(0.95, "rackwright_api_request_duration_seconds", "verb"), "{{verb}}")],
            unit="s",
        ),
        Panel(
            "Shards that each operator holds",
            "It acts on their machines. Without shards the fleet is one, and whoever leads holds it.",
            [
                Query("rackwright_shards_held", "{{instance}}"),
                Query("max(rackwright_shards)", "shards"),
            ],
        ),
        Panel(
            "Memory",
            "Resident, of each operator, with its version.",
            [
                Query(
                    "process_resident_memory_bytes * on (instance, job) group_left (version) rackwright_build_info",
                    "{{instance}} {{version}}",
                )
            ],
            unit="bytes",
        ),
        Panel(
            "CPU",
            "Cores that each operator uses; it has one thread that matters, so 1 is the most.",
            [
                Query(
                    "rate(process_cpu_seconds_total[$__rate_interval]) * on (instance, job) rackwright_build_info",
                    "{{instance}}",
                )
            ],
        ),
    ),
}


def queries() -> list[str]:
    """Every expression of the dashboard."""
    return [query.expression for panels in ROWS.values() for panel in panels for query in panel.queries]


def dashboard() -> dict[str, Any]:
    """As Grafana imports it, from version 10 on."""
    return {
        "uid": "rackwright",
        "title": "Rackwright",
        "tags": ["rackwright"],
        "timezone": "browser",
        "schemaVersion": 38,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    """Rows with three panels beside each other."""
    numbers, top, across = count(1), 0, WIDTH // 3
    for title, panels in ROWS.items():
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        yield {"id": next(numbers), "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": place}
        top += 1
        for index, panel in enumerate(panels):
            place = {"x": index % 3 * across, "y": top + index // 3 * HEIGHT, "w": across, "h": HEIGHT}
            yield {"id": next(numbers), "gridPos": place, **_graph(panel)}
        top += -(-len(panels) // 3) * HEIGHT


def _graph(panel: Panel) -> dict[str, Any]:
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {"stacking": stacking, "fillOpacity": 20 if panel.stacked else 0, "showPoints": "never"},
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
            }
            for number, query in enumerate(panel.queries)
        ],
    }
