"""The conditions of one machine, all of them always set, from one reading of the table.

Ready, Reconciling and Stalled follow kstatus, which is what GitOps tools wait on: Stalled means that a person has
to change something, Reconciling that the operator is at it.
"""

from __future__ import annotations

from typing import Literal

from rackwright.api.conditions import AnyCondition, Condition, ConditionType
from rackwright.api.machine import OperationName, Phase, Power
from rackwright.lifecycle.by_hand import moved_by_hand
from rackwright.lifecycle.guards import seen_off
from rackwright.lifecycle.steps import Action, Hold, Pause, Rest
from rackwright.lifecycle.world import World

Verdict = tuple[Literal["True", "False", "Unknown"], str, str]
"""Status, reason, message."""


def conditions(world: World, step: Action | Pause, reason: str, message: str) -> list[AnyCondition]:
    """Ours, with the time of their last change kept; those of other controllers as they are."""
    settled = isinstance(step, Rest) and step.settled
    stalled = isinstance(step, Hold)
    verdicts: dict[ConditionType, Verdict] = {
        ConditionType.READY: ("True" if settled else "False", reason, message),
        ConditionType.RECONCILING: ("False" if isinstance(step, Rest | Hold) else "True", reason, message),
        ConditionType.STALLED: ("True" if stalled else "False", reason, message if stalled else ""),
        ConditionType.BMC_REACHABLE: _bmc_reachable(world),
        ConditionType.COMMISSIONED: _commissioned(world),
        ConditionType.TESTS_PASSED: ("Unknown", "NoTests", "No hardware test has run."),
        ConditionType.ALLOCATED: _allocated(world),
        ConditionType.DEPLOYED: _deployed(world),
        ConditionType.LAYOUT_COMPATIBLE: ("True", "NoLayout", "No storage or network layout is declared."),
        ConditionType.LOCKED: _locked(world),
    }
    before = {c.type: c for c in world.status.own_conditions}
    ours = [_condition(world, kind, verdict, before.get(kind)) for kind, verdict in verdicts.items()]
    return [*ours, *(c for c in world.status.conditions if c.type not in verdicts)]


def _condition(world: World, kind: ConditionType, verdict: Verdict, before: Condition | None) -> Condition:
    status, reason, message = verdict
    now = (status, reason, message, world.generation)
    if before is not None and now == (before.status, before.reason, before.message, before.observed_generation):
        return before
    since = before.last_transition_time if before is not None and before.status == status else world.now
    return Condition(
        type=kind,
        status=status,
        observed_generation=world.generation,
        last_transition_time=since,
        reason=reason,
        message=message,
    )


def _locked(world: World) -> Verdict:
    if not world.spec.locked:
        return "False", "NotLocked", ""
    return "True", "Locked", f"Locked by {world.locked_by or 'somebody unknown'}: nothing is done to it."


def _bmc_reachable(world: World) -> Verdict:
    if world.spec.bmc is None:
        return "Unknown", "NoBMC", "spec.bmc is not set."
    if moved_by_hand(world.spec):
        return "Unknown", "ByHand", "A person moves the power: there is no BMC to ask."
    if world.seen.bmc_fault is not None:
        return "False", world.seen.bmc_fault.reason, world.seen.bmc_fault.message
    if world.seen.power is Power.UNKNOWN:
        return "Unknown", "NotAsked", "The BMC has not been asked yet."
    return "True", "Answered", "The BMC answers."


def _commissioned(world: World) -> Verdict:
    if world.status.phase is Phase.COMMISSIONING:
        return "False", "UnderWay", "Being commissioned."
    if not world.spec.accepted and world.status.phase in (Phase.NEW, Phase.BROKEN):
        return "False", "NotAccepted", "It is commissioned once it is accepted."
    failure = world.status.last_failure
    if world.status.phase is Phase.FAILED and failure is not None and failure.operation is OperationName.COMMISSION:
        return "False", failure.reason, failure.message
    if world.status.hardware is None:
        return "False", "NeverCommissioned", "The hardware is not known."
    return "True", "HardwareKnown", "The hardware is known: see the HardwareInventory of the same name."


def _allocated(world: World) -> Verdict:
    if world.status.owner is None:
        return "False", "NoOwner", "Reserved for nobody."
    return "True", "OwnerSet", f"Reserved for {world.status.owner}."


def _deployed(world: World) -> Verdict:
    installed = world.status.installed
    if installed is None:
        return "False", "NothingInstalled", "Nothing is installed."
    if installed.at is None:
        return "False", "NotComplete", "An image or an erase was begun on its disks; what is there has not reported."
    if world.status.phase is not Phase.DEPLOYED:
        return "False", "NotRunning", "Something is installed, and the machine is not left to it now."
    what, off = installed.image or "What was there", seen_off(world)
    return "True", "Installed", f"{what} {'is installed' if off else 'runs'} as {installed.hostname}."
