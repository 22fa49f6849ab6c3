"""How an operation begins, fails, and ends: what each record step makes of status.

An attempt's id, number and deadline are written before a BMC or an agent hears of it, and every attempt has a new
id: the tokens derived from it make whatever an earlier boot still says worthless.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any, Literal, assert_never

from rackwright.api.machine import (
    BareMetalMachineSpec,
    BareMetalMachineStatus,
    Deployment,
    Erasure,
    Failure,
    HistoryEntry,
    Installed,
    ObservedTriggers,
    Operation,
    OperationName,
    Phase,
    Rescue,
)
from rackwright.lifecycle import steps
from rackwright.lifecycle.differences import configuration
from rackwright.lifecycle.guards import closed_gates, still_allocated
from rackwright.lifecycle.reasons import FAULTS, closed
from rackwright.lifecycle.steps import Record, Stage
from rackwright.lifecycle.world import CommandState, Fault, World

HISTORY_LENGTH = 10
RESTART_TIMEOUT, RESTART_ATTEMPTS = timedelta(minutes=15), 3


def limits(spec: BareMetalMachineSpec, operation: OperationName) -> tuple[timedelta, int]:
    """How long one attempt may take, and how many there may be, as spec says."""
    match operation:
        case OperationName.COMMISSION:
            return spec.commissioning.timeout, spec.commissioning.max_attempts
        case OperationName.DEPLOY:
            deployment = spec.deployment or Deployment(existing=True)
            return deployment.timeout, deployment.max_attempts
        case OperationName.RELEASE:
            return spec.release.timeout, spec.release.max_attempts
        case OperationName.RESCUE | OperationName.END_RESCUE:
            rescue = spec.rescue or Rescue.model_construct(ssh_authorized_keys=[])  # withdrawn: the defaults
            return rescue.timeout, rescue.max_attempts
        case OperationName.RESTART:
            return RESTART_TIMEOUT, RESTART_ATTEMPTS
        case _:
            assert_never(operation)


def recorded(step: Record, world: World, *, to: Phase | None) -> BareMetalMachineStatus:
    """Status after a record step that leads to the phase `to`."""
    if isinstance(step, steps.Fail):
        return failed(world, step.fault or _seen_fault(world), final=step.final)
    changes = _moved(world, to)
    if to in (Phase.NEW, Phase.READY):
        changes["owner"] = None
    return world.status.model_copy(update=changes | _changes(step, world, to))


def _moved(world: World, to: Phase | None) -> dict[str, Any]:
    """What coming to a phase changes, if it is another one."""
    return {} if to is world.status.phase else {"phase": to, "phase_since": world.now}


def _changes(step: Record, world: World, to: Phase | None) -> dict[str, Any]:
    """What a record step changes beside the phase."""
    changes: dict[str, Any]
    agent, allocation = world.seen.agent, world.spec.allocation
    match step:
        case steps.Begin(operation):
            changes = _begun(world, operation, to)
        case steps.Advance(stage):
            inspected = {"hardware": world.seen.kept} if world.seen.kept is not None else {}
            changes = {"operation": _at(world, stage), **inspected}
        case steps.Renew():
            changes = {"operation": _renewed(world)}
        case steps.Finish():
            changes = _finished(world)
        case steps.Abandon():
            changes = {"operation": None, "history": _history(world, "Abandoned", "NotWanted"), "rescued_from": None}
        case steps.NoteMark():
            changes = {"rescued_from": Phase.BROKEN}
        case steps.Allocate():
            changes = {"owner": allocation.owner if allocation else None}
        case steps.Acknowledge():
            changes = {"observed_triggers": _restarted(world)}
        case steps.Adopt():
            changes = _adopted(world)
        case steps.Restore():
            owner = allocation.owner if allocation else None
            changes = {"installed": _restored(world), "owner": owner, "observed_triggers": _observed(world)}
        case steps.RecordErasure():
            changes = {"erasure": list(agent.erasure) if agent else []}
        case steps.Move() | steps.Fail():
            changes = {}
        case _:
            assert_never(step)
    return changes


def announced(world: World, stage: Stage) -> BareMetalMachineStatus:
    """Status that says which stage is next and what it makes of the disks, written before the action."""
    status = world.status
    operation, installed = status.operation, status.installed
    if operation is None:
        return status
    changes: dict[str, Any] = {} if operation.step == stage else {"operation": _at(world, stage)}
    if stage is Stage.WRITE_IMAGE and world.spec.deployment is not None:
        changes["installed"] = Installed(
            image=world.spec.deployment.image,
            checksum=world.seen.image_checksum,
            disk=world.seen.root_disk,
            configuration=configuration(world.spec, world.name),
            user_data=world.seen.user_data,
        )
    elif stage is Stage.ERASE_DISKS and installed is not None:
        remains = Installed(image=installed.image, checksum=installed.checksum, disk=installed.disk)
        changes["installed"] = remains  # it won't run again
        changes["erasure"] = status.erasure if operation.step == stage else []  # evidence of an earlier attempt
    return status.model_copy(update=changes)


def failed(world: World, fault: Fault, *, final: bool = False) -> BareMetalMachineStatus:
    """Status after an attempt failed: the next one scheduled, or the machine Failed.

    A machine whose restart failed is what it was: nothing of it is in doubt but its power, and that is seen.
    """
    operation = world.status.operation
    if operation is None:
        return world.status
    failure = Failure.model_validate(
        {
            "operation": operation.name,
            "step": operation.step,
            "class": fault.blame.value,
            "reason": fault.reason,
            "message": _particular(world, fault),
            "attempt": operation.attempt,
            "at": world.now,
        }
    )
    timeout, max_attempts = limits(world.spec, operation.name)
    if final or operation.attempt >= max_attempts:
        return world.status.model_copy(
            update={
                **_moved(world, world.status.phase if operation.name is OperationName.RESTART else Phase.FAILED),
                "operation": None,
                "last_failure": failure,
                "history": _history(world, "Failed", fault.reason),
                "rescued_from": None,
            }
        )
    retry_at = world.now + backoff(world, operation.attempt, fault)
    following = _attempt(world, operation.name, operation.attempt + 1)
    return world.status.model_copy(
        update={
            "last_failure": failure,
            "operation": following.model_copy(
                update={
                    "began_at": operation.began_at,
                    "next_retry_at": retry_at,
                    "deadline": retry_at + timeout,
                }
            ),
        }
    )


def _particular(world: World, fault: Fault) -> str:
    """The fault's sentence, with what a person would look for next."""
    match fault.reason:
        case "EraseNotVerified":
            left = (e for e in world.status.erasure if not e.verified)
            kept = [f"{e.device} ({e.serial or e.wwn or 'no serial number'})" for e in left]
            return f"{fault.message} Not erased: {', '.join(kept) or 'no disk was seen'}."
        case "ReadinessGatesClosed":
            return f"{fault.message} Not True: {', '.join(closed_gates(world))}."
        case _:
            return closed(fault.message)


def backoff(world: World, attempt: int, fault: Fault) -> timedelta:
    """Exponential from `retry_base` to `retry_limit`, spread by a fifth, never sooner than the other side asked."""
    policy = world.policy
    doubled: timedelta = policy.retry_base * (1 << attempt - 1)
    delay = min(doubled, policy.retry_limit) * (0.8 + 0.4 * world.chance)
    return max(delay, fault.retry_after or timedelta())


def _attempt(world: World, name: OperationName, attempt: int) -> Operation:
    """A new attempt, with an id that no other attempt has."""
    text = f"{world.uid}/{name}/{attempt}/{world.now.isoformat()}/{world.chance}"
    return Operation(
        id=hashlib.sha256(text.encode()).hexdigest()[:16],
        name=name,
        attempt=attempt,
        began_at=world.now,
        started_at=world.now,
        step_started_at=world.now,
        deadline=world.now + limits(world.spec, name)[0],
    )


def _renewed(world: World) -> Operation | None:
    operation = world.status.operation
    if operation is None:
        return None
    deadline = world.now + limits(world.spec, operation.name)[0]
    changes: dict[str, Any] = {"started_at": world.now, "step_started_at": world.now, "deadline": deadline}
    if operation.attempt == 1:
        changes["began_at"] = world.now
    return operation.model_copy(update=changes)


def _begun(world: World, operation: OperationName, to: Phase | None) -> dict[str, Any]:
    status = world.status
    changes: dict[str, Any] = {"operation": _attempt(world, operation, 1), "rescue": None}
    if status.operation is not None:
        changes["history"] = _history(world, "Abandoned", "NotWanted")
    observed = _restarted(world)  # whatever is begun starts the machine anew
    match operation:
        case OperationName.COMMISSION:
            observed = observed.model_copy(update={"commissioning": world.spec.commissioning.trigger})
        case OperationName.DEPLOY:
            trigger = world.spec.deployment.trigger if world.spec.deployment else ""
            observed = observed.model_copy(update={"deployment": trigger})
            changes["erasure"] = []
        case OperationName.RELEASE:
            changes["erasure"] = []
        case OperationName.RESCUE:
            changes["rescued_from"] = status.phase if to is not status.phase else status.rescued_from
        case OperationName.END_RESCUE | OperationName.RESTART:
            pass
        case _:
            assert_never(operation)
    changes["observed_triggers"] = observed
    return changes


def _restarted(world: World) -> ObservedTriggers:
    """The triggers with the restart that is asked for now as done."""
    return world.status.observed_triggers.model_copy(update={"power_cycle": world.spec.power_cycle.trigger})


def _at(world: World, stage: Stage) -> Operation | None:
    operation = world.status.operation
    if operation is None:
        return None
    changes: dict[str, Any] = {"step": stage.value, "step_started_at": world.now}
    if operation.next_retry_at is not None:  # it begins only now, sooner or later than was meant
        deadline = world.now + limits(world.spec, operation.name)[0]
        changes |= {"next_retry_at": None, "started_at": world.now, "deadline": deadline}
    return operation.model_copy(update=changes)


def _finished(world: World) -> dict[str, Any]:
    """What an operation's success means, beyond that it is over."""
    status, operation = world.status, world.status.operation
    if operation is None:
        return {}
    changes: dict[str, Any] = {"operation": None, "history": _history(world, "Succeeded", "")}
    rescues, failure = (OperationName.RESCUE, OperationName.END_RESCUE), status.last_failure
    if operation.name not in rescues or (
        failure is not None and failure.operation in rescues and status.rescued_from is not Phase.FAILED
    ):
        changes["last_failure"] = None  # a rescue says nothing of what failed before it, only of its own attempts
    match operation.name:
        case OperationName.COMMISSION | OperationName.RESTART:
            pass
        case OperationName.RESCUE:
            changes["rescue"] = world.seen.agent.rescue if world.seen.agent is not None else None
        case OperationName.DEPLOY:
            installed, first_boot = status.installed or Installed(), world.seen.first_boot
            if first_boot is not None:
                changes["installed"] = installed.model_copy(
                    update={
                        "hostname": first_boot.hostname,
                        "addresses": first_boot.addresses,
                        "ssh_host_keys": first_boot.ssh_host_keys,
                        "at": first_boot.at,
                        "operation": operation.id,
                    }
                )
        case OperationName.RELEASE:
            changes["installed"] = None
            if not still_allocated(world):
                changes["owner"] = None
            erased = operation.step == Stage.SHUT_DOWN and status.erasure and all(e.verified for e in status.erasure)
            if status.installed is not None and not erased:
                changes["erasure"] = [*status.erasure, _not_erased(world)]  # what an earlier attempt erased stays so
        case OperationName.END_RESCUE:
            changes["rescued_from"] = None
        case _:
            assert_never(operation.name)
    return changes


def _not_erased(world: World) -> Erasure:
    return Erasure(
        device="*", method="None", verified=False, message="release.erase was None: nothing was erased.", at=world.now
    )


def _adopted(world: World) -> dict[str, Any]:
    deployment = world.spec.deployment
    return {
        "operation": None,
        "history": _history(world, "Abandoned", "NotWanted"),
        "owner": world.spec.allocation.owner if world.spec.allocation else None,
        "installed": Installed(hostname=(deployment.hostname if deployment else None) or world.name, at=world.now),
        "observed_triggers": _observed(world),
    }


def _restored(world: World) -> Installed | None:
    """What the annotation remembers; one that can't be read still tells of a system that came up."""
    evidence = world.seen.evidence
    return evidence.model_copy(update={"at": evidence.at or world.now}) if evidence is not None else None


def _observed(world: World) -> ObservedTriggers:
    """The triggers as they are: what they asked for was done before this status began."""
    deployment = world.spec.deployment
    return ObservedTriggers(
        commissioning=world.spec.commissioning.trigger,
        deployment=deployment.trigger if deployment else "",
        power_cycle=world.spec.power_cycle.trigger,
    )


def _history(world: World, outcome: Literal["Succeeded", "Failed", "Abandoned"], reason: str) -> list[HistoryEntry]:
    operation = world.status.operation
    if operation is None:
        return world.status.history
    ahead = outcome == "Abandoned" and operation.next_retry_at is not None  # the attempt hasn't begun
    entry = HistoryEntry(
        name=operation.name,
        outcome=outcome,
        reason=reason,
        attempts=operation.attempt - ahead,
        started_at=operation.began_at,
        duration=max(world.now - operation.began_at, timedelta()),
    )
    return _shortened([entry, *world.status.history])


def _shortened(history: list[HistoryEntry]) -> list[HistoryEntry]:
    """As many as are kept: without the oldest, but for how each operation ended last, which decides what comes next."""
    last: dict[OperationName, int] = {}
    for number, entry in enumerate(history):
        if entry.outcome != "Abandoned":
            last.setdefault(entry.name, number)
    others = [number for number in range(len(history)) if number not in last.values()]
    kept = {*last.values(), *others[: HISTORY_LENGTH - len(last)]}
    return [history[number] for number in sorted(kept)]


def _seen_fault(world: World) -> Fault:
    """What the agent said of its command's failure, else why the BMC can't be talked to."""
    agent = world.seen.agent
    if agent is not None and agent.command is CommandState.FAILED:
        return agent.fault or FAULTS["AgentError"]
    return world.seen.bmc_fault or FAULTS["AgentError"]
