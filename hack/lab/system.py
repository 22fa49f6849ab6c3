"""What the machine must have: root, Debian packages, room on the disk, a free port. Said at once, with the remedy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.errors import Unfit


def require_root(what: str, why: str = "it makes network namespaces, bridges and virtual machines") -> None:
    """Refuse to go on without root."""
    if os.geteuid() != 0:
        raise Unfit(f"{what} needs root: {why}.", "run it again with sudo")


def require_disk(folder: Path, gib: float) -> None:
    """Refuse to go on with less than so many GiB free."""
    free = shutil.disk_usage(folder).free / 2**30
    if free < gib:
        raise Unfit(f"{free:.1f} GiB are free under {folder}, {gib:.0f} GiB are needed.", "free some space there")


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
