"""The eight safety invariants, each a function of one pass that raises AssertionError, and what they remember.

They look at three things: what was recorded before and after the pass, what was carried out, and what the simulated
metal really holds. They don't look at the table, so that a wrong row can't excuse itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.property.metal import DISKS
from tests.property.rig import Moment, Rig
from tests.unit.lifecycle.worlds import impossibilities

from rackwright.api.machine import (
    BareMetalMachineSpec,
    BareMetalMachineStatus,
    EraseMode,
    Installed,
    Operation,
    OperationName,
    Phase,
    Power,
)
from rackwright.lifecycle.differences import configuration
from rackwright.lifecycle.reasons import FAULTS, SENTENCES
from rackwright.lifecycle.steps import (
    Action,
    BootDisk,
    BootRamdisk,
    EraseDisks,
    Hold,
    KeepInventory,
    LetGo,
    OpenRescue,
    PowerOff,
    PowerOn,
    RecordEvidence,
    Rest,
    Stage,
    TakeHold,
    Wait,
    WriteImage,
)
from rackwright.lifecycle.world import CommandState

POWER = (PowerOff, PowerOn, BootRamdisk, BootDisk)
METADATA = (TakeHold, LetGo, RecordEvidence)
WORKING = (Phase.COMMISSIONING, Phase.DEPLOYING, Phase.RELEASING)
LONGEST_PAUSE = 2 * timedelta(minutes=18)
"""Twice the longest back-off with its spread: nothing looks away for longer, not even if the clock is set back."""


@dataclass(slots=True)
class Chronicle:
    """What is true of a machine beyond its record: what only a witness of its whole history knows."""

    serves: str | None = None
    """The owner whose system came up, was recorded as Deployed, and is noted in the annotation."""
    wipe_asked: bool = False
    """Whether somebody asked, since then, for what is installed to go."""
    excused: set[str] = field(default_factory=set)
    """Owners whose data was left on the disks because the release policy was None."""
    attempts: dict[str, tuple[OperationName, int]] = field(default_factory=dict)
    """Which attempt each id belonged to."""
    written: set[str] = field(default_factory=set)
    """Disks that an image was begun to be written to, since what was on all of them was let go of."""
    blind: bool = False
    """Whether somebody else's word was taken for what is on the disks: who adopted it, or an old annotation."""

    def asked(self, old: BareMetalMachineSpec, new: BareMetalMachineSpec) -> None:
        """Somebody declared something else."""
        withdrawn = new.deployment is None or new.allocation is None
        retriggered = (
            old.deployment is not None
            and new.deployment is not None
            and new.deployment.trigger != old.deployment.trigger
        )
        self.wipe_asked = self.wipe_asked or withdrawn or retriggered

    def noted(self, rig: Rig, moment: Moment) -> None:
        """Remember what this pass made true."""
        after = moment.after
        if after.phase is Phase.DEPLOYED and after.owner is not None and rig.evidence == after.installed:
            if self.serves is None:
                self.wipe_asked = rig.deleting or _withdrawn(rig.spec, after) or _retriggered(rig.spec, after)
            self.serves = after.owner
            rig.metal.owned_by.add(after.owner)
            self.excused.discard(after.owner)
        if moment.before.installed is not None and after.installed is None and moment.before.phase is not None:
            if rig.spec.release.erase is EraseMode.NONE and not rig.metal.blank:
                self.excused |= rig.metal.owned_by
            self.serves, self.wipe_asked = None, False
            self.written.clear()
        if isinstance(moment.action, WriteImage | EraseDisks) and moment.fault is None:
            if self.blind:
                self.written.clear()
            self.serves, self.blind = None, False
        if isinstance(moment.action, WriteImage) and moment.fault is None and rig.root_disk is not None:
            self.written.add(rig.root_disk)
        if after.phase is Phase.DEPLOYED is not moment.before.phase:
            self.blind = self.blind or (rig.spec.deployment is not None and rig.spec.deployment.existing)
        if after.operation is not None:
            self.attempts[after.operation.id] = (after.operation.name, after.operation.attempt)


def _withdrawn(spec: BareMetalMachineSpec, status: BareMetalMachineStatus) -> bool:
    return spec.deployment is None or spec.allocation is None or spec.allocation.owner != status.owner


def _retriggered(spec: BareMetalMachineSpec, status: BareMetalMachineStatus) -> bool:
    return spec.deployment is not None and spec.deployment.trigger != status.observed_triggers.deployment


# --- the eight ---------------------------------------------------------------------------------------------------


def disks_are_written_only_where_that_was_declared(_: Chronicle, rig: Rig, moment: Moment) -> None:
    """A disk is written only in Deploying (allocated, deployment declared), in Releasing, or by a destructive test.

    (Such a test has to be asked for by name on a machine with nothing installed; there is none yet.)
    """
    before, spec = moment.before, moment.world.spec
    if isinstance(moment.action, WriteImage):
        assert before.phase is Phase.DEPLOYING
        assert spec.allocation is not None
        assert spec.allocation.owner == before.owner
        assert spec.deployment is not None
        assert spec.deployment.image is not None
        assert not moment.world.deleting
        ramdisk = moment.metal.ramdisk
        assert ramdisk is None or ramdisk.command is not CommandState.SUCCEEDED, "a finished image is written again"
    elif isinstance(moment.action, EraseDisks):
        assert before.phase is Phase.RELEASING
        assert spec.release.erase is not EraseMode.NONE
    else:
        assert rig.metal.writes == moment.metal.writes
        assert rig.metal.erasures == moment.metal.erasures


def no_system_stays_behind_on_another_disk(chronicle: Chronicle, rig: Rig, moment: Moment) -> None:
    """An image is written over the one before it, or after an erase: what starts next is what was installed last.

    (Unless somebody else's word was taken for what is on the disks.)
    """
    if isinstance(moment.action, WriteImage) and moment.fault is None and not chronicle.blind:
        assert chronicle.written <= {rig.root_disk}, f"{chronicle.written} could start instead of {rig.root_disk}"


def deployed_machines_are_left_running(_: Chronicle, rig: Rig, moment: Moment) -> None:
    """A Deployed machine is power-cycled only if spec asks for it (power, rescue, release).

    (Nor is one that is Broken, which is powered as it was found, or one that nobody trusts yet.)
    """
    spec, before = moment.world.spec, moment.before
    if before.phase in (Phase.DEPLOYED, Phase.BROKEN, Phase.NEW, None) and isinstance(moment.action, POWER):
        assert before.phase is Phase.DEPLOYED, f"{moment.action} at {before.phase}"
        assert isinstance(moment.action, PowerOff | PowerOn)
        wished = spec.power == ("Off" if isinstance(moment.action, PowerOff) else "On")
        restart = before.operation is not None and before.operation.name is OperationName.RESTART
        assert wished or restart
    began = moment.after.operation is not None and moment.after.operation != before.operation
    if began and moment.after.operation is not None and moment.after.operation.name is OperationName.RESTART:
        asked_before = before.observed_triggers.power_cycle
        retried = moment.after.operation.attempt > 1 or before.operation is not None
        assert retried or spec.power_cycle.trigger != asked_before, "a restart that nobody asked for"
        assert retried or moment.world.seen.power is Power.ON, "a machine that is off is restarted"
    leaving = [t.after for t in moment.decision.transitions if t.before is Phase.DEPLOYED]
    for after in leaving:
        asked = {
            Phase.BROKEN: spec.broken is not None,
            Phase.RESCUE: spec.rescue is not None and not rig.deleting,
            Phase.RELEASING: rig.deleting or _withdrawn(spec, before),
            Phase.DEPLOYING: _retriggered(spec, before),
        }
        assert after in asked, f"Deployed → {after}"
        assert asked[after], f"Deployed → {after} was not asked for"


def what_is_installed_is_forgotten_only_by_an_erase(chronicle: Chronicle, rig: Rig, moment: Moment) -> None:
    """What is installed (`status.installed`) is forgotten only by a successful erase.

    Broken, Rescue, recommissioning, operator restarts, lost status and restored backups never lead to a wipe or
    re-install of a machine that had an owner.
    """
    before, after = moment.before, moment.after
    if before.installed is not None and after.installed is None:
        assert Phase.RELEASING in (before.phase, *(t.after for t in moment.decision.transitions))
        assert rig.metal.blank or moment.world.spec.release.erase is EraseMode.NONE
    if _came_up(before) and not _came_up(after) and after.installed is not None:
        assert after.operation is not None
        assert after.operation.step in (Stage.WRITE_IMAGE, Stage.ERASE_DISKS)
    if isinstance(moment.action, LetGo) and before.installed is not None and not moment.world.force_delete:
        adopted = moment.world.spec.deployment is not None and moment.world.spec.deployment.existing
        assert adopted, "let go with something installed"
    if isinstance(moment.action, WriteImage | EraseDisks) and chronicle.serves is not None:
        assert chronicle.wipe_asked, f"{chronicle.serves}'s system is wiped, and nobody asked"


def a_machine_has_one_owner_and_gets_one_only_when_ready(_: Chronicle, rig: Rig, moment: Moment) -> None:
    """At most one owner; only a Ready machine becomes Allocated; Failed and Broken never do."""
    before, after = moment.before, moment.after
    path = [(t.before, t.after) for t in moment.decision.transitions]
    if after.owner is not None and after.owner != before.owner:
        adopted = rig.spec.deployment is not None and rig.spec.deployment.existing and after.phase is Phase.DEPLOYED
        restored = before.phase is None and rig.evidence is not None
        assert (Phase.READY, Phase.ALLOCATED) in path or adopted or restored
        assert before.owner is None or after.phase is Phase.ALLOCATED or Phase.READY in [a for _, a in path]
        excused = adopted or restored or _excused(rig, before)
        assert rig.metal.blank or rig.metal.owned_by <= {after.owner} or excused
    for start, end in path:
        if end is Phase.ALLOCATED:
            kept = start in (Phase.COMMISSIONING, Phase.RELEASING, Phase.RESCUE)
            assert start is Phase.READY or (kept and before.owner is not None), f"{start} → Allocated"
        if start in (Phase.FAILED, Phase.BROKEN):
            assert end is not Phase.DEPLOYING


def _excused(rig: Rig, before: BareMetalMachineStatus) -> bool:
    return before.phase is not None and any(e.method == "None" for e in rig.status.erasure + before.erasure)


def intent_is_recorded_before_the_action(chronicle: Chronicle, _: Rig, moment: Moment) -> None:
    """Intent is in status before the action, and every step may be repeated after a crash.

    An operation's id, attempt and deadline are persisted before a BMC or an agent hears of it.
    """
    before, after, action = moment.before, moment.after, moment.action
    if action is not None and moment.fault is None:
        assert after == before, "an action that succeeded doesn't change status: the next pass observes"
    if isinstance(action, Action) and not isinstance(action, METADATA):
        _assert_announced(before, action, moment)
    for status in (before, after):
        operation = status.operation
        if operation is not None and operation.id in chronicle.attempts:
            assert chronicle.attempts[operation.id] == (operation.name, operation.attempt), "an id names one attempt"


def _still_to_come(moment: datetime, operation: Operation, now: datetime) -> bool:
    """Whether an attempt may wait for this: never for longer than twice what was meant, which is a clock set back."""
    return now < moment <= now + 2 * (moment - operation.started_at)


def _assert_announced(before: BareMetalMachineStatus, action: Action, moment: Moment) -> None:
    operation = before.operation
    if operation is None:
        assert before.phase not in WORKING
        assert isinstance(action, PowerOff | PowerOn)
        return
    due, now = operation.next_retry_at, moment.world.now
    assert due is None or moment.world.hurry or not _still_to_come(due, operation, now)
    if isinstance(action, BootRamdisk | BootDisk | WriteImage | EraseDisks | OpenRescue):
        assert operation.step == action.stage
    if isinstance(action, KeepInventory):
        assert operation.name is OperationName.COMMISSION or before.hardware is None
    if isinstance(action, WriteImage):
        deployment = moment.world.spec.deployment
        assert deployment is not None
        declared = Installed(
            image=deployment.image,
            checksum=moment.world.seen.image_checksum,
            disk=moment.world.seen.root_disk,
            configuration=configuration(moment.world.spec, moment.world.name),
        )
        assert before.installed == declared, "what is about to be written is recorded as installed"
    if isinstance(action, EraseDisks):
        assert not _came_up(before), "what is about to be erased doesn't run any more"
        assert before.hardware is not None, "erased without knowing which disks there are"


def _came_up(status: BareMetalMachineStatus) -> bool:
    return status.installed is not None and status.installed.at is not None


def every_transient_phase_ends(_: Chronicle, rig: Rig, moment: Moment) -> None:
    """Every transient phase ends: success, Failed, or the spec changed.

    No state waits without a deadline and a reason.
    """
    decision, after = moment.decision, moment.after
    if after.phase in WORKING:
        assert after.operation is not None, f"{after.phase} without an operation has no deadline"
    operation = after.operation
    if operation is not None:
        assert operation.attempt <= 10
        assert operation.deadline - operation.started_at <= timedelta(hours=24) + LONGEST_PAUSE
    waiting = moment.before.operation
    due = waiting.next_retry_at if waiting is not None else None
    if waiting is not None and due is not None and _still_to_come(due, waiting, rig.now):
        same = operation is not None and operation.id == waiting.id
        stopped = isinstance(decision.step, PowerOff) or moment.world.hurry
        assert (
            not same
            or stopped
            or operation == waiting.model_copy(update={"message": operation.message if operation else ""})
        ), "an attempt is made before its time"
    if waiting is not None and operation is not None and operation.attempt == waiting.attempt + 1:
        stopped = isinstance(decision.step, PowerOff)
        assert stopped or operation.next_retry_at is not None, "another attempt is made at once"
    step = decision.step
    assert decision.reason in SENTENCES or decision.reason in FAULTS or decision.message, decision.reason
    assert decision.reason.isidentifier(), decision.reason
    assert decision.message.endswith((".", "?", "!")) or decision.reason == "MarkedBroken", decision.message
    if isinstance(step, Wait | Rest | Hold):
        assert timedelta() < decision.look_again <= LONGEST_PAUSE
    if isinstance(step, Wait):
        assert operation is not None, f"{decision.reason} waits without a deadline"
        begun = operation.next_retry_at is None
        turn = moment.world.seen.queued is not None and operation.step == Stage.START  # its time begins with that
        assert turn or rig.now < operation.deadline, f"{decision.reason} waits beyond its deadline"
        ahead = turn or not begun or _still_to_come(operation.deadline, operation, rig.now)
        assert ahead, "a clock set back is waited for"
    if operation is not None and isinstance(step, Rest) and moment.world.held:
        raise AssertionError(f"{decision.reason} rests in the middle of {operation.name}")


def released_means_erased(chronicle: Chronicle, rig: Rig, moment: Moment) -> None:
    """Released means erased: Ready after Deployed implies erase evidence for every disk.

    (Or policy None, recorded as such.)
    """
    before, after = moment.before, moment.after
    if moment.world.spec.release.fault is not None:
        given = {t.after for t in moment.decision.transitions if t.before is Phase.RELEASING}
        assert given <= {Phase.BROKEN, Phase.FAILED}, "its owner reported a fault, and it is given away again"
    released = any(
        t.before is Phase.RELEASING and t.after in (Phase.READY, Phase.ALLOCATED) for t in moment.decision.transitions
    )
    unwanted = moment.world.spec.release.erase is EraseMode.NONE
    if released and before.installed is not None:
        erased = {e.device for e in after.erasure if e.verified}
        left = unwanted and any(e.method == "None" and not e.verified for e in after.erasure)
        begun = after.operation is not None  # the next deployment has taken the evidence's place
        assert erased == set(DISKS) or left or (begun and (rig.metal.blank or unwanted))
    if after.phase is Phase.READY or Phase.READY in [t.after for t in moment.decision.transitions]:
        excused = chronicle.excused | (rig.metal.owned_by if unwanted else set())
        assert rig.metal.owned_by <= excused, f"Ready with {rig.metal.owned_by} on its disks"


def a_locked_machine_is_left_alone(_: Chronicle, __: Rig, moment: Moment) -> None:
    """Nothing but unlocking has an effect: nothing is done to the machine, and it stays in the phase that it is in."""
    if moment.world.spec.locked:
        assert moment.action is None or isinstance(moment.action, TakeHold | RecordEvidence), moment.action
        assert not moment.decision.transitions
        assert moment.after.operation == moment.before.operation or _only_said(moment)


def _only_said(moment: Moment) -> bool:
    before, after = moment.before.operation, moment.after.operation
    return before is not None and after is not None and before == after.model_copy(update={"message": before.message})


def the_pool_waits_for_its_gates(_: Chronicle, __: Rig, moment: Moment) -> None:
    """A machine leaves Commissioning for Ready, and is given to somebody, only while every readiness gate is True."""
    gates = {gate.condition_type for gate in moment.world.spec.readiness_gates}
    true = {condition.type for condition in moment.before.conditions if condition.status == "True"}
    for transition in moment.decision.transitions:
        joins = (transition.before, transition.after) == (Phase.COMMISSIONING, Phase.READY)
        if joins or (transition.before, transition.after) == (Phase.READY, Phase.ALLOCATED):
            assert gates <= true, f"{transition.before} → {transition.after} with {gates - true} closed"


def what_is_recorded_is_possible(_: Chronicle, __: Rig, moment: Moment) -> None:
    """A status says nothing that contradicts itself: READY has nothing installed, and an owner goes with a phase."""
    assert not impossibilities(moment.after), impossibilities(moment.after)


Invariant = Callable[[Chronicle, Rig, Moment], None]

INVARIANTS: tuple[Invariant, ...] = (
    disks_are_written_only_where_that_was_declared,
    no_system_stays_behind_on_another_disk,
    deployed_machines_are_left_running,
    what_is_installed_is_forgotten_only_by_an_erase,
    a_machine_has_one_owner_and_gets_one_only_when_ready,
    intent_is_recorded_before_the_action,
    every_transient_phase_ends,
    released_means_erased,
    a_locked_machine_is_left_alone,
    the_pool_waits_for_its_gates,
    what_is_recorded_is_possible,
)
"""Checked after every pass; the seventh of the eight, that a willing machine settles, is checked in `settling.py`."""
