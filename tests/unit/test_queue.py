"""The work queue: each key once, never to two workers, and timers that are only brought forward."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright.lanes import Lane
from rackwright.queue import TURNS, WorkQueue

LATER = 30.0
"""Seconds after which no test looks any more."""


@pytest.fixture
async def queue() -> AsyncIterator[WorkQueue[str]]:
    it: WorkQueue[str] = WorkQueue()
    timers = asyncio.create_task(it.run_timers())
    yield it
    timers.cancel()
    await asyncio.gather(timers, return_exceptions=True)


async def taken(queue: WorkQueue[str]) -> str:
    """The next key, which must come at once or by a short timer."""
    async with asyncio.timeout(5):
        return await queue.get()


async def is_idle(queue: WorkQueue[str]) -> bool:
    """Whether nothing is handed out now."""
    await asyncio.sleep(0)
    return not len(queue)


async def test_a_key_that_is_woken_often_is_handed_out_once(queue: WorkQueue[str]) -> None:
    for _ in range(3):
        queue.wake("a")
    assert await taken(queue) == "a"
    queue.done("a")
    assert await is_idle(queue)


async def test_keys_come_in_the_order_in_which_they_were_woken(queue: WorkQueue[str]) -> None:
    for key in ("a", "b", "a", "c"):
        queue.wake(key)
    assert [await taken(queue) for _ in range(3)] == ["a", "b", "c"]


async def test_a_key_that_is_worked_on_is_not_handed_out_again_until_it_is_done(queue: WorkQueue[str]) -> None:
    queue.wake("a")
    assert await taken(queue) == "a"
    queue.wake("a")
    queue.wake("a")
    assert await is_idle(queue)
    queue.done("a")
    assert await taken(queue) == "a"
    queue.done("a")
    assert await is_idle(queue)


async def test_a_timer_that_comes_due_while_its_key_is_worked_on_is_not_lost(queue: WorkQueue[str]) -> None:
    queue.wake("a")
    assert await taken(queue) == "a"
    queue.wake_after("a", 0.01)
    await asyncio.sleep(0.05)
    assert await is_idle(queue)
    queue.done("a")
    assert await taken(queue) == "a"


async def test_a_timer_is_brought_forward(queue: WorkQueue[str]) -> None:
    queue.wake_after("a", LATER)
    queue.wake_after("a", 0.01)
    assert await taken(queue) == "a"


async def test_a_timer_is_never_put_off(queue: WorkQueue[str]) -> None:
    queue.wake_after("a", 0.01)
    queue.wake_after("a", LATER)
    assert await taken(queue) == "a"


async def test_a_later_timer_of_one_key_does_not_hold_up_an_earlier_one_of_another(queue: WorkQueue[str]) -> None:
    queue.wake_after("late", LATER)
    await asyncio.sleep(0)
    queue.wake_after("soon", 0.01)
    assert await taken(queue) == "soon"


async def test_waking_a_key_takes_its_timer_along(queue: WorkQueue[str]) -> None:
    queue.wake_after("a", 0.05)
    queue.wake("a")
    assert await taken(queue) == "a"
    queue.done("a")
    await asyncio.sleep(0.1)
    assert await is_idle(queue)


async def test_what_can_wait_comes_after_what_has_happened(queue: WorkQueue[str]) -> None:
    for key in ("a", "b", "c"):
        queue.wake(key, can_wait=True)
    queue.wake("d")
    queue.wake("c")
    queue.wake("c", can_wait=True)
    queue.wake("a", can_wait=True)
    assert [await taken(queue) for _ in range(4)] == ["d", "c", "a", "b"]
    for key in "abcd":
        queue.done(key)
    assert await is_idle(queue)


async def test_a_key_that_was_brought_forward_is_handed_out_once(queue: WorkQueue[str]) -> None:
    queue.wake("a", can_wait=True)
    queue.wake("a")
    assert await taken(queue) == "a"
    queue.done("a")
    queue.wake("b", can_wait=True)
    assert await taken(queue) == "b"
    assert await is_idle(queue)


async def test_what_happened_while_a_key_was_worked_on_cannot_wait(queue: WorkQueue[str]) -> None:
    queue.wake("a")
    assert await taken(queue) == "a"
    queue.wake("b", can_wait=True)
    queue.wake("a", can_wait=True)
    queue.wake("a")
    queue.wake("a", can_wait=True)
    queue.done("a")
    assert [await taken(queue) for _ in range(2)] == ["a", "b"]


async def test_a_key_is_roused_only_if_nobody_would_look_at_it(queue: WorkQueue[str]) -> None:
    queue.wake_after("timed", LATER)
    queue.wake("ready")
    queue.wake("busy")
    assert [await taken(queue) for _ in range(2)] == ["ready", "busy"]
    queue.done("ready")
    for key in ("timed", "ready", "busy", "forgotten"):
        queue.rouse(key)
    assert [await taken(queue) for _ in range(2)] == ["ready", "forgotten"]
    queue.done("busy")
    assert await is_idle(queue)


async def test_a_forgotten_key_is_not_woken_by_its_timer(queue: WorkQueue[str]) -> None:
    queue.wake_after("a", 0.02)
    queue.forget("a")
    queue.wake_after("b", 0.05)
    assert await taken(queue) == "b"
    assert await is_idle(queue)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_no_delay_is_now(queue: WorkQueue[str], seconds: float) -> None:
    queue.wake_after("a", seconds)
    assert len(queue) == 1


async def test_no_two_workers_ever_have_one_key(queue: WorkQueue[str]) -> None:
    busy: set[str] = set()
    seen = {"a": 0, "b": 0, "c": 0}

    async def worker() -> None:
        while True:
            key = await queue.get()
            assert key not in busy
            busy.add(key)
            seen[key] += 1
            await asyncio.sleep(0.001)
            busy.discard(key)
            queue.done(key)

    workers = [asyncio.create_task(worker()) for _ in range(8)]
    for turn in range(100):
        for key in seen:
            queue.wake(key)
            queue.wake_after(key, 0.001 * (turn % 3))
        await asyncio.sleep(0.0005)
    await asyncio.sleep(0.1)
    assert not busy
    assert not any(task.done() for task in workers)
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert all(seen.values())


# --- whose turn it is -------------------------------------------------------------------------------------------------


def tenant(key: str) -> Lane:
    """Whom a key like a7 takes turns for."""
    return Lane(key[0])


@pytest.mark.parametrize("can_wait", [False, True])
async def test_one_key_of_one_tenant_is_next_though_another_has_five_thousand(can_wait: bool) -> None:
    queue: WorkQueue[str] = WorkQueue(lane=tenant)
    for number in range(5000):
        queue.wake(f"a{number}", can_wait=can_wait)
    assert await taken(queue) == "a0"
    queue.wake("b0", can_wait=can_wait)
    assert [await taken(queue) for _ in range(4)] == ["a1", "b0", "a2", "a3"]


async def test_one_machine_of_one_rack_is_next_though_another_of_its_namespace_has_five_thousand() -> None:
    queue: WorkQueue[str] = WorkQueue(lane=lambda key: Lane("a", key[0]))
    for number in range(5000):
        queue.wake(f"1{number}")
    assert await taken(queue) == "10"
    queue.wake("20")
    assert [await taken(queue) for _ in range(3)] == ["11", "20", "12"]


async def test_what_has_happened_comes_before_what_can_wait_of_whomever() -> None:
    queue: WorkQueue[str] = WorkQueue(lane=tenant)
    for key in ("b0", "c0"):
        queue.wake(key, can_wait=True)
    for key in ("a0", "a1", "b1"):
        queue.wake(key)
    assert [await taken(queue) for _ in range(5)] == ["a0", "b1", "a1", "b0", "c0"]


async def test_what_is_under_way_gets_most_turns_and_what_is_fresh_is_not_starved() -> None:
    queue: WorkQueue[str] = WorkQueue(under_way=lambda key: key.startswith("u"))
    for number in range(3):
        queue.wake(f"f{number}")
    for number in range(40):
        queue.wake(f"u{number}")
    order = [await taken(queue) for _ in range(43)]
    assert [key for key in order if key[0] == "u"] == [f"u{number}" for number in range(40)]
    assert [order.index(f"f{number}") for number in range(3)] == [TURNS - 1, 2 * TURNS - 1, 42]


async def test_a_tenant_with_five_thousand_under_way_does_not_starve_one_who_begins() -> None:
    queue: WorkQueue[str] = WorkQueue(lane=tenant, under_way=lambda key: key.startswith("a"))
    for number in range(5000):
        queue.wake(f"a{number}")
    queue.wake("b0")
    assert "b0" in [await taken(queue) for _ in range(TURNS)]


@pytest.mark.parametrize("others", ["u", "f"])
async def test_what_is_due_has_its_turn_however_much_happens_meanwhile(others: str) -> None:
    """A deadline ends though thousands of others are under way, or begun."""
    queue: WorkQueue[str] = WorkQueue(under_way=lambda key: key.startswith("u"))
    queue.wake("due", can_wait=True)
    for number in range(5000):
        queue.wake(f"{others}{number}")
    assert "due" in [await taken(queue) for _ in range(TURNS)]


async def test_a_key_that_comes_under_way_while_it_waits_comes_sooner_and_once() -> None:
    begun: set[str] = set()
    queue: WorkQueue[str] = WorkQueue(under_way=begun.__contains__)
    for key in ("a", "b", "c"):
        queue.wake(key)
    begun.add("c")
    queue.wake("c")
    assert [await taken(queue) for _ in range(3)] == ["c", "a", "b"]
    assert not len(queue)


async def test_ten_thousand_keys_of_a_hundred_tenants_are_handed_out_in_no_time() -> None:
    queue: WorkQueue[tuple[int, int]] = WorkQueue(lane=lambda key: Lane(str(key[0])))
    begun = time.process_time()
    for number in range(10_000):
        queue.wake((number % 100, number))
    for _ in range(10_000):
        queue.done(await queue.get())
    assert time.process_time() - begun < 1.0


WAKES = st.tuples(st.sampled_from(["a0", "a1", "a2", "b0", "b1", "c0"]), st.booleans())


@given(st.lists(st.one_of(WAKES, st.just("get"), st.just("done"))))
async def test_whatever_is_woken_is_handed_out_once_in_turn_and_nothing_is_lost(events: list[object]) -> None:
    queue: WorkQueue[str] = WorkQueue(lane=tenant)
    ready: dict[str, bool] = {}
    busy: list[str] = []
    again: dict[str, bool] = {}
    passed_over: Counter[str] = Counter()
    entries, before = 0, 0
    """As many as were made, void ones too; those that could wait and did not, while others could not."""

    async def get() -> None:
        nonlocal before
        key = await queue.get()
        waiting = ready.pop(key)
        assert key not in busy
        before += waiting and not all(ready.values())
        assert before <= (entries + TURNS // 2) // TURNS, "what can wait has a turn in sixteen"
        busy.append(key)
        for other, can_wait in ready.items():
            if can_wait is waiting:
                passed_over[other] += 1
                ahead = sum(tenant(each) == tenant(other) for each in ("a0", "a1", "a2", "b0", "b1", "c0"))
                assert passed_over[other] <= 3 * ahead, "each lane has its turn"
        passed_over[key] = 0

    for event in (*events, *["get", "done"] * 20):
        match event:
            case "get" if ready:
                await get()
            case "done" if busy:
                key = busy.pop(0)
                queue.done(key)
                if key in again:
                    ready[key] = again.pop(key)
                    entries += 1
            case (str(key), bool(can_wait)):
                queue.wake(key, can_wait=can_wait)
                entries += 1
                if key in busy:
                    again[key] = can_wait and again.get(key, True)
                else:
                    if ready.get(key, can_wait) is not can_wait:
                        passed_over[key] = 0
                    ready[key] = can_wait and ready.get(key, True)
            case _:
                continue
    assert not ready
    assert not len(queue)
