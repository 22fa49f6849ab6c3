"""An agent's inspection, read with suspicion.

The report describes hardware of any make, through firmware that may not have been filled in, and comes from a
machine that may be broken or not ours at all. Nothing in it is worth failing for: what can't be read is left out
and named, and the rest is kept. The agent reports even if it found nothing, and says why.

Shape: the body of `POST /v1/continue_inspection` of ironic-python-agent 13.0.0 (`inspector.py`, and the
`serializable_fields` of `hardware.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from re import compile as pattern
from typing import TypeVar

from rackwright.api.inventory import (
    CPUInventory,
    DiskInventory,
    HardwareInventoryReport,
    NICInventory,
    SystemInventory,
)
from rackwright.api.machine import Architecture, HardwareSummary
from rackwright.install.sentences import presentable

_MOST_ITEMS = 1024
_MOST_MACS = 32
"""In status, which is in memory for every machine."""
_LONGEST = 255
_LARGEST = 2**63 - 1
"""What an integer of the Kubernetes API holds."""

_PLACEHOLDERS = frozenset(
    {
        "0",
        "0123456789",
        "00000000",
        "123456789",
        "1234567890",
        "asset-1234567890",
        "base board serial number",
        "chassis serial number",
        "default",
        "default string",
        "empty",
        "filled by o.e.m",
        "invalid",
        "n/a",
        "na",
        "no enclosure",
        "none",
        "not applicable",
        "not available",
        "not defined",
        "not present",
        "not provided",
        "not set",
        "not specified",
        "null",
        "o.e.m",
        "oem",
        "serial number",
        "system manufacturer",
        "system product name",
        "system serial number",
        "system version",
        "to be filled by o.e.m",
        "tbd",
        "undefined",
        "unknown",
        "unspecified",
        "xxxxxxxx",
    }
)
"""What firmware says where nobody filled in a fact, in lower case and without a full stop."""

_ARCHITECTURES = {
    "x86_64": Architecture.AMD64,
    "amd64": Architecture.AMD64,
    "aarch64": Architecture.ARM64,
    "arm64": Architecture.ARM64,
}
_HOST_INTERFACES = frozenset({"cdc_ether", "cdc_eem", "cdc_ncm", "cdc_subset", "rndis_host"})
"""Drivers of the USB network card that a BMC presents to its system; many vendors give all of them one address."""
_MAC = pattern(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an agent reported."""

    report: HardwareInventoryReport
    summary: HardwareSummary
    missing: tuple[str, ...]
    """What a machine has but the report lacks, for a person: `network cards`."""
    error: str
    """What the agent says went wrong while it looked, fit to be shown; empty if nothing did."""
    boot_mac_address: str | None
    """Of the network card that the ramdisk was booted from, as far as the agent knows."""
    architecture: Architecture | None
    """Of the processors; None for one that the API doesn't know."""


def read(body: object, at: datetime | None = None) -> Inspection:
    """The inventory in an inspection report; never raises.

    Args:
        body: the parsed JSON of the agent's request.
        at: when it came.
    """
    report = _mapping(body)
    inventory = _mapping(report.get("inventory"))
    disks = _each(inventory.get("disks"), _disk)
    nics = _each(inventory.get("interfaces"), _nic)
    cpu = _cpu(inventory.get("cpu"))
    memory = _memory_mib(inventory.get("memory"))
    present = {"disks": disks, "network cards": nics, "processors": cpu.count, "memory": memory}
    found = HardwareInventoryReport(
        collected_at=at,
        system=_system(inventory),
        cpu=cpu,
        memory_mib=memory,
        disks=disks,
        nics=nics,
        bmc_address=_bmc_address(inventory),
    )
    return Inspection(
        report=found,
        summary=summary_of(found),
        missing=tuple(name for name, value in present.items() if not value),
        error=_complaint(report.get("error")),
        boot_mac_address=_boot_mac(report, inventory),
        architecture=_ARCHITECTURES.get(cpu.architecture.lower()),
    )


def summary_of(report: HardwareInventoryReport) -> HardwareSummary:
    """The report in a line, for the machine's status."""
    return HardwareSummary(
        cpus=report.cpu.count,
        memory_mib=report.memory_mib,
        disks=len(report.disks),
        disk_gib=min(sum(disk.size_bytes for disk in report.disks) // 2**30, _LARGEST),
        nics=len(report.nics),
        vendor=report.system.vendor,
        model=report.system.product,
        serial=report.system.serial,
        mac_addresses=own_addresses(report)[:_MOST_MACS],
    )


def own_addresses(report: HardwareInventoryReport) -> list[str]:
    """Of the network cards that are the machine's alone: not its BMC's, unless there are no others."""
    own = [nic for nic in report.nics if nic.driver not in _HOST_INTERFACES] or report.nics
    return list(dict.fromkeys(nic.mac_address for nic in own))


def _disk(entry: Mapping[str, object]) -> DiskInventory | None:
    name = _text(entry.get("name"))
    if not name or name.startswith("/dev/md"):  # a software RAID array is no disk: its members are, and are listed
        return None
    return DiskInventory(
        name=name,
        model=_fact(entry.get("model")),
        vendor=_fact(entry.get("vendor")),
        serial=identifier(entry.get("serial")),
        wwn=identifier(entry.get("wwn")),
        size_bytes=_number(entry.get("size")),
        rotational=entry.get("rotational") is True,
        by_path=_text(entry.get("by_path")),
    )


def _nic(entry: Mapping[str, object]) -> NICInventory | None:
    mac = _mac(entry.get("mac_address"))
    if mac is None:
        return None
    addresses = (_address(entry.get(family)) for family in ("ipv4_address", "ipv6_address"))
    return NICInventory(
        name=_text(entry.get("name")),
        mac_address=mac,
        ip_addresses=[address for address in addresses if address],
        has_carrier=entry.get("has_carrier") is True,
        speed_mbps=_number(entry.get("speed_mbps")) or None,
        driver=_text(entry.get("driver")),
        pci_address=_text(entry.get("pci_address")),
    )


def _cpu(value: object) -> CPUInventory:
    cpu = _mapping(value)
    flags = cpu.get("flags")
    return CPUInventory(
        model=_fact(cpu.get("model_name")),
        architecture=_text(cpu.get("architecture")),
        count=_number(cpu.get("count")),
        sockets=_number(cpu.get("socket_count")),
        flags=[text for flag in flags[:_MOST_ITEMS] if (text := _text(flag))] if isinstance(flags, list) else [],
    )


def _memory_mib(value: object) -> int:
    """What is built in; if the firmware doesn't say, what the kernel has, which is a little less."""
    memory = _mapping(value)
    return _number(memory.get("physical_mb")) or _number(memory.get("total")) // 2**20


def _system(inventory: Mapping[str, object]) -> SystemInventory:
    vendor = _mapping(inventory.get("system_vendor"))
    firmware = _mapping(vendor.get("firmware"))
    return SystemInventory(
        vendor=_fact(vendor.get("manufacturer")),
        product=_fact(vendor.get("product_name")),
        serial=_fact(vendor.get("serial_number")),
        firmware_vendor=_fact(firmware.get("vendor")),
        firmware_version=_fact(firmware.get("version")),
        boot_mode=_text(_mapping(inventory.get("boot")).get("current_boot_mode")),
    )


def _bmc_address(inventory: Mapping[str, object]) -> str:
    """IPv4 if the BMC has that; one without an address says so with `0.0.0.0` or `::`."""
    return next((a for name in ("bmc_address", "bmc_v6address") if (a := _address(inventory.get(name)))), "")


def _boot_mac(report: Mapping[str, object], inventory: Mapping[str, object]) -> str | None:
    """A PXE client writes its hardware type in front: `01-52-54-00-aa-00-01`."""
    boot = _mapping(inventory.get("boot"))
    for value in (boot.get("pxe_interface"), report.get("boot_interface")):
        text = _text(value).lower().replace("-", ":")
        if mac := _mac(text.removeprefix("01:") if len(text) > len("00:00:00:00:00:00") else text):
            return mac
    return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _each(value: object, make: Callable[[Mapping[str, object]], _T | None]) -> list[_T]:
    items = value[:_MOST_ITEMS] if isinstance(value, list) else []
    return [made for item in items if isinstance(item, Mapping) and (made := make(item)) is not None]


def identifier(value: object) -> str:
    """A disk's serial number or WWN; empty for a placeholder. Some hardware managers list several of one disk."""
    return _fact(next((item for item in value if item), None) if isinstance(value, list) else value)


def _text(value: object) -> str:
    """Text without what can't be printed or stored; empty for what isn't text.

    Spaces inside stay as they are: root device hints are copied from here and compared with what the agent has.
    """
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in value).strip()[:_LONGEST].rstrip()


def _complaint(value: object) -> str:
    return presentable(value, 1024) if isinstance(value, str) else ""


def _fact(value: object) -> str:
    """Text that says something: not one of firmware's placeholders."""
    text = _text(value)
    return "" if " ".join(text.lower().split()).rstrip(".") in _PLACEHOLDERS else text


def _number(value: object) -> int:
    """A count or size; 0 for what isn't one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return int(value) if 0 <= value <= _LARGEST else 0


def _mac(value: object) -> str | None:
    text = _text(value).lower()
    return text if _MAC.fullmatch(text) and text != "00:00:00:00:00:00" else None


def _address(value: object) -> str:
    """An IP address without its zone or prefix length; empty for none."""
    text = _text(value).partition("/")[0].partition("%")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    return "" if address.is_unspecified else str(address)
