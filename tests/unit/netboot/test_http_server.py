"""The server as machines and probes see it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from tests.unit.agent.world import MAC, DeclaredBoots, boot

from rackwright import server
from rackwright.agent.api import AgentAPI
from rackwright.agent.sessions import Sessions
from rackwright.agent.strangers import Introduction, NotYet, Welcome
from rackwright.agent.tokens import Tokens
from rackwright.netboot.api import BootScripts
from rackwright.netboot.files import Files
from rackwright.netboot.script import RamdiskSettings


async def phone_home(_request: web.Request) -> web.Response:
    return web.Response(text="welcome")


async def broken(_request: web.Request) -> web.Response:
    raise web.HTTPGone


async def persisted(_uid: str) -> bool:
    return True


@dataclass
class Door:
    """Enlistment, open or not; remembers who came."""

    offered: Welcome = Welcome.OFF
    invitations: list[str] = field(default_factory=list)
    refusals: int = 0

    def welcome(self, mac: str) -> Welcome:
        del mac
        return self.offered

    def invited(self, mac: str) -> None:
        self.invitations.append(mac)

    def turned_away(self) -> None:
        self.refusals += 1

    async def introduce(self, report: Mapping[str, Any]) -> Introduction:
        del report
        return NotYet("")


@dataclass
class Operator:
    """A whole server with its surroundings."""

    folder: Path
    door: Door = field(default_factory=Door)
    boots: DeclaredBoots = field(default_factory=lambda: DeclaredBoots([boot()]))
    reason: str | None = None
    client: TestClient[web.Request, web.Application] = field(init=False)

    def application(self, *, access_log: bool = False) -> web.Application:
        return server.build(
            agent=AgentAPI(
                boots=self.boots,
                sessions=Sessions(),
                tokens=Tokens(b"k" * 32),
                wake=lambda _uid: None,
                persisted=persisted,
            ),
            scripts=BootScripts(
                boots=self.boots,
                settings=RamdiskSettings("http://10.0.0.1"),
                unready=lambda: self.reason,
                strangers=self.door,
            ),
            files=Files({"/boot/files": [self.folder]}),
            unready=lambda: self.reason,
            extra=[web.get("/first-boot/{token}", phone_home), web.get("/broken/{token}", broken)],
            access_log=access_log,
        )

    async def script(self, mac: str, **more: str) -> str:
        response = await self.client.get("/boot/ipxe", params={"mac": mac, **more})
        assert response.status == 200
        assert response.content_type == "text/plain"
        return await response.text()


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    it = Operator(tmp_path)
    async with TestClient(TestServer(it.application())) as it.client:
        yield it


@pytest.mark.parametrize("mac", ["52-54-00-00-00-07", "52:54:00:00:00:07", "52-54-00-00-00-07".upper()])
async def test_a_machine_that_we_boot_is_given_the_ramdisk_and_one_line_says_so(
    operator: Operator, mac: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="rackwright")
    assert "kernel --name" in await operator.script(mac)
    ours = [record.message for record in caplog.records if record.name.startswith("rackwright")]
    whose = "machine=rack-a/node-07 operation=Commission attempt=1"
    assert ours == [f"{whose} boot script for {MAC} at 127.0.0.1: ramdisk"]


async def test_everybody_else_is_sent_to_the_local_disk(operator: Operator) -> None:
    assert "exit 1" in await operator.script("52-54-00-00-00-99")
    operator.boots.boots = []
    assert "exit 1" in await operator.script(MAC)


async def test_a_stranger_is_invited_to_introduce_itself(operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="rackwright")
    operator.door.offered = Welcome.OPEN
    assert "rackwright.enlist=1" in await operator.script("52-54-00-00-00-99")
    assert operator.door.invitations == ["52:54:00:00:00:99"]
    assert "boot script for 52:54:00:00:00:99 at 127.0.0.1: ramdisk, to introduce itself" in caplog.messages


async def test_a_stranger_for_whom_there_is_no_place_is_counted(operator: Operator) -> None:
    operator.door.offered = Welcome.FULL
    assert "exit 1" in await operator.script("52-54-00-00-00-99")
    assert (operator.door.refusals, operator.door.invitations) == (1, [])


async def test_nobody_of_ours_is_invited_or_counted(operator: Operator) -> None:
    for operator.door.offered in Welcome:
        assert "ipa-api-url" in await operator.script(MAC)
    assert (operator.door.refusals, operator.door.invitations) == (0, [])


async def test_while_the_operator_starts_a_machine_is_told_to_ask_again(operator: Operator) -> None:
    operator.reason = "The cache is not filled yet."
    assert "&asked=1 " in await operator.script(MAC)
    assert "&asked=5 " in await operator.script(MAC, asked="4")
    assert "exit 1" in await operator.script(MAC, asked="9999")
    for nonsense in ("", "-1", "²", "9" * 99):
        assert "&asked=1 " in await operator.script(MAC, asked=nonsense)


@pytest.mark.parametrize("mac", ["", "garbage", "52-54-00-00-00", "52-54:00-00-00-07", "${mac}", "52-54-00-00-00-07\n"])
async def test_what_is_no_mac_address_is_refused(operator: Operator, mac: str) -> None:
    response = await operator.client.get("/boot/ipxe", params={"mac": mac})
    assert response.status == 400
    assert "52-54-00-00-00-07" in await response.text()


async def test_probes_tell_alive_from_ready(operator: Operator) -> None:
    operator.reason = "The cache is not filled yet."
    assert (await operator.client.get("/healthz")).status == 200
    response = await operator.client.get("/readyz")
    assert (response.status, await response.text()) == (503, "The cache is not filled yet.\n")
    operator.reason = None
    assert (await operator.client.get("/readyz")).status == 200


async def test_agents_and_systems_call_again_while_nothing_is_known_of_any_machine(operator: Operator) -> None:
    operator.reason = "The cache is not filled yet."
    for path in ("/v1/continue_inspection", "/v1/heartbeat/some-uid", "/v1/phone-home/some-uid"):
        assert (await operator.client.post(path, json={})).status == 503
    assert (await operator.client.get(f"/v1/lookup?addresses={MAC}")).status == 503
    assert (await operator.client.get("/v1")).status == 200


async def test_all_parts_are_served_together(operator: Operator) -> None:
    (operator.folder / "vmlinuz").write_bytes(b"kernel")
    assert await (await operator.client.get("/boot/files/vmlinuz")).read() == b"kernel"
    assert (await operator.client.get("/v1")).status == 200
    assert (await operator.client.get("/first-boot/secret")).status == 200
    assert (await operator.client.get("/unknown")).status == 404


async def test_the_access_log_names_routes_not_paths(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = Operator(tmp_path).application(access_log=True)
    async with server.listening(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as http:
        for path in ("first-boot/s3cret?t=s3cret", "broken/s3cret", "s3cret"):
            await (await http.get(f"http://127.0.0.1:{port}/{path}")).read()
    lines = [record.message for record in caplog.records if record.name == "rackwright.server"]
    assert [line.partition(" ms=")[0] for line in lines] == [
        "method=GET route=/first-boot/{token} status=200",
        "method=GET route=/broken/{token} status=410",
        "method=GET route=- status=404",
    ]
    assert "s3cret" not in caplog.text


async def test_without_it_nothing_logs_a_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = Operator(tmp_path).application()
    async with server.listening(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as http:
        await (await http.get(f"http://127.0.0.1:{port}/first-boot/s3cret")).read()
    assert caplog.text == ""
