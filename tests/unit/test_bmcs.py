"""Whose BMC is where: what a machine leaves behind when its address changes, and when it vanishes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from rackwright.api.machine import BareMetalMachineStatus, Power, SecretRef
from rackwright.bmcs import BMCs
from rackwright.kube import Secret, Unavailable
from rackwright.lanes import RANK, Rank
from rackwright.power.address import parse
from rackwright.power.connect import Connections
from rackwright.power.port import Endpoint, FaultClass, PowerError, PowerState
from rackwright.record import Machine
from rackwright.secrets import Name

POLL = timedelta(minutes=5)
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
    asked: int = 0

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
    reads: list[bool] = field(default_factory=list)
    """Whether each had to be fresh."""
    password: bytes = b"hunter2"
    accepts: str = "hunter2"
    missing: set[str] = field(default_factory=set)
    """Secrets that are gone."""

    def __post_init__(self) -> None:
        self.connections = Connections(drivers={"redfish+https": self.made})
        self.bmcs = BMCs(self.connections, self)  # type: ignore[arg-type]

    def made(self, endpoint: Endpoint, *_: object) -> Any:
        driver = Driver(endpoint)
        driver.answer = refuses(driver, lambda: self.accepts)
        self.drivers.append(driver)
        return driver

    async def read(self, name: Name, *, fresh: bool = False) -> Secret | None:
        self.reads.append(fresh)
        if name.name in self.missing:
            return None
        return Secret(self.version, {"username": b"admin", "password": self.password})

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


async def test_machines_that_swap_their_addresses_have_a_session_each(around: Around) -> None:
    before, after = [machine(HERE, "a"), machine(THERE, "b")], [machine(THERE, "a"), machine(HERE, "b")]
    for each in before:
        await around.bmcs.driver(each)
    for each in after:
        around.bmcs.turn_to(each)
        await around.bmcs.driver(each)
    await around.connections.closed(within=5.0)
    for each in after:
        driver = await around.bmcs.driver(each)
        assert isinstance(driver, Driver)
        assert not driver.closed.is_set()
        assert each.spec.bmc is not None
        assert driver.endpoint.address == str(parse(each.spec.bmc.address))


async def test_the_same_address_keeps_the_session(around: Around) -> None:
    kept = await around.bmcs.driver(machine(HERE))
    around.bmcs.turn_to(machine(HERE))
    assert await around.bmcs.driver(machine(HERE)) is kept


async def test_a_machine_that_is_gone_leaves_nothing_behind(around: Around) -> None:
    await around.bmcs.power(machine(HERE), fresh=timedelta(), poll=POLL)
    around.bmcs.stale("uid")
    around.bmcs.forget(machine(None))
    async with asyncio.timeout(5):
        await around.drivers[0].closed.wait()
    assert not around.connections._kept
    assert not [name for name, kept in vars(around.bmcs).items() if isinstance(kept, dict | set) and kept]


async def test_rejected_credentials_await_another_version_than_the_one_that_was_tried(around: Around) -> None:
    def refused() -> PowerState:
        around.version = str(int(around.version) + 1)  # somebody corrects them while the BMC still thinks about these
        raise PowerError(FaultClass.CREDENTIALS, "The BMC refuses the credentials")

    await around.bmcs.driver(machine())
    around.drivers[0].answer = refused
    reading = await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)
    assert reading.fault is not None
    assert around.version == "3", "it was asked twice"
    assert around.awaited == [(Name("rack-a", "bmc"), "uid", "2")]


# --- what a BMC is asked with, until it rejects that ------------------------------------------------------------------


def refuses(driver: Driver, password: Callable[[], str]) -> Callable[[], PowerState]:
    """An answer to whoever has another password."""

    def answer() -> PowerState:
        assert driver.endpoint.credentials is not None
        driver.asked += 1
        if driver.endpoint.credentials.password != password():
            raise PowerError(FaultClass.CREDENTIALS, "The BMC refuses the credentials")
        return PowerState.OFF

    return answer


async def test_a_secret_is_read_once_as_long_as_its_bmc_takes_what_it_held(around: Around) -> None:
    for _ in range(5):
        assert (await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)).fault is None
    assert len(around.reads) == 2, "user name and password, which are one request"


async def test_a_password_that_was_changed_on_both_sides_is_read_anew_and_nobody_notices(around: Around) -> None:
    await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)
    around.password, around.version = b"new", "2"
    around.accepts = "new"
    assert (await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)).fault is None
    assert [driver.asked for driver in around.drivers] == [2, 1]
    assert around.awaited == []


async def test_a_bmc_that_rejects_what_its_secret_holds_now_is_not_asked_again(around: Around) -> None:
    await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)
    around.accepts = "nobody knows"
    reading = await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)
    assert reading.fault is not None
    assert reading.fault.reason == "BMCCredentialsRejected"
    assert [driver.asked for driver in around.drivers] == [2], "once more than before, for BMCs lock accounts"


async def test_a_rejected_password_is_not_tried_again_once_its_secret_was_changed(around: Around) -> None:
    around.accepts = "new"
    assert (await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)).fault is not None
    around.password, around.version = b"new", "2"
    assert (await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)).fault is None
    assert [driver.asked for driver in around.drivers] == [1, 1]
    async with asyncio.timeout(5):
        await around.drivers[0].closed.wait()


async def test_a_rejected_account_keeps_its_session_while_its_secret_stays_as_it_was(around: Around) -> None:
    around.accepts = "nobody knows"
    for _ in range(3):
        await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)
    assert [driver.asked for driver in around.drivers] == [3]


async def test_another_secret_in_spec_is_read_at_once(around: Around) -> None:
    await around.bmcs.driver(machine())
    around.reads.clear()
    other = machine()
    assert other.spec.bmc is not None
    bmc = other.spec.bmc.model_copy(update={"credentials_secret_ref": SecretRef(name="other")})
    await around.bmcs.driver(replace(other, spec=other.spec.model_copy(update={"bmc": bmc})))
    assert around.reads


async def test_a_secret_that_spec_does_not_name_any_more_is_not_read_again(around: Around) -> None:
    await around.bmcs.driver(machine())
    other = machine()
    assert other.spec.bmc is not None
    bmc = other.spec.bmc.model_copy(update={"credentials_secret_ref": SecretRef(name="other")})
    other = replace(other, spec=other.spec.model_copy(update={"bmc": bmc}))
    await around.bmcs.driver(other)
    around.accepts, around.missing = "nobody knows", {"bmc"}
    reading = await around.bmcs.power(other, fresh=timedelta(), poll=POLL)
    assert reading.fault is not None
    assert reading.fault.reason == "BMCCredentialsRejected"


async def test_a_session_whose_secret_is_gone_ends_with_its_machine(around: Around) -> None:
    await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)
    around.accepts, around.missing = "nobody knows", {"bmc"}
    reading = await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)
    assert reading.fault is not None
    assert reading.fault.reason == "SecretMissing"
    around.bmcs.forget(machine())
    assert not around.connections._kept, "nor is the password kept"


# --- BMCs that stay silent --------------------------------------------------------------------------------------------


async def test_a_bmc_that_stays_silent_is_asked_less_and_less_often_to_a_limit_and_then_as_before(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = 1000.0, []
    monkeypatch.setattr("rackwright.bmcs.time.monotonic", lambda: now)
    silent = True

    def answer() -> PowerState:
        asked.append(now)
        if silent:
            raise PowerError(FaultClass.UNREACHABLE, "The BMC does not answer in time")
        return PowerState.OFF

    await around.bmcs.driver(machine())
    around.drivers[0].answer = answer
    for _ in range(90):
        await around.bmcs.power(machine(), fresh=timedelta(minutes=5), poll=POLL)
        now += 60
    minutes = [(at - 1000) / 60 for at in asked]
    assert minutes == [0, 5, 15, 35, 55, 75]
    silent = False
    asked.clear()
    for _ in range(30):
        await around.bmcs.power(machine(), fresh=timedelta(minutes=5), poll=POLL)
        now += 60
    assert [(after - before) / 60 for before, after in pairwise(asked)] == [5, 5, 5, 5]


async def test_whoever_begins_asks_a_silent_bmc_at_once(around: Around) -> None:
    def answer() -> PowerState:
        around.drivers[0].asked += 1
        raise PowerError(FaultClass.UNREACHABLE, "The BMC does not answer in time")

    await around.bmcs.driver(machine())
    around.drivers[0].answer = answer
    for _ in range(4):
        await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)
    assert around.drivers[0].asked == 4


# --- BMCs that reject what they are asked with, or want peace ---------------------------------------------------------


@pytest.mark.parametrize("of_secret", [True, False])
async def test_a_secret_is_to_be_corrected_where_it_is_to_blame_and_awaited_wherever_it_may_help(
    around: Around, *, of_secret: bool
) -> None:
    await around.bmcs.driver(machine())
    fault = around.bmcs.explained(machine(), PowerError(FaultClass.CREDENTIALS, "It may not", of_secret=of_secret))
    remedy = " Correct the Secret bmc: it is tried again at once." if of_secret else ""
    assert fault.message == f"It may not.{remedy}"
    assert around.awaited == [(Name("rack-a", "bmc"), "uid", "1")]


class Clock:
    """By which readings age."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("rackwright.bmcs.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def answering(around: Around, error: PowerError) -> Driver:
    """The BMC's driver, which fails like this and counts how often it was asked."""

    def answer() -> PowerState:
        around.drivers[0].asked += 1
        raise error

    await around.bmcs.driver(machine())
    around.drivers[0].answer = answer
    return around.drivers[0]


AT_WORK = timedelta(seconds=5)


@pytest.mark.parametrize("fault", [FaultClass.CREDENTIALS, FaultClass.TLS])
async def test_a_bmc_that_rejects_the_account_or_is_not_trusted_is_asked_as_rarely_at_work_as_at_rest(
    around: Around, clock: Clock, fault: FaultClass
) -> None:
    """Ten failed log-ins a minute lock an account."""
    driver, asked = await answering(around, PowerError(fault, "The BMC refuses the credentials")), []
    for _ in range(450):
        before = driver.asked
        assert (await around.bmcs.power(machine(), fresh=AT_WORK, poll=POLL)).fault is not None
        asked += [(clock.now - 1000) / 60] * (driver.asked - before)
        clock.now += 10
    assert asked == [0, 5, 15, 35, 55]


async def test_a_rejected_account_is_tried_at_once_when_its_secret_changes_and_whenever_somebody_must_know(
    around: Around,
    clock: Clock,  # noqa: ARG001 (it stands still)
) -> None:
    driver = await answering(around, PowerError(FaultClass.CREDENTIALS, "The BMC refuses the credentials"))
    for _ in range(2):
        await around.bmcs.power(machine(), fresh=AT_WORK, poll=POLL)
    assert driver.asked == 1
    around.bmcs.stale("uid")
    await around.bmcs.power(machine(), fresh=AT_WORK, poll=POLL)
    assert driver.asked == 2
    await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)
    assert driver.asked == 3


async def test_a_rejected_account_is_left_alone_as_well_while_its_secret_can_not_be_read(
    around: Around, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await around.bmcs.power(machine(), fresh=timedelta(), poll=POLL)).fault is None
    around.accepts = "nobody knows"

    async def unavailable(_name: Name, *, fresh: bool = False) -> Secret | None:
        raise Unavailable(f"could not read a Secret, {fresh=}")

    monkeypatch.setattr(around, "read", unavailable)
    asked = around.drivers[0].asked
    clock.now += 10
    for _ in range(20):
        reading = await around.bmcs.power(machine(), fresh=AT_WORK, poll=POLL)
        assert reading.fault is not None
        assert reading.fault.reason == "BMCCredentialsRejected"
        clock.now += 10
    assert around.drivers[0].asked == asked + 1


@pytest.mark.parametrize(("peace", "asked"), [(60.0, 2), (None, 13), (600.0, 1)])
async def test_a_bmc_that_wants_peace_has_it_for_as_long_as_it_said(
    around: Around, clock: Clock, peace: float | None, asked: int
) -> None:
    driver = await answering(around, PowerError(FaultClass.BUSY, "The BMC is busy", retry_after=peace))
    for _ in range(13):
        await around.bmcs.power(machine(), fresh=AT_WORK, poll=POLL)
        clock.now += 5
    assert driver.asked == asked


async def test_an_idle_machine_whose_bmc_wants_peace_when_it_is_switched_has_it_for_as_long_as_it_said(
    around: Around, clock: Clock
) -> None:
    around.bmcs.failed(machine(), PowerError(FaultClass.BUSY, "The BMC is busy", retry_after=900.0))
    clock.now += 600
    assert (await around.bmcs.power(machine(), fresh=POLL, poll=POLL)).fault is not None
    clock.now += 301
    assert (await around.bmcs.power(machine(), fresh=POLL, poll=POLL)).fault is None


@pytest.mark.parametrize("idle", [True, False])
async def test_an_idle_machine_whose_bmc_refuses_is_left_alone_until_its_next_look(
    around: Around, *, idle: bool
) -> None:
    """However the BMC puts it: a record that says so anew wakes the machine, which must not have it asked again."""
    here, node = around.bmcs, machine()
    if not idle:
        at = "2026-01-01T00:00:00Z"
        operation = {"id": "op-1", "name": "Commission", "beganAt": at, "startedAt": at, "deadline": at}
        status = {**node.status.model_dump(by_alias=True, mode="json"), "operation": operation}
        node = replace(node, status=BareMetalMachineStatus.model_validate(status))
    fault = here.failed(node, PowerError(FaultClass.BUSY, "The BMC asks for 17.25 s of peace"))
    reading = await here.power(node, fresh=timedelta(seconds=300), poll=POLL)
    assert reading.power is (Power.UNKNOWN if idle else Power.OFF)
    assert reading.fault == (fault if idle else None)
    here.stale(node.uid)
    assert (await here.power(node, fresh=timedelta(seconds=300), poll=POLL)).power is Power.OFF


# --- what comes first -------------------------------------------------------------------------------------------------


def at_rest(generation: int = 1) -> Machine:
    """A machine whose first spec was taken note of."""
    node = machine()
    return replace(node, generation=generation, status=node.status.model_copy(update={"observed_generation": 1}))


@pytest.mark.parametrize(
    ("fresh", "generation", "rank"),
    [(POLL, 1, Rank.IDLE), (POLL, 2, Rank.AT_WORK), (AT_WORK, 1, Rank.AT_WORK), (timedelta(), 1, Rank.AT_WORK)],
    ids=["idle", "idle, with a new spec", "at work", "about to begin"],
)
async def test_a_look_at_an_idle_machine_can_wait_and_no_other(
    around: Around, fresh: timedelta, generation: int, rank: Rank
) -> None:
    ranks: list[Rank] = []

    def answer() -> PowerState:
        ranks.append(RANK.get())
        return PowerState.OFF

    node = at_rest(generation)
    await around.bmcs.driver(node)
    around.drivers[0].answer = answer
    await around.bmcs.power(node, fresh=fresh, poll=POLL)
    assert ranks == [rank]
    assert RANK.get() is Rank.AT_WORK, "what is done to it then cannot wait"


async def test_the_look_after_something_was_done_cannot_wait_and_the_next_one_can(around: Around, clock: Clock) -> None:
    """Whoever switched it, or corrected its Secret, wants to see what came of it."""
    ranks: list[Rank] = []

    def answer() -> PowerState:
        ranks.append(RANK.get())
        return PowerState.OFF

    await around.bmcs.driver(at_rest())
    around.drivers[0].answer = answer
    around.bmcs.stale("uid")
    for _ in range(2):
        await around.bmcs.power(at_rest(), fresh=POLL, poll=POLL)
        clock.now += 300
    assert ranks == [Rank.AT_WORK, Rank.IDLE]
