"""A first boot counts when it is recorded; until then the system is made to call again."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from rackwright.install.host_keys import host_key
from rackwright.install.phone_home import PATH, FirstBoots, PhoneHome, route

TOKEN = "hunter2-the-token"


def key(kind: str, size: int = 32) -> str:
    """A public key that is well-formed, though nobody has its private half."""
    name = kind.encode()
    blob = len(name).to_bytes(4, "big") + name + size.to_bytes(4, "big") + b"k" * size
    return f"{kind} {base64.b64encode(blob).decode()}"


ED25519, ECDSA, RSA = key("ssh-ed25519"), key("ecdsa-sha2-nistp256", 65), key("ssh-rsa", 512)

FORM = {
    "pub_key_ed25519": f"{ED25519} root@node-07\n",
    "pub_key_ecdsa": f"{ECDSA} root@node-07\n",
    "pub_key_rsa": f"{RSA} root@node-07\n",
    "hostname": "node-07",
    "instance_id": "op-17",
    "fqdn": "node-07.example.org",
}


@dataclass
class Recorder:
    """A loop with one machine, `known`."""

    recorded: bool | Exception = True
    seconds: float = 0
    reports: list[tuple[str, PhoneHome]] = field(default_factory=list)

    def expected(self, uid: str) -> str | None:
        """One operation, for the one machine."""
        return "op-17" if uid == "known" else None

    def admits(self, uid: str, operation_id: str, token: str) -> bool:
        """The one token."""
        return (uid, operation_id, token) == ("known", "op-17", TOKEN)

    async def received(self, uid: str, report: PhoneHome) -> bool:
        """After `seconds`, as `recorded` says."""
        await asyncio.sleep(self.seconds)
        self.reports.append((uid, report))
        if isinstance(self.recorded, Exception):
            raise self.recorded
        return self.recorded


@asynccontextmanager
async def served(first_boots: FirstBoots, limit: float = 5) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    application = web.Application()
    application.add_routes([route(first_boots, limit=limit)])
    async with TestClient(TestServer(application, host="127.0.0.1")) as client:
        yield client


async def call(
    first_boots: FirstBoots,
    form: dict[str, str] | bytes = FORM,
    *,
    uid: str = "known",
    token: str = TOKEN,
    limit: float = 5,
) -> int:
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    async with served(first_boots, limit) as client:
        answer = await client.post(
            PATH.format(uid=uid),
            params={"token": token},
            data=body,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        return answer.status


async def test_a_system_that_phones_home_is_recorded_with_its_host_keys() -> None:
    loop = Recorder()
    assert await call(loop) == 200
    assert loop.reports == [
        ("known", PhoneHome("op-17", "node-07.example.org", "127.0.0.1", (ED25519, ECDSA, RSA))),
    ]


async def test_a_system_that_calls_twice_is_answered_200_twice() -> None:
    loop = Recorder()
    assert [await call(loop), await call(loop)] == [200, 200]


@pytest.mark.parametrize("recorded", [False, RuntimeError("the API server is away")])
async def test_a_report_that_is_not_recorded_is_asked_for_again(recorded: bool | Exception) -> None:
    assert await call(Recorder(recorded=recorded)) == 503


async def test_a_report_that_takes_too_long_to_record_is_asked_for_again() -> None:
    assert await call(Recorder(seconds=30), limit=0.05) == 503


async def test_a_machine_that_nothing_is_expected_from_is_unknown() -> None:
    assert await call(Recorder(), uid="stranger") == 404


@pytest.mark.parametrize("token", ["", "old", TOKEN + "x"])
async def test_a_wrong_token_is_refused(token: str) -> None:
    loop = Recorder()
    assert await call(loop, token=token) == 403
    assert loop.reports == []


async def test_a_call_without_a_token_is_refused() -> None:
    async with served(Recorder()) as client:
        assert (await client.post(PATH.format(uid="known"), data=FORM)).status == 403


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"\xff\xfe",
        b"no form at all",
        b'{"hostname": "node-07"}',
        b"hostname=%ff",
        b"&".join(b"field%d=x" % n for n in range(100)),
        b"hostname=" + b"x" * 100_000,
        FORM | {"fqdn": "node 07\nevil"},
        FORM | {"fqdn": "-node"},
        FORM | {"pub_key_rsa": "not a key"},
        FORM | {"pub_key_rsa": f"{RSA}\n{RSA}\n"},
        FORM | {"pub_key_rsa": f"@cert-authority * {RSA}"},
        FORM | {"pub_key_rsa": RSA + "A" * 8000},
    ],
)
async def test_garbage_is_refused(form: dict[str, str] | bytes) -> None:
    loop = Recorder()
    assert await call(loop, form) == 400
    assert loop.reports == []


async def test_a_system_without_an_ssh_server_reports_without_host_keys() -> None:
    loop = Recorder()
    form = {name: "N/A" for name in FORM if name.startswith("pub_key")} | {"hostname": "node-07", "fqdn": "N/A"}
    assert await call(loop, form) == 200
    assert loop.reports[0][1] == PhoneHome("op-17", "node-07", "127.0.0.1", ())


@pytest.mark.parametrize(
    ("loop", "token", "form"),
    [
        (Recorder(), TOKEN, FORM),
        (Recorder(), TOKEN + "x", FORM),
        (Recorder(), TOKEN, b"garbage"),
        (Recorder(recorded=RuntimeError("no")), TOKEN, FORM),
        (Recorder(seconds=30), TOKEN, FORM),
    ],
)
async def test_no_log_line_holds_the_token(
    caplog: pytest.LogCaptureFixture, loop: Recorder, token: str, form: dict[str, str] | bytes
) -> None:
    caplog.set_level(logging.DEBUG, logger="rackwright")
    await call(loop, form, token=token, limit=0.05)
    assert not [record for record in caplog.records if TOKEN in record.getMessage() or TOKEN in str(record.exc_info)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ED25519, ED25519),
        (f"{ED25519} a comment\n", ED25519),
        (f" {ED25519}", None),
        (f"{ED25519}\n\n", None),
        (f"{ED25519} two\nlines", None),
        (ED25519.replace("ssh-ed25519", "ssh-rsa"), None),
        ("ssh-ed25519 AAAA", None),
        ("ssh-ed25519 AAA", None),
        ("ssh-dss AAAAB3NzaC1kc3MAAAA=", None),
        ("", None),
    ],
)
def test_a_host_key_is_its_type_and_its_base64_and_nothing_else(text: str, expected: str | None) -> None:
    assert host_key(text) == expected
