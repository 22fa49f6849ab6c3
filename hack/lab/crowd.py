"""Following many machines at once: how many are in which phase, from one watch, until all of them rest.

`follow.py` tells one machine's story; of fifty, people want to see numbers move.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.errors import Unfit
from lab.footprint import MARK
from lab.news import news

if TYPE_CHECKING:
    from lab.installation import Operated

COLUMNS = (
    "{.metadata.name}",
    "{.status.phase}",
    "{.status.operation.name}",
    "{.metadata.generation}",
    "{.status.observedGeneration}",
    "{.status.conditions[?(@.type=='Ready')].reason}",
)
_ORDER = ("Commissioning", "Ready", "Allocated", "Deploying", "Deployed", "Releasing", "Failed", "Broken")
_DECLARED = "declared"
_LINE_SECONDS = 2.0
"""Between two lines where nobody watches live."""
_BAR = 20


@dataclass(frozen=True)
class Sight:
    """What one machine's record said last."""

    name: str
    phase: str
    operation: str
    generation: str
    observed: str
    reason: str

    @property
    def rests(self) -> bool:
        """Whether nothing is under way, as spec is now."""
        return bool(self.phase) and not self.operation and self.observed == self.generation


@dataclass
class Crowd:
    """All machines, as they were seen last."""

    seen: dict[str, Sight] = field(default_factory=dict)

    def take(self, told: Iterable[Sequence[str]]) -> None:
        """Take in what the watch told, in `COLUMNS`."""
        for columns in told:
            sight = Sight(*columns)
            self.seen[sight.name] = sight

    def are(self, wanted: Mapping[str, Collection[str]]) -> int:
        """How many of these machines rest in one of the phases that are wanted of them."""
        return sum(
            sight.rests and sight.phase in phases
            for name, phases in wanted.items()
            if (sight := self.seen.get(name)) is not None
        )

    def __str__(self) -> str:
        """The phases with their numbers, in the order in which a life goes through them."""
        counted = Counter(sight.phase or _DECLARED for sight in self.seen.values())
        known = [phase for phase in (_DECLARED, *_ORDER) if counted[phase]]
        others = sorted(counted.keys() - {_DECLARED, *_ORDER})
        return "  ".join(f"{phase} {counted[phase]}" for phase in (*known, *others))

    def reasons(self, names: Collection[str]) -> str:
        """Why these machines are as they are, for a message."""
        counted = Counter(f"{s.phase or _DECLARED} ({s.reason})" for n in names if (s := self.seen.get(n)))
        return ", ".join(f"{count} {what}" for what, count in counted.most_common(4)) or "nothing"


def bar(done: int, of: int) -> str:
    """How far it is: `████░░░░ 12/50`."""
    filled = _BAR * done // of if of else _BAR
    return f"{'█' * filled}{'░' * (_BAR - filled)} {done}/{of}"


def follow(
    here: Operated, wanted: Mapping[str, Collection[str]], *, seconds: float, say: Callable[[str], None]
) -> Crowd:
    """Wait until each of these machines rests in one of its phases, saying how many do.

    Raises `Unfit` when the operator has died, or it takes longer than `seconds`.
    """
    crowd, deadline, next_line = Crowd(), time.monotonic() + seconds, 0.0
    ours = ("--all-namespaces", f"--selector={MARK}={here.name}")
    with news(here, *ours, columns=COLUMNS) as told:
        while (left := deadline - time.monotonic()) > 0:
            crowd.take(told.wait(left))
            done = crowd.are(wanted)
            if sys.stderr.isatty() or time.monotonic() >= next_line or done == len(wanted):
                say(f"{bar(done, len(wanted))}  {crowd}".rstrip())
                next_line = time.monotonic() + _LINE_SECONDS
            if done == len(wanted):
                return crowd
    missing = [name for name, phases in wanted.items() if not crowd.are({name: phases})]
    raise Unfit(
        f"{len(missing)} of {len(wanted)} machines aren't there after {seconds:.0f} s: {crowd.reasons(missing)}",
        f"see kubectl get bmm -A, and {here.operator.log}; run this again to go on waiting",
    )
