"""Whether a disk is really erased, judged from what it held before and what it holds now.

A command that returned without an error is not evidence: firmware has been seen to accept a secure erase and do
nothing. So sectors are sampled before the erase and read again after it, together with others that nobody could
have expected.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from rackwright_ipa.disk import SECTOR, Extent, Sample

SAMPLES = 64
"""Sectors at least, per disk (fewer on one that has fewer)."""
SAMPLES_PER_PARTITION = 32
EDGE = 1 << 20
"""Bytes at both ends of a disk and of each partition that a Quick erase clears.

Every partition table, and the superblocks and labels of ext4, XFS, btrfs, LVM, md (all formats), ZFS, LUKS and swap
lie in them.
"""
_LANDMARKS = (0, 4096, 65536, -65536, -4096)
"""Where boot sectors, tables and superblocks begin; negative: from the end."""


class ErasedDisk(TypedDict):
    """One disk's evidence, as the agent answers it and the operator records it."""

    device: str
    serial: str | None
    wwn: str | None
    sizeBytes: int
    method: str
    verified: bool
    samples: int
    message: str


@dataclass(frozen=True)
class Verdict:
    """Whether an erase counts, from how many sectors, and why not."""

    verified: bool
    samples: int
    message: str = ""


def sample_offsets(
    size: int, parts: Sequence[Extent], *, sector: int = 512, dice: random.Random | None = None
) -> list[int]:
    """Where to look on a disk of `size` bytes: its landmarks, places all over it, and more where partitions are.

    Sorted, distinct, aligned to the logical `sector`, each with SECTOR bytes before the end (or 0, on a smaller disk).
    """
    dice = dice or random.SystemRandom()
    last = max(0, size - SECTOR) // sector * sector
    chosen = {min(max(0, mark if mark >= 0 else size + mark), last) // sector * sector for mark in (*_LANDMARKS, last)}
    wanted = min(SAMPLES, last // sector + 1)
    while len(chosen) < wanted:
        chosen.add(dice.randint(0, last // sector) * sector)
    for part in parts:
        low, high = part.start, min(part.end - SECTOR, last)
        if low <= high:
            chosen.add(-(-low // sector) * sector if -(-low // sector) * sector <= high else last)
            chosen.update(dice.randint(low, high) // sector * sector for _ in range(SAMPLES_PER_PARTITION))
    return sorted(chosen)


def judge_full(before: Mapping[int, Sample | None], after: Mapping[int, Sample | None], *, scrambles: bool) -> Verdict:
    """Whether every sector read after a Full erase is blank.

    `scrambles`: the method may leave anything (a crypto erase: the old data under a new key). Then a sector that
    isn't blank counts if it is known to differ from what it was; one that was not read before says nothing.
    """
    unreadable = [offset for offset, sample in after.items() if sample is None]
    if unreadable:
        return Verdict(False, len(after), f"{_some(unreadable, after)} can't be read back")
    judged = 0
    left: list[int] = []
    for offset, now in sorted(after.items()):
        was = before.get(offset)
        if (now and now.uniform) or not scrambles:
            judged += 1
            if now and not now.uniform:
                left.append(offset)
        elif was is not None:
            judged += 1
            if was == now:
                left.append(offset)
    if left:
        return Verdict(False, judged, f"{_some(left, after)} still hold data")
    if not judged:
        return Verdict(False, 0, "no sector could be compared with what it held before")
    return Verdict(True, judged)


def edges(size: int, parts: Sequence[Extent], *, sector: int = 512) -> list[Extent]:
    """The two ends of a disk and of each of its partitions: what a Quick erase clears. In order, not overlapping."""
    wanted = []
    for whole in (Extent(0, size), *parts):
        start, end = max(0, whole.start), min(whole.end, size)
        wanted += [(start, min(start + EDGE, end)), (max(end - EDGE // sector * sector, start), end)]
    merged: list[tuple[int, int]] = []
    for start, end in sorted(wanted):
        if end <= start:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return [Extent(start, end - start) for start, end in merged]


def judge_quick(cleared: Sequence[Extent], not_zero: int | None, signatures: Sequence[str]) -> Verdict:
    """Whether the ends of disk and partitions are zero and nothing recognises a signature on the disk."""
    samples = sum(-(-extent.length // SECTOR) for extent in cleared)
    if not_zero is not None:
        return Verdict(False, samples, f"the sector at byte {not_zero} still holds data")
    if signatures:
        return Verdict(False, samples, f"signatures are still found: {', '.join(signatures)}")
    return Verdict(True, samples)


def _some(offsets: Sequence[int], of: Mapping[int, object]) -> str:
    """So many sectors, and where the first is."""
    return f"{len(offsets)} of {len(of)} sampled sectors (the first at byte {min(offsets)})"
