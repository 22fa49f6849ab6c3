"""The operator's way to the API server, as a test wants it: held up, used by somebody else first, broken, or cut off.

What is asked goes on to the real API server, with the operator's own rights, and so does what it answers. A write is
held up at a moment of a machine's life, so that an operator can be killed between what it records and what it does.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
import re
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
from aiohttp import web
from tests.kube.metal import Metal
from yarl import URL

from lab import kubectl
from lab.controlplane import ControlPlane

HOST = "127.0.0.1"
HOP_BY_HOP = frozenset({"accept-encoding", "connection", "content-length", "host", "transfer-encoding"})

_MACHINE = re.compile(r"/apis/metal\.rackwright\.io/v1alpha1/namespaces/([^/]+)/baremetalmachines/([^/]+)(/status)?")
_LEASE = re.compile(r"/apis/coordination\.k8s\.io/v1/namespaces/([^/]+)/leases/([^/]+)")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A step stands in status, and the operator doesn't know yet: nothing of it was done."""

    step: str


@dataclass(frozen=True, slots=True)
class Left:
    """The operator is about to record that a step is over: all of it was done, and status doesn't say so."""

    step: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Status says that the operation is over, and the operator doesn't know yet."""


Moment = Recorded | Left | Ended


@dataclass(frozen=True, slots=True)
class _Write:
    kind: str
    namespace: str
    name: str
    operation: Mapping[str, Any] | None
    """What it changes of `status.operation`; empty for nothing, None where it ends it."""


class Wire:
    """A reverse proxy in the metal's thread; plain HTTP towards the operator."""

    def __init__(self, plane: ControlPlane, metal: Metal) -> None:
        self.meddles = False
        """Let somebody else change what the operator is about to write, each time but at the second try."""
        self.conflicts: Counter[str] = Counter()
        """By kind, how often the operator was told that somebody else wrote first."""
        self.errors: list[Mapping[str, Any]] = []
        """What the next watches of machines begin with, as the `Status` objects that the API server sends."""
        self.watches = 0
        """How many watches of machines there were."""
        self._begun = 0
        self._silent = 0.0
        """Watches begun up to this number, of any kind, say nothing more."""
        self._images_answered = asyncio.Event()
        self._images_answered.set()
        self._plane = plane
        self._metal = metal
        cluster = kubectl.config_of(plane.kubectl, str(plane.kubeconfig))["clusters"][0]["cluster"]
        authority = cluster.get("certificate-authority-data")  # without one, a public authority vouches for it
        self._tls = ssl.create_default_context(cadata=base64.b64decode(authority).decode() if authority else None)
        self._server = str(cluster["server"])
        self._marks = itertools.count()
        self._steps: dict[str, str | None] = {}
        self._holds: dict[str, Moment] = {}
        self._held: dict[str, asyncio.Event] = {}
        self._meddled: set[tuple[str, str]] = set()

    async def start(self) -> int:
        """Listen; the port."""
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._http = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        )
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, HOST, 0)
        await self._site.start()
        self._port = int(self._runner.addresses[0][1])
        return self._port

    async def stop(self) -> None:
        """Break every connection off."""
        self.let_go()
        await self._runner.cleanup()
        await self._http.close()

    # --- what a test does; from its own thread ---------------------------------------------------------------------

    def hold(self, name: str, at: Moment) -> None:
        """Hold the machine's write up at this moment, once."""
        self._holds[name] = at

    def holds(self, name: str, seconds: float = 60.0) -> None:
        """Wait until it is held up."""
        with self._metal.moved:
            came = self._metal.moved.wait_for(lambda: name in self._held, seconds)
        assert came, f"{name} has not come to {self._holds.get(name)}; it is at {self._steps.get(name)}"

    def drop(self) -> None:
        """Let what is held up end in nothing: whoever asked is dead."""
        self._metal.do(self._dropped())

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """No answer in this context: connections break, and new ones are refused."""
        self._metal.do(self._site.stop())
        self._metal.do(self._broken())
        try:
            yield
        finally:
            self._metal.do(self._listen_again())

    @contextmanager
    def silent(self, *, all_of_them: bool) -> Iterator[None]:
        """Watches that are open in this context stay open, and say nothing more, ever.

        With `all_of_them`, nor do those that begin in it.
        """
        self._silent = math.inf if all_of_them else self._begun
        try:
            yield
        finally:
            self._silent = min(self._silent, self._begun)

    @contextmanager
    def images_unanswered(self) -> Iterator[None]:
        """Whoever begins to watch images in this context waits for the first line of the answer until its end."""
        self._metal.do(self._answer_images(False))
        try:
            yield
        finally:
            self._metal.do(self._answer_images(True))

    # --- requests ----------------------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._passed_on(request)
        except (aiohttp.ClientError, ConnectionError):
            return web.Response(status=HTTPStatus.BAD_GATEWAY)

    async def _passed_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        write = _write(request, body)
        if write is not None and not await self._may_ask(write):
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE)
        url = URL(self._server + request.raw_path, encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        async with self._http.request(
            request.method, url, headers=headers, data=body or None, skip_auto_headers=("Content-Type",)
        ) as there:
            back = {name: value for name, value in there.headers.items() if name.lower() not in HOP_BY_HOP}
            if "watch" in request.query:
                return await self._watched(request, there, back)
            payload = await there.read()
            if write is not None:
                await self._answered(write, there.status, payload)
        return web.Response(status=there.status, body=payload, headers=back)

    async def _watched(
        self, request: web.Request, there: aiohttp.ClientResponse, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        self._begun += 1
        number = self._begun
        if request.path.endswith("/operatingsystemimages"):
            await self._images_answered.wait()
        response = web.StreamResponse(status=there.status, headers=headers)
        await response.prepare(request)
        if request.path.endswith("/baremetalmachines"):
            self.watches += 1
            if self.errors:
                error = {"type": "ERROR", "object": self.errors.pop(0)}
                await response.write(json.dumps(error).encode() + b"\n")
                return response
        async for chunk in there.content.iter_any():
            if number > self._silent:
                await response.write(chunk)
        return response

    async def _may_ask(self, write: _Write) -> bool:
        if self.meddles and (write.kind, write.name) not in self._meddled:
            self._meddled.add((write.kind, write.name))
            mark = f"example.org/seen={next(self._marks)}"
            await asyncio.to_thread(
                self._plane.ctl, "-n", write.namespace, "annotate", "--overwrite", write.kind, write.name, mark
            )
        else:
            self._meddled.discard((write.kind, write.name))
        step, changed = self._steps.get(write.name), write.operation
        leaves = changed is None or changed.get("step", step) != step
        return not leaves or await self._goes_on(write.name, Left(step or ""))

    async def _answered(self, write: _Write, status: int, payload: bytes) -> None:
        if status == HTTPStatus.CONFLICT:
            self.conflicts[write.kind] += 1
        if status != HTTPStatus.OK or write.kind != "baremetalmachine":
            return
        operation = json.loads(payload).get("status", {}).get("operation")
        before, now = self._steps.get(write.name), operation["step"] if operation else None
        self._steps[write.name] = now
        if now != before:
            await self._goes_on(write.name, Ended() if now is None else Recorded(now))

    async def _goes_on(self, name: str, moment: Moment) -> bool:
        """Stay here if the machine is to be held up at this moment; False if what was asked is void by then."""
        if self._holds.get(name) != moment:
            return True
        del self._holds[name]
        free = self._held[name] = asyncio.Event()
        with self._metal.moved:
            self._metal.moved.notify_all()
        await free.wait()
        return False

    async def _dropped(self) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Wake whoever is held up; in the metal's thread."""
        for free in self._held.values():
            free.set()
        self._held.clear()

    async def _answer_images(self, now: bool) -> None:
        (self._images_answered.set if now else self._images_answered.clear)()

    async def _broken(self) -> None:
        assert self._runner.server is not None
        for connection in list(self._runner.server.connections):  # those that rest between two requests too
            if connection.transport is not None:
                connection.transport.abort()

    async def _listen_again(self) -> None:
        self._site = web.TCPSite(self._runner, HOST, self._port, reuse_address=True)
        await self._site.start()


def _write(request: web.Request, body: bytes) -> _Write | None:
    """The write to a machine's record or to a Lease that this request is."""
    if request.method == "PATCH" and (machine := _MACHINE.fullmatch(request.path)):
        status = json.loads(body).get("status") or {}
        return _Write("baremetalmachine", machine[1], machine[2], status.get("operation", {}))
    if request.method == "PUT" and (lease := _LEASE.fullmatch(request.path)):
        return _Write("lease", lease[1], lease[2], {})
    return None
