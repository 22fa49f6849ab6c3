"""BMCs that hang: what becomes of a fleet of a thousand when a tenth of it does. Time and threads are virtual."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextlib import suppress
from statistics import fmean, quantiles
from typing import Any

import pytest

from rackwright.app import WORKERS
from rackwright.lanes import ON_BEHALF_OF, TURNS, Lane, Rank, ranked
from rackwright.power.line import Line
from rackwright.power.one_bmc import Manner, OneBMC
from rackwright.power.port import DEFAULT_LIMITS, FaultClass, PowerError
from rackwright.power.traffic import ASIDE, HANGING_SECONDS, Exchanges, Traffic
from rackwright.reconcile import MOST_SLOW

CONCURRENCY = 32
PASSES = WORKERS + MOST_SLOW
"""As many as can wait for BMCs at once."""


class Skipping(selectors.SelectSelector):
    """Waits for nothing: whoever sleeps wakes at once, and the time is as if it had passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run it on a loop whose clock jumps from one event to the next."""
    selector = Skipping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


class Threads(Executor):
    """Threads in which an exchange takes as many seconds as it says, or an hour."""

    def __init__(self) -> None:
        self.busy = self.most = 0

    def submit(self, work: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        seconds, error = work(*args)
        self.busy += 1
        self.most = max(self.most, self.busy)

        def end() -> None:
            self.busy -= 1
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(None)

        asyncio.get_running_loop().call_later(seconds, end)
        return future


Answer = tuple[float, Exception | None]
"""After how many seconds, and why not."""


def answers(seconds: float) -> Callable[[], Answer]:
    return lambda: (seconds, None)


def hangs(seconds: float = 60.0) -> Callable[[], Answer]:
    return lambda: (seconds, PowerError(FaultClass.UNREACHABLE, "The BMC does not answer in time"))


class Fleet:
    """BMCs behind one operator's traffic."""

    def __init__(self, concurrency: int = CONCURRENCY, per_second: float | None = None) -> None:
        self.traffic = Traffic(concurrency, per_second)
        self.threads: Any = Threads()
        self.traffic.threads.shutdown()
        self.traffic.threads = self.threads

    def line(self) -> Line:
        return Line("there", OneBMC(), self.traffic)

    async def asks(self, line: Line, work: Callable[[], Answer]) -> float:
        """Seconds until it answered, or not."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        with suppress(PowerError):
            await line.call(work, DEFAULT_LIMITS)
        return clock() - begun

    def free(self) -> int:
        """Places that nobody has."""
        return self.traffic._places.free


async def a_while(hanging: int) -> list[float]:
    """How long each of those that answer took, in a fleet of a thousand that is asked once a minute each."""
    fleet, chance, took = Fleet(), random.Random(7), []  # noqa: S311 (repeatable on purpose)

    async def poll(number: int, first: float, answer: float) -> None:
        line = fleet.line()
        await asyncio.sleep(first)
        for _ in range(15):
            seconds = await fleet.asks(line, hangs() if number < hanging else answers(answer))
            if number >= 100:  # who answers in both fleets
                took.append(seconds)
            await asyncio.sleep(60.0)

    await asyncio.gather(*(poll(each, chance.uniform(0, 60), chance.uniform(0.1, 2.0)) for each in range(1000)))
    return took


def test_a_tenth_of_the_fleet_that_hangs_slows_nobody_else_down() -> None:
    well, ill = in_virtual_time(lambda: a_while(0)), in_virtual_time(lambda: a_while(100))
    assert len(well) == len(ill) == 900 * 15
    assert fmean(ill) <= 1.1 * fmean(well)
    assert quantiles(ill, n=100)[98] <= 1.1 * quantiles(well, n=100)[98]


async def a_storm() -> list[float]:
    """How long each that answers waited, of ten thousand of which 75 a second are begun; one in ten hangs."""
    fleet, waited = Fleet(), []

    async def begin(number: int) -> None:
        line = fleet.line()
        await asyncio.sleep(number / 75)
        if number % 10:
            waited.append(await fleet.asks(line, answers(0.01)))
            return
        for _ in range(3):
            await fleet.asks(line, hangs(DEFAULT_LIMITS.exchange))
            await asyncio.sleep(120)

    await asyncio.gather(*(begin(number) for number in range(10_000)))
    return waited


def test_a_tenth_of_ten_thousand_that_hangs_keeps_nobody_from_being_begun() -> None:
    """Those that are known to hang leave room aside for those that turn out to."""
    waited = in_virtual_time(a_storm)
    assert len(waited) == 9_000
    assert max(waited) < 1.0


def test_those_that_hang_free_their_places_and_begin_aside_the_next_time() -> None:
    async def main() -> None:
        fleet = Fleet()
        lines = [fleet.line() for _ in range(24)]
        asked = [asyncio.ensure_future(fleet.asks(line, hangs())) for line in lines]
        await asyncio.sleep(1)
        assert fleet.free() == 8
        await asyncio.sleep(5)
        assert fleet.free() == CONCURRENCY
        await asyncio.gather(*asked)
        assert {line._bmc.manner for line in lines} == {Manner.HANGS}
        asked = [asyncio.ensure_future(fleet.asks(line, hangs())) for line in lines]
        await asyncio.sleep(1)
        assert (fleet.free(), fleet.threads.busy) == (CONCURRENCY, 24)
        await asyncio.gather(*asked)
        assert fleet.traffic._aside.free == ASIDE * CONCURRENCY

    in_virtual_time(main)


def test_exchanges_are_counted_as_under_way_aside_and_waiting() -> None:
    async def main() -> None:
        fleet = Fleet(concurrency=4)
        lines = [fleet.line() for _ in range(6)]
        asked = [asyncio.ensure_future(fleet.asks(line, hangs())) for line in lines]
        asked.append(asyncio.ensure_future(fleet.asks(lines[0], hangs())))  # which waits for its BMC, not for a place
        assert fleet.traffic.counts() == Exchanges(0, 0, 0)
        await asyncio.sleep(1)
        assert fleet.traffic.counts() == Exchanges(under_way=3, aside=0, waiting=3)
        await asyncio.sleep(3)
        assert fleet.traffic.counts() == Exchanges(under_way=3, aside=3, waiting=0)
        asked[5].cancel()
        await asyncio.sleep(3)
        assert fleet.traffic.counts() == Exchanges(under_way=0, aside=6, waiting=0)
        await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.sleep(120)
        assert fleet.traffic.counts() == Exchanges(0, 0, 0)

    in_virtual_time(main)


def test_those_that_wait_for_a_place_until_they_give_up_are_counted_no_longer() -> None:
    async def main() -> None:
        fleet = Fleet(concurrency=1)
        asked = [asyncio.ensure_future(fleet.asks(fleet.line(), hangs())) for _ in range(3)]
        await asyncio.sleep(1)
        assert fleet.traffic.counts() == Exchanges(under_way=1, aside=0, waiting=2)
        for each in asked[1:]:
            each.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert fleet.traffic.counts() == Exchanges(under_way=1, aside=0, waiting=0)
        await asyncio.gather(*asked, return_exceptions=True)

    in_virtual_time(main)


def test_a_quarter_of_the_places_is_for_those_that_have_answered() -> None:
    async def main() -> None:
        fleet = Fleet()
        proven = [fleet.line() for _ in range(8)]
        for line in proven:
            await fleet.asks(line, answers(0.1))
        crowd = [asyncio.ensure_future(fleet.asks(fleet.line(), hangs())) for _ in range(1000)]
        await asyncio.sleep(1)
        assert await asyncio.gather(*(fleet.asks(line, answers(0.1)) for line in proven)) == [
            pytest.approx(0.1, abs=0.01) for _ in proven
        ]
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    in_virtual_time(main)


def test_one_that_hung_and_is_back_is_one_of_those_that_answer() -> None:
    async def main() -> None:
        fleet = Fleet()
        line = fleet.line()
        await fleet.asks(line, hangs())
        manners = [line._bmc.manner]
        await fleet.asks(line, answers(1.0))
        assert [*manners, line._bmc.manner] == [Manner.HANGS, Manner.ANSWERS]

    in_virtual_time(main)


def test_one_that_refuses_something_has_answered_and_one_that_refuses_connections_has_not() -> None:
    async def main() -> None:
        fleet = Fleet()
        for fault, manner in ((FaultClass.CREDENTIALS, Manner.ANSWERS), (FaultClass.UNREACHABLE, Manner.UNPROVEN)):
            line, error = fleet.line(), PowerError(fault, "No")
            await fleet.asks(line, lambda error=error: (0.1, error))  # type: ignore[misc]
            assert line._bmc.manner is manner

    in_virtual_time(main)


def test_no_place_is_lost_whoever_gives_up_when() -> None:
    async def main() -> None:
        fleet, chance = Fleet(concurrency=4), random.Random(7)  # noqa: S311 (repeatable on purpose)
        lines = [fleet.line() for _ in range(12)]
        for _ in range(300):
            work = hangs(chance.uniform(1, 130)) if chance.random() < 0.5 else answers(chance.uniform(0.1, 20))
            asked = asyncio.ensure_future(fleet.asks(chance.choice(lines), work))
            await asyncio.sleep(chance.uniform(0, 20))
            if chance.random() < 0.5:
                asked.cancel()
        await asyncio.sleep(10_000)
        places = (fleet.traffic._places, fleet.traffic._unproven, fleet.traffic._aside, fleet.traffic._hung)
        assert [each.free for each in places] == [4, 3, 4 * ASIDE, ASIDE]
        assert not any(line._bmc.asked or line._bmc._turns.taken for line in lines)

    in_virtual_time(main)


def test_no_more_exchanges_begin_in_a_second_than_may() -> None:
    async def main() -> float:
        fleet = Fleet(per_second=10)
        await asyncio.gather(*(fleet.asks(fleet.line(), answers(0.01)) for _ in range(101)))
        return asyncio.get_running_loop().time()

    assert in_virtual_time(main) == pytest.approx(10.0, abs=0.1)


def test_a_rate_is_no_debt_after_a_pause() -> None:
    async def main() -> None:
        fleet = Fleet(per_second=1)
        await fleet.asks(fleet.line(), answers(0.01))
        await asyncio.sleep(60)
        assert await fleet.asks(fleet.line(), answers(0.01)) == pytest.approx(0.01, abs=0.01)
        assert await fleet.asks(fleet.line(), answers(0.01)) == pytest.approx(1.0, abs=0.02)

    in_virtual_time(main)


@pytest.mark.parametrize("limit", [{"concurrency": 1}, {"per_second": 1}])
@pytest.mark.parametrize("other", [Lane("one"), Lane("many", "its only rack")])
def test_the_thousand_machines_of_a_tenant_or_rack_do_not_make_anothers_only_one_wait(
    limit: dict[str, int], other: Lane
) -> None:
    async def main() -> None:
        fleet = Fleet(**limit)
        ON_BEHALF_OF.set(Lane("many"))
        crowd = [asyncio.ensure_future(fleet.asks(fleet.line(), answers(1.0))) for _ in range(1_000)]
        await asyncio.sleep(0.5)
        ON_BEHALF_OF.set(other)
        assert await fleet.asks(fleet.line(), answers(1.0)) < 6
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    in_virtual_time(main)


def test_whoever_gives_up_waiting_takes_nobodys_turn() -> None:
    async def main() -> None:
        fleet = Fleet(per_second=1)
        crowd = [asyncio.ensure_future(fleet.asks(fleet.line(), answers(0.01))) for _ in range(100)]
        await asyncio.sleep(0.5)
        for each in crowd[1:]:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        assert await fleet.asks(fleet.line(), answers(0.01)) < 1.1

    in_virtual_time(main)


# --- waiting is no fault of a BMC's -----------------------------------------------------------------------------------


def test_our_own_rate_is_no_fault_of_a_bmc() -> None:
    async def main() -> None:
        fleet, work = Fleet(per_second=1), answers(0.01)
        longer = round(2 * DEFAULT_LIMITS.turn)
        asked = [fleet.line().call(work, DEFAULT_LIMITS) for _ in range(longer)]
        assert await asyncio.gather(*asked) == [None] * longer

    in_virtual_time(main)


def test_an_exchange_that_waits_for_our_own_rate_is_not_taken_for_one_that_hangs() -> None:
    async def main() -> None:
        fleet = Fleet(concurrency=8, per_second=0.1)
        asked = [asyncio.ensure_future(fleet.asks(fleet.line(), answers(0.01))) for _ in range(6)]
        await asyncio.sleep(25)
        assert (fleet.traffic.counts().under_way, fleet.traffic.counts().aside) == (3, 0)
        await asyncio.gather(*asked)

    in_virtual_time(main)


def test_a_sweep_over_slow_bmcs_takes_as_long_as_it_must_and_finds_none_of_them_busy() -> None:
    """As many passes as there can be, after a restart; three quarters of the places are for whom nobody knows yet."""

    async def main() -> list[float]:
        fleet, clock = Fleet(), asyncio.get_running_loop().time
        lines, took = [fleet.line() for _ in range(PASSES)], []
        for _ in range(2):
            begun = clock()
            asked = [line.call(answers(2.5), DEFAULT_LIMITS) for line in lines]
            assert await asyncio.gather(*asked) == [None] * PASSES
            took.append(clock() - begun)
        return took

    places = CONCURRENCY - CONCURRENCY // 4
    assert in_virtual_time(main) == [pytest.approx(PASSES * 2.5 / each, abs=2.5) for each in (places, CONCURRENCY)]


def test_whoever_waits_for_a_place_for_long_is_told_of_no_fault() -> None:
    async def main() -> None:
        fleet = Fleet(concurrency=1)
        hanging = [asyncio.ensure_future(fleet.asks(fleet.line(), hangs(10_000))) for _ in range(ASIDE + 2)]
        await asyncio.sleep(1_000)  # one has the place, and as many as may are aside
        begun = asyncio.get_running_loop().time()
        await fleet.line().call(answers(1), DEFAULT_LIMITS)
        assert asyncio.get_running_loop().time() - begun > 10 * DEFAULT_LIMITS.turn
        await asyncio.gather(*hanging)
        await asyncio.sleep(100_000)

    in_virtual_time(main)


def test_systems_behind_one_host_wait_for_each_other_for_as_long_as_it_answers() -> None:
    async def main() -> None:
        fleet, host = Fleet(), OneBMC()
        systems = [Line("there", host, fleet.traffic) for _ in range(300)]
        asked = [system.call(answers(2.5), DEFAULT_LIMITS) for system in systems]
        assert await asyncio.gather(*asked) == [None] * len(systems)
        assert asyncio.get_running_loop().time() == pytest.approx(300 * 2.5)

    in_virtual_time(main)


def test_systems_behind_a_host_that_answers_nobody_are_told_that_it_is_busy() -> None:
    async def main() -> None:
        fleet, host = Fleet(), OneBMC()
        asked = [Line("there", host, fleet.traffic).call(hangs(50), DEFAULT_LIMITS) for _ in range(10)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        faults = [error.fault for error in found if isinstance(error, PowerError)]
        assert faults == [FaultClass.UNREACHABLE] * 4 + [FaultClass.BUSY] * 6
        assert asyncio.get_running_loop().time() == pytest.approx(200), "180 s, and the exchange that was begun by then"

    in_virtual_time(main)


def test_an_answer_to_anybody_begins_the_patience_with_a_host_anew() -> None:
    async def main() -> None:
        fleet, host = Fleet(), OneBMC()
        habits = [hangs(50), hangs(50), hangs(50), answers(1), hangs(50), hangs(50), hangs(50), answers(1)]
        asked = [Line("there", host, fleet.traffic).call(habit, DEFAULT_LIMITS) for habit in habits]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [error.fault for error in found if isinstance(error, PowerError)] == [FaultClass.UNREACHABLE] * 6

    in_virtual_time(main)


def test_patience_with_a_host_is_not_used_up_while_its_next_exchange_waits_for_a_place() -> None:
    async def main() -> None:
        fleet, host = Fleet(per_second=0.001), OneBMC()
        first = asyncio.ensure_future(fleet.asks(fleet.line(), answers(1)))
        await asyncio.sleep(0)
        asked = [Line("there", host, fleet.traffic).call(answers(1), DEFAULT_LIMITS) for _ in range(3)]
        assert await asyncio.gather(*asked) == [None] * 3
        await first
        assert asyncio.get_running_loop().time() > 3_000

    in_virtual_time(main)


def test_a_poll_that_waits_for_a_place_holds_up_nothing_that_is_to_be_done_behind_the_same_host() -> None:
    """It has its BMC's turn: whatever is urgent about that is urgent about it."""

    async def main() -> None:
        fleet, host = Fleet(concurrency=1), OneBMC()
        with ranked(Rank.IDLE):
            crowd = [asyncio.ensure_future(fleet.asks(fleet.line(), answers(1.0))) for _ in range(1_000)]
            await asyncio.sleep(0)
            poll = asyncio.ensure_future(fleet.asks(Line("a", host, fleet.traffic), answers(1.0)))
            await asyncio.sleep(10)
        assert await fleet.asks(Line("b", host, fleet.traffic), answers(1.0)) < 4
        assert poll.done()
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    in_virtual_time(main)


def proven(line: Line) -> Line:
    """One whose BMC has answered."""
    line._bmc.manner = Manner.ANSWERS
    return line


def test_a_poll_that_has_its_turn_with_a_host_before_what_is_urgent_there_is_urgent_itself() -> None:
    async def main() -> None:
        fleet, host = Fleet(concurrency=1), OneBMC()
        lines = [Line(name, host, fleet.traffic) for name in "abc"]
        with ranked(Rank.IDLE):
            crowd = [asyncio.ensure_future(fleet.asks(fleet.line(), answers(1.0))) for _ in range(1_000)]
            crowd += [asyncio.ensure_future(fleet.asks(proven(fleet.line()), answers(1.0))) for _ in range(1_000)]
            await asyncio.sleep(0)
        first = asyncio.ensure_future(fleet.asks(lines[0], answers(1.0)))
        await asyncio.sleep(0)
        with ranked(Rank.IDLE):
            poll = asyncio.ensure_future(fleet.asks(lines[1], answers(1.0)))
            await asyncio.sleep(0)
        host._turns._turn = TURNS - 1  # the next turn there is for those that merely look
        assert await fleet.asks(lines[2], answers(1.0)) < 8
        assert poll.done()
        await first
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    in_virtual_time(main)


def test_whoever_is_worked_on_goes_before_two_thousand_polls() -> None:
    async def main() -> None:
        fleet = Fleet()
        with ranked(Rank.IDLE):
            polls = [asyncio.ensure_future(fleet.asks(fleet.line(), answers(2.5))) for _ in range(PASSES)]
        await asyncio.sleep(1)
        assert await fleet.asks(fleet.line(), answers(2.5)) <= 5
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)

    in_virtual_time(main)


def test_an_exchange_without_a_thread_shows_how_its_bmc_behaves_too() -> None:
    async def main() -> None:
        line = Fleet().line()
        with suppress(PowerError):
            async with line.turn(DEFAULT_LIMITS):
                await asyncio.sleep(HANGING_SECONDS)
                raise PowerError(FaultClass.UNREACHABLE, "The BMC does not answer in time")
        manners = [line._bmc.manner]
        async with line.turn(DEFAULT_LIMITS):
            pass
        assert [*manners, line._bmc.manner] == [Manner.HANGS, Manner.ANSWERS]

    in_virtual_time(main)
