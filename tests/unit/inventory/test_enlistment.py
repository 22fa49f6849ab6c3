"""Which machine introduces itself: nobody known is taken for new, no name says nothing, no more than so many."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.inventory.test_inspection_report import body

from rackwright.api.machine import Architecture, BootMode, HardwareSummary
from rackwright.inventory.enlistment import (
    Enlist,
    Full,
    Known,
    Recognised,
    Stranger,
    Verdict,
    bmc_host,
    is_same,
    judge,
    names,
    traits,
    usable_serial,
)
from rackwright.inventory.report import read

MAC, OTHER_MAC, THIRD_MAC = "52:54:00:00:00:07", "52:54:00:00:00:08", "52:54:00:00:00:09"
HARDWARE = HardwareSummary(vendor="Contoso", model="R1", serial="SN0007", mac_addresses=[MAC, OTHER_MAC])
OTHER_HARDWARE = replace(HARDWARE, serial="SN0008")
STRANGER = Stranger((MAC, OTHER_MAC), HARDWARE, "10.0.0.7", Architecture.AMD64, BootMode.UEFI)
KNOWN = Known("rack-a/node-07", "uid-7", frozenset(), "", None, in_use=False, is_new=False)


def cards(*macs: str) -> list[dict[str, Any]]:
    return [{"name": f"eth{number}", "mac_address": mac} for number, mac in enumerate(macs)]


def stranger(**inventory: Any) -> Stranger:
    found = Stranger.of(read(body(**inventory)))
    assert found is not None
    return found


def verdict(who: Stranger, *known: Known, taken: set[str] | None = None, waiting: int = 0) -> Verdict:
    return judge(who, known, taken=(taken or set()).__contains__, waiting=waiting, at_most=50)


def enlisted(who: Stranger, *known: Known, taken: set[str] | None = None) -> Enlist:
    found = verdict(who, *known, taken=taken)
    assert isinstance(found, Enlist)
    return found


# --- what a report says -------------------------------------------------------------------------------------------


def test_a_report_says_who_it_is() -> None:
    macs = ("52:54:00:AA:00:01", "52:54:00:aa:00:02")
    found = stranger(
        interfaces=cards(*reversed(macs)),
        bmc_address="10.0.0.7",
        boot={"current_boot_mode": "uefi", "pxe_interface": "01-52-54-00-aa-00-01"},
    )
    assert found.macs == ("52:54:00:aa:00:01", "52:54:00:aa:00:02"), "the card that it booted from comes first"
    assert (found.bmc_host, found.architecture, found.boot_mode) == ("10.0.0.7", Architecture.AMD64, BootMode.UEFI)
    assert found.hardware.serial == "SN0001"


def test_a_report_that_says_little_is_enough() -> None:
    found = stranger(cpu=None, boot=None, system_vendor=None, bmc_address="garbage")
    assert (found.bmc_host, found.architecture, found.boot_mode) == ("", None, None)
    assert enlisted(found).spec == {"accepted": False, "bootMACAddress": "52:54:00:aa:00:01"}


def test_a_report_without_a_card_of_its_own_is_nobodys() -> None:
    for nothing in ([], cards("00:00:00:00:00:00"), cards("01:00:5e:00:00:01")):
        assert Stranger.of(read(body(interfaces=nothing))) is None


@pytest.mark.parametrize("driver", ["cdc_ether", "cdc_eem", "cdc_ncm", "cdc_subset", "rndis_host"])
def test_no_machine_is_recognised_by_the_card_that_its_bmc_presents(driver: str) -> None:
    host_interface = {"name": "usb0", "mac_address": THIRD_MAC, "driver": driver}
    first, second = (stranger(interfaces=[host_interface, *cards(mac)]) for mac in (MAC, OTHER_MAC))
    assert first.macs == (MAC,)
    assert first.hardware.mac_addresses == [MAC]
    assert first.hardware.nics == 2
    known = replace(KNOWN, macs=frozenset(first.macs), hardware=replace(first.hardware, serial="SN0008"))
    assert not is_same(second, known)


def test_a_machine_may_boot_from_such_a_card() -> None:
    usb = {"name": "usb0", "mac_address": MAC, "driver": "cdc_ncm"}
    boot = {"current_boot_mode": "uefi", "pxe_interface": f"01-{MAC.replace(':', '-')}"}
    assert stranger(interfaces=[*cards(OTHER_MAC), usb], boot=boot).macs == (MAC, OTHER_MAC)
    alone = stranger(interfaces=[usb], boot=boot)
    assert (alone.macs, alone.hardware.mac_addresses) == ((MAC,), [MAC])


@pytest.mark.parametrize("silence", ["", "0.0.0.0", "::", "fe80::1", "169.254.0.17", "127.0.0.1", "bmc-07"])  # noqa: S104 (no address to listen on)
def test_an_address_that_leads_nowhere_from_outside_is_no_bmc(silence: str) -> None:
    assert bmc_host(silence) == ""


# --- what becomes a record ----------------------------------------------------------------------------------------


def test_a_new_machine_is_written_down_as_nobody_trusts_it() -> None:
    assert enlisted(STRANGER) == Enlist(
        "sn0007",
        {
            "accepted": False,
            "bootMACAddress": MAC,
            "architecture": "amd64",
            "bootMode": "UEFI",
            "bmc": {"address": "ipmi://10.0.0.7"},
        },
    )


def test_what_is_unknown_is_left_out() -> None:
    who = replace(STRANGER, bmc_host="", architecture=None, boot_mode=None)
    assert enlisted(who).spec == {"accepted": False, "bootMACAddress": MAC}


def test_an_ipv6_bmc_is_written_with_brackets() -> None:
    spec = enlisted(replace(STRANGER, bmc_host="2001:db8::7")).spec
    assert spec["bmc"] == {"address": "ipmi://[2001:db8::7]"}


def test_the_firmware_of_a_bios_boots_the_old_way() -> None:
    assert enlisted(stranger()).spec["bootMode"] == "Legacy"


def test_no_more_than_so_many_wait() -> None:
    assert isinstance(verdict(STRANGER, waiting=49), Enlist)
    assert verdict(STRANGER, waiting=50) == Full(50)
    assert verdict(STRANGER, waiting=51) == Full(50)


def test_whoever_is_known_is_recognised_however_many_wait() -> None:
    known = replace(KNOWN, macs=frozenset({MAC}))
    assert verdict(STRANGER, known, waiting=50) == Recognised(known)


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("serial", "label"),
    [
        ("SN0007", "sn0007"),
        ("4XJ9K13", "4xj9k13"),
        ("VMware-56 4d 1b/2a", "vmware-56-4d-1b-2a"),
        ("  ..A_b.C-1..  ", "a-b-c-1"),
        ("x" * 60 + "1.yz", "x" * 60 + "1-y"),
        ("Ä12345", "12345"),
        ("0000000", ""),
        ("FFFF-FFFF", ""),
        ("...", ""),
        ("12", ""),
        ("", ""),
    ],
)
def test_a_serial_number_becomes_a_label_or_says_nothing(serial: str, label: str) -> None:
    assert usable_serial(serial) == label


@pytest.mark.parametrize("filler", ["To be filled by O.E.M.", "0", "None", "Default string", "System Serial Number"])
def test_what_firmware_says_where_nobody_filled_in_a_number_is_no_name(filler: str) -> None:
    found = stranger(system_vendor={"serial_number": filler, "product_name": "R1", "manufacturer": "Contoso"})
    assert next(names(found)) == "mac-525400aa0001"


def test_a_name_that_another_has_is_not_taken_twice() -> None:
    assert enlisted(STRANGER, taken={"sn0007"}).name == "mac-525400000007"
    assert enlisted(STRANGER, taken={"sn0007", "mac-525400000007"}).name == "mac-525400000007-2"
    assert enlisted(STRANGER, taken={"sn0007", "mac-525400000007", "mac-525400000007-2"}).name == "mac-525400000007-3"


@given(st.text(max_size=300))
def test_every_name_can_be_a_host_name(serial: str) -> None:
    who = replace(STRANGER, hardware=replace(HARDWARE, serial=serial))
    for name in islice(names(who), 3):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)


# --- who is known -------------------------------------------------------------------------------------------------

SAME = {
    "by the card that it was declared with": {"macs": frozenset({MAC})},
    "by another of its cards": {"macs": frozenset({OTHER_MAC, THIRD_MAC})},
    "by its BMC, never inspected": {"macs": frozenset({THIRD_MAC}), "bmc_host": "10.0.0.7"},
    "by its BMC, with other cards": {"macs": frozenset({THIRD_MAC}), "bmc_host": "10.0.0.7", "hardware": HARDWARE},
    "by its serial number, in use": {"macs": frozenset({THIRD_MAC}), "hardware": HARDWARE, "in_use": True},
}
OTHERS = {
    "another card": {"macs": frozenset({THIRD_MAC})},
    "another BMC": {"bmc_host": "10.0.0.8"},
    "a BMC with the address that it left the factory with": {"bmc_host": "10.0.0.7", "hardware": OTHER_HARDWARE},
    "another node of one chassis, idle": {"macs": frozenset({THIRD_MAC}), "hardware": HARDWARE},
    "the same number of another make": {
        "hardware": replace(HARDWARE, vendor="Fabrikam"), "in_use": True,
    },
    "a number that says nothing": {"hardware": replace(HARDWARE, serial=""), "in_use": True},
}  # fmt: skip


@pytest.mark.parametrize("how", SAME)
def test_a_known_machine_is_recognised(how: str) -> None:
    known = replace(KNOWN, **SAME[how])  # type: ignore[arg-type]
    assert verdict(STRANGER, known) == Recognised(known)


@pytest.mark.parametrize("who", OTHERS)
def test_another_machine_is_not_taken_for_it(who: str) -> None:
    assert enlisted(STRANGER, replace(KNOWN, **OTHERS[who])).spec["bootMACAddress"] == MAC  # type: ignore[arg-type]


def test_a_bmcs_address_that_another_machine_has_is_left_for_a_person_to_set() -> None:
    other = replace(KNOWN, **OTHERS["a BMC with the address that it left the factory with"])  # type: ignore[arg-type]
    assert "bmc" not in enlisted(STRANGER, other).spec


def test_a_machine_that_somebody_declared_comes_before_one_that_introduced_itself() -> None:
    new = replace(KNOWN, name="rack-a/a-new-one", macs=frozenset({MAC}), is_new=True)
    declared = replace(KNOWN, macs=frozenset({OTHER_MAC}))
    assert verdict(STRANGER, new, declared) == Recognised(declared)


KNOWNS = st.builds(
    Known,
    st.sampled_from(["a/1", "a/2"]),
    st.just("uid"),
    st.frozensets(st.sampled_from([MAC, OTHER_MAC, THIRD_MAC])),
    st.sampled_from(["", "10.0.0.7", "10.0.0.8"]),
    st.sampled_from([None, HARDWARE, OTHER_HARDWARE]),
    in_use=st.booleans(),
    is_new=st.booleans(),
)


@given(KNOWNS)
def test_whoever_is_the_same_machine_shares_a_trait_with_it(known: Known) -> None:
    """So that a search by traits finds everybody whom `judge` has to see."""
    shared = traits(STRANGER.macs, STRANGER.bmc_host, STRANGER.hardware) & traits(
        known.macs, known.bmc_host, known.hardware
    )
    assert shared or not is_same(STRANGER, known)


@given(st.lists(KNOWNS, max_size=3))
def test_no_machine_with_a_known_card_is_ever_new(known: list[Known]) -> None:
    found = verdict(STRANGER, *known)
    if any(set(STRANGER.macs) & each.macs for each in known):
        assert isinstance(found, Recognised)
