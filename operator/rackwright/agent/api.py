"""The slice of Ironic's API that a ramdisk's agent speaks to: version, lookup, heartbeat, inspection report.

A report and a lookup can't be authenticated: anybody on the provisioning network can send them. So they count only
for a machine that the operator itself just booted into the ramdisk, and only until its agent is known; from then on
the boot's token, held by whoever looked up first, decides. A report of any other machine is an introduction, which at
most creates a record that nobody trusts. The README beside this file says what the agent does about each answer.

A refusal is `{"error_message": {"faultstring": SENTENCE}}`, which the agent writes to its own log.

What is answered is decided in `look_up`, `hear` and `take_inspection`, which know of no connection: simulated machines,
which have none, ask them as well.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import Any, NoReturn, assert_never

from aiohttp import web
from yarl import URL

from rackwright.agent.intake import MOST_VALUES, Full, Intake, Overloaded
from rackwright.agent.sessions import Address, Boot, Boots, Session, Sessions, canonical_mac
from rackwright.agent.strangers import Enlisted, Introduction, Nobody, NotYet, Strangers, TurnedAway
from rackwright.agent.tokens import Tokens, matches
from rackwright.install.sentences import presentable
from rackwright.install.steps import node
from rackwright.logs import Line

HEARTBEAT_TIMEOUT = 30
"""Seconds. IPA beats after 0.3 to 0.6 of it: a restarted operator knows every agent again within 18 s."""
WITHHELD = "******"
"""Ironic's answer instead of a token that was handed out already; an agent without one shuts itself off."""
HEARTBEAT_BYTES = 64 * 2**10
REPORT_BYTES = 8 * 2**20
"""The agent's journal comes along with its report, packed."""
BODY_SECONDS = 8.0
PERSIST_SECONDS = 15.0
"""With `BODY_SECONDS` and `TURN_SECONDS` below the 30 s after which IPA waits no longer: it doesn't retry, it dies."""

_VERSION = {"id": "v1", "status": "CURRENT", "min_version": "1.1", "version": "1.68", "links": []}
_log = logging.getLogger(__name__)


Guide = Callable[[str | None], None]
"""Raises an answer where another operator is to hear of the machine with this uid, or of one that nobody knows."""


def answered_here(_uid: str | None) -> None:
    """Nobody else is to hear of it."""


class AgentAPI:
    """Answers agents and tells the loop: `wake(uid)` after each valid heartbeat and each report.

    `persisted(uid)` is awaited before a report is acknowledged, and says whether it is safe now: an agent that was
    thanked never sends its report again.
    """

    def __init__(
        self,
        *,
        boots: Boots,
        sessions: Sessions,
        tokens: Tokens,
        wake: Callable[[str], None],
        persisted: Callable[[str], Awaitable[bool]],
        strangers: Strangers | None = None,
        persist_seconds: float = PERSIST_SECONDS,
        guide: Callable[[web.Request, str | None], None] | None = None,
    ) -> None:
        """Without `strangers`, enlistment is off.

        `guide` raises an answer where another operator is to hear of the machine with this uid, or of one that nobody
        knows; without it, everything is answered here.
        """
        self._boots = boots
        self._sessions = sessions
        self._tokens = tokens
        self._wake = wake
        self._persisted = persisted
        self._strangers = strangers or Nobody()
        self._persist_seconds = persist_seconds
        self._guide = guide or (lambda _request, _uid: None)
        self._intake = Intake()

    def routes(self) -> list[web.RouteDef]:
        """What the application serves for agents."""
        return [
            web.get("/", self.version),
            web.get("/v1", self.version),
            web.get("/v1/", self.version),
            web.get("/v1/lookup", self.lookup),
            web.post("/v1/heartbeat/{uid}", self.heartbeat),
            web.post("/v1/continue_inspection", self.continue_inspection),
        ]

    async def version(self, _request: web.Request) -> web.Response:
        """1.68: the first version by which the agent sends its certificate, and the last that it knows."""
        return web.json_response({"name": "Rackwright", "default_version": _VERSION, "versions": [_VERSION]})

    async def lookup(self, request: web.Request) -> web.Response:
        """Tell an agent which machine it runs on, and until it is known, its token.

        IPA looks up again before it writes an image, for the machine's data alone, and waits ten minutes for a 200.
        """
        addresses = request.query.get("addresses", "").split(",")
        found = self.look_up(_peer(request), addresses, partial(self._guide, request))
        return web.json_response(found, headers={"Cache-Control": "no-store"})

    def look_up(self, peer: Address, addresses: Sequence[object], guide: Guide = answered_here) -> dict[str, Any]:
        """The answer to a lookup with these MAC addresses; a `Refusal` where there is none, or what `guide` raises."""
        boot = self._boots.by_mac(_macs(addresses))
        if boot is None:
            _refuse(HTTPStatus.NOT_FOUND, "No machine with these MAC addresses is being booted into the ramdisk.")
        guide(boot.machine_uid)
        bound = self._sessions.address(boot.machine_uid, boot.operation_id)
        if bound not in {None, peer}:
            _log.warning(_line_of(boot, f"lookup from {peer} refused, this boot's agent is at {bound}"))
            _refuse(HTTPStatus.CONFLICT, f"The agent of {_title(boot)} has another address.")
        if self._is_known(boot):
            token = WITHHELD
        else:
            token = self._tokens.for_agent(boot.machine_uid, boot.operation_id)
            self._sessions.bind(boot, peer)
        return {
            "node": node(boot.machine_uid),
            "config": {
                "heartbeat_timeout": HEARTBEAT_TIMEOUT,
                "agent_token": token,
                "agent_token_required": True,
            },
        }

    async def heartbeat(self, request: web.Request) -> web.Response:
        """Hear that an agent lives and where it takes commands; 202."""
        peer = _peer(request)
        self.hear(peer, request.match_info["uid"], _object(await _body(request, HEARTBEAT_BYTES)))
        return web.Response(status=HTTPStatus.ACCEPTED)

    def hear(self, peer: Address, uid: str, beat: Mapping[str, Any]) -> None:
        """Take in a heartbeat; a `Refusal` of one that isn't this boot's agent's."""
        boot = self._boots.by_uid(uid)
        if boot is None:
            _refuse(HTTPStatus.NOT_FOUND, "This machine is not being booted into the ramdisk.")
        if not matches(self._tokens.for_agent(uid, boot.operation_id), beat.get("agent_token")):
            _log.warning(_line_of(boot, f"heartbeat from {peer} without this boot's token refused"))
            _refuse(HTTPStatus.UNAUTHORIZED, "agent_token is missing, or isn't this boot's.")
        session = Session(
            operation_id=boot.operation_id,
            callback_url=_callback(beat.get("callback_url"), peer),
            certificate=_certificate(beat.get("agent_verify_ca")),
            heard_at=time.monotonic(),
            version=_line(beat.get("agent_version")),
        )
        if self._sessions.is_late(uid, session):
            return
        before = self._sessions.current(uid, boot.operation_id)
        bound = self._sessions.address(uid, boot.operation_id)
        if bound not in {None, peer} or (before and _identity(before) != _identity(session)):
            agent = before.callback_url if before else bound
            _log.warning(_line_of(boot, f"another heartbeat from {peer} refused, this boot's agent is {agent}"))
            _refuse(HTTPStatus.CONFLICT, "callback_url and agent_verify_ca can't change within a boot.")
        self._sessions.heard(boot, session, peer)
        if before is None:
            _log.info(_line_of(boot, f"agent {session.version or 'of unknown version'} at {session.callback_url}"))
        self._wake(uid)

    async def continue_inspection(self, request: web.Request) -> web.Response:
        """Take an agent's report on its hardware; 202 and the machine's uid once the report is safe."""
        read = partial(_body, request, REPORT_BYTES)
        uid = await self.take_inspection(_peer(request), read, partial(self._guide, request))
        return web.json_response({"uuid": uid}, status=HTTPStatus.ACCEPTED)

    async def take_inspection(
        self, peer: Address, read: Callable[[], Awaitable[bytes]], guide: Guide = answered_here
    ) -> str:
        """Take in a report, read when it is its turn; the machine's uid once it is safe, or a `Refusal`."""
        report = await self._report(peer, read)
        macs = _reported_macs(report)
        boot = self._boots.by_mac(macs)
        guide(boot.machine_uid if boot is not None else None)
        if boot is None:
            _log.info("Inspection of a machine that is not being booted, from %s: %s", peer, ", ".join(macs[:8]))
            return await self._introduction(report)
        if not boot.wants_inventory or self._is_known(boot):
            _log.warning(_line_of(boot, f"unexpected inspection from {peer} refused"))
            _refuse(HTTPStatus.FORBIDDEN, f"No inspection of {_title(boot)} is awaited now.")
        report = worth_keeping(report)
        self._sessions.reported(boot, report)
        error = report.get("error")
        incomplete = f", incomplete: {_line(error)}" if error else ""
        _log.info(_line_of(boot, f"inspection received from {peer}{incomplete}"))
        self._wake(boot.machine_uid)
        if not await self._safe(boot.machine_uid):
            _log.warning(_line_of(boot, "inspection could not be recorded yet, the agent is to send it again"))
            _refuse(HTTPStatus.SERVICE_UNAVAILABLE, "The inspection could not be recorded yet: send it again.")
        return boot.machine_uid

    async def _report(self, peer: Address, read: Callable[[], Awaitable[bytes]]) -> dict[str, Any]:
        """The report in a body, read when it is its turn."""
        try:
            async with self._intake.turn(peer):
                report = await self._intake.parsed(await read())
        except Full:
            _refuse(HTTPStatus.SERVICE_UNAVAILABLE, "Too many reports arrive at once: send it again.")
        except Overloaded:
            _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The report holds more than {MOST_VALUES} values.")
        except (ValueError, RecursionError):
            _refuse(HTTPStatus.BAD_REQUEST, "The body isn't JSON.")
        return _mapping(report)

    async def _introduction(self, report: Mapping[str, Any]) -> str:
        """A machine that isn't being booted; its uid once it is enlisted."""
        introduction: Introduction
        try:
            async with asyncio.timeout(self._persist_seconds):
                introduction = await self._strangers.introduce(report)
        except TimeoutError:
            introduction = NotYet("The machine could not be enlisted in time: send the report again.")
        match introduction:
            case Enlisted(uid):
                return uid
            case TurnedAway(sentence):
                raise Refusal(HTTPStatus.NOT_FOUND, sentence)
            case NotYet(sentence):
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
            case _ as never:
                assert_never(never)

    def _is_known(self, boot: Boot) -> bool:
        return boot.agent_known or self._sessions.current(boot.machine_uid, boot.operation_id) is not None

    async def _safe(self, uid: str) -> bool:
        try:
            async with asyncio.timeout(self._persist_seconds):
                return await self._persisted(uid)
        except TimeoutError:
            return False


def worth_keeping(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report without what nobody reads (`inventory.report.read`): the agent's journal is most of it."""
    return {name: report[name] for name in ("inventory", "boot_interface", "error") if name in report}


def _refuse(status: HTTPStatus, sentence: str) -> NoReturn:
    """Answer an agent with a refusal in Ironic's form."""
    raise Refusal(status, sentence)


class Refusal(web.HTTPException):
    """An answer that is no 2xx, with the sentence that IPA logs."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        self.status_code = status
        super().__init__(text=json.dumps({"error_message": {"faultstring": sentence}}), content_type="application/json")


async def _body(request: web.Request, limit: int) -> bytes:
    """The request's body of `limit` bytes at most, within `BODY_SECONDS`."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is longer than {limit} bytes.")
    except TimeoutError:
        _refuse(HTTPStatus.REQUEST_TIMEOUT, f"The body did not arrive within {BODY_SECONDS:g} s.")
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        _refuse(HTTPStatus.BAD_REQUEST, "The body isn't JSON.")
    return _mapping(value)


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(HTTPStatus.BAD_REQUEST, "The body isn't a JSON object.")
    return value


def _macs(candidates: Sequence[object]) -> tuple[str, ...]:
    """Those candidates that are MAC addresses; an InfiniBand card's longer one isn't."""
    found = (canonical_mac(candidate) for candidate in candidates if isinstance(candidate, str))
    return tuple(dict.fromkeys(mac for mac in found if mac))


def _reported_macs(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The MAC addresses in a report's `inventory.interfaces`; at least one."""
    inventory = report.get("inventory")
    interfaces = inventory.get("interfaces") if isinstance(inventory, dict) else None
    if not isinstance(interfaces, list):
        _log.warning("Inspection without an inventory: %s", _line(report.get("error")) or "it doesn't say why")
        _refuse(HTTPStatus.BAD_REQUEST, "The report holds no inventory.interfaces.")
    macs = _macs([each.get("mac_address") for each in interfaces if isinstance(each, dict)])
    if not macs:
        _refuse(HTTPStatus.BAD_REQUEST, "The report names no network card with a MAC address.")
    return macs


def _peer(request: web.Request) -> Address:
    """Where a request comes from, by its connection: no header is believed."""
    return _plain(ip_address((request.remote or "").partition("%")[0]))


def _plain(address: Address) -> Address:
    """An IPv4 address that a dual-stack socket shows as IPv6, as itself."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _callback(candidate: object, peer: Address) -> str:
    """A heartbeat's callback URL, reduced to scheme, host and port; it must lead back to where the beat came from."""
    try:
        url = URL(candidate) if isinstance(candidate, str) else URL()
        host, port = _plain(ip_address(url.host or "")), url.port
    except ValueError:
        _refuse(HTTPStatus.BAD_REQUEST, "callback_url isn't https://ADDRESS:PORT.")
    if url.scheme != "https" or url.user or url.password or url.path != "/" or url.query_string or url.fragment:
        _refuse(HTTPStatus.BAD_REQUEST, "callback_url isn't https://ADDRESS:PORT.")
    if host != peer:
        _refuse(HTTPStatus.BAD_REQUEST, f"callback_url names another host than {peer}, which this comes from.")
    return f"https://{f'[{host}]' if host.version == 6 else host}:{port}"  # noqa: PLR2004 (the protocol's version)


def _certificate(candidate: object) -> str:
    """A heartbeat's certificate, PEM."""
    try:
        return _checked(candidate if isinstance(candidate, str) else "")
    except (ValueError, ssl.SSLError):
        _refuse(
            HTTPStatus.BAD_REQUEST, "agent_verify_ca isn't one PEM certificate: commands are given over HTTPS alone."
        )


@lru_cache(maxsize=2**14)
def _checked(pem: str) -> str:
    """One certificate and nothing else; ValueError or SSLError if not.

    Agents send theirs with each heartbeat, by turns: with room for fewer than there are none would be found.
    """
    if pem.count("-----BEGIN ") != 1:
        raise ValueError("not one")
    der = ssl.PEM_cert_to_DER_cert(pem)
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
    return ssl.DER_cert_to_PEM_cert(der)


def _identity(session: Session) -> tuple[str, str]:
    return session.callback_url, session.certificate


def _line(text: object) -> str:
    """A stranger's words on one line of bounded length, without what may be secret."""
    return presentable(text) if isinstance(text, str) else ""


def _line_of(boot: Boot, sentence: str) -> Line:
    """A line of the log about a machine that is being booted."""
    return Line(sentence, machine=f"{boot.namespace}/{boot.name}", operation=boot.operation, attempt=boot.attempt)


def _title(boot: Boot) -> str:
    return f"{boot.namespace}/{boot.name} ({boot.operation}, attempt {boot.attempt})"
