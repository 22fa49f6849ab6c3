"""HardwareInventory: the whole of what the agent saw, kept out of the machine object so that watching stays cheap.

It has its machine's name and is owned by it. Nothing is wanted of it, so it has no spec and no status: the report
is the object.
"""

from __future__ import annotations

from pydantic import Field, computed_field
from pydantic.dataclasses import dataclass

from rackwright.api.fields import CONFIG, Model, Time


class CPUInventory(Model):
    """The processors."""

    model: str = Field(default="", description="Model name.")
    architecture: str = Field(default="", description="As the kernel calls it, like x86_64.")
    count: int = Field(default=0, description="Logical processors.")
    sockets: int = Field(default=0, description="Processor sockets in use.")
    flags: list[str] = Field(default=[], description="Features that the processors offer.")


@dataclass(config=CONFIG, frozen=True, slots=True, kw_only=True)
class DiskInventory:
    """One disk."""

    name: str = Field(description="Kernel name, like /dev/sda.")
    model: str = Field(default="", description="Model.")
    vendor: str = Field(default="", description="Vendor.")
    serial: str = Field(default="", description="Serial number.")
    wwn: str = Field(default="", description="World-wide name.")
    size_bytes: int = Field(default=0, description="Size in bytes.")
    rotational: bool = Field(default=False, description="True for spinning disks.")
    by_path: str = Field(default="", description="Stable name by bus position.")


class NICInventory(Model):
    """One network card."""

    name: str = Field(description="Kernel name, like enp1s0.")
    mac_address: str = Field(description="Hardware address.")
    ip_addresses: list[str] = Field(default=[], description="Addresses it had in the ramdisk.")
    has_carrier: bool = Field(
        default=False, description="Whether a cable with something at its other end is plugged in."
    )
    speed_mbps: int | None = Field(default=None, description="Link speed in Mb/s.")
    driver: str = Field(default="", description="Kernel driver.")
    pci_address: str = Field(default="", description="Position on the bus.")


class SystemInventory(Model):
    """The system as its firmware describes it."""

    vendor: str = Field(default="", description="Manufacturer.")
    product: str = Field(default="", description="Product name.")
    serial: str = Field(default="", description="Serial number.")
    firmware_vendor: str = Field(default="", description="Vendor of the firmware.")
    firmware_version: str = Field(default="", description="Version of the firmware.")
    boot_mode: str = Field(default="", description="How the ramdisk was booted: uefi or bios.")


class HardwareInventoryReport(Model):
    """One inspection."""

    collected_at: Time | None = Field(default=None, description="When the agent reported.")
    system: SystemInventory = Field(default=SystemInventory(), description="The system.")
    cpu: CPUInventory = Field(default=CPUInventory(), description="The processors.")
    memory_mib: int = Field(default=0, description="Physical memory in MiB.")
    disks: list[DiskInventory] = Field(default=[], description="The disks.")
    nics: list[NICInventory] = Field(default=[], description="The network cards.")
    bmc_address: str = Field(
        default="", description="The BMC's address as seen from inside; empty where none was seen."
    )
    bios_attributes: dict[str, str] = Field(
        default={},
        description=(
            "BIOS attributes as the BMC reported them, without those whose names sound like a secret's: password, "
            "token, key and their like."
        ),
    )

    @computed_field(description="Number of disks, for the column that a list's length can't fill.")
    def disk_count(self) -> int:
        """The number of disks."""
        return len(self.disks)
