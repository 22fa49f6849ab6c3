"""Requests are named as the API server's audit log names them, and counted by its answer."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from rackwright.metrics.requests import request, traced

BASE = "/apis/metal.rackwright.io/v1alpha1"
MACHINE = f"{BASE}/namespaces/rack-a/baremetalmachines/node-07"


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("GET", f"{BASE}/baremetalmachines?limit=500", ("list", "baremetalmachines")),
        ("GET", f"{BASE}/baremetalmachines?watch=true&resourceVersion=7", ("watch", "baremetalmachines")),
        ("GET", MACHINE, ("get", "baremetalmachines")),
        ("PATCH", MACHINE, ("patch", "baremetalmachines")),
        ("PATCH", f"{MACHINE}/status", ("patch", "baremetalmachines/status")),
        ("POST", f"{BASE}/namespaces/rack-a/baremetalmachines", ("create", "baremetalmachines")),
        ("GET", "/api/v1/namespaces/rack-a/secrets/bmc", ("get", "secrets")),
        ("GET", "/api/v1/namespaces/rack-a/secrets?watch=True", ("watch", "secrets")),
        ("POST", "/apis/events.k8s.io/v1/namespaces/rack-a/events", ("create", "events")),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/s/leases/rackwright", ("update", "leases")),
        ("GET", f"/k8s/clusters/c-1{MACHINE}", ("get", "baremetalmachines")),
        ("GET", "/k8s/api/v1/api/v1/namespaces/rack-a/secrets", ("list", "secrets")),
        ("GET", "/version", ("get", "other")),
        ("GET", f"{BASE}/namespaces/rack-a/strangers/x", ("get", "other")),
    ],
)
def test_a_request_has_a_verb_and_a_resource(method: str, path: str, named: tuple[str, str]) -> None:
    assert request(method, URL(path), {}) == named


def test_a_server_side_apply_is_one() -> None:
    headers = {"Content-Type": "application/apply-patch+yaml"}
    path = f"{BASE}/namespaces/rack-a/hardwareinventories/node-07"
    assert request("PATCH", URL(path), headers) == ("apply", "hardwareinventories")


async def test_every_answer_is_counted_and_so_is_none() -> None:
    counted: list[tuple[str, str, str]] = []
    app = web.Application()

    async def refused(_: web.Request) -> web.Response:
        return web.Response(status=409)

    app.router.add_patch(MACHINE, refused)

    def count(verb: str, resource: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        counted.append((verb, resource, code))

    async with TestServer(app) as server, aiohttp.ClientSession(trace_configs=[traced(count)]) as session:
        url = server.make_url("/")
        await session.patch(url.with_path(MACHINE))
        await session.get(url.with_path(f"{BASE}/baremetalmachines"))
        await server.close()
        with pytest.raises(aiohttp.ClientError):
            await session.get(url.with_path(MACHINE))
    assert counted == [
        ("patch", "baremetalmachines", "409"),
        ("list", "baremetalmachines", "404"),
        ("get", "baremetalmachines", "none"),
    ]
