"""Where an installed system reports its first boot, and so becomes Deployed.

cloud-init's phone_home module posts a form once per instance and tries again for minutes until it gets an answer
below 400. That is the guarantee that nothing is lost: 200 is answered only after the report is recorded in the
machine's status, everything else makes the system call again.

The token is part of the URL, so that no message here holds one, and the web server's access log may not hold
queries.

Source: cloud-init's `config/cc_phone_home.py` and `url_helper.py`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterable
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl

from aiohttp import web

from rackwright.install.host_keys import MAX_KEY_LENGTH, MAX_KEYS, host_key
from rackwright.logs import Line

PATH = "/v1/phone-home/{uid}"
"""`?token=` follows: `Tokens.for_first_boot`."""

RECORD_SECONDS = 30.0
"""How long a report may take to be recorded before the system is asked to call again."""

MAX_BODY = MAX_KEYS * MAX_KEY_LENGTH
"""Bytes of the form."""

_KEY_FIELDS = ("pub_key_ed25519", "pub_key_ecdsa", "pub_key_rsa")
_NAME_FIELDS = ("fqdn", "hostname")
_ABSENT = frozenset({"", "N/A"})
"""What cloud-init posts for what it doesn't have."""
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PhoneHome:
    """What an installed system said of itself."""

    operation_id: str
    """The operation that installed it."""
    hostname: str
    """Its fully qualified name, else its name; empty where it has none."""
    address: str
    """The address it called from."""
    ssh_host_keys: tuple[str, ...]
    """`TYPE BASE64`, without comments; empty where the image has no SSH server."""


class FirstBoots(Protocol):
    """What the route needs to know of the machines, and whom it tells."""

    def expected(self, uid: str) -> str | None:
        """The id of the operation that installed this machine last, whether its system has reported or not.

        None for a machine that doesn't exist or has nothing installed. It keeps its answer after the report: a
        system whose 200 got lost calls again.
        """

    def admits(self, uid: str, operation_id: str, token: str) -> bool:
        """Whether this is the token of this operation's first boot; compares in constant time."""

    async def received(self, uid: str, report: PhoneHome) -> bool:
        """Record a report; True once it is in the machine's status, at once if it already was.

        Given up after `RECORD_SECONDS`, and then called again with the next try.
        """


class Answer(NamedTuple):
    """What a system that phones home is told."""

    status: HTTPStatus
    text: str


def route(first_boots: FirstBoots, *, limit: float = RECORD_SECONDS) -> web.RouteDef:
    """The route for an aiohttp application; what it answers is `answer`'s."""

    async def phone_home(request: web.Request) -> web.Response:
        told = await answer(
            first_boots,
            request.match_info["uid"],
            request.query.get("token", ""),
            request.content.iter_any(),
            request.remote,
            limit=limit,
        )
        return web.Response(status=told.status, text=f"{told.text}\n")

    return web.post(PATH, phone_home)


async def answer(
    first_boots: FirstBoots,
    uid: str,
    token: str,
    body: AsyncIterable[bytes],
    remote: str | None,
    *,
    limit: float = RECORD_SECONDS,
) -> Answer:
    """What a system is told that posts a form, whatever connects it to us; simulated ones have no connection.

    200 for a report that is recorded, 400 for a form that makes no sense, 403 for a wrong or old token, 404 for a
    machine that nothing is expected from, 503 for a report that isn't recorded within `limit` seconds.
    """
    operation_id = first_boots.expected(uid)
    if operation_id is None:
        return Answer(HTTPStatus.NOT_FOUND, "no system is expected to report for this machine")
    if not first_boots.admits(uid, operation_id, token):
        _log.warning(Line(f"a system at {remote} phoned home with a wrong or old token", uid=uid))
        return Answer(HTTPStatus.FORBIDDEN, "the token is not this installation's")
    form = await _form(body)
    report = None if form is None else _report(form, operation_id, _address(remote))
    if report is None:
        _log.warning(Line(f"the system at {remote} phoned home with an unreadable form", uid=uid))
        return Answer(HTTPStatus.BAD_REQUEST, "the form is not what cloud-init's phone_home posts")
    if await _recorded(first_boots, uid, report, limit):
        return Answer(HTTPStatus.OK, "recorded")
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "not recorded yet, call again")


async def _recorded(first_boots: FirstBoots, uid: str, report: PhoneHome, limit: float) -> bool:
    try:
        async with asyncio.timeout(limit):
            return await first_boots.received(uid, report)
    except TimeoutError:
        _log.warning(Line(f"what the system reported was not recorded within {limit:g} s", uid=uid))
    except Exception:  # noqa: BLE001 (whatever went wrong, the system must be asked to call again)
        _log.exception(Line("what the system reported could not be recorded", uid=uid))
    return False


async def _form(chunks: AsyncIterable[bytes]) -> dict[str, str] | None:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY:
            return None
    try:
        return dict(
            parse_qsl(
                body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=32
            )
        )
    except ValueError:
        return None


def _report(form: dict[str, str], operation_id: str, address: str) -> PhoneHome | None:
    if not form.keys() & {*_KEY_FIELDS, *_NAME_FIELDS}:
        return None
    hostname = next((form[name] for name in _NAME_FIELDS if form.get(name, "") not in _ABSENT), "")
    if hostname and not _HOSTNAME.fullmatch(hostname):
        return None
    keys = [host_key(form[name]) for name in _KEY_FIELDS if form.get(name, "") not in _ABSENT]
    found = tuple(key for key in keys if key is not None)
    return PhoneHome(operation_id, hostname, address, found) if len(found) == len(keys) else None


def _address(remote: str | None) -> str:
    """The peer, an IPv4 address as such even where the server listens on IPv6."""
    if remote is None:
        return ""
    try:
        address = ip_address(remote.partition("%")[0])
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
