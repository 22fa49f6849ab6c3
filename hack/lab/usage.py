"""What processes have used, from /proc."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lab.errors import Unfit

_GIB = 2**30
_BASE_BYTES, _BYTES_PER_MACHINE = 1.5 * _GIB, 400 * 1024
"""What etcd, API server, operator and bench have resident together: with few machines, and more with each."""


@dataclass(frozen=True)
class Usage:
    """Since their start."""

    operator: float
    """Processor seconds, user's and system's."""
    server: float
    """The same of the API server's processes."""
    peak: int
    """The most memory that the operator had resident, bytes."""

    @classmethod
    def of(cls, operator: int | None, servers: Collection[int]) -> Usage:
        """Of the processes with these pids; an operator that doesn't run has used nothing."""
        server = sum(map(processor_seconds, servers))
        return (
            cls(0.0, server, 0) if operator is None else cls(processor_seconds(operator), server, peak_memory(operator))
        )


def processor_seconds(pid: int) -> float:
    """User's and system's, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    """The most that was resident, bytes."""
    return _kib(Path(f"/proc/{pid}/status"), "VmHWM") * 1024


def memory(pid: int) -> int:
    """What is resident, bytes."""
    return _kib(Path(f"/proc/{pid}/status"), "VmRSS") * 1024


def _kib(file: Path, name: str) -> int:
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return int(lines[name].split()[0])


def require_memory(machines: int) -> None:
    """Refuse to measure a fleet that this machine has no room for: swapping would be what is measured."""
    needed = _BASE_BYTES + machines * _BYTES_PER_MACHINE
    available = _kib(Path("/proc/meminfo"), "MemAvailable") * 1024
    if available < needed:
        raise Unfit(
            f"{machines} machines need about {needed / _GIB:.1f} GiB of memory, {available / _GIB:.1f} are available.",
            f"measure at most {max(0, int((available - _BASE_BYTES) / _BYTES_PER_MACHINE))} machines here",
        )


def host() -> dict[str, object]:
    """The machine that all this ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    memory_gib = _kib(Path("/proc/meminfo"), "MemTotal") / 2**20
    return {
        "cores": os.cpu_count() or 0,
        "processor": processor,
        "memory GiB": round(memory_gib, 1),
        "kernel": platform.release(),
    }
