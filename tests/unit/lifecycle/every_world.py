"""Many worlds of every kind, for what has to hold of all of them: that a row applies, that each row does somewhere.

They are drawn by a seeded generator from what each part of a world can be, impossible statuses left out; torn ones,
which only an older operator or a careless hand could leave, are drawn separately.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

from tests.property.admission import Refused
from tests.property.rig import HARDWARE
from tests.unit.lifecycle.test_release import erased
from tests.unit.lifecycle.worlds import (
    CHECKSUM,
    NOW,
    OPERATIONS,
    STAGES,
    Impossible,
    attempt,
    declared,
    ended,
    failure,
    installed,
    recorded,
)

from rackwright.api.conditions import Condition, ConditionType
from rackwright.api.machine import (
    BareMetalMachineSpec,
    BareMetalMachineStatus,
    OperationName,
    Phase,
    Power,
    ReadinessGate,
)
from rackwright.lifecycle.world import Agent, Blame, CommandState, Fault, Place, Seen, World

SILENT = Fault(Blame.BMC, "BMCUnreachable", "The BMC does not answer.")
MISSING = Fault(Blame.CONFIGURATION, "SecretMissing", "The Secret node-07-bmc does not exist.")
OBSTACLE = Fault(Blame.CONFIGURATION, "ImageMissing", "The OperatingSystemImage does not exist.")
MINUTES = timedelta(minutes=1)
STALLED = Condition(type=ConditionType.STALLED, status="True", last_transition_time=NOW, reason="SecretMissing")
GATES = [ReadinessGate(condition_type="example.org/BurnIn")]
REPORT = {"summary": "It smells."}


@cache
def _specs() -> tuple[BareMetalMachineSpec, ...]:
    deployments: list[dict[str, Any]] = [
        {},
        {"owner": "search"},
        {"owner": "maps"},
        {"owner": "search", "image": "debian-12"},
        {"owner": "search", "image": "debian-12", "reinstall": "again"},
        {"owner": "search", "existing": True},
        {"owner": "maps", "image": "fedora-42"},
    ]
    wishes: list[dict[str, Any]] = [
        {},
        {"rescue": True},
        {"broken": "DIMM A3."},
        {"broken": "DIMM A3.", "rescue": True},
        {"recommission": "again"},
        {"power": "On"},
        {"power": "Off"},
        {"accepted": False},
        {"accepted": False, "bmc": False},
        {"accepted": False, "bmc": False, "power": "On"},
        {"bmc": False, "rescue": True},
        {"release": {"erase": "None"}},
        {"release": {"erase": "None"}},
        {"release": {"fault": REPORT}},
        {"release": {"fault": REPORT, "erase": "None"}},
        {"release": {"fault": REPORT}, "rescue": True},
        {"locked": True},
        {"powerCycle": {"trigger": "again"}},
        {"powerCycle": {"trigger": "again"}, "bmc": False, "accepted": False},
        {"bmc": {"address": "manual://"}},
        {"bmc": {"address": "manual://"}},
        {
            "rescue": {"maxAttempts": 1},
            "release": {"maxAttempts": 1},
            "commissioning": {"maxAttempts": 1, "trigger": "!"},
        },
    ]
    specs = []
    for deployment, wish in itertools.product(deployments, wishes):
        try:
            specs.append(declared(**deployment, **wish))
        except Refused:
            continue
    return tuple(specs)


@cache
def _statuses(phase: Phase | None) -> tuple[BareMetalMachineStatus, ...]:
    systems = [None, installed(), installed(None), installed(came_up=False)]
    histories = [[], [ended(OperationName.RELEASE, "Failed")], [ended(OperationName.RESCUE, "Failed")]]
    operations = [
        attempt(name, stage, since=since, retry_in=retry_in, lasts=30 * MINUTES)
        for name in (OPERATIONS.get(phase, ()) if phase is not None else ())
        for stage in STAGES[name]
        for since, retry_in in ((MINUTES, None), (16 * MINUTES, None), (40 * MINUTES, None), (MINUTES, MINUTES))
    ]
    found = []
    for system, history, operation, owner, erasure, origin in itertools.product(
        systems,
        histories,
        [*operations, None],
        [None, "search"],
        [[], [erased("/dev/sda")]],
        [Phase.READY, Phase.DEPLOYED] if phase is Phase.RESCUE else [None],
    ):
        try:
            found.append(
                recorded(
                    phase,
                    installed=system,
                    history=history,
                    operation=operation,
                    owner=owner,
                    erasure=erasure,
                    rescued_from=origin,
                    last_failure=failure(OperationName.COMMISSION) if phase is Phase.FAILED else None,
                )
            )
        except Impossible:
            continue
    return tuple(found)


def _agents() -> list[Agent | None]:
    return [
        None,
        *(
            Agent(
                heard_at=NOW - since,
                inspected=inspected,
                command=command,
                erasure=erasure,
                takes_commands=command is not CommandState.NONE or not inspected,
            )
            for since in (timedelta(seconds=10), 4 * MINUTES)
            for inspected in (False, True)
            for command in CommandState
            for erasure in ((), (erased("/dev/sda"),), (erased("/dev/sda", verified=False),))
        ),
    ]


def worlds(number: int, *, torn: bool = False) -> Iterator[World]:
    """So many worlds, the same each time; `torn` ones have lost the operation that their phase goes with."""
    draw = random.Random(7).choice  # noqa: S311 (repeatable on purpose)
    agents, working = _agents(), [Phase.COMMISSIONING, Phase.DEPLOYING, Phase.RELEASING]
    for _ in range(number):
        phase = draw(working if torn else [None, *Phase, *working, *working, Phase.RESCUE])
        status, spec = draw(_statuses(phase)), draw(_specs())
        status = status.model_copy(update={"conditions": draw([[], [], [STALLED]])})
        spec = spec.model_copy(update={"readiness_gates": draw([[], GATES])})
        if torn:
            status = status.model_copy(update={"operation": None})
        if phase is Phase.RELEASING and draw([False, True]):
            status = status.model_copy(update={"hardware": None})
        fault = draw([None, None, None, SILENT, MISSING]) if spec.bmc is not None else None
        power = draw(list(Power)) if fault is None and spec.bmc is not None else Power.UNKNOWN
        deleting = draw([False] * 5 + [True])
        seen = Seen(
            power=power,
            bmc_fault=fault,
            agent=draw(agents) if status.operation is not None else None,
            first_boot=draw([None, None, installed()]) if phase is Phase.DEPLOYING and not torn else None,
            twin=draw([None] * 19 + ["rack/node-01"]),
            obstacle=draw([None, None, OBSTACLE]),
            kept=draw([None, HARDWARE]) if status.operation is not None else None,
            left_behind=draw([None] * 4 + ["DISK1"]),
            image_checksum=draw([None, CHECKSUM]),
            evidence=draw([status.installed, status.installed, None, installed()]),
            listening_since=draw([None, NOW - MINUTES]),
            queued=draw([None, None, None, Place(37, 212)]),
        )
        yield replace(
            World(uid="0f1e", name="node-07", generation=3, spec=spec, status=status, now=NOW, seen=seen),
            deleting=deleting,
            force_delete=deleting and draw([False, False, True]),
            held=draw([True] * 19 + [False]),
            restored=draw([False, False, True]),
            hurry=draw([False, False, True]),
        )
