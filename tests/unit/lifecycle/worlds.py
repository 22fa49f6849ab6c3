"""Small builders of worlds, which refuse those that can't be.

A test that starts from an impossible world proves nothing, so that each builder ends with a look at `impossibilities`;
the property tests ask it of every status that is ever recorded.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from tests.property.admission import admitted

from rackwright.api.machine import (
    BareMetalMachineSpec,
    BareMetalMachineStatus,
    Failure,
    HardwareSummary,
    HistoryEntry,
    Installed,
    ObservedTriggers,
    Operation,
    OperationName,
    Phase,
    Power,
)
from rackwright.lifecycle.steps import Stage
from rackwright.lifecycle.world import Agent, Seen, World

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
CHECKSUM = "sha256:" + "1" * 64
KEY = "ssh-ed25519 AAAA"
ADDRESSES: dict[str, Any] = {
    "bootMACAddress": "52:54:00:00:00:07",
    "bmc": {"address": "redfish+https://10.0.0.7/redfish/v1/Systems/1"},
}
"""Where a machine is, in spec."""

IN_RAMDISK = (Stage.START, Stage.POWER_OFF, Stage.BOOT_RAMDISK)
STAGES = {
    OperationName.COMMISSION: (*IN_RAMDISK, Stage.SHUT_DOWN, Stage.BOOT_DISK),
    OperationName.DEPLOY: (*IN_RAMDISK, Stage.WRITE_IMAGE, Stage.BOOT_DISK),
    OperationName.RELEASE: (*IN_RAMDISK, Stage.ERASE_DISKS, Stage.SHUT_DOWN),
    OperationName.RESCUE: (*IN_RAMDISK, Stage.OPEN_RESCUE),
    OperationName.END_RESCUE: (Stage.START, Stage.POWER_OFF, Stage.BOOT_DISK),
    OperationName.RESTART: (Stage.START, Stage.POWER_OFF, Stage.POWER_ON),
}
"""How far each operation can come."""

OPERATIONS = {
    Phase.COMMISSIONING: (OperationName.COMMISSION,),
    Phase.DEPLOYING: (OperationName.DEPLOY,),
    Phase.RELEASING: (OperationName.RELEASE,),
    Phase.RESCUE: (OperationName.RESCUE, OperationName.END_RESCUE),
    Phase.READY: (OperationName.RESTART,),
    Phase.ALLOCATED: (OperationName.RESTART,),
    Phase.DEPLOYED: (OperationName.RESTART,),
}
"""What is done in each phase."""
WORKING = (Phase.COMMISSIONING, Phase.DEPLOYING, Phase.RELEASING)
"""Phases in which something is done all the time."""


class Impossible(ValueError):
    """No history leads to this world."""


def impossibilities(status: BareMetalMachineStatus) -> list[str]:
    """Why a status can't have been recorded; empty for one that can."""
    phase, operation, installed = status.phase, status.operation, status.installed
    allowed = OPERATIONS.get(phase, ()) if phase is not None else ()
    found = {
        f"{phase} goes with an operation of its own": (
            operation.name not in allowed if operation is not None else phase in WORKING
        ),
        "an operation comes no further than its stages": (
            operation is not None and operation.step not in STAGES[operation.name]
        ),
        "an attempt waits for its time before it has begun": (
            operation is not None and operation.next_retry_at is not None and operation.step != Stage.START
        ),
        f"{phase} has no owner": phase in (None, Phase.NEW, Phase.READY) and status.owner is not None,
        f"{phase} has an owner": (phase in (Phase.ALLOCATED, Phase.DEPLOYING, Phase.DEPLOYED) and status.owner is None),
        f"{phase} has nothing installed": phase in (None, Phase.NEW, Phase.READY) and installed is not None,
        f"{phase} has something installed": phase is Phase.DEPLOYED and installed is None,
        "what is installed belongs to somebody": installed is not None and status.owner is None,
        "a rescue is entered from a phase at rest": (phase is Phase.RESCUE) != (status.rescued_from is not None),
        "Failed has failed": phase is Phase.FAILED and status.last_failure is None,
    }
    return [why for why, is_so in found.items() if is_so]


def declared(
    *,
    owner: str | None = None,
    image: str | None = None,
    existing: bool = False,
    reinstall: str = "",
    recommission: str = "",
    rescue: bool | dict[str, Any] = False,
    broken: str | None = None,
    bmc: bool | dict[str, Any] = True,
    **others: Any,
) -> BareMetalMachineSpec:
    """A spec that the API server takes."""
    spec: dict[str, Any] = {**ADDRESSES, "commissioning": {"trigger": recommission}, **others}
    if bmc is not True:
        spec["bmc"] = bmc or None
    if owner is not None:
        spec["allocation"] = {"owner": owner}
    if image is not None or existing:
        spec["deployment"] = {"image": image, "existing": existing, "trigger": reinstall}
    if rescue:
        spec["rescue"] = {"sshAuthorizedKeys": [KEY], **(rescue if isinstance(rescue, dict) else {})}
    if broken is not None:
        spec["broken"] = {"reason": broken}
    return admitted(BareMetalMachineSpec.model_validate(spec))


def attempt(
    name: OperationName,
    stage: Stage = Stage.START,
    *,
    number: int = 1,
    since: timedelta = timedelta(),
    lasts: timedelta = timedelta(minutes=30),
    retry_in: timedelta | None = None,
) -> Operation:
    """An attempt that has been at `stage` for `since`, and began then."""
    return Operation(
        id=hashlib.sha256(f"{name}{number}".encode()).hexdigest()[:16],
        name=name,
        attempt=number,
        step=stage.value,
        step_started_at=NOW - since,
        began_at=NOW - since,
        started_at=NOW - since,
        deadline=NOW - since + lasts,
        next_retry_at=NOW + retry_in if retry_in is not None else None,
    )


def installed(image: str | None = "debian-12", *, came_up: bool = True) -> Installed:
    """What is on the disks."""
    checksum = CHECKSUM if image else None
    if not came_up:
        return Installed(image=image, checksum=checksum)
    return Installed(image=image, checksum=checksum, hostname="node-07", at=NOW)


def failure(operation: OperationName, reason: str = "AgentMissing", *, after: Stage = Stage.BOOT_RAMDISK) -> Failure:
    """What went wrong last."""
    return Failure.model_validate(
        {"operation": operation, "step": after, "class": "Agent", "reason": reason, "message": "It failed.", "at": NOW}
    )


def ended(
    name: OperationName, outcome: Literal["Succeeded", "Failed", "Abandoned"] = "Succeeded", *, attempts: int = 1
) -> HistoryEntry:
    """An operation that is over."""
    return HistoryEntry(name=name, outcome=outcome, attempts=attempts, started_at=NOW, duration=timedelta(minutes=5))


def recorded(phase: Phase | None, **fields: Any) -> BareMetalMachineStatus:
    """A status; Impossible for one that can't have been recorded."""
    if phase in (Phase.READY, Phase.ALLOCATED, Phase.DEPLOYING, Phase.DEPLOYED, Phase.RELEASING):
        fields.setdefault("hardware", HardwareSummary(cpus=8))
    if phase is Phase.FAILED:
        fields.setdefault("last_failure", failure(OperationName.COMMISSION))
    fields["observed_triggers"] = ObservedTriggers(**fields.pop("triggers", {}))
    status = BareMetalMachineStatus(phase=phase, **fields)
    if why := impossibilities(status):
        raise Impossible("; ".join(why))
    return status


def world(
    phase: Phase | None,
    spec: BareMetalMachineSpec | None = None,
    seen: Seen | None = None,
    *,
    now: datetime = NOW,
    deleting: bool = False,
    force_delete: bool = False,
    held: bool = True,
    restored: bool = False,
    hurry: bool = False,
    chance: float = 0.5,
    **fields: Any,
) -> World:
    """A world in which that status is recorded; the annotation agrees with it unless `seen` says otherwise."""
    spec, status = spec or declared(), recorded(phase, **fields)
    seen = seen or (power_off() if spec.bmc is not None else Seen())
    came_up = status.installed is not None and status.installed.at is not None
    if seen.evidence is None and came_up:
        seen = replace(seen, evidence=status.installed)
    broken = {
        "the agent and the installed system belong to an attempt": (
            status.operation is None and (seen.agent is not None or seen.first_boot is not None)
        ),
        "a BMC that can't be talked to doesn't say how the power is": (
            seen.bmc_fault is not None and seen.power is not Power.UNKNOWN
        ),
        "power is known from a BMC": spec.bmc is None and seen.power is not Power.UNKNOWN,
        "a record that nobody holds and that is deleted is gone": force_delete and not deleting,
    }
    if why := [sentence for sentence, is_so in broken.items() if is_so]:
        raise Impossible("; ".join(why))
    return World(
        uid="0f1e",
        name="node-07",
        generation=3,
        spec=spec,
        status=status,
        now=now,
        seen=seen,
        deleting=deleting,
        force_delete=force_delete,
        held=held,
        restored=restored,
        hurry=hurry,
        chance=chance,
    )


def power_on(**fields: Any) -> Seen:
    """The BMC says that it is on."""
    return Seen(power=Power.ON, **fields)


def power_off(**fields: Any) -> Seen:
    """The BMC says that it is off."""
    return Seen(power=Power.OFF, **fields)


def heard(**fields: Any) -> Agent:
    """An agent that reported ten seconds ago."""
    return Agent(heard_at=fields.pop("at", NOW - timedelta(seconds=10)), **fields)


def anywhere(phase: Phase | None, spec: BareMetalMachineSpec | None = None, **fields: Any) -> World:
    """An ordinary world of that phase: of an owner with something installed wherever that can be."""
    owned = phase not in (None, Phase.NEW, Phase.READY, Phase.COMMISSIONING)
    if owned:
        fields.setdefault("owner", "search")
    if owned and phase not in (Phase.ALLOCATED, Phase.DEPLOYING):
        fields.setdefault("installed", installed())
    if phase in (*WORKING, Phase.RESCUE):
        fields.setdefault("operation", attempt(OPERATIONS[phase][0], Stage.BOOT_RAMDISK))
    if phase is Phase.RESCUE:
        fields.setdefault("rescued_from", Phase.DEPLOYED)
    return world(phase, spec, **fields)
