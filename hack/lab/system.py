"""What the machine must have: root, Debian packages, room on the disk, a free port. Said at once, with the remedy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab.errors import Unfit, together


def require_root(what: str, why: str = "it makes network namespaces, bridges and virtual machines") -> None:
    """Refuse to go on without root."""
    if os.geteuid() != 0:
        raise Unfit(f"{what} needs root: {why}.", "run it again with sudo")


@dataclass(frozen=True)
class Room:
    """Disk space that something is about to need."""

    what: str
    folder: Path
    """Where; it needn't exist yet."""
    gib: float
    elsewhere: str = ""
    """What a person does who has more space on another file system, as an alternative."""


def require_room(*rooms: Room) -> None:
    """Refuse to go on unless each file system has room for all that is to be put on it."""
    shared: dict[int, list[Room]] = {}
    for room in rooms:
        shared.setdefault(_existing(room.folder).stat().st_dev, []).append(room)
    together(*(partial(_require_room, on_one) for on_one in shared.values()))


def _require_room(rooms: Sequence[Room]) -> None:
    free, needed = shutil.disk_usage(_existing(rooms[0].folder)).free / 2**30, sum(room.gib for room in rooms)
    if free < needed:
        folders = " and ".join(dict.fromkeys(str(room.folder) for room in rooms))
        of_it = ", ".join(f"{room.what} {room.gib:g}" for room in rooms)
        others = dict.fromkeys(room.elsewhere for room in rooms if room.elsewhere)
        raise Unfit(
            f"{free:.1f} GiB are free under {folders}, {needed:g} GiB are needed: {of_it}.",
            ", or ".join(["free some space there", *others]),
        )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def port_is_free(host: str, port: int) -> bool:
    """Whether a TCP server could listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def require_port(host: str, port: int, what: str) -> None:
    """Refuse to go on when something else listens there."""
    if not port_is_free(host, port):
        raise Unfit(
            f"{what} needs TCP port {port} on {host}, and something else listens there.",
            f"see what it is with: ss -ltnp sport = :{port}",
        )


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Those of the Debian packages that are not installed."""
    if shutil.which("dpkg-query") is None:
        raise Unfit("This machine has no dpkg: it isn't Debian or derived from it.", "run it on Debian 12")
    answer = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n", *packages],
        capture_output=True,
        text=True,
        check=False,
    )
    there = {line.split()[1] for line in answer.stdout.splitlines() if line.startswith("ii")}
    return [p for p in packages if p not in there]


def ensure_packages(packages: Sequence[str]) -> None:
    """Install Debian packages that are missing, without letting any of them start a service."""
    if not (missing := missing_packages(packages)):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unfit(
            f"Debian packages are missing: {' '.join(missing)}.", f"as root: apt-get install {' '.join(missing)}"
        )
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    with tempfile.NamedTemporaryFile("w+", prefix="rackwright-apt-", suffix=".log", delete=False) as log:
        try:
            if ours:
                policy.write_text("#!/bin/sh\nexit 101\n")
                policy.chmod(0o755)
            done = None
            for arguments in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
                done = subprocess.run(
                    ["apt-get", "-q", *arguments],
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                    check=False,
                )
        finally:
            if ours:
                policy.unlink(missing_ok=True)
    if done is None or done.returncode:
        raise Unfit(f"apt-get could not install {' '.join(missing)}.", f"read {log.name}")
    Path(log.name).unlink()
