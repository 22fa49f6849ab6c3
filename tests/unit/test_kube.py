"""What the API server says on a watch, and what it is taken for when it says nothing more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from aiohttp import web

from rackwright import kube
from rackwright.kube import Cluster, Unavailable, connected

HOST = "127.0.0.1"


class ApiServer:
    """Tells of one Secret as a test says, and then leaves the connection open."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        """Each the type of an event and a resourceVersion."""
        self.asked: list[dict[str, str]] = []
        self.closing = asyncio.Event()

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """The watch."""
        self.asked.append(dict(request.query))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for kind, version in self.lines:
            event = {"type": kind, "object": {"metadata": {"name": "bmc", "resourceVersion": version}}}
            await response.write(json.dumps(event).encode() + b"\n")
        await self.closing.wait()
        return response


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    it = ApiServer()
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/rack-a/secrets", it.watch)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    kubeconfig = tmp_path / "kubeconfig"
    context = {"name": "-", "context": {"cluster": "-", "user": "-"}}
    cluster = {"name": "-", "cluster": {"server": f"http://{HOST}:{runner.addresses[0][1]}"}}
    known = {"clusters": [cluster], "users": [{"name": "-", "user": {"token": "-"}}], "contexts": [context]}
    kubeconfig.write_text(json.dumps({"current-context": "-", **known}))
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield it
    it.closing.set()
    await runner.cleanup()


@pytest.fixture
async def cluster(server: ApiServer) -> AsyncIterator[Cluster]:  # noqa: ARG001 (it is the one)
    async with connected() as it:
        yield it


async def test_a_watch_that_stays_open_and_says_nothing_is_given_up(
    server: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "SILENCE_SECONDS", 0.2)
    server.lines = [("ADDED", "1")]
    async with asyncio.timeout(10), aclosing(cluster.secret_changes("rack-a", "bmc", seconds=600)) as watched:
        assert await anext(watched) == "1"
        with pytest.raises(Unavailable):
            await anext(watched)


async def test_a_bookmark_is_no_change_of_a_secret(server: ApiServer, cluster: Cluster) -> None:
    server.lines = [("ADDED", "1"), ("BOOKMARK", "7"), ("MODIFIED", "8"), ("DELETED", "9")]
    async with asyncio.timeout(10), aclosing(cluster.secret_changes("rack-a", "bmc", seconds=600)) as watched:
        assert [await anext(watched) for _ in range(3)] == ["1", "8", None]
    assert [asked["allowWatchBookmarks"] for asked in server.asked] == ["true"]
