"""Whoever lost the right to act sends nothing more, whichever protocol it is in the middle of."""

from __future__ import annotations

import asyncio
import gc
import itertools
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.x509 import DNSName
from tests.unit.power.certificates import Authority
from tests.unit.power.ipmi_simulator import ACCOUNT as IPMI_ACCOUNT
from tests.unit.power.ipmi_simulator import endpoint as ipmi_endpoint
from tests.unit.power.refusing_bmc import RefusingBmc
from tests.unit.power.scripted_bmc import ACCOUNT, IMPATIENT, ScriptedBmc, endpoint
from tests.unit.power.scripted_webhook import ScriptedWebhook, webhook

from rackwright import fence
from rackwright.fence import Fenced, fenced
from rackwright.power.connect import Connections
from rackwright.power.one_bmc import Manner
from rackwright.power.port import BootTarget, Endpoint, PowerDriver, PowerError, PowerState


class Right:
    """The right to act, until it is lost; or for so many looks at it."""

    def __init__(self, looks: int | None = None) -> None:
        self.lost = False
        self.looks = looks
        self.looked = 0

    def __call__(self) -> bool:
        self.looked += 1
        return not self.lost and (self.looks is None or self.looked <= self.looks)


def test_without_a_fence_everything_may_be_sent() -> None:
    fence.check()
    assert fence.open_now()


def test_a_fence_ends_with_what_it_stands_around() -> None:
    with fenced(lambda: True), pytest.raises(Fenced), fenced(lambda: False):
        fence.check()
    fence.check()


def test_what_handles_a_bmcs_errors_does_not_take_it_for_one() -> None:
    assert not issubclass(Fenced, Exception)


@pytest.mark.parametrize(("outside", "inside"), [(True, False), (False, True), (False, False)])
def test_a_narrowed_fence_is_open_as_long_as_both_are(*, outside: bool, inside: bool) -> None:
    with fence.narrowed(lambda: True):
        fence.check()
    with fenced(lambda: outside), fence.narrowed(lambda: inside), pytest.raises(Fenced):
        fence.check()
    with fenced(lambda: True), fence.narrowed(lambda: True):
        fence.check()


async def test_a_redfish_exchange_ends_between_looking_and_switching(bmc: ScriptedBmc) -> None:
    connections, right = Connections(limits=IMPATIENT), Right()
    driver = connections.driver(endpoint(await bmc.start()))

    async def lose(_: web.Request) -> None:
        right.lost = True

    with fenced(right):
        await driver.power_state()
        bmc.fail("GET", "Systems/one", lose)
        asked = len(bmc.requests)
        with pytest.raises(Fenced):
            await driver.power_on()
        await connections.close(within=2.0)
    assert bmc.changes == []
    del driver, connections
    await asyncio.to_thread(gc.collect)  # it would ask, and wait for an answer
    assert len(bmc.sessions) == 1, "not even a session is ended, now or when its garbage is collected"
    assert bmc.requests[asked:] == ["GET /redfish/v1/Systems/one"]


async def test_a_right_that_is_lost_while_a_connection_is_made_sends_nothing_on_it(bmc: ScriptedBmc) -> None:
    connections = Connections(limits=IMPATIENT)
    there = endpoint(await bmc.start())
    with fenced(Right(looks=1)), pytest.raises(Fenced):  # the first look is before the thread begins
        await connections.driver(there).power_state()
    assert bmc.requests == []
    await connections.close(within=2.0)


async def test_a_right_that_is_lost_during_a_handshake_sends_nothing_after_it(
    bmc: ScriptedBmc, authority: Authority, tmp_path: Path
) -> None:
    right = Right()
    port = await bmc.start(authority.server(tmp_path, (DNSName("localhost"),)))
    there = Endpoint(f"redfish+https://localhost:{port}/redfish/v1/Systems/one", ACCOUNT, authority.pem)
    handshake = ssl.SSLSocket.do_handshake

    def lose(socket: ssl.SSLSocket, block: bool = False) -> None:
        handshake(socket, block)
        right.lost = True

    connections = Connections(limits=IMPATIENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLSocket, "do_handshake", lose)
        with fenced(right), pytest.raises(Fenced):
            await connections.driver(there).power_state()
    assert right.lost
    assert bmc.requests == []
    await connections.close(within=2.0)


async def test_at_no_look_is_anything_sent_that_was_not_looked_at(bmc: ScriptedBmc) -> None:
    """A switch, cut short after each number of looks: a request for each look but those that the threads begin with."""
    port = await bmc.start()
    for looks in itertools.count(1):
        connections = Connections(limits=IMPATIENT)
        bmc.requests.clear()
        right = Right(looks)
        try:
            with fenced(right):
                driver = connections.driver(endpoint(port))
                await driver.set_boot(BootTarget.NETWORK, uefi=True)
                await driver.power_on()
        except Fenced:
            assert len(bmc.requests) < right.looked
        else:
            break
        finally:
            await connections.close(within=2.0)
    assert looks > 10, "every request has its look"
    assert bmc.changes.count("Reset one On") == 1


async def test_a_webhook_is_not_called_any_more() -> None:
    hook, connections, right = ScriptedWebhook(), Connections(limits=IMPATIENT), Right()
    driver = connections.driver(webhook(await hook.start()))

    async def lose(_: web.Request) -> None:
        right.lost = True

    hook.faults["PowerState"] = lose
    with fenced(right), pytest.raises(Fenced):
        await driver.power_on()
    assert hook.actions == []
    await connections.close()
    await hook.stop()


# --- what nobody waits for any more -----------------------------------------------------------------------------------

HASTY = replace(IMPATIENT, exchange=0.2)


async def late(_: web.Request) -> None:
    """The fault of answering when the caller has given up."""
    await asyncio.sleep(0.6)


async def given_up(driver: PowerDriver, *, cancelled: bool) -> None:
    """Have it switch the machine on, and leave before it has answered."""
    switching = asyncio.ensure_future(driver.power_on())
    if cancelled:
        await asyncio.sleep(0.1)
        switching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await switching
    else:
        with pytest.raises(PowerError, match=r"did not finish its answer within 0.2 s"):
            await switching


@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_its_caller_gave_up_moves_no_power_later(bmc: ScriptedBmc, *, cancelled: bool) -> None:
    connections = Connections(limits=HASTY)
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()
    bmc.faults = [("GET", "/one", late)]
    await given_up(driver, cancelled=cancelled)
    bmc.faults = []
    asked = len(bmc.requests)
    assert await driver.power_state() is PowerState.OFF, "its turn comes when that exchange has ended"
    assert bmc.requests[asked:] == ["GET /redfish/v1/Systems/one"]
    assert bmc.changes == []
    await connections.close(within=2.0)


async def test_a_webhook_is_not_called_for_whoever_gave_up(hook: ScriptedWebhook) -> None:
    connections = Connections(limits=IMPATIENT)
    driver = connections.driver(webhook(await hook.start()))
    hook.faults["PowerState"] = late
    await given_up(driver, cancelled=True)
    hook.faults.clear()
    assert await driver.power_state() is PowerState.OFF
    assert hook.actions == []
    await connections.close(within=2.0)


async def test_a_bmc_that_hung_until_its_caller_gave_up_has_not_answered_since(bmc: ScriptedBmc) -> None:
    connections = Connections(limits=HASTY)
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()
    bmc.faults = [("GET", "/one", late)]
    await given_up(driver, cancelled=False)
    (one,) = connections._bmcs.values()
    await one.free()
    assert one.manner is Manner.HANGS
    await connections.close(within=2.0)


@pytest.mark.parametrize("packets", range(4))
async def test_an_ipmi_log_in_ends_at_any_packet(packets: int) -> None:
    connections, bmc = Connections(limits=IMPATIENT), RefusingBmc(password=IPMI_ACCOUNT.password)
    there = ipmi_endpoint(await bmc.start())
    with fenced(Right(looks=1 + packets)), pytest.raises(Fenced):
        await connections.driver(there).power_on()
    assert bmc.heard == packets
    await connections.close()
    bmc.stop()


async def test_a_session_is_left_alone_by_whoever_may_not_end_it(bmc: ScriptedBmc) -> None:
    connections = Connections(limits=IMPATIENT)
    here = endpoint(await bmc.start())
    await connections.driver(here).power_state()
    with fenced(lambda: False):
        connections.forget(here.address)
        await connections.closed(within=2.0)
    assert len(bmc.sessions) == 1


async def test_closing_waits_for_an_exchange_that_is_under_way(bmc: ScriptedBmc) -> None:
    connections, told, goes_on = Connections(limits=IMPATIENT), asyncio.Event(), asyncio.Event()
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()

    async def wait(request: web.Request) -> None:
        await request.read()  # what is sent in part may still be cut short
        told.set()
        await goes_on.wait()

    bmc.fail("POST", "ComputerSystem.Reset", wait)
    switching = asyncio.ensure_future(driver.power_on())
    await told.wait()
    switching.cancel()
    closing = asyncio.ensure_future(connections.close(within=5.0))
    await asyncio.sleep(0.3)
    assert not closing.done(), "the BMC may still do what it was told"
    goes_on.set()
    async with asyncio.timeout(2):
        assert await closing == set()
