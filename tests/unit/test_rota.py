"""Turns go round: nobody is overtaken twice by the same, and what is foretold is what happens."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright.record import Key
from rackwright.rota import Rota, Spot, Waiter

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMESPACES, RACKS = "abcd", ("", "r", "s")
LIMITS = st.none() | st.integers(1, 4)


def waiter(number: int, namespace: str = "a", rack: str = "", *, since: float | None = None) -> Waiter:
    """A machine whose operation was recorded so many seconds after noon."""
    at = NOON + timedelta(seconds=number if since is None else since)
    return Waiter(at, f"uid-{number}", Key(namespace, f"n{number}"), rack)


def begun(rota: Rota) -> list[Waiter]:
    """Whoever is called begins."""
    called = rota.calls()
    for each in called:
        rota.leave(each)
        rota.begin(each.spot)
    return called


def order(rota: Rota, slots: list[Spot]) -> list[Waiter]:
    """All that wait in the order in which they begin, as slots come back one by one in the order of their taking."""
    under_way, begins = deque(slots), list[Waiter]()
    while True:
        called = begun(rota)
        begins += called
        under_way += [each.spot for each in called]
        if not under_way:
            return begins
        rota.end(under_way.popleft())


def namespaces(waiters: list[Waiter]) -> str:
    return "".join(each.key.namespace for each in waiters)


def test_a_slot_that_comes_back_goes_to_another_namespace_before_its_own_gets_it_again() -> None:
    rota = Rota(1, None)
    for number in range(4):
        rota.join(waiter(number, "a"))
    begun(rota)
    rota.join(waiter(10, "b"))
    rota.join(waiter(11, "b"))
    assert namespaces(order(rota, [Spot("a", "")])) == "babaa"


def test_of_namespaces_that_have_equally_many_the_one_comes_first_that_has_given_none_back_for_longest() -> None:
    rota = Rota(4, None)
    for number in range(30):
        rota.join(waiter(number, "aaabc"[number % 5]))
    assert namespaces(begun(rota)) == "abca"
    rota.end(Spot("b", ""))
    assert namespaces(begun(rota)) == "b"
    rota.end(Spot("a", ""))
    assert namespaces(begun(rota)) == "c", "each has one"


def test_a_slot_with_which_nothing_was_begun_costs_no_turn() -> None:
    rota = Rota(1, None)
    for number, namespace in enumerate("aabb"):
        rota.join(waiter(number, namespace))
    (first,) = begun(rota)
    rota.give_back(first.spot)
    rota.join(first)
    assert namespaces(order(rota, [])) == "abab"


def test_racks_of_a_namespace_take_turns_as_namespaces_do() -> None:
    rota = Rota(1, None)
    for number in range(5):
        rota.join(waiter(number, rack="r"))
    begun(rota)
    rota.join(waiter(10, rack="s"))
    rota.join(waiter(11, rack="t"))
    assert [each.rack for each in order(rota, [Spot("a", "r")])] == ["s", "t", "r", "r", "r", "r"]


def test_whoever_waits_in_a_rack_that_is_full_is_passed_over_and_loses_nothing() -> None:
    rota = Rota(3, 1)
    for number, (namespace, rack) in enumerate([("a", "r"), ("b", "r"), ("c", "s"), ("c", "t"), ("c", "u")]):
        rota.join(waiter(number, namespace, rack))
    assert namespaces(begun(rota)) == "acc"
    rota.end(Spot("c", "s"))
    assert [each.spot for each in begun(rota)] == [Spot("c", "u")]
    rota.end(Spot("a", "r"))
    assert [each.spot for each in begun(rota)] == [Spot("b", "r")]


def test_without_a_memory_the_oldest_operations_come_first_in_whatever_order_they_are_read() -> None:
    waiters = [waiter(number, namespace) for number, namespace in enumerate("abcbca")]
    for seed in range(10):
        rota = Rota(1, None)
        for each in random.Random(seed).sample(waiters, len(waiters)):  # noqa: S311 (a shuffle)
            rota.join(each)
        assert namespaces(order(rota, [])) == "abcabc"


def test_nobody_is_remembered_who_neither_waits_nor_has_a_slot() -> None:
    rota = Rota(2, 1)
    for number in range(100):
        each = waiter(number, f"namespace-{number}", f"rack-{number}")
        rota.join(each)
        if number % 2:
            begun(rota)
            rota.end(each.spot)
        else:
            rota.leave(each)
    kept = [value for value in vars(rota).values() if not isinstance(value, int)]
    assert len(kept) == 6
    assert not any(kept)


def test_where_no_slot_ever_comes_back_all_have_a_place_by_the_same_rule() -> None:
    rota = Rota(0, 0)
    for number, namespace in enumerate("aaab"):
        rota.join(waiter(number, namespace))
    assert rota.calls() == []
    assert namespaces(list(rota.foretold([]))) == "abaa"


@given(st.data())
def test_a_namespace_that_waits_without_a_slot_is_overtaken_by_each_other_once_at_the_most(data: st.DataObject) -> None:
    most = data.draw(st.integers(1, 4))
    rota = Rota(*data.draw(st.sampled_from([(most, None), (None, most)])))
    waiting: list[Waiter] = []
    slots: list[str] = []
    overtaken: dict[str, Counter[str]] = {}
    """By whom, those that wait without a slot."""
    for number in range(data.draw(st.integers(0, 60))):
        event = data.draw(st.sampled_from(["join", "join", "leave", "end"]))
        if event == "join":
            age = data.draw(st.integers(0, 5))
            waiting.append(waiter(number, data.draw(st.sampled_from(NAMESPACES)), since=age))
            rota.join(waiting[-1])
        elif event == "leave" and waiting:
            rota.leave(waiting.pop(data.draw(st.integers(0, len(waiting) - 1))))
        elif event == "end" and slots:
            rota.end(Spot(slots.pop(data.draw(st.integers(0, len(slots) - 1))), ""))
        without = {each.key.namespace for each in waiting} - set(slots)
        overtaken = {name: overtaken.get(name, Counter()) for name in sorted(without)}
        for each in begun(rota):
            waiting.remove(each)
            slots.append(each.key.namespace)
            overtaken.pop(each.key.namespace, None)
            for others in overtaken.values():
                others[each.key.namespace] += 1
        assert all(max(others.values(), default=0) <= 1 for others in overtaken.values()), overtaken


@given(st.data())
def test_what_is_foretold_is_what_happens_if_nothing_else_does(data: st.DataObject) -> None:
    rota = Rota(data.draw(LIMITS), data.draw(LIMITS))
    taken: list[Spot] = []
    for number in range(data.draw(st.integers(0, 40))):
        if data.draw(st.booleans()) or not taken:
            place = data.draw(st.sampled_from(NAMESPACES)), data.draw(st.sampled_from(RACKS))
            rota.join(waiter(number, *place, since=data.draw(st.integers(0, 9))))
        else:
            rota.end(taken.pop(data.draw(st.integers(0, len(taken) - 1))))
        if data.draw(st.booleans()):
            taken += [each.spot for each in begun(rota)]
    foretold = list(rota.foretold(taken))
    assert len(foretold) == rota.waiting
    assert foretold == order(rota, taken)


@pytest.mark.parametrize("limits", [(100, None), (100, 4), (None, 1)])
@pytest.mark.parametrize(("tenants", "racks"), [(1, 1), (40, 100), (1000, 10)])
def test_where_ten_thousand_wait_a_turn_is_given_and_all_are_foretold_at_little_cost(
    tenants: int, racks: int, limits: tuple[int | None, int | None]
) -> None:
    rota = Rota(*limits)
    for number in range(10_000):
        rota.join(waiter(number, f"tenant-{number % tenants}", f"rack-{number // tenants % racks}"))
    taken = [each.spot for each in begun(rota)]
    started = time.process_time()
    for _ in range(20):
        rota.end(taken.pop(0))
        taken += [each.spot for each in begun(rota)]
    assert (time.process_time() - started) / 20 < 0.1
    started = time.process_time()
    assert len(list(rota.foretold(taken))) == rota.waiting
    assert time.process_time() - started < 3.0
