"""What is kept of a control plane between two commands: its folders, and what `up` decided.

`up` and `down` change both, one command at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.controlplane_choice import Kind
from lab.paths import STATE, checked_name, run_dir, state_dir


@dataclass(frozen=True)
class Record:
    """What `up` decided, written before it acts: an `up` that was interrupted can be continued, and undone."""

    kind: Kind
    kubectl: Path
    engine: str | None = None
    ports: tuple[int, ...] = ()

    @classmethod
    def of(cls, name: str) -> Record | None:
        """The record of a control plane; None if there is none of that name."""
        try:
            found = json.loads((state_folder(name) / "record.json").read_text())
        except FileNotFoundError:
            return None
        return cls(Kind(found["kind"]), Path(found["kubectl"]), found["engine"], tuple(found["ports"]))

    def write(self, name: str) -> None:
        """Write it down."""
        state_dir(name)
        state_folder(name).mkdir(mode=0o700, exist_ok=True)
        (state_folder(name) / "record.json").write_text(json.dumps(asdict(self), default=str))


def run_folder(name: str) -> Path:
    """A folder of its own: a rack of the same name keeps its files beside it."""
    return run_dir(name) / "control-plane"


def state_folder(name: str) -> Path:
    """Asking doesn't make it: who only looks leaves no trace."""
    return STATE / checked_name(name) / "control-plane"


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Two commands never choose the same ports or start the same process; the lock is the folder's, no file stays."""
    folder = os.open(run_dir(name).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        run_dir(name)  # another command's `down` may have removed it in the meantime
        yield
    finally:
        os.close(folder)
