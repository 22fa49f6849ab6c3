"""The IPMI driver against a real BMC in software: what the machine was told, and what is said when it isn't done."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyghmi.ipmi.private import simplesession
from tests.unit.power.ipmi_simulator import ACCOUNT, SUITE_3, Simulator, endpoint
from tests.unit.power.refusing_bmc import RefusingBmc
from tests.unit.power.scripted_bmc import IMPATIENT

from lab.process import wait_until
from rackwright.power.connect import Connections
from rackwright.power.ipmi import _Link
from rackwright.power.port import BootTarget, Credentials, FaultClass, PowerError, PowerState

CHASSIS, SET_BOOT_OPTIONS = 0x00, 0x08


async def fault_of(driver_call: object) -> PowerError:
    with pytest.raises(PowerError) as caught:
        await driver_call  # type: ignore[misc]
    return caught.value


# --- power ---------------------------------------------------------------------------------------------------------


async def test_the_power_state_is_the_machines(simulator: Simulator, connections: Connections) -> None:
    driver = connections.driver(simulator.start())
    assert await driver.power_state() is PowerState.OFF
    simulator.power = 1
    assert await driver.power_state() is PowerState.ON


async def test_power_on_returns_when_the_machine_is_on(simulator: Simulator, connections: Connections) -> None:
    await connections.driver(simulator.start()).power_on()
    assert simulator.power == 1
    assert simulator.changes == ["power 1"]


async def test_a_machine_that_is_there_already_is_left_alone(simulator: Simulator, connections: Connections) -> None:
    driver = connections.driver(simulator.start())
    await driver.power_off(grace=5)
    await driver.power_off(grace=0)
    simulator.power = 1
    await driver.power_on()
    assert simulator.changes == []


async def test_power_off_asks_first_and_needs_no_force(simulator: Simulator, connections: Connections) -> None:
    simulator.power = 1
    await connections.driver(simulator.start()).power_off(grace=5)
    assert simulator.power == 0
    assert simulator.changes == ["shutdown"]


async def test_power_off_without_grace_cuts_the_power_at_once(simulator: Simulator, connections: Connections) -> None:
    simulator.power = 1
    await connections.driver(simulator.start()).power_off(grace=0)
    assert simulator.changes == ["power 0"]


@pytest.mark.parametrize("habit", ["refuses-shutdown", "ignores-shutdown"])
async def test_a_shutdown_that_comes_to_nothing_is_followed_by_force(
    simulator: Simulator, connections: Connections, habit: str
) -> None:
    simulator.power = 1
    simulator.habit(habit)
    await connections.driver(simulator.start()).power_off(grace=0.2)
    assert simulator.power == 0
    assert simulator.changes == ["shutdown", "power 0"]


async def test_a_cycle_is_off_and_then_on(simulator: Simulator, connections: Connections) -> None:
    simulator.power = 1
    await connections.driver(simulator.start()).cycle(grace=5)
    assert simulator.changes == ["shutdown", "power 1"]


async def test_a_power_on_that_is_accepted_and_never_happens_is_an_error(
    simulator: Simulator, connections: Connections
) -> None:
    simulator.habit("deaf")
    error = await fault_of(connections.driver(simulator.start()).power_on())
    assert error.fault is FaultClass.PROTOCOL
    assert error.message.endswith("accepted to switch the machine on, but after 0.3 s it reports the power as Off")


async def test_ipmi_has_no_bios_attributes(connections: Connections) -> None:
    driver = connections.driver(endpoint(1))
    assert await driver.bios_attributes() == {}
    assert await driver.set_bios_attributes({}) is False
    error = await fault_of(driver.set_bios_attributes({"ProcTurboMode": "Enabled"}))
    assert error.fault is FaultClass.UNSUPPORTED
    assert "cannot set BIOS attributes over IPMI" in error.message


# --- cipher suites -------------------------------------------------------------------------------------------------


async def test_a_bmc_that_refuses_cipher_suite_17_is_spoken_to_with_3(
    simulator: Simulator, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    links: list[_Link] = []

    class Noted(_Link):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            links.append(self)
            super().__init__(*arguments, **more)

    monkeypatch.setattr("rackwright.power.ipmi._Link", Noted)
    driver = connections.driver(simulator.start())
    await driver.power_on()
    assert await driver.power_state() is PowerState.ON
    begun, _ = simulator.sessions()
    assert simulator.suites() == [SUITE_3] * begun, "this simulator knows no SHA-256"
    assert len(links) == begun
    for link in links:  # what it signs with, and that it encrypts
        assert (link.currhashlib, link.currhashlen, link.confalgo) == (hashlib.sha1, 12, "aes")


# --- boot device ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "uefi", "flags_and_device"),
    [
        (BootTarget.NETWORK, True, "a0 04"),  # valid, once, UEFI
        (BootTarget.NETWORK, False, "80 04"),
        (BootTarget.DISK, True, "e0 08"),  # valid, for good, UEFI
        (BootTarget.DISK, False, "c0 08"),
    ],
)
async def test_the_boot_device_arrives_with_its_bits(
    *, simulator: Simulator, connections: Connections, target: BootTarget, uefi: bool, flags_and_device: str
) -> None:
    await connections.driver(simulator.start()).set_boot(target, uefi=uefi)
    assert simulator.received(CHASSIS, SET_BOOT_OPTIONS) == ["03 08", f"05 {flags_and_device} 00 00 00"]


# --- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "said"),
    [
        (Credentials(ACCOUNT.username, "secret-guess"), "refuses the credentials: the password is wrong"),
        (Credentials("root", ACCOUNT.password), "refuses the credentials: no such user may log in over the network"),
    ],
)
async def test_a_wrong_account_is_a_matter_of_credentials_and_shows_no_password(
    simulator: Simulator, connections: Connections, account: Credentials, said: str
) -> None:
    simulator.start()
    error = await fault_of(connections.driver(endpoint(simulator.port, account)).power_state())
    assert error.fault is FaultClass.CREDENTIALS
    assert error.message.startswith(f"The BMC at 127.0.0.1:{simulator.port} {said}")
    assert account.password not in "".join(traceback.format_exception(error))


async def test_a_corrected_password_works_at_once(simulator: Simulator, connections: Connections) -> None:
    right = simulator.start()
    wrong = replace(right, credentials=Credentials(ACCOUNT.username, "guess"))
    for _ in range(2):
        assert (await fault_of(connections.driver(wrong).power_state())).fault is FaultClass.CREDENTIALS
        assert await connections.driver(right).power_state() is PowerState.OFF


async def test_a_password_that_was_changed_at_the_bmc_counts_at_once(
    simulator: Simulator, connections: Connections
) -> None:
    before = simulator.start()
    assert await connections.driver(before).power_state() is PowerState.OFF
    simulator.stop()
    after = simulator.start(password="another")
    assert (await fault_of(connections.driver(before).power_state())).fault is FaultClass.CREDENTIALS
    assert await connections.driver(after).power_state() is PowerState.OFF


async def test_a_bmc_without_a_place_for_another_session_is_busy(
    simulator: Simulator, connections: Connections
) -> None:
    driver = connections.driver(simulator.start())
    peer = ("127.0.0.1", simulator.port)
    with ExitStack() as held:
        end = time.monotonic() + 10

        def hold_another() -> _Link:
            link = _Link(socket.AF_INET, peer, ACCOUNT, IMPATIENT, end=end, place="here")
            held.callback(link.close)
            return link

        first = hold_another()
        with pytest.raises(PowerError, match="The BMC at here has no place for another session"):
            hold_without_end(hold_another)
        assert (await fault_of(driver.power_state())).fault is FaultClass.BUSY
        first.logout()
        assert await driver.power_state() is PowerState.OFF


def hold_without_end(hold_another: Callable[[], object]) -> None:
    while True:
        hold_another()


async def test_a_bmc_that_falls_silent_in_the_middle_is_unreachable_until_it_is_back(
    simulator: Simulator, connections: Connections
) -> None:
    simulator.habit("slow")
    driver = connections.driver(simulator.start())
    asking = asyncio.ensure_future(driver.power_state())
    await asyncio.to_thread(wait_until, lambda: simulator.asked, 5, every=0.01)
    simulator.send_signal(signal.SIGSTOP)
    error = await fault_of(asking)
    assert error.fault is FaultClass.UNREACHABLE
    assert error.message == f"The BMC at 127.0.0.1:{simulator.port} does not answer in time"
    simulator.habit("slow", on=False)
    simulator.send_signal(signal.SIGCONT)
    assert await driver.power_state() is PowerState.OFF


async def test_a_bmc_that_restarts_while_a_machine_switches_is_waited_for(simulator: Simulator) -> None:
    simulator.habit("deaf")
    patient = Connections(limits=replace(IMPATIENT, settle=10))
    switching = asyncio.ensure_future(patient.driver(simulator.start()).power_on())
    await asyncio.to_thread(wait_until, lambda: simulator.changes == ["power 1"], 5, every=0.01)
    simulator.stop()
    simulator.power = 1
    simulator.start()
    await switching
    await patient.close()


# --- one BMC and the others ----------------------------------------------------------------------------------------


async def test_a_silent_bmc_does_not_hold_up_the_others(simulator: Simulator, connections: Connections) -> None:
    silent = RefusingBmc(capabilities=None)
    try:
        waiting = asyncio.ensure_future(connections.driver(endpoint(await silent.start())).power_state())
        await asyncio.to_thread(wait_until, lambda: silent.heard > 0, 5, every=0.01)
        driver = connections.driver(simulator.start())
        await driver.power_on()
        await driver.power_off(grace=1)
        assert not waiting.done()
        assert (await fault_of(waiting)).fault is FaultClass.UNREACHABLE
    finally:
        silent.stop()


async def test_many_callers_of_one_bmc_are_heard_one_after_the_other(
    simulator: Simulator, connections: Connections
) -> None:
    driver = connections.driver(simulator.start())
    states = await asyncio.gather(*(driver.power_state() for _ in range(8)))
    assert states == [PowerState.OFF] * 8
    assert await asyncio.to_thread(wait_until, lambda: simulator.sessions() == (8, 8), 5, every=0.01)


async def test_nothing_is_left_of_an_exchange_nor_of_a_driver(simulator: Simulator) -> None:
    threads, sockets = set(threading.enumerate()), open_sockets()
    connections = Connections(limits=IMPATIENT)
    driver = connections.driver(simulator.start())
    await driver.power_on()
    await driver.set_boot(BootTarget.DISK, uefi=True)
    await fault_of(connections.driver(endpoint(simulator.port, Credentials("admin", "guess"))).power_state())
    assert open_sockets() == sockets
    assert simplesession.Session.keepalive_sessions == {}
    await driver.close()
    await connections.close()
    assert await asyncio.to_thread(wait_until, partial(no_more_than, threads | {threading.current_thread()}), 5)
    begun, ended = simulator.sessions()
    assert begun > 4
    assert begun - ended == 1  # the one that was refused, and never was


def open_sockets() -> set[str]:
    """This process's."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that this loop reads from
            found.add(str(descriptor.readlink()))
    return {target for target in found if target.startswith("socket:")}


def no_more_than(threads: set[threading.Thread]) -> bool:
    """Has every other thread ended but those that wait on this one's behalf?"""
    return not [thread for thread in set(threading.enumerate()) - threads if not thread.name.startswith("asyncio")]
