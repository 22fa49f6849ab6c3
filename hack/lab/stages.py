"""What the demonstration does next with its machine, decided from the machine's record and nothing else.

The demonstration is run again whenever somebody likes, on a machine that others may have changed meanwhile. It goes on
from where the machine is: it never applies an earlier stage's manifest to one that has an owner or something
installed, which would withdraw both, and what a person asked for (a mark, a rescue, a lock) is for a person to end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lab.installation import MACHINES
from lab.samples import ALLOCATED, DECLARED, DEPLOYED

Json = dict[str, Any]
OWNER = "team-search"
"""Whom the samples reserve the machine for."""
_AT_REST = ("Ready", "Allocated", "Deployed")
UNMARKED: Json = {"broken": None}
UNRESCUED: Json = {"rescue": None}
RETURNED: Json = {"allocation": None, "deployment": None}
"""What ends a mark, a rescue and an allocation, merged into spec."""


@dataclass(frozen=True)
class Go:
    """Apply a manifest, or none, and wait until the machine rests in one of these phases."""

    sentence: str
    apply: str | None
    until: tuple[str, ...]
    seconds: float
    expect: str = ""
    """How long it takes, about."""


@dataclass(frozen=True)
class Stop:
    """A person has to act first."""

    sentence: str
    spec: Json | None
    """What a person would merge into spec so that it goes on; None: only waiting helps."""

    def remedy(self, node: str, again: str, environment: str) -> str:
        """What to do, as commands."""
        act = f"{environment}; {patch(node, self.spec)}" if self.spec is not None else "wait until it is gone"
        return f"{act}; then run {again} again"


@dataclass(frozen=True)
class Arrived:
    """It is deployed."""

    sentence: str


def patch(node: str, spec: Json) -> str:
    """The command that merges this into a machine's spec."""
    return f"kubectl patch bmm {node} -n {MACHINES} --type merge -p '{json.dumps({'spec': spec})}'"


def next_stage(node: str, machine: Json, *, now: str) -> Go | Stop | Arrived:
    """What to do next, on the way to Deployed; `machine` is empty if nobody declared it.

    `now` is any text that no trigger has held before.
    """
    spec, status = machine.get("spec", {}), machine.get("status", {})
    if (stop := _stop(node, machine.get("metadata", {}), spec, status, now=now)) is not None:
        return stop
    untouched = not {"allocation", "deployment"} & spec.keys() and not {"owner", "installed"} & status.keys()
    match status.get("phase", ""):
        case "Ready" if untouched:
            return Go(f"{node}: kubectl apply -f {ALLOCATED} → Allocated", ALLOCATED, ("Allocated",), 60)
        case "Ready" | "Allocated":
            return Go(f"{node}: kubectl apply -f {DEPLOYED} → Deployed", DEPLOYED, ("Deployed",), 1500, "5 min")
        case "Deploying":
            return Go(f"{node} is being deployed: wait for that", None, ("Deployed",), 1500, "5 min")
        case "Deployed":
            return Arrived(f"{node} is Deployed")
        case "Releasing":
            return Go(f"{node} is being released: wait for its erase", None, ("Ready", "Allocated"), 1500, "3 min")
        case _ if untouched:
            return Go(f"{node}: kubectl apply -f {DECLARED} → Ready", DECLARED, ("Ready",), 900, "2 min")
        case _:
            return Go(f"{node} is being commissioned, with what it has: wait for that", None, _AT_REST, 900, "2 min")


def _stop(node: str, metadata: Json, spec: Json, status: Json, *, now: str) -> Stop | None:
    """What only a person's word ends; None if nothing does."""
    phase, owner = status.get("phase", ""), spec.get("allocation", {}).get("owner", OWNER)
    if "deletionTimestamp" in metadata:
        return Stop(f"{node} is being deleted.", None)
    if spec.get("locked"):
        return Stop(f"{node} is locked, so nothing is done to it.", {"locked": False})
    if owner != OWNER:
        return Stop(f"{node} is reserved for {owner}, and is taken from nobody.", RETURNED)
    match phase:
        case "New":
            return Stop(f"{node} is New: it isn't accepted, so nothing is done to it.", {"accepted": True})
        case "Rescue":
            return Stop(f"{node} is in Rescue, as somebody asked; its disks are left alone until that ends.", UNRESCUED)
        case "Broken":
            mark = spec.get("broken")
            because = f"somebody marked it ({mark.get('reason', '')})" if mark else "its owner reported a fault"
            return Stop(
                f"{node} is Broken: {because}; nothing is done to it.",
                UNMARKED if mark else {"release": {"fault": None}},
            )
        case "Failed":
            failure = status.get("lastFailure", {}).get("message", "")
            recommissioned = {"commissioning": {"trigger": now}}
            return Stop(f"{node} has Failed, and stays out of the pool until recommissioned: {failure}", recommissioned)
        case _:
            return None
