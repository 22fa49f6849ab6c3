"""The BMC of a simulated machine: a driver like any other, with the turns and limits of any other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.unit.simulated.virtual import live

from rackwright.agent.tokens import Tokens
from rackwright.power.connect import DRIVERS, Connections
from rackwright.power.port import Endpoint, FaultClass, Limits, PowerDriver, PowerError, PowerState
from rackwright.simulated.machine import Network
from rackwright.simulated.simulation import Simulation

LIMITS = Limits(exchange=10.0, turn=25.0, settle=30.0)
Life = Callable[[Callable[..., PowerDriver]], Coroutine[Any, Any, None]]


def told(monkeypatch: pytest.MonkeyPatch, life: Life, *, concurrency: int = 8) -> None:
    """Run it with drivers for `(address, machine)`, on machines that nobody declared and that have blank disks."""

    async def run() -> None:
        nobody: Any = None
        simulation = Simulation(lambda _: None, Tokens(bytes(32)))
        simulation.plug_into(Network(nobody, nobody, nobody))
        connections = Connections(
            concurrency=concurrency, limits=LIMITS, drivers={**DRIVERS, "simulated": simulation.driver}
        )
        await life(lambda address, machine="one": connections.driver(Endpoint(address, machine=machine)))
        simulation.close()
        await connections.close()

    live(monkeypatch, run)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_power_takes_its_time_and_is_neither_on_nor_off_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life(driver: Callable[..., PowerDriver]) -> None:
        bmc = driver("simulated://fast?power=6s")
        assert await bmc.power_state() is PowerState.OFF
        switching = asyncio.create_task(bmc.power_on())
        await asyncio.sleep(3)
        assert await bmc.power_state() is PowerState.UNKNOWN
        await switching
        assert (await bmc.power_state(), now()) == (PowerState.ON, 6.0)
        await bmc.power_on()  # nothing happens to a machine that is on
        assert now() == 6.0
        await bmc.cycle(grace=60.0)
        assert (await bmc.power_state(), now()) == (PowerState.ON, 18.0)

    told(monkeypatch, life)


def test_power_that_takes_longer_than_a_bmc_may_is_a_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life(driver: Callable[..., PowerDriver]) -> None:
        bmc = driver("simulated://fast?power=1m")
        with pytest.raises(
            PowerError, match=r"The BMC at simulated://fast accepted .* after 30 s it reports the power as Unknown"
        ) as caught:
            await bmc.power_on()
        assert caught.value.fault is FaultClass.PROTOCOL
        await asyncio.sleep(30)
        assert await bmc.power_state() is PowerState.ON

    told(monkeypatch, life)


def test_a_bmc_that_hangs_holds_its_own_turn_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life(driver: Callable[..., PowerDriver]) -> None:
        bmc = driver("simulated://fast?hang=1")
        asked = [asyncio.create_task(bmc.power_state()) for _ in range(4)]
        assert await driver("simulated://fast", "other").power_state() is PowerState.OFF
        assert now() == 0.0
        faults = [e.fault for e in await asyncio.gather(*asked, return_exceptions=True) if isinstance(e, PowerError)]
        assert faults == [FaultClass.UNREACHABLE] * 3 + [FaultClass.BUSY]  # turns came after 0, 10 and 20 s

    told(monkeypatch, life)


def test_the_fleets_limit_holds_for_simulated_bmcs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life(driver: Callable[..., PowerDriver]) -> None:
        bmcs = [driver("simulated://fast?answer=1s", str(number)) for number in range(6)]
        await asyncio.gather(*(bmc.power_state() for bmc in bmcs))
        assert now() == 3.0

    told(monkeypatch, life, concurrency=2)


def test_faults_come_as_often_as_the_address_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life(driver: Callable[..., PowerDriver]) -> None:
        bmc = driver("simulated://fast?fail=0.2&seed=7")
        answers = [await asyncio.gather(bmc.power_state(), return_exceptions=True) for _ in range(1000)]
        failed = [answer.fault for (answer,) in answers if isinstance(answer, PowerError)]
        assert 150 < len(failed) < 250
        assert set(failed) == {FaultClass.UNREACHABLE, FaultClass.BUSY, FaultClass.PROTOCOL}

    told(monkeypatch, life)


def test_one_address_is_a_machine_for_each_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life(driver: Callable[..., PowerDriver]) -> None:
        one, other = driver("simulated://fast", "one"), driver("simulated://fast", "other")
        assert driver("simulated://fast", "one") is one
        await one.power_on()
        assert (await one.power_state(), await other.power_state()) == (PowerState.ON, PowerState.OFF)

    told(monkeypatch, life)


def test_a_machine_stays_the_same_when_its_address_asks_for_other_behaviour(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life(driver: Callable[..., PowerDriver]) -> None:
        await driver("simulated://fast").power_on()
        assert await driver("simulated://slow").power_state() is PowerState.ON
        assert now() > 0

    told(monkeypatch, life)


async def test_an_operator_that_may_not_simulate_says_what_to_do() -> None:
    connections = Connections()
    with pytest.raises(PowerError, match="start the operator with --allow-simulated") as caught:
        connections.driver(Endpoint("simulated://fast", machine="one"))
    assert caught.value.fault is FaultClass.NOT_ALLOWED
    await connections.close()
