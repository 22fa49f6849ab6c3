"""What a caller of the webhook driver is told when the webhook, the network or the certificate is at fault."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from cryptography import x509
from tests.unit.power.certificates import ELSEWHERE, LOCAL, Authority
from tests.unit.power.scripted_bmc import IMPATIENT, Fault, answer, break_off, deluge, drip, hang
from tests.unit.power.scripted_webhook import ACCOUNT, KEY, KEY_NAME, ScriptedWebhook, webhook

from rackwright.power.connect import Connections
from rackwright.power.faults import causes
from rackwright.power.port import BootTarget, Endpoint, FaultClass, PowerError, PowerState
from rackwright.power.webhook import LONGEST_ANSWER


async def failure(call: Any) -> PowerError:
    with pytest.raises(PowerError) as caught:
        await call
    return caught.value


def text(body: str | bytes, status: int = 200, **headers: str) -> Fault:
    """The fault of answering with this, whatever it is."""

    async def fault(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers=headers)

    return fault


def redirect(location: str, status: int = 302) -> Fault:
    return text("", status, Location=location)


async def break_off_quietly(request: web.Request) -> web.StreamResponse:
    """The fault of ending the answer early, with what came of it looking whole."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"power": "On"}')
    assert request.transport is not None
    request.transport.close()
    return response


@pytest.mark.parametrize(
    ("fault", "sorted_as", "said"),
    [
        pytest.param(answer(401), FaultClass.CREDENTIALS, "refuses the credentials (HTTP 401)", id="401"),
        pytest.param(
            answer(403, body={"error": "Not this key. Ask Kim."}),
            FaultClass.CREDENTIALS,
            "may not switch the machine on (HTTP 403): Not this key",
            id="403",
        ),
        pytest.param(
            answer(400, body={"error": "Odd."}),
            FaultClass.PROTOCOL,
            "failed to switch the machine on (HTTP 400): Odd",
            id="400",
        ),
        pytest.param(answer(404, body=["what?"]), FaultClass.UNSUPPORTED, "cannot switch the machine on", id="404"),
        pytest.param(answer(405), FaultClass.UNSUPPORTED, "(HTTP 405)", id="405"),
        pytest.param(answer(409), FaultClass.BUSY, "too busy to switch the machine on", id="409"),
        pytest.param(
            answer(429, headers={"Retry-After": "30"}), FaultClass.BUSY, "asks for 30 s of peace", id="429 with a time"
        ),
        pytest.param(answer(418, body={"error": 7}), FaultClass.PROTOCOL, "(HTTP 418)", id="418"),
        pytest.param(text("x" * 2 * LONGEST_ANSWER, 500), FaultClass.PROTOCOL, "(HTTP 500)", id="500 at length"),
        pytest.param(answer(501), FaultClass.UNSUPPORTED, "cannot switch the machine on (HTTP 501)", id="501"),
        pytest.param(text("<h1>Bad gateway", 502), FaultClass.BUSY, "(HTTP 502)", id="502"),
        pytest.param(
            answer(503, headers={"Retry-After": "30"}), FaultClass.BUSY, "asks for 30 s of peace", id="503 with a time"
        ),
        pytest.param(answer(503), FaultClass.BUSY, "too busy to switch the machine on (HTTP 503)", id="503"),
        pytest.param(text("", 304), FaultClass.PROTOCOL, "(HTTP 304)", id="304"),
        pytest.param(break_off, FaultClass.UNREACHABLE, "broke the connection off", id="breaks off"),
        pytest.param(hang, FaultClass.UNREACHABLE, "does not answer in time", id="hangs"),
    ],
)
async def test_a_fault_of_an_action_is_sorted_and_asked_for_once(
    hook: ScriptedWebhook, fault: Fault, sorted_as: FaultClass, said: str
) -> None:
    connections = Connections(limits=replace(IMPATIENT, read=0.3))
    driver = connections.driver(webhook(await hook.start()))
    hook.faults["PowerOn"] = fault
    error = await failure(driver.power_on())
    assert error.fault is sorted_as
    assert said in error.message
    assert error.retry_after == (30 if "peace" in said else None)
    assert hook.actions == ["PowerOn"]
    await connections.close()


@pytest.mark.parametrize(
    ("fault", "sorted_as", "said"),
    [
        pytest.param(text("<html>Log in"), FaultClass.PROTOCOL, "that is no JSON object", id="a page"),
        pytest.param(answer(200, body=["On"]), FaultClass.PROTOCOL, "that is no JSON object", id="a list"),
        pytest.param(text("[" * 60000), FaultClass.PROTOCOL, "that is no JSON object", id="an abyss"),
        pytest.param(text("9" * 60000), FaultClass.PROTOCOL, "that is no JSON object", id="a number"),
        pytest.param(text(b"\xff\xfe\x00"), FaultClass.PROTOCOL, "that is no JSON object", id="no text"),
        pytest.param(
            text(b'{"power": "On"}' + b" " * LONGEST_ANSWER), FaultClass.PROTOCOL, "longer than 65536", id="a long one"
        ),
        pytest.param(deluge, FaultClass.PROTOCOL, "longer than 65536 bytes", id="no end of it"),
        pytest.param(text(""), FaultClass.PROTOCOL, '"power" is none of On, Off and Unknown', id="nothing"),
        pytest.param(answer(200, body={}), FaultClass.PROTOCOL, '"power" is none of On', id="no power"),
        pytest.param(answer(200, body={"power": "on"}), FaultClass.PROTOCOL, '"power" is none of', id="a small on"),
        pytest.param(answer(200, body={"power": True}), FaultClass.PROTOCOL, '"power" is none of', id="a truth"),
        pytest.param(answer(200, body={"power": ["On"]}), FaultClass.PROTOCOL, '"power" is none of', id="too much"),
        pytest.param(break_off_quietly, FaultClass.UNREACHABLE, "broke the connection off", id="half an answer"),
    ],
)
async def test_a_nonsensical_answer_is_said_to_be_that(
    hook: ScriptedWebhook, connections: Connections, fault: Fault, sorted_as: FaultClass, said: str
) -> None:
    hook.faults["PowerState"] = fault
    driver = connections.driver(webhook(await hook.start()))
    error = await failure(driver.power_state())
    assert (error.fault, said in error.message) == (sorted_as, True), error.message
    assert len(hook.calls) == 1
    hook.faults.clear()
    assert await driver.power_state() is PowerState.OFF


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("/outlets/7/", "http://127.0.0.1:{port}/outlets/7/:"),
        ("https://me:secret@elsewhere.example/o?token=secret#secret", "https://elsewhere.example/o:"),
        ("http://[", "nowhere that is a URL:"),
        ("https://elsewhere.example/" + "a" * 5000, "https://elsewhere.example/aaa"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    hook: ScriptedWebhook, connections: Connections, location: str, where: str, status: int
) -> None:
    hook.faults["PowerState"] = redirect(location, status)
    port = await hook.start()
    error = await failure(connections.driver(webhook(port)).power_state())
    assert error.fault is FaultClass.PROTOCOL
    assert f"sends its callers to {where.format(port=port)}" in error.message
    assert len(error.message) < 300
    assert "secret" not in error.message
    assert len(hook.calls) == 1


@pytest.mark.parametrize("status", [404, 405, 403, 500, 503])
async def test_only_a_device_that_says_that_it_lacks_it_need_not_choose_the_boot(
    hook: ScriptedWebhook, connections: Connections, status: int
) -> None:
    hook.faults["SetBoot"] = answer(status)
    driver = connections.driver(webhook(await hook.start()))
    await failure(driver.set_boot(BootTarget.NETWORK, uefi=True))


async def test_a_webhook_that_is_busy_while_it_switches_is_waited_for(
    hook: ScriptedWebhook, connections: Connections
) -> None:
    driver = connections.driver(webhook(await hook.start()))
    looks = 0

    async def busy_at_first(request: web.Request) -> web.StreamResponse | None:
        nonlocal looks
        looks += 1
        return await answer(503)(request) if looks in {2, 3} else None

    hook.faults["PowerState"] = busy_at_first
    await driver.power_on()
    assert looks >= 4
    assert hook.actions == ["PowerOn"]


# The network


async def test_a_webhook_that_is_not_there_is_unreachable(connections: Connections) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    error = await failure(connections.driver(webhook(port)).power_state())
    assert (error.fault, error.message) == (
        FaultClass.UNREACHABLE,
        f"The BMC at 127.0.0.1:{port} refuses connections: nothing listens on that port",
    )


@pytest.mark.parametrize("host", ["a..example", "a" * 64 + ".example"])
async def test_a_name_that_can_be_no_name_is_unreachable(connections: Connections, host: str) -> None:
    error = await failure(connections.driver(Endpoint(f"webhook+http://{host}/x", ACCOUNT)).power_state())
    assert error.fault is FaultClass.UNREACHABLE


@asynccontextmanager
async def babble(said: bytes) -> AsyncIterator[int]:
    """A server that says this to whoever connects; its port."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))  # to close with something unread would reset the connection
        writer.write(said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("said", "sorted_as"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", FaultClass.PROTOCOL, id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, FaultClass.PROTOCOL, id="a header without end"),
        pytest.param(b"", FaultClass.UNREACHABLE, id="nothing"),
    ],
)
async def test_what_does_not_speak_http_is_said_to_be_that(
    connections: Connections, said: bytes, sorted_as: FaultClass
) -> None:
    async with babble(said) as port:
        error = await failure(connections.driver(webhook(port)).power_state())
    assert error.fault is sorted_as


async def test_a_box_too_small_for_content_lengths_is_understood(connections: Connections) -> None:
    async with babble(b'HTTP/1.0 200 OK\r\n\r\n{"power": "On"}') as port:
        assert await connections.driver(webhook(port)).power_state() is PowerState.ON


@pytest.mark.parametrize("fault", [hang, drip], ids=["hangs", "drips"])
async def test_no_call_outlasts_its_limits_and_the_webhook_is_busy_until_it_is_free(
    hook: ScriptedWebhook, fault: Fault
) -> None:
    connections = Connections(limits=replace(IMPATIENT, read=2.0, exchange=0.3, turn=0.1))
    hook.faults["PowerState"] = fault
    driver = connections.driver(webhook(await hook.start()))
    clock = asyncio.get_running_loop().time
    started = clock()
    error = await failure(driver.power_state())
    assert (error.fault, clock() - started < 1) == (FaultClass.UNREACHABLE, True)
    if fault is hang:
        error = await failure(driver.power_state())  # the first exchange is still in its thread
        assert (error.fault, clock() - started < 1) == (FaultClass.BUSY, True)
        assert hook.most_at_once == 1
    await connections.close(within=0.1)


async def test_an_answer_may_take_longer_than_a_connection(hook: ScriptedWebhook) -> None:
    async def slow(_: web.Request) -> None:
        await asyncio.sleep(0.5)

    connections = Connections(limits=replace(IMPATIENT, connect=0.2))
    hook.faults["PowerState"] = slow
    assert await connections.driver(webhook(await hook.start())).power_state() is PowerState.OFF
    await connections.close()


async def test_an_answer_that_drips_without_end_is_left(hook: ScriptedWebhook) -> None:
    """Its thread ends with the exchange's time, rather than with the answer, half a minute later."""
    connections = Connections(limits=replace(IMPATIENT, exchange=0.3, turn=2.0))
    driver = connections.driver(webhook(await hook.start()))
    hook.faults["PowerState"] = drip
    await failure(driver.power_state())
    hook.faults.clear()
    assert await driver.power_state() is PowerState.OFF  # so there was a turn again
    await connections.close(within=0.1)


# Certificates


def secure(port: int, **changes: Any) -> Endpoint:
    return replace(Endpoint(f"webhook+https://127.0.0.1:{port}/outlets/7", ACCOUNT), **changes)


async def test_a_webhook_is_trusted_by_the_ca_that_is_given(
    hook: ScriptedWebhook, connections: Connections, authority: Authority, tmp_path: Path
) -> None:
    port = await hook.start(authority.server(tmp_path, LOCAL))
    driver = connections.driver(secure(port, ca=authority.pem))
    await driver.power_on()
    assert await driver.power_state() is PowerState.ON
    assert hook.calls[0].content["machine"] == f"https://127.0.0.1:{port}/outlets/7"


async def test_a_webhook_is_reached_by_ipv6(
    hook: ScriptedWebhook, connections: Connections, authority: Authority, tmp_path: Path
) -> None:
    port = await hook.start(authority.server(tmp_path, LOCAL), host="::1")
    address = f"webhook+https://[0::1]:{port}/outlets/7"
    assert await connections.driver(Endpoint(address, ACCOUNT, authority.pem)).power_state() is PowerState.OFF
    assert hook.calls[0].headers["Host"] == f"[::1]:{port}"


async def test_no_verification_means_none_and_no_warning(
    hook: ScriptedWebhook, connections: Connections, authority: Authority, tmp_path: Path
) -> None:
    port = await hook.start(authority.server(tmp_path, ELSEWHERE, ends_in=-timedelta(hours=1)))
    driver = connections.driver(secure(port, insecure_skip_tls_verify=True))
    assert await driver.power_state() is PowerState.OFF


@pytest.mark.parametrize(
    ("names", "ends_in", "ca", "said"),
    [
        pytest.param(LOCAL, 1, None, "is not trusted (unable to get local issuer certificate)", id="the system's CAs"),
        pytest.param(LOCAL, 1, Authority("Rack B").pem, "name the Secret with its CA in caSecretRef", id="another CA"),
        pytest.param(ELSEWHERE, 1, "", "is for another name", id="another name"),
        pytest.param(LOCAL, -1, "", "is out of date: certificate has expired", id="expired"),
        pytest.param(LOCAL, 1, "nonsense", "holds no usable certificate", id="no PEM"),
    ],
)
async def test_nothing_is_sent_to_one_whose_certificate_cannot_be_trusted(
    *,
    hook: ScriptedWebhook,
    connections: Connections,
    authority: Authority,
    tmp_path: Path,
    names: tuple[x509.GeneralName, ...],
    ends_in: int,
    ca: str | None,
    said: str,
) -> None:
    port = await hook.start(authority.server(tmp_path, names, timedelta(hours=ends_in)))
    error = await failure(connections.driver(secure(port, ca=authority.pem if ca == "" else ca)).power_state())
    assert (error.fault, said in error.message) == (FaultClass.TLS, True)
    assert hook.calls == []


async def test_tls_against_a_plain_port_is_said_to_be_that(hook: ScriptedWebhook, connections: Connections) -> None:
    error = await failure(connections.driver(secure(await hook.start())).power_state())
    assert (error.fault, "is it +http:// instead of +https://?" in error.message) == (FaultClass.TLS, True)


async def test_environment_leads_no_call_astray(
    hook: ScriptedWebhook,
    connections: Connections,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(authority.pem)
    for name, value in {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
        "NETRC": str(tmp_path / "netrc"),
        "REQUESTS_CA_BUNDLE": str(bundle),
    }.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    port = await hook.start(authority.server(tmp_path, LOCAL))
    assert await connections.driver(secure(port, ca=authority.pem)).power_state() is PowerState.OFF
    assert "Authorization" not in hook.calls[0].headers
    error = await failure(connections.driver(secure(port, ca=Authority("Rack B").pem)).power_state())
    assert error.fault is FaultClass.TLS


# Secrets


async def echo(request: web.Request) -> web.Response:
    """Repeat everything that was sent and more, as debugging code does."""
    sent = f"{await request.text()} {dict(request.headers)}"
    return web.json_response({"error": f"{KEY} {quote(KEY)} {sent}", "power": KEY}, status=500)


async def echo_nonsense(request: web.Request) -> web.Response:
    return web.Response(text=f"{dict(request.headers)} {KEY}")


async def echo_as_power(request: web.Request) -> web.Response:
    return web.json_response({"power": f"{dict(request.headers)} {KEY}"})


async def echo_elsewhere(request: web.Request) -> web.Response:
    signed = request.headers["X-Rackwright-Signature"]
    return web.Response(status=302, headers={"Location": f"https://elsewhere.example/{quote(KEY, safe='')}/{signed}"})


@pytest.mark.parametrize(
    "fault",
    [
        echo,
        echo_nonsense,
        echo_as_power,
        echo_elsewhere,
        break_off,
        answer(401, body={"error": KEY}),
        answer(501, body={"error": f"not with {KEY}"}),
        answer(503, headers={"Retry-After": quote(KEY)}),
    ],
)
@pytest.mark.parametrize("action", ["PowerState", "PowerOn", "SetBoot"])
async def test_neither_key_nor_signature_is_in_an_error_a_cause_or_a_log(
    *, hook: ScriptedWebhook, connections: Connections, log: io.StringIO, action: str, fault: Fault
) -> None:
    hook.faults[action] = fault
    driver = connections.driver(webhook(await hook.start()))
    texts = [repr(webhook(1)), repr(driver)]
    for call in (driver.set_boot(BootTarget.DISK, uefi=True), driver.power_on(), driver.close()):
        try:
            await call
        except PowerError as error:
            logging.getLogger("rackwright").exception("Failed")
            texts += [str(error), repr(error), error.message, *traceback.format_exception(error)]
            texts += [repr(one) for one in causes(error)]  # also those that a traceback leaves out
    texts.append(log.getvalue())
    assert action in {call.content["action"] for call in hook.calls}
    assert_hidden(texts, *(call.signed["v1"] for call in hook.calls))


def assert_hidden(texts: list[str], *signatures: str) -> None:
    mojibake = KEY.encode().decode("latin-1")  # as a header is read
    for one in texts:
        for secret in (KEY, repr(KEY)[1:-1], quote(KEY, safe=""), mojibake, *signatures):
            assert secret not in one


@pytest.mark.parametrize(
    "line",
    ["SSH-2.0 {key}", "HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/{key}", "HTTP/1.1 {key} 200 OK"],
)
async def test_the_key_is_hidden_where_a_line_of_the_answer_shows_it(connections: Connections, line: str) -> None:
    async with babble(f"{line.format(key=KEY)}\r\n\r\n".encode()) as port:
        error = await failure(connections.driver(webhook(port)).power_state())
    assert error.fault is FaultClass.PROTOCOL
    assert_hidden([error.message, *traceback.format_exception(error), *(repr(one) for one in causes(error))])


async def test_who_holds_the_key_is_no_secret(hook: ScriptedWebhook, connections: Connections) -> None:
    hook.faults["PowerState"] = answer(401, body={"error": f"No key is called {KEY_NAME}."})
    error = await failure(connections.driver(webhook(await hook.start())).power_state())
    assert error.message.endswith(f"No key is called {KEY_NAME}")


async def test_a_cause_without_secrets_is_kept(hook: ScriptedWebhook, connections: Connections) -> None:
    hook.faults["PowerState"] = break_off
    error = await failure(connections.driver(webhook(await hook.start())).power_state())
    assert error.__cause__ is not None
