"""Invariant 7: a willing machine settles.

From any reachable world, with a BMC and an agent that eventually answer, status reaches what spec declares. Where it
stops short of that, a person is needed, and the reason says so; the person then does what the reason asks for, and
after that there is no excuse left.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from tests.property.admission import Refused
from tests.property.invariants import Chronicle
from tests.property.metal import Running
from tests.property.rig import Rig
from tests.unit.lifecycle.worlds import declared

from rackwright.api.conditions import ConditionType
from rackwright.api.machine import BareMetalMachineStatus, ObservedTriggers, Phase, RootDeviceHints
from rackwright.lifecycle.by_hand import moved_by_hand
from rackwright.lifecycle.decide import Decision
from rackwright.lifecycle.steps import Action, Hold, Rest, Wait

HELD = (
    "DeletionBlocked",
    "DeclarationLost",
    "StatusLost",
    "BMCMissing",
    "NothingToAdopt",
    "SystemOnOtherDisk",
    "Locked",
)
MOST_PASSES = 150
"""The longest way there is: three attempts at every operation that a machine can be sent through."""


def willing(rig: Rig) -> None:
    """Nothing goes wrong any more."""
    metal = rig.metal
    metal.bmc_silent = metal.secret_missing = metal.on_its_way = False
    metal.commands_fail = metal.stubborn_disk = False
    metal.refusals = 0
    metal.calls_home = True
    rig.twin, rig.image_missing, rig.others_install = None, False, False
    for gate in rig.spec.readiness_gates:
        rig.write_condition(gate.condition_type, "True")


def settle(rig: Rig) -> Decision:
    """Run passes, with a clock and a metal that oblige, until there is nothing left to do."""
    decision = None
    for _ in range(MOST_PASSES):
        before = rig.stored
        decision = rig.once()
        if not rig.exists:
            return decision
        if isinstance(decision.step, Rest | Hold) and rig.stored == before:
            return decision
        if isinstance(decision.step, Wait):
            rig.advance(min(decision.look_again, timedelta(minutes=15)))
            rig.oblige()
        elif not isinstance(decision.step, Action):
            rig.advance(timedelta(seconds=1))
    raise AssertionError(f"it doesn't settle: {rig.status.phase}, {decision and decision.reason}")


# --- where a person is needed ------------------------------------------------------------------------------------


def awaits_a_person(rig: Rig, decision: Decision) -> bool:
    """Whether the machine legitimately stops short of what is declared.

    Failed: attempts were used up, and nothing that may go on by itself is left. DeletionBlocked: deleted while
    marked broken. DeclarationLost: the annotation says that something is installed, and nothing says whose it is.
    StatusLost: the record comes from a backup, and nothing says whether something is installed.
    BMCMissing: what is declared needs a BMC, and spec names none. NothingToAdopt: it is said to run, and is off.
    SystemOnOtherDisk: hints choose another disk than the one that was written to. Broken: a rescue used up its
    attempts. Locked: something is to be done, and the operator was told to stand down.
    """
    if not isinstance(decision.step, Hold):
        return False
    if rig.status.phase is Phase.FAILED or decision.reason in HELD:
        return True
    return rig.status.phase is Phase.BROKEN and rig.spec.rescue is not None


def person(chronicle: Chronicle, rig: Rig, decision: Decision) -> None:
    """Do what the reason asks for, once."""
    spec = rig.spec
    match decision.reason:
        case "StatusLost" if rig.metal.image is not None:
            owner = spec.allocation.owner if spec.allocation else "a"
            runs = declared(owner=owner, existing=True)
            rig.declare(spec.model_copy(update={"allocation": runs.allocation, "deployment": runs.deployment}))
        case "StatusLost":
            rig.restored, rig.held = False, rig.deleting
            chronicle.excused |= rig.metal.owned_by  # nothing that is there is needed, says who removes the annotation
        case "DeclarationLost":
            if rig.deleting:
                rig.force_delete = True
            else:
                owner = spec.allocation.owner if spec.allocation else "a"
                again = declared(owner=owner, image="debian-12")
                rig.declare(spec.model_copy(update={"allocation": again.allocation, "deployment": again.deployment}))
        case "BMCMissing":
            rig.declare(spec.model_copy(update={"bmc": declared().bmc}))
        case "NothingToAdopt":
            rig.declare(spec.model_copy(update={"deployment": declared(owner="a", image="debian-12").deployment}))
        case "SystemOnOtherDisk":
            assert rig.status.installed is not None
            hints = RootDeviceHints(device_name=rig.status.installed.disk)
            storage = spec.storage.model_copy(update={"root_device_hints": hints})
            rig.declare(spec.model_copy(update={"storage": storage}))
        case "Locked":
            rig.declare(spec.model_copy(update={"locked": False}))
        case _ if rig.status.phase is Phase.BROKEN:
            repaired = spec.release.model_copy(update={"fault": None})
            rig.declare(spec.model_copy(update={"broken": None, "release": repaired}))
        case _:
            retry = spec.commissioning.model_copy(update={"trigger": f"{spec.commissioning.trigger}!"})
            changes = {"commissioning": retry, "bmc": spec.bmc or declared().bmc}
            rig.declare(spec.model_copy(update=changes))


# --- what is declared --------------------------------------------------------------------------------------------


def assert_settled(chronicle: Chronicle, rig: Rig, decision: Decision) -> None:
    """Status is what spec declares, and the metal is what status says."""
    if rig.deleting:
        assert not rig.exists or (rig.kept_by_others and not rig.held), (
            f"deleted, and held: {rig.status.phase}, {decision.reason}"
        )
        return
    phases = expected(rig)
    status = rig.status
    assert status.phase is not None
    assert status.phase in phases, f"{status.phase}, not {' or '.join(phases)}: {decision.reason}"
    assert status.operation is None
    assert decision.reason in phases[status.phase], decision.reason
    ready = next(c.status for c in status.conditions if c.type == ConditionType.READY)
    assert ready == ("True" if isinstance(decision.step, Rest) and decision.step.settled else "False")
    _assert_owner(rig, status)
    _assert_metal(chronicle, rig, status)


def expected(rig: Rig) -> Mapping[Phase, tuple[str, ...]]:
    """Where the machine may come to rest, and with which reasons."""
    spec, status = rig.spec, rig.status
    live = spec.deployment is not None and spec.deployment.existing
    if spec.rescue is not None and (spec.accepted or status.phase is not Phase.NEW):
        return {Phase.RESCUE: ("RescueOpen",)}
    if spec.broken is not None:
        return {Phase.BROKEN: ("MarkedBroken",)}
    if spec.release.fault is not None and status.phase is Phase.BROKEN:
        return {Phase.BROKEN: ("FaultReported",)}
    untrusted: dict[Phase, tuple[str, ...]] = {} if spec.accepted or live else {Phase.NEW: ("AwaitingAcceptance",)}
    if spec.deployment is not None:
        runs = (
            "SwitchedOff" if rig.metal.on is False and not moved_by_hand(spec) and spec.bmc is not None else "Running"
        )
        return {**untrusted, Phase.DEPLOYED: (runs, "ReinstallNeeded")}
    if spec.allocation is not None:
        return {**untrusted, Phase.ALLOCATED: ("AwaitingDeployment",)}
    return untrusted or {Phase.READY: ("Available",)}


def _assert_owner(rig: Rig, status: BareMetalMachineStatus) -> None:
    if status.phase in (Phase.ALLOCATED, Phase.DEPLOYED):
        assert rig.spec.allocation is not None
        assert status.owner == rig.spec.allocation.owner


def _assert_metal(chronicle: Chronicle, rig: Rig, status: BareMetalMachineStatus) -> None:
    metal, spec = rig.metal, rig.spec
    if status.phase is Phase.READY:
        assert metal.owned_by <= chronicle.excused
        if spec.bmc is not None and not moved_by_hand(spec):
            assert metal.on == (spec.power == "On")
    if status.phase in (Phase.ALLOCATED, Phase.DEPLOYED) and spec.power is not None and spec.bmc is not None:
        assert metal.on == (spec.power == "On")
    if status.phase is Phase.DEPLOYED and spec.deployment is not None:
        assert (
            status.observed_triggers
            == ObservedTriggers(
                commissioning=status.observed_triggers.commissioning,
                deployment=spec.deployment.trigger,
                power_cycle=status.observed_triggers.power_cycle,
            )
            or spec.deployment.existing
        )
        assert status.installed is not None
        assert status.installed.at is not None, "Deployed, and nothing ever reported"
        if not spec.deployment.existing and not chronicle.blind:
            assert metal.image is not None, "Deployed, and nothing that boots is on its disk"
            assert metal.running is not Running.RAMDISK or moved_by_hand(spec), "Deployed, and still in the ramdisk"


def assert_settles(chronicle: Chronicle, rig: Rig) -> None:
    """From here, with a willing machine and a person who does what is asked of them, it gets where spec says."""
    willing(rig)
    helped: list[str] = []
    decision = settle(rig)
    while rig.exists and awaits_a_person(rig, decision):
        phase = rig.status.phase
        held = phase in (Phase.FAILED, Phase.BROKEN) and decision.reason not in ("BMCMissing", "Locked")
        reason = str(phase) if held else decision.reason
        assert reason not in helped, f"a person did what {reason} asks for, and it was no use: {decision.reason}"
        helped.append(reason)
        before = rig.spec
        try:
            person(chronicle, rig, decision)
        except Refused:  # pragma: no cover
            raise AssertionError(f"what {reason} asks for is refused") from None
        chronicle.asked(before, rig.spec)
        decision = settle(rig)
    assert_settled(chronicle, rig, decision)
