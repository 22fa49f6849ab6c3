"""What makes two worlds one in the exhaustive search: everything that a decision or an invariant can tell apart.

Times become what guards make of them, an attempt's id whose it is, a trigger whether it was acted upon.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from tests.property.histories import History
from tests.property.rig import Rig

from rackwright.api.machine import BareMetalMachineSpec, OperationName
from rackwright.lifecycle.differences import differences
from rackwright.lifecycle.guards import (
    agent_heard,
    agent_lost,
    gates_closed,
    gave_up,
    overdue,
    retry_ahead,
    stage_overdue,
    was_held_up,
)
from rackwright.lifecycle.operations import limits
from rackwright.lifecycle.reasons import STATUS_LOST
from rackwright.lifecycle.world import World

_release_failed, _rescue_failed = gave_up(OperationName.RELEASE), gave_up(OperationName.RESCUE)
_TRIGGERS = {"commissioning": {"trigger"}, "deployment": {"trigger"}, "power_cycle": {"trigger"}}


def likeness(history: History) -> Hashable:
    """What is kept of a world; two of the same likeness are explored once."""
    rig, chronicle = history.rig, history.chronicle
    if not rig.exists:
        return "gone"
    memory = replace(rig.memory)
    world = rig.world()
    rig.memory = memory  # looking is not a pass
    return (
        _declared(rig, world),
        _recorded(rig, world),
        _metal(rig, world),
        _remembered(rig, world),
        (chronicle.serves, chronicle.wipe_asked, chronicle.blind),
        (frozenset(chronicle.excused), frozenset(chronicle.written)),
    )


_classes: dict[int, tuple[BareMetalMachineSpec, str]] = {}
"""By identity, and the spec beside it so that no other takes its place."""


def _declared(rig: Rig, world: World) -> Hashable:
    spec, observed = rig.spec, world.status.observed_triggers
    known = _classes.get(id(spec))
    if known is None:
        known = _classes[id(spec)] = (spec, spec.model_dump_json(exclude=_TRIGGERS))
    pulled = (
        spec.commissioning.trigger != observed.commissioning,
        spec.deployment is not None and spec.deployment.trigger != observed.deployment,
        spec.power_cycle.trigger != observed.power_cycle,
    )
    return known[1], pulled, rig.deleting, rig.force_delete, rig.held, rig.kept_by_others, rig.image_missing


def _recorded(rig: Rig, world: World) -> Hashable:
    status, operation, installed = world.status, world.status.operation, world.status.installed
    attempt: Hashable = None
    if operation is not None:
        last = limits(rig.spec, operation.name)[1]
        attempt = (
            operation.name,
            operation.step,
            (operation.attempt == 1, operation.attempt >= last),
            (operation.next_retry_at is not None, retry_ahead(world), overdue(world), stage_overdue(world)),
        )
    return (
        status.phase,
        status.owner,
        attempt,
        (was_held_up(world), gates_closed(world)),
        (status.rescued_from, status.rescue is not None, status.hardware is not None),
        (_release_failed(world), _rescue_failed(world)),
        status.last_failure.operation if status.last_failure is not None else None,
        tuple((erasure.device, erasure.method, erasure.verified) for erasure in status.erasure),
        (installed.image, installed.disk, installed.at is not None) if installed is not None else None,
        (bool(differences(world)), rig.evidence is not None, rig.evidence == installed),
        status.phase is None and rig.restored and any(c.reason == STATUS_LOST for c in status.own_conditions),
        status.phase is None and rig.restored,
    )


def _metal(rig: Rig, world: World) -> Hashable:
    metal, operation = rig.metal, world.status.operation
    ramdisk, mine = metal.ramdisk, operation.id if operation is not None else None
    return (
        (metal.on, metal.running, metal.next_boot, metal.scribbled, frozenset(metal.owned_by)),
        metal.image if metal.image == "existing" else metal.image is not None,
        (metal.first_boot_due is not None, metal.first_boot_due == mine),
        ramdisk is not None and replace(ramdisk, attempt=str(ramdisk.attempt == mine)).__repr__(),
    )


def _remembered(rig: Rig, world: World) -> Hashable:
    memory, operation = rig.memory, world.status.operation
    if operation is None:
        return memory.power
    mine = operation.id
    return (
        memory.power,
        memory.session is not None and memory.session[0] == mine,
        (memory.inspected == mine, memory.kept == mine, memory.first_boot == mine),
        (agent_heard(world), agent_lost(world)),
    )
