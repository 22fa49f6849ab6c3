"""Choosing the boot device over Redfish, with the habits that BMCs have."""

from __future__ import annotations

import pytest
from tests.unit.power.scripted_bmc import ScriptedBmc, System, answer, endpoint, refusal

from rackwright.power.connect import Connections
from rackwright.power.port import BootTarget, FaultClass, PowerError

NETWORK, DISK = BootTarget.NETWORK, BootTarget.DISK


@pytest.mark.parametrize(
    ("habits", "target", "uefi", "asked"),
    [
        pytest.param(System(), NETWORK, True, ["Boot Pxe Once"], id="the network once"),
        pytest.param(System(), DISK, True, ["Boot Hdd Continuous"], id="the disk for good"),
        pytest.param(System(enabled="Once"), NETWORK, True, ["Boot Pxe"], id="what is so already is not written"),
        pytest.param(
            System(enabled="Once", manufacturer="Supermicro"),
            NETWORK,
            True,
            ["Boot Pxe Once"],
            id="except for Supermicro's",
        ),
        pytest.param(System(), NETWORK, False, ["Boot Legacy", "Boot Pxe Once"], id="the mode where it differs"),
        pytest.param(System(mode=None), NETWORK, True, ["Boot Pxe Once"], id="no mode where the BMC has none"),
        pytest.param(
            System(mode_goes_with_device=True),
            NETWORK,
            True,
            ["Boot Pxe Once", "Boot UEFI"],
            id="the mode again where the device resets it",
        ),
        pytest.param(
            System(mode="Legacy", mode_goes_with_device=True),
            NETWORK,
            True,
            ["Boot UEFI", "Boot Pxe Once", "Boot UEFI"],
            id="and also where it was chosen before",
        ),
        pytest.param(
            System(mode_is_queued=True),
            NETWORK,
            False,
            ["Boot Legacy", "Boot Pxe Once", "Boot Legacy"],
            id="the mode that is on its way, though it is refused then",
        ),
        pytest.param(
            System(refused_enabled={"Continuous"}),
            DISK,
            True,
            ["Boot Hdd Continuous", "Boot Hdd Once"],
            id="the disk once where for good is refused",
        ),
        pytest.param(
            System(refused_enabled={"Once"}),
            NETWORK,
            False,
            ["Boot Legacy", "Boot Pxe Once", "Boot Pxe Continuous"],
            id="the network for good where once is refused, by HTTP only with UEFI",
        ),
        pytest.param(System(sources=("None", "UefiHttp")), NETWORK, True, ["Boot UefiHttp Once"], id="HTTP boot"),
        pytest.param(
            System(sources=("None", "Pxe"), target="Pxe", enabled="Once"),
            DISK,
            True,
            ["Boot None Disabled"],
            id="no override where there is no disk to name",
        ),
        pytest.param(System(settings_apart=True), NETWORK, True, ["Boot Pxe Once"], id="settings that are kept apart"),
        pytest.param(
            System(settings_apart=True, enabled="Once"),
            NETWORK,
            True,
            ["Boot Pxe Once"],
            id="and differ from what is so now",
        ),
    ],
)
async def test_a_boot_device_is_chosen_by(
    *, bmc: ScriptedBmc, connections: Connections, habits: System, target: BootTarget, uefi: bool, asked: list[str]
) -> None:
    bmc.systems["one"] = habits
    await connections.driver(endpoint(await bmc.start())).set_boot(target, uefi=uefi)
    assert bmc.changes == asked


async def test_choosing_twice_is_no_different_from_choosing_once(bmc: ScriptedBmc, connections: Connections) -> None:
    driver = connections.driver(endpoint(await bmc.start()))
    for _ in range(2):
        await driver.set_boot(DISK, uefi=True)
    system = bmc.systems["one"]
    assert (system.target, system.enabled, system.mode) == ("Hdd", "Continuous", "UEFI")


async def test_a_bmc_that_forgets_the_boot_device_is_found_out(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"] = System(forgets_boot=True, target="Hdd")
    driver = connections.driver(endpoint(await bmc.start()))
    with pytest.raises(
        PowerError, match=r"accepted Pxe as the boot device, but after 0.2 s it still names Hdd$"
    ) as caught:
        await driver.set_boot(NETWORK, uefi=True)
    assert caught.value.fault is FaultClass.PROTOCOL


async def test_a_bmc_that_offers_no_network_boot_is_unsupported(bmc: ScriptedBmc, connections: Connections) -> None:
    bmc.systems["one"].sources = ("None", "Hdd")
    driver = connections.driver(endpoint(await bmc.start()))
    with pytest.raises(PowerError, match="offers no boot from network") as caught:
        await driver.set_boot(NETWORK, uefi=True)
    assert caught.value.fault is FaultClass.UNSUPPORTED


async def test_a_mode_that_the_bmc_will_not_take_is_said_to_be_that(bmc: ScriptedBmc, connections: Connections) -> None:
    body = refusal("The value Legacy is not in the list.", "Base.1.0.PropertyValueNotInList")
    bmc.fail("PATCH", "/one", answer(400, body=body))
    driver = connections.driver(endpoint(await bmc.start()))
    with pytest.raises(PowerError, match=r"cannot set the boot mode \(HTTP 400\): The value Legacy is not") as caught:
        await driver.set_boot(NETWORK, uefi=False)
    assert caught.value.message.endswith("; choose Legacy in the machine's firmware, or another spec.bootMode")
    assert caught.value.fault is FaultClass.UNSUPPORTED


async def test_a_bmc_that_wants_peace_is_not_asked_for_the_next_best_device(
    bmc: ScriptedBmc, connections: Connections
) -> None:
    bmc.fail("PATCH", "/one", answer(503, headers={"Retry-After": "7"}))
    driver = connections.driver(endpoint(await bmc.start()))
    with pytest.raises(PowerError) as caught:
        await driver.set_boot(DISK, uefi=True)
    assert (caught.value.fault, caught.value.retry_after) == (FaultClass.BUSY, 7.0)
    assert sum(request.startswith("PATCH") for request in bmc.requests) == 1
