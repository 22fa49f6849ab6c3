"""Where things are: the checkout, the caches outside it, and the run-time folders of a named laboratory."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lab.errors import Unfit

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rackwright"
STATE = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "rackwright"

_NAME = re.compile(r"[a-z][a-z0-9]{0,7}")


def checked_name(name: str) -> str:
    """A rack's or control plane's name, short enough for every interface and socket named after it."""
    if not _NAME.fullmatch(name):
        raise Unfit(
            f"{name!r} can't name a laboratory: network interfaces are named after it.",
            "use 1 to 8 lower-case letters and digits, starting with a letter",
        )
    return name


def run_path(name: str) -> Path:
    """Where `run_dir` is or would be: who only looks leaves no trace."""
    base = Path("/run/rackwright") if os.geteuid() == 0 else Path(f"/tmp/rackwright-{os.getuid()}")  # noqa: S108 (sockets need a short path)
    return base / checked_name(name)


def run_dir(name: str) -> Path:
    """Sockets, process ids and logs of one laboratory; short, because a socket's path has 107 bytes at most."""
    path = run_path(name)
    base = path.parent
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if base.lstat().st_uid != os.geteuid():  # anybody may make a folder in /tmp, and credentials go into this one
        raise Unfit(f"{base} belongs to somebody else.", "have its owner, or root, remove it")
    return path


def state_dir(name: str) -> Path:
    """Disks and databases of one laboratory: large, and gone with its `down`."""
    path = STATE / checked_name(name)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
