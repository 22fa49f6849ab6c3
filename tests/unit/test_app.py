"""The operator as a process: what it asks of the system, and how it begins."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.web import Application

from rackwright import app, server
from rackwright.agent.tokens import Tokens
from rackwright.kube import Refused, Secret, Unavailable, Unidentified
from rackwright.metrics import Metrics
from rackwright.netboot.script import RamdiskSettings
from rackwright.record import Machine
from rackwright.shards import Ours


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """As most systems give a process; the number that it may raise that to."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1]), before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_operator_may_open_as_many_files_as_the_system_allows(few_descriptors: int) -> None:
    app.have_all_descriptors()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few_descriptors, few_descriptors)


@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize("error", [ValueError("not allowed to raise maximum limit"), PermissionError()])
def test_where_it_may_not_it_goes_on(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    app.have_all_descriptors()
    assert not caplog.records
    monkeypatch.undo()


SETTINGS = app.Settings("http://10.0.0.1", "127.0.0.1", 0, "metal", RamdiskSettings("http://10.0.0.1"))


@dataclass
class Cluster:
    """A cluster that fails at first, in these ways."""

    troubles: list[Exception] = field(default_factory=list)

    async def secret(self, *_name: str) -> Secret:
        if self.troubles:
            raise self.troubles.pop(0)
        return Secret("1", {"key": b"k"})


@pytest.mark.parametrize(
    ("trouble", "remedy"),
    [
        (Refused("could not read it: 403 Forbidden"), "lacks the Role rackwright-operator in the namespace metal"),
        (Unidentified("could not read it: 401 Unauthorized"), "the Pod needs a token of its ServiceAccount"),
        (Unavailable("could not read it: TimeoutError"), None),
    ],
)
async def test_an_operator_that_may_not_read_its_key_says_what_it_lacks_and_tries_again(
    trouble: Exception, remedy: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "RETRY_SECONDS", 0.0)
    cluster: Any = Cluster([trouble, trouble])
    async with asyncio.timeout(10):
        assert await app._token_key(cluster, SETTINGS, asyncio.Event()) == b"k"
    assert len(caplog.messages) == 2
    for message in caplog.messages:
        assert message.startswith(str(trouble))
        assert message.endswith("; again in 0 s")
        assert remedy in message if remedy else message == f"{trouble}; again in 0 s"


async def test_an_operator_that_waits_for_the_api_server_lives_and_is_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kubelet that gets no answer ends it, and begins it again after up to five minutes."""
    monkeypatch.setattr(app, "RETRY_SECONDS", 0.0)
    answers: list[int] = []
    listening = server.listening

    @asynccontextmanager
    async def asked(web: Application, host: str, port: int) -> AsyncIterator[int]:
        async with listening(web, host, port) as here, ClientSession(f"http://{host}:{here}") as probe:
            for path in ("/healthz", "/readyz", "/boot/ipxe?mac=52-54-00-00-00-07"):
                async with probe.get(path) as answer:
                    answers.append(answer.status)
            yield here

    monkeypatch.setattr(server, "listening", asked)
    cluster: Any = Cluster([Unavailable("could not read it: TimeoutError")] * 2)
    async with asyncio.timeout(10):
        assert await app._token_key(cluster, SETTINGS, asyncio.Event()) == b"k"
    assert answers == [200, 503, 503], "once"


# --- the end ------------------------------------------------------------------------------------------------------


class Everything:
    """What stands around an operator that leads: no machines; `deeds` tells in order what came to its end."""

    alone = True

    def __init__(self) -> None:
        self.deeds: list[str] = []
        self.watching = asyncio.Event()

    async def listed(self, _plural: str) -> AsyncGenerator[dict[str, Any]]:
        for record in list[dict[str, Any]]():
            yield record

    async def stand_by(self) -> None:
        return

    async def keep(self, *_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.deeds.append("renews no more")

    def held(self) -> list[int]:
        return [0]

    def holds(self, _shard: int = 0) -> bool:
        return True

    holds_any = holds

    def jurisdiction(self, machine: Machine) -> Ours:
        raise AssertionError(machine)

    def withdraw(self, *_: int) -> None:
        self.deeds.append("nothing is begun")

    async def release(self, *_: object) -> None:
        self.deeds.append("released")

    async def watch(self, *, stop: asyncio.Event, **_: object) -> None:
        self.watching.set()
        try:
            await stop.wait()
        finally:
            await asyncio.sleep(0.3)
            self.deeds.append("watches no more")


async def test_another_operator_does_not_wait_for_our_watches_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    around, stop = Everything(), asyncio.Event()
    monkeypatch.setattr("rackwright.handlers.watch", around.watch)
    url = "http://10.0.0.1"
    settings = app.Settings(url, "127.0.0.1", 0, "system", RamdiskSettings(url))
    operator = app.Operator(around, Tokens(bytes(32)), settings, around, Metrics())  # type: ignore[arg-type]
    running = asyncio.create_task(operator.run(stop))
    async with asyncio.timeout(10):
        await around.watching.wait()
        stop.set()
        await running
    assert around.deeds == ["nothing is begun", "renews no more", "released", "watches no more"]
