"""What a simulated machine is made of: the report that its ramdisk sends, in ironic-python-agent's shape.

All of it follows from the machine's identity, so that a machine that is commissioned again, or by another operator, is
the same machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

_FIRST_ADDRESS = IPv4Address("198.18.0.1")
"""RFC 2544: addresses for benchmarks, which no network routes."""
_ADDRESSES = 2**17 - 2
_ROOT_BYTES, _DATA_BYTES = 480 * 10**9, 1920 * 10**9


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk, without what is on it."""

    name: str
    serial: str
    size: int
    model: str = "Simulated NVMe"


def disks(identity: str, count: int) -> tuple[Disk, ...]:
    """Its disks: a small one, which an image goes to unless hints say otherwise, and larger ones."""
    prefix = serial(identity)
    return tuple(
        Disk(f"/dev/nvme{number}n1", f"{prefix}-{number}", _DATA_BYTES if number else _ROOT_BYTES)
        for number in range(count)
    )


def serial(identity: str) -> str:
    """The machine's serial number."""
    return f"SIM{identity.replace(':', '').upper()}"


def address(number: int) -> IPv4Address:
    """The address that DHCP would have given to this many-th machine."""
    return _FIRST_ADDRESS + number % _ADDRESSES


def report(identity: str, mac: str, count: int, at: IPv4Address) -> dict[str, object]:
    """The body of `POST /v1/continue_inspection`."""
    return {
        "inventory": {
            "cpu": {
                "model_name": "Simulated CPU",
                "architecture": "x86_64",
                "count": 64,
                "socket_count": 2,
                "flags": ["lm"],
            },
            "memory": {"physical_mb": 262144, "total": 262144 * 2**20},
            "disks": [
                {"name": disk.name, "model": disk.model, "serial": disk.serial, "size": disk.size, "rotational": False}
                for disk in disks(identity, count)
            ],
            "interfaces": [
                {
                    "name": "eno1",
                    "mac_address": mac,
                    "ipv4_address": str(at),
                    "has_carrier": True,
                    "speed_mbps": 25000,
                    "driver": "simulated",
                }
            ],
            "system_vendor": {
                "manufacturer": "Rackwright",
                "product_name": "Simulated machine",
                "serial_number": serial(identity),
                "firmware": {"vendor": "Rackwright", "version": "1"},
            },
            "boot": {"current_boot_mode": "uefi", "pxe_interface": mac},
        },
        "boot_interface": mac,
    }
