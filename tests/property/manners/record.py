"""Manners: what becomes of the record itself."""

from __future__ import annotations

from tests.property.manners.passes import (
    RESTING,
    in_ramdisk,
    is_at,
    lost_its_status,
    path,
    same_attempt,
    unclaimed,
    unhindered,
)
from tests.property.rig import Moment

from rackwright.api.machine import Phase
from rackwright.lifecycle.by_hand import moved_by_hand
from rackwright.lifecycle.guards import (
    adopted,
    deletion_forced,
    evidence_stale,
    inventory_kept,
    live_machine,
    marked_broken,
    no_bmc,
    overdue,
    powered_on,
    under_way,
)
from rackwright.lifecycle.steps import Hold, LetGo, PowerOff, RecordEvidence, Rest, TakeHold


def nothing_is_done_before_the_record_is_held(moment: Moment) -> None:
    """The operator puts its finalizer on the record before it does anything, and does that once."""
    world, action = moment.world, moment.action
    if world.held:
        assert not isinstance(action, TakeHold), "it is held already"
        return
    if world.deleting or world.seen.twin is not None:
        assert action is None, f"{action}, and it isn't held"
    else:
        assert isinstance(action, TakeHold), "it isn't held at once"
    assert not path(moment), "it goes on, and isn't held"
    assert same_attempt(moment) or not under_way(world), "something is begun, and it isn't held"


def what_is_done_with_its_ramdisk_is_switched_off_at_once(moment: Moment) -> None:
    """That a machine has told what it is made of is written with what comes of it, unless a person switches it off."""
    world = moment.world
    told = is_at(moment, Phase.COMMISSIONING) and in_ramdisk(world) and inventory_kept(world) and powered_on(world)
    goes_on = unhindered(moment) and not overdue(world) and not no_bmc(world) and not live_machine(world)
    if told and goes_on and not moved_by_hand(world.spec):
        assert isinstance(moment.action, PowerOff), "a write of its own"


def a_twin_is_never_touched(moment: Moment) -> None:
    """Another machine has the same boot MAC address or BMC and comes first; this one is not touched."""
    if moment.world.seen.twin is None or isinstance(moment.action, LetGo):
        return
    assert moment.action is None, f"{moment.action} beside a twin"
    assert not path(moment), "it goes on beside a twin"
    let_go = moment.world.deleting and not moment.world.held
    assert isinstance(moment.decision.step, Rest if let_go else Hold), "it isn't held beside a twin"


def a_deleted_record_is_let_go_of(moment: Moment) -> None:
    """A deleted machine is released first; the annotation `force-delete` lets go of the record at once.

    What holds nothing that is ours to erase needs no release, one that is on for its inspection is switched off before,
    and what was let go of isn't spoken to any more.
    """
    world, step = moment.world, moment.decision.step
    assert world.deleting or not isinstance(moment.action, LetGo), "let go of, and nobody deleted it"
    if not world.deleting or world.spec.locked or moment.fault is not None:
        return
    if not world.held:
        assert isinstance(step, Rest), "something is done to a record that was let go of"
        return
    nothing = unclaimed(world) and not lost_its_status(moment)
    at_rest = nothing and (is_at(moment, None, *RESTING) or world.seen.twin is not None)
    never_ours = adopted(world) and live_machine(world) and is_at(moment, Phase.DEPLOYED, Phase.BROKEN, Phase.FAILED)
    if deletion_forced(world) or at_rest or never_ours:
        assert isinstance(moment.action, LetGo), "its record is kept"
    elif nothing and is_at(moment, Phase.COMMISSIONING) and not marked_broken(world):
        assert isinstance(step, PowerOff if powered_on(world) else LetGo), "it is commissioned, and was deleted"


def what_is_installed_is_noted(moment: Moment) -> None:
    """What is installed is noted in an annotation, which a backup keeps; at rest it says so at once."""
    world = moment.world
    stale = evidence_stale(world) and is_at(moment, *RESTING)
    if isinstance(moment.action, RecordEvidence):
        assert stale, "noted, and it was"
    elif stale and world.held and world.seen.twin is None and not isinstance(moment.action, LetGo):
        goes = world.deleting and world.spec.locked  # once it is unlocked
        assert goes, "what is installed isn't noted"
