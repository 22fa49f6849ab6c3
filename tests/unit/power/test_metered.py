"""A driver that is timed does what the driver does, and each of its calls is told of."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from rackwright.metrics.families import CALLS
from rackwright.power.connect import DRIVERS, Connections
from rackwright.power.line import Line
from rackwright.power.metered import metered
from rackwright.power.port import BootTarget, Endpoint, FaultClass, Limits, PowerDriver, PowerError

ANSWER = 0.05
"""Seconds."""
ARGUMENTS: dict[str, Any] = {"grace": 3.0, "uefi": True, "target": BootTarget.DISK, "wanted": {"a": 1}}


class Obliging:
    """Answers each call with its name and arguments."""

    def __init__(self, *_: object) -> None:
        self.trouble: BaseException | None = None
        self.closed = False

    def __getattr__(self, call: str) -> Any:
        async def answer(*arguments: object, **named: object) -> object:
            if self.trouble is not None:
                raise self.trouble
            return call, arguments, named

        return answer

    async def close(self) -> None:
        self.closed = True


class Timed:
    def __init__(self) -> None:
        self.heard: list[tuple[str, str, FaultClass | None]] = []
        self.driver = Obliging()
        drivers = metered({"redfish+https": lambda *_: self.driver}, self.hear)
        self.connections = Connections(drivers=drivers)
        self.timed = self.connections.driver(Endpoint("redfish+https://10.0.0.7/redfish/v1/Systems/1"))

    def hear(self, driver: str, call: str, seconds: float, fault: FaultClass | None) -> None:
        assert seconds >= 0
        self.heard.append((driver, call, fault))


@pytest.fixture
async def it() -> Timed:
    return Timed()


def test_every_call_that_a_driver_has_is_one_of_those_that_are_counted() -> None:
    calls = {name for name, _ in inspect.getmembers(PowerDriver, inspect.isfunction) if not name.startswith("_")}
    assert calls - {"close"} == set(CALLS)


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_is_passed_on_as_it_is_and_told_of(it: Timed, call: str) -> None:
    method = getattr(it.timed, call)
    parameters = inspect.signature(method).parameters.values()
    given = [ARGUMENTS[p.name] for p in parameters if p.kind is not p.KEYWORD_ONLY]
    named = {p.name: ARGUMENTS[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
    answer = await method(*given, **named)
    if answer is not None:
        assert answer == (call, tuple(given), named)
    assert it.heard == [("redfish", call, None)]


async def test_a_fault_is_told_of_and_goes_on_to_whoever_called(it: Timed) -> None:
    it.driver.trouble = PowerError(FaultClass.UNREACHABLE, "no answer")
    with pytest.raises(PowerError, match="no answer"):
        await it.timed.power_on()
    assert it.heard == [("redfish", "power_on", FaultClass.UNREACHABLE)]


async def test_a_call_that_was_given_up_says_nothing_about_the_bmc(it: Timed) -> None:
    it.driver.trouble = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await it.timed.power_on()
    assert not it.heard


class Queued(Obliging):
    """Answers in its turn."""

    def __init__(self, _endpoint: Endpoint, line: Line, limits: Limits) -> None:
        super().__init__()
        self.line = line
        self.limits = limits

    async def power_state(self) -> None:
        for _ in range(2):
            async with self.line.turn(self.limits):
                await asyncio.sleep(ANSWER)
        if self.line.place.endswith("0"):
            raise PowerError(FaultClass.PROTOCOL, "nonsense")


async def test_the_time_of_a_call_is_the_bmcs_and_not_that_for_which_it_waits_for_its_turns() -> None:
    heard: list[float] = []
    drivers = metered({"redfish+https": Queued}, lambda _, __, seconds, ___: heard.append(seconds))  # type: ignore[dict-item]
    connections = Connections(concurrency=1, drivers=drivers)
    calls = [connections.driver(Endpoint(f"redfish+https://bmc-{number}")).power_state() for number in range(5)]
    await asyncio.gather(*calls, return_exceptions=True)
    assert len(heard) == 5
    assert max(heard) < 4 * ANSWER, "they took ten answers, with those of the others"
    assert min(heard) >= 2 * ANSWER


async def test_a_session_is_ended_as_before(it: Timed) -> None:
    await it.timed.close()
    assert it.driver.closed
    assert not it.heard


def test_every_driver_is_timed() -> None:
    assert metered(DRIVERS, lambda *_: None).keys() == DRIVERS.keys()
