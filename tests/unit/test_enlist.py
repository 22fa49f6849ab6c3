"""Machines that introduce themselves: one record each, acknowledged once it is there; a flood leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.unit.inventory.test_inspection_report import body
from tests.unit.test_cache import item

from rackwright import enlist
from rackwright.agent.strangers import Enlisted, NotYet, TurnedAway, Welcome
from rackwright.cache import Cache
from rackwright.enlist import INVITATIONS, Enlister, EnlistmentSettings
from rackwright.kube import ClusterError, Conflict, Gone, Refused, Unavailable
from rackwright.metrics import Metrics
from rackwright.observe import KeptInventory
from rackwright.record import Key, Machine

NAMESPACE = "rack-a"
CARD, SECOND_CARD, STRANGE_CARD = "52:54:00:aa:00:01", "52:54:00:aa:00:02", "52:54:00:aa:00:99"


def report(*macs: str, serial: str = "SN0001", **more: Any) -> dict[str, Any]:
    cards = [{"name": f"eth{number}", "mac_address": mac} for number, mac in enumerate(macs or (CARD,))]
    system = {"product_name": "R1", "serial_number": serial, "manufacturer": "Contoso"}
    return body(interfaces=cards, system_vendor=system, boot={"current_boot_mode": "uefi"}, **more)


@dataclass
class Surroundings:
    """Everything that an enlister talks to, in memory; `deeds` tells in order what was written."""

    at_most: int = 50
    leads: bool = True
    deeds: list[str] = field(default_factory=list)
    troubles: list[ClusterError] = field(default_factory=list)
    """What the API server answers the next writes with."""
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: Counter[str] = field(default_factory=Counter)
    """Machines that the API server has, whether the cache knows of them or not."""
    inventories: dict[str, KeptInventory] = field(default_factory=dict)
    woken: list[str] = field(default_factory=list)
    told: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    cache: Cache = field(default_factory=Cache)

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.restart()

    def restart(self) -> None:
        """Another operator that knows what the cluster knows, and nothing else."""
        self.enlister = Enlister(
            settings=EnlistmentSettings(NAMESPACE, self.at_most),
            cluster=self,  # type: ignore[arg-type]
            cache=self.cache,
            observer=self,  # type: ignore[arg-type]
            events=self,  # type: ignore[arg-type]
            metrics=self.metrics,
            seen=self.seen,
            wake=self.woken.append,
            may_act=lambda: self.leads,
        )

    def seen(self, found: Mapping[str, Any]) -> None:
        self.cache.put(Machine.read(found))

    def declare(self, name: str, **changes: Any) -> Machine:
        """A machine that everybody knows of."""
        found = item(name, **changes)
        self.stored[name] = found
        self.seen(found)
        machine = self.cache.get(Key(NAMESPACE, name))
        assert machine is not None
        return machine

    def counted(self, outcome: str) -> float:
        value = self.metrics._registry.get_sample_value("rackwright_enlistments_total", {"outcome": outcome})
        assert value is not None
        return value

    # the cluster

    async def create(self, plural: str, namespace: str, made: Mapping[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        name = made["metadata"]["name"]
        self._trouble()
        if name in self.stored:
            raise Conflict("it exists")
        self.deeds.append(f"create {plural} {namespace}/{name}")
        found = item(name, spec=made["spec"])
        found["spec"] = dict(made["spec"])
        found["metadata"]["uid"] += "-anew" * self.made[name]
        self.made[name] += 1
        self.stored[name] = found
        return found

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        del plural, namespace
        return self.stored.get(name)

    async def apply(self, plural: str, namespace: str, name: str, made: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        self._trouble()
        (owner,) = made["metadata"]["ownerReferences"]
        assert owner["uid"] == self.stored[name]["metadata"]["uid"]
        self.deeds.append(f"apply {plural} {namespace}/{name}")

    def _trouble(self) -> None:
        if self.troubles:
            raise self.troubles.pop(0)

    # the observer and the Events

    async def inventory(self, machine: Machine) -> KeptInventory | None:
        return self.inventories.get(machine.uid)

    def kept(self, machine: Machine, inventory: KeptInventory) -> None:
        self.inventories[machine.uid] = inventory

    async def enlistment_full(self, namespace: str, at_most: int, times: int) -> None:
        assert (namespace, at_most) == (NAMESPACE, self.at_most)
        self.told.put_nowait(times)


@pytest.fixture
def here() -> Surroundings:
    return Surroundings()


# --- a record -----------------------------------------------------------------------------------------------------


async def test_a_stranger_gets_a_record_and_an_inventory_and_only_then_is_thanked(here: Surroundings) -> None:
    assert await here.enlister.introduce(report()) == Enlisted("uid-sn0001")
    assert here.deeds == ["create baremetalmachines rack-a/sn0001", "apply hardwareinventories rack-a/sn0001"]
    assert here.stored["sn0001"]["spec"]["accepted"] is False
    assert here.woken == ["uid-sn0001"]
    assert here.cache.new_machines(NAMESPACE) == here.counted("enlisted") == 1


async def test_a_repeated_report_changes_nothing(here: Surroundings) -> None:
    first = await here.enlister.introduce(report())
    deeds = list(here.deeds)
    assert await here.enlister.introduce(report()) == first
    assert here.deeds == deeds


async def test_two_reports_of_one_machine_at_once_make_one_record(here: Surroundings) -> None:
    answers = await asyncio.gather(
        here.enlister.introduce(report(CARD, SECOND_CARD)), here.enlister.introduce(report(SECOND_CARD, CARD))
    )
    assert set(answers) == {Enlisted("uid-sn0001")}
    assert list(here.stored) == ["sn0001"]


async def test_a_report_that_was_half_written_down_is_completed_by_the_next_operator(here: Surroundings) -> None:
    here.troubles = [Unavailable("could not")]
    here.declare("sn0001", mac=CARD, bmc="ipmi://10.0.0.9", spec={"accepted": False})
    assert isinstance(await here.enlister.introduce(report()), NotYet)
    here.restart()
    assert await here.enlister.introduce(report()) == Enlisted("uid-sn0001")
    assert here.deeds == ["apply hardwareinventories rack-a/sn0001"]


async def test_a_record_that_another_operator_made_a_moment_ago_is_found(here: Surroundings) -> None:
    here.stored["sn0001"] = item("sn0001", mac=CARD, bmc="ipmi://10.0.0.9", spec={"accepted": False})
    assert await here.enlister.introduce(report()) == Enlisted("uid-sn0001")
    assert here.deeds == ["apply hardwareinventories rack-a/sn0001"]


@pytest.mark.parametrize(
    "known",
    [{"mac": CARD}, {"mac": STRANGE_CARD, "hardware": {"macAddresses": [CARD]}}, {"mac": STRANGE_CARD}],
    ids=["its boot MAC address", "another card of it", "its serial number"],
)
async def test_a_machine_whose_record_cannot_be_read_is_recognised(here: Surroundings, known: dict[str, Any]) -> None:
    hardware = {"vendor": "Contoso", "model": "R1", "serial": "SN0001", **known.pop("hardware", {})}
    status = {"phase": "Newer", "hardware": hardware}
    here.cache.put(Machine.unread(item("used", bmc="ipmi://10.0.0.9", status=status, **known)))
    assert isinstance(await here.enlister.introduce(report()), TurnedAway)
    assert here.deeds == []


async def test_a_name_that_somebody_took_a_moment_ago_is_left_to_them(here: Surroundings) -> None:
    here.stored["sn0001"] = item("sn0001", mac=STRANGE_CARD)
    assert await here.enlister.introduce(report()) == Enlisted("uid-mac-525400aa0001")


@pytest.mark.parametrize("trouble", [Unavailable("no answer"), Refused("403 Forbidden"), Gone("no such namespace")])
async def test_what_cannot_be_written_is_asked_for_again(
    here: Surroundings, trouble: ClusterError, caplog: pytest.LogCaptureFixture
) -> None:
    here.troubles = [trouble]
    assert isinstance(await here.enlister.introduce(report()), NotYet)
    assert here.counted("failed") == 1
    assert ("manifests/overlays/enlistment" in caplog.text) is not isinstance(trouble, Unavailable)
    assert isinstance(await here.enlister.introduce(report()), Enlisted)


async def test_an_operator_that_does_not_lead_writes_nothing(here: Surroundings) -> None:
    here.leads = False
    assert isinstance(await here.enlister.introduce(report()), NotYet)
    assert here.deeds == []


async def test_a_report_without_a_card_is_turned_away(here: Surroundings) -> None:
    assert isinstance(await here.enlister.introduce(report("01:00:5e:00:00:01")), TurnedAway)
    assert here.deeds == []


# --- who is known -------------------------------------------------------------------------------------------------


async def test_a_declared_machine_is_recognised_and_its_other_card_goes_to_its_disk(here: Surroundings) -> None:
    here.declare("node-07", mac=CARD)
    assert here.enlister.welcome(SECOND_CARD) is Welcome.OPEN
    answer = await here.enlister.introduce(report(SECOND_CARD, CARD))
    assert answer == TurnedAway("It is rack-a/node-07, which is not being booted into the ramdisk.")
    assert here.deeds == []
    assert here.counted("recognised") == 1
    assert here.enlister.welcome(SECOND_CARD) is Welcome.SEEN


async def test_a_card_is_forgotten_with_the_machine_that_it_was_recognised_as(here: Surroundings) -> None:
    node = here.declare("node-07", mac=CARD)
    await here.enlister.introduce(report(SECOND_CARD, CARD))
    here.cache.remove(node.key, node.uid)
    assert here.enlister.welcome(SECOND_CARD) is Welcome.OPEN


async def test_a_machine_that_is_being_deleted_is_not_thanked_for(here: Surroundings) -> None:
    going = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["metal.rackwright.io/release"]}
    here.declare("sn0001", mac=CARD, spec={"accepted": False}, metadata=going)
    assert isinstance(await here.enlister.introduce(report()), TurnedAway)
    assert here.cache.new_machines() == 0


# --- a flood ------------------------------------------------------------------------------------------------------


async def test_a_flood_makes_no_more_records_than_may_wait() -> None:
    here = Surroundings(at_most=3)
    answers = await asyncio.gather(
        *(here.enlister.introduce(report(f"52:54:00:aa:01:{n:02x}", serial=f"SERIAL{n:04}")) for n in range(100))
    )
    assert sum(isinstance(answer, Enlisted) for answer in answers) == 3
    assert len(here.stored) == here.cache.new_machines(NAMESPACE) == here.counted("enlisted") == 3
    assert here.counted("full") == 97
    assert here.enlister.welcome(STRANGE_CARD) is Welcome.FULL


async def test_a_place_is_free_again_once_a_machine_is_accepted() -> None:
    here = Surroundings(at_most=1)
    await here.enlister.introduce(report())
    assert here.enlister.welcome(STRANGE_CARD) is Welcome.FULL
    here.declare("sn0001", mac=CARD, version=2)
    assert here.enlister.welcome(STRANGE_CARD) is Welcome.OPEN


async def test_new_machines_elsewhere_take_no_place_here() -> None:
    here = Surroundings(at_most=1)
    elsewhere = item("a", spec={"accepted": False}, metadata={"namespace": "rack-b"})
    here.seen(elsewhere)
    assert here.enlister.welcome(STRANGE_CARD) is Welcome.OPEN


async def test_however_many_are_turned_away_is_told_at_once_and_then_together(monkeypatch: pytest.MonkeyPatch) -> None:
    here, pause = Surroundings(at_most=1), asyncio.Event()

    async def sleep(seconds: float) -> None:
        assert seconds == enlist.TELL_SECONDS
        await pause.wait()

    monkeypatch.setattr("rackwright.enlist.asyncio.sleep", sleep)
    telling = asyncio.create_task(here.enlister.tell())
    here.enlister.turned_away()
    assert await here.told.get() == 1
    for _ in range(1000):
        here.enlister.turned_away()
    assert here.told.empty()
    pause.set()
    assert await here.told.get() == 1000
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    assert here.counted("full") == 1001


def test_a_card_is_invited_a_few_times_and_then_not_for_an_hour(
    here: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("rackwright.enlist.time.monotonic", lambda: now)
    for _ in range(INVITATIONS):
        assert here.enlister.welcome(CARD) is Welcome.OPEN
        here.enlister.invited(CARD)
    assert here.enlister.welcome(CARD) is Welcome.SEEN
    assert here.enlister.welcome(SECOND_CARD) is Welcome.OPEN
    now += enlist.INVITED_SECONDS
    assert here.enlister.welcome(CARD) is Welcome.OPEN
    here.enlister.invited(CARD)
    assert here.enlister.welcome(CARD) is Welcome.OPEN


async def test_invitations_that_led_somewhere_are_not_held_against_a_machine(here: Surroundings) -> None:
    for _ in range(3):
        here.enlister.invited(CARD)
        assert isinstance(await here.enlister.introduce(report(serial="SN0002")), Enlisted)
        machine = here.cache.get(Key(NAMESPACE, "sn0002"))
        assert machine is not None
        here.cache.remove(machine.key, machine.uid)
        del here.stored["sn0002"]
    assert here.enlister.welcome(CARD) is Welcome.OPEN


async def test_made_up_cards_cost_nothing_that_lasts(here: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enlist, "REMEMBERED", 100)
    here.declare("node-07", mac=CARD)
    for number in range(1000):
        mac = f"52:54:00:bb:{number // 256:02x}:{number % 256:02x}"
        here.enlister.welcome(mac)
        here.enlister.invited(mac)
        await here.enlister.introduce(report(CARD, mac))
    assert len(here.enlister._invitations._entries) == len(here.enlister._owners._entries) == 100
    assert here.deeds == []
