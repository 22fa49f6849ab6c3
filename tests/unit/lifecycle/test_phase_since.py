"""Status says since when a machine is in its phase: told when it comes to one, and kept until it leaves it."""

from __future__ import annotations

from datetime import timedelta

from tests.property.rig import Moment, Rig
from tests.unit.lifecycle.story import Story
from tests.unit.lifecycle.worlds import attempt, declared, power_off, world

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.decide import after_fault
from rackwright.lifecycle.steps import Stage
from rackwright.lifecycle.world import Blame, Fault


def test_every_move_of_a_life_says_when_and_nothing_else_does() -> None:
    moves = list[Phase | None]()

    def watch(rig: Rig, moment: Moment) -> None:
        assert tells is not None
        tells(rig, moment)
        before, after = moment.before, moment.after
        if before.phase is not after.phase:
            moves.append(after.phase)
            assert after.phase_since == moment.world.now
        else:
            assert after.phase_since == before.phase_since
        rig.advance(timedelta(seconds=1))

    with Story() as story:
        tells = story.rig.watch
        story.rig.watch = watch
        story.apply(declared(owner="search", image="debian-12"))
        story.settles()
        story.apply(declared())
        story.settles()
    assert moves == [
        Phase.COMMISSIONING, Phase.DEPLOYING, Phase.DEPLOYED, Phase.RELEASING, Phase.READY,
    ]  # fmt: skip


def test_so_does_the_attempt_that_was_the_last() -> None:
    last = attempt(OperationName.DEPLOY, Stage.BOOT_RAMDISK, number=2)
    now = world(Phase.DEPLOYING, declared(owner="a", image="debian-12"), power_off(), owner="a", operation=last)
    failed = after_fault(now, Fault(Blame.BMC, "BMCUnreachable", "It doesn't answer.")).status
    assert (failed.phase, failed.phase_since) == (Phase.FAILED, now.now)


def test_a_restart_that_failed_leaves_the_phase_and_its_beginning_alone() -> None:
    last = attempt(OperationName.RESTART, Stage.POWER_OFF, number=3)
    now = world(Phase.READY, operation=last)
    failed = after_fault(now, Fault(Blame.BMC, "BMCUnreachable", "It doesn't answer.")).status
    assert (failed.phase, failed.phase_since) == (Phase.READY, None)
