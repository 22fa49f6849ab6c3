"""Random histories of one machine: what people, metal, surroundings and operator do, in any order.

A history is data: where it begins, and a list of events from a fixed collection. Each event is a function with a
sentence for a name, so that a failing history that Hypothesis has shrunk reads as a story.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache

from hypothesis import strategies as st
from tests.property.admission import Refused
from tests.property.invariants import INVARIANTS, Chronicle
from tests.property.manners import MANNERS
from tests.property.metal import Metal, Running
from tests.property.rig import Crash, Moment, Rig
from tests.property.settling import assert_settles, settle, willing
from tests.unit.lifecycle.worlds import KEY, declared

from rackwright.api.machine import BareMetalMachineSpec, PowerCycle
from rackwright.lifecycle.steps import Wait

GATE = "example.org/BurnIn"
CHANGES: dict[str, dict[str, object]] = {
    "withdraw everything": {"allocation": None, "deployment": None},
    "withdraw deployment": {"deployment": None},
    "allocate to a": {"allocation": {"owner": "a"}},
    "allocate to b": {"allocation": {"owner": "b"}},
    "deploy debian": {"allocation": {"owner": "a"}, "deployment": {"image": "debian-12"}},
    "deploy fedora": {"allocation": {"owner": "a"}, "deployment": {"image": "fedora-42"}},
    "deploy for b": {"allocation": {"owner": "b"}, "deployment": {"image": "debian-12"}},
    "deploy impatiently": {
        "allocation": {"owner": "a"},
        "deployment": {"image": "debian-12", "timeout": "10m", "maxAttempts": 1},
    },
    "adopt": {"allocation": {"owner": "a"}, "deployment": {"existing": True}},
    "mark broken": {"broken": {"reason": "DIMM A3."}},
    "mend": {"broken": None},
    "rescue": {"rescue": {"sshAuthorizedKeys": [KEY]}},
    "rescue impatiently": {"rescue": {"sshAuthorizedKeys": [KEY], "maxAttempts": 1}},
    "end rescue": {"rescue": None},
    "power on": {"power": "On"},
    "power off": {"power": "Off"},
    "leave power": {"power": None},
    "distrust": {"accepted": False},
    "trust": {"accepted": True},
    "erase nothing": {"release": {"erase": "None"}},
    "erase all": {"release": {"erase": "Full"}},
    "erase impatiently": {"release": {"erase": "Full", "maxAttempts": 1}},
    "commission impatiently": {"commissioning": {"maxAttempts": 1}},
    "lock": {"locked": True},
    "unlock": {"locked": False},
    "report a fault": {"release": {"fault": {"summary": "It smells."}}},
    "repair": {"release": {}},
    "gate": {"readinessGates": [{"conditionType": GATE}]},
    "ungate": {"readinessGates": []},
    "another key": {"allocation": {"owner": "a"}, "deployment": {"image": "debian-12", "sshAuthorizedKeys": [KEY]}},
    "choose another disk": {"storage": {"rootDeviceHints": {"deviceName": "/dev/sdb"}}},
    "choose the disk again": {"storage": {}},
    "move it by hand": {"bmc": {"address": "manual://"}, "power": None, "powerCycle": {}},
    "take the BMC away": {"bmc": None, "accepted": False},
    "give it a BMC": {"bmc": {"address": "redfish+https://10.0.0.7/redfish/v1/Systems/1"}, "accepted": True},
}
"""What people apply, as merge patches; what the API server refuses changes nothing."""


@dataclass
class History:
    """One machine and what happens to it, watched by the invariants."""

    rig: Rig
    chronicle: Chronicle = field(default_factory=Chronicle)

    def watched(self) -> History:
        """The same up to now, and from now on under the invariants' eyes."""
        again = copy.deepcopy(self)
        again.rig.watch = again.check
        return again

    def check(self, rig: Rig, moment: Moment) -> None:
        """Every promise, and then what they have to remember."""
        for holds in INVARIANTS:
            holds(self.chronicle, rig, moment)
        for minds in MANNERS:
            minds(moment)
        self.chronicle.noted(rig, moment)

    def apply(self, spec: BareMetalMachineSpec) -> None:
        """Somebody applies a spec."""
        before = self.rig.spec
        try:
            self.rig.declare(spec)
        except Refused:
            return
        self.chronicle.asked(before, spec)

    def settles(self) -> None:
        """Invariant 7."""
        if self.rig.exists:
            assert_settles(self.chronicle, self.rig)


@dataclass(frozen=True)
class Event:
    """Something that happens."""

    name: str
    happens: Callable[[History], None]

    def __repr__(self) -> str:
        return self.name


def _applied(name: str, patch: dict[str, object]) -> Event:
    def happens(history: History) -> None:
        merged = history.rig.spec.model_dump(by_alias=True, mode="json", exclude_none=True)
        for key, value in patch.items():
            trigger = {"trigger": history.rig.spec.commissioning.trigger} if key == "commissioning" else {}
            merged[key] = {**trigger, **value} if isinstance(value, dict) else value
        history.apply(BareMetalMachineSpec.model_validate(merged))

    return Event(name, happens)


def _commissioning_triggered(history: History) -> None:
    spec = history.rig.spec
    pulled = spec.commissioning.model_copy(update={"trigger": f"{spec.commissioning.trigger}+"})
    history.apply(spec.model_copy(update={"commissioning": pulled}))


def _deployment_triggered(history: History) -> None:
    spec = history.rig.spec
    if spec.deployment is not None:
        pulled = spec.deployment.model_copy(update={"trigger": f"{spec.deployment.trigger}+"})
        history.apply(spec.model_copy(update={"deployment": pulled}))


def _power_cycle_triggered(history: History) -> None:
    spec = history.rig.spec
    history.apply(spec.model_copy(update={"power_cycle": PowerCycle(trigger=f"{spec.power_cycle.trigger}+")}))


def _gate(history: History, *, opens: bool) -> None:
    """Somebody else's controller writes its condition."""
    history.rig.write_condition(GATE, "True" if opens else "False")


def _deleted(history: History, *, force: bool) -> None:
    history.rig.delete()
    history.rig.force_delete = history.rig.force_delete or force
    history.chronicle.wipe_asked = True


def _kept_by_others(history: History) -> None:
    """Somebody else's finalizer, put on before the record is deleted."""
    if not history.rig.deleting:
        history.rig.kept_by_others = True


def _status_lost(history: History) -> None:
    """The annotation changes in the pass after the phase did; one that is old tells of more than there is."""
    rig, status = history.rig, history.rig.status
    installed = status.installed
    written = rig.evidence is None or (installed is not None and (installed.at is None or installed == rig.evidence))
    if status.phase is not None and written:
        if rig.evidence is not None and (installed != rig.evidence or rig.metal.running is Running.RAMDISK):
            history.chronicle.blind = True
        rig.lose_status()


def _older(history: History) -> None:
    """A backup from before what is installed was noted, and the operator sees it as it is then.

    Of a machine that is free and off nobody can tell; one that is locked, or has a twin, isn't looked at.
    """
    rig = history.rig
    free = rig.spec.allocation is None and not rig.metal.on
    if rig.exists and rig.status.phase is not None and not (free or rig.spec.locked or rig.twin):
        rig.evidence = None
        rig.lose_status()
        _pass(history)


def _agent(history: History, *, beating: bool = True, answers: bool = True) -> None:
    ramdisk = history.rig.metal.ramdisk
    if ramdisk is not None:
        ramdisk.beating, ramdisk.answers = ramdisk.beating and beating, answers


def _set(thing: Metal | Rig, name: str, value: object = True) -> None:
    setattr(thing, name, value)


def _passes(history: History, number: int, *, obliging: bool = True, pause: timedelta = timedelta(seconds=20)) -> None:
    rig = history.rig
    for _ in range(number):
        if rig.exists and isinstance(rig.once().step, Wait):
            rig.advance(pause)
            if obliging:
                rig.oblige()


def _pass(
    history: History, *, crash: Crash | None = None, hurry: bool = False, stale: bool = False, chance: float = 0.5
) -> None:
    if history.rig.exists:
        history.rig.once(crash=crash, hurry=hurry, stale=stale, chance=chance)


def _time(seconds: int) -> Event:
    return Event(f"{seconds} seconds pass", lambda h: h.rig.advance(timedelta(seconds=seconds)))


def _clock(name: str, by: timedelta) -> Event:
    return Event(f"the clock is set {name}", lambda h: h.rig.set_clock(by))


NOTHING = Event("-", lambda _: None)
"""What Hypothesis shrinks an event to that doesn't matter."""
WELL = Event("all is well", lambda h: willing(h.rig))
PEOPLE = (
    *(_applied(name, patch) for name, patch in CHANGES.items()),
    Event("pull the commissioning trigger", _commissioning_triggered),
    Event("pull the deployment trigger", _deployment_triggered),
    Event("ask for a restart", _power_cycle_triggered),
    Event("the gate opens", lambda h: _gate(h, opens=True)),
    Event("the gate closes", lambda h: _gate(h, opens=False)),
)
METAL = (
    Event("the agent gets on", lambda h: h.rig.oblige()),
    Event("the agent falls silent", lambda h: _agent(h, beating=False)),
    Event("the agent mumbles", lambda h: _agent(h, answers=False)),
    Event("the agent's commands fail", lambda h: _set(h.rig.metal, "commands_fail")),
    Event("a disk can't be erased", lambda h: _set(h.rig.metal, "stubborn_disk")),
    Event("the power fails", lambda h: h.rig.metal.switch_off()),
    Event("the machine resets", lambda h: h.rig.metal.reset()),
    Event("somebody presses the power button", lambda h: h.rig.metal.switch_on(attempt=None)),
    Event("the BMC falls silent", lambda h: _set(h.rig.metal, "bmc_silent")),
    Event("the power is on its way", lambda h: _set(h.rig.metal, "on_its_way")),
    Event("the BMC's Secret is gone", lambda h: _set(h.rig.metal, "secret_missing")),
    Event("the BMC refuses once", lambda h: _set(h.rig.metal, "refusals", 1)),
    Event("the BMC refuses", lambda h: _set(h.rig.metal, "refusals", 9)),
    Event("the system can't call home", lambda h: _set(h.rig.metal, "calls_home", value=False)),
    Event("the image vanishes", lambda h: _set(h.rig, "image_missing")),
    Event("others install", lambda h: _set(h.rig, "others_install")),
    Event("a twin appears", lambda h: _set(h.rig, "twin", "rack/node-01")),
)
TIME = tuple(_time(seconds) for seconds in (40, 200, 1000, 4000, 100_000))
CLOCK = (
    _clock("ahead by an hour", timedelta(hours=1)),
    _clock("back by ten minutes", -timedelta(minutes=10)),
    _clock("back by a year", -timedelta(days=365)),
)
RARE = (
    Event("delete", lambda h: _deleted(h, force=False)),
    Event("delete by force", lambda h: _deleted(h, force=True)),
    Event("somebody else keeps the record too", _kept_by_others),
    Event("status is lost", _status_lost),
    Event("an older backup is restored", _older),
)
OPERATOR = (
    Event("a pass", _pass),
    Event("a pass with another chance", lambda h: _pass(h, chance=0.0)),
    Event("a pass in a hurry", lambda h: _pass(h, hurry=True)),
    Event("a pass with an old reading", lambda h: _pass(h, stale=True)),
    Event("a crash before the pass does anything", lambda h: _pass(h, crash=Crash.DECIDED)),
    Event("a crash after the pass has acted", lambda h: _pass(h, crash=Crash.ACTED)),
    Event("the operator restarts", lambda h: h.rig.restart()),
    Event("two passes", lambda h: _passes(h, 2)),
    Event("four passes", lambda h: _passes(h, 4)),
    Event("eight passes", lambda h: _passes(h, 8)),
    Event("sixteen passes", lambda h: _passes(h, 16)),
    Event("passes for an idle hour", lambda h: _passes(h, 12, obliging=False, pause=timedelta(minutes=5))),
)

STARTS: dict[str, tuple[BareMetalMachineSpec, Sequence[str]]] = {
    "declared": (declared(), ()),
    "enlisted": (declared(accepted=False), ()),
    "ready": (declared(), ("settles",)),
    "allocated": (declared(owner="a"), ("settles",)),
    "deployed": (declared(owner="a", image="debian-12"), ("settles",)),
    "adopted": (declared(owner="a", existing=True), ("settles",)),
    "to be moved by hand": (declared(bmc={"address": "manual://"}), ()),
    "moved by hand": (declared(owner="a", image="debian-12", bmc={"address": "manual://"}), ("settles",)),
    "in rescue": (declared(owner="a", image="debian-12"), ("settles", "rescue", "sixteen passes")),
    "broken": (declared(owner="a", image="debian-12"), ("settles", "mark broken", "two passes")),
    "ageing": (declared(owner="a", image="debian-12"), ("settles", "a disk can't be erased")),
    "never came up": (
        declared(owner="a", image="debian-12"),
        ("the system can't call home", "deploy impatiently", *["sixteen passes"] * 6, "all is well"),
    ),
}
"""Where histories begin, and what happened before: so that the later phases are visited as often as the first."""


@cache
def begun(start: str) -> History:
    """A machine at the start of a history."""
    spec, events = STARTS[start]
    history = History(Rig(spec))
    if spec.deployment is not None and spec.deployment.existing:
        history.rig.metal = Metal(on=True, running=Running.SYSTEM, image="existing")
    history.rig.watch = history.chronicle.noted
    known = {event.name: event for event in (WELL, *PEOPLE, *METAL, *OPERATOR)}
    for event in events:
        if event == "settles":
            settle(history.rig)
        else:
            known[event].happens(history)
    history.rig.watch = None
    return history


ANYTHING = (WELL, WELL, WELL, *PEOPLE, *METAL, *TIME, *CLOCK, *RARE)


def histories(
    starts: Iterable[str] = STARTS, happening: Sequence[Event] = ANYTHING, doing: Sequence[Event] = OPERATOR
) -> st.SearchStrategy[tuple[str, list[Event]]]:
    """Something happens, the operator does something, and so on."""
    pairs = st.tuples(st.sampled_from((NOTHING, *happening)), st.sampled_from((NOTHING, *doing)))
    return st.tuples(
        st.sampled_from(sorted(starts)),
        st.lists(pairs, min_size=4, max_size=14).map(
            lambda happened: [event for pair in happened for event in pair if event is not NOTHING]
        ),
    )


def told(start: str, events: Iterable[Event]) -> History:
    """What comes of a history; AssertionError by the first invariant that it breaks."""
    history = begun(start).watched()
    try:
        for event in events:
            event.happens(history)
        history.settles()
    except StopIteration:
        raise AssertionError(f"no row for {history.rig.status.phase}") from None
    return history
