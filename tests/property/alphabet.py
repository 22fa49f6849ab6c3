"""What may happen in the exhaustive search, and in which families of specs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import timedelta

from tests.property.histories import ANYTHING, OPERATOR, Event, History

SECOND = timedelta(seconds=1)
"""What a pass takes: no two attempts begin in one instant."""


def _torn(history: History) -> None:
    """Only a pass at once: a phase without its operation has no deadline, and whoever looks on would say so."""
    if history.rig.exists and history.rig.status.operation is not None:
        history.rig.lose_operation()
        history.rig.once()


TORN = "a pass, once somebody removed the operation from status"
_KNOWN = {event.name: event for event in (*ANYTHING, *OPERATOR, Event(TORN, _torn))}


def named(*names: str) -> tuple[Event, ...]:
    return tuple(_KNOWN[name] for name in names)


def _during(name: str, fault: str, event: str) -> Event:
    """Something happens while something else is wrong, which is well again afterwards."""

    def happens(history: History) -> None:
        metal, rig = history.rig.metal, history.rig
        before = copy.copy(metal), rig.twin, rig.image_missing, rig.others_install
        _KNOWN[fault].happens(history)
        _KNOWN[event].happens(history)
        was, rig.twin, rig.image_missing, rig.others_install = before
        if metal.ramdisk is not None:
            metal.ramdisk.answers = True
        for flag in ("commands_fail", "stubborn_disk", "bmc_silent", "secret_missing", "on_its_way", "refusals"):
            setattr(metal, flag, getattr(was, flag))

    return Event(name, happens)


def _inspected(history: History) -> None:
    """The first thing that an agent says is what the machine is made of; it takes commands later."""
    if (ramdisk := history.rig.metal.ramdisk) is not None:
        ramdisk.inspected = True
        history.rig.heartbeat()


def _taking_time(event: Event) -> Event:
    def happens(history: History) -> None:
        event.happens(history)
        history.rig.advance(SECOND)

    return Event(event.name, happens)


EXPECTED = (
    *(_taking_time(event) for event in named("a pass")),
    *named("the agent gets on"),
)
"""What is nothing special: it happens in every family, in any order and as often as it likes."""
SURPRISES = (
    *(
        _taking_time(event)
        for event in (
            *named("a pass in a hurry", "a pass with an old reading"),
            *named("a crash after the pass has acted", "the operator restarts"),
            _during("a pass while the BMC is silent", "the BMC falls silent", "a pass"),
            _during("a pass without the BMC's Secret", "the BMC's Secret is gone", "a pass"),
            _during("a pass while the power is on its way", "the power is on its way", "a pass"),
            _during("a pass that the BMC refuses", "the BMC refuses once", "a pass"),
            _during("a pass while the image is missing", "the image vanishes", "a pass"),
            _during("a pass while others install", "others install", "a pass"),
            _during("a pass beside a twin", "a twin appears", "a pass"),
            _during("a pass while the agent mumbles", "the agent mumbles", "a pass"),
        )
    ),
    *named("the agent falls silent", "the power fails", "the machine resets"),
    *named("somebody presses the power button", "200 seconds pass", "1000 seconds pass", "100000 seconds pass"),
    Event("the agent tells of the hardware", _inspected),
    _during("the agent's command fails", "the agent's commands fail", "the agent gets on"),
    _during("the agent gets on, and a disk can't be erased", "a disk can't be erased", "the agent gets on"),
)
"""What goes wrong, in every family too: of these, there are as many as a search is told."""


@dataclass(frozen=True)
class Family:
    """Where to begin, and what people change from there."""

    name: str
    starts: tuple[str, ...]
    changes: tuple[str, ...]
    surprises: int = 0
    """How many more than others: the waits that only two mishaps end are in short stories."""


FAMILIES = (
    Family("use", ("declared",), ("deploy debian", "withdraw deployment", "withdraw everything")),
    Family("again", ("deployed",), ("pull the deployment trigger", "pull the commissioning trigger", "deploy fedora")),
    Family(
        "another disk", ("deployed",), ("pull the deployment trigger", "choose another disk", "choose the disk again")
    ),
    Family("another disk at last", ("never came up",), ("pull the commissioning trigger", "choose another disk")),
    Family("recommissioning", ("declared", "ready"), ("pull the commissioning trigger", "commission impatiently")),
    Family("deletion", ("declared", "deployed"), ("delete", "delete by force", "mark broken")),
    Family("deletion of a kept one", ("ready",), ("somebody else keeps the record too", "delete")),
    Family("a torn commissioning", ("declared",), (TORN,)),
    Family("a torn deployment", ("allocated",), (TORN, "deploy debian")),
    Family("a torn release", ("deployed",), (TORN, "withdraw everything")),
    Family("broken", ("deployed", "allocated"), ("mark broken", "mend", "withdraw everything")),
    Family("rescue", ("deployed", "ready"), ("rescue", "end rescue")),
    Family("a mark during a rescue", ("in rescue",), ("end rescue", "mark broken", "mend")),
    Family("rescue of a broken one", ("broken",), ("rescue impatiently", "take the BMC away", "mend")),
    Family("power", ("deployed", "ready"), ("power on", "power off", "leave power", "ask for a restart")),
    Family("power without a BMC", ("deployed",), ("power off", "ask for a restart", "take the BMC away")),
    Family("trust", ("enlisted",), ("trust", "distrust", "allocate to a")),
    Family("adoption", ("enlisted", "adopted"), ("adopt", "withdraw everything", "delete")),
    Family("adoption of a broken one", ("ready", "adopted"), ("mark broken", "mend", "adopt")),
    Family("erase policy", ("deployed",), ("erase nothing", "erase all", "withdraw everything", "withdraw deployment")),
    Family("faults", ("allocated",), ("deploy debian", "withdraw deployment", "report a fault", "repair")),
    Family("gates", ("declared",), ("gate", "the gate opens", "the gate closes", "allocate to a")),
    Family("lock", ("ready", "deployed"), ("lock", "unlock", "withdraw everything")),
    Family("by hand", ("moved by hand",), ("withdraw deployment", "deploy debian")),
    Family("by hand from the beginning", ("to be moved by hand",), ("pull the commissioning trigger",)),
    Family("no BMC", ("adopted", "ready"), ("take the BMC away", "give it a BMC", "rescue", "withdraw deployment")),
    Family("a deployment without a BMC", ("allocated",), ("take the BMC away", "give it a BMC", "deploy debian")),
    Family("lost status", ("deployed", "ready"), ("status is lost", "withdraw everything")),
    Family("an older backup", ("deployed", "allocated"), ("an older backup is restored", "withdraw everything")),
    Family("never came up", ("never came up",), ("withdraw everything", "rescue")),
    Family("came back unbooted", ("never came up",), ("pull the commissioning trigger", "withdraw deployment")),
    Family("a commissioning", ("declared",), (), surprises=1),
    Family("a deployment", ("allocated",), ("deploy debian",), surprises=1),
    Family("a release", ("deployed",), ("withdraw everything",), surprises=1),
    Family("a release of an adopted one", ("adopted",), ("withdraw everything",), surprises=1),
    Family("a restart", ("deployed",), ("ask for a restart",), surprises=1),
)
