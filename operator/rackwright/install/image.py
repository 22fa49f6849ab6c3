"""Which disk an image goes to, and what the agent is told about it.

The disk is chosen here, from the inventory, so that a machine on which it can't end well is never booted for it. The
agent is told of that one disk, by what stays with it: kernel names are given anew at each boot, the agent lists disks
in their order, and takes RAID arrays that it finds on them for disks too. Only where there is no inventory does the
agent choose, by the same rule (`device_hints.py` and `utils.guess_root_disk` of ironic-python-agent 13.0.0):

- With hints: the first disk, in the inventory's order, that matches every one of them. Text is compared without
  regard to case. There is **no minimum size**: a 3 GiB disk is fine if hints name it.
- Without hints: the smallest disk of at least 4 GiB; among equals the first by name.

A hint matches what the HardwareInventory shows. The agent also knows a few other spellings of a serial number or
WWN (udev's long ones); they are not in its report, so they count as no match here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

from rackwright.api.image import OperatingSystemImageSpec, size_in_bytes
from rackwright.api.inventory import DiskInventory
from rackwright.api.machine import BareMetalMachineSpec, BootMode, RootDeviceHints
from rackwright.install.steps import JSON
from rackwright.lifecycle.world import Blame, Fault

PREPARE_IMAGE = "standby.prepare_image"
"""The command whose parameters are `{"image_info": image_info(...), "configdrive": seed.config_drive(...)}`.

Not to be repeated while the ramdisk stays up: a second one finds the first one's config drive in its way.
"""

SMALLEST_ROOT_DISK = 4 * 2**30
"""Bytes a disk must have to be chosen without hints; `utils.guess_root_disk`."""

_BY_PATH = "/dev/disk/by-path/"


def image_info(image: OperatingSystemImageSpec, *, uid: str, boot_mode: BootMode) -> dict[str, JSON]:
    """The image as `standby.prepare_image` wants it.

    Args:
        image: what to write.
        uid: the machine's.
        boot_mode: the firmware's way of booting.
    """
    algorithm, _, digest = image.checksum.partition(":")
    return {
        "id": f"{algorithm}-{digest[:24]}",  # also a file name in the ramdisk, so no slash and nothing of the user's
        "urls": [image.url],
        "disk_format": image.format,
        "container_format": "bare",
        "image_type": "whole-disk",
        "os_hash_algo": algorithm,
        "os_hash_value": digest,
        "stream_raw_images": image.format == "raw",
        "node_uuid": uid,
        "deploy_boot_mode": "bios" if boot_mode is BootMode.LEGACY else "uefi",
    }


def root_device(hints: RootDeviceHints | None) -> dict[str, str | bool]:
    """The hints as `properties.root_device` of the agent's node; empty without any.

    An operator in front of each value keeps the agent from finding one in the value.
    """
    if hints is None:
        return {}
    wanted: dict[str, str | bool] = {}
    if hints.device_name is not None:
        wanted["by_path" if hints.device_name.startswith(_BY_PATH) else "name"] = _exactly(hints.device_name)
    if hints.serial is not None:
        wanted["serial"] = _exactly(hints.serial)
    if hints.wwn is not None:
        wanted["wwn"] = _exactly(hints.wwn)
    if hints.model is not None:
        wanted["model"] = f"<in> {hints.model}"
    if hints.min_size_gib is not None:
        wanted["size"] = f">= {hints.min_size_gib}"
    if hints.rotational is not None:
        wanted["rotational"] = hints.rotational
    return wanted


def disk_for(hints: RootDeviceHints | None, disks: Sequence[DiskInventory]) -> DiskInventory | None:
    """The first disk that may be the root disk, None if none may; see the module for the rule."""
    if not root_device(hints) or hints is None:
        large = [disk for disk in disks if disk.size_bytes >= SMALLEST_ROOT_DISK]
        return min(large, key=lambda disk: (disk.size_bytes, disk.name), default=None)
    return next((disk for disk in disks if _matches(disk, hints)), None)


class RootDisk(NamedTuple):
    """The disk that an image goes to."""

    identity: str
    """What tells it from the machine's others: see `identity`."""
    hints: Mapping[str, str]
    """It and no other, as `properties.root_device` of the agent's node."""


def identity(disk: DiskInventory, disks: Sequence[DiskInventory]) -> str:
    """What tells a disk from all the machine's others, and stays with it wherever it is plugged in if it has a number.

    Two may have one serial number: namespaces of an NVMe device have that of their controller.
    """
    for number, name in enumerate(_lasting(disk)):
        if name and [_lasting(each)[number] for each in disks].count(name) == 1:
            return name
    return disk.name


def _lasting(disk: DiskInventory) -> tuple[str, ...]:
    """What may tell a disk from others at the next boot too, the best first."""
    return disk.serial, disk.wwn, disk.by_path


def root_disk(hints: RootDeviceHints | None, disks: Sequence[DiskInventory]) -> RootDisk | None:
    """The disk that an image would go to, None if no disk can be it."""
    disk = disk_for(hints, disks)
    if disk is None:
        return None
    numbers = {name: _exactly(number) for name, number in (("serial", disk.serial), ("wwn", disk.wwn)) if number}
    place = {"by_path": _exactly(disk.by_path)} if disk.by_path else {"name": _exactly(disk.name)}
    return RootDisk(identity(disk, disks), numbers or place)


def left_behind(holds: str | None, chosen: str | None, disks: Sequence[DiskInventory]) -> str | None:
    """The disk that would keep what is installed, which could then start instead of the image; by its identity.

    Args:
        holds: the disk that was written to before, if any was.
        chosen: the disk that would be written to now.
        disks: from the inventory; from a disk that isn't there any more nothing starts.
    """
    present = any(holds == identity(disk, disks) for disk in disks)
    return holds if present and chosen not in (None, holds) else None


def misfit(
    image: OperatingSystemImageSpec, machine: BareMetalMachineSpec, disks: Sequence[DiskInventory] | None
) -> Fault | None:
    """Why this image can't be installed on this machine, as far as that can be known without booting it.

    Args:
        image: what is to be installed.
        machine: its architecture and its root device hints.
        disks: from its inventory; None if there is none, and the disks are then left to the agent.
    """
    if image.architecture is not machine.architecture:
        return Fault(
            Blame.CONFIGURATION,
            "ArchitectureMismatch",
            f"The image runs on {image.architecture.value} and the machine is {machine.architecture.value}; "
            "choose an OperatingSystemImage for the machine's architecture",
        )
    if disks is None:
        return None
    if not disks:
        return Fault(
            Blame.DISK,
            "NoMatchingDisk",
            "The inventory shows no disk; check the disks and their controller, then recommission",
        )
    hints = machine.storage.root_device_hints
    disk = disk_for(hints, disks)
    if disk is None:
        hinted = "matches all of spec.storage.rootDeviceHints; compare them with the machine's HardwareInventory"
        unhinted = "has 4 GiB or more; name one in spec.storage.rootDeviceHints, which lifts that limit"
        why = hinted if root_device(hints) else unhinted
        return Fault(Blame.DISK, "NoMatchingDisk", f"None of the inventory's disks ({len(disks)}) {why}")
    if image.min_disk is not None and disk.size_bytes < size_in_bytes(image.min_disk):
        return Fault(
            Blame.DISK,
            "DiskTooSmall",
            f"The image needs {image.min_disk} and {disk.name} has {disk.size_bytes / 2**30:.1f}Gi; "
            "choose a larger disk in spec.storage.rootDeviceHints",
        )
    return None


def _matches(disk: DiskInventory, hints: RootDeviceHints) -> bool:
    by_path = hints.device_name is not None and hints.device_name.startswith(_BY_PATH)
    texts: tuple[tuple[str | None, str, Callable[[str, str], bool]], ...] = (
        (hints.device_name, disk.by_path if by_path else disk.name, _equal),
        (hints.serial, disk.serial, _equal),
        (hints.wwn, disk.wwn, _equal),
        (hints.model, disk.model, _contained),
    )
    return (
        all(wanted is None or compare(_normal(wanted), _normal(found)) for wanted, found, compare in texts)
        and (hints.min_size_gib is None or disk.size_bytes / 2**30 >= hints.min_size_gib)
        and (hints.rotational is None or disk.rotational is hints.rotational)
    )


def _exactly(value: str) -> str:
    return f"s== {value}"


def _normal(text: str) -> str:
    """As the agent compares: lower case, and quoted, which matters for a part of a text."""
    return quote(text.strip().lower())


def _equal(wanted: str, found: str) -> bool:
    return bool(wanted) and wanted == found


def _contained(wanted: str, found: str) -> bool:
    return bool(wanted) and wanted in found
