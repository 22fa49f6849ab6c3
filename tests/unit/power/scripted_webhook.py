"""A power webhook that does as it is told by the test, and believes nobody: it checks what a real one would check.

Signatures are computed here from the contract (`WEBHOOK.md`) alone, with none of the driver's code.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiohttp import web
from tests.unit.power.scripted_bmc import Fault

from rackwright.power.port import Credentials, Endpoint

KEY_NAME = "rack a, left"
KEY = 'k3y"of\\&ß'
ACCOUNT = Credentials(KEY_NAME, KEY)
WINDOW = 300


@dataclass(frozen=True)
class Call:
    """One call as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content

    @property
    def signed(self) -> dict[str, str]:
        """The parts of the signature's header."""
        return dict(part.split("=", 1) for part in self.headers["X-Rackwright-Signature"].split(","))


def webhook(port: int, path: str = "/outlets/7", *, credentials: Credentials | None = ACCOUNT) -> Endpoint:
    """A scripted webhook's endpoint over plain HTTP."""
    return Endpoint(f"webhook+http://127.0.0.1:{port}{path}", credentials)


class ScriptedWebhook:
    """The receiver. What it has, and how it misbehaves, may be changed at any time."""

    def __init__(self) -> None:
        self.power: Any = "Off"
        self.key = KEY
        self.lacks: set[str] = set()
        """Actions that it answers with 501."""
        self.ignores: set[str] = set()
        """Actions that are accepted, and nothing happens."""
        self.switching_seconds = 0.0
        self.faults: dict[str, Fault] = {}
        """Actions, and what happens then instead of an answer."""
        self.calls: list[Call] = []
        self.most_at_once = 0
        self._now = 0
        self._ids: set[str] = set()
        self._runner: web.AppRunner | None = None
        self._deeds: set[asyncio.Task[None]] = set()

    @property
    def actions(self) -> list[str]:
        """What it was asked to do, without the looks."""
        return [call.content["action"] for call in self.calls if call.content["action"] != "PowerState"]

    async def start(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> int:
        """Listen on a free port; the port."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._every)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, 0, ssl_context=tls).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening, whatever still hangs."""
        for deed in self._deeds:
            deed.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _every(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.method, request.raw_path, dict(request.headers), await request.read())
        self.calls.append(call)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            fault = self.faults.get(call.content["action"])
            response = await fault(request) if fault is not None else None
            return response if response is not None else self._answer(call)
        finally:
            self._now -= 1

    def _answer(self, call: Call) -> web.Response:
        if refusal := self._distrust(call):
            return web.json_response({"error": refusal}, status=401)
        action = call.content["action"]
        if action in self.lacks:
            return web.json_response({"error": f"A socket has no {action}."}, status=501)
        if action == "PowerState":
            return web.json_response({"power": self.power})
        if action not in self.ignores | {"SetBoot"}:
            deed = asyncio.ensure_future(self._switch("On" if action == "PowerOn" else "Off"))
            self._deeds.add(deed)
            deed.add_done_callback(self._deeds.discard)
        return web.Response()

    def _distrust(self, call: Call) -> str | None:
        signed = call.signed
        right = hmac.new(self.key.encode("utf-8"), digestmod=hashlib.sha256)
        right.update(signed["t"].encode("ascii"))
        right.update(b".")
        right.update(call.body)
        if signed["v1"] != right.hexdigest():
            return "The signature is wrong. Honestly."
        if abs(time.time() - int(signed["t"])) > WINDOW:
            return "The call is too old."
        if signed["key"] != quote(KEY_NAME, safe=""):
            return "There is no such key."
        if call.content["id"] in self._ids:
            return "The call came before."
        self._ids.add(call.content["id"])
        return None

    async def _switch(self, to: str) -> None:
        await asyncio.sleep(self.switching_seconds)
        self.power = to
