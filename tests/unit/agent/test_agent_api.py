"""What agents, and strangers who pose as agents, are answered."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from tests.unit.agent.world import MAC, OTHER_MAC, UID, DeclaredBoots, boot, identity

from rackwright.agent import api, intake
from rackwright.agent.api import AgentAPI
from rackwright.agent.sessions import Address, Sessions
from rackwright.agent.strangers import Enlisted, Introduction, NotYet, TurnedAway, Welcome
from rackwright.agent.tokens import Tokens

TOKENS = Tokens(b"k" * 32)
TOKEN = TOKENS.for_agent(UID, "op-1")


class Watched(intake.Intake):
    """An intake that tells how many reports are being read."""

    reading = 0

    def __init__(self, *, at_once: int, turn_seconds: float) -> None:
        super().__init__(at_once=at_once, turn_seconds=turn_seconds)
        self.moved = asyncio.Event()

    @asynccontextmanager
    async def turn(self, sender: Address) -> AsyncIterator[None]:
        async with super().turn(sender):
            self._count(1)
            try:
                yield
            finally:
                self._count(-1)

    def _count(self, more: int) -> None:
        self.reading += more
        self.moved.set()


@dataclass
class Registrar:
    """Enlistment that answers what a test says."""

    answer: Introduction = field(default_factory=lambda: TurnedAway("It is unknown."))
    reports: list[Mapping[str, Any]] = field(default_factory=list)
    stuck: bool = False

    def welcome(self, mac: str) -> Welcome:
        raise AssertionError(f"an agent never asks what {mac} is to boot")

    def invited(self, mac: str) -> None:
        raise AssertionError(mac)

    def turned_away(self) -> None:
        raise AssertionError

    async def introduce(self, report: Mapping[str, Any]) -> Introduction:
        self.reports.append(report)
        if self.stuck:
            await asyncio.Event().wait()
        return self.answer


@dataclass
class Operator:
    """The API with its surroundings."""

    registrar: Registrar = field(default_factory=Registrar)

    boots: DeclaredBoots = field(default_factory=lambda: DeclaredBoots([boot()]))
    sessions: Sessions = field(default_factory=Sessions)
    woken: list[str] = field(default_factory=list)
    safe: bool = True
    stuck: bool = False
    client: TestClient[web.Request, web.Application] = field(init=False)
    api: AgentAPI = field(init=False)
    intake: Watched = field(init=False)

    async def persisted(self, _uid: str) -> bool:
        if self.stuck:
            await asyncio.Event().wait()
        return self.safe

    def application(self) -> web.Application:
        self.api = AgentAPI(
            boots=self.boots,
            sessions=self.sessions,
            tokens=TOKENS,
            wake=self.woken.append,
            persisted=self.persisted,
            strangers=self.registrar,
            persist_seconds=0.05,
        )
        app = web.Application()
        app.add_routes(self.api.routes())
        return app

    def crowd(self, *, at_once: int, turn_seconds: float) -> None:
        """Let so many reports be read at a time, and the others wait so long."""
        self.api._intake = self.intake = Watched(at_once=at_once, turn_seconds=turn_seconds)

    async def read_from(self, senders: int) -> None:
        """Return when reports of so many senders are being read."""
        async with asyncio.timeout(30):
            while self.intake.reading != senders:
                self.intake.moved.clear()
                await self.intake.moved.wait()

    async def lookup(self, *addresses: str, status: int = 200) -> Any:
        response = await self.client.get("/v1/lookup", params={"addresses": ",".join(addresses or (MAC,))})
        assert response.status == status, await response.text()
        return await response.json()

    async def beat(self, status: int = 202, uid: str = UID, **changes: Any) -> str:
        body = {
            "callback_url": "https://127.0.0.1:9999",
            "agent_token": TOKEN,
            "agent_version": "13.0.0",
            "agent_verify_ca": identity().certificate,
            **changes,
        }
        response = await self.client.post(f"/v1/heartbeat/{uid}", json=body)
        assert response.status == status, await response.text()
        return await response.text()

    async def inspect(self, report: object, status: int = 202) -> Any:
        data = report if isinstance(report, bytes) else json.dumps(report).encode()
        response = await self.client.post("/v1/continue_inspection", data=io.BytesIO(data))
        assert response.status == status, await response.text()
        return await response.json()


@dataclass
class Connection:
    """A request under way, by hand: a client library would wait for its own body."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def status(self) -> int:
        """The answer's."""
        async with asyncio.timeout(30):
            return int((await self.reader.readline()).split()[1])

    def close(self) -> None:
        """Break it off."""
        self.writer.close()


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    it = Operator()
    async with TestClient(TestServer(it.application())) as it.client:
        yield it


def report(*macs: str, **more: Any) -> dict[str, Any]:
    interfaces = [{"name": f"eth{number}", "mac_address": mac} for number, mac in enumerate(macs)]
    return {"inventory": {"interfaces": interfaces}, "error": None, **more}


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/"])
async def test_the_version_is_the_one_from_which_agents_send_their_certificate(operator: Operator, path: str) -> None:
    answer = await (await operator.client.get(path)).json()
    assert answer["default_version"]["version"] == "1.68"


class TestLookup:
    async def test_a_machine_that_we_booted_learns_who_it_is_and_its_token(self, operator: Operator) -> None:
        answer = await operator.lookup(OTHER_MAC, MAC.upper())
        assert answer["node"] == {"uuid": UID, "properties": {}, "instance_info": {}, "driver_internal_info": {}}
        assert answer["config"]["agent_token"] == TOKEN
        assert answer["config"]["heartbeat_timeout"] <= 30

    @pytest.mark.parametrize("addresses", [OTHER_MAC, "", "nonsense", "%00,::::::"])
    async def test_nobody_else_learns_anything(self, operator: Operator, addresses: str) -> None:
        operator.boots.declared = {OTHER_MAC}
        refusal = await operator.lookup(addresses, status=404)
        assert "No machine" in refusal["error_message"]["faultstring"]

    async def test_an_answer_that_got_lost_is_given_again_until_the_agent_beats(self, operator: Operator) -> None:
        assert (await operator.lookup())["config"]["agent_token"] == TOKEN
        assert (await operator.lookup())["config"]["agent_token"] == TOKEN
        await operator.beat()
        again = await operator.lookup()
        assert again["config"]["agent_token"] == "******"
        assert again["node"]["uuid"] == UID

    async def test_a_restarted_operator_gives_no_token_to_a_boot_whose_agent_was_known(
        self, operator: Operator
    ) -> None:
        operator.boots.boots = [boot(agent_known=True)]
        assert (await operator.lookup())["config"]["agent_token"] == "******"

    async def test_a_second_address_is_refused_once_the_token_was_handed_out(self, operator: Operator) -> None:
        await operator.lookup()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))) as stranger:
            response = await stranger.get(operator.client.make_url("/v1/lookup"), params={"addresses": MAC})
            assert response.status == 409
            beat = {
                "callback_url": "https://127.0.0.2:9999",
                "agent_token": TOKEN,
                "agent_verify_ca": identity().certificate,
            }
            response = await stranger.post(operator.client.make_url(f"/v1/heartbeat/{UID}"), json=beat)
            assert response.status == 409
        await operator.beat()

    async def test_a_new_operation_has_a_new_token_for_anybody(self, operator: Operator) -> None:
        await operator.lookup()
        await operator.beat()
        operator.boots.boots = [boot(operation_id="op-2")]
        assert (await operator.lookup())["config"]["agent_token"] == TOKENS.for_agent(UID, "op-2")
        await operator.beat(status=401)


class TestHeartbeat:
    async def test_the_first_beat_makes_a_session_and_wakes_the_machine(self, operator: Operator) -> None:
        await operator.beat()
        session = operator.sessions.current(UID, "op-1")
        assert session is not None
        assert session.callback_url == "https://127.0.0.1:9999"
        assert session.certificate == identity().certificate
        assert session.version == "13.0.0"
        assert operator.woken == [UID]

    async def test_later_beats_are_heard_too(self, operator: Operator) -> None:
        await operator.beat()
        first = operator.sessions.current(UID, "op-1")
        await operator.beat()
        second = operator.sessions.current(UID, "op-1")
        assert first is not None
        assert second is not None
        assert second.heard_at > first.heard_at
        assert operator.woken == [UID, UID]

    @pytest.mark.parametrize("token", [None, "", "******", 7, "x" * 43, TOKENS.for_first_boot(UID, "op-1")])
    async def test_without_this_boots_token_nothing_is_heard(self, operator: Operator, token: object) -> None:
        said = await operator.beat(status=401, agent_token=token)
        assert TOKEN not in said
        assert operator.sessions.current(UID, "op-1") is None
        assert operator.woken == []

    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1:9999",
            "https://127.0.0.2:9999",
            "https://example.org:9999",
            "https://user@127.0.0.1:9999",
            "https://127.0.0.1:9999/elsewhere",
            "https://127.0.0.1:9999?q=1",
            "https://127.0.0.1:0x",
            "https://127.0.0.1:99999",
            "https://",
            "",
            None,
            {"url": 1},
        ],
    )
    async def test_commands_go_back_to_where_the_beat_came_from_or_nowhere(
        self, operator: Operator, url: object
    ) -> None:
        await operator.beat(status=400, callback_url=url)
        assert operator.sessions.current(UID, "op-1") is None

    @pytest.mark.parametrize(
        "certificate",
        [
            None,
            "",
            7,
            "garbage",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            identity().key,
            identity().certificate + identity("second").certificate,
        ],
    )
    async def test_an_agent_without_a_certificate_of_its_own_is_refused(
        self, operator: Operator, certificate: object
    ) -> None:
        await operator.beat(status=400, agent_verify_ca=certificate)

    @pytest.mark.parametrize(
        "change", [{"callback_url": "https://127.0.0.1:1"}, {"agent_verify_ca": identity("other").certificate}]
    )
    async def test_neither_address_nor_certificate_change_within_a_boot(
        self, operator: Operator, change: dict[str, str]
    ) -> None:
        await operator.beat()
        await operator.beat(status=409, **change)
        session = operator.sessions.current(UID, "op-1")
        assert session is not None
        assert session.callback_url == "https://127.0.0.1:9999"
        assert session.certificate == identity().certificate

    async def test_a_machine_that_we_are_not_booting_is_unknown(self, operator: Operator) -> None:
        await operator.beat(status=404, uid="somebody-else")
        operator.boots.boots = []
        await operator.beat(status=404)

    @pytest.mark.parametrize(
        ("body", "status"),
        [(b"", 400), (b"[]", 400), (b"{", 400), (b"\xff", 400), (b"[" * 60_000, 400), (b" " * 70_000, 413)],
    )
    async def test_garbage_is_refused(self, operator: Operator, body: bytes, status: int) -> None:
        response = await operator.client.post(f"/v1/heartbeat/{UID}", data=body)
        assert response.status == status
        assert (await response.json())["error_message"]["faultstring"]

    async def test_an_agent_that_announces_itself_cannot_forge_log_lines(
        self, operator: Operator, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        await operator.beat(agent_version="13\nINFO all is well")
        assert "\n" not in "".join(caplog.messages)


class TestInspection:
    async def test_a_report_is_acknowledged_once_it_is_safe(self, operator: Operator) -> None:
        sent = report(OTHER_MAC, MAC, logs="packed")
        assert await operator.inspect(sent) == {"uuid": UID}
        assert operator.sessions.inspection(UID, "op-1") == report(OTHER_MAC, MAC), "what nobody reads is let go"
        assert operator.woken == [UID]

    async def test_an_incomplete_report_is_taken_and_its_error_logged(
        self, operator: Operator, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        await operator.inspect(report(MAC, error="collector lldp failed"))
        assert "incomplete: collector lldp failed" in caplog.text

    @pytest.mark.parametrize("fault", ["safe", "stuck"])
    async def test_an_agent_is_asked_to_send_again_what_could_not_be_recorded(
        self, operator: Operator, fault: str
    ) -> None:
        operator.safe, operator.stuck = fault != "safe", fault == "stuck"
        await operator.inspect(report(MAC), status=503)
        operator.safe, operator.stuck = True, False
        await operator.inspect(report(MAC))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"\xff\xfe",
            b"[]",
            [],
            {},
            {"inventory": None, "error": "no collectors"},
            {"inventory": {"interfaces": "eth0"}},
            {"inventory": {"interfaces": [None, 1, {"mac_address": None}, {"mac_address": "a0:b1"}]}},
        ],
    )
    async def test_garbage_is_refused_with_a_sentence(self, operator: Operator, body: object) -> None:
        refusal = await operator.inspect(body, status=400)
        assert refusal["error_message"]["faultstring"].endswith(".")
        assert operator.woken == []

    async def test_a_machine_that_is_not_being_booted_introduces_itself(self, operator: Operator) -> None:
        operator.registrar.answer = Enlisted("a-new-uid")
        sent = report(OTHER_MAC)
        assert await operator.inspect(sent) == {"uuid": "a-new-uid"}
        assert operator.registrar.reports == [sent]
        assert operator.woken == []

    async def test_a_machine_that_is_being_booted_does_not(self, operator: Operator) -> None:
        await operator.inspect(report(MAC, OTHER_MAC))
        assert operator.registrar.reports == []

    @pytest.mark.parametrize(("answer", "status"), [(TurnedAway("It is known."), 404), (NotYet("In a moment."), 503)])
    async def test_an_introduction_that_comes_to_nothing_is_refused_with_its_sentence(
        self, operator: Operator, answer: TurnedAway | NotYet, status: int
    ) -> None:
        operator.registrar.answer = answer
        refusal = await operator.inspect(report(OTHER_MAC), status=status)
        assert refusal["error_message"]["faultstring"] == answer.sentence

    async def test_an_introduction_that_takes_too_long_is_to_be_made_again(self, operator: Operator) -> None:
        operator.registrar.stuck = True
        refusal = await operator.inspect(report(OTHER_MAC), status=503)
        assert "again" in refusal["error_message"]["faultstring"]

    async def test_while_enlistment_is_off_a_machine_that_is_not_being_booted_is_unknown(self) -> None:
        closed = AgentAPI(
            boots=DeclaredBoots(),
            sessions=Sessions(),
            tokens=TOKENS,
            wake=lambda _uid: None,
            persisted=Operator().persisted,
        )
        app = web.Application()
        app.add_routes(closed.routes())
        async with TestClient(TestServer(app)) as client:
            response = await client.post("/v1/continue_inspection", json=report(OTHER_MAC))
            assert response.status == 404

    async def test_what_was_not_asked_for_is_not_taken(self, operator: Operator) -> None:
        operator.boots.boots = [boot(wants_inventory=False)]
        await operator.inspect(report(MAC), status=403)

    async def test_nobody_replaces_a_report_once_the_agent_is_known(self, operator: Operator) -> None:
        await operator.inspect(report(MAC, boot_interface="first"))
        await operator.beat()
        await operator.inspect(report(MAC, forged=True), status=403)
        assert operator.sessions.inspection(UID, "op-1") == report(MAC, boot_interface="first")

    async def test_a_report_may_hold_logs_but_not_everything(
        self, operator: Operator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await operator.inspect(report(MAC, logs="A" * 3 * 2**20))
        monkeypatch.setattr(api, "REPORT_BYTES", 1000)
        await operator.inspect(report(MAC, logs="A" * 1000), status=413)

    async def test_a_body_that_never_ends_is_not_waited_for(
        self, operator: Operator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(api, "BODY_SECONDS", 0.05)

        async def endless() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        response = await operator.client.post("/v1/continue_inspection", data=endless())
        assert response.status == 408
        response.close()


class TestCrowds:
    """Reports cost memory and time before it is known who sent them."""

    async def send(self, operator: Operator, sender: str, body: bytes, *, length: int | None = None) -> Connection:
        """Begin to send a report from this address."""
        reader, writer = await asyncio.open_connection("127.0.0.1", operator.client.port, local_addr=(sender, 0))
        head = f"POST /v1/continue_inspection HTTP/1.1\r\nHost: it\r\nContent-Length: {length or len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        return Connection(reader, writer)

    async def test_only_so_many_are_read_at_a_time_and_the_others_are_to_come_again(
        self, operator: Operator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(api, "BODY_SECONDS", 60.0)
        operator.crowd(at_once=2, turn_seconds=0.05)
        honest = json.dumps(report(MAC)).encode()
        slow = [await self.send(operator, f"127.0.0.{n}", b"{", length=2**20) for n in (2, 3)]
        await operator.read_from(2)
        refused = await self.send(operator, "127.0.0.4", honest)
        assert await refused.status() == 503
        assert operator.woken == []
        slow[0].close()
        await operator.read_from(1)
        taken = await self.send(operator, "127.0.0.4", honest)
        assert await taken.status() == 202
        for each in (*slow[1:], refused, taken):
            each.close()

    async def test_whoever_comes_in_a_crowd_waits_for_its_turn(self, operator: Operator) -> None:
        operator.crowd(at_once=1, turn_seconds=30.0)
        honest = json.dumps(report(MAC)).encode()
        connections = [await self.send(operator, f"127.0.0.{n}", honest) for n in range(2, 12)]
        assert [await each.status() for each in connections] == [202] * 10
        for each in connections:
            each.close()

    async def test_nobody_takes_more_than_one_place(self, operator: Operator) -> None:
        operator.crowd(at_once=8, turn_seconds=30.0)
        first = await self.send(operator, "127.0.0.2", b"{", length=2**20)
        await operator.read_from(1)
        second = await self.send(operator, "127.0.0.2", json.dumps(report(MAC)).encode())
        assert await second.status() == 503
        first.close()
        second.close()

    @pytest.mark.parametrize("value", ["[]", "{}", "0", '{"a":0}'])
    async def test_what_would_take_long_to_parse_is_not_parsed(
        self, operator: Operator, monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        monkeypatch.setattr(json, "loads", None)
        crafted = f"[{','.join([value] * 200_000)}]".encode()
        response = await operator.client.post("/v1/continue_inspection", data=io.BytesIO(crafted))
        assert response.status == 413
        assert b"more than 100000 values" in await response.read()

    async def test_a_large_machines_report_is_far_from_too_much(self, operator: Operator) -> None:
        cards = [{"name": f"eth{n}", "mac_address": MAC, "lldp": [[1, "00"]] * 50} for n in range(128)]
        disks = [{"name": f"/dev/sd{n}", "model": "X", "size": 1, "wwn": "0x5", "by_path": ""} for n in range(500)]
        inventory = {"interfaces": cards, "disks": disks, "cpu": {"flags": ["sse"] * 300}}
        await operator.inspect({"inventory": inventory, "logs": "A" * 2**20})

    async def test_between_two_reports_that_are_parsed_everybody_else_gets_a_turn(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parsing, parsed, turns = intake.Intake(), list[int](), 0
        monkeypatch.setattr(json, "loads", lambda _body: parsed.append(turns))

        async def everybody_else() -> None:
            nonlocal turns
            while len(parsed) < 3:
                turns += 1
                await asyncio.sleep(0)

        await asyncio.gather(*(parsing.parsed(b"{}") for _ in range(3)), everybody_else())
        assert parsed == sorted(set(parsed)), "two in one turn"


async def test_no_token_is_ever_logged(operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await operator.lookup()
    await operator.beat()
    await operator.beat(status=409, callback_url="https://127.0.0.1:1")
    await operator.beat(status=401, agent_token=TOKEN + "x")
    await operator.inspect(report(MAC), status=403)
    assert "machine=rack-a/node-07 operation=Commission attempt=1 " in caplog.text
    assert TOKEN not in caplog.text


def test_an_answer_always_comes_before_the_agent_gives_up() -> None:
    """IPA waits 30 s; a report that times out isn't sent again: the agent dies of it."""
    assert intake.TURN_SECONDS + api.BODY_SECONDS + api.PERSIST_SECONDS < 26
