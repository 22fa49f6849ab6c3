"""A machine's life as a story: declare, let the operator run, read what happened.

The metal is the property tests' simulation and does what it is asked for, unless the story says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tests.property.metal import Metal, Running
from tests.property.rig import Moment, Rig
from tests.unit.lifecycle.worlds import declared

from rackwright.api.machine import BareMetalMachineSpec
from rackwright.lifecycle.steps import Hold, Rest, Wait

MOST_PASSES = 200


class Story:
    """One machine under an operator, and its timeline: phase and reason of every pass, without repetitions."""

    def __init__(self, spec: BareMetalMachineSpec | None = None, metal: Metal | None = None) -> None:
        """Somebody applies a machine."""
        self.rig = Rig(spec or declared(), metal or Metal())
        self.rig.watch = self._tell
        self._lines: list[str] = []
        self._last = ""

    def _tell(self, _: Rig, moment: Moment) -> None:
        line = f"{moment.after.phase}: {moment.decision.reason}"
        noted = moment.decision.reason == "EvidenceRecorded"  # in an annotation, which is nobody's story
        if line != self._last and not noted:
            self._lines.append(line)
            self._last = line

    def told(self) -> list[str]:
        """What happened since this was last asked for."""
        lines, self._lines, self._last = self._lines, [], ""
        return lines

    def running(self) -> Running:
        """What the machine executes now."""
        return self.rig.metal.running

    def declare(self, **changes: Any) -> list[str]:
        """Somebody applies another spec, from the builder's words; what comes of it."""
        self.rig.declare(declared(**changes))
        return self.settles()

    def settles(self, *, until: Callable[[Rig], bool] = lambda _: False) -> list[str]:
        """Run until nothing is left to do, or until something is so; what happened."""
        rig = self.rig
        for _ in range(MOST_PASSES):
            if not rig.exists or until(rig):
                return self.told()
            before = rig.stored
            step = rig.once().step
            if isinstance(step, Rest | Hold) and rig.stored == before:
                return self.told()
            if isinstance(step, Wait) and not until(rig):
                rig.advance(timedelta(seconds=20))
                rig.oblige()
        raise AssertionError(f"it doesn't settle: {self._lines[-8:]}")

    def reaches(self, stage: str) -> list[str]:
        """Run until an attempt is announced to have come to this stage."""
        return self.settles(until=lambda rig: rig.status.operation is not None and rig.status.operation.step == stage)

    def waits(self, *, for_: timedelta, each: timedelta = timedelta(seconds=15)) -> list[str]:
        """Let time pass with a metal that does nothing; what happened."""
        end = self.rig.now + for_
        while self.rig.now < end:
            if isinstance(self.rig.once().step, Wait | Rest | Hold):
                self.rig.advance(each)
        return self.told()
