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
            device="/dev/sdb", serial="0x5000", method="ATA", verified=False, message="64 samples read back as zeros"
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
    assert erase.unseen([erasure(), erasure(device="/dev/sdd", serial="0x5")], inventory) == tuple(inventory[1:3])


def test_a_disk_that_the_erase_does_not_speak_of_is_not_erased() -> None:
    found = (erasure(),)
    inventory = [DiskInventory(name="/dev/sda", serial="RACK0001"), DiskInventory(name="/dev/sdb", wwn="0x5")]

    (missing,) = erase.missing(found, inventory, HardwareSummary(disks=2), AT)

    assert (missing.device, missing.serial, missing.verified) == ("/dev/sdb", "0x5", False)
    assert "loose cable" in missing.message
    assert erase.missing(found, inventory[:1], HardwareSummary(disks=2), AT) == (), "the inventory is newer"


def test_without_the_inventory_disks_are_counted() -> None:
    two = HardwareSummary(disks=2)

    assert [e.verified for e in erase.missing((erasure(),), None, two, AT)] == [False]
    assert erase.missing((erasure(), erasure(device="/dev/sdb")), None, two, AT) == ()
    assert len(erase.missing((), None, two, AT)) == 2
    assert erase.missing((erasure(),), None, None, AT) == ()
