"""One driver a machine, one exchange at a time a BMC, a bounded number in the fleet."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.unit.power.scripted_bmc import IMPATIENT, ScriptedBmc, System, endpoint, hang

from rackwright.power.connect import Connections
from rackwright.power.port import Credentials, FaultClass, PowerError, PowerState


async def test_an_endpoint_gets_the_driver_that_it_got_before(connections: Connections) -> None:
    here = endpoint(8000)
    driver = connections.driver(here)
    assert connections.driver(here) is driver
    assert (
        connections.driver(replace(here, address=here.address.replace("redfish+http", "REDFISH+HTTP") + "/")) is driver
    )
    assert connections.driver(endpoint(8001)) is not driver
    assert connections.driver(endpoint(8000, "two")) is not driver


async def test_an_unknown_scheme_is_answered_with_those_that_are_known(connections: Connections) -> None:
    with pytest.raises(
        PowerError, match=r"no driver .* telnet://, only ipmi://, manual://, redfish\+http://, .*, webhook\+https://$"
    ) as caught:
        connections.driver(replace(endpoint(1), address="telnet://10.0.0.7"))
    assert caught.value.fault is FaultClass.UNSUPPORTED


async def test_a_new_password_gets_a_new_driver_and_ends_the_old_session(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    here = endpoint(await bmc.start())
    old = connections.driver(here)
    await old.power_state()
    (session,) = bmc.sessions
    new = connections.driver(replace(here, insecure_skip_tls_verify=True))
    assert new is not old
    await new.power_state()
    await asyncio.sleep(0.1)
    assert session not in bmc.sessions
    assert len(bmc.sessions) == 1


async def test_changes_of_every_part_of_an_endpoint_count(connections: Connections) -> None:
    here = endpoint(8000)
    drivers = {
        id(connections.driver(changed))
        for changed in (
            here,
            replace(here, credentials=Credentials("admin", "new")),
            replace(here, credentials=Credentials("root", "new")),
            replace(here, credentials=None),
            replace(here, ca="PEM"),
        )
    }
    assert len(drivers) == 5


async def test_a_forgotten_machine_has_no_session(bmc: ScriptedBmc, connections: Connections) -> None:
    here = endpoint(await bmc.start())
    await connections.driver(here).power_state()
    connections.forget(here.address + "/")
    connections.forget(here.address)
    connections.forget("nonsense")
    await asyncio.sleep(0.1)
    assert bmc.sessions == {}


async def test_closing_ends_every_session(bmc: ScriptedBmc) -> None:
    bmc.systems = {"one": System(), "two": System()}
    port = await bmc.start()
    connections = Connections(limits=IMPATIENT)
    for name in bmc.systems:
        await connections.driver(endpoint(port, name)).power_state()
    assert len(bmc.sessions) == 2
    await connections.close()
    assert bmc.sessions == {}


async def test_closing_does_not_wait_for_a_bmc_that_hangs(bmc: ScriptedBmc) -> None:
    connections = Connections(limits=IMPATIENT)
    await connections.driver(endpoint(await bmc.start())).power_state()
    (session,) = bmc.sessions
    bmc.fail("DELETE", session, hang)
    clock = asyncio.get_running_loop().time
    started = clock()
    await connections.close(within=0.1)
    assert clock() - started < IMPATIENT.connect


async def test_closing_says_which_bmcs_have_not_answered_and_whoever_spares_those_asks_them_later(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    answers, leaving = ScriptedBmc(), Connections(limits=IMPATIENT)
    one, other = endpoint(await bmc.start()), endpoint(await answers.start())
    await leaving.driver(other).power_state()
    bmc.fail("GET", "/one", hang)
    hung = asyncio.ensure_future(leaving.driver(one).power_state())
    await asyncio.sleep(0.1)
    machines = [(one.address, ""), (other.address, "")]
    busy = leaving.busy(machines)
    assert await leaving.close(within=0.1) == busy == {one.address.split("/")[2]}
    hung.cancel()
    bmc.faults.clear()
    clock = asyncio.get_running_loop().time
    spared = clock()
    connections.spare(busy, 1.0)
    later = asyncio.ensure_future(connections.driver(one).power_state())
    assert await connections.driver(other).power_state() is PowerState.OFF
    assert clock() - spared < 1.0
    assert connections.busy(machines) == busy, "whoever comes next is to spare it as well"
    assert await later is PowerState.OFF
    assert clock() - spared >= 1.0
    assert connections.busy(machines) == set()
    await answers.stop()


async def test_systems_of_one_chassis_are_asked_one_after_the_other(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems = {name: System() for name in "abcd"}
    bmc.seconds_per_answer = 0.01
    port = await bmc.start()
    drivers = [connections.driver(endpoint(port, name)) for name in bmc.systems]
    await asyncio.gather(*(driver.power_on() for driver in drivers), *(driver.power_state() for driver in drivers))
    assert {system.power for system in bmc.systems.values()} == {"On"}
    assert bmc.most_at_once == 1


async def test_a_machine_that_shuts_down_slowly_does_not_hold_up_its_neighbours(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    bmc.systems = {"slow": System(power="On", shutdown_seconds=0.5), "quick": System()}
    port = await bmc.start()
    slow = asyncio.ensure_future(connections.driver(endpoint(port, "slow")).power_off(grace=5))
    await asyncio.sleep(0.05)
    await connections.driver(endpoint(port, "quick")).power_on()
    assert not slow.done()
    await slow
    assert bmc.changes == ["Reset slow GracefulShutdown", "Reset quick On"]


async def test_the_fleet_is_asked_no_more_at_once_than_is_allowed() -> None:
    now = most = 0
    fleet = [ScriptedBmc() for _ in range(6)]

    async def count(_: object) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1

    connections = Connections(concurrency=2, limits=IMPATIENT)
    try:
        drivers = []
        for one in fleet:
            one.fail("GET", "/one", count)
            drivers.append(connections.driver(endpoint(await one.start())))
        states = await asyncio.gather(*(driver.power_state() for driver in drivers))
        assert set(states) == {PowerState.OFF}
        assert most == 2
    finally:
        await connections.close()
        for one in fleet:
            await one.stop()


async def test_waiting_for_a_place_takes_nothing_from_the_time_for_the_exchange() -> None:
    fleet = [ScriptedBmc() for _ in range(4)]
    connections = Connections(concurrency=1, limits=replace(IMPATIENT, exchange=0.5))
    try:
        drivers = []
        for one in fleet:
            one.seconds_per_answer = 0.05  # three answers in an exchange
            drivers.append(connections.driver(endpoint(await one.start())))
        states = await asyncio.gather(*(driver.power_state() for driver in drivers))
        assert set(states) == {PowerState.OFF}
    finally:
        await connections.close()
        for one in fleet:
            await one.stop()


async def test_a_bmc_that_hangs_does_not_take_the_places_of_the_others(bmc: ScriptedBmc) -> None:
    connections = Connections(concurrency=2, limits=IMPATIENT)
    other = ScriptedBmc()
    try:
        bmc.systems = {name: System() for name in "abc"}
        port = await bmc.start()
        for name in bmc.systems:
            bmc.fail("GET", f"/{name}", hang)
        hung = [asyncio.ensure_future(connections.driver(endpoint(port, name)).power_state()) for name in bmc.systems]
        await asyncio.sleep(0.05)
        assert await connections.driver(endpoint(await other.start())).power_state() is PowerState.OFF
        assert not any(one.done() for one in hung)
        for one in hung:
            one.cancel()
        await asyncio.gather(*hung, return_exceptions=True)
    finally:
        await connections.close(within=0.1)
        await other.stop()
