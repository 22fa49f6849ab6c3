"""How many machines are where, and since when: counted as records come and go, never by going through the fleet.

A scrape reads counters that are kept anyway. Only what time alone changes, who has become overdue since the last look,
is worked off then, from the top of a heap: each stay of a machine in a phase is put on it once and taken off once.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rackwright.api.machine import BareMetalMachineStatus, Phase
from rackwright.lifecycle.reasons import QUEUED

UNDECIDED = "Undecided"
"""Stands for the phase of a record that has no status yet."""
UNREADABLE = "Unreadable"
"""Stands for the phase of a record that can't be read."""
PHASES = (UNDECIDED, UNREADABLE, *(phase.value for phase in Phase))
EXPECTED: Mapping[Phase, timedelta] = {
    Phase.COMMISSIONING: timedelta(minutes=45),
    Phase.DEPLOYING: timedelta(minutes=60),
    Phase.RELEASING: timedelta(hours=12),
    Phase.RESCUE: timedelta(minutes=30),
    Phase.FAILED: timedelta(hours=24),
}
"""How long a machine is expected to stay, by phase; in others it may stay as long as it likes.

In Rescue, that is until the environment is open, or left; in Deploying, from its turn to install. A failed first
attempt is allowed for but in Deploying, whose attempts take as long as somebody's image; a Failed machine should have
been seen to within a day.
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """What is counted of one record."""

    phase: str
    conditions: tuple[tuple[str, str], ...]
    """Those of our own types, with their status."""
    since: datetime | None
    """When this stay in the phase began, where it is expected to end; None where nobody waits for that."""


class Census:
    """The fleet in numbers. Belongs to one event loop; `uid` names a record."""

    def __init__(self, expected: Mapping[Phase, timedelta] = EXPECTED) -> None:
        self.expected = {phase.value: time for phase, time in expected.items()}
        self.phases: Counter[str] = Counter()
        """Machines by phase."""
        self.conditions: Counter[tuple[str, str]] = Counter()
        """Machines by condition and how it stands."""
        self._counted: dict[str, Counted] = {}
        self._awaited: list[tuple[datetime, str]] = []
        """When each stay is due, and whose it is; an entry whose machine has moved on is void, until there are many."""
        self._overdue: dict[str, tuple[str, datetime]] = {}
        """Whose stay is overdue: phase and since when."""
        self._overdue_phases: Counter[str] = Counter()

    def put(self, uid: str, status: BareMetalMachineStatus | None) -> None:
        """Count this record as it is now; without a status, as one that can't be read."""
        now = counted(status)
        before = self._counted.get(uid)
        if before == now:
            return
        self._leave(uid, before)
        self._counted[uid] = now
        self.phases[now.phase] += 1
        self.conditions.update(now.conditions)
        if before is not None and (before.phase, before.since) == (now.phase, now.since):
            return  # the same stay: it is on the heap, or overdue already
        self._end_stay(uid)
        expected = self.expected.get(now.phase)
        if expected is not None and now.since is not None:
            if len(self._awaited) > _MOST_VOID + 2 * len(self._counted):
                self._awaited = [entry for entry in self._awaited if self._due(entry[1]) == entry[0]]
                heapq.heapify(self._awaited)
            heapq.heappush(self._awaited, (now.since + expected, uid))

    def remove(self, uid: str) -> None:
        """Count this record no longer."""
        self._leave(uid, self._counted.pop(uid, None))
        self._end_stay(uid)

    def overdue(self, now: datetime | None = None) -> Counter[str]:
        """Machines that have been in their phase for longer than is expected, by phase."""
        now = now or datetime.now(UTC)
        while self._awaited and self._awaited[0][0] <= now:
            due, uid = heapq.heappop(self._awaited)
            here = self._counted.get(uid)
            if here is not None and here.since is not None and uid not in self._overdue and self._due(uid) == due:
                self._overdue[uid] = (here.phase, here.since)
                self._overdue_phases[here.phase] += 1
        return self._overdue_phases

    def _due(self, uid: str) -> datetime | None:
        """When this stay is to end; None where nobody waits for that."""
        here = self._counted.get(uid)
        expected = self.expected.get(here.phase) if here is not None else None
        return here.since + expected if here is not None and here.since is not None and expected is not None else None

    def _leave(self, uid: str, before: Counted | None) -> None:
        if before is not None:
            self._counted.pop(uid, None)
            self.phases[before.phase] -= 1
            self.conditions.subtract(before.conditions)

    def _end_stay(self, uid: str) -> None:
        overdue = self._overdue.pop(uid, None)
        if overdue is not None:
            self._overdue_phases[overdue[0]] -= 1


_MOST_VOID = 1_000


def counted(status: BareMetalMachineStatus | None) -> Counted:
    """What is counted of a record with this status; other writers' conditions are nobody's business here."""
    if status is None:
        return Counted(UNREADABLE, (), None)
    ours = tuple((c.type, c.status) for c in status.own_conditions)
    return Counted(status.phase.value if status.phase is not None else UNDECIDED, ours, _since(status))


def _since(status: BareMetalMachineStatus) -> datetime | None:
    """When the stay began; a rescue that is open stays as long as its owner likes, as does who awaits a turn."""
    operation = status.operation
    match status.phase:
        case Phase.DEPLOYING if operation is not None:
            return operation.began_at if not _awaits_its_turn(status) else None
        case Phase.RESCUE:
            return operation.began_at if operation is not None else None
        case _:
            return status.phase_since


def _awaits_its_turn(status: BareMetalMachineStatus) -> bool:
    """Whether others install first; a first attempt begins with its turn, and its operation with that."""
    return any(condition.reason == QUEUED for condition in status.own_conditions)
