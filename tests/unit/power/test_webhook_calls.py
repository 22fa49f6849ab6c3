"""What reaches a webhook: each action's body, signed so that somebody else's code can tell, and in which order."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.power.scripted_bmc import answer
from tests.unit.power.scripted_webhook import KEY, ScriptedWebhook, webhook

from rackwright.power.connect import Connections
from rackwright.power.port import BootTarget, Credentials, FaultClass, PowerDriver, PowerError, PowerState
from rackwright.power.webhook import signature

COMMON = {"apiVersion", "id", "time", "machine", "action"}


async def read(driver: PowerDriver) -> None:
    await driver.power_state()


async def switch_on(driver: PowerDriver) -> None:
    await driver.power_on()


async def shut_down(driver: PowerDriver) -> None:
    await driver.power_off(grace=5)


async def cut(driver: PowerDriver) -> None:
    await driver.power_off(grace=0)


async def choose_network(driver: PowerDriver) -> None:
    await driver.set_boot(BootTarget.NETWORK, uefi=True)


async def choose_disk(driver: PowerDriver) -> None:
    await driver.set_boot(BootTarget.DISK, uefi=False)


@pytest.mark.parametrize(
    ("call", "power", "action", "parameters"),
    [
        pytest.param(read, "On", "PowerState", {}, id="the power state"),
        pytest.param(switch_on, "Off", "PowerOn", {}, id="on"),
        pytest.param(shut_down, "On", "PowerOff", {}, id="off, by the operating system"),
        pytest.param(cut, "On", "ForceOff", {}, id="off at once"),
        pytest.param(
            choose_network,
            "Off",
            "SetBoot",
            {"boot": {"target": "Network", "once": True, "mode": "UEFI"}},
            id="the network once",
        ),
        pytest.param(
            choose_disk,
            "Off",
            "SetBoot",
            {"boot": {"target": "Disk", "once": False, "mode": "Legacy"}},
            id="the disk from then on",
        ),
    ],
)
async def test_an_action_is_a_post_that_says_all_there_is_to_know(
    hook: ScriptedWebhook, connections: Connections, call: Any, power: str, action: str, parameters: dict[str, Any]
) -> None:
    hook.power = power
    port = await hook.start()
    await call(connections.driver(webhook(port)))
    (made,) = [one for one in hook.calls if one.content["action"] == action]
    content = made.content
    assert (made.method, made.path) == ("POST", "/outlets/7")
    assert made.headers["Content-Type"] == "application/json"
    assert {name: value for name, value in content.items() if name not in COMMON} == parameters
    assert content["apiVersion"] == "power.rackwright.io/v1"
    assert content["machine"] == f"http://127.0.0.1:{port}/outlets/7"
    assert uuid.UUID(content["id"]).version == 4
    at = datetime.strptime(content["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - at) < timedelta(seconds=10)
    assert abs(time.time() - int(made.signed["t"])) < 10


def test_the_signature_is_the_one_that_openssl_computes() -> None:
    """printf '1767323045.{"action": "PowerOn"}' | openssl dgst -sha256 -hmac 'rack-a-key'."""  # noqa: D403
    expected = "d93ad3f538a2a744121d6d0e1310641dd82c8a3255842e0f34dab7cf17c7ca31"
    assert signature("rack-a-key", "1767323045", b'{"action": "PowerOn"}') == expected


async def test_a_signature_by_another_key_is_refused_and_that_is_a_matter_of_credentials(
    hook: ScriptedWebhook, connections: Connections
) -> None:
    hook.key = KEY + "x"
    driver = connections.driver(webhook(await hook.start()))
    for call in (driver.power_state(), driver.power_on(), driver.power_off(grace=1), choose_disk(driver)):
        with pytest.raises(
            PowerError, match=r"refuses the credentials \(HTTP 401\): The signature is wrong$"
        ) as caught:
            await call
        assert caught.value.fault is FaultClass.CREDENTIALS
    assert hook.power == "Off"


async def test_every_call_has_an_id_of_its_own_and_a_signature_of_its_own(
    hook: ScriptedWebhook, connections: Connections
) -> None:
    driver = connections.driver(webhook(await hook.start()))
    for _ in range(3):
        await driver.power_state()
    assert len({call.content["id"] for call in hook.calls}) == 3
    assert len({call.signed["v1"] for call in hook.calls}) == 3


@pytest.mark.parametrize(
    "credentials", [pytest.param(None, id="no Secret"), pytest.param(Credentials("rack-a", ""), id="an empty password")]
)
async def test_nothing_is_sent_unsigned(
    hook: ScriptedWebhook, connections: Connections, credentials: Credentials | None
) -> None:
    driver = connections.driver(webhook(await hook.start(), credentials=credentials))
    with pytest.raises(PowerError, match="cannot be signed") as caught:
        await driver.power_state()
    assert caught.value.fault is FaultClass.CREDENTIALS
    assert hook.calls == []


@pytest.mark.parametrize(
    ("written", "called"),
    [
        ("", "/"),
        ("/", "/"),
        ("/outlets/7", "/outlets/7"),
        ("/outlets/7/", "/outlets/7/"),
        ("/outlets/7%2F8", "/outlets/7%2F8"),
        ("/Stöpsel;7", "/St%C3%B6psel;7"),
    ],
)
async def test_the_path_is_called_as_it_is_written(
    hook: ScriptedWebhook, connections: Connections, written: str, called: str
) -> None:
    port = await hook.start()
    await connections.driver(webhook(port, written)).power_state()
    (call,) = hook.calls
    assert (call.path, call.content["machine"]) == (called, f"http://127.0.0.1:{port}{called}")


# Power


@pytest.mark.parametrize("state", PowerState)
async def test_the_power_state_is_what_the_webhook_says(
    hook: ScriptedWebhook, connections: Connections, state: PowerState
) -> None:
    hook.power = state.value
    assert await connections.driver(webhook(await hook.start())).power_state() is state


async def test_power_on_returns_when_the_machine_is_on(hook: ScriptedWebhook, connections: Connections) -> None:
    hook.switching_seconds = 0.1
    await connections.driver(webhook(await hook.start())).power_on()
    assert (hook.power, hook.actions) == ("On", ["PowerOn"])


@pytest.mark.parametrize(("power", "call"), [("On", switch_on), ("Off", shut_down), ("Off", cut)])
async def test_a_machine_that_is_so_already_is_left_alone(
    hook: ScriptedWebhook, connections: Connections, power: str, call: Any
) -> None:
    hook.power = power
    await call(connections.driver(webhook(await hook.start())))
    assert hook.actions == []


async def test_a_shutdown_that_works_needs_no_force(hook: ScriptedWebhook, connections: Connections) -> None:
    hook.power = "On"
    hook.switching_seconds = 0.1
    await connections.driver(webhook(await hook.start())).power_off(grace=5)
    assert hook.actions == ["PowerOff"]


async def test_a_shutdown_that_nobody_heeds_is_waited_for_and_then_the_power_is_cut(
    hook: ScriptedWebhook, connections: Connections
) -> None:
    hook.power = "On"
    hook.ignores = {"PowerOff"}
    started = asyncio.get_running_loop().time()
    await connections.driver(webhook(await hook.start())).power_off(grace=0.2)
    assert hook.actions == ["PowerOff", "ForceOff"]
    assert asyncio.get_running_loop().time() - started >= 0.2


async def test_a_device_that_cannot_press_the_button_cuts_the_power(
    hook: ScriptedWebhook, connections: Connections
) -> None:
    hook.power = "On"
    hook.lacks = {"PowerOff"}
    await connections.driver(webhook(await hook.start())).power_off(grace=5)
    assert (hook.power, hook.actions) == ("Off", ["PowerOff", "ForceOff"])


@pytest.mark.parametrize("status", [400, 404, 405, 409, 429, 500, 503])
async def test_only_a_device_that_says_that_it_lacks_the_button_has_the_power_cut(
    hook: ScriptedWebhook, connections: Connections, status: int
) -> None:
    hook.power = "On"
    hook.faults["PowerOff"] = answer(status)
    with pytest.raises(PowerError, match=f"HTTP {status}"):
        await shut_down(connections.driver(webhook(await hook.start())))
    assert (hook.power, hook.actions) == ("On", ["PowerOff"])


async def test_a_cycle_is_off_and_then_on(hook: ScriptedWebhook, connections: Connections) -> None:
    hook.power = "On"
    await connections.driver(webhook(await hook.start())).cycle(grace=0)
    assert hook.actions == ["ForceOff", "PowerOn"]


@pytest.mark.parametrize(
    ("call", "power", "said"),
    [
        (switch_on, "Off", "accepted to switch the machine on, but after 0.3 s it reports the power as Off"),
        (switch_on, "Unknown", "accepted to switch the machine on, but after 0.3 s it reports the power as Unknown"),
        (cut, "On", "accepted to cut the power, but after 0.3 s it reports the power as On"),
    ],
)
async def test_what_is_accepted_and_never_happens_is_an_error(
    hook: ScriptedWebhook, connections: Connections, call: Any, power: str, said: str
) -> None:
    hook.power = power
    hook.ignores = {"PowerOn", "ForceOff"}
    with pytest.raises(PowerError, match=said) as caught:
        await call(connections.driver(webhook(await hook.start())))
    assert caught.value.fault is FaultClass.PROTOCOL


async def test_machines_behind_one_host_are_called_one_after_the_other(
    hook: ScriptedWebhook, connections: Connections
) -> None:
    port = await hook.start()
    drivers = [connections.driver(webhook(port, f"/outlets/{number}")) for number in range(4)]
    await asyncio.gather(*(driver.power_state() for driver in drivers))
    assert len(hook.calls) == 4
    assert hook.most_at_once == 1


# What a device hasn't got


async def test_a_device_that_cannot_choose_the_boot_leaves_it_to_the_firmware(
    hook: ScriptedWebhook, connections: Connections, caplog: pytest.LogCaptureFixture
) -> None:
    hook.lacks = {"SetBoot"}
    driver = connections.driver(webhook(await hook.start()))
    with caplog.at_level(logging.INFO, "rackwright.power"):
        await driver.set_boot(BootTarget.NETWORK, uefi=True)
        await driver.set_boot(BootTarget.DISK, uefi=True)
    assert hook.actions == ["SetBoot", "SetBoot"]
    assert "the firmware's boot order decides, and must begin with the network" in caplog.text


async def test_a_webhook_has_no_firmware_settings(hook: ScriptedWebhook, connections: Connections) -> None:
    driver = connections.driver(webhook(await hook.start()))
    assert await driver.bios_attributes() == {}
    assert not await driver.set_bios_attributes({})
    with pytest.raises(PowerError, match="is a webhook: it sets no BIOS") as caught:
        await driver.set_bios_attributes({"ProcTurboMode": "Enabled"})
    assert caught.value.fault is FaultClass.UNSUPPORTED
    assert hook.calls == []
