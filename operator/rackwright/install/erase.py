"""Erasing a machine's disks, and the evidence for it.

A release is believed only with evidence for every disk: what the ramdisk's plug-in did to it and whether reading
it back showed that it worked. The agent's answer is input from a machine that may be broken, so that whatever is
not well-formed evidence is a fault rather than a guess.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rackwright.api.inventory import DiskInventory
from rackwright.api.machine import EraseMode, Erasure, HardwareSummary
from rackwright.install.sentences import presentable
from rackwright.install.steps import JSON, clean_step
from rackwright.inventory.report import identifier
from rackwright.lifecycle.world import Blame, Fault

STEP = "erase_disks"
"""The plug-in's step."""

NOT_ERASED = frozenset({"None", "Failed"})
"""Methods that leave a disk as it was."""

_MOST_DISKS = 1024

_TRAITS = (("wwn", "wwn"), ("serial", "serial"), ("name", "device"))
"""What a disk is told by, the surest first: as the inventory and as the evidence call it."""


def parameters(
    mode: EraseMode,
    *,
    node: Mapping[str, JSON],
    mac_addresses: Iterable[str],
    clean_version: Mapping[str, JSON] | None,
) -> dict[str, JSON]:
    """Parameters of `clean.execute_clean_step` that erase every disk; see `steps.clean_step`.

    Raises:
        ValueError: for the mode None, which asks the agent for nothing.
    """
    if mode is EraseMode.NONE:
        raise ValueError("nothing is erased with the mode None")
    return clean_step(STEP, {"mode": mode.value}, node=node, mac_addresses=mac_addresses, clean_version=clean_version)


def evidence(command_result: object, at: datetime) -> tuple[Erasure, ...] | Fault:
    """What the step reports, one entry a disk.

    Args:
        command_result: of the agent's command: `{"clean_result": [{"device", "serial", "wwn", "sizeBytes",
            "method", "verified", "samples", "message"}, ...]}`. An empty list means that the ramdisk saw no disk:
            compare with the inventory (`unseen`) before believing it.
        at: when the command ended.
    """
    entries = command_result.get("clean_result") if isinstance(command_result, Mapping) else None
    if not isinstance(entries, list) or len(entries) > _MOST_DISKS:
        return _unreadable("its result is no list of disks")
    found = []
    for number, entry in enumerate(entries, start=1):
        match entry:
            case {"device": str(device), "method": str(method), "verified": bool(verified)} if device and method:
                found.append(
                    Erasure(
                        device=presentable(device, 255),
                        serial=identifier(entry.get("serial")),
                        wwn=identifier(entry.get("wwn")),
                        method=presentable(method, 100),
                        verified=verified and method not in NOT_ERASED,
                        message=_text(entry, "message") or _read_back(entry),
                        at=at,
                    )
                )
            case _:
                return _unreadable(f"disk {number} of {len(entries)} lacks its device, method or verification")
    return tuple(found)


def unseen(found: Sequence[Erasure], disks: Iterable[DiskInventory]) -> tuple[DiskInventory, ...]:
    """Disks of the inventory that the evidence doesn't speak of; each needs an entry of its own.

    By WWN, else by serial number, else by name, and never against what both have: the namespaces of an NVMe controller
    and the LUNs of a disk with two actuators share a serial number. Two of one WWN and one serial number are paths to
    one disk.

    One that was taken out takes its data with it, one whose cable is loose comes back with it: somebody must look.
    """
    left = list({(disk.wwn, disk.serial) if disk.wwn and disk.serial else disk.name: disk for disk in disks}.values())
    free = list(found)
    for ours, theirs in _TRAITS:
        sharing: defaultdict[str, list[Erasure]] = defaultdict(list)
        for erasure in free:
            sharing[getattr(erasure, theirs)].append(erasure)
        left = [disk for disk in left if not (getattr(disk, ours) and _takes(disk, sharing[getattr(disk, ours)]))]
        free = [erasure for those in sharing.values() for erasure in those]
    return tuple(left)


def _takes(disk: DiskInventory, candidates: list[Erasure]) -> bool:
    """Whether one of them is this disk's, which is no other's then."""
    for number, erasure in enumerate(candidates):
        both = ((disk.wwn, erasure.wwn), (disk.serial, erasure.serial))
        if all(ours == theirs for ours, theirs in both if ours and theirs):
            del candidates[number]
            return True
    return False


def missing(
    found: Sequence[Erasure], disks: Iterable[DiskInventory] | None, hardware: HardwareSummary | None, now: datetime
) -> tuple[Erasure, ...]:
    """What the machine has and the erase doesn't speak of, which is therefore not erased.

    Args:
        found: the evidence.
        disks: from the HardwareInventory; None if that is gone.
        hardware: its summary in status, which still has their number then.
        now: when to say that it was, if there is no evidence at all.
    """
    at = found[0].at if found else now
    if disks is not None:
        look = "It is in the inventory, and the ramdisk did not see it: look for a loose cable or a dead disk."
        return tuple(_not_seen(disk.name, disk.serial, disk.wwn, look, at) for disk in unseen(found, disks))
    fewer = hardware.disks - len(found) if hardware is not None else 0
    look = "The HardwareInventory that names it is gone: look for a loose cable or a dead disk."
    return tuple(_not_seen(f"disk {len(found) + number + 1}", "", "", look, at) for number in range(fewer))


def _not_seen(device: str, serial: str, wwn: str, message: str, at: datetime) -> Erasure:
    return Erasure(device=device, serial=serial, wwn=wwn, method="Failed", verified=False, message=message, at=at)


def _text(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name)
    return presentable(value) if isinstance(value, str) else ""


def _read_back(entry: Mapping[str, object]) -> str:
    match entry.get("samples"):
        case int(samples) if samples > 0:
            return f"{samples} sampled sectors were read back."
        case _:
            return ""


def _unreadable(why: str) -> Fault:
    return Fault(
        Blame.AGENT,
        "EraseResultUnreadable",
        f"The ramdisk's evidence of the erase can't be read, {why}; boot the ramdisk that was built for this operator",
    )
