"""What the API server says on a watch, what it is taken for when it says nothing more, and how a fleet is listed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path

import pytest
from aiohttp import web

from rackwright import kube
from rackwright.kube import Cluster, Gone, Refused, Unavailable, Unidentified, connected

HOST = "127.0.0.1"


class ApiServer:
    """Tells of one Secret as a test says, and then leaves the connection open; lists machines by the page."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        """Each the type of an event and a resourceVersion."""
        self.last = b""
        """Said at the end of a watch, which it then ends."""
        self.pages: list[list[str]] = []
        """Names of machines."""
        self.asked: list[dict[str, str]] = []
        self.agents: list[str] = []
        self.status, self.content_type = 200, "text/html"
        self.closing = asyncio.Event()

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """The watch."""
        self.asked.append(dict(request.query))
        if self.status != HTTPStatus.OK:
            return web.json_response({"kind": "Status", "code": self.status}, status=self.status)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for kind, version in self.lines:
            event = {"type": kind, "object": {"metadata": {"name": "bmc", "resourceVersion": version}}}
            await response.write(json.dumps(event).encode() + b"\n")
        await response.write(self.last)
        if self.last:
            return response
        await self.closing.wait()
        return response

    async def machines(self, request: web.Request) -> web.Response:
        """One page of machines."""
        self.asked.append(dict(request.query))
        self.agents.append(request.headers["User-Agent"])
        page = int(request.query.get("continue", "0"))
        following = {"continue": f"{page + 1}"} if page + 1 < len(self.pages) else {}
        items = [{"metadata": {"name": name}} for name in self.pages[page]]
        return web.json_response({"metadata": following, "items": items})

    async def silent(self, _request: web.Request) -> web.Response:
        """No answer."""
        await self.closing.wait()
        return web.Response()

    async def machine(self, _request: web.Request) -> web.Response:
        """One machine, or what something before the API server says."""
        return web.Response(status=self.status, text="<html>log in</html>", content_type=self.content_type)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    it = ApiServer()
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/rack-a/secrets", it.watch)
    app.router.add_get("/apis/metal.rackwright.io/v1alpha1/baremetalmachines", it.machines)
    app.router.add_get("/apis/metal.rackwright.io/v1alpha1/namespaces/rack-a/baremetalmachines/node-01", it.machine)
    app.router.add_post("/apis/events.k8s.io/v1/namespaces/rack-a/events", it.silent)
    app.router.add_patch("/apis/events.k8s.io/v1/namespaces/rack-a/events/node-01", it.silent)
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


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (b'{"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}\n', Gone),
        (b'{"type": "ERROR", "object": {"kind": "Status", "code": 500}}\n', Unavailable),
        (b'{"type": "ERROR"}\n', Unavailable),
        (b'{"type": "MODIFIED", "object": "x"}\n', Unavailable),
        (b"[]\n", Unavailable),
        (b"<html>log in</html>\n", Unavailable),
        (b'{"type": "MODI', Unavailable),
    ],
)
async def test_a_watch_that_says_that_it_has_failed_or_makes_no_sense_is_over(
    server: ApiServer, cluster: Cluster, last: bytes, kind: type[Exception]
) -> None:
    server.lines, server.last = [("ADDED", "1")], last
    async with asyncio.timeout(10), aclosing(cluster.secret_changes("rack-a", "bmc", seconds=600)) as watched:
        assert await anext(watched) == "1"
        with pytest.raises(kind):
            await anext(watched)


async def test_a_watch_that_the_api_server_ends_merely_ends(server: ApiServer, cluster: Cluster) -> None:
    server.lines, server.last = [("ADDED", "1")], b'{"type": "DELETED", "object": {}}\n'
    async with asyncio.timeout(10), aclosing(cluster.secret_changes("rack-a", "bmc", seconds=600)) as watched:
        assert [version async for version in watched] == ["1", None]


@pytest.mark.parametrize(("status", "kind"), [(403, Refused), (500, Unavailable), (401, Unidentified)])
async def test_a_watch_that_is_refused_says_so(
    server: ApiServer, cluster: Cluster, status: int, kind: type[Exception]
) -> None:
    server.status = status
    async with asyncio.timeout(10), aclosing(cluster.secret_changes("rack-a", "bmc", seconds=600)) as watched:
        with pytest.raises(kind, match=f"could not watch the Secret rack-a/bmc: {status}"):
            await anext(watched)


async def test_a_watch_reads_no_certificates(
    server: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(**_: object) -> None:
        raise AssertionError("20 ms and 0.8 MiB, for each Secret that is awaited")

    server.lines = [("ADDED", "1")]
    monkeypatch.setattr("ssl.create_default_context", read)
    async with asyncio.timeout(10), aclosing(cluster.secret_changes("rack-a", "bmc", seconds=600)) as watched:
        assert await anext(watched) == "1"


async def test_a_fleet_is_listed_by_the_page_and_looked_at_before_the_next_one_is_asked_for(
    server: ApiServer, cluster: Cluster
) -> None:
    server.pages = [["node-1", "node-2"], ["node-3"]]
    async with asyncio.timeout(10), aclosing(cluster.listed("baremetalmachines")) as machines:
        assert [(await anext(machines))["metadata"]["name"] for _ in range(2)] == ["node-1", "node-2"]
        assert len(server.asked) == 1
        assert [item["metadata"]["name"] async for item in machines] == ["node-3"]
    assert [asked.get("continue") for asked in server.asked] == [None, "1"]


@pytest.mark.parametrize(
    ("no_proxy", "proxy"),
    [("", "http://10.0.0.1:3128"), ("127.0.0.1", None), ("example.com", "http://10.0.0.1:3128")],
)
@pytest.mark.usefixtures("server")
async def test_the_environments_proxy_is_taken_unless_it_says_not_to(
    no_proxy: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert (await kube._settings()).proxy is None
    monkeypatch.setenv("http_proxy", "http://10.0.0.1:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert (await kube._settings()).proxy == proxy


@pytest.mark.parametrize(
    ("status", "content_type"), [(200, "text/html"), (200, "application/json"), (200, "text/plain"), (401, "text/html")]
)
async def test_a_page_of_something_before_the_api_server_is_no_answer_and_no_defect(
    status: int, content_type: str, server: ApiServer, cluster: Cluster
) -> None:
    server.status, server.content_type = status, content_type
    with pytest.raises(Unavailable, match="could not read rack-a/node-01"):
        await cluster.get("baremetalmachines", "rack-a", "node-01")
    with pytest.raises(Unavailable, match="could not list baremetalmachines"):
        assert [item async for item in cluster.listed("baremetalmachines")] == []


async def test_no_pass_waits_for_an_event_as_long_as_for_other_requests(
    server: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kube.EVENT_SECONDS <= 3
    monkeypatch.setattr(kube, "EVENT_SECONDS", 0.1)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable):
            await cluster.create_event("rack-a", {})
        with pytest.raises(Unavailable):
            await cluster.patch_event("rack-a", "node-01", {})
    server.closing.set()


async def test_the_api_server_is_told_who_asks(server: ApiServer, cluster: Cluster) -> None:
    server.pages = [[]]
    assert [item async for item in cluster.listed("baremetalmachines")] == []
    assert server.agents == ["rackwright"]


async def test_a_netrc_is_not_read_for_each_request(
    server: ApiServer,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "netrc").write_text("aiohttp would complain of this")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.pages = [["node-01"]]
    assert [item["metadata"]["name"] async for item in cluster.listed("baremetalmachines")] == ["node-01"]
    assert not caplog.records
