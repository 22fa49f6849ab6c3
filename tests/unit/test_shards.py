"""Operators that share a fleet by Leases: each shard is one operator's, and each operator's share is fair."""

from __future__ import annotations

import asyncio
import copy
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.unit.test_cache import item

from rackwright import shards as module
from rackwright.assignment import Plan
from rackwright.kube import Conflict, Refused, Unavailable
from rackwright.lease import Terms
from rackwright.record import Machine
from rackwright.shards import Ours, Shards, Theirs, ToBeMoved, lease_name

QUICK = Terms(duration=1.0, deadline=0.6, period=0.1)
UNHURRIED = Terms(duration=30.0, deadline=20.0, period=10.0)
PATIENCE = 10.0


class Leases:
    """The API server's Leases, which it tells of to whoever watches."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.silent = False
        self.watched = True
        self.unnamed: set[str] = set()
        """Those that the operators' Role doesn't name."""
        self.news = asyncio.Event()

    async def lease(self, _namespace: str, name: str, *, seconds: float) -> dict[str, Any] | None:  # noqa: ARG002 (the port's)
        await self._answer()
        if name in self.unnamed:
            raise Refused(f"could not read the Lease {name}: 403 Forbidden")
        return copy.deepcopy(self.stored.get(name))

    async def leases(self, _namespace: str, *, seconds: float) -> list[dict[str, Any]]:  # noqa: ARG002 (the port's)
        await self._answer()
        return copy.deepcopy(list(self.stored.values()))

    async def put_lease(
        self,
        _namespace: str,
        name: str,
        body: Mapping[str, Any],
        *,
        seconds: float,  # noqa: ARG002 (the port's)
    ) -> dict[str, Any]:
        await self._answer()
        present = self.stored.get(name, {"metadata": {}})["metadata"].get("resourceVersion")
        if body["metadata"].get("resourceVersion") != present:
            raise Conflict("somebody else wrote first")
        self.version += 1
        stored = copy.deepcopy(dict(body))
        stored["metadata"] = {**stored["metadata"], "name": name, "resourceVersion": str(self.version)}
        self.stored[name] = stored
        self.news.set()
        self.news = asyncio.Event()
        return copy.deepcopy(stored)

    async def lease_changes(self, _namespace: str, *, seconds: int) -> AsyncGenerator[dict[str, Any]]:  # noqa: ARG002 (the port's)
        told: dict[str, str] = {}
        while True:
            if self.watched:
                for name, lease in list(self.stored.items()):
                    if told.get(name) != lease["metadata"]["resourceVersion"]:
                        told[name] = lease["metadata"]["resourceVersion"]
                        yield copy.deepcopy(lease)
            await self.news.wait()

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.silent:
            raise Unavailable("no answer")


@dataclass
class Operator:
    """One operator, as far as it holds shards."""

    leases: Leases
    name: str
    plan: Plan
    terms: Terms = QUICK
    taken: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    leaves_slowly: float = 0.0
    unanswered: Collection[str] = ()

    def __post_init__(self) -> None:
        self.shards = Shards(self.leases, "rackwright-system", self.name, self.plan, f"http://{self.name}", self.terms)  # type: ignore[arg-type]

    async def run(self) -> None:
        await self.shards.stand_by()
        await self.shards.keep(self.taken.append, self.leave)

    async def leave(self, shard: int) -> Collection[str]:
        assert self.shards.holds(shard), "it is ours until everything was left"
        assert isinstance(self.shards.jurisdiction(machine_in(shard, self.plan.shards)), Theirs), "and nothing begins"
        await asyncio.sleep(self.leaves_slowly)
        assert self.shards.holds(shard)
        self.left.append(shard)
        return self.unanswered


@asynccontextmanager
async def running(*operators: Operator, gently: bool = True) -> AsyncIterator[None]:
    """They run; and end, gently or as if they were killed."""
    tasks = [asyncio.create_task(operator.run()) for operator in operators]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if gently:
            for operator in operators:
                await operator.shards.release()


@asynccontextmanager
async def never_two(*operators: Operator) -> AsyncIterator[None]:
    """No shard is held by two of them at any time."""

    async def look() -> None:
        while True:
            held = Counter(shard for operator in operators for shard in operator.shards.held())
            assert not [shard for shard, holders in held.items() if holders > 1]
            await asyncio.sleep(0.005)

    looking = asyncio.create_task(look())
    yield
    assert not looking.done() or looking.result() is None
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def until(holds: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Wait for it; how long that took."""
    begun = time.monotonic()
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 (what time alone changes, whether a Lease is held, sets no event)
            await asyncio.sleep(0.01)
    return time.monotonic() - begun


def loads(*operators: Operator) -> list[int]:
    return [len(operator.shards.held()) for operator in operators]


def machine_in(shard: int, shards: int) -> Machine:
    """A machine that was put into this shard."""
    labels = {"metal.rackwright.io/shard": str(shard)}
    there = {"metal.rackwright.io/sharded-by": f"shard/{shard}"} if shards > 1 else {}
    return Machine.read(item(metadata={"labels": labels, "annotations": there}))


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HESITATION_SECONDS", "GIVEN_UP_SECONDS"):
        monkeypatch.setattr(module, name, getattr(module, name) / 10)


# --- one shard ----------------------------------------------------------------------------------------------------


async def test_a_standby_leads_as_soon_as_the_lease_is_given_up_however_seldom_it_looks() -> None:
    leases = Leases()
    first, second = (Operator(leases, name, Plan(), UNHURRIED) for name in ("first", "second"))
    async with AsyncExitStack() as later:
        async with running(first):
            await until(first.shards.holds)
            await later.enter_async_context(running(second))
            await asyncio.sleep(0.1)
            assert not second.shards.holds()
            assert leases.stored["rackwright"].keys() == {"apiVersion", "kind", "metadata", "spec"}
            assert "annotations" not in leases.stored["rackwright"]["metadata"], "as it always was"
        assert await until(second.shards.holds) < 0.5
        assert second.taken == [0]


async def test_a_leader_whose_clock_stood_still_hears_at_once_that_another_has_its_lease() -> None:
    leases = Leases()
    first = Operator(leases, "first", Plan(), UNHURRIED)
    async with running(first):
        await until(lambda: bool(first.taken))
        mandate = first.shards.mandate(0)
        assert mandate()
        lease = copy.deepcopy(leases.stored["rackwright"])
        lease["spec"] |= {"holderIdentity": "second", "leaseTransitions": 2}
        await leases.put_lease("rackwright-system", "rackwright", lease, seconds=1.0)
        assert await until(lambda: not mandate()) < 0.5
        assert not first.shards.holds()
    assert leases.stored["rackwright"]["spec"]["holderIdentity"] == "second"


async def test_without_a_watch_a_standby_looks_by_itself() -> None:
    leases = Leases()
    leases.watched = False
    first, second = (Operator(leases, name, Plan()) for name in ("first", "second"))
    async with AsyncExitStack() as later:
        async with running(first):
            await until(first.shards.holds)
            await later.enter_async_context(running(second))
        await until(second.shards.holds)


async def test_whoever_asks_for_a_dead_operators_lease_does_not_make_it_live_longer() -> None:
    leases = Leases()
    async with running(Operator(leases, "first", Plan()), gently=False):
        await until(lambda: "rackwright" in leases.stored)
    second, begun = Operator(leases, "second", Plan()), time.monotonic()
    async with running(second):
        while not second.shards.holds():
            await second.shards._leases[0].ask_for()
            await asyncio.sleep(0.05)
            assert time.monotonic() - begun < 2 * QUICK.duration


# --- many shards --------------------------------------------------------------------------------------------------


async def test_the_first_operator_takes_everything_and_says_where_it_is() -> None:
    leases = Leases()
    first = Operator(leases, "first", Plan.shared(4))
    async with running(first):
        await until(lambda: loads(first) == [4])
        assert sorted(first.taken) == [0, 1, 2, 3]
        assert set(leases.stored) == {"rackwright", "rackwright-1", "rackwright-2", "rackwright-3"}
        assert first.shards.holder_url(2) == "http://first"


async def test_operators_that_come_get_their_share_and_those_that_go_leave_theirs_behind() -> None:
    leases = Leases()
    first, second, third = (Operator(leases, name, Plan.shared(6), leaves_slowly=0.05) for name in "abc")
    async with never_two(first, second, third), running(first):
        await until(lambda: loads(first) == [6])
        async with running(second):
            await until(lambda: loads(first, second) == [3, 3])
            assert sorted(first.left) == sorted(second.taken), "each was left before it was taken, and no other"
            async with running(third, gently=False):
                await until(lambda: loads(first, second, third) == [2, 2, 2])
                kept = set(first.shards.held()), set(second.shards.held())
            await until(lambda: sum(loads(first, second)) == 6)
            assert kept[0] <= set(first.shards.held()), "only what was the third one's moves"
            assert kept[1] <= set(second.shards.held())
            await until(lambda: loads(first, second) == [3, 3])
        assert await until(lambda: loads(first) == [6]) < QUICK.duration, "what is given up isn't waited for"


async def test_shards_whose_leases_are_refused_keep_nobody_from_sharing_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    leases = Leases()
    leases.unnamed = {"rackwright-4", "rackwright-5"}
    first, second = (Operator(leases, name, Plan.shared(6)) for name in "ab")
    caplog.set_level("INFO")
    async with never_two(first, second), running(first):
        await until(lambda: loads(first) == [4])
        said = [record.message for record in caplog.records if "403 Forbidden" in record.message]
        assert len(said) == 2, "once for each"
        assert all("Does the Role rackwright-operator in the namespace rackwright-system name" in each for each in said)
        assert "standing by" not in caplog.text
        async with running(second):
            await until(lambda: loads(first, second) == [2, 2])
            leases.unnamed.clear()
            await until(lambda: loads(first, second) == [3, 3])


async def test_those_that_start_at_once_share_as_well() -> None:
    leases = Leases()
    operators = [Operator(leases, name, Plan.shared(8)) for name in "abcd"]
    async with never_two(*operators), running(*operators):
        await until(lambda: sorted(loads(*operators)) == [2, 2, 2, 2])


async def test_a_standby_of_one_shard_takes_that_one_alone() -> None:
    leases = Leases()
    first, second, standby = (Operator(leases, f"{n}", Plan(2, frozenset({n % 2}))) for n in range(3))
    async with never_two(first, second, standby), running(second, standby):
        async with running(first):
            await until(lambda: loads(second)[0] == 1 and sum(loads(first, standby)) == 1)
            await asyncio.sleep(2 * QUICK.period)
        await until(lambda: loads(second, standby) == [1, 1])


async def test_an_operator_that_is_not_heard_any_more_stops() -> None:
    leases = Leases()
    first = Operator(leases, "first", Plan.shared(2))
    task = asyncio.create_task(first.run())
    await until(lambda: loads(first) == [2])
    leases.silent = True
    async with asyncio.timeout(PATIENCE):
        await task
    leases.silent = False


@pytest.mark.parametrize(("mine", "theirs"), [(4, 2), (2, 4), (1, 4), (4, 1)])
async def test_those_that_divide_the_fleet_differently_never_act_at_once(mine: int, theirs: int) -> None:
    leases = Leases()
    first, second = Operator(leases, "first", Plan.shared(mine)), Operator(leases, "second", Plan.shared(theirs))
    both = asyncio.create_task(second.run())
    async with running(first):
        await until(lambda: bool(first.taken) or bool(second.taken))
        acts, waits = (first, second) if first.taken else (second, first)
        await until(lambda: len(acts.shards.held()) == acts.plan.shards or bool(waits.shards.held()))
        await asyncio.sleep(5 * QUICK.period)
        assert not waits.taken
        assert not waits.shards.held()
        assert not acts.left, "nor does it ask for any"
    both.cancel()
    await asyncio.gather(both, return_exceptions=True)
    await second.shards.release()


@pytest.mark.parametrize("gently", [True, False])
async def test_another_division_takes_effect_when_the_last_operator_of_the_former_is_gone(gently: bool) -> None:
    leases = Leases()
    first, second = Operator(leases, "first", Plan.shared(4)), Operator(leases, "second", Plan.shared(3))
    async with AsyncExitStack() as later:
        async with running(first, gently=gently):
            await until(lambda: loads(first) == [4])
            await later.enter_async_context(running(second))
            await asyncio.sleep(3 * QUICK.period)
            assert not second.taken
        await until(lambda: sorted(second.taken) == [0, 1, 2])


async def test_other_peoples_leases_say_nothing() -> None:
    leases = Leases()
    await leases.put_lease("", "rackwright-web", {"metadata": {}, "spec": {"holderIdentity": "somebody"}}, seconds=1)
    first = Operator(leases, "first", Plan.shared(2))
    async with running(first):
        await until(lambda: loads(first) == [2])


# --- machines -----------------------------------------------------------------------------------------------------


async def test_one_shard_is_everybodys_and_nothing_is_written_down() -> None:
    first = Operator(Leases(), "first", Plan())
    async with running(first):
        await until(first.shards.holds)
        verdict = first.shards.jurisdiction(Machine.read(item()))
        assert isinstance(verdict, Ours)
        assert verdict.mandate()
    assert not verdict.mandate(), "and what it gave ends with it"


async def test_a_machine_is_acted_on_once_it_is_written_down_what_puts_it_into_its_shard() -> None:
    first = Operator(Leases(), "first", Plan.shared(2))
    labels = {"metal.rackwright.io/rack": "a12"}
    new = Machine.read(item(metadata={"labels": labels}))
    put = Machine.read(item(metadata={"labels": labels, "annotations": {"metal.rackwright.io/sharded-by": "rack/a12"}}))
    async with running(first):
        await until(lambda: loads(first) == [2])
        verdict = first.shards.jurisdiction(new)
        assert isinstance(verdict, ToBeMoved)
        assert verdict.key == "rack/a12"
        assert isinstance(first.shards.jurisdiction(put), Ours)


async def test_a_machine_whose_rack_changes_is_moved_by_whoever_acts_on_it_and_by_nobody_else() -> None:
    leases = Leases()
    old, new = Operator(leases, "old", Plan(2, frozenset({0}))), Operator(leases, "new", Plan(2, frozenset({1})))
    labels, there = {"metal.rackwright.io/shard": "1"}, {"metal.rackwright.io/sharded-by": "shard/0"}
    moving = Machine.read(item(metadata={"labels": labels, "annotations": there}))
    async with running(old, new):
        await until(lambda: loads(old, new) == [1, 1])
        verdict = old.shards.jurisdiction(moving)
        assert isinstance(verdict, ToBeMoved)
        assert verdict.key == "shard/1"
        assert isinstance(new.shards.jurisdiction(moving), Theirs)


async def test_a_mandate_ends_when_its_shard_goes_and_does_not_come_back_with_it() -> None:
    leases = Leases()
    first, second = (Operator(leases, name, Plan.shared(2)) for name in "ab")
    async with running(first):
        await until(lambda: loads(first) == [2])
        mandates = {shard: first.shards.mandate(shard) for shard in (0, 1)}
        async with running(second):
            await until(lambda: loads(first, second) == [1, 1])
            (gone,) = second.shards.held()
            assert not mandates[gone]()
            assert mandates[1 - gone]()
        await until(lambda: loads(first) == [2])
        assert not mandates[gone]()


async def test_whoever_gets_a_shard_is_told_which_bmcs_have_not_answered() -> None:
    leases = Leases()
    first, second = (Operator(leases, name, Plan.shared(2)) for name in "ab")
    first.unanswered = {"10.0.0.7:443"}
    async with running(first, second):
        await until(lambda: loads(first, second) == [1, 1])
        (moved,), (kept,) = second.shards.held(), first.shards.held()
        if first.left:  # else both began with one each
            assert second.shards.unfinished(moved) == first.unanswered
        assert first.shards.unfinished(kept) == frozenset()


async def test_whoever_can_not_act_by_a_lease_that_it_took_passes_on_what_it_was_told() -> None:
    leases = Leases()
    first, second, third = (Operator(leases, name, Plan.shared(2)) for name in "abc")
    async with running(first, gently=False):
        await until(lambda: loads(first) == [2])
    await first.shards.release({"10.0.0.7:443"})
    listed, refused = leases.leases, asyncio.Event()

    async def refuse(*_: Any, **__: Any) -> list[dict[str, Any]]:
        refused.set()
        raise Unavailable("no answer")

    leases.leases = refuse  # type: ignore[method-assign]
    async with running(second):
        await refused.wait()
        await until(lambda: not any(lease["spec"]["holderIdentity"] for lease in leases.stored.values()))
    leases.leases = listed  # type: ignore[method-assign]
    async with running(third):
        await until(lambda: loads(third) == [2])
        assert [set(third.shards.unfinished(shard)) for shard in (0, 1)] == 2 * [{"10.0.0.7:443"}]


async def test_nobody_acts_by_a_lease_before_it_is_known_how_others_divide_the_fleet() -> None:
    leases = Leases()
    first = Operator(leases, "first", Plan.shared(2))
    asked, answer = asyncio.Event(), asyncio.Event()
    listed = leases.leases

    async def slowly(*arguments: Any, **keywords: Any) -> list[dict[str, Any]]:
        asked.set()
        await answer.wait()
        return await listed(*arguments, **keywords)

    leases.leases = slowly  # type: ignore[method-assign]
    async with running(first):
        await asked.wait()
        assert [lease["spec"]["holderIdentity"] for lease in leases.stored.values()]
        assert first.shards.held() == []
        assert not first.shards.holds_any()
        assert not first.shards.mandate(0)()
        assert isinstance(first.shards.jurisdiction(machine_in(0, 2)), Theirs)
        answer.set()
        await until(lambda: loads(first) == [2])


def test_the_first_shards_lease_has_the_name_that_it_has_without_shards() -> None:
    assert [lease_name(shard) for shard in range(3)] == ["rackwright", "rackwright-1", "rackwright-2"]
