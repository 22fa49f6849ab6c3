"""Whose turn it is: by rank, then by namespace, then by rack, then by who came first."""

from __future__ import annotations

import asyncio
import random

import pytest

from rackwright.lanes import ON_BEHALF_OF, RANK, TURNS, Errand, Lane, Lanes, Rank, Turns, ranked


def lanes(*keys: str) -> Lanes[str]:
    """Keys like a1x: x of rack 1 of namespace a."""
    it: Lanes[str] = Lanes(lambda key: Lane(key[0], key[1]))
    for key in keys:
        it.put(key)
    return it


def drained(it: Lanes[str]) -> list[str]:
    return [it.pop() for _ in iter(lambda: bool(it), False)]


def test_the_racks_of_a_namespace_take_turns() -> None:
    assert drained(lanes("a1x", "a1y", "a1z", "a2x", "a2y")) == ["a1x", "a2x", "a1y", "a2y", "a1z"]


def test_a_namespace_of_many_racks_has_as_many_turns_as_one_of_one() -> None:
    assert drained(lanes("a1x", "a2x", "a3x", "b1x", "b1y")) == ["a1x", "b1x", "a2x", "b1y", "a3x"]


@pytest.mark.parametrize("other", [Lane("a", "2"), Lane("b", "1")])
def test_one_key_of_one_rack_is_next_though_another_has_five_thousand(other: Lane) -> None:
    it: Lanes[tuple[Lane, int]] = Lanes(lambda key: key[0])
    for number in range(5000):
        it.put((Lane("a", "1"), number))
    it.pop()
    it.put((other, 0))
    assert (other, 0) in [it.pop() for _ in range(2)]


def test_a_lane_that_was_emptied_comes_after_those_that_are_there() -> None:
    it = lanes("a1x", "a2x")
    assert it.pop() == "a1x"
    it.put("a1y")
    it.put("b1x")
    assert drained(it) == ["a2x", "b1x", "a1y"]


# --- turns ------------------------------------------------------------------------------------------------------------


class Waiting:
    """Those who wait for a place that somebody has; who got it, in order."""

    def __init__(self) -> None:
        self.turns = Turns(1)
        self.had: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str, rank: Rank = Rank.AT_WORK, lane: Lane | None = None) -> None:
        for name in names:
            with ranked(rank):
                before = ON_BEHALF_OF.set(lane or Lane())
                self.tasks[name] = asyncio.create_task(self._waits(name))
                ON_BEHALF_OF.reset(before)
        await asyncio.sleep(0)

    async def _waits(self, name: str) -> None:
        async with self.turns.turn():
            self.had.append(name)

    async def order(self) -> list[str]:
        """Whose turns came, once the place was given back that they wait for."""
        self.turns.release()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert (self.turns.free, self.turns.waiting) == (1, 0)
        assert not self.turns._waiting
        return self.had


@pytest.fixture
async def waiting() -> Waiting:
    it = Waiting()
    await it.turns.acquire()
    return it


async def test_those_that_something_is_done_to_come_before_those_that_are_merely_looked_at(waiting: Waiting) -> None:
    await waiting.come("i1", "i2", rank=Rank.IDLE)
    await waiting.come("w1", "w2")
    assert await waiting.order() == ["w1", "w2", "i1", "i2"]


async def test_one_turn_in_sixteen_is_for_those_that_are_merely_looked_at(waiting: Waiting) -> None:
    await waiting.come(*(f"i{number}" for number in range(3)), rank=Rank.IDLE)
    await waiting.come(*(f"w{number}" for number in range(5 * TURNS)))
    order = await waiting.order()
    assert [order.index(f"i{number}") for number in range(3)] == [TURNS - 1, 2 * TURNS - 1, 3 * TURNS - 1]


async def test_whoever_waits_takes_turns_by_rack_within_its_namespace(waiting: Waiting) -> None:
    await waiting.come("x1", "x2", "x3", lane=Lane("a", "1"))
    await waiting.come("y1", lane=Lane("a", "2"))
    await waiting.come("z1", lane=Lane("b", "1"))
    assert await waiting.order() == ["x1", "z1", "y1", "x2", "x3"]


async def test_an_errand_that_was_hastened_comes_sooner_and_once(waiting: Waiting) -> None:
    await waiting.come("i1", "i2", rank=Rank.IDLE)
    with ranked(Rank.IDLE):
        errand = Errand()

    async def hastened() -> None:
        async with waiting.turns.turn(errand):
            waiting.had.append("hastened")

    waiting.tasks["hastened"] = asyncio.create_task(hastened())
    await waiting.come("w1")
    errand.hasten()
    errand.hasten()
    await waiting.come("w2")
    assert await waiting.order() == ["w1", "hastened", "w2", "i1", "i2"]


async def test_an_errand_that_was_hastened_elsewhere_stands_among_the_urgent_from_the_beginning() -> None:
    with ranked(Rank.IDLE):
        errand = Errand()
    errand.hasten()
    assert errand.rank is Rank.AT_WORK
    assert RANK.get() is Rank.AT_WORK, "the rank ends with its context"


async def test_whoever_gives_up_takes_nobodys_turn(waiting: Waiting) -> None:
    await waiting.come("w1", "w2")
    await waiting.come("i1", "i2", rank=Rank.IDLE)
    for name in ("w1", "i1"):
        waiting.tasks[name].cancel()
    await asyncio.sleep(0)
    assert waiting.turns.waiting == 2
    assert await waiting.order() == ["w2", "i2"]


async def test_no_place_is_lost_whoever_gives_up_when_and_is_hastened_when() -> None:
    chance, turns = random.Random(7), Turns(3)  # noqa: S311 (repeatable on purpose)

    async def one(errand: Errand) -> None:
        async with turns.turn(errand):
            assert turns.taken <= 3
            await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    for _ in range(500):
        with ranked(chance.choice(list(Rank))):
            errand = Errand()
        tasks.append(asyncio.create_task(one(errand)))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.3:
            errand.hasten()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (turns.free, turns.waiting) == (3, 0)
