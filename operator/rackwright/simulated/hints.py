"""Which disk a simulated agent writes to: root device hints as ironic-python-agent reads them.

`install.image` makes the hints and foretells the same choice from the inventory; this reads what really arrives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rackwright.simulated.hardware import Disk


def root_disk(disks: Sequence[Disk], hints: Mapping[str, str | int | bool]) -> int:
    """The first disk that matches every hint; without any, the smallest. The first one where none does."""
    if not hints:
        return min(range(len(disks)), key=lambda number: (disks[number].size, disks[number].name))
    return next((number for number, disk in enumerate(disks) if all(_matches(disk, *it) for it in hints.items())), 0)


def _matches(disk: Disk, name: str, wanted: str | int | bool) -> bool:
    operator, _, value = str(wanted).partition(" ")
    match name, operator:
        case "name" | "serial" | "model", "s==" | "<in>":
            there = {"name": disk.name, "serial": disk.serial, "model": disk.model}[name].lower()
            return value.lower() == there if operator == "s==" else value.lower() in there
        case "size", ">=":
            return disk.size / 2**30 >= float(value)
        case "rotational", _:
            return wanted is False
        case _:
            return False
