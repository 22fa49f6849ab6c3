"""The operator's HTTP server: everything that machines, agents, installed systems and probes ask of it.

There is no access log of aiohttp's kind, because paths and queries hold tokens; a line of ours names the route, not
the path. Each part logs what is worth knowing: the boot scripts served, the agents heard, the inspections received.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from rackwright.agent.api import AgentAPI
from rackwright.netboot.api import BootScripts
from rackwright.netboot.files import Files

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


def build(
    *,
    agent: AgentAPI,
    scripts: BootScripts,
    files: Files,
    unready: Callable[[], str | None],
    extra: Iterable[web.AbstractRouteDef] = (),
    guide: Callable[[web.Request, str | None], None] | None = None,
    access_log: bool = False,
) -> web.Application:
    """Put the parts together.

    `unready` says in a sentence why the operator isn't ready yet, or None; `extra` are other parts' routes. `guide`
    raises an answer where another operator is to hear of the machine with the uid in a path.
    With `access_log` each request is one INFO line: method, route, status, milliseconds, peer.
    """

    async def readyz(_request: web.Request) -> web.Response:
        reason = unready()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    @web.middleware
    async def known(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Have agents call again while nothing is known of any machine: a 404 to their report they take for good."""
        reason = unready() if request.path.startswith("/v1/") else None
        if reason is not None:
            return web.Response(text=f"{reason}\n", status=503)
        if guide is not None and (uid := request.match_info.get("uid")) is not None:
            guide(request, uid)
        return await handler(request)

    app = web.Application(middlewares=[_logged, known] if access_log else [known])
    app.add_routes([web.get("/healthz", _healthz), web.get("/readyz", readyz)])
    app.add_routes([*agent.routes(), *scripts.routes(), *files.routes(), *extra])
    return app


def waiting(reason: str) -> web.Application:
    """What is served while nothing can be put together yet: it lives, and isn't ready, for this reason."""

    async def not_yet(_request: web.Request) -> web.Response:
        return web.Response(text=f"{reason}\n", status=503)

    app = web.Application()
    app.add_routes([web.get("/healthz", _healthz), web.route("*", "/{path:.*}", not_yet)])
    return app


class CannotListen(Exception):
    """The address can't be had; the message says why."""


@asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve until the context ends; yields the port, which is a free one where `port` is 0.

    Raises:
        CannotListen: somebody else has the port, or the host isn't this one's.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=5)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "no such address"
            raise CannotListen(f"can't listen on {host}:{port}: {reason}") from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


@web.middleware
async def _logged(request: web.Request, handler: Handler) -> web.StreamResponse:
    started, status = time.monotonic(), 500
    try:
        response = await handler(request)
        status = response.status
    except web.HTTPException as answer:
        status = answer.status
        raise
    else:
        return response
    finally:
        resource = request.match_info.route.resource
        _log.info(
            "method=%s route=%s status=%d ms=%d peer=%s",
            request.method,
            resource.canonical if resource else "-",
            status,
            round((time.monotonic() - started) * 1000),
            request.remote,
        )
