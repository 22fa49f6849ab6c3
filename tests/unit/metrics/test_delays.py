"""How long news take, by a clock of the test's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.test_cache import item, machine

from rackwright.metrics.delays import Echoes, Reactions


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.took: list[float] = []

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reactions(clock: Clock) -> Reactions:
    return Reactions(clock.took.append, clock)


@pytest.fixture
def echoes(clock: Clock) -> Echoes:
    return Echoes(clock.took.append, clock)


def of(generation: int, observed: int = 0, **more: Any) -> Any:
    return machine(metadata={"generation": generation}, status={"observedGeneration": observed}, **more)


def version(number: int, name: str = "node-07") -> Mapping[str, Any]:
    return item(name, version=number)


# --- from a changed spec to what is done about it -----------------------------------------------------------------


def test_a_new_spec_is_timed_until_the_first_thing_is_done_about_it(clock: Clock, reactions: Reactions) -> None:
    reactions.seen(of(1, 1), of(2, 1))
    clock.now += 0.25
    reactions.acted("uid-node-07")
    reactions.acted("uid-node-07")
    assert clock.took == [0.25]


def test_a_machine_that_was_just_declared_is_news_too(clock: Clock, reactions: Reactions) -> None:
    reactions.seen(None, of(1))
    clock.now += 2
    reactions.acted("uid-node-07")
    assert clock.took == [2]


def test_a_second_change_before_the_first_was_seen_to_doesnt_begin_anew(clock: Clock, reactions: Reactions) -> None:
    reactions.seen(of(1, 1), of(2, 1))
    clock.now += 5
    reactions.seen(of(2, 1), of(3, 1))
    clock.now += 1
    reactions.acted("uid-node-07")
    assert clock.took == [6]


def test_neither_a_status_nor_a_restart_of_ours_is_news(clock: Clock, reactions: Reactions) -> None:
    reactions.seen(of(2, 1), of(2, 2))
    reactions.seen(of(2, 1), of(2, 1))
    reactions.seen(None, of(7, 7))
    reactions.acted("uid-node-07")
    assert not clock.took


def test_a_record_made_anew_under_its_name_is_another_one(clock: Clock, reactions: Reactions) -> None:
    reactions.seen(of(1, 1, uid="old"), of(1, uid="new"))
    reactions.acted("new")
    assert clock.took == [0]


def test_who_is_gone_leaves_nothing_behind(clock: Clock, reactions: Reactions) -> None:
    reactions.seen(None, of(1))
    reactions.forget("uid-node-07")
    reactions.acted("uid-node-07")
    assert not clock.took
    assert not reactions._came


# --- from a write to the watch that tells of it ---------------------------------------------------------------------


def test_a_write_is_timed_until_the_watch_has_come_so_far(clock: Clock, echoes: Echoes) -> None:
    echoes.wrote(version(7))
    clock.now += 3
    echoes.told(version(6))
    assert echoes.oldest() == 3
    echoes.told(version(8))  # kopf leaves out what was superseded
    assert clock.took == [3]
    assert echoes.oldest() == 0


def test_a_watch_that_is_faster_than_the_answer_has_nothing_to_catch_up_with(clock: Clock, echoes: Echoes) -> None:
    echoes.told(version(10))
    echoes.wrote(version(10))
    assert (echoes.oldest(), clock.took) == (0, [])


def test_a_page_that_was_listed_before_the_watch_told_of_more_takes_nothing_of_that_back(
    clock: Clock, echoes: Echoes
) -> None:
    echoes.told(version(10))
    echoes.told(version(7), listed=True)
    echoes.wrote(version(10))
    clock.now += 300
    assert (echoes.oldest(), clock.took) == (0, [])


def test_of_several_writes_the_first_counts(clock: Clock, echoes: Echoes) -> None:
    echoes.wrote(version(7))
    clock.now += 3
    echoes.wrote(version(9))
    echoes.told(version(9))
    assert clock.took == [3]


def test_a_listing_ends_the_wait_and_is_no_watch(clock: Clock, echoes: Echoes) -> None:
    echoes.wrote(version(7))
    clock.now += 300
    echoes.told(version(7), listed=True)
    assert (echoes.oldest(), clock.took) == (0, [])


def test_the_oldest_of_all_machines_is_shown(clock: Clock, echoes: Echoes) -> None:
    echoes.wrote(version(7, "a"))
    clock.now += 1
    echoes.wrote(version(8, "b"))
    clock.now += 1
    assert echoes.oldest() == 2
    echoes.forget("uid-a")
    assert echoes.oldest() == 1
