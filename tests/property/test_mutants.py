"""The invariants can fail: each of these tables is wrong in one place, and is found out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.property.histories import ANYTHING, OPERATOR, Event, begun, histories, told

from rackwright.api.machine import OperationName
from rackwright.api.machine import Phase as MachinePhase
from rackwright.lifecycle import decide
from rackwright.lifecycle.guards import (
    Guard,
    agent_takes_commands,
    allocation_declared,
    deletion_requested,
    guard,
    hardware_unknown,
    powered_off,
    powered_on,
)
from rackwright.lifecycle.steps import (
    Advance,
    Allocate,
    Begin,
    BootDisk,
    EraseDisks,
    Fail,
    Finish,
    LetGo,
    Move,
    PowerOff,
    PowerOn,
    RecordErasure,
    Stage,
    Step,
    Wait,
    WriteImage,
)
from rackwright.lifecycle.table import TABLE, Row, Then, in_ramdisk, succeeded, untouched
from rackwright.lifecycle.world import World

Table = tuple[Row, ...]


def _is(row: Row, because: str, do: type[Step] | None, at: MachinePhase | None) -> bool:
    return row.because == because and (do is None or isinstance(row.do, do)) and (at is None or at in row.at)


@dataclass(frozen=True)
class Changed:
    """Rows found by their reason, what they do and where they apply; they are all dropped, or all changed."""

    because: str
    do: type[Step] | None = None
    at: MachinePhase | None = None
    when: Guard | None = None
    then: MachinePhase | Then | None = None
    instead: Step | None = None

    def __call__(self, table: Table) -> Table:
        """The table with these rows changed, or without them."""
        mine = [row for row in table if _is(row, self.because, self.do, self.at)]
        assert mine, f"no row says {self.because}"
        drop = self.when is None and self.then is None and self.instead is None
        return tuple(self._changed(row) if row in mine else row for row in table if not (drop and row in mine))

    def _changed(self, row: Row) -> Row:
        return replace(row, when=self.when or row.when, then=self.then or row.then, do=self.instead or row.do)


@dataclass(frozen=True)
class Added:
    """A row too many, in front of all others."""

    row: Row

    def __call__(self, table: Table) -> Table:
        """The table with that row first."""
        return (self.row, *table)


@dataclass(frozen=True)
class Swapped:
    """Two rows in the wrong order."""

    first: str
    second: str
    at: MachinePhase | None

    def __call__(self, table: Table) -> Table:
        """The table with the two exchanged."""
        rows = list(table)
        one = next(i for i, row in enumerate(rows) if _is(row, self.first, None, self.at))
        two = next(i for i, row in enumerate(rows) if _is(row, self.second, None, self.at))
        rows[one], rows[two] = rows[two], rows[one]
        return tuple(rows)


@dataclass(frozen=True)
class Wrong:
    """A wrong table, and where to look for what comes of it: the rest is left to chance."""

    change: Callable[[Table], Table]
    starts: Sequence[str]
    events: Sequence[str]


@guard
def retry_to_come(world: World) -> bool:
    """The next attempt's time is later than what the clock says now."""
    operation = world.status.operation
    return operation is not None and operation.next_retry_at is not None and operation.next_retry_at > world.now


P, STAY = MachinePhase, Then.STAY

MUTANTS: dict[str, Wrong] = {
    # 1: where disks are written
    "a withdrawn deployment is gone through with": Wrong(
        Changed("DeploymentWithdrawn", Begin, P.DEPLOYING), ["ready"], ["deploy debian", "withdraw deployment"]
    ),
    "a finished image is written again": Wrong(Changed("ImageWritten"), ["allocated"], ["deploy debian"]),
    # 2: what is left running
    "a deployed machine is idle too": Wrong(
        Added(Row((P.DEPLOYED,), powered_on, PowerOff(), STAY, "IdleIsOff")), ["deployed"], ["power on"]
    ),
    "another image is installed at once": Wrong(
        Changed("ReinstallNeeded", instead=Begin(OperationName.DEPLOY), then=P.DEPLOYING),
        ["deployed"],
        ["deploy debian", "deploy fedora"],
    ),
    # 3: what is forgotten
    "lost status makes a new machine": Wrong(Changed("StatusRestored"), ["deployed"], ["status is lost"]),
    "what is declared comes before what was lost": Wrong(
        Swapped("StatusRestored", "Declared", None), ["deployed", "broken"], ["status is lost"]
    ),
    "deleted machines are let go as they are": Wrong(
        Changed("Deleted", LetGo, P.DEPLOYED, when=deletion_requested), ["deployed", "broken"], ["delete", "mend"]
    ),
    "a recommissioned system is not booted again": Wrong(
        Changed("BootingDisk", BootDisk, P.COMMISSIONING), ["deployed", "broken"], ["mark broken", "mend"]
    ),
    # 4: whose it is
    "a failed machine is given away": Wrong(
        Added(Row((P.FAILED,), allocation_declared, Allocate(), P.ALLOCATED, "AllocationDeclared")),
        ["declared"],
        ["the BMC refuses", "commission impatiently", "allocate to b"],
    ),
    "an owner who left is kept": Wrong(
        Changed("AllocationWithdrawn", Move, P.ALLOCATED), ["allocated"], ["withdraw everything", "allocate to b"]
    ),
    # 5: what is announced
    "an image is written unannounced": Wrong(
        Changed("WritingImage", WriteImage, instead=WriteImage(stage=Stage.BOOT_RAMDISK)),
        ["allocated"],
        ["deploy debian"],
    ),
    # 6: what ends
    "an attempt has no deadline": Wrong(
        Changed("(the failure's)", Fail, P.DEPLOYING),
        ["allocated"],
        ["deploy debian", "the system can't call home", "4000 seconds pass", "1000 seconds pass"],
    ),
    "a retry doesn't wait for its time": Wrong(
        Changed("(the failure's)", Wait), ["allocated", "declared"], ["deploy debian", "the BMC refuses once"]
    ),
    "a clock that was set back is waited for": Wrong(
        Changed("(the failure's)", Wait, when=retry_to_come),
        ["declared"],
        ["the BMC refuses", "the clock is set back by a year"],
    ),
    # 7: what settles
    "a ramdisk is never left": Wrong(
        Changed("ShuttingDown", PowerOff, P.RELEASING), ["deployed"], ["withdraw deployment", "withdraw everything"]
    ),
    "a rescue has no end": Wrong(Changed("RescueWithdrawn"), ["in rescue", "ready"], ["rescue", "end rescue"]),
    "a mark is never withdrawn": Wrong(Changed("MarkWithdrawn"), ["broken", "ready"], ["mark broken", "mend"]),
    # 8: what is erased
    "an erase is believed unread": Wrong(
        lambda table: Changed("ErasingDisks", Begin)(
            Changed("DisksErased", Advance, when=in_ramdisk & succeeded)(table)
        ),
        ["ageing"],
        ["withdraw everything", "deploy for b"],
    ),
    "an erase leaves no evidence": Wrong(
        Changed("EvidenceReturned", RecordErasure), ["deployed"], ["withdraw everything"]
    ),
    "the pool comes before the evidence": Wrong(
        Swapped("EvidenceReturned", "DisksErased", P.RELEASING), ["deployed"], ["withdraw everything"]
    ),
    "nothing is erased by policy": Wrong(
        Changed("EraseNotWanted", Finish, when=untouched & powered_off), ["deployed"], ["withdraw everything"]
    ),
}

MUTANTS |= {
    # beyond the eight: what spec asks of the operator's patience
    "a restart is made for the old trigger too": Wrong(
        Changed("NothingToRestart", instead=Begin(OperationName.RESTART)),
        ["deployed"],
        ["power off", "ask for a restart"],
    ),
    "a restart that was asked for leaves it off": Wrong(
        Changed("Restarting", PowerOn), ["deployed"], ["ask for a restart"]
    ),
    "the pool doesn't wait for its gates": Wrong(
        Changed("ReadinessGatesClosed", Wait), ["declared"], ["gate", "the gate closes"]
    ),
    "a closed gate is no reason": Wrong(
        Changed("AllocationDeclared", when=allocation_declared), ["ready"], ["gate", "allocate to a", "the gate closes"]
    ),
    "a reported fault goes back to the pool": Wrong(
        Changed("FaultReported", Finish), ["deployed"], ["report a fault", "withdraw everything"]
    ),
    "a machine that nobody inspected is erased blindly": Wrong(
        Added(
            Row(
                (P.RELEASING,), in_ramdisk & agent_takes_commands & hardware_unknown, EraseDisks(), STAY, "ErasingDisks"
            )
        ),
        ["adopted"],
        ["withdraw everything"],
    ),
}

PASSES = [event for event in OPERATOR if event.name.endswith("passes")]


@pytest.mark.parametrize("wrong", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_table_that_is_wrong_in_one_place_is_found_out(wrong: Wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [event for event in ANYTHING if event.name in wrong.events]
    assert {event.name for event in events} == set(wrong.events)
    for start in wrong.starts:
        begun(start)  # with the right table

    @settings(
        max_examples=200,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(histories(wrong.starts, events, PASSES))
    def a_history_keeps_the_invariants(history: tuple[str, Sequence[Event]]) -> None:
        told(*history)

    monkeypatch.setattr(decide, "TABLE", wrong.change(TABLE))

    with pytest.raises(AssertionError):
        a_history_keeps_the_invariants()
