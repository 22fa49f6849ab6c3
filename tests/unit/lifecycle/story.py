"""A machine's life as a story: something happens, the operator runs, and what people could see of it is told in lines.

Decisions and conditions are the core's, Events are written by `rackwright.events.Events` to a cluster that keeps them
here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from tests.property.metal import Metal
from tests.property.rig import START, Moment, Rig
from tests.unit.lifecycle import lines
from tests.unit.lifecycle.scene import Scene
from tests.unit.lifecycle.worlds import declared

from rackwright.api.machine import BareMetalMachineSpec
from rackwright.events import Events
from rackwright.lifecycle.steps import Action, Bookkeeping, Hold, Pause, Rest
from rackwright.record import Key, Machine

logging.getLogger("rackwright").addHandler(logging.NullHandler())  # what is logged of it is no part of the story

MOST_PASSES = 3000


@dataclass
class Shelf:
    """A cluster of which only the Events are needed."""

    lines: list[str] = field(default_factory=list)
    """What was written since somebody took it."""
    written: list[Mapping[str, Any]] = field(default_factory=list)

    async def create_event(self, _namespace: str, body: Mapping[str, Any]) -> str:
        """Keep an Event; its name is its number."""
        self.written.append(body)
        self.lines.append(f"Event {body['type']} {body['reason']}  {body['note']}")
        return str(len(self.written) - 1)

    async def patch_event(self, _namespace: str, name: str, body: Mapping[str, Any]) -> None:
        """Count it once more."""
        again = self.written[int(name)]
        self.lines.append(f"Event {again['type']} {again['reason']}, for the {_nth(body['series']['count'])} time")


def _nth(count: int) -> str:
    return f"{count}{ {2: 'nd', 3: 'rd'}.get(count, 'th') }"


class Story:
    """One machine under an operator; what comes of each happening is told once."""

    def __init__(self) -> None:
        """There is a machine, and no record of it."""
        self.rig = Scene(declared(), Metal(), watch=self._tell)
        self.hurry = False
        """Whether something that an attempt waits for has just changed."""
        self._shelf = Shelf()
        self._events = Events(self._shelf, "operator", clock=self._seconds)  # type: ignore[arg-type]
        self._runner = asyncio.Runner()
        self._lines: list[str] = []
        self._summary = ""
        self._machine = lines.of_metal(self.rig.metal)
        self._applied = False

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._runner.close()

    def apply(self, spec: BareMetalMachineSpec) -> None:
        """Somebody applies the machine, for the first time or once more."""
        if self._applied:
            self.rig.declare(spec)
        else:
            self.rig.spec, self._applied = spec, True

    def told(self) -> list[str]:
        """What happened since this was last asked for, with the machine itself where it has changed."""
        machine = lines.of_metal(self.rig.metal)
        if machine != self._machine:
            self._add(self.rig.now, machine)
            self._machine = machine
        told, self._lines = self._lines, []
        return told

    def now(self) -> list[str]:
        """How it is, in one line."""
        return [f"{lines.clock(self.rig.now)}  {self._summary}"]

    def _seconds(self) -> float:
        return (self.rig.now - START).total_seconds()

    @property
    def _exists(self) -> bool:
        return self._applied and self.rig.exists

    # --- time ----------------------------------------------------------------------------------------------------

    def settles(self, *, until: str | None = None) -> None:
        """The operator runs until nothing is left to do, or until a line says `until`."""
        for _ in range(MOST_PASSES):
            if not self._exists or self._says(until):
                break
            before = self.rig.stored
            step = self._pass()
            if isinstance(step, Rest | Hold):
                if self.rig.stored == before:
                    break
            elif isinstance(step, Pause) and not self._says(until):
                self._passes_time(self._pause)
        else:
            raise AssertionError("it doesn't settle:\n" + "\n".join(self._lines[-20:]))
        assert until is None or self._says(until), "\n".join([f"it settles, and nothing said {until!r}:", *self._lines])

    def waits(self, length: timedelta) -> None:
        """Time passes, with the operator looking whenever it means to."""
        end = self.rig.now + length
        while self._exists and self.rig.now < end:
            if isinstance(self._pass(), Pause):
                self._passes_time(min(self._pause, end - self.rig.now))

    def _says(self, until: str | None) -> bool:
        return until is not None and any(until in line for line in self._lines)

    def _pass(self) -> Action | Pause:
        hurry, self.hurry = self.hurry, False
        decision = self.rig.once(hurry=hurry)
        self._pause = decision.look_again
        return decision.step

    def _passes_time(self, by: timedelta) -> None:
        self.rig.advance(by)
        self.rig.oblige()

    # --- what there is to tell -----------------------------------------------------------------------------------

    def _tell(self, rig: Rig, moment: Moment) -> None:
        before, after = moment.before, moment.after
        news = self._written(moment)
        if moment.action is not None and not isinstance(moment.action, Bookkeeping):
            self._add(rig.now, self._deed(moment))
        summary = lines.summary(after)
        facts = list(lines.facts(rig.spec, before, after))
        if before != after and (summary != self._summary or facts or news):
            self._add(rig.now, summary)
            self._summary = summary
            self._lines += [f"{'':11}{line}" for fact in facts for line in lines.wrapped(fact)]
        self._lines += [f"{'':9}{line}" for each in news for line in lines.wrapped(each)]

    def _add(self, at: datetime, what: str) -> None:
        self._lines.append(f"{lines.clock(at)}  {what}")

    def _deed(self, moment: Moment) -> str:
        name = type(moment.action).__name__
        if moment.fault is not None:
            return f"tries {name}: {moment.fault.reason}"
        shown = lines.reason(moment.before)
        because = f" ({moment.decision.reason})" if moment.decision.reason != shown else ""
        return f"does {name}{because}"

    def _written(self, moment: Moment) -> list[str]:
        """The Events that come of a pass."""
        machine = Machine(
            key=Key("machines", moment.world.name),
            uid=moment.world.uid,
            version=0,
            generation=moment.world.generation,
            created="",
            spec=moment.world.spec,
            status=moment.before,
        )
        if moment.action is not None and moment.fault is None:
            self._runner.run(self._events.acted(machine, moment.decision))
        elif moment.before != moment.after:
            self._runner.run(self._events.tell(machine, moment.decision))
        written, self._shelf.lines = self._shelf.lines, []
        return written
