"""Secrets: kept for minutes and no longer, and whoever waits for another one is told of that and of nothing else."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from rackwright import secrets
from rackwright.kube import Refused, Secret, Unavailable
from rackwright.secrets import Name, Secrets

NAME = Name("rack-a", "bmc")
END = object()
"""Ends a watch, as the API server does when its time is up."""


@dataclass
class Cluster:
    """A cluster with one Secret; a test says what a watch of it tells."""

    stored: Secret | None = None
    reads: int = 0
    watches: int = 0
    news: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    watching: asyncio.Event = field(default_factory=asyncio.Event)
    told: list[str] = field(default_factory=list)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def secret(self, *_name: str) -> Secret | None:
        self.reads += 1
        return self.stored

    async def secret_changes(self, *_name: str, seconds: int) -> AsyncGenerator[str | None]:
        assert seconds
        self.watches += 1
        self.watching.set()
        if self.stored is not None:
            yield self.stored.version
        while (news := await self.news.get()) is not END:
            if isinstance(news, Exception):
                raise news
            yield news

    def changed(self, uid: str) -> None:
        self.told.append(uid)
        self.woken.set()

    async def watched_again(self) -> None:
        """Return when another watch has begun."""
        self.watching.clear()
        await self.watching.wait()

    async def turn(self) -> None:
        """Return when whoever waited for the news has had it."""
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


def secrets_of(cluster: Cluster, **more: float) -> Secrets:
    return Secrets(cluster, cluster.changed, **more)  # type: ignore[arg-type]  # a scripted cluster


@pytest.fixture
async def kept(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Secrets]:
    monkeypatch.setattr(secrets, "_PAUSE_SECONDS", 0.0)
    it = secrets_of(cluster)
    async with asyncio.timeout(10):
        yield it
    await it.close()


def version(number: str) -> Secret:
    return Secret(number, {"password": b"hunter2"})


async def test_a_secret_is_read_once_in_a_while(cluster: Cluster, kept: Secrets) -> None:
    cluster.stored = version("1")
    assert [await kept.read(NAME) for _ in range(3)] == [cluster.stored] * 3
    assert cluster.reads == 1
    await kept.read(NAME, fresh=True)
    assert cluster.reads == 2


async def test_a_secret_that_nobody_reads_again_is_gone_from_memory(
    cluster: Cluster, kept: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Payload(dict[str, bytes]):
        """What a weak reference can follow."""

    monkeypatch.setattr(secrets, "KEPT_SECONDS", 0.05)
    content = Payload(password=b"hunter2")
    followed, gone = weakref.ref(content), asyncio.Event()
    weakref.finalize(content, asyncio.get_running_loop().call_soon, gone.set)
    cluster.stored = Secret("1", content)
    await kept.read(NAME)
    del content
    cluster.stored = None
    gc.collect()
    assert followed() is not None
    await gone.wait()
    assert followed() is None


async def test_a_newer_reading_is_kept_for_as_long_again(
    cluster: Cluster, kept: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "KEPT_SECONDS", 0.1)
    cluster.stored = version("1")
    await kept.read(NAME)
    first = kept._kept[NAME].expiry
    await kept.read(NAME, fresh=True)
    assert first.cancelled()
    assert not kept._kept[NAME].expiry.cancelled()


# --- waiting for another ------------------------------------------------------------------------------------------


async def test_whoever_waits_for_a_missing_secret_is_told_when_it_is_there(cluster: Cluster, kept: Secrets) -> None:
    kept.awaiting(NAME, "uid", None)
    await cluster.watched_again()
    assert not cluster.told
    await cluster.news.put("1")
    await cluster.woken.wait()
    assert cluster.told == ["uid"]


async def test_whoever_waits_for_another_version_is_told_of_a_change_and_of_its_end(
    cluster: Cluster, kept: Secrets
) -> None:
    for news in ("2", None):
        cluster.told, cluster.stored = [], version("1")
        cluster.woken.clear()
        await kept.read(NAME, fresh=True)
        kept.awaiting(NAME, "uid", "1")
        await cluster.watched_again()
        await cluster.turn()
        assert not cluster.told, "the version that it knows is no news"
        await cluster.news.put(news)
        await cluster.woken.wait()
        assert cluster.told == ["uid"]
        assert NAME not in kept._kept, "what was read before isn't so any more"
        await cluster.turn()


@pytest.mark.parametrize("end", [END, Unavailable("no answer")])
async def test_a_watch_that_merely_ends_tells_nobody_and_goes_on(cluster: Cluster, kept: Secrets, end: object) -> None:
    cluster.stored = version("1")
    kept.awaiting(NAME, "uid", "1")
    for _ in range(3):
        await cluster.watched_again()
        await cluster.turn()
        await cluster.news.put(end)
    await cluster.watched_again()
    assert not cluster.told
    await cluster.news.put("2")
    await cluster.woken.wait()
    assert cluster.told == ["uid"]


async def test_each_machine_waits_for_another_version_than_its_own(cluster: Cluster, kept: Secrets) -> None:
    cluster.stored = version("2")
    kept.awaiting(NAME, "has the present one", "2")
    await cluster.watched_again()
    await cluster.turn()
    kept.awaiting(NAME, "tried an earlier one", "1")
    await cluster.woken.wait()
    assert cluster.told == ["tried an earlier one"]
    assert cluster.watches == 1


@pytest.mark.parametrize(
    ("told", "knows"),
    [("5", "6"), (None, "6"), ("5", None)],
    ids=["corrected since", "made anew since", "deleted since"],
)
async def test_a_watch_that_is_late_tells_nobody_again_and_again_of_what_it_told_last(
    cluster: Cluster, kept: Secrets, told: str | None, knows: str | None
) -> None:
    cluster.stored = version("4")
    kept.awaiting(NAME, "another", "4")
    await cluster.watched_again()
    await cluster.turn()
    kept.awaiting(NAME, "another that goes on waiting", "9")
    await cluster.news.put(told)
    await cluster.woken.wait()
    for _ in range(10):
        kept.awaiting(NAME, "uid", knows)
        await cluster.turn()
    assert cluster.told.count("uid") <= 1
    await cluster.news.put("10")
    await cluster.turn()
    assert cluster.told[-1] == "uid"


async def test_a_version_is_newer_than_another_as_a_number(cluster: Cluster, kept: Secrets) -> None:
    cluster.stored = version("9")
    kept.awaiting(NAME, "uid", "9")
    await cluster.watched_again()
    await cluster.news.put("10")
    await cluster.woken.wait()
    assert cluster.told == ["uid"]


async def test_a_machine_that_doesnt_ask_again_waits_no_more(
    cluster: Cluster, kept: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "AWAITED_SECONDS", 0.0)
    kept.awaiting(NAME, "uid", None)
    watch = kept._watches[NAME]
    await cluster.news.put(END)
    await watch
    assert not cluster.told
    assert not kept._awaited


async def test_a_machine_that_asks_rarely_is_waited_for_as_long(cluster: Cluster) -> None:
    """An operator that looks at BMCs every quarter of an hour tries one that rejects its account every hour."""
    kept = secrets_of(cluster, at_rarest=3600.0)
    kept.awaiting(NAME, "uid", None)
    assert kept._awaited[NAME].machines["uid"].until > time.monotonic() + 3600
    await kept.close()


async def test_an_operator_that_ends_tells_nobody(cluster: Cluster, kept: Secrets) -> None:
    cluster.stored = version("1")
    await kept.read(NAME)
    kept.awaiting(NAME, "uid", "1")
    await cluster.watched_again()
    await kept.close()
    assert not cluster.told
    assert not kept._kept


# --- waiting for many ---------------------------------------------------------------------------------------------


class Many(Cluster):
    """A cluster of many Secrets, of which none is there at first."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[str, asyncio.Event] = {}
        self.open = self.most_open = 0
        self.trouble: Exception | None = None

    async def secret(self, *name: str) -> Secret | None:
        self.reads += 1
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble
        return version("1") if self._is_there(name).is_set() else None

    async def secret_changes(self, *name: str, seconds: int) -> AsyncGenerator[str | None]:
        assert seconds
        self.watches += 1
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            await self._is_there(name).wait()
            yield "1"
        finally:
            self.open -= 1

    def create(self, name: str) -> None:
        self._is_there(("rack-a", name)).set()

    async def told_of(self, count: int) -> None:
        while len(self.told) < count:
            self.woken.clear()
            await self.woken.wait()

    def _is_there(self, name: tuple[str, ...]) -> asyncio.Event:
        return self.there.setdefault(name[1], asyncio.Event())


async def until(holds: Callable[[], bool]) -> None:
    """Return when it is so."""
    while not holds():  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0)


@pytest.fixture
async def many() -> Many:
    return Many()


@pytest.fixture
async def kept_of_many(many: Many, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Secrets]:
    monkeypatch.setattr(secrets, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(secrets, "READS_PER_SECOND", float("inf"))
    it = Secrets(many, many.changed)  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        yield it
    await it.close()


async def test_a_thousand_secrets_are_awaited_with_a_bounded_number_of_watches_and_each_is_told_of(
    many: Many, kept_of_many: Secrets
) -> None:
    names = [f"bmc-{number}" for number in range(1000)]
    for name in names:
        kept_of_many.awaiting(Name("rack-a", name), name, None)
    await many.turn()
    assert many.open == secrets.WATCHES
    for name in reversed(names):  # those first that are not watched
        many.create(name)
    await many.told_of(1000)
    assert sorted(many.told) == sorted(names)
    assert many.most_open == secrets.WATCHES
    await until(lambda: not kept_of_many._watches and kept_of_many._reading is None)
    assert not kept_of_many._awaited
    assert not kept_of_many._unwatched


async def test_what_is_not_watched_is_read_in_turn_at_a_bounded_rate(
    many: Many, kept_of_many: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "WATCHES", 0)
    monkeypatch.setattr(secrets, "READS_PER_SECOND", 100.0)
    for name in ("a", "b"):
        kept_of_many.awaiting(Name("rack-a", name), name, None)
    begun = time.monotonic()
    await until(lambda: many.reads >= 6)
    assert time.monotonic() - begun >= 0.04, "a hundred a second, and no more"
    many.create("b")
    await many.told_of(1)
    assert many.told == ["b"]
    assert list(kept_of_many._awaited) == [Name("rack-a", "a")]


async def test_one_that_is_read_in_turn_is_watched_once_another_watch_is_over(
    many: Many, kept_of_many: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "WATCHES", 1)
    for name in ("a", "b"):
        kept_of_many.awaiting(Name("rack-a", name), name, None)
    many.create("a")
    await many.told_of(1)
    await until(lambda: many.watches == 2)
    assert list(kept_of_many._watches) == [Name("rack-a", "b")]
    assert not kept_of_many._unwatched


@pytest.mark.parametrize("trouble", [Unavailable("no answer"), Refused("forbidden")])
async def test_one_that_can_not_be_read_now_is_read_again(
    many: Many, kept_of_many: Secrets, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    monkeypatch.setattr(secrets, "WATCHES", 0)
    many.create("a")
    many.trouble = trouble
    kept_of_many.awaiting(Name("rack-a", "a"), "a", None)
    await until(lambda: many.reads == 5)
    assert not many.told
    many.trouble = None
    await many.told_of(1)


async def test_one_that_is_read_in_turn_and_that_nobody_asks_for_any_more_is_left(
    many: Many, kept_of_many: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "WATCHES", 0)
    monkeypatch.setattr(secrets, "AWAITED_SECONDS", 0.0)
    kept_of_many.awaiting(Name("rack-a", "a"), "a", None)
    await until(lambda: kept_of_many._reading is None)
    assert many.reads == 1
    assert not kept_of_many._awaited


def test_watches_that_broke_off_at_once_do_not_begin_again_at_once() -> None:
    pauses = [secrets._pause() for _ in range(100)]
    assert min(pauses) < 0.8 * secrets._PAUSE_SECONDS < 1.2 * secrets._PAUSE_SECONDS < max(pauses)
