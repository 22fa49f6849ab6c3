"""What the bench makes of what it measured: counts stay counts, and what nobody measured isn't told as 0."""

from __future__ import annotations

import asyncio
import http.server
import itertools
import os
import queue
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from lab import benchmark, controlplane, interrupt, measured, scrape
from lab.bare import Written
from lab.controlplane_choice import Choice, Kind
from lab.errors import Unfit
from lab.fleet import JSON, Fleet, together
from lab.measured import Bench, Figures, Look, last_words
from lab.report import described, table
from lab.scenarios import FAST, HANGING, SLOWER, calm, compared, storm
from lab.scrape import Metrics, quantile
from lab.targets import Results, verdicts
from lab.usage import Usage

if TYPE_CHECKING:
    from lab.installation import Operated

KIB, MB = 2**10, 10**6
BUCKETS = {0.01: 10.0, 0.1: 20.0, 1.0: 20.0, float("inf"): 21.0}


def figures(wall: float = 1.0, peak: int = MB, **requests: int) -> Figures:
    asked = {what.replace("_", " "): count for what, count in requests.items()}
    return Figures(1_000, wall, wall, 1.0, 1.0, peak, asked)


# --- counts -------------------------------------------------------------------------------------------------------


def test_a_single_write_of_ten_thousand_machines_is_not_rounded_away() -> None:
    idle = Figures(10_000, 300.0, requests={"patch baremetalmachines/status": 1, "list secrets": 3, "get secrets": 2})
    assert idle.writes == 1
    missed = verdicts({10_000: {"idle": idle, "created": figures()}}, {})
    assert {verdict.target.figure: verdict.met for verdict in missed if verdict.target.scenario == "idle"} == {
        "writes": False
    }
    assert "1 patch baremetalmachines/status, of all machines together" in table({10_000: {"idle": idle}}, [])
    told = described({10_000: {"idle": idle}}, [])["machines"]["10000"]["idle"]
    assert told["requests"] == idle.requests
    assert told["machines"] == 10_000


def test_listings_are_the_fleets_and_other_requests_each_machines() -> None:
    assert figures(list_secrets=5, patch_machines=7_000, get_secrets=100).requests_per_machine == 7.1


def test_what_was_not_measured_is_a_dash_and_no_verdict() -> None:
    bare = Figures(100, wall=2.0, server=3.0)
    assert (bare.writes, bare.requests_per_machine) == (None, None)
    assert "operator —, —; API server 3.0 s; — requests a machine" in table({100: {"bare": bare}}, [])
    assert list(verdicts({100: {"created": bare}}, {})) == []


# --- the last words -----------------------------------------------------------------------------------------------


def operator(*asked: int, then: int = 0) -> Callable[[], Look]:
    """One that has asked so much in all when it is looked at, a second apart, and each time so much more afterwards."""
    seen = enumerate(itertools.chain(asked, itertools.count(asked[-1] + then, then)))

    def look() -> Look:
        second, total = next(seen)
        return Look(Counter({"patch baremetalmachines": total}), Usage(total / 1_000, 0.0, 0), float(second))

    return look


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two looks."""
    monkeypatch.setattr(measured, "LOOK", 0.0)


async def test_all_that_is_asked_after_the_last_machine_is_there_is_counted_and_nothing_used_after_that() -> None:
    look, said = operator(4_878, 6_000, 6_000, 6_000, 10_000), list[str]()
    last = await last_words(look, look(), 60, said.append)
    assert (last.asked.total(), last.used.operator, last.at) == (10_000, 10.0, 4.0)
    assert said[-1] == "10000 requests; until there are no more"


async def test_an_operator_that_has_said_all_is_measured_until_the_last_machine_is_there() -> None:
    look = operator(700)
    first = look()
    assert await last_words(look, first, 60, lambda _: None) is first


async def test_an_operator_that_never_stops_asking_has_no_figures_but_a_sentence() -> None:
    look = operator(700, then=7)
    with pytest.raises(Unfit, match=r"60 s after .* still asks: \{'patch baremetalmachines': 7\} within 1\.0 s"):
        await last_words(look, look(), 60, lambda _: None)


def test_people_are_told_how_long_the_operator_had_to_say_something() -> None:
    assert "100.0 s, quiet after 112.5 s; operator" in table({1: {"deployed": Figures(1, 100.0, 112.5)}}, [])
    assert "100.0 s; operator" in table({1: {"storm": Figures(1, 100.0)}}, [])


# --- verdicts -----------------------------------------------------------------------------------------------------


def memory(results: Results, kept: Results) -> list[tuple[str, ...]]:
    """The rows that are about it."""
    return [each.row()[1:6] for each in verdicts(results, kept) if "memory" in each.target.figure]


def test_memory_is_the_most_of_all_scenarios_and_the_row_says_which_that_was() -> None:
    many = {"created": figures(peak=335 * MB), "released": figures(peak=449 * MB), "deployed": figures(peak=416 * MB)}
    assert memory({10_000: many}, {}) == [("released", "operator's peak memory", "449 MB", "≤ 400 MB", "MISSED")]
    assert memory({10_000: {"created": many["created"]}}, {}) == [
        ("created", "operator's peak memory", "335 MB", "≤ 400 MB", "met")
    ]
    assert memory({10_000: {"bare": Figures(10_000)}}, {}) == memory({1_000: many}, {}) == []


def test_memory_grows_from_what_a_thousand_took_in_the_same_scenarios() -> None:
    def peaks(**each: int) -> dict[str, Figures]:
        return {name: figures(peak=peak) for name, peak in each.items()}

    few = peaks(created=100 * MB, released=110 * MB)
    _, growth = memory({1_000: few, 10_000: peaks(created=200 * MB, released=110 * MB + 9_000 * 20 * KIB)}, {})
    assert growth == ("released", "memory a machine beyond the first 1,000", "20 KiB", "≤ 30 KiB", "met")
    _, growth = memory({10_000: peaks(created=100 * MB + 9_000 * 31 * KIB, deployed=900 * MB)}, {1_000: few})
    assert growth == (
        "created", "memory a machine beyond the first 1,000 that are recorded", "31 KiB", "≤ 30 KiB", "MISSED",
    )  # fmt: skip
    assert len(memory({1_000: peaks(storm=1), 10_000: peaks(created=100 * MB)}, {1_000: few})) == 1


def test_an_operator_that_was_left_alone_for_a_short_time_is_told_of_as_that() -> None:
    for wall, figure in ((30.0, "writes, over 30 s only"), (300.0, "writes")):
        (verdict,) = verdicts({100: {"idle": Figures(100, wall, requests={})}}, {})
        assert verdict.row()[2] == figure


def test_a_storm_is_judged_whatever_the_size_of_the_fleet() -> None:
    storm = compared([Figures(18, wall=10.0)], [Figures(20, wall=11.1)])
    assert [each.met for each in verdicts({18: {"storm": storm}}, {})] == [False]


def test_storms_are_compared_with_calms_by_their_means() -> None:
    """A host that slows down while they take turns, as hosts do for minutes, has slowed down both."""
    calms, storms = ([Figures(900, wall=wall) for wall in walls] for walls in ((10.0, 12.0), (11.0, 13.2)))
    told = compared(calms, storms)
    assert told.wall == 11.0
    assert told.further == pytest.approx(
        {
            "seconds, on average": 12.1,
            "seconds where the tenth is locked": 11.0,
            SLOWER: 10.0,
            "percent between two runs where it is locked": 20.0,
        }
    )


async def test_a_storm_is_compared_with_as_many_machines_of_which_those_that_hang_in_it_are_locked() -> None:
    declared: list[dict[str, JSON]] = []

    class Site(Bench):
        """Where everybody who can be is Ready at once."""

        @asynccontextmanager
        async def measured(self, name: str, *_: object, **__: object) -> AsyncIterator[Figures]:
            self.say = lambda _: None
            self.results[name] = Figures(self.count)
            yield self.results[name]

    class Declared:
        apart: frozenset[str] = frozenset()

        async def create(self, specs: dict[str, JSON]) -> None:
            declared.append(specs)

        async def until(self, *_: object) -> float:
            return time.monotonic()

    for live in (calm, storm):
        await live(Site(cast("Operated", None), cast("Fleet", Declared()), 30))
    usual, stormy = declared
    apart = [name for name in usual if usual[name] != stormy[name]]
    assert apart == ["m-00009", "m-00019", "m-00029"]
    for name in apart:
        assert usual[name] == {**stormy[name], "bmc": {"address": FAST}, "locked": True}
        assert stormy[name]["bmc"] == {"address": HANGING}


def test_beside_a_missed_wall_stands_what_a_client_took_that_decides_nothing() -> None:
    bare = Figures(1_000, wall=18.0)
    for wall, said in ((30.0, True), (20.0, False)):
        results = {1_000: {"created": figures(wall), "bare": bare}}
        last = table(results, list(verdicts(results, {}))).splitlines()[-1]
        assert (last == "1000 machines: a client that decides nothing took 18 s for as many requests") == said


# --- metrics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_all", "value"),
    [(0.0, 0.0), (0.25, 0.00525), (10 / 21, 0.01), (0.5, 0.0145), (20 / 21, 0.1), (0.99, 1.0), (1.0, 1.0)],
)
def test_quantiles_are_those_of_prometheus(of_all: float, value: float) -> None:
    """Linear in a bucket; of what is above the last bound, that bound."""
    assert quantile(BUCKETS, of_all) == pytest.approx(value)


def test_without_observations_there_is_no_quantile() -> None:
    assert quantile({}, 0.5) is None
    assert quantile(dict.fromkeys(BUCKETS, 0.0), 0.5) is None


def test_a_scenarios_lag_leaves_out_what_was_before_it() -> None:
    text = 'lag_bucket{le="0.01"} %d.0\nlag_bucket{le="1.0"} %d.0\nlag_bucket{le="+Inf"} %d.0\nlag_count %d.0\n'
    before, after = Metrics(text % (90, 90, 90, 90)), Metrics(text % (90, 100, 100, 100))
    assert after.quantile("lag", 0.5, before) == pytest.approx(0.01 + 0.99 / 2)
    assert after.quantile("lag", 0.5, Metrics()) == pytest.approx(0.01 * 50 / 90)
    assert before.quantile("lag", 0.5, before) is None
    assert after.value("lag_count") == 100
    assert after.value("lag_bucket") == 290


@pytest.fixture
def told() -> Iterator[tuple[int, queue.SimpleQueue[str]]]:
    """A server whose queue gets longer each time that it is looked at, and what it was asked."""
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()
    counted = itertools.count(1)

    class Told(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.put(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"queue {next(counted)}.0\n".encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server.server_port, asked
        server.shutdown()
        serving.join()


async def test_a_metric_is_looked_at_again_and_again(
    told: tuple[int, queue.SimpleQueue[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "EVERY", 0.001)
    port, asked = told
    async with scrape.watched(port, "queue") as found:
        for _ in range(4):
            assert await asyncio.to_thread(asked.get, timeout=30) == "/metrics"
    assert found[:3] == [1, 2, 3]


async def test_an_operator_that_is_being_started_is_not_looked_at() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        async with scrape.watched(port, "queue") as found:
            await asyncio.sleep(0.1)
        assert found == []
        with pytest.raises(Unfit, match="tells no metrics"):
            scrape.scrape(port)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.fixture
def laboratories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where there are laboratories, none of which is there."""
    monkeypatch.setattr("lab.installation.STATE", tmp_path / "state")
    monkeypatch.setattr("lab.benchmark.run_path", lambda name: tmp_path / "run" / name)
    monkeypatch.setattr(controlplane, "check", lambda _: [])
    monkeypatch.setattr(benchmark, "look_around", lambda: None)
    monkeypatch.setattr(benchmark, "choose", lambda _: Choice(Kind.BUILT, "there is Go"))
    return tmp_path


@pytest.mark.parametrize("there", ["state/bench/control-plane", "state/bench/operator", "run/bench/operator"])
def test_nothing_that_is_there_already_is_measured_or_removed(laboratories: Path, there: str) -> None:
    (laboratories / there).mkdir(parents=True)
    with pytest.raises(Unfit, match="There is a laboratory bench already") as refused:
        benchmark.require([1], "bench")
    assert "--name" in refused.value.remedy
    with pytest.raises(Unfit, match="There is a laboratory bench already"):
        benchmark.run("bench", 1, [], 0)
    assert (laboratories / there).is_dir()


@pytest.mark.usefixtures("laboratories")
def test_a_control_plane_without_an_audit_log_is_refused_and_the_port_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "choose", lambda _: Choice(Kind.KIND, "kind is on the PATH"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(benchmark, "PORT", port)
        with pytest.raises(Unfit) as refused:
            benchmark.require([1], "bench")
    assert f"needs TCP port {port} on 127.0.0.1" in refused.value.problem
    assert "bench (kind) keeps no audit log here" in refused.value.problem
    assert "take kind off the PATH" in refused.value.remedy


# --- together, and the end ----------------------------------------------------------------------------------------


async def test_the_first_that_fails_ends_the_others_and_is_told_as_it_is() -> None:
    ended = []

    async def wait() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("waiting")

    async def fail() -> None:
        raise Unfit("no", "yes")

    with pytest.raises(Unfit, match="no"):
        await together(wait(), fail())
    assert ended == ["waiting"]


def test_a_second_interrupt_spares_the_removing() -> None:
    """It comes while the first one's are being removed, at once and later."""
    removed = []

    async def work() -> None:
        try:
            press()
            press()
            await asyncio.sleep(3600)
        finally:
            press()
            await asyncio.sleep(0)
            press()
            removed.append("all of it")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupt.run(work())
    assert removed == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_is_not_forgotten_though_the_work_is_done_or_fails(capsys: pytest.CaptureFixture[str]) -> None:
    async def done() -> None:
        press()

    async def fail() -> None:
        press()
        raise Unfit("kubectl failed", "try again")

    for work in (done, fail):
        with pytest.raises(KeyboardInterrupt):
            interrupt.run(work())
    assert "kubectl failed" in capsys.readouterr().err


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_floor_is_of_the_requests_that_the_operator_makes_or_of_none() -> None:
    asked = {"patch baremetalmachines": 2, "patch baremetalmachines/status": 6, "patch hardwareinventories": 2}
    made = Figures(2, requests={**asked, "create events": 4, "list baremetalmachines": 9})
    assert made.of_each["patch baremetalmachines/status"] == 3
    assert "list baremetalmachines" not in made.of_each
    with pytest.raises(Unfit, match="aren't those that lab/bare"):
        Written.about(cast("Operated", None), "m", {**made.of_each, "patch events": 1})
