"""A disk is believed to be erased only on evidence that makes sense."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright.api.inventory import DiskInventory
from rackwright.api.machine import EraseMode, Erasure, HardwareSummary
from rackwright.install import erase
from rackwright.install.steps import node
from rackwright.inventory.report import read
from rackwright.lifecycle.world import Fault

AT = datetime(2025, 3, 1, 12, tzinfo=UTC)
NODE = node("6b1c", root_device={})


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "device": "/dev/sda",
        "serial": "RACK0001",
        "wwn": None,
        "sizeBytes": 3 * 2**30,
        "method": "Overwrite",
        "verified": True,
        "samples": 64,
        "message": "64 samples read back as zeros",
    } | changes


def erasure(**changes: Any) -> Erasure:
    return Erasure(
        **{"device": "/dev/sda", "serial": "RACK0001", "method": "Overwrite", "verified": True, "at": AT} | changes
    )


@pytest.mark.parametrize("mode", [EraseMode.FULL, EraseMode.QUICK])
def test_the_plug_in_is_told_how_much_to_erase(mode: EraseMode) -> None:
    params = erase.parameters(mode, node=NODE, mac_addresses=[], clean_version={"generic_hardware_manager": "1.2"})
    assert params["step"] == {"step": "erase_disks", "interface": "deploy", "priority": 0, "args": {"mode": mode.value}}
    assert params["clean_version"] == {"generic_hardware_manager": "1.2"}


def test_the_mode_none_asks_the_agent_for_nothing() -> None:
    with pytest.raises(ValueError, match="nothing is erased"):
        erase.parameters(EraseMode.NONE, node=NODE, mac_addresses=[], clean_version=None)


def test_evidence_is_kept_per_disk() -> None:
    result = {
        "clean_result": [entry(), entry(device="/dev/sdb", serial=None, wwn="0x5000", method="ATA", verified=False)]
    }
    assert erase.evidence(result, AT) == (
        erasure(message="64 samples read back as zeros"),
        erasure(
            device="/dev/sdb",
            serial="",
            wwn="0x5000",
            method="ATA",
            verified=False,
            message="64 samples read back as zeros",
        ),
    )


@pytest.mark.parametrize("method", sorted(erase.NOT_ERASED))
def test_a_disk_that_was_not_erased_is_never_verified(method: str) -> None:
    found = erase.evidence({"clean_result": [entry(method=method, verified=True)]}, AT)
    assert isinstance(found, tuple)
    assert [e.verified for e in found] == [False]


def test_a_ramdisk_without_disks_has_no_evidence() -> None:
    assert erase.evidence({"clean_result": []}, AT) == ()


@pytest.mark.parametrize(
    "result",
    [
        None,
        "done",
        {},
        {"clean_result": None},
        {"clean_result": {"device": "/dev/sda"}},
        {"clean_result": [None]},
        {"clean_result": [entry(device="")]},
        {"clean_result": [entry(method=None)]},
        {"clean_result": [entry(verified="yes")]},
        {"clean_result": [entry(verified=1)]},
        {"clean_result": [entry(), {"device": "/dev/sdb"}]},
        {"clean_result": [entry()] * 2000},
    ],
)
def test_evidence_that_makes_no_sense_is_a_fault(result: object) -> None:
    fault = erase.evidence(result, AT)
    assert isinstance(fault, Fault)
    assert fault.reason == "EraseResultUnreadable"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["clean_result", "device", "method", "verified", "serial"]), inner, max_size=5
        )
    ),
    max_leaves=20,
)


@given(_JSON)
def test_whatever_the_agent_answers_is_evidence_or_a_fault(result: object) -> None:
    found = erase.evidence(result, AT)
    assert isinstance(found, Fault) or all(e.device and e.method for e in found)


def test_a_disk_of_the_inventory_that_was_not_seen_is_named() -> None:
    inventory = [
        DiskInventory(name="/dev/sdb", serial="RACK0001"),
        DiskInventory(name="/dev/sda", serial="S2"),
        DiskInventory(name="/dev/sdc"),
        DiskInventory(name="/dev/sdd", wwn="0x5"),
    ]
    found = [erasure(), erasure(device="/dev/sdd", serial="", wwn="0x5")]
    assert erase.unseen(found, inventory) == tuple(inventory[1:3])


@pytest.mark.parametrize("wwns", [("eui.1", "eui.2"), ("", "")])
def test_disks_that_share_a_serial_number_need_evidence_each(wwns: tuple[str, str]) -> None:
    names = ("/dev/nvme0n1", "/dev/nvme0n2")
    inventory = [DiskInventory(name=name, serial="S1", wwn=wwn) for name, wwn in zip(names, wwns, strict=True)]
    found = [erasure(device=disk.name, serial="S1", wwn=disk.wwn) for disk in inventory]

    assert erase.unseen(found, reversed(inventory)) == ()
    assert len(erase.unseen(found[1:], inventory)) == 1
    assert erase.unseen([], inventory) == tuple(inventory)


def test_disks_that_share_a_wwn_are_told_apart_by_their_serial_numbers() -> None:
    inventory = [DiskInventory(name=f"/dev/sd{n}", serial=n, wwn="0x5") for n in "ab"]
    assert erase.unseen([erasure(device="/dev/sda", serial="b", wwn="0x5")], inventory) == tuple(inventory[:1])


def test_two_paths_to_a_disk_are_one_disk() -> None:
    paths = [DiskInventory(name=name, serial="L1", wwn="0x6") for name in ("/dev/sda", "/dev/sdb")]
    found = [erasure(device=name, serial="L1", wwn="0x6") for name in ("/dev/sda", "/dev/dm-0")]
    assert erase.unseen(found, paths) == ()
    assert erase.unseen(found[1:], paths) == ()
    assert len(erase.unseen([], paths)) == 1


def test_what_only_one_of_both_knows_keeps_no_disk_from_its_evidence() -> None:
    inventory = [DiskInventory(name="/dev/sda", wwn="0x5"), DiskInventory(name="/dev/sdb", serial="S2")]
    known = [erasure(device="/dev/sdb", wwn="0x5"), erasure(device="/dev/sda", serial="S2", wwn="0x6")]
    assert erase.unseen(known, inventory) == ()
    assert erase.unseen([erasure(device="/dev/sda"), erasure(device="/dev/sdb", serial="S2")], inventory) == ()


def test_a_placeholder_is_no_serial_number_of_either() -> None:
    disks = [{"name": f"/dev/sd{n}", "serial": "00000000", "wwn": f"0x{n}", "size": 1} for n in "ab"]
    found = erase.evidence(
        {"clean_result": [entry(device=disk["name"], serial="00000000", wwn=disk["wwn"]) for disk in disks]}, AT
    )
    assert isinstance(found, tuple)
    inventory = read({"inventory": {"disks": disks}}).report.disks
    assert erase.unseen(found, inventory) == ()
    assert erase.unseen(found[:1], inventory) == (inventory[1],)


def test_a_serial_number_is_compared_as_the_inventory_has_it() -> None:
    serial = "key:  " + "A" * 90
    found = erase.evidence({"clean_result": [entry(serial=serial)]}, AT)
    assert isinstance(found, tuple)
    inventory = read({"inventory": {"disks": [{"name": "/dev/sdz", "serial": serial}]}}).report.disks
    assert erase.unseen(found, inventory) == ()


def test_a_disk_that_the_erase_does_not_speak_of_is_not_erased() -> None:
    found = (erasure(),)
    inventory = [DiskInventory(name="/dev/sda", serial="RACK0001"), DiskInventory(name="/dev/sdb", wwn="0x5")]

    (missing,) = erase.missing(found, inventory, HardwareSummary(disks=2), AT)

    assert (missing.device, missing.serial, missing.wwn, missing.verified) == ("/dev/sdb", "", "0x5", False)
    assert "loose cable" in missing.message
    assert erase.missing(found, inventory[:1], HardwareSummary(disks=2), AT) == (), "the inventory is newer"


def test_without_the_inventory_disks_are_counted() -> None:
    two = HardwareSummary(disks=2)

    assert [e.verified for e in erase.missing((erasure(),), None, two, AT)] == [False]
    assert erase.missing((erasure(), erasure(device="/dev/sdb")), None, two, AT) == ()
    assert len(erase.missing((), None, two, AT)) == 2
    assert erase.missing((erasure(),), None, None, AT) == ()
