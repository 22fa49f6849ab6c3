"""Reading and clearing a disk for what is really on it, past the page cache.

A read that the kernel answers from memory proves nothing about the medium, so everything here opens the device with
O_DIRECT (open(2)). Offsets and lengths are in bytes and multiples of the disk's logical sector.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SECTOR = 4096
"""Bytes that one sample reads: a physical sector of current disks, a whole number of any disk's logical ones."""
_CHUNK = 1 << 20
_SYSFS_SECTOR = 512
"""The unit of `start` and `size` in sysfs, whatever the disk's own sector is."""


@dataclass(frozen=True)
class Extent:
    """A stretch of a disk, in bytes."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.length


@dataclass(frozen=True)
class Sample:
    """What one sector held: enough to see that it changed, not enough to know what it was."""

    digest: bytes
    uniform: bool
    """Every byte 0x00, or every byte 0xFF."""


def sampled(sector: bytes) -> Sample:
    """The sample of a sector's content."""
    uniform = sector.count(0) == len(sector) or sector.count(0xFF) == len(sector)
    return Sample(hashlib.blake2b(sector, digest_size=16).digest(), uniform)


def read_samples(device: Path, size: int, offsets: Iterable[int]) -> dict[int, Sample | None]:
    """One sector at each offset; None where the disk refused to read it."""
    found: dict[int, Sample | None] = {}
    with _opened(device, os.O_RDONLY) as descriptor:
        for offset in offsets:
            try:
                found[offset] = sampled(_read(descriptor, offset, min(SECTOR, size - offset)))
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                found[offset] = None
    return found


def first_not_zero(device: Path, extents: Iterable[Extent]) -> int | None:
    """Where the first byte that isn't zero is, to within a sector; None if the extents are blank."""
    with _opened(device, os.O_RDONLY) as descriptor:
        for extent in extents:
            for offset in range(extent.start, extent.end, _CHUNK):
                content = _read(descriptor, offset, min(_CHUNK, extent.end - offset))
                if content.count(0) != len(content):
                    return offset + next(i for i, byte in enumerate(content) if byte) // SECTOR * SECTOR
    return None


def has_partition_table(device: Path, sector: int) -> bool:
    """Whether a disk begins like an MBR or a GPT; the latter stands in its second logical sector."""
    with _opened(device, os.O_RDONLY) as descriptor:
        start = _read(descriptor, 0, 2 * sector)
    return start[510:512] == b"\x55\xaa" or start[sector:].startswith(b"EFI PART")


def write_zeros(device: Path, extents: Iterable[Extent]) -> None:
    """Overwrite the extents; on the medium when this returns."""
    with _opened(device, os.O_WRONLY | os.O_DSYNC) as descriptor, mmap.mmap(-1, _CHUNK) as zeros:
        for extent in extents:
            offset = extent.start
            while offset < extent.end:
                with memoryview(zeros)[: min(_CHUNK, extent.end - offset)] as view:
                    offset += os.pwritev(descriptor, [view], offset)


def partitions(name: str, sysfs: Path = Path("/sys/class/block")) -> dict[str, Extent]:
    """Where the kernel found partitions on a disk (`sda`), by their own names, in order."""
    found = {}
    for entry in sysfs.joinpath(name).iterdir():
        if (entry / "partition").exists():
            start, length = (int((entry / key).read_text()) * _SYSFS_SECTOR for key in ("start", "size"))
            found[entry.name] = Extent(start, length)
    return dict(sorted(found.items(), key=lambda item: item[1].start))


def is_read_only(name: str, sysfs: Path = Path("/sys/class/block")) -> bool:
    """Whether the kernel refuses writes to a disk, as a switch on it or its firmware says."""
    return sysfs.joinpath(name, "ro").read_text().strip() == "1"


@contextmanager
def _opened(device: Path, flags: int) -> Iterator[int]:
    """The device's descriptor, past the page cache.

    A regular file on a file system without O_DIRECT (tmpfs) is opened without: it stands in for a disk in tests.
    """
    try:
        descriptor = os.open(device, flags | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EINVAL or not stat.S_ISREG(device.stat().st_mode):
            raise
        descriptor = os.open(device, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    """So many bytes; O_DIRECT wants memory aligned to a page, which an anonymous mapping is."""
    with mmap.mmap(-1, max(length, mmap.PAGESIZE)) as buffer:
        done = 0
        while done < length:
            with memoryview(buffer)[done:length] as view:
                got = os.preadv(descriptor, [view], offset + done)
            if not got:
                raise OSError(errno.EIO, f"the disk ends at byte {offset + done}")
            done += got
        return bytes(buffer[:length])
