"""What a caller of the Redfish driver is told when the BMC, the network or the certificate is at fault."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import logging
import socket
import traceback
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from tests.unit.power.certificates import ELSEWHERE, LOCAL, Authority
from tests.unit.power.scripted_bmc import (
    ACCOUNT,
    IMPATIENT,
    PASSWORD,
    ROOT,
    Fault,
    ScriptedBmc,
    answer,
    bomb,
    break_off,
    deluge,
    drip,
    endpoint,
    hang,
    refusal,
)

from rackwright.power.connect import Connections
from rackwright.power.port import BootTarget, Credentials, Endpoint, FaultClass, PowerError, PowerState
from rackwright.power.transport import tls_context

RESET = "ComputerSystem.Reset"


async def failure(call: Any) -> PowerError:
    with pytest.raises(PowerError) as caught:
        await call
    return caught.value


async def redirect(_: web.Request) -> web.Response:
    raise web.HTTPFound("https://elsewhere.example/redfish/v1/")


@pytest.mark.parametrize(
    ("fault", "sorted_as", "said"),
    [
        pytest.param(answer(401), FaultClass.CREDENTIALS, "refuses the credentials (HTTP 401)", id="401"),
        pytest.param(
            answer(403, body=refusal("No privilege.")),
            FaultClass.CREDENTIALS,
            "may not switch the machine on",
            id="403",
        ),
        pytest.param(answer(400, body=refusal("Odd.")), FaultClass.PROTOCOL, "(HTTP 400): Odd", id="400"),
        pytest.param(answer(404, body=["what?"]), FaultClass.UNSUPPORTED, "cannot switch the machine on", id="404"),
        pytest.param(answer(405), FaultClass.UNSUPPORTED, "(HTTP 405)", id="405"),
        pytest.param(answer(409), FaultClass.BUSY, "too busy to switch the machine on", id="409"),
        pytest.param(answer(500, body={"error": "x"}), FaultClass.PROTOCOL, "failed to switch", id="500"),
        pytest.param(answer(501), FaultClass.UNSUPPORTED, "(HTTP 501)", id="501"),
        pytest.param(
            answer(503, headers={"Retry-After": "30"}), FaultClass.BUSY, "asks for 30 s of peace", id="503 with a time"
        ),
        pytest.param(answer(503), FaultClass.BUSY, "too busy to switch the machine on (HTTP 503)", id="503"),
        pytest.param(break_off, FaultClass.UNREACHABLE, "broke the connection off", id="breaks off"),
        pytest.param(hang, FaultClass.UNREACHABLE, "does not answer in time", id="hangs"),
        pytest.param(redirect, FaultClass.PROTOCOL, "sends its callers to https://elsewhere.example", id="redirects"),
    ],
)
async def test_a_fault_of_an_action_is_sorted(bmc: ScriptedBmc, fault: Fault, sorted_as: FaultClass, said: str) -> None:
    connections = Connections(limits=replace(IMPATIENT, read=0.3))
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()
    bmc.fail("POST", RESET, fault)
    error = await failure(driver.power_on())
    assert error.fault is sorted_as
    assert said in error.message
    assert error.retry_after == (30 if "peace" in said else None)
    assert bmc.requests.count(f"POST {ROOT}Systems/one/Actions/{RESET}") <= 2  # a second time after a new login only
    await connections.close()


@pytest.mark.parametrize(
    ("fault", "sorted_as"),
    [
        pytest.param(answer(500), FaultClass.PROTOCOL, id="500"),
        pytest.param(answer(503), FaultClass.BUSY, id="503"),
        pytest.param(answer(200, body=["not", "Redfish"]), FaultClass.PROTOCOL, id="a list"),
        pytest.param(answer(200, body={"Id": "one", "Boot": 7}), FaultClass.PROTOCOL, id="a number for an object"),
        pytest.param(answer(200, body={}), FaultClass.PROTOCOL, id="nothing"),
        pytest.param(break_off, FaultClass.UNREACHABLE, id="breaks off"),
    ],
)
async def test_a_fault_of_a_reading_is_sorted_and_asked_once(
    bmc: ScriptedBmc, connections: Connections, fault: Fault, sorted_as: FaultClass
) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    bmc.fail("GET", "/one", fault)
    assert (await failure(driver.power_state())).fault is sorted_as
    assert bmc.requests.count(f"GET {ROOT}Systems/one") == 1


async def test_a_fault_passes_and_so_does_the_error(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    for fault in (answer(401), answer(500), answer(503), break_off, answer(200, body=[])):
        bmc.faults = [("GET", "/one", fault)]
        await failure(driver.power_state())
        bmc.faults = []
        assert await driver.power_state() is PowerState.OFF


async def test_a_bmc_that_is_not_there_is_unreachable(connections: Connections) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    error = await failure(connections.driver(endpoint(port)).power_state())
    assert (error.fault, error.message) == (
        FaultClass.UNREACHABLE,
        f"The BMC at 127.0.0.1:{port} refuses connections: nothing listens on that port",
    )


async def test_a_name_that_does_not_resolve_is_unreachable(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unresolved(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    error = await failure(connections.driver(Endpoint("redfish+https://bmc-7.example")).power_state())
    assert (error.fault, error.message) == (
        FaultClass.UNREACHABLE,
        "The BMC at bmc-7.example cannot be found: its name does not resolve",
    )


@pytest.mark.parametrize("fault", [hang, drip], ids=["hangs", "drips"])
async def test_no_call_outlasts_its_limits_and_the_bmc_is_busy_until_it_is_free(bmc: ScriptedBmc, fault: Fault) -> None:
    connections = Connections(limits=replace(IMPATIENT, read=2.0, exchange=0.2, turn=0.1))
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()
    bmc.faults = [("GET", "/one", fault)]
    clock = asyncio.get_running_loop().time
    started = clock()
    error = await failure(driver.power_state())
    assert (error.fault, clock() - started < 1) == (FaultClass.UNREACHABLE, True)
    if fault is hang:
        error = await failure(driver.power_state())  # the first exchange is still in its thread
        assert (error.fault, clock() - started < 1) == (FaultClass.BUSY, True)
        assert bmc.most_at_once == 1
    await connections.close(within=0.1)


async def test_an_answer_that_drips_without_end_is_left(bmc: ScriptedBmc) -> None:
    """Its thread ends with the exchange's time, rather than with the answer, half a minute later."""
    connections = Connections(limits=replace(IMPATIENT, exchange=0.3, turn=2.0))
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()
    bmc.fail("GET", "/one", drip)
    assert (await failure(driver.power_state())).fault is FaultClass.UNREACHABLE
    bmc.faults.clear()
    assert await driver.power_state() is PowerState.OFF  # so there was a turn again
    await connections.close(within=0.1)


@pytest.mark.parametrize("fault", [deluge, bomb])
async def test_an_answer_without_end_is_not_kept_in_memory(bmc: ScriptedBmc, fault: Fault) -> None:
    connections = Connections()
    driver = connections.driver(endpoint(await bmc.start()))
    bmc.fail("GET", "/one", fault)
    error = await failure(driver.power_state())
    assert error.fault is FaultClass.PROTOCOL
    assert error.message.endswith("gave an answer longer than 16777216 bytes")
    await connections.close()


async def test_a_caller_that_leaves_gives_its_turn_back_when_the_exchange_ends(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()
    bmc.seconds_per_answer = 0.2
    leaving = asyncio.ensure_future(driver.power_state())
    await asyncio.sleep(0.05)
    leaving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leaving
    assert await driver.power_state() is PowerState.OFF
    assert bmc.most_at_once == 1


# Certificates


def secure(port: int, **changes: Any) -> Endpoint:
    return replace(Endpoint(f"redfish+https://127.0.0.1:{port}{ROOT}Systems/one", ACCOUNT), **changes)


async def test_a_bmc_is_trusted_by_the_ca_that_is_given(
    bmc: ScriptedBmc, connections: Connections, authority: Authority, tmp_path: Path
) -> None:
    port = await bmc.start(authority.server(tmp_path, LOCAL))
    ca = f"The CA of rack A\n{authority.pem}"
    assert await connections.driver(secure(port, ca=ca)).power_state() is PowerState.OFF
    assert tls_context(ca, verify=True).cert_store_stats()["x509"] == 1  # by that one, with none of requests' own


async def test_a_bmc_is_reached_by_ipv6(
    bmc: ScriptedBmc, connections: Connections, authority: Authority, tmp_path: Path
) -> None:
    port = await bmc.start(authority.server(tmp_path, LOCAL), host="::1")
    address = f"redfish+https://[0::1]:{port}{ROOT}Systems/one"
    assert await connections.driver(Endpoint(address, ACCOUNT, authority.pem)).power_state() is PowerState.OFF


async def test_no_verification_means_none_and_no_warning(
    bmc: ScriptedBmc, connections: Connections, authority: Authority, tmp_path: Path
) -> None:
    port = await bmc.start(authority.server(tmp_path, ELSEWHERE, ends_in=-timedelta(hours=1)))
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
        pytest.param(LOCAL, 1, "März", "holds no usable certificate", id="not even ASCII"),
    ],
)
async def test_a_certificate_that_cannot_be_trusted_is_said_to_be_that(
    *,
    bmc: ScriptedBmc,
    connections: Connections,
    authority: Authority,
    tmp_path: Path,
    names: tuple[x509.GeneralName, ...],
    ends_in: int,
    ca: str | None,
    said: str,
) -> None:
    port = await bmc.start(authority.server(tmp_path, names, timedelta(hours=ends_in)))
    error = await failure(connections.driver(secure(port, ca=authority.pem if ca == "" else ca)).power_state())
    assert error.fault is FaultClass.TLS
    assert said in error.message
    assert bmc.requests == []


async def test_tls_against_a_plain_port_is_said_to_be_that(bmc: ScriptedBmc, connections: Connections) -> None:
    error = await failure(connections.driver(secure(await bmc.start())).power_state())
    assert (error.fault, "is it +http:// instead of +https://?" in error.message) == (FaultClass.TLS, True)


async def test_environment_cannot_make_a_stranger_trusted(
    bmc: ScriptedBmc,
    connections: Connections,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(authority.pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    port = await bmc.start(authority.server(tmp_path, LOCAL))
    error = await failure(connections.driver(secure(port, ca=Authority("Rack B").pem)).power_state())
    assert error.fault is FaultClass.TLS


# Accounts


@pytest.mark.parametrize("has_sessions", [True, False])
async def test_a_wrong_password_is_a_matter_of_credentials(
    bmc: ScriptedBmc, connections: Connections, has_sessions: bool
) -> None:
    bmc.has_sessions = has_sessions
    driver = connections.driver(endpoint(await bmc.start(), credentials=Credentials("admin", "guess")))
    error = await failure(driver.power_state())
    assert error.fault is FaultClass.CREDENTIALS
    assert bmc.rejected == 1, "BMCs lock accounts"


@pytest.mark.parametrize("status", [403, 405, 500])
async def test_a_bmc_that_has_no_session_for_the_account_is_asked_without_one(
    bmc: ScriptedBmc, connections: Connections, status: int
) -> None:
    bmc.fail("POST", "Sessions", answer(status))
    assert await connections.driver(endpoint(await bmc.start())).power_state() is PowerState.OFF


async def test_a_bmc_that_lets_nobody_ask_for_what_it_has_not_got_is_asked_without_a_session(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    bmc.has_sessions = False
    bmc.fail("POST", "Sessions", answer(401))
    assert await connections.driver(endpoint(await bmc.start())).power_state() is PowerState.OFF


async def test_a_bmc_without_accounts_needs_none(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start(), credentials=None))
    error = await failure(driver.power_state())
    assert error.fault is FaultClass.CREDENTIALS
    assert error.message.endswith("wants an account: name the Secret that holds it in spec.bmc.credentialsSecretRef")
    description = bmc._description("one")
    bmc.fail("GET", "/one", answer(200, body=description))
    assert await driver.power_state() is PowerState.OFF
    assert bmc.logins == 0


async def test_one_session_is_used_and_ended(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_on()
    await driver.power_state()
    assert (bmc.logins, len(bmc.sessions)) == (1, 1)
    await driver.close()
    assert bmc.sessions == {}
    await driver.close()


async def test_a_session_that_is_named_by_another_host_is_ended_here(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    bmc.foreign_locations = True
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()
    await driver.close()
    assert bmc.sessions == {}


async def test_a_driver_that_was_closed_still_finishes_and_leaves_no_session(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.close()
    await driver.power_on()
    assert bmc.systems["one"].power == "On"
    assert bmc.sessions == {}


async def test_a_session_that_the_bmc_forgot_is_replaced(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()
    bmc.sessions.clear()
    assert await driver.power_state() is PowerState.OFF
    assert bmc.logins == 2


async def test_a_bmc_that_answers_a_forgotten_session_with_an_error_gets_a_new_one(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()
    old = set(bmc.tokens)

    async def stumble(request: web.Request) -> web.StreamResponse | None:
        return await answer(500)(request) if request.headers.get("X-Auth-Token") in old else None

    bmc.fail("GET", "/one", stumble)
    assert (await failure(driver.power_state())).fault is FaultClass.PROTOCOL
    assert await driver.power_state() is PowerState.OFF


async def test_what_the_account_may_not_do_is_asked_for_once_and_leaves_no_session(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    bmc.fail("POST", RESET, answer(403, body=refusal("No privilege.")))
    for _ in range(3):
        assert (await failure(driver.power_on())).fault is FaultClass.CREDENTIALS
    assert sum(request.endswith(RESET) for request in bmc.requests) == 3
    assert len(bmc.sessions) <= 1
    await driver.close()
    assert bmc.sessions == {}


async def test_an_expired_session_is_not_renewed_to_be_ended(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()
    bmc.sessions.clear()
    await driver.close()
    assert (bmc.logins, bmc.sessions) == (1, {})


@pytest.mark.parametrize("why", ["no sessions", "no session left"])
async def test_without_a_session_each_request_carries_the_account(
    bmc: ScriptedBmc, connections: Connections, why: str
) -> None:
    bmc.has_sessions = why != "no sessions"
    bmc.session_slots = 0
    driver = connections.driver(endpoint(await bmc.start()))
    assert await driver.power_state() is PowerState.OFF


# Secrets


async def echo(request: web.Request) -> web.Response:
    """Repeat everything that was sent, as debugging firmware does."""
    sent = f"{await request.text()} {dict(request.headers)}"
    body = refusal(f"Account {PASSWORD} of {sent}", f"Base.1.0.{PASSWORD}")
    return web.json_response(body, status=500)


async def echo_nonsense(request: web.Request) -> web.Response:
    return web.Response(text=f"<html>{dict(request.headers)} {PASSWORD}", content_type="text/html")


@pytest.mark.parametrize("has_sessions", [True, False])
@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        ("GET", "/one", echo),
        ("GET", "/one", echo_nonsense),
        ("POST", RESET, echo),
        ("POST", "Sessions", echo),
        ("PATCH", "/one", echo),
        ("GET", "/v1/", echo_nonsense),
        ("GET", "/one", answer(401, body=refusal(PASSWORD))),
        ("POST", RESET, break_off),
    ],
)
async def test_the_password_is_in_no_error_no_cause_and_no_log(
    *,
    bmc: ScriptedBmc,
    connections: Connections,
    log: io.StringIO,
    has_sessions: bool,
    method: str,
    path: str,
    fault: Fault,
) -> None:
    bmc.has_sessions = has_sessions
    bmc.fail(method, path, fault)
    driver = connections.driver(endpoint(await bmc.start()))
    texts = [repr(ACCOUNT), repr(endpoint(1))]
    for call in (driver.power_on(), driver.set_boot(BootTarget.DISK, uefi=True), driver.close()):
        try:
            await call
        except PowerError as error:
            logging.getLogger("rackwright").exception("Failed")
            texts += [str(error), repr(error), error.message, *traceback.format_exception(error)]
    texts.append(log.getvalue())
    assert "rackwright.power.redfish: sushy.connector: HTTP request: GET" in log.getvalue()
    basic = base64.b64encode(f"{ACCOUNT.username}:{PASSWORD}".encode()).decode()
    for text in texts:
        for secret in (PASSWORD, repr(PASSWORD)[1:-1], basic, *bmc.tokens):
            assert secret not in text


async def test_a_cause_without_secrets_is_kept(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    bmc.fail("GET", "/one", answer(500, body=refusal("Out of memory.")))
    error = await failure(driver.power_state())
    assert "Out of memory" in str(error.__cause__)
