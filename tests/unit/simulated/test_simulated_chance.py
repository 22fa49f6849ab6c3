"""Chance that repeats itself, and is chance all the same."""

from __future__ import annotations

from rackwright.simulated.chance import What, draw


def test_the_same_question_has_the_same_answer_in_every_version() -> None:
    assert draw(7, "52:54:00:00:00:07", What.BOOT, 3, "lost") == 0.3205124364948497


def test_every_part_of_the_question_counts() -> None:
    mac = "52:54:00:00:00:07"
    answers = {
        draw(seed, identity, what, time, aspect)
        for seed in (7, 8)
        for identity in (mac, "52:54:00:00:00:08")
        for what in (What.BOOT, What.SWITCH)
        for time in (1, 2)
        for aspect in ("lost", "duration")
    }
    assert len(answers) == 32


def test_answers_are_spread_evenly() -> None:
    tenths = [int(10 * draw(0, "machine", What.ANSWER, time)) for time in range(10_000)]
    assert all(900 < tenths.count(tenth) < 1100 for tenth in range(10))
