"""Switching a machine over Redfish: what reaches the BMC, in which order, and what is said when it lies."""

from __future__ import annotations

import asyncio
import gc

import pytest
from aiohttp import web
from tests.unit.power.scripted_bmc import Fault, ScriptedBmc, System, answer, break_off, endpoint, refusal

from rackwright.power.connect import Connections
from rackwright.power.port import FaultClass, PowerError, PowerState


@pytest.mark.parametrize(
    ("reported", "state"),
    [
        ("On", PowerState.ON),
        ("Off", PowerState.OFF),
        ("PoweringOff", PowerState.UNKNOWN),
        ("PoweringOn", PowerState.UNKNOWN),
        ("Nonsense", PowerState.UNKNOWN),
        (None, PowerState.UNKNOWN),
    ],
)
async def test_the_power_state_is_what_the_bmc_says_or_unknown(
    bmc: ScriptedBmc, connections: Connections, reported: str | None, state: PowerState
) -> None:
    bmc.systems["one"].power = reported
    driver = connections.driver(endpoint(await bmc.start()))
    assert await driver.power_state() is state


async def test_power_on_returns_when_the_machine_is_on(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_on()
    assert bmc.systems["one"].power == "On"
    assert bmc.changes == ["Reset one On"]


async def test_a_machine_that_is_on_is_left_alone(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"].power = "On"
    await connections.driver(endpoint(await bmc.start())).power_on()
    assert bmc.changes == []


async def test_a_machine_that_is_off_is_left_alone(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_off(grace=10)
    await driver.power_off(grace=0)
    assert bmc.changes == []


async def test_a_machine_on_its_way_up_is_awaited_but_not_told_again(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    bmc.systems["one"].power = "PoweringOn"
    driver = connections.driver(endpoint(await bmc.start()))
    rising = asyncio.ensure_future(driver.power_on())
    await asyncio.sleep(0.1)
    bmc.systems["one"].power = "On"
    await rising
    assert bmc.changes == []


async def test_a_bmc_without_plain_on_is_told_to_force_it(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"].resets = ("ForceOn", "ForceOff")
    await connections.driver(endpoint(await bmc.start())).power_on()
    assert bmc.changes == ["Reset one ForceOn"]


async def test_power_off_asks_first_and_needs_no_force(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"] = System(power="On", shutdown_seconds=0.1)
    await connections.driver(endpoint(await bmc.start())).power_off(grace=5)
    assert bmc.changes == ["Reset one GracefulShutdown"]


async def test_power_off_without_grace_cuts_the_power_at_once(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"].power = "On"
    await connections.driver(endpoint(await bmc.start())).power_off(grace=0)
    assert bmc.changes == ["Reset one ForceOff"]


async def test_power_off_waits_the_grace_and_then_cuts_the_power(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"] = System(power="On", ignored_resets={"GracefulShutdown"})
    started = asyncio.get_running_loop().time()
    await connections.driver(endpoint(await bmc.start())).power_off(grace=0.2)
    assert bmc.changes == ["Reset one GracefulShutdown", "Reset one ForceOff"]
    assert asyncio.get_running_loop().time() - started >= 0.2


@pytest.mark.parametrize("status", [400, 404, 409, 500])
async def test_a_refused_shutdown_does_not_save_the_machine(
    bmc: ScriptedBmc, connections: Connections, status: int
) -> None:
    bmc.systems["one"] = System(power="On", refused_resets={"GracefulShutdown": status})
    await connections.driver(endpoint(await bmc.start())).power_off(grace=5)
    assert bmc.changes == ["Reset one GracefulShutdown", "Reset one ForceOff"]


@pytest.mark.parametrize(
    ("status", "message_id", "headers"),
    [
        (503, "Base.1.8.ServiceTemporarilyUnavailable", {"Retry-After": "30"}),
        (429, "", {}),
        (409, "Base.1.8.ResourceInUse", {}),
        (409, "", {"Retry-After": "30"}),
        (400, "IDRAC.2.8.SYS518", {}),
    ],
)
async def test_a_system_that_may_be_asked_later_keeps_its_power(
    bmc: ScriptedBmc, connections: Connections, status: int, message_id: str, headers: dict[str, str]
) -> None:
    bmc.systems["one"].power = "On"
    bmc.fail("POST", "ComputerSystem.Reset", answer(status, body=refusal("Not now.", message_id), headers=headers))
    driver = connections.driver(endpoint(await bmc.start()))
    for switch in (driver.power_off, driver.cycle):
        with pytest.raises(PowerError, match="too busy to shut the machine down") as caught:
            await switch(grace=5)
        assert (caught.value.fault, caught.value.retry_after) == (FaultClass.BUSY, 30 if headers else None)
    assert bmc.systems["one"].power == "On"


async def test_a_system_that_cannot_be_asked_in_its_state_has_its_power_cut(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    bmc.systems["one"].power = "On"

    async def in_setup(request: web.Request) -> web.StreamResponse | None:
        body = refusal("No system runs.", "iLO.2.17.InvalidOperationForSystemState")
        asked = (await request.json())["ResetType"] == "GracefulShutdown"
        return web.json_response(body, status=400) if asked else None

    bmc.fail("POST", "ComputerSystem.Reset", in_setup)
    await connections.driver(endpoint(await bmc.start())).power_off(grace=5)
    assert bmc.changes == ["Reset one ForceOff"]


@pytest.mark.parametrize(
    ("power", "asked"),
    [("On", ["PushPowerButton"]), ("PoweringOn", ["ForceOff"]), (None, ["ForceOff"])],
)
async def test_the_button_is_pressed_where_there_is_no_other_word_for_a_shutdown_and_only_on_what_is_on(
    bmc: ScriptedBmc, connections: Connections, power: str | None, asked: list[str]
) -> None:
    bmc.systems["one"] = System(power=power, resets=("On", "ForceOff", "PushPowerButton"))
    await connections.driver(endpoint(await bmc.start())).power_off(grace=5)
    assert bmc.changes == [f"Reset one {kind}" for kind in asked]


async def test_a_bmc_that_cannot_shut_down_cuts_the_power(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"] = System(power="On", resets=("On", "ForceOff"))
    await connections.driver(endpoint(await bmc.start())).power_off(grace=5)
    assert bmc.changes == ["Reset one ForceOff"]


@pytest.mark.parametrize("status", [400, 409, 500])
async def test_a_machine_that_goes_off_by_itself_just_before_its_power_is_cut_is_off(
    bmc: ScriptedBmc, connections: Connections, status: int
) -> None:
    bmc.systems["one"].power = "On"

    async def off_already(_: web.Request) -> web.Response:
        bmc.systems["one"].power = "Off"
        return web.json_response(refusal("It is off.", "iLO.2.17.InvalidOperationForSystemState"), status=status)

    bmc.fail("POST", "ComputerSystem.Reset", off_already)
    await connections.driver(endpoint(await bmc.start())).power_off(grace=0)
    assert "POST /redfish/v1/Systems/one/Actions/ComputerSystem.Reset" in bmc.requests


async def test_a_cut_that_is_refused_while_the_machine_stays_on_is_an_error(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    bmc.systems["one"] = System(power="On", refused_resets={"ForceOff": 500})
    with pytest.raises(PowerError, match="failed to cut the power"):
        await connections.driver(endpoint(await bmc.start())).power_off(grace=0)


async def test_a_cycle_is_off_and_then_on(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"].power = "On"
    await connections.driver(endpoint(await bmc.start())).cycle(grace=5)
    assert bmc.changes == ["Reset one GracefulShutdown", "Reset one On"]


async def test_a_power_on_that_is_accepted_and_forgotten_is_an_error(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    bmc.systems["one"].ignored_resets = {"On"}
    driver = connections.driver(endpoint(await bmc.start()))
    with pytest.raises(PowerError, match=r"accepted to switch the machine on, but after 0.3 s .* as Off$") as caught:
        await driver.power_on()
    assert caught.value.fault is FaultClass.PROTOCOL


async def test_a_bmc_that_says_on_whatever_happens_is_an_error(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"] = System(power="On", ignored_resets={"ForceOff", "GracefulShutdown"})
    driver = connections.driver(endpoint(await bmc.start()))
    with pytest.raises(PowerError, match="accepted to cut the power") as caught:
        await driver.power_off(grace=0.1)
    assert caught.value.fault is FaultClass.PROTOCOL
    assert bmc.changes == ["Reset one GracefulShutdown", "Reset one ForceOff"]


async def test_a_bmc_without_power_control_is_unsupported(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"].resets = ("Nmi",)
    driver = connections.driver(endpoint(await bmc.start()))
    with pytest.raises(PowerError, match="offers no On or ForceOn, only Nmi") as caught:
        await driver.power_on()
    assert caught.value.fault is FaultClass.UNSUPPORTED


@pytest.mark.parametrize(
    "fault",
    [
        answer(503, body=refusal("Switching.")),
        answer(500, body=refusal("Switching.")),
        answer(400, body=refusal("iDRAC is not ready.", "IDRAC.2.8.SWC0700")),
        answer(404),
        answer(200, body={}),
        break_off,
    ],
    ids=["503", "500", "not ready", "404", "nonsense", "breaks off"],
)
async def test_a_bmc_that_is_at_a_loss_while_it_switches_is_waited_for(
    bmc: ScriptedBmc, connections: Connections, fault: Fault
) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()
    looks = 0

    async def at_a_loss_at_first(request: web.Request) -> web.StreamResponse | None:
        nonlocal looks
        looks += 1
        return await fault(request) if looks in {2, 3} else None

    bmc.fail("GET", "/one", at_a_loss_at_first)
    await driver.power_on()
    assert looks >= 4


@pytest.mark.parametrize(("status", "patient"), [(500, True), (404, True), (401, False)])
async def test_a_fault_that_outlasts_the_wait_is_raised_and_a_rejected_account_at_once(
    bmc: ScriptedBmc, connections: Connections, status: int, patient: bool
) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.power_state()

    async def once_it_is_told(request: web.Request) -> web.StreamResponse | None:
        return await answer(status)(request) if bmc.changes else None

    bmc.fail("GET", "/one", once_it_is_told)
    started = asyncio.get_running_loop().time()
    with pytest.raises(PowerError):
        await driver.power_on()
    assert (asyncio.get_running_loop().time() - started >= 0.3) is patient


@pytest.mark.parametrize("system", ["one", ""], ids=["named", "the only one"])
async def test_a_look_at_the_power_is_one_request(bmc: ScriptedBmc, connections: Connections, system: str) -> None:
    driver = connections.driver(endpoint(await bmc.start(), system))
    await driver.power_state()
    bmc.requests.clear()
    for _ in range(3):
        await driver.power_state()
    assert bmc.requests == ["GET /redfish/v1/Systems/one"] * 3


def documents(of: str) -> int:
    """How many descriptions of this manufacturer's systems there are in memory."""
    return sum(type(each) is dict and each.get("Manufacturer") == of for each in gc.get_objects())


async def test_nothing_that_a_bmc_said_of_its_system_is_kept_between_exchanges(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    """It is hundreds of kilobytes, of each machine; and it isn't left to the collector of cycles."""
    bmc.systems["one"].manufacturer = "Forgettable"
    driver = connections.driver(endpoint(await bmc.start()))
    gc.disable()
    try:
        await driver.power_state()
        await driver.bios_attributes()
        await driver.power_on()
        assert documents(of="Forgettable") == 0
    finally:
        gc.enable()
    bmc.fail("POST", "ComputerSystem.Reset", answer(500))
    with pytest.raises(PowerError):
        await driver.power_off(grace=0)
    await asyncio.to_thread(gc.collect)  # an error knows where it happened
    assert documents(of="Forgettable") == 0


async def test_the_only_system_is_found_anew_when_it_has_another_name(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    driver = connections.driver(endpoint(await bmc.start(), system=""))
    await driver.power_state()
    bmc.systems = {"two": System(power="On")}
    with pytest.raises(PowerError, match=r"has no system /redfish/v1/Systems/one: it has /redfish/v1/Systems/two"):
        await driver.power_state()
    assert await driver.power_state() is PowerState.ON


async def test_a_single_system_needs_no_name(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start(), system=""))
    await driver.power_on()
    assert bmc.changes == ["Reset one On"]


@pytest.mark.parametrize(
    ("systems", "system", "said"),
    [
        (["a", "b"], "", "has /redfish/v1/Systems/a, /redfish/v1/Systems/b: put the path of one into its address"),
        ([], "", "has no systems at all"),
        (["a", "b"], "c", "has no system /redfish/v1/Systems/c: it has /redfish/v1/Systems/a, /redfish/v1/Systems/b"),
        (list("abcdefg"), "", "/redfish/v1/Systems/e and 2 more"),
    ],
)
async def test_an_address_that_fits_no_one_system_is_answered_with_those_there_are(
    bmc: ScriptedBmc, connections: Connections, systems: list[str], system: str, said: str
) -> None:
    bmc.systems = {name: System() for name in systems}
    driver = connections.driver(endpoint(await bmc.start(), system=system))
    with pytest.raises(PowerError) as caught:
        await driver.power_state()
    assert said in caught.value.message
    assert caught.value.fault is FaultClass.UNSUPPORTED


async def test_bios_attributes_come_as_they_are(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    assert await driver.bios_attributes() == {"ProcTurboMode": "Enabled", "Cores": 8}


async def test_a_bmc_without_bios_has_no_attributes(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"].bios = None
    driver = connections.driver(endpoint(await bmc.start()))
    assert await driver.bios_attributes() == {}
    with pytest.raises(PowerError, match="no BIOS attributes that can be set") as caught:
        await driver.set_bios_attributes({"ProcTurboMode": "Disabled"})
    assert caught.value.fault is FaultClass.UNSUPPORTED


async def test_a_bios_link_that_leads_nowhere_is_no_bios(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.fail("GET", "/Bios", answer(404))
    driver = connections.driver(endpoint(await bmc.start()))
    assert await driver.bios_attributes() == {}


async def test_only_attributes_that_differ_are_set(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    assert await driver.set_bios_attributes({"ProcTurboMode": "Enabled", "Cores": 4})
    assert not await driver.set_bios_attributes({"ProcTurboMode": "Enabled"})
    assert bmc.changes == ["BIOS {'Attributes': {'Cores': 4}}"]


async def test_a_bmc_that_asks_when_is_told_at_reset(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"].apply_times = ("Immediate", "OnReset")
    driver = connections.driver(endpoint(await bmc.start()))
    await driver.set_bios_attributes({"Cores": 4})
    assert "'ApplyTime': 'OnReset'" in bmc.changes[0]
