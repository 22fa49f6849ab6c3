"""The client against a scripted agent over real HTTPS, and every way in which an agent lets it down."""

from __future__ import annotations

import asyncio
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.unit.agent.world import Identity, identity

from rackwright.agent import client
from rackwright.agent.client import AgentClient, AgentError, AgentFault, CommandStatus
from rackwright.agent.sessions import Session
from rackwright.fence import Fenced, fenced

TOKEN = "T" * 43
RUNNING = {
    "id": "c-1",
    "command_name": "execute_clean_step",
    "command_status": "RUNNING",
    "command_error": None,
    "command_result": None,
}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class ScriptedAgent:
    """An agent that answers as a test says, and notes what it was asked."""

    answer: Answer | None = None
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    server: TestServer = field(init=False)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, dict(request.query), body))
        assert self.answer is not None
        return await self.answer(request)

    def says(self, body: object, status: int = 200) -> None:
        async def answer(_request: web.Request) -> web.Response:
            if isinstance(body, bytes):
                return web.Response(body=body, status=status)
            return web.json_response(body, status=status)

        self.answer = answer

    async def start(self, shown: Identity, folder: Path) -> None:
        for name, text in (("agent.crt", shown.certificate), ("agent.key", shown.key)):
            (folder / name).write_text(text)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "agent.crt", folder / "agent.key")
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/v1/commands/", self.handle)
        app.router.add_route("*", "/elsewhere", self.handle)
        self.server = TestServer(app, scheme="https")
        await self.server.start_server(ssl=context, access_log=None)

    def client(self, known: Identity | None = None) -> AgentClient:
        return AgentClient(session(f"https://127.0.0.1:{self.server.port}", known or identity()), TOKEN)


def session(url: str, known: Identity) -> Session:
    return Session("op-1", url, known.certificate, 0.0, "13.0.0")


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[ScriptedAgent]:
    it = ScriptedAgent()
    await it.start(identity(), tmp_path)
    yield it
    await it.server.close()


async def failure(asked: Awaitable[object]) -> AgentError:
    """The error of a call, which shows the token nowhere."""
    with pytest.raises(AgentError) as caught:
        await asked
    error = caught.value
    assert TOKEN not in "".join(traceback.format_exception(error)) + repr(error)
    assert error.__context__ is None
    return error


async def test_starting_a_command_returns_while_it_runs(agent: ScriptedAgent) -> None:
    agent.says(RUNNING)
    command = await agent.client().start("clean.execute_clean_step", {"step": {"step": "erase_devices"}})
    assert (command.id, command.name, command.status) == ("c-1", "execute_clean_step", CommandStatus.RUNNING)
    assert agent.asked == [
        (
            "POST",
            {"wait": "false", "agent_token": TOKEN},
            {"name": "clean.execute_clean_step", "params": {"step": {"step": "erase_devices"}}},
        )
    ]


async def test_running_a_command_waits_for_its_end(agent: ScriptedAgent) -> None:
    agent.says({**RUNNING, "command_status": "SUCCEEDED", "command_result": {"clean_steps": {}}})
    command = await agent.client().run("clean.get_clean_steps", {}, limit=5)
    assert command.result == {"clean_steps": {}}
    assert agent.asked[0][1]["wait"] == "true"


async def test_commands_lists_what_the_agent_did(agent: ScriptedAgent) -> None:
    failed = {
        **RUNNING,
        "id": "c-0",
        "command_name": "standby.prepare_image",
        "command_status": "FAILED",
        "command_error": {
            "type": "ImageChecksumError",
            "code": 500,
            "message": "Error verifying image checksum",
            "details": "sha256\n differs",
        },
    }
    agent.says({"commands": [failed, RUNNING]})
    first, second = await agent.client().commands()
    assert (first.name, first.status, first.error_type) == ("prepare_image", CommandStatus.FAILED, "ImageChecksumError")
    assert first.error == "Error verifying image checksum: sha256 differs"
    assert second.error is None
    assert agent.asked == [("GET", {"agent_token": TOKEN}, None)]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ({"error": "it broke"}, "it broke"),
        ("it broke", "it broke"),
        ({"code": 500}, "The agent doesn't say why."),
        ({"message": "no " * 1000}, ("no " * 132).rstrip() + "…"),
        ({"message": f"{'no ' * 120}http://admin:{'hunter2' * 20}@10.0.0.1"}, ("no " * 120).rstrip() + "…"),
        ({"message": f"GET /v1/commands/?agent_token={TOKEN}"}, "GET /v1/commands/?agent_token=******"),
    ],
)
async def test_a_failed_commands_error_is_one_sentence(agent: ScriptedAgent, error: object, sentence: str) -> None:
    agent.says({**RUNNING, "command_status": "FAILED", "command_error": error})
    assert (await agent.client().start("clean.x", {})).error == sentence


@pytest.mark.parametrize(("result", "read"), [(None, {}), ("text", {"result": "text"}), ([1], {"result": [1]})])
async def test_any_result_is_read_as_a_mapping(agent: ScriptedAgent, result: object, read: object) -> None:
    agent.says({**RUNNING, "command_status": "SUCCEEDED", "command_result": result})
    assert (await agent.client().start("clean.x", {})).result == read


async def test_large_parameters_go_through(agent: ScriptedAgent) -> None:
    agent.says(RUNNING)
    await agent.client().start("standby.prepare_image", {"configdrive": "A" * 3 * 2**20})
    assert len(agent.asked[0][2]["params"]["configdrive"]) == 3 * 2**20


async def test_a_certificate_dated_by_an_unset_clock_is_still_the_agents(tmp_path: Path) -> None:
    old = identity("agent", year=1999)
    agent = ScriptedAgent()
    await agent.start(old, tmp_path)
    agent.says({"commands": []})
    assert await agent.client(old).commands() == ()
    await agent.server.close()


async def test_another_certificate_is_another_agent_and_hears_no_token(agent: ScriptedAgent) -> None:
    agent.says({"commands": []})
    error = await failure(agent.client(identity("another")).commands())
    assert error.fault is AgentFault.REJECTED
    assert agent.asked == []


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (401, AgentFault.REJECTED),
        (409, AgentFault.BUSY),
        (400, AgentFault.PROTOCOL),
        (404, AgentFault.PROTOCOL),
        (500, AgentFault.PROTOCOL),
    ],
)
async def test_refusals_tell_whose_fault_it_is(agent: ScriptedAgent, status: int, fault: AgentFault) -> None:
    agent.says({"faultcode": "Client", "faultstring": f"It said {TOKEN}"}, status=status)
    assert (await failure(agent.client().commands())).fault is fault
    agent.says(b"<html>", status=status)
    assert (await failure(agent.client().start("clean.x", {}))).fault is fault


async def test_busy_says_with_what(agent: ScriptedAgent) -> None:
    agent.says({"faultstring": "Agent is busy: executing command execute_clean_step"}, status=409)
    assert "execute_clean_step" in (await failure(agent.client().start("clean.x", {}))).message


@pytest.mark.parametrize("status", [400, 409, 500])
@pytest.mark.parametrize(
    "said",
    [
        "no connection to http://admin:hunter2@10.0.0.1/a.raw",
        "can't log in with {'username': 'admin', 'password': 'hunter2'}",
        "got X-Auth-Token: hunter2 and\nipmi_pwd=hunter2",
        f"{'so much ' * 33}http://admin:{'hunter2' * 20}@10.0.0.1/a.raw",
    ],
)
async def test_what_an_agent_says_in_a_refusal_is_told_without_its_secrets(
    agent: ScriptedAgent, said: str, status: int
) -> None:
    agent.says({"faultstring": said}, status=status)
    message = (await failure(agent.client().start("clean.x", {}))).message
    assert said[:6] in message
    assert "hunter" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"null",
        b"[" * 10_000,
        [],
        {},
        {**RUNNING, "id": None},
        {**RUNNING, "command_name": 7},
        {**RUNNING, "command_status": "DONE"},
        {**RUNNING, "command_status": {}},
        {"commands": {}},
        {"commands": [None]},
    ],
)
async def test_garbage_is_the_agents_fault(agent: ScriptedAgent, body: object) -> None:
    agent.says(body)
    assert (await failure(agent.client().commands())).fault is AgentFault.PROTOCOL
    assert (await failure(agent.client().start("clean.x", {}))).fault is AgentFault.PROTOCOL


async def test_a_redirect_is_not_followed_with_the_token(agent: ScriptedAgent) -> None:
    async def redirect(_request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("/elsewhere")

    agent.answer = redirect
    assert (await failure(agent.client().commands())).fault is AgentFault.PROTOCOL
    assert len(agent.asked) == 1


async def test_an_agent_that_hangs_is_unreachable_in_time(agent: ScriptedAgent) -> None:
    async def hang(_request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    agent.answer = hang
    error = await failure(agent.client().run("clean.x", {}, limit=0.1))
    assert error.fault is AgentFault.UNREACHABLE
    assert "within 0.1 s" in error.message


async def test_an_agent_that_cuts_the_connection_is_unreachable(agent: ScriptedAgent) -> None:
    async def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    agent.answer = cut
    assert (await failure(agent.client().run("standby.power_off", {}, limit=5))).fault is AgentFault.UNREACHABLE


async def test_an_agent_that_breaks_off_its_answer_is_unreachable(agent: ScriptedAgent) -> None:
    async def stop_half_way(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport is not None
        request.transport.close()
        return response

    agent.answer = stop_half_way
    assert (await failure(agent.client().commands())).fault is AgentFault.UNREACHABLE


async def test_an_answer_without_end_is_given_up(agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_BYTES", 1000)
    agent.says(b'"' + b"a" * 2000 + b'"')
    assert (await failure(agent.client().commands())).fault is AgentFault.PROTOCOL


@pytest.mark.parametrize("values", [b"[" + b"0," * 200_000 + b"0]", b'{"commands": [' + b"{}," * 200_000 + b"{}]}"])
async def test_an_answer_that_takes_long_to_parse_is_not_parsed(
    agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch, values: bytes
) -> None:
    monkeypatch.setattr("rackwright.agent.intake.json.loads", lambda _: pytest.fail("it was"))
    agent.says(values)
    error = await failure(agent.client().commands())
    assert error.fault is AgentFault.PROTOCOL
    assert "values" in error.message


async def test_evidence_for_a_thousand_disks_is_an_honest_answer(agent: ScriptedAgent) -> None:
    disk = {"device": "/dev/sda", "serial": "S" * 40, "wwn": "0x" + "5" * 32, "sizeBytes": 2**44, "method": "Overwrite"}
    disk |= {"verified": False, "samples": 2**20, "message": "e" * 500}
    told = {"clean_step": {"step": "erase_disks"}, "clean_result": [disk] * 1024}
    agent.says({"commands": [RUNNING | {"command_status": "SUCCEEDED", "command_result": told}]})
    (command,) = await agent.client().commands()
    assert command.result == told


async def test_what_speaks_tls_but_not_http_is_no_agent(agent: ScriptedAgent) -> None:
    async def babble(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.write(b"SSH-2.0-dropbear\r\n" * 10)
        request.transport.close()
        return web.Response()

    agent.answer = babble
    assert (await failure(agent.client().commands())).fault is AgentFault.PROTOCOL


async def test_what_does_not_speak_tls_is_no_agent(unused_port: int) -> None:
    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-dropbear\r\n" * 10)
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", unused_port)
    error = await failure(AgentClient(session(f"https://127.0.0.1:{unused_port}", identity()), TOKEN).commands())
    assert error.fault is AgentFault.UNREACHABLE
    server.close()
    await server.wait_closed()


async def test_an_agent_that_is_gone_is_unreachable(unused_port: int) -> None:
    error = await failure(AgentClient(session(f"https://127.0.0.1:{unused_port}", identity()), TOKEN).commands())
    assert error.fault is AgentFault.UNREACHABLE
    assert error.message.startswith("The agent at https://127.0.0.1:")


async def test_no_token_is_shown_or_logged(agent: ScriptedAgent, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    agent.says({**RUNNING, "command_result": {"configdrive": "secret"}})
    command = await agent.client().start("clean.x", {})
    assert "secret" not in repr(command)
    assert TOKEN not in caplog.text + repr(agent.client())


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def test_nothing_is_sent_any_more_by_whoever_lost_the_right_to_while_the_connection_was_made(
    agent: ScriptedAgent,
) -> None:
    agent.says(RUNNING)
    looks = iter([True, False])
    with fenced(lambda: next(looks)), pytest.raises(Fenced):
        await agent.client().start("standby.prepare_image", {})
    assert agent.asked == []
    with fenced(lambda: True):
        await agent.client().start("standby.prepare_image", {})
    assert len(agent.asked) == 1
