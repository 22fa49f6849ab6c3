"""A Redfish service that does as it is told by the test: obey, lie, forget, refuse, hang or break off.

It keeps what real BMCs keep (power, boot override, BIOS attributes, sessions) and records what it was asked, so that
a test says what must arrive at the BMC, and in which order.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import uuid
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from rackwright.power.port import Credentials, Endpoint, Limits

ROOT = "/redfish/v1/"
USERNAME = "admin"
PASSWORD = 'p4ss"w0rd\\&ß'

ACCOUNT = Credentials(USERNAME, PASSWORD)
IMPATIENT = Limits(connect=2.0, read=2.0, exchange=4.0, turn=4.0, settle=0.3, remember=0.2, poll=0.02)
"""For a BMC that sits in the same process."""

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def endpoint(port: int, system: str = "one", *, credentials: Credentials | None = ACCOUNT) -> Endpoint:
    """A scripted BMC's endpoint over plain HTTP; `system=""` names none."""
    path = f"{ROOT}Systems/{system}" if system else ""
    return Endpoint(f"redfish+http://127.0.0.1:{port}{path}", credentials)


@dataclass
class System:
    """One machine and how it misbehaves."""

    power: str | None = "Off"
    target: str = "None"
    enabled: str = "Disabled"
    mode: str | None = "UEFI"
    manufacturer: str = "Contoso"
    resets: tuple[str, ...] = ("On", "ForceOff", "GracefulShutdown", "ForceRestart")
    sources: tuple[str, ...] = ("None", "Pxe", "Hdd", "UefiHttp")
    bios: dict[str, Any] | None = field(default_factory=lambda: {"ProcTurboMode": "Enabled", "Cores": 8})
    apply_times: tuple[str, ...] = ()
    ignored_resets: set[str] = field(default_factory=set)
    """Accepted, and nothing happens."""
    refused_resets: dict[str, int] = field(default_factory=dict)
    """Kinds, and the HTTP status each is refused with."""
    shutdown_seconds: float = 0.0
    forgets_boot: bool = False
    refused_enabled: set[str] = field(default_factory=set)
    mode_goes_with_device: bool = False
    """A new boot device puts the mode back to Legacy, as on Supermicro's."""
    mode_is_queued: bool = False
    """A mode counts from the next boot, and until then another write of it is refused, as on iDRACs."""
    settings_apart: bool = False
    """The boot override counts from next time and is shown apart until then, as on AMI's."""
    pending: dict[str, str] = field(default_factory=dict)


def answer(status: int, *, body: Any = None, headers: dict[str, str] | None = None) -> Fault:
    """The fault of answering with this."""

    async def fault(_: web.Request) -> web.Response:
        return web.json_response(body, status=status, headers=headers)

    return fault


def refusal(message: str, message_id: str = "Base.1.8.GeneralError") -> dict[str, Any]:
    """A Redfish error body."""
    info = [{"MessageId": message_id, "Message": message, "Severity": "Critical"}]
    return {"error": {"code": message_id, "message": "See @Message.ExtendedInfo.", "@Message.ExtendedInfo": info}}


async def hang(_: web.Request) -> None:
    """The fault of never answering."""
    await asyncio.sleep(60)


async def break_off(request: web.Request) -> web.StreamResponse:
    """The fault of closing the connection in the middle of an answer."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"Id": ')
    assert request.transport is not None
    request.transport.abort()
    return response


async def drip(request: web.Request) -> web.StreamResponse:
    """The fault of answering a byte at a time, without end."""
    response = web.StreamResponse(headers={"Content-Length": "100000"})
    await response.prepare(request)
    for _ in range(600):
        await response.write(b" ")
        await asyncio.sleep(0.05)
    return response


async def deluge(request: web.Request) -> web.StreamResponse:
    """The fault of answering without end."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(1000):
        await response.write(b" " * 65536)
    return response


async def bomb(_: web.Request) -> web.Response:
    """The fault of answering with little that is much when it is unpacked."""
    packed = zlib.compress(bytes(64 * 1024 * 1024), wbits=31)
    return web.Response(body=packed, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})


class ScriptedBmc:
    """The service. `systems`, `faults` and the flags may be changed at any time."""

    def __init__(self, **systems: System) -> None:
        self.systems = systems or {"one": System()}
        self.has_sessions = True
        self.session_slots = 8
        self.sessions: dict[str, str] = {}
        """Tokens by session id."""
        self.tokens: set[str] = set()
        """All that there ever were."""
        self.foreign_locations = False
        """Name the session by a URL with another host, as BMCs do that know themselves by name."""
        self.faults: list[tuple[str, str, Fault]] = []
        """Method, end of the path, and what happens then instead of an answer."""
        self.requests: list[str] = []
        self.changes: list[str] = []
        self.logins = 0
        self.rejected = 0
        """How often it was shown a wrong password."""
        self.seconds_per_answer = 0.0
        self.most_at_once = 0
        self._now = 0
        self._runner: web.AppRunner | None = None
        self._deeds: set[asyncio.Task[None]] = set()

    async def start(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, on a free port unless one is named; the port."""
        app = web.Application(middlewares=[self._every])
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=tls)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening, whatever still hangs."""
        for deed in self._deeds:
            deed.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    def fail(self, method: str, path_end: str, fault: Fault) -> None:
        """From now on, such requests end in this fault."""
        self.faults.append((method, path_end, fault))

    @web.middleware
    async def _every(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await asyncio.sleep(self.seconds_per_answer)
            for method, path_end, fault in self.faults:
                if request.method == method and request.path.endswith(path_end):
                    response = await fault(request)
                    if response is not None:
                        return response
            return await handler(request)
        finally:
            self._now -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/") + "/"
        if path == ROOT:
            return web.json_response(self._root())
        if request.method == "POST" and path.endswith("/Sessions/"):
            return await self._login(request)
        if not self._allowed(request):
            self.rejected += "Authorization" in request.headers
            return web.json_response(refusal("Wrong."), status=401)
        if request.method == "DELETE":
            del self.sessions[request.path.rpartition("/")[2]]
            return web.Response(status=204)
        if path == f"{ROOT}Systems/":
            members = [{"@odata.id": f"{ROOT}Systems/{name}"} for name in self.systems]
            return web.json_response({"Name": "Systems", "Members": members})
        name, _, rest = path.removeprefix(f"{ROOT}Systems/").partition("/")
        if name not in self.systems:
            return web.json_response(refusal("No such resource."), status=404)
        body = await request.json() if request.body_exists else {}  # a fault may have read it already
        return self._system(request.method, name, rest.rstrip("/"), body)

    def _root(self) -> dict[str, Any]:
        root: dict[str, Any] = {"Id": "Root", "RedfishVersion": "1.8.0", "Systems": {"@odata.id": f"{ROOT}Systems"}}
        if self.has_sessions:
            root["Links"] = {"Sessions": {"@odata.id": f"{ROOT}SessionService/Sessions"}}
        return root

    async def _login(self, request: web.Request) -> web.Response:
        self.logins += 1
        if not self.has_sessions:
            return web.json_response(refusal("No such resource."), status=404)
        body = await request.json()
        if (body["UserName"], body["Password"]) != (USERNAME, PASSWORD):
            self.rejected += 1
            return web.json_response(refusal("Wrong."), status=401)
        if len(self.sessions) >= self.session_slots:
            return web.json_response(refusal("Too many.", "Base.1.8.SessionLimitExceeded"), status=503)
        session, token = uuid.uuid4().hex[:8], uuid.uuid4().hex
        self.sessions[session] = token
        self.tokens.add(token)
        base = "http://bmc-by-another-name.example" if self.foreign_locations else ""
        location = f"{base}{ROOT}SessionService/Sessions/{session}"
        return web.json_response({}, status=201, headers={"X-Auth-Token": token, "Location": location})

    def _allowed(self, request: web.Request) -> bool:
        if "X-Auth-Token" in request.headers:
            return request.headers["X-Auth-Token"] in self.sessions.values()
        basic = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {basic}"

    def _system(self, method: str, name: str, rest: str, body: dict[str, Any]) -> web.Response:
        system = self.systems[name]
        match method, rest:
            case "GET", "":
                return web.json_response(self._description(name))
            case "GET", "SD":
                blank = {"BootSourceOverrideTarget": "None", "BootSourceOverrideEnabled": "Disabled"}
                return web.json_response({"Boot": blank | system.pending})
            case "PATCH", "" | "SD":
                return self._boot(system, body["Boot"])
            case "POST", "Actions/ComputerSystem.Reset":
                return self._reset(name, body["ResetType"])
            case "GET", "Bios" if system.bios is not None:
                settings = {"SettingsObject": {"@odata.id": f"{ROOT}Systems/{name}/Bios/Settings"}}
                if system.apply_times:
                    settings["SupportedApplyTimes"] = list(system.apply_times)  # type: ignore[assignment]
                return web.json_response({"Id": "Bios", "Attributes": system.bios, "@Redfish.Settings": settings})
            case "PATCH", "Bios/Settings":
                self.changes.append(f"BIOS {body}")
                return web.json_response({})
        return web.json_response(refusal("No such resource."), status=404)

    def _description(self, name: str) -> dict[str, Any]:
        system = self.systems[name]
        boot: dict[str, Any] = {
            "BootSourceOverrideTarget@Redfish.AllowableValues": list(system.sources),
            "BootSourceOverrideTarget": system.target,
            "BootSourceOverrideEnabled": system.enabled,
        }
        if system.mode is not None:
            boot["BootSourceOverrideMode"] = system.mode
        reset = f"{ROOT}Systems/{name}/Actions/ComputerSystem.Reset"
        allowable = "ResetType@Redfish.AllowableValues"
        description: dict[str, Any] = {
            "Id": name,
            "Manufacturer": system.manufacturer,
            "PowerState": system.power,
            "Boot": boot,
            "Actions": {"#ComputerSystem.Reset": {"target": reset, allowable: list(system.resets)}},
        }
        if system.bios is not None:
            description["Bios"] = {"@odata.id": f"{ROOT}Systems/{name}/Bios"}
        if system.settings_apart:
            description["@Redfish.Settings"] = {"SettingsObject": {"@odata.id": f"{ROOT}Systems/{name}/SD"}}
        return description

    def _boot(self, system: System, boot: dict[str, str]) -> web.Response:
        self.changes.append(" ".join(["Boot", *boot.values()]))
        if boot.get("BootSourceOverrideEnabled") in system.refused_enabled:
            body = refusal("The value is not in the list.", "Base.1.8.PropertyValueNotInList")
            return web.json_response(body, status=400)
        if system.mode_is_queued and "BootSourceOverrideMode" in boot:
            if "BootSourceOverrideMode" in system.pending:
                return web.json_response(refusal("Pending values are there.", "IDRAC.2.8.SYS011"), status=400)
            system.pending["BootSourceOverrideMode"] = boot.pop("BootSourceOverrideMode")
        if system.settings_apart:
            system.pending.update(boot)
        elif not system.forgets_boot:
            if system.mode_goes_with_device and "BootSourceOverrideTarget" in boot:
                system.mode = "Legacy"
            system.target = boot.get("BootSourceOverrideTarget", system.target)
            system.enabled = boot.get("BootSourceOverrideEnabled", system.enabled)
            system.mode = boot.get("BootSourceOverrideMode", system.mode)
        return web.Response(status=204)

    def _reset(self, name: str, kind: str) -> web.Response:
        self.changes.append(f"Reset {name} {kind}")
        if kind in self.systems[name].refused_resets:
            return web.json_response(refusal("Not so."), status=self.systems[name].refused_resets[kind])
        if kind not in self.systems[name].ignored_resets:
            deed = asyncio.ensure_future(self._switch(self.systems[name], kind))
            self._deeds.add(deed)
            deed.add_done_callback(self._deeds.discard)
        return web.Response(status=204)

    async def _switch(self, system: System, kind: str) -> None:
        if kind == "GracefulShutdown":
            await asyncio.sleep(system.shutdown_seconds)
        system.power = "On" if kind in {"On", "ForceOn"} else "Off"
