"""The operator and the agent choose the same disk, and what can't fit is known before anything boots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from rackwright.api.image import OperatingSystemImageSpec
from rackwright.api.inventory import DiskInventory
from rackwright.api.machine import BareMetalMachineSpec, BootMode, RootDeviceHints
from rackwright.install.image import (
    RootDisk,
    disk_for,
    identity,
    image_info,
    left_behind,
    misfit,
    root_device,
    root_disk,
)

GIB = 2**30
SHA256 = "ab" * 32
SHA512 = "cd" * 64


def disk(name: str = "/dev/sda", gib: float = 8, **facts: Any) -> DiskInventory:
    return DiskInventory(name=name, size_bytes=int(gib * GIB), **facts)


def image(**changes: Any) -> OperatingSystemImageSpec:
    return OperatingSystemImageSpec(
        **{"url": "http://10.0.0.1/debian.raw", "checksum": f"sha256:{SHA256}", "format": "raw"} | changes
    )


def machine(hints: RootDeviceHints | None = None, **changes: Any) -> BareMetalMachineSpec:
    storage = {"rootDeviceHints": hints.model_dump() if hints else None}
    return BareMetalMachineSpec.model_validate({"storage": storage} | changes)


def test_a_raw_image_is_streamed() -> None:
    assert image_info(image(), uid="6b1c", boot_mode=BootMode.UEFI) == {
        "id": f"sha256-{SHA256[:24]}",
        "urls": ["http://10.0.0.1/debian.raw"],
        "disk_format": "raw",
        "container_format": "bare",
        "image_type": "whole-disk",
        "os_hash_algo": "sha256",
        "os_hash_value": SHA256,
        "stream_raw_images": True,
        "node_uuid": "6b1c",
        "deploy_boot_mode": "uefi",
    }


def test_a_qcow2_image_for_a_legacy_machine_is_not_streamed() -> None:
    info = image_info(image(format="qcow2", checksum=f"sha512:{SHA512}"), uid="6b1c", boot_mode=BootMode.LEGACY)
    assert info["stream_raw_images"] is False
    assert info["deploy_boot_mode"] == "bios"
    assert (info["os_hash_algo"], info["os_hash_value"]) == ("sha512", SHA512)


@pytest.mark.parametrize(
    ("hints", "expected"),
    [
        (None, {}),
        (RootDeviceHints(), {}),
        (RootDeviceHints(device_name="/dev/sda"), {"name": "s== /dev/sda"}),
        (RootDeviceHints(device_name="/dev/disk/by-path/pci-0"), {"by_path": "s== /dev/disk/by-path/pci-0"}),
        (RootDeviceHints(serial="S1", wwn="0x5000"), {"serial": "s== S1", "wwn": "s== 0x5000"}),
        (RootDeviceHints(model="PM9A3", min_size_gib=40), {"model": "<in> PM9A3", "size": ">= 40"}),
        (RootDeviceHints(rotational=False), {"rotational": False}),
    ],
)
def test_hints_are_said_in_the_agents_words(hints: RootDeviceHints | None, expected: dict[str, str | bool]) -> None:
    assert root_device(hints) == expected


def test_without_hints_the_smallest_disk_of_4_gib_or_more_is_chosen() -> None:
    disks = [disk("/dev/sda", 3.9), disk("/dev/sdb", 100), disk("/dev/sdd", 4), disk("/dev/sdc", 4)]
    assert disk_for(None, disks) == disks[3]
    assert disk_for(RootDeviceHints(), disks) == disks[3]


def test_hints_lift_the_minimum_of_4_gib() -> None:
    small = disk(gib=3)
    assert disk_for(None, [small]) is None
    assert disk_for(RootDeviceHints(min_size_gib=1), [small]) == small
    assert disk_for(RootDeviceHints(device_name="/dev/sda"), [small]) == small


def test_with_hints_the_first_disk_that_matches_all_of_them_is_chosen() -> None:
    disks = [disk("/dev/sda", 80, rotational=True), disk("/dev/sdb", 60), disk("/dev/sdc", 50)]
    assert disk_for(RootDeviceHints(min_size_gib=40, rotational=False), disks) == disks[1]


@pytest.mark.parametrize(
    ("hints", "matches"),
    [
        (RootDeviceHints(model="harddisk"), True),
        (RootDeviceHints(model="qemu hard"), True),
        (RootDeviceHints(model="PM9A3"), False),
        (RootDeviceHints(model=""), False),
        (RootDeviceHints(serial="rack0001"), True),
        (RootDeviceHints(serial="RACK"), False),
        (RootDeviceHints(serial=""), False),
        (RootDeviceHints(wwn="0x5000C500"), True),
        (RootDeviceHints(wwn="0x5000c500", serial="other"), False),
        (RootDeviceHints(device_name="/dev/disk/by-path/pci-0000:00:04.0"), True),
        (RootDeviceHints(device_name="/dev/sdb"), False),
        (RootDeviceHints(min_size_gib=8), True),
        (RootDeviceHints(min_size_gib=9), False),
        (RootDeviceHints(rotational=True), True),
        (RootDeviceHints(rotational=False), False),
    ],
)
def test_a_hint_matches_as_the_agent_matches(hints: RootDeviceHints, *, matches: bool) -> None:
    only = disk(
        model="QEMU HARDDISK",
        serial="RACK0001",
        wwn="0x5000c500",
        rotational=True,
        by_path="/dev/disk/by-path/pci-0000:00:04.0",
    )
    assert disk_for(hints, [only]) == (only if matches else None)


def test_a_hint_does_not_match_a_disk_that_lacks_the_fact() -> None:
    assert disk_for(RootDeviceHints(serial="S1"), [disk()]) is None


def test_an_image_that_fits_is_no_misfit() -> None:
    assert misfit(image(min_disk="8Gi"), machine(), [disk()]) is None


def test_without_an_inventory_the_disks_are_left_to_the_agent() -> None:
    assert misfit(image(min_disk="8Gi"), machine(RootDeviceHints(serial="S1")), None) is None


@pytest.mark.parametrize(
    ("image_", "machine_", "disks", "reason", "says"),
    [
        (
            image(architecture="arm64"),
            machine(),
            [disk()],
            "ArchitectureMismatch",
            "runs on arm64 and the machine is amd64",
        ),
        (image(), machine(), [], "NoMatchingDisk", "shows no disk"),
        (image(), machine(), [disk(gib=3)], "NoMatchingDisk", "4 GiB or more"),
        (image(), machine(RootDeviceHints(serial="S1")), [disk()], "NoMatchingDisk", "rootDeviceHints"),
        (image(min_disk="9Gi"), machine(), [disk()], "DiskTooSmall", "needs 9Gi and /dev/sda has 8.0Gi"),
    ],
)
def test_a_misfit_is_told_before_anything_boots(
    image_: OperatingSystemImageSpec,
    machine_: BareMetalMachineSpec,
    disks: list[DiskInventory],
    reason: str,
    says: str,
) -> None:
    fault = misfit(image_, machine_, disks)
    assert fault is not None
    assert fault.reason == reason
    assert says in fault.message


BY_PATH = "/dev/disk/by-path/pci-0"


@pytest.mark.parametrize(
    ("facts", "identity_", "hints"),
    [
        ({"serial": "S1", "wwn": "0x5000", "by_path": BY_PATH}, "S1", {"serial": "s== S1", "wwn": "s== 0x5000"}),
        ({"wwn": "0x5000", "by_path": BY_PATH}, "0x5000", {"wwn": "s== 0x5000"}),
        ({"by_path": BY_PATH}, BY_PATH, {"by_path": f"s== {BY_PATH}"}),
        ({}, "/dev/sda", {"name": "s== /dev/sda"}),
    ],
)
def test_a_disk_is_known_by_what_stays_with_it_and_told_to_the_agent_by_that(
    facts: Mapping[str, Any], identity_: str, hints: Mapping[str, str]
) -> None:
    only = disk(**facts)
    assert identity(only, [only]) == identity_
    assert root_disk(None, [only]) == RootDisk(identity_, hints)


def test_two_disks_that_could_both_be_the_root_disk_are_told_apart_at_the_next_boot() -> None:
    """Kernel names are given anew; by them the agent would take whichever comes first."""
    first, second = disk("/dev/nvme0n1", serial="S1"), disk("/dev/nvme1n1", serial="S2")
    assert root_disk(None, [first, second]) == RootDisk("S1", {"serial": "s== S1"})
    assert root_disk(RootDeviceHints(min_size_gib=4), [second, first]) == RootDisk("S2", {"serial": "s== S2"})


def test_namespaces_that_share_their_controllers_serial_number_are_told_apart() -> None:
    both = [disk("/dev/nvme0n1", serial="S1", wwn="eui.1"), disk("/dev/nvme0n2", serial="S1", wwn="eui.2")]
    assert [identity(each, both) for each in both] == ["eui.1", "eui.2"]
    chosen = root_disk(RootDeviceHints(wwn="eui.2"), both)
    assert chosen == RootDisk("eui.2", {"serial": "s== S1", "wwn": "s== eui.2"})
    assert left_behind("eui.1", chosen.identity, both) == "eui.1"


def test_a_disk_that_no_hint_matches_is_no_root_disk() -> None:
    assert root_disk(RootDeviceHints(serial="S1"), [disk()]) is None


def test_what_is_installed_on_another_disk_could_start_instead_of_the_image() -> None:
    system, data = disk("/dev/sda", serial="SYSTEM"), disk("/dev/sdb", serial="DATA")

    assert left_behind("SYSTEM", "DATA", [system, data]) == "SYSTEM"
    assert left_behind("SYSTEM", "SYSTEM", [system, data]) is None
    assert left_behind("SYSTEM", "DATA", [data]) is None, "a disk that was taken out starts nothing"
    assert left_behind(None, "DATA", [system, data]) is None, "nobody knows where it was written to"
    assert left_behind("SYSTEM", None, [system, data]) is None, "no disk is chosen, which is another fault"
