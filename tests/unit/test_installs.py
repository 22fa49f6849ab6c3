"""Whose turn it is to install: never more than may, nobody starved, and nothing that a restart or a failure loses."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright.cache import Cache
from rackwright.installs import Capacity, Installations, Installs
from rackwright.lifecycle.world import Place
from rackwright.record import Key, Machine

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
AT = "2026-01-01T08:00:00Z"
STALLED = {"type": "Stalled", "status": "True", "reason": "SecretMissing", "lastTransitionTime": AT}
LOADING = ("PowerOff", "BootRamdisk", "WriteImage")


def stamp(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


class Fleet:
    """Machines as they are recorded, and who may install of them.

    With shards, as one operator sees it that holds some of them; a machine's rack is the number of its shard.
    """

    def __init__(self, capacity: Capacity, shards: int = 1, held: Iterable[int] = (0,)) -> None:
        self.capacity = capacity
        self.shards, self.held = shards, set(held)
        self.now = NOW
        self.begun = 0
        """How many have begun to install."""
        self.records: dict[str, dict[str, Any]] = {}
        self.restart()

    def restart(self) -> None:
        """A new operator reads the records, in whatever order."""
        self.cache = Cache(self.capacity)
        self.cache.installs = Installs(self.capacity, clock=lambda: self.now)
        if self.shards > 1:
            self.cache.installs.divide(self.shards, lambda machine: int(machine.rack), lambda: self.held)
        for name in reversed(self.records):
            self._put(name)

    def _put(self, name: str) -> set[Key]:
        return self.cache.put(Machine.read(self.records[name]))

    def record(self, name: str, *, namespace: str = "a", rack: str = "", **changes: Any) -> set[str]:
        """A machine is recorded; the names of others who are called by that."""
        number = len(self.records)
        before = self.records.get(name)
        version = int(before["metadata"]["resourceVersion"]) + 1 if before else 1
        since = before["status"]["phaseSince"] if before else stamp(number - 9000)
        operation = {
            "id": f"op-{name}",
            "name": "Deploy",
            "step": changes.pop("step", ""),
            "beganAt": changes.pop("began", since),
            "startedAt": stamp(0),
            "deadline": stamp(changes.pop("lasts", 3600)),
        }
        if "retry_in" in changes:
            operation["nextRetryAt"] = stamp(changes.pop("retry_in"))
        status = {"phase": changes.pop("phase", "Deploying"), "phaseSince": since, "operation": operation, "owner": "o"}
        status["conditions"] = changes.pop("conditions", [])
        spec = {
            "bootMACAddress": f"52:54:00:00:{number // 256:02x}:{number % 256:02x}",
            "bmc": {"address": f"redfish+https://{name}.example/redfish/v1/Systems/1"},
            "allocation": {"owner": "o"},
            "deployment": {"image": "debian-12"},
            **changes.pop("spec", {}),
        }
        metadata = {
            "namespace": namespace,
            "name": name,
            "uid": name,
            "resourceVersion": str(version),
            "labels": {"metal.rackwright.io/rack": rack} if rack else {},
            **changes,
        }
        if before is not None:
            metadata = {**before["metadata"], "resourceVersion": str(version), **changes}
            spec = {**before["spec"], "bootMACAddress": before["spec"]["bootMACAddress"], **spec.get("override", {})}
        self.records[name] = {"metadata": metadata, "spec": spec, "status": status}
        return {key.name for key in self._put(name)} - {name}

    def machine(self, name: str) -> Machine:
        return Machine.read(self.records[name])

    def asks(self, name: str) -> Place | None:
        """The machine is looked at: None if it may install now."""
        return self.cache.installs.place(self.machine(name), take=True)

    def installing(self, names: Iterable[str]) -> list[str]:
        """Who of them is let through, each recorded as having begun."""
        through = [name for name in names if self.asks(name) is None]
        for name in through:
            self.begun += 1
            self.record(name, step="BootRamdisk", lasts=3600 + self.begun)
        return through

    def called(self) -> list[str]:
        """Whose turn it is."""
        return sorted(key.name for key in self.cache.installs.called())


def names(number: int, prefix: str = "n") -> list[str]:
    return [f"{prefix}{each}" for each in range(number)]


@pytest.fixture
def fleet() -> Fleet:
    """Five machines that want to install, where two may."""
    it = Fleet(Capacity(fleet=2))
    for name in names(5):
        it.record(name)
    return it


def test_as_many_install_as_may_and_the_others_know_their_place(fleet: Fleet) -> None:
    assert [fleet.asks(name) for name in names(5)] == [None, None, Place(1, 3), Place(2, 3), Place(3, 3)]


def test_who_has_a_slot_and_who_waits_is_counted_from_the_turn_until_the_image_is_written(fleet: Fleet) -> None:
    assert fleet.cache.installs.counts() == Installations(0, 5)
    assert fleet.asks("n0") is None
    assert fleet.asks("n4") is not None
    assert fleet.cache.installs.counts() == Installations(1, 4)
    fleet.record("n0", step="BootRamdisk")
    fleet.installing(["n1"])
    assert fleet.cache.installs.counts() == Installations(2, 3)
    fleet.restart()
    assert fleet.cache.installs.counts() == Installations(2, 3)
    fleet.record("n0", step="BootDisk")
    assert fleet.cache.installs.counts() == Installations(1, 3)


def test_those_who_were_recorded_first_come_first_whoever_asks_first(fleet: Fleet) -> None:
    assert fleet.asks("n4") == Place(5, 5)
    assert fleet.asks("n2") == Place(3, 5)
    assert fleet.asks("n1") is None
    assert fleet.asks("n0") is None


def test_no_limit_is_no_queue() -> None:
    fleet = Fleet(Capacity())
    for name in names(3):
        fleet.record(name)
    assert fleet.installing(names(3)) == names(3)


def test_who_was_let_through_stays_so_until_it_is_recorded(fleet: Fleet) -> None:
    assert [fleet.asks("n0"), fleet.asks("n0"), fleet.asks("n1"), fleet.asks("n0")] == [None] * 4
    assert fleet.asks("n2") is not None


@pytest.mark.parametrize("step", LOADING)
def test_a_slot_lasts_until_the_image_is_written(fleet: Fleet, step: str) -> None:
    fleet.installing(["n0", "n1"])
    assert fleet.record("n0", step=step) == set()
    assert fleet.asks("n2") is not None
    assert fleet.record("n0", step="BootDisk") == {"n2"}
    assert fleet.asks("n2") is None


@pytest.mark.parametrize(
    "ending",
    [
        {"phase": "Deployed"},
        {"phase": "Failed"},
        {"phase": "Broken"},
        {"phase": "Releasing"},
        {"step": "", "retry_in": 600},
        {"step": "", "conditions": [STALLED]},
    ],
)
def test_a_slot_comes_back_whatever_becomes_of_the_attempt(fleet: Fleet, ending: dict[str, Any]) -> None:
    fleet.installing(["n0", "n1"])
    assert fleet.record("n0", **ending) == {"n2"}
    assert fleet.asks("n2") is None
    assert fleet.asks("n3") is not None


def test_a_slot_comes_back_when_the_machine_vanishes(fleet: Fleet) -> None:
    fleet.installing(["n0", "n1"])
    assert {key.name for key in fleet.cache.remove(Key("a", "n1"), "n1")} == {"n2"}
    assert fleet.asks("n2") is None


def test_one_that_was_let_through_and_vanishes_gives_its_turn_back(fleet: Fleet) -> None:
    assert fleet.asks("n0") is None
    fleet.cache.remove(Key("a", "n0"), "n0")
    assert [fleet.asks(name) for name in ("n1", "n2")] == [None, None]


def test_a_slot_that_nobody_gives_back_ends_with_its_deadline(fleet: Fleet) -> None:
    fleet.installing(["n0", "n1"])
    fleet.record("n0", step="WriteImage", lasts=60, spec={"override": {"locked": True}})
    assert fleet.asks("n2") is not None
    fleet.now += timedelta(seconds=61)
    assert fleet.asks("n2") is None


def test_a_restart_loses_neither_slots_nor_order(fleet: Fleet) -> None:
    fleet.installing(["n0", "n1"])
    fleet.restart()
    assert [fleet.asks(name) for name in ("n4", "n3", "n2")] == [Place(3, 3), Place(2, 3), Place(1, 3)]
    fleet.record("n1", step="BootDisk")
    assert fleet.asks("n4") is not None
    assert fleet.asks("n2") is None


def test_one_that_is_to_be_tried_again_comes_before_those_that_came_later_however_late_its_work_began(
    fleet: Fleet,
) -> None:
    fleet.installing(["n0", "n1"])
    fleet.record("n0", step="", began=stamp(0))
    assert fleet.asks("n2") == Place(2, 4)
    assert fleet.asks("n0") is None


def test_nobody_waits_behind_one_that_is_held_up_by_something_else(fleet: Fleet) -> None:
    fleet.record("n0", spec={"override": {"locked": True}})
    fleet.record("n1", conditions=[STALLED])
    fleet.record("n2", retry_in=600)
    assert fleet.installing(names(5)[3:]) == ["n3", "n4"]


def test_one_that_is_held_up_and_looked_at_again_stands_in_nobodys_way(fleet: Fleet) -> None:
    """The write that says so wakes it: it is looked at before the others."""
    fleet.record("n0", conditions=[STALLED])
    assert fleet.cache.installs.place(fleet.machine("n0"), take=False) is None
    assert fleet.installing(names(5)[1:]) == ["n1", "n2"]
    fleet.record("n1", step="BootDisk")
    fleet.record("n0")  # mended: it is the first again
    assert fleet.asks("n0") is None


def test_one_that_is_let_through_and_locked_before_it_is_recorded_gives_its_turn_back(fleet: Fleet) -> None:
    assert fleet.asks("n0") is None
    fleet.record("n0", spec={"override": {"locked": True}})
    assert [fleet.asks(name) for name in ("n1", "n2")] == [None, None]


def test_a_turn_with_which_nothing_was_begun_is_not_lost() -> None:
    """Somebody else's write came first: the record is read again, and says what it said before."""
    fleet = Fleet(Capacity(fleet=1))
    for name in ("a1", "b1", "a2", "b2"):
        fleet.record(name, namespace=name[0])
    assert fleet.asks("a1") is None
    assert fleet.record("a1") == set()
    assert fleet.called() == ["a1"]


def test_an_operation_that_is_not_recorded_yet_is_let_through_only_where_there_is_room(fleet: Fleet) -> None:
    fleet.record("new", phase="Allocated")
    assert fleet.asks("new") == Place(6, 6)
    fleet.installing(["n0"])
    for name in names(5)[1:]:
        fleet.record(name, phase="Failed")
    assert fleet.asks("new") is None
    fleet.record("late")
    assert fleet.asks("late") == Place(1, 1)


def test_one_that_was_let_through_and_never_recorded_holds_nothing_for_long(fleet: Fleet) -> None:
    for name in names(5)[1:]:
        fleet.record(name, phase="Failed")
    fleet.installing(["n0"])
    fleet.record("new", phase="Allocated")
    assert fleet.asks("new") is None
    fleet.record("late")
    assert fleet.asks("late") is not None
    fleet.now += timedelta(seconds=31)
    assert fleet.asks("late") is None


def test_a_rack_has_a_limit_of_its_own_and_holds_up_no_other() -> None:
    fleet = Fleet(Capacity(fleet=10, rack=1))
    for name in ("r1", "r2"):
        fleet.record(name, rack="r")
    fleet.record("s1", rack="s")
    for name in ("u1", "u2"):
        fleet.record(name)
    assert fleet.installing(["r2", "r1", "s1", "u1", "u2"]) == ["r1", "s1", "u1"]
    assert fleet.record("r1", step="BootDisk") == {"r2"}


def test_one_machine_of_one_tenant_is_not_behind_five_thousand_of_another() -> None:
    fleet = Fleet(Capacity(fleet=3))
    crowd = names(5000, "crowd")
    for name in crowd:
        fleet.record(name, namespace="many")
    fleet.installing(crowd[:3])
    fleet.record("only", namespace="few")
    begun = time.process_time()
    assert fleet.asks("only") == Place(1, 4998)
    assert fleet.asks(crowd[3]) == Place(2, 4998)
    assert fleet.record(crowd[0], step="BootDisk") == {"only"}
    assert fleet.asks(crowd[3]) is not None
    assert fleet.asks("only") is None
    assert time.process_time() - begun < 1.0


@pytest.mark.parametrize("further", [0, 3])
@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("of", ["fleet", "rack"])
def test_one_machine_waits_a_turn_of_each_other_tenant_at_the_most_however_many_and_old_theirs_are(
    of: str, slots: int, further: int
) -> None:
    fleet = Fleet(Capacity(**{of: slots}))
    tenants = [f"tenant-{number}" for number in range(slots + further)]
    for number in range(300):
        for tenant in tenants:
            fleet.record(f"{tenant}-{number}", namespace=tenant)
    under_way = fleet.installing(fleet.called())
    assert len(under_way) == slots
    fleet.record("only", namespace="newcomer")
    place = fleet.asks("only")
    ended = 0
    while "only" not in under_way:
        ended += 1
        fleet.record(under_way[0], step="BootDisk")
        under_way = under_way[1:] + fleet.installing(fleet.called())
    waiting = 300 * len(tenants) - slots + 1
    assert (ended, place) == (further + 1, Place(further + 1, waiting)), "they had no slot as well, and before it"


def test_after_a_restart_the_oldest_come_first_and_turns_go_round_again() -> None:
    fleet = Fleet(Capacity(fleet=1))
    for number in range(3):
        fleet.record(f"old-{number}", namespace="old")
    for number in range(3):
        fleet.record(f"new-{number}", namespace="new")
    order = fleet.installing(fleet.called())
    for _ in range(4):
        fleet.restart()
        fleet.record(order[-1], step="BootDisk")
        order += fleet.installing(fleet.called())
    assert order == ["old-0", "new-0", "old-1", "new-1", "old-2"]


@given(st.data())
def test_a_place_that_is_told_is_the_one_at_which_it_is_called_if_nothing_else_happens(data: st.DataObject) -> None:
    fleet = Fleet(Capacity(*data.draw(st.sampled_from([(1, None), (2, None), (3, 1), (3, 2), (None, 1), (None, 2)]))))
    waiting = set(names(data.draw(st.integers(1, 10))))
    for name in sorted(waiting):
        fleet.record(name, namespace=data.draw(st.sampled_from("abc")), rack=data.draw(st.sampled_from(["", "r"])))
    under_way: list[str] = []

    def go_on() -> list[str]:
        called = fleet.installing(fleet.called())
        under_way.extend(called)
        waiting.difference_update(called)
        return called

    for _ in range(data.draw(st.integers(0, 4))):
        go_on()
        if under_way:
            fleet.record(under_way.pop(data.draw(st.integers(0, len(under_way) - 1))), step="BootDisk")
    if data.draw(st.booleans()):
        fleet.restart()
    go_on()
    told = {name: fleet.asks(name) for name in sorted(waiting)}
    order: list[str] = []
    while waiting:
        fleet.record(under_way.pop(0), step="BootDisk")
        order += go_on()
    assert told == {name: Place(number, len(order)) for number, name in enumerate(order, start=1)}


def test_to_ask_where_five_thousand_wait_costs_next_to_nothing() -> None:
    fleet = Fleet(Capacity(fleet=0, rack=20))
    crowd = names(5000, "crowd")
    for number, name in enumerate(crowd):
        fleet.record(name, namespace=f"tenant-{number % 40}", rack=f"rack-{number % 100}")
    machines = [fleet.machine(name) for name in crowd]
    begun = time.process_time()
    for machine in machines:
        fleet.cache.installs.place(machine, take=True)
    assert (time.process_time() - begun) / len(machines) < 0.001


def test_a_place_far_back_is_told_again_when_a_fifth_of_the_way_is_done_and_the_last_ten_always() -> None:
    fleet = Fleet(Capacity(fleet=1))
    line = names(101)
    for name in line:
        fleet.record(name)
    told: list[Place] = []
    for name in line[:-1]:
        assert fleet.asks(name) is None
        fleet.record(name, step="BootDisk")
        place = fleet.asks(line[-1]) if name != line[-2] else None
        if place is not None and (not told or told[-1] != place):
            told.append(place)
    numbers = [place.number for place in told]
    assert numbers[-9:] == [10, 9, 8, 7, 6, 5, 4, 3, 2]
    assert len(numbers) < 25


@given(st.data())
def test_whatever_happens_no_more_install_than_may_and_everybody_does_in_the_end(data: st.DataObject) -> None:
    limits = st.none() | st.integers(1, 3)
    fleet = Fleet(Capacity(fleet=data.draw(limits), rack=data.draw(limits)))
    waiting: set[str] = set()
    installing: set[str] = set()
    for name in names(data.draw(st.integers(1, 9))):
        fleet.record(name, namespace=data.draw(st.sampled_from("ab")), rack=data.draw(st.sampled_from(["", "r", "s"])))
        waiting.add(name)

    def look(name: str) -> None:
        if fleet.asks(name) is None:
            fleet.record(name, step=data.draw(st.sampled_from(LOADING)))
            waiting.discard(name)
            installing.add(name)
        slots = [fleet.machine(each) for each in installing]
        assert fleet.capacity.fleet is None or len(slots) <= fleet.capacity.fleet
        for rack in {each.rack for each in slots}:
            assert fleet.capacity.rack is None or sum(each.rack == rack for each in slots) <= fleet.capacity.rack

    for _ in range(data.draw(st.integers(0, 20))):
        event = data.draw(st.sampled_from(["look", "write", "end", "fail", "restart"]))
        if event == "restart":
            fleet.restart()
        elif event == "look" and waiting:
            look(data.draw(st.sampled_from(sorted(waiting))))
        elif event == "write" and waiting:
            fleet.record(data.draw(st.sampled_from(sorted(waiting))))
        elif event in ("end", "fail") and installing:
            name = data.draw(st.sampled_from(sorted(installing)))
            installing.discard(name)
            fleet.record(name, **({"phase": "Deployed"} if event == "end" else {"step": ""}))
            waiting |= {name} if event == "fail" else set()

    for _ in range(len(fleet.records)):  # from here on everything goes well, and only who is called is looked at
        for name in sorted(waiting):
            look(name)
        called: set[str] = set()
        for name in sorted(installing):
            called |= fleet.record(name, step="BootDisk")
        installing.clear()
        assert not waiting or called & waiting
        for name in sorted(called & waiting):
            look(name)
    assert not waiting


# --- several operators ------------------------------------------------------------------------------------------------


def shared(capacity: Capacity, *shares: Iterable[int], each: int = 9) -> list[Fleet]:
    """As each of the operators that share a fleet sees it; in each shard so many machines want to install."""
    operators = [Fleet(capacity, 8, held) for held in shares]
    for number in range(8 * each):
        for it in operators:
            it.record(f"n{number}", rack=str(number % 8))
    return operators


def begun(fleet: Fleet) -> list[str]:
    """Whoever is called and is this operator's begins."""
    return fleet.installing(fleet.called())


@pytest.mark.parametrize(
    ("most", "parts"),
    [(100, [37, 37, 25]), (8, [3, 3, 2]), (5, [1, 1, 1]), (3, [1, 1, 1]), (1, [1, 1, 1])],
)
def test_operators_that_do_not_hear_of_each_other_begin_no_more_than_may_or_one_each(
    most: int, parts: list[int]
) -> None:
    operators = shared(Capacity(fleet=most), range(3), range(3, 6), range(6, 8), each=15)
    begins = [begun(it) for it in operators]
    assert [len(names) for names in begins] == parts
    assert len(set().union(*begins)) == sum(parts)


def test_an_operator_that_holds_every_shard_has_every_slot() -> None:
    (alone,) = shared(Capacity(fleet=20), range(8))
    assert len(begun(alone)) == 20


def test_turns_are_given_and_places_told_among_the_machines_of_its_own_shards() -> None:
    (it,) = shared(Capacity(fleet=8), range(1, 3), each=2)
    assert begun(it) == ["n1", "n2"]
    assert [it.asks("n9"), it.asks("n10")] == [Place(1, 2), Place(2, 2)]
    assert it.asks("n0") is not None, "somebody else's"
    assert it.cache.installs.counts() == Installations(2, 14), "of the whole fleet"


def test_a_shard_that_comes_brings_its_slots_and_its_part_of_all() -> None:
    first, second = shared(Capacity(fleet=8), range(4), range(4, 8))
    for name in begun(second):
        first.record(name, step="BootRamdisk")
    assert len(begun(first)) == 4
    assert first.called() == []
    first.held |= {4, 5}  # two machines of them install
    assert first.called() == []
    for name in ("n4", "n5"):
        first.record(name, step="BootDisk")
    assert len(begun(first)) == 2
    first.held |= {6, 7}
    for name in ("n6", "n7"):
        first.record(name, step="BootDisk")
    assert len(first.called()) == 2


def test_a_shard_that_goes_takes_its_slots_along() -> None:
    (it,) = shared(Capacity(fleet=8), range(8))
    assert begun(it) == names(8)
    it.held = {0, 1}
    assert it.record("n7", step="BootDisk") == set()
    assert it.record("n0", step="BootDisk") == {"n8"}


def test_as_long_as_others_have_more_than_their_part_no_more_begin_than_may() -> None:
    (it,) = shared(Capacity(fleet=8), range(4, 8))
    for name in ("n0", "n1", "n2", "n3", "n8", "n9"):
        it.record(name, step="BootRamdisk")  # begun when all shards were its operator's
    assert len(begun(it)) == 2
    assert len(it.record("n0", step="BootDisk")) == 1
    assert begun(it)
    assert len(it.record("n1", step="BootDisk")) == 1


def test_a_slot_that_another_operator_never_gives_back_ends_with_its_deadline_as_well() -> None:
    first, second = shared(Capacity(fleet=2), range(4), range(4, 8))
    for name in ("n0", "n1"):
        second.record(name, step="WriteImage", lasts=60)
    assert len(begun(second)) == 1, "one each"
    second.now += timedelta(seconds=61)
    assert second.called() == []
    assert len(begun(first)) == 1


def test_a_machine_stands_where_its_label_says() -> None:
    fleet = Fleet(Capacity())
    fleet.record("n", rack="a1")
    fleet.record("m")
    assert (fleet.machine("n").rack, fleet.machine("m").rack) == ("a1", "")
    assert replace(fleet.machine("m"), rack="b").rack == "b"
