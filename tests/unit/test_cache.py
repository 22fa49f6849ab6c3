"""What is known of machines and images: the newest version, who shares a MAC address or BMC, who is to boot what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from rackwright.api.image import OperatingSystemImageSpec
from rackwright.cache import Cache
from rackwright.lanes import Lane
from rackwright.record import Key, Machine

MAC = "52:54:00:00:00:07"
OTHER_MAC = "52:54:00:00:00:08"
KEY = Key("rack-a", "node-07")
BMC = "redfish+https://10.0.0.7/redfish/v1/Systems/1"
OTHER_BMC = "redfish+https://10.0.0.8/redfish/v1/Systems/1"
EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"


def item(name: str = "node-07", *, version: int = 1, mac: str = MAC, bmc: str = BMC, **changes: Any) -> dict[str, Any]:
    """A machine as the API server tells of it."""
    metadata = {
        "namespace": "rack-a",
        "name": name,
        "uid": changes.pop("uid", f"uid-{name}"),
        "resourceVersion": str(version),
        "generation": 1,
        "creationTimestamp": changes.pop("created", EARLY),
        **changes.pop("metadata", {}),
    }
    spec = {"bootMACAddress": mac, "bmc": {"address": bmc}, **changes.pop("spec", {})}
    return {"metadata": metadata, "spec": spec, "status": changes.pop("status", {})}


def machine(*arguments: Any, **keywords: Any) -> Machine:
    return Machine.read(item(*arguments, **keywords))


def in_operation(name: str, step: str, phase: str) -> dict[str, Any]:
    """A status with an operation under way."""
    at = "2026-01-01T00:00:00Z"
    operation = {"id": "op-1", "name": name, "attempt": 2, "step": step}
    return {"phase": phase, "operation": {**operation, "beganAt": at, "startedAt": at, "deadline": at}}


IMAGE = OperatingSystemImageSpec.model_validate(
    {"url": "http://10.0.0.1/a.raw", "checksum": f"sha256:{'ab' * 32}", "format": "raw"}
)


# --- versions -----------------------------------------------------------------------------------------------------


def test_the_newer_version_wins_whoever_brings_it_first() -> None:
    cache, newer = Cache(), machine(version=5)
    assert cache.put(newer) == {newer.key}
    assert cache.put(machine(version=4)) == set()
    assert cache.put(machine(version=5)) == set()
    assert cache.get(newer.key) is newer


def test_a_machine_takes_turns_for_its_namespace_and_rack() -> None:
    cache = Cache()
    assert cache.lane(KEY) == Lane("rack-a")
    cache.put(machine())
    assert cache.lane(KEY) == Lane("rack-a")
    cache.put(machine(version=2, metadata={"labels": {"metal.rackwright.io/rack": "r7"}}))
    assert cache.lane(KEY) == Lane("rack-a", "r7")


def test_versions_are_compared_as_numbers() -> None:
    cache = Cache()
    cache.put(machine(version=99))
    assert cache.put(machine(version=100))


def test_a_machine_that_was_made_anew_under_its_name_is_another_one() -> None:
    cache = Cache()
    cache.put(machine(version=9, uid="first"))
    cache.put(machine(version=10, uid="second"))
    assert cache.with_uid("second")
    assert cache.with_uid("first") is None


def test_what_comes_late_of_an_earlier_machine_does_not_displace_its_successor() -> None:
    cache, second = Cache(), machine(version=10, uid="second")
    cache.put(second)
    assert cache.put(machine(version=9, uid="first")) == set()
    assert cache.get(second.key) is second


def test_the_end_of_an_earlier_machine_does_not_remove_its_successor() -> None:
    cache = Cache()
    cache.put(machine(version=10, uid="second"))
    assert cache.remove(Key("rack-a", "node-07"), "first") == set()
    assert cache.with_uid("second")


def test_a_deleted_machine_does_not_come_back_with_an_older_listing() -> None:
    cache = Cache()
    cache.put(machine(version=3))
    cache.remove(KEY, "uid-node-07")
    assert cache.put(machine(version=3)) == set()
    assert cache.get(KEY) is None
    assert cache.put(machine(version=9, uid="anew")) == {KEY}


def test_one_that_could_not_be_read_for_a_while_does() -> None:
    cache = Cache()
    cache.put(machine(version=3))
    cache.remove(KEY, "uid-node-07", deleted=False)
    assert cache.put(machine(version=4)) == {KEY}


async def test_whoever_waits_for_a_machine_that_was_made_anew_is_told() -> None:
    cache = Cache()
    cache.put(machine(version=3))
    waiting = asyncio.ensure_future(cache.changed("uid-node-07"))
    await asyncio.sleep(0)
    cache.put(machine(version=9, uid="anew"))
    await asyncio.wait_for(waiting, 1)


def test_a_removed_machine_is_found_by_nothing() -> None:
    cache, gone = Cache(), machine(status=in_operation("Commission", "BootRamdisk", "Commissioning"))
    cache.put(gone)
    cache.remove(gone.key, gone.uid)
    assert not list(cache)
    assert (cache.get(gone.key), cache.with_uid(gone.uid)) == (None, None)
    assert (cache.by_mac([MAC]), cache.by_uid(gone.uid)) == (None, None)
    assert not cache.knows(MAC)


def test_another_spec_of_the_same_generation_is_read() -> None:
    """Etcd was restored, and somebody has declared something else since: generations are counted anew from there."""
    withdrawn = machine(version=7, metadata={"generation": 5})
    locked = Machine.read(item(version=9, metadata={"generation": 5}, spec={"locked": True}), withdrawn)
    assert locked.spec.locked


def test_spec_is_read_once_as_long_as_it_is_the_same() -> None:
    first = machine(metadata={"generation": 3})
    same = Machine.read(item(version=2, metadata={"generation": 3}, status={"power": "On"}), first)
    assert same.spec is first.spec
    assert same.stake is first.stake
    assert (same.version, same.status.power) == (2, "On")
    changed = Machine.read(item(version=3, mac=OTHER_MAC, metadata={"generation": 4}), same)
    assert changed.spec.boot_mac_address == OTHER_MAC
    assert OTHER_MAC in changed.stake.holds
    anew = Machine.read(item(version=4, mac=OTHER_MAC, uid="another", metadata={"generation": 3}), first)
    assert (anew.uid, anew.spec.boot_mac_address) == ("another", OTHER_MAC)


async def test_whoever_waits_for_a_change_is_told_of_it_and_of_the_end() -> None:
    cache = Cache()
    cache.put(machine(version=1))
    changes: tuple[Callable[[], object], ...] = (
        lambda: cache.put(machine(version=2)),
        lambda: cache.remove(Key("rack-a", "node-07"), "uid-node-07"),
    )
    for change in changes:
        waiting = asyncio.create_task(cache.changed("uid-node-07"))
        await asyncio.sleep(0)
        assert not waiting.done()
        change()
        async with asyncio.timeout(5):
            await waiting


# --- reading ------------------------------------------------------------------------------------------------------


def test_what_the_schema_should_have_refused_is_named_by_its_field_without_its_value() -> None:
    broken = item(spec={"commissioning": {"timeout": "the-tenants-secret"}})
    with pytest.raises(ValueError, match=r"rack-a/node-07: commissioning\.timeout can't be read") as caught:
        Machine.read(broken)
    assert "secret" not in str(caught.value)


def test_what_a_newer_version_wrote_is_no_error_to_an_older_one_that_came_back() -> None:
    ready = {"type": "Ready", "status": "True", "reason": "Available", "lastTransitionTime": EARLY, "newer": {}}
    ended = {"name": "Deploy", "outcome": "Succeeded", "startedAt": EARLY, "duration": "5m", "newer": 7}
    status = machine(
        spec={"newer": True},
        status={"conditions": [ready], "history": [ended], "hardware": {"cpus": 8, "newer": ""}, "newer": []},
    ).status
    assert [condition.reason for condition in status.own_conditions] == ["Available"]
    assert [entry.outcome for entry in status.history] == ["Succeeded"]
    assert status.hardware is not None
    assert status.hardware.cpus == 8


@pytest.mark.parametrize("cards", [[OTHER_MAC], {"newer": OTHER_MAC}, None])
def test_of_what_cannot_be_read_it_is_known_which_machine_it_means(cards: Any) -> None:
    seen = {"vendor": "Contoso", "model": "R1", "serial": "SN0001", "macAddresses": cards, "newer": 1}
    status = {"phase": "Newer", "hardware": seen}
    unread = Machine.unread(item(mac=MAC.upper(), spec={"bootMode": "Newer", "accepted": "perhaps"}, status=status))
    assert unread.stake == machine().stake
    known = unread.known()
    assert (known.in_use, known.is_new, known.bmc_host) == (True, False, "10.0.0.7")
    assert known.macs == ({MAC, OTHER_MAC} if isinstance(cards, list) else {MAC})
    assert known.hardware is not None
    assert known.hardware.serial == "SN0001"
    cache = Cache()
    cache.put(unread)
    assert cache.knows(MAC), "it is no stranger"
    assert cache.by_mac((MAC,)) is None, "and nobody boots it"
    Machine.unread({**item(), "spec": {"bmc": "newer"}, "status": {"hardware": 7}})


def test_an_unreadable_annotation_still_says_that_something_is_installed() -> None:
    notes = {"metal.rackwright.io/installed": "{half of it"}
    evidence = machine(metadata={"annotations": notes}).evidence
    assert evidence is not None
    assert evidence.hostname == "unknown"


def test_the_annotation_says_what_is_installed() -> None:
    notes = {"metal.rackwright.io/installed": json.dumps({"image": "debian-12", "hostname": "web-1"})}
    evidence = machine(metadata={"annotations": notes}).evidence
    assert evidence is not None
    assert (evidence.image, evidence.hostname) == ("debian-12", "web-1")


# --- twins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [{"bmc": OTHER_BMC}, {"mac": OTHER_MAC}], ids=["one MAC address", "one BMC"])
def test_the_younger_of_two_has_a_twin_and_the_older_has_none(shared: dict[str, str]) -> None:
    cache, older = Cache(), machine("older", created=EARLY)
    younger = machine("younger", created=LATE, **shared)
    assert cache.put(younger) == {younger.key}
    assert cache.put(older) == {older.key, younger.key}, "the younger has to be looked at again"
    assert cache.twin_of(younger) == older.key
    assert cache.twin_of(older) is None


def test_of_two_made_in_one_second_one_is_the_older_on_every_day() -> None:
    cache, first, second = Cache(), machine("a", uid="1"), machine("b", uid="2")
    cache.put(first)
    cache.put(second)
    assert (cache.twin_of(first), cache.twin_of(second)) == (None, first.key)


def test_a_bmc_is_the_same_however_its_address_is_spelled() -> None:
    cache, older = Cache(), machine("older", bmc="redfish+https://BMC.example/redfish/v1/Systems/1")
    younger = machine(
        "younger", created=LATE, mac=OTHER_MAC, bmc="redfish+https://bmc.example:443/redfish/v1/Systems/1/"
    )
    cache.put(older)
    cache.put(younger)
    assert cache.twin_of(younger) == older.key


@pytest.mark.parametrize(
    ("one", "other"),
    [("redfish+https://10.0.0.7/", BMC), (BMC, "redfish+https://10.0.0.7/"), (BMC, BMC.replace("https", "http"))],
)
def test_a_bmc_is_the_same_whether_or_not_its_system_is_named(one: str, other: str) -> None:
    cache, older, younger = (
        Cache(),
        machine("older", bmc=one),
        machine("younger", created=LATE, mac=OTHER_MAC, bmc=other),
    )
    cache.put(younger)
    assert cache.put(older) == {older.key, younger.key}, "the younger has to be looked at again"
    assert cache.twin_of(younger) == older.key
    assert cache.twin_of(older) is None
    assert cache.remove(older.key, older.uid) == {younger.key}
    assert cache.twin_of(younger) is None


def test_systems_of_one_chassis_are_nobodys_twins_and_dont_wake_each_other() -> None:
    cache = Cache()
    for slot in range(3):
        blade = machine(f"blade-{slot}", mac=f"52:54:00:00:00:{slot:02}", bmc=f"redfish+https://chassis/{slot}")
        assert cache.put(blade) == {blade.key}
        assert cache.twin_of(blade) is None
    whole = machine("whole", created=LATE, bmc="redfish+https://chassis")
    assert len(cache.put(whole)) == 4, "each of them has to be looked at again"
    assert cache.twin_of(whole) == Key("rack-a", "blade-0")


def test_a_machine_that_holds_data_keeps_its_bmc_from_an_older_record_that_names_it_by_mistake() -> None:
    cache = Cache()
    spare, used = machine("spare"), machine("used", created="2026-06-01T00:00:00Z", status={"installed": {}})
    cache.put(spare)
    cache.put(used)
    assert cache.twin_of(spare) == used.key
    assert cache.twin_of(used) is None
    booting = machine(
        "used", version=2, status={"installed": {}, **in_operation("Release", "BootRamdisk", "Releasing")}
    )
    cache.put(booting)
    boot = cache.by_mac((MAC,))
    assert boot is not None
    assert boot.name == "used"


def test_a_machine_is_nobodys_twin_once_the_other_is_gone_or_has_another_address() -> None:
    for end in ("removed", "changed"):
        cache, older, younger = Cache(), machine("older"), machine("younger", created=LATE)
        cache.put(older)
        cache.put(younger)
        if end == "removed":
            affected = cache.remove(older.key, older.uid)
        else:
            affected = cache.put(machine("older", version=2, mac=OTHER_MAC, bmc=OTHER_BMC))
        assert younger.key in affected
        assert cache.twin_of(younger) is None


def test_a_machine_that_enlisted_itself_gives_way_to_the_record_that_somebody_declares_for_it() -> None:
    cache, enlisted = Cache(), machine("sn0007", created=EARLY, spec={"accepted": False}, status={"phase": "New"})
    declared = machine("node-07", created=LATE)
    cache.put(enlisted)
    assert cache.put(declared) == {enlisted.key, declared.key}
    assert cache.twin_of(enlisted) == declared.key
    assert cache.twin_of(declared) is None


def test_a_machine_that_holds_data_gives_way_to_nobody_even_if_it_is_not_accepted_any_more() -> None:
    cache, used = Cache(), machine("used", created=LATE, spec={"accepted": False}, status={"installed": {}})
    declared = machine("node-07", created=EARLY)
    cache.put(used)
    cache.put(declared)
    assert cache.twin_of(used) is None
    assert cache.twin_of(declared) == used.key


def test_machines_without_a_bmc_or_mac_address_are_nobodys_twins() -> None:
    live = {"deployment": {"existing": True}, "allocation": {"owner": "team"}, "bmc": None, "bootMACAddress": None}
    cache = Cache()
    for name in ("a", "b"):
        cache.put(Machine.read(item(name, spec=live)))
    assert [cache.twin_of(found) for key in cache if (found := cache.get(key))] == [None, None]


# --- images -------------------------------------------------------------------------------------------------------


def test_an_image_wakes_the_machines_that_name_it_and_only_when_it_changed() -> None:
    wanted = {"allocation": {"owner": "team"}, "deployment": {"image": "debian-12"}}
    cache, named = Cache(), machine("named", spec=wanted)
    cache.put(named)
    cache.put(machine("other", mac=OTHER_MAC, bmc=OTHER_BMC))
    assert cache.put_image("debian-12", IMAGE, 1) == {named.key}
    assert cache.put_image("debian-12", IMAGE, 2) == set()
    assert cache.image("debian-12") == IMAGE
    assert cache.put_image("debian-12", None, None, 2) == {named.key}
    assert cache.put_image("debian-12", None, None, 2) == set()
    assert cache.image("debian-12") is None
    assert cache.image_names() == set()


def test_an_image_that_went_back_since_it_was_known_is_taken_in() -> None:
    cache, corrected = Cache(), IMAGE.model_copy(update={"checksum": f"sha256:{'b' * 64}"})
    cache.put_image("debian-12", corrected, 9)
    known = cache.memory().images["debian-12"]
    cache.put_image("debian-12", IMAGE, 3, known)
    assert cache.image("debian-12") == IMAGE
    cache.put_image("debian-12", corrected, 10)
    cache.put_image("debian-12", IMAGE, 4, 3)
    assert cache.image("debian-12") == corrected, "a watch told of another meanwhile"
    cache.put_image("debian-12", None, 12)
    cache.put_image("debian-12", IMAGE, 4, cache.memory().images["debian-12"])
    assert cache.image("debian-12") == IMAGE


def test_an_image_that_a_listing_lacks_is_gone_unless_a_watch_told_of_another_meanwhile() -> None:
    cache = Cache()
    cache.put_image("debian-12", IMAGE, 3)
    known = cache.memory().images["debian-12"]
    cache.put_image("debian-12", None, 4)
    cache.put_image("debian-12", IMAGE, 5)
    assert cache.put_image("debian-12", None, None, known) == set()
    assert cache.image("debian-12") == IMAGE
    cache.put_image("debian-12", None, None, cache.memory().images["debian-12"])
    assert cache.image("debian-12") is None


def test_a_listing_that_is_older_than_a_watch_takes_no_image_back() -> None:
    cache, corrected = Cache(), IMAGE.model_copy(update={"checksum": f"sha256:{'b' * 64}"})
    cache.put_image("debian-12", IMAGE, 3)
    cache.put_image("debian-12", corrected, 9)
    assert cache.put_image("debian-12", IMAGE, 3) == set()
    assert cache.image("debian-12") == corrected
    cache.put_image("debian-12", None, 12)
    assert cache.put_image("debian-12", corrected, 9) == set()
    assert cache.image("debian-12") is None


# --- boots --------------------------------------------------------------------------------------------------------

IN_RAMDISK = [
    ("Commission", "BootRamdisk", "Commissioning"),
    ("Deploy", "WriteImage", "Deploying"),
    ("Release", "EraseDisks", "Releasing"),
    ("Rescue", "OpenRescue", "Rescue"),
]
ELSEWHERE = [
    ("Commission", "", "Commissioning"),
    ("Commission", "PowerOff", "Commissioning"),
    ("Commission", "ShutDown", "Commissioning"),
    ("Deploy", "BootDisk", "Deploying"),
]


@pytest.mark.parametrize(("name", "step", "phase"), IN_RAMDISK)
def test_a_machine_that_is_to_be_in_the_ramdisk_is_found_by_its_mac_address(name: str, step: str, phase: str) -> None:
    cache = Cache()
    cache.put(machine(status=in_operation(name, step, phase)))
    boot = cache.by_mac([OTHER_MAC, MAC])
    assert boot is not None
    assert (boot.name, boot.operation_id, boot.attempt) == ("node-07", "op-1", 2)
    assert boot.wants_inventory is (name in ("Commission", "Release")), "nobody has inspected it yet"
    assert boot.agent_known is (step != "BootRamdisk")


def test_a_release_inspects_only_what_nobody_has_inspected() -> None:
    cache = Cache()
    cache.put(machine(status={**in_operation("Release", "BootRamdisk", "Releasing"), "hardware": {"disks": 1}}))
    boot = cache.by_mac([MAC])
    assert boot is not None
    assert not boot.wants_inventory


@pytest.mark.parametrize(("name", "step", "phase"), ELSEWHERE)
def test_no_other_machine_is_told_to_boot_the_ramdisk(name: str, step: str, phase: str) -> None:
    cache = Cache()
    cache.put(machine(status=in_operation(name, step, phase)))
    assert cache.by_mac([MAC]) is None
    assert cache.knows(MAC)


def test_a_machine_at_rest_boots_its_disk() -> None:
    cache = Cache()
    cache.put(machine(status={"phase": "Deployed"}))
    assert cache.by_mac([MAC]) is None


# --- what is recognised -------------------------------------------------------------------------------------------

INSPECTED = {"hardware": {"serial": "SN0007", "vendor": "Contoso", "model": "R1", "macAddresses": [MAC, OTHER_MAC]}}


def test_a_machine_that_was_inspected_is_known_by_every_card() -> None:
    cache, node = Cache(), machine(status=INSPECTED)
    cache.put(node)
    assert cache.knows(MAC)
    assert cache.knows(OTHER_MAC)
    assert cache.twin_of(machine("another", mac=OTHER_MAC, bmc=OTHER_BMC, created=LATE)) is None, "it may be declared"
    cache.remove(node.key, node.uid)
    assert not cache.knows(OTHER_MAC)


def test_a_card_that_was_taken_out_is_forgotten() -> None:
    cache = Cache()
    cache.put(machine(status=INSPECTED))
    cache.put(machine(version=2, status={"hardware": {"macAddresses": [MAC]}}))
    assert not cache.knows(OTHER_MAC)


@pytest.mark.parametrize("trait", [f"mac {OTHER_MAC}", "bmc 10.0.0.7", "serial ('Contoso', 'R1', 'SN0007')"])
def test_whoever_may_be_the_same_is_found(trait: str) -> None:
    cache, node = Cache(), machine(status=INSPECTED)
    cache.put(node)
    assert cache.resembling([trait, "mac 52:54:00:00:00:99"]) == [node]


def test_what_is_known_of_a_machine_tells_whether_somebody_uses_it() -> None:
    remembered = {"annotations": {"metal.rackwright.io/installed": "{}"}}
    assert not machine(status=INSPECTED).known().in_use
    assert machine(status={"owner": "team"}).known().in_use
    assert machine(status={"phase": "Broken", "installed": {}}).known().in_use
    assert machine(metadata=remembered).known().in_use


def test_machines_that_wait_for_acceptance_are_counted_by_namespace() -> None:
    cache, waits = Cache(), {"accepted": False}
    cache.put(machine("a", spec=waits))
    cache.put(machine("b", spec=waits, mac=OTHER_MAC, status={"phase": "New"}))
    cache.put(machine("c", metadata={"namespace": "rack-b"}, spec=waits))
    cache.put(machine("d"))
    assert (cache.new_machines("rack-a"), cache.new_machines("rack-b"), cache.new_machines()) == (2, 1, 3)
    cache.put(machine("a", version=2))
    cache.put(machine("b", version=2, spec=waits, status={"phase": "Commissioning"}))
    assert cache.new_machines("rack-a") == 0
    gone = machine("c", metadata={"namespace": "rack-b"}, spec=waits)
    cache.remove(gone.key, gone.uid)
    assert cache.new_machines() == 0


def test_a_mac_address_that_two_claim_is_the_olders() -> None:
    cache = Cache()
    cache.put(machine("younger", created=LATE, bmc=OTHER_BMC, status=in_operation(*IN_RAMDISK[0])))
    assert cache.by_mac([MAC]) is not None
    cache.put(machine("older", status={"phase": "Ready"}))
    assert cache.by_mac([MAC]) is None
