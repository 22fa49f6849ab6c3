"""Inspections of real ramdisks, of firmware that nobody filled in, and of no sense at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright.agent.api import worth_keeping
from rackwright.api.machine import Architecture, BareMetalMachineStatus, HardwareSummary
from rackwright.inventory.report import read

AT = datetime(2025, 3, 1, 12, tzinfo=UTC)


def body(**changes: Any) -> dict[str, Any]:
    """What the agent of a virtual machine reported, shortened."""
    inventory = {
        "interfaces": [
            {
                "name": "enp0s2",
                "mac_address": "52:54:00:AA:00:01",
                "ipv4_address": "172.22.0.100",
                "ipv6_address": "fe80::5054:ff:feaa:1%enp0s2",
                "has_carrier": True,
                "lldp": None,
                "vendor": "0x1af4",
                "product": "0x0001",
                "speed_mbps": None,
                "pci_address": "virtio0",
                "driver": "virtio_net",
            }
        ],
        "cpu": {
            "model_name": "QEMU Virtual CPU version 2.5+",
            "frequency": "",
            "count": 2,
            "architecture": "x86_64",
            "flags": ["fpu", "lm"],
            "socket_count": 1,
        },
        "disks": [
            {
                "name": "/dev/sda",
                "model": "QEMU HARDDISK",
                "size": 6442450944,
                "rotational": True,
                "wwn": None,
                "serial": "RACK0001",
                "vendor": "QEMU",
                "by_path": "/dev/disk/by-path/pci-0000:00:04.0-scsi-0:0:0:0",
            }
        ],
        "memory": {"total": 2062733312, "physical_mb": 2048},
        "bmc_address": None,
        "bmc_v6address": None,
        "system_vendor": {
            "product_name": "R1",
            "serial_number": "SN0001",
            "manufacturer": "RackSim",
            "firmware": {"vendor": "SeaBIOS", "version": "1.16.2", "build_date": "04/01/2014"},
        },
        "boot": {"current_boot_mode": "bios", "pxe_interface": "01-52-54-00-aa-00-01"},
        "hostname": "ipa",
    }
    return {"inventory": inventory | changes, "boot_interface": "01-52-54-00-aa-00-01", "error": None}


@pytest.mark.parametrize("error", [None, "The disks could not be listed."])
def test_what_is_held_until_it_is_kept_is_all_that_is_read(error: str | None) -> None:
    whole = body() | {"error": error, "logs": "packed", "configuration": {"collectors": ["default", "logs"]}}
    for less in (whole, {**whole, "inventory": {**whole["inventory"], "boot": None}}, {}):
        assert read(worth_keeping(less), AT) == read(less, AT)
    assert "logs" not in worth_keeping(whole)


def test_a_whole_report_is_kept() -> None:
    inspection = read(body(), AT)
    assert inspection.report.model_dump(by_alias=True, mode="json", exclude={"bios_attributes", "disk_count"}) == {
        "collectedAt": "2025-03-01T12:00:00Z",
        "system": {
            "vendor": "RackSim",
            "product": "R1",
            "serial": "SN0001",
            "firmwareVendor": "SeaBIOS",
            "firmwareVersion": "1.16.2",
            "bootMode": "bios",
        },
        "cpu": {
            "model": "QEMU Virtual CPU version 2.5+",
            "architecture": "x86_64",
            "count": 2,
            "sockets": 1,
            "flags": ["fpu", "lm"],
        },
        "memoryMiB": 2048,
        "disks": [
            {
                "name": "/dev/sda",
                "model": "QEMU HARDDISK",
                "vendor": "QEMU",
                "serial": "RACK0001",
                "wwn": "",
                "sizeBytes": 6442450944,
                "rotational": True,
                "byPath": "/dev/disk/by-path/pci-0000:00:04.0-scsi-0:0:0:0",
            }
        ],
        "nics": [
            {
                "name": "enp0s2",
                "macAddress": "52:54:00:aa:00:01",
                "ipAddresses": ["172.22.0.100", "fe80::5054:ff:feaa:1"],
                "hasCarrier": True,
                "speedMbps": None,
                "driver": "virtio_net",
                "pciAddress": "virtio0",
            }
        ],
        "bmcAddress": "",
    }
    assert inspection.summary == HardwareSummary(
        cpus=2, memory_mib=2048, disks=1, disk_gib=6, nics=1, vendor="RackSim", model="R1", serial="SN0001",
        mac_addresses=["52:54:00:aa:00:01"],
    )  # fmt: skip
    assert inspection.missing == ()
    assert inspection.error == ""


def test_a_report_tells_which_card_booted_and_which_architecture_it_is() -> None:
    inspection = read(body())
    assert inspection.boot_mac_address == "52:54:00:aa:00:01"
    assert inspection.architecture is Architecture.AMD64
    assert read(body(cpu={"architecture": "riscv64"})).architecture is None


def test_the_boot_card_is_known_without_its_hardware_type_too() -> None:
    report = body(boot=None) | {"boot_interface": "52:54:00:AA:00:02"}
    assert read(report).boot_mac_address == "52:54:00:aa:00:02"


@pytest.mark.parametrize(
    "placeholder",
    [
        "To Be Filled By O.E.M.",
        "to be filled by O.E.M",
        "Not Specified",
        "Default string",
        "  Default   string ",
        "System Serial Number",
        "None",
        "N/A",
        "0123456789",
    ],
)
def test_what_nobody_filled_in_is_empty(placeholder: str) -> None:
    vendor = {"product_name": placeholder, "serial_number": placeholder, "manufacturer": placeholder, "firmware": None}
    system = read(body(system_vendor=vendor)).report.system
    assert (system.vendor, system.product, system.serial) == ("", "", "")


@pytest.mark.parametrize(
    "empty",
    [
        {},
        None,
        [],
        "x",
        7,
        {"inventory": None},
        {"inventory": {"disks": None, "interfaces": {}, "cpu": [], "memory": 3}},
    ],
)
def test_a_report_of_nothing_is_an_empty_inventory_that_says_what_it_lacks(empty: object) -> None:
    inspection = read(empty)
    assert inspection.report.disks == []
    assert inspection.report.nics == []
    assert inspection.summary == HardwareSummary()
    assert inspection.missing == ("disks", "network cards", "processors", "memory")


def test_an_error_of_the_agent_is_passed_on() -> None:
    told = "The following errors were encountered:\n* collector default failed: no lshw"
    assert read({"error": told}).error == "The following errors were encountered: * collector default failed: no lshw"


def test_entries_that_make_no_sense_are_left_out_and_the_rest_is_kept() -> None:
    disks = [None, {}, {"name": None, "size": 1}, {"name": "/dev/sdb", "size": "big", "serial": ["", "S1"], "wwn": {}}]
    nics = [{"name": "eth0"}, {"name": "ib0", "mac_address": "80:00:02:08:fe:80"}, {"mac_address": "00:00:00:00:00:00"}]
    inspection = read(body(disks=disks, interfaces=nics))
    assert [(d.name, d.size_bytes, d.serial, d.wwn) for d in inspection.report.disks] == [("/dev/sdb", 0, "S1", "")]
    assert [n.name for n in inspection.report.nics] == ["ib0"]


def test_a_software_raid_array_is_no_disk() -> None:
    """Its members are: a release stops it, and no evidence of its erase could ever come."""
    disks = [{"name": f"/dev/{name}", "size": 1} for name in ("sda", "md127", "md/root", "sdb")]
    assert [disk.name for disk in read(body(disks=disks)).report.disks] == ["/dev/sda", "/dev/sdb"]


def test_spaces_inside_a_name_are_kept_because_hints_are_compared_with_them() -> None:
    (disk,) = read(body(disks=[{"name": "/dev/sda", "model": "WDC  WD40\x00 ", "serial": " S 1"}])).report.disks
    assert (disk.model, disk.serial) == ("WDC  WD40", "S 1")


def test_memory_is_what_is_built_in_or_else_what_the_kernel_has() -> None:
    assert read(body(memory={"total": 2 * 2**30, "physical_mb": None})).report.memory_mib == 2048
    assert read(body(memory={"total": True, "physical_mb": -1})).report.memory_mib == 0


@pytest.mark.parametrize(
    ("v4", "v6", "address"),
    [
        ("10.0.0.7", None, "10.0.0.7"),
        ("0.0.0.0", "fd00::7/64", "fd00::7"),  # noqa: S104 (what a BMC without an address reports)
        ("0.0.0.0", "::/0", ""),  # noqa: S104
        (None, 7, ""),
        ("bmc.example", None, ""),
    ],
)
def test_a_bmc_is_known_by_an_address_that_is_one(v4: object, v6: object, address: str) -> None:
    assert read(body(bmc_address=v4, bmc_v6address=v6)).report.bmc_address == address


def test_numbers_that_no_machine_has_are_nothing() -> None:
    garbage = json.loads('{"inventory": {"cpu": {"count": 1e999}, "memory": {"physical_mb": 1' + "0" * 40 + "}}}")
    assert read(garbage).summary == HardwareSummary()


_KEYS = st.sampled_from(
    [
        *("inventory", "interfaces", "cpu", "disks", "memory", "system_vendor", "boot", "error", "boot_interface"),
        *("name", "mac_address", "ipv4_address", "size", "serial", "wwn", "model", "count", "architecture", "flags"),
        *("total", "physical_mb", "firmware", "pxe_interface", "bmc_address", "rotational", "manufacturer"),
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS | st.text(max_size=5), inner, max_size=6),
    max_leaves=40,
)


@given(_JSON)
def test_any_json_gives_an_inventory_that_can_be_stored(value: object) -> None:
    _storable(value)


_PLACES = ("interfaces", "cpu", "disks", "memory", "system_vendor", "boot", "bmc_address", "bmc_v6address")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(_PLACES, _JSON)), _JSON)
def test_any_json_in_the_places_that_are_read_does_too(inventory: dict[str, object], error: object) -> None:
    _storable({"inventory": inventory, "error": error, "boot_interface": error})


def _storable(value: object) -> None:
    inspection = read(value, AT)
    for model in (inspection.report, BareMetalMachineStatus(hardware=inspection.summary)):
        json.dumps(model.model_dump(by_alias=True, mode="json"), ensure_ascii=False).encode()
    inspection.error.encode()
