"""Whose BMC is where: what a machine leaves behind when its address changes, and when it vanishes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from rackwright.bmcs import BMCs
from rackwright.cache import Machine
from rackwright.kube import Secret
from rackwright.power.connect import Connections
from rackwright.power.port import Endpoint, FaultClass, PowerError, PowerState
from rackwright.secrets import Name

HERE, THERE = "redfish+https://10.0.0.7/redfish/v1/Systems/1", "redfish+https://10.0.0.8/redfish/v1/Systems/1"


def machine(address: str | None = HERE, uid: str = "uid") -> Machine:
    bmc = {"address": address, "credentialsSecretRef": {"name": "bmc"}} if address else None
    accepted = bmc is not None
    return Machine.read(
        {
            "metadata": {"namespace": "rack-a", "name": "node-07", "uid": uid, "resourceVersion": "1"},
            "spec": {"bootMACAddress": "52:54:00:00:00:07", "bmc": bmc, "accepted": accepted},
        }
    )


@dataclass
class Driver:
    """A BMC's driver that says whether it was closed."""

    endpoint: Endpoint
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Callable[[], PowerState] = lambda: PowerState.OFF

    async def power_state(self) -> PowerState:
        return self.answer()

    async def close(self) -> None:
        self.closed.set()


@dataclass
class Around:
    """BMCs with scripted drivers and one Secret."""

    drivers: list[Driver] = field(default_factory=list)
    awaited: list[tuple[Name, str, str | None]] = field(default_factory=list)
    version: str = "1"

    def __post_init__(self) -> None:
        self.connections = Connections(drivers={"redfish+https": self.made})
        self.bmcs = BMCs(self.connections, self)  # type: ignore[arg-type]

    def made(self, endpoint: Endpoint, *_: object) -> Any:
        self.drivers.append(Driver(endpoint))
        return self.drivers[-1]

    async def read(self, _name: Name) -> Secret:
        return Secret(self.version, {"username": b"admin", "password": b"hunter2"})

    def awaiting(self, name: Name, uid: str, version: str | None) -> None:
        self.awaited.append((name, uid, version))


@pytest.fixture
async def around() -> Around:
    return Around()


@pytest.mark.parametrize("after", [THERE, None])
async def test_a_new_address_ends_the_session_with_the_old_one(around: Around, after: str | None) -> None:
    await around.bmcs.driver(machine(HERE))
    around.bmcs.turn_to(machine(after))
    async with asyncio.timeout(5):
        await around.drivers[0].closed.wait()
    assert not around.connections._kept, "nor is the password kept"


async def test_the_same_address_keeps_the_session(around: Around) -> None:
    kept = await around.bmcs.driver(machine(HERE))
    around.bmcs.turn_to(machine(HERE))
    assert await around.bmcs.driver(machine(HERE)) is kept


async def test_a_machine_that_is_gone_leaves_nothing_behind(around: Around) -> None:
    await around.bmcs.power(machine(HERE), fresh=timedelta())
    around.bmcs.forget(machine(None))
    async with asyncio.timeout(5):
        await around.drivers[0].closed.wait()
    assert not around.connections._kept
    assert not [name for name, kept in vars(around.bmcs).items() if isinstance(kept, dict) and kept]


async def test_rejected_credentials_await_another_version_than_the_one_that_was_tried(around: Around) -> None:
    def refused() -> PowerState:
        around.version = "2"  # somebody corrects them while the BMC still thinks about the wrong ones
        raise PowerError(FaultClass.CREDENTIALS, "The BMC refuses the credentials")

    await around.bmcs.driver(machine())
    around.drivers[0].answer = refused
    reading = await around.bmcs.power(machine(), fresh=timedelta())
    assert reading.fault is not None
    assert around.awaited == [(Name("rack-a", "bmc"), "uid", "1")]
