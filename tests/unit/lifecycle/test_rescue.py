"""Rescue: entered from wherever a machine rests, left to where it came from, never tried for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.lifecycle.worlds import attempt, declared, ended, failure, heard, installed, power_off, power_on, world

from rackwright.api.machine import HistoryEntry, OperationName, Phase, RescueEnvironment
from rackwright.lifecycle.decide import after_fault, decide
from rackwright.lifecycle.steps import BootRamdisk, Hold, PowerOff, Rest, Stage
from rackwright.lifecycle.world import Blame, CommandState, Fault, Seen


def test_a_withdrawn_rescue_ends_though_nothing_says_any_more_how_long_that_may_take() -> None:
    spec = declared(owner="search", image="debian-12")
    rescued = world(Phase.RESCUE, spec, power_on(), owner="search", installed=installed(), rescued_from=Phase.DEPLOYED)

    decision = decide(rescued)

    assert decision.step == PowerOff()
    assert decision.status.operation is not None
    assert decision.status.operation.name is OperationName.END_RESCUE


def test_a_release_that_gave_up_stays_given_up_however_many_rescues_follow() -> None:
    """Each adds two entries to a history of ten; whoever salvages data from the rescue isn't to find it erased."""
    rescues = [ended(OperationName.END_RESCUE), ended(OperationName.RESCUE)] * 5
    rescued = world(
        Phase.RESCUE,
        declared(),
        power_off(),
        owner="search",
        installed=installed(),
        rescued_from=Phase.FAILED,
        last_failure=failure(OperationName.RELEASE, "EraseNotVerified"),
        operation=attempt(OperationName.END_RESCUE),
        history=[*rescues[1:], ended(OperationName.RELEASE, "Failed")],
    )

    decision = decide(rescued)

    assert (decision.status.phase, decision.status.operation) == (Phase.FAILED, None)
    assert len(decision.status.history) == len(rescued.status.history)
    assert decision.status.history[0].name is OperationName.END_RESCUE
    assert decision.status.history[-1].name is OperationName.RELEASE


def test_a_failed_rescue_has_nowhere_to_return_to() -> None:
    spec = declared(owner="search", image="debian-12", rescue=True)
    entering = attempt(OperationName.RESCUE, Stage.OPEN_RESCUE, number=3)
    rescued = world(
        Phase.RESCUE,
        spec,
        power_on(),
        owner="search",
        installed=installed(),
        rescued_from=Phase.DEPLOYED,
        operation=entering,
    )

    decision = after_fault(rescued, Fault(Blame.AGENT, "AgentLost", "The agent isn't there any more."))

    assert decision.status.phase is Phase.FAILED
    assert decision.status.rescued_from is None


RESCUE, RELEASE, COMMISSION = OperationName.RESCUE, OperationName.RELEASE, OperationName.COMMISSION
GAVE_UP = [ended(RESCUE, "Failed")]
SILENT_BMC = Fault(Blame.BMC, "BMCUnreachable", "The BMC does not answer.")
SILENT = Seen(bmc_fault=SILENT_BMC)


@pytest.mark.parametrize(
    "history",
    [
        [ended(RESCUE, "Failed")],
        [ended(RELEASE, "Failed"), ended(RESCUE, "Failed")],
        [ended(OperationName.DEPLOY, "Failed"), ended(RESCUE, "Failed")],
    ],
)
def test_a_rescue_that_used_up_its_attempts_is_not_tried_again_by_itself(history: list[HistoryEntry]) -> None:
    failed = world(
        Phase.FAILED,
        declared(owner="search", image="debian-12", rescue=True),
        owner="search",
        installed=installed(),
        last_failure=failure(RESCUE, "AgentMissing"),
        history=history,
    )

    decision = decide(failed)

    assert (decision.step, decision.reason) == (Hold(), "AgentMissing")


@pytest.mark.parametrize(
    "history",
    [
        [],
        [ended(OperationName.END_RESCUE), ended(RESCUE)],
        [ended(RESCUE, "Abandoned")],
        [ended(COMMISSION, "Failed"), ended(RESCUE, "Failed")],
    ],
    ids=["never tried", "succeeded", "withdrawn before it ended", "recommissioned since"],
)
def test_a_rescue_is_entered_from_failed_where_it_has_not_given_up(history: list[HistoryEntry]) -> None:
    failed = world(
        Phase.FAILED,
        declared(rescue=True),
        last_failure=failure(RESCUE),
        history=history,
    )

    decision = decide(failed)

    assert (decision.step, decision.status.phase) == (BootRamdisk(), Phase.RESCUE)
    assert decision.status.rescued_from is Phase.FAILED


def test_a_rescue_that_needed_two_attempts_does_not_rule_out_the_next_one() -> None:
    spec = declared(owner="search", image="debian-12", rescue=True)
    rescued_before = [ended(OperationName.END_RESCUE), ended(RESCUE, attempts=2)]

    decision = decide(
        world(
            Phase.DEPLOYED,
            spec,
            power_on(),
            owner="search",
            installed=installed(),
            last_failure=failure(RESCUE),
            history=rescued_before,
        )
    )

    assert decision.status.phase is Phase.RESCUE


def test_a_rescue_and_a_release_that_both_fail_do_not_take_turns_for_ever() -> None:
    failed = world(
        Phase.FAILED,
        declared(rescue={"maxAttempts": 1}, release={"maxAttempts": 1}),
        SILENT,
        owner="search",
        installed=installed(),
        last_failure=failure(OperationName.DEPLOY),
    )

    decision = decide(failed)

    assert (decision.step, decision.status.phase) == (Hold(), Phase.FAILED)
    assert [e.name for e in decision.status.history] == [RELEASE, RESCUE]


def test_a_broken_machine_whose_rescue_failed_says_what_to_do() -> None:
    broken = world(
        Phase.BROKEN,
        declared(rescue=True, broken="DIMM A3"),
        last_failure=failure(RESCUE, "AgentMissing"),
        history=GAVE_UP,
    )

    decision = decide(broken)

    assert (decision.step, decision.reason) == (Hold(), "RescueGaveUp")
    assert "Withdraw spec.broken" in decision.message


@pytest.mark.parametrize("phase", [Phase.BROKEN, Phase.FAILED])
def test_a_rescue_that_needs_a_bmc_says_so(phase: Phase) -> None:
    mark = "DIMM A3" if phase is Phase.BROKEN else None
    spec = declared(rescue=True, broken=mark, bmc=False, accepted=False)

    decision = decide(world(phase, spec))

    assert (decision.step, decision.reason) == (Hold(), "BMCMissing")


def test_a_rescue_that_is_wanted_again_while_it_is_left_is_opened_again() -> None:
    leaving = world(
        Phase.RESCUE,
        declared(rescue=True, broken="DIMM A3"),
        power_off(),
        rescued_from=Phase.BROKEN,
        operation=attempt(OperationName.END_RESCUE, Stage.POWER_OFF),
    )

    decision = decide(leaving)

    assert decision.status.operation is not None
    assert decision.status.operation.name is RESCUE
    assert decision.status.rescued_from is Phase.BROKEN


def test_a_broken_machine_can_be_rescued_and_is_broken_again_afterwards() -> None:
    spec = declared(broken="DIMM A3", rescue=True)
    entered = decide(world(Phase.BROKEN, spec, power_off())).status

    assert (entered.phase, entered.rescued_from) == (Phase.RESCUE, Phase.BROKEN)

    leaving = world(
        Phase.RESCUE,
        declared(broken="DIMM A3"),
        power_off(),
        rescued_from=Phase.BROKEN,
        operation=attempt(OperationName.END_RESCUE, Stage.POWER_OFF),
    )

    decision = decide(leaving)

    assert (decision.step, decision.reason) == (Hold(), "MarkedBroken")
    assert decision.status.rescued_from is None


def test_a_rescue_that_once_failed_is_tried_where_the_machine_works_again() -> None:
    spec = declared(owner="search", existing=True, rescue=True)
    mended = world(Phase.BROKEN, spec, power_on(), owner="search", installed=installed(None), history=GAVE_UP)

    decision = decide(mended)

    assert [t.after for t in decision.transitions] == [Phase.DEPLOYED, Phase.RESCUE]


@pytest.mark.parametrize(
    ("what", "origin", "kept"),
    [
        (RESCUE, Phase.DEPLOYED, False),
        (OperationName.END_RESCUE, Phase.DEPLOYED, False),
        (OperationName.DEPLOY, Phase.BROKEN, True),
        (RESCUE, Phase.FAILED, True),
    ],
    ids=["its own attempt", "its own end", "what was before", "why a machine is Failed"],
)
def test_a_rescue_that_succeeds_takes_back_no_failure_but_its_own(
    what: OperationName, origin: Phase, *, kept: bool
) -> None:
    opened = world(
        Phase.RESCUE,
        declared(rescue=True),
        power_on(agent=heard(command=CommandState.SUCCEEDED)),
        owner="search",
        installed=installed(),
        rescued_from=origin,
        operation=attempt(RESCUE, Stage.OPEN_RESCUE, number=2),
        last_failure=failure(what),
    )

    decision = decide(opened)

    assert (decision.step, decision.reason) == (Rest(), "RescueOpen")
    assert (decision.status.last_failure is not None) is kept


def test_a_rescue_that_cannot_be_left_ends_in_failed_and_not_in_another_rescue() -> None:
    leaving = world(
        Phase.RESCUE,
        declared(owner="search", image="debian-12"),
        owner="search",
        installed=installed(),
        rescued_from=Phase.DEPLOYED,
        operation=attempt(OperationName.END_RESCUE, Stage.BOOT_DISK, number=3),
    )

    decision = after_fault(leaving, Fault(Blame.BMC, "BMCProtocolError", "The BMC does nothing."))

    assert (decision.status.phase, decision.reason) == (Phase.FAILED, "BMCProtocolError")
    assert decision.status.installed == installed()


def test_a_rescue_environment_that_lost_its_power_is_opened_again() -> None:
    spec = declared(rescue=True, broken="DIMM A3")
    lost = world(Phase.RESCUE, spec, power_off(), rescued_from=Phase.BROKEN)

    decision = decide(lost)

    assert (decision.step, decision.status.phase) == (BootRamdisk(), Phase.RESCUE)
    assert decision.status.rescued_from is Phase.BROKEN


def test_how_to_log_in_is_recorded_while_the_environment_is_open_and_no_longer() -> None:
    environment = RescueEnvironment(user="rescue", addresses=["10.0.0.107"], ssh_host_keys=["ssh-ed25519 AAAA"])
    opening = world(
        Phase.RESCUE,
        declared(rescue=True),
        power_on(agent=heard(command=CommandState.SUCCEEDED, rescue=environment)),
        owner="search",
        installed=installed(),
        rescued_from=Phase.DEPLOYED,
        operation=attempt(RESCUE, Stage.OPEN_RESCUE),
    )

    is_open = decide(opening).status

    assert is_open.rescue == environment
    for wanted, seen in ((False, power_on()), (True, power_off())):
        after = replace(opening, spec=declared(rescue=wanted), seen=seen).with_status(is_open)
        assert decide(after).status.rescue is None
