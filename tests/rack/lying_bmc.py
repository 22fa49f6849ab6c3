"""A BMC between the operator and the rack's own that passes everything on, but for the lie that it tells.

The lies are those that firmware in the field is known for, and no emulator tells them by itself.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from http import HTTPMethod, HTTPStatus
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector, hdrs, web

from lab.authority import issue
from lab.plan import Node
from lab.rack import Rack

_PASSED_ON = (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE, hdrs.ACCEPT, hdrs.IF_MATCH)
_PASSED_BACK = (hdrs.CONTENT_TYPE, hdrs.LOCATION, hdrs.ETAG, hdrs.ALLOW, hdrs.WWW_AUTHENTICATE)
_SWITCHING = "/Actions/ComputerSystem.Reset"


class Lie(Enum):
    """What a BMC says that isn't so."""

    STAYS_DARK = "accepts to switch the machine and says that it did"
    ALWAYS_ON = "says that the machine is on, whatever is so"
    FORGETS_BOOT = "remembers the boot device that it is told, and boots the disk"


class LyingBMC:
    """One machine's BMC. What is public may be used from the test's thread."""

    def __init__(self, rack: Rack, node: Node, folder: Path) -> None:
        self.lie: Lie | None = None
        self.address = ""
        """As in `spec.bmc.address`, once it listens."""
        self.ca, certificate, key = issue(f"Lying BMC of {node.name}", IPv4Address(rack.host_address))
        self._said = {"PowerState": "Off", "BootSourceOverrideTarget": "None"}
        """What it was told last, and tells while it lies."""
        self._host, self._path = rack.host_address, f"/redfish/v1/Systems/{node.uuid}"
        self._honest = rack.plan.bmc_url
        self._trust = ssl.create_default_context(cadata=rack.ca)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        file = folder / f"{node.name}-bmc.pem"
        file.write_text(key + certificate)
        self._tls.load_cert_chain(file)

    async def listen(self, until: asyncio.Event, listens: threading.Event) -> None:
        """Answer until told to stop."""
        # A connection for each exchange: the emulator closes those that it keeps when it likes.
        connector = TCPConnector(ssl=self._trust, force_close=True)
        async with ClientSession(self._honest, connector=connector, timeout=ClientTimeout(total=60)) as honest:

            async def answer(request: web.Request) -> web.Response:
                return await self._answer(request, honest)

            application = web.Application()
            application.router.add_route("*", "/{path:.*}", answer)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            try:
                site = web.TCPSite(runner, self._host, 0, ssl_context=self._tls)
                await site.start()
                port = runner.addresses[0][1]
                self.address = f"redfish+https://{self._host}:{port}{self._path}"
                listens.set()
                await until.wait()
            finally:
                await runner.cleanup()

    async def _answer(self, request: web.Request, honest: ClientSession) -> web.Response:
        body = await request.read()
        if self.lie is Lie.STAYS_DARK and request.path.endswith(_SWITCHING):
            self._said["PowerState"] = "On" if json.loads(body)["ResetType"] in ("On", "ForceOn") else "Off"
            return web.Response(status=HTTPStatus.NO_CONTENT)
        if self.lie is Lie.FORGETS_BOOT and request.method == HTTPMethod.PATCH:
            body = self._boots_disk(json.loads(body))
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        async with honest.request(request.method, request.path_qs, data=body, headers=headers) as answered:
            told = await answered.read()
            if request.method == HTTPMethod.GET and request.path == self._path and answered.ok:
                told = self._claimed(json.loads(told))
            back = {name: answered.headers[name] for name in _PASSED_BACK if name in answered.headers}
            return web.Response(status=answered.status, body=told, headers=back)

    def _boots_disk(self, asked: Any) -> bytes:
        if "BootSourceOverrideTarget" in asked.get("Boot", {}):
            self._said["BootSourceOverrideTarget"] = asked["Boot"]["BootSourceOverrideTarget"]
            asked["Boot"]["BootSourceOverrideTarget"] = "Hdd"
        return json.dumps(asked).encode()

    def _claimed(self, system: Any) -> bytes:
        match self.lie:
            case Lie.STAYS_DARK:
                system["PowerState"] = self._said["PowerState"]
            case Lie.ALWAYS_ON:
                system["PowerState"] = "On"
            case Lie.FORGETS_BOOT:
                system["Boot"]["BootSourceOverrideTarget"] = self._said["BootSourceOverrideTarget"]
            case None:
                pass
        return json.dumps(system).encode()


@contextmanager
def before(rack: Rack, folder: Path) -> Iterator[dict[str, LyingBMC]]:
    """One before the BMC of each machine of the rack, by the machine's name; honest until a lie is set."""
    bmcs = {node.name: LyingBMC(rack, node, folder) for node in rack.nodes}
    loop = asyncio.new_event_loop()
    stop, listening = asyncio.Event(), [threading.Event() for _ in bmcs]

    async def listen() -> None:
        async with asyncio.TaskGroup() as tasks:
            for bmc, listens in zip(bmcs.values(), listening, strict=True):
                tasks.create_task(bmc.listen(stop, listens))

    thread = threading.Thread(target=lambda: loop.run_until_complete(listen()))
    thread.start()
    try:
        if not all(listens.wait(10) for listens in listening):
            raise RuntimeError("a lying BMC does not listen")
        yield bmcs
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
