"""Large build products, kept outside the checkout and keyed by a hash of everything they are built from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lab import system
from lab.paths import CACHE
from lab.system import Room

BUILT: list[str] = []
"""What this command has built."""
_COMPLETE = ".complete"
_KEPT = 2
"""Builds of one kind that stay: the current one, and the one before it for somebody who switches branches."""
_IN_USE = 24 * 3600
"""Seconds that a build stays after its last use in any case: another checkout, or what it started, may run from it."""


def fingerprint(inputs: Iterable[Path | str]) -> str:
    """A short hash of files (folders: every file in them, by relative name) and plain strings, in order.

    A file counts with its content and whether it is executable; documentation (`*.md`) doesn't build anything.
    """
    digest = hashlib.sha256()
    for item in inputs:
        if isinstance(item, str):
            digest.update(b"s" + item.encode() + b"\0")
            continue
        for file in sorted(item.rglob("*")) if item.is_dir() else [item]:
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".md":
                mode = b"x" if os.access(file, os.X_OK) else b"f"
                digest.update(mode + str(file.relative_to(item.parent)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def path_of(kind: str, key: str) -> Path:
    """Where a build product is, or would be."""
    return CACHE / f"{kind}-{key}"


def is_built(kind: str, key: str) -> bool:
    """Whether the product is there, whole; who asks is about to use it, so it counts as used."""
    there = (path_of(kind, key) / _COMPLETE).exists()
    if there:
        os.utime(path_of(kind, key))
    return there


def forget(kind: str, key: str) -> None:
    """Have the next `built` build it again, for a product whose inputs change elsewhere (a package archive)."""
    (path_of(kind, key) / _COMPLETE).unlink(missing_ok=True)


def room_for(kind: str, key: str, gib: float) -> list[Room]:
    """The disk space that building it will need; none once it is there."""
    return [] if is_built(kind, key) else [Room(kind, CACHE, gib, "set XDG_CACHE_HOME to a larger file system")]


def built(kind: str, key: str, build: Callable[[Path], None], *, needs_gib: float = 0) -> Path:
    """The folder of a finished build, built now unless it is there.

    `build` gets the empty final folder (not a temporary one: virtual environments hold their own path). One
    that was interrupted has no completion mark and starts over; two commands that want one product wait for
    each other.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    target = path_of(kind, key)
    with (CACHE / f".{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_built(kind, key):
            return target
        system.require_room(*room_for(kind, key, needs_gib))
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        build(target)
        BUILT.append(kind)
        (target / _COMPLETE).write_text(f"{time.time():.0f}\n")
        _sweep(kind, keep=target)
    return target


def _sweep(kind: str, keep: Path) -> None:
    """Remove what was interrupted and all but the newest builds of a kind, and of no kind whose name starts alike.

    What was used a short while ago stays too.
    """
    folders = [path for path in CACHE.glob(f"{kind}-*") if "-" not in path.name.removeprefix(f"{kind}-")]
    whole = sorted((path for path in folders if (path / _COMPLETE).exists()), key=lambda path: path.stat().st_mtime)
    lately = {path for path in whole if time.time() - path.stat().st_mtime < _IN_USE}
    for path in {*folders} - {*whole[-_KEPT:], *lately, keep}:
        shutil.rmtree(path, ignore_errors=True)
