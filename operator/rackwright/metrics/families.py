"""Every family of series that the operator serves, with the values that its labels can have.

Names follow Prometheus's conventions (https://prometheus.io/docs/practices/naming/): base units, the unit as a suffix,
`_total` for what only grows. `hack/generate` writes the documentation's table from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import prod

from rackwright.api.conditions import ConditionType
from rackwright.api.crd import KINDS
from rackwright.api.machine import OperationName, Phase
from rackwright.census import PHASES
from rackwright.installs import Installations
from rackwright.power.connect import DRIVERS
from rackwright.power.port import FaultClass
from rackwright.power.traffic import Exchanges

MOST = 3000
"""Series that there can be at the very most, whatever happens and however many machines there are."""
REASONS = 64
"""Failures' reasons that are told apart: words of ours, of which there are fewer. What comes beyond is `OTHER`."""
OTHER = "Other"

_MINUTE, _HOUR = 60.0, 3600.0
PHASE_BUCKETS = (
    10.0, 30.0, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 20 * _MINUTE, 30 * _MINUTE, _HOUR, 2 * _HOUR,
    4 * _HOUR, 8 * _HOUR, 24 * _HOUR, 168 * _HOUR,
)  # fmt: skip
"""A boot takes minutes, an erase hours, a deployment lasts for weeks."""
CALL_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""A BMC answers in a second or ten; to switch off waits for an operating system that shuts down."""
PASS_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""A pass at rest takes a millisecond; one that acts waits for the BMC."""
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
NEWS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Kind(StrEnum):
    """What Prometheus takes a family for."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Outcome(StrEnum):
    """What became of a machine that nobody declared."""

    ENLISTED = "enlisted"
    RECOGNISED = "recognised"
    """It has a record."""
    FULL = "full"
    """As many as may wait for acceptance were waiting; counted when it asks what to boot, too."""
    FAILED = "failed"
    """Its record or inventory could not be written; it reports again."""


class Result(StrEnum):
    """How a pass over one machine ended."""

    DONE = "done"
    CONFLICT = "conflict"
    """Somebody else wrote first; it is read again."""
    CLUSTER_ERROR = "cluster_error"
    """The API server didn't do what it was asked."""
    INTERNAL_ERROR = "internal_error"
    """A defect of ours."""


@dataclass(frozen=True, slots=True)
class Family:
    """Series of one name: what they say, and what tells them apart."""

    name: str
    kind: Kind
    says: str
    labels: Mapping[str, tuple[str, ...] | int] = field(default_factory=dict)
    """Each with all values that it can have, or with how many."""
    buckets: tuple[float, ...] = ()
    """A histogram's upper bounds, without infinity."""

    @property
    def most(self) -> int:
        """How many series it can be."""
        each = len(self.buckets) + 3 if self.kind is Kind.HISTOGRAM else 1
        return each * prod(values if isinstance(values, int) else len(values) for values in self.labels.values())


CALLS = (
    "power_state",
    "power_on",
    "ask_to_shut_down",
    "power_off",
    "cycle",
    "set_boot",
    "bios_attributes",
    "set_bios_attributes",
)
CODES = ("200", "201", "400", "401", "403", "404", "409", "410", "422", "429", "500", "502", "503", "504")
NO_ANSWER = "none"
VERBS = ("apply", "create", "delete", "get", "list", "patch", "update", "watch")
RESOURCES = (*(kind.plural for kind in KINDS), "baremetalmachines/status", "secrets", "events", "leases")
ELSEWHERE = "other"
_DRIVER = {"driver": tuple(sorted({scheme.partition("+")[0] for scheme in DRIVERS}))}
_PHASE = {"phase": PHASES}
_OPERATION = {"operation": tuple(OperationName)}

MACHINES = Family(
    "rackwright_machines",
    Kind.GAUGE,
    "Machines by phase; Undecided: without a status yet; Unreadable: with values that this version doesn't know.",
    _PHASE,
)
OVERDUE = Family(
    "rackwright_machines_overdue",
    Kind.GAUGE,
    "Machines that have been in their phase for longer than expected; in Deploying, since their turn to install.",
    {"phase": tuple(Phase)},
)
EXPECTED = Family(
    "rackwright_phase_expected_seconds",
    Kind.GAUGE,
    "How long a machine is expected to be in a phase (--expected-time); absent where it may stay.",
    {"phase": tuple(Phase)},
)
CONDITIONS = Family(
    "rackwright_machine_conditions",
    Kind.GAUGE,
    "Machines by condition and how it stands.",
    {"condition": tuple(ConditionType), "status": ("True", "False", "Unknown")},
)
NEW = Family("rackwright_new_machines", Kind.GAUGE, "Machines that wait for somebody to accept them.")
ENLISTMENTS = Family(
    "rackwright_enlistments_total",
    Kind.COUNTER,
    "Machines that nobody declared and that booted from the network, by what became of them.",
    {"outcome": tuple(Outcome)},
)
PHASE_DURATION = Family(
    "rackwright_phase_duration_seconds",
    Kind.HISTOGRAM,
    "How long machines were in a phase, counted when they leave it; in Deploying, the wait for their turn included.",
    {"phase": tuple(Phase)},
    PHASE_BUCKETS,
)
OPERATIONS = Family(
    "rackwright_operations_total",
    Kind.COUNTER,
    "Operations that ended: they succeeded, failed for good, or were abandoned because spec changed.",
    {**_OPERATION, "outcome": ("Succeeded", "Failed", "Abandoned")},
)
FAILED_ATTEMPTS = Family(
    "rackwright_failed_attempts_total",
    Kind.COUNTER,
    "Attempts at an operation that failed, by the failure's reason; last: the operation failed with it.",
    {**_OPERATION, "reason": REASONS + 1, "last": ("true", "false")},
)
INSTALLATIONS = Family(
    "rackwright_installations",
    Kind.GAUGE,
    "Installations until their image is written, and those that wait for a slot; both 0 where there is no limit.",
    {"state": Installations._fields},
)
BMC_DURATION = Family(
    "rackwright_bmc_call_duration_seconds",
    Kind.HISTOGRAM,
    "How long a BMC took to do what it was asked, without the wait for its turn, whether it did or not.",
    {**_DRIVER, "call": CALLS},
    CALL_BUCKETS,
)
BMC_ERRORS = Family(
    "rackwright_bmc_errors_total",
    Kind.COUNTER,
    "Calls that a BMC did not do, by whose fault it was.",
    {**_DRIVER, "fault": tuple(FaultClass)},
)
EXCHANGES = Family(
    "rackwright_bmc_exchanges",
    Kind.GAUGE,
    "Exchanges with BMCs: with one of --bmc-concurrency places, aside because they hang, waiting for a place.",
    {"state": Exchanges._fields},
)
QUEUE = Family("rackwright_queue_depth", Kind.GAUGE, "Machines that are to be looked at and wait for a worker.")
WORKERS = Family("rackwright_workers", Kind.GAUGE, "Workers: as many machines can be looked at at once.")
BUSY = Family("rackwright_workers_busy", Kind.GAUGE, "Workers that are with a machine now.")
WAITING = Family(
    "rackwright_passes_waiting",
    Kind.GAUGE,
    "Passes over a machine that go on without a worker: they wait for a BMC, or for a system that shuts down.",
)
RECONCILE = Family(
    "rackwright_reconcile_duration_seconds",
    Kind.HISTOGRAM,
    "How long a pass over one machine took, by how it ended.",
    {"result": tuple(Result)},
    PASS_BUCKETS,
)
REACTION = Family(
    "rackwright_spec_reaction_seconds",
    Kind.HISTOGRAM,
    "From the arrival of a new generation of spec to the first decision on it that was recorded or carried out.",
    buckets=NEWS_BUCKETS,
)
WATCH_LAG = Family(
    "rackwright_watch_lag_seconds",
    Kind.HISTOGRAM,
    "From the API server's answer to a write of the operator's until its own watch told of it.",
    buckets=NEWS_BUCKETS,
)
UNHEARD = Family(
    "rackwright_watch_unheard_seconds",
    Kind.GAUGE,
    "Age of the operator's oldest write that neither its watch nor a listing has told of; 0 if there is none.",
)
REQUESTS = Family(
    "rackwright_api_requests_total",
    Kind.COUNTER,
    "Requests to the API server by the status code of the answer, kopf's watches aside; none: there was no answer.",
    {"verb": VERBS, "resource": (*RESOURCES, ELSEWHERE), "code": (*CODES, ELSEWHERE, NO_ANSWER)},
)
REQUEST_DURATION = Family(
    "rackwright_api_request_duration_seconds",
    Kind.HISTOGRAM,
    "How long the API server took to begin its answer.",
    {"verb": VERBS},
    REQUEST_BUCKETS,
)
BUILD = Family("rackwright_build_info", Kind.GAUGE, "1, with the version of this operator.", {"version": 1})
LEADER = Family("rackwright_leader", Kind.GAUGE, "1 if this operator may act on any machine, 0 if it stands by.")
SHARDS = Family("rackwright_shards", Kind.GAUGE, "Shards of the fleet, as this operator was told; 1 where it is whole.")
HELD = Family("rackwright_shards_held", Kind.GAUGE, "Shards whose machines this operator may act on.")

FAMILIES = (
    MACHINES, OVERDUE, EXPECTED, CONDITIONS, NEW, ENLISTMENTS, PHASE_DURATION, OPERATIONS, FAILED_ATTEMPTS,
    INSTALLATIONS, BMC_DURATION, BMC_ERRORS, EXCHANGES, QUEUE, WORKERS, BUSY, WAITING, RECONCILE, REACTION, WATCH_LAG,
    UNHEARD, REQUESTS, REQUEST_DURATION, BUILD, LEADER, SHARDS, HELD,
)  # fmt: skip
"""All of them; what Prometheus's library tells of any process, `process_*`, comes on top."""


def table() -> str:
    """All families as the documentation has them."""
    lines = [f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {each.says} |" for each in FAMILIES]
    return "\n".join(["| series | kind | labels | what |", "|---|---|---|---|", *lines])
