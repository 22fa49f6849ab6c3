"""Measurements of one machine's life: requests, memory, seconds."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import controlplane, installation
from lab.console import TIMES, stage
from lab.controlplane import Requests
from lab.errors import Unfit
from lab.follow import follow
from lab.installation import Installation
from lab.paths import REPOSITORY
from lab.process import Service
from lab.samples import DECLARED, DEPLOYED

NODE = "node-01"
OURS = {"baremetalmachines", "hardwareinventories", "operatingsystemimages", "secrets", "events"}


def measure(name: str) -> dict[str, dict[str, object]]:
    """Take one machine through its life; what was measured, by section."""
    with stage("installation"):
        here = installation.up(name)
    requests: dict[str, object] = {}
    with stage(f"{NODE}: declared → Ready") as shown:
        before = _apply(here, DECLARED)
        follow(here, NODE, until=["Ready"], seconds=1200, say=shown.say)
        requests |= _difference("declared → Ready", before, controlplane.requests_by_verb(here.plane))
    with stage(f"{NODE}: allocated and deployed → Deployed") as shown:
        before = _apply(here, DEPLOYED)
        follow(here, NODE, until=["Deployed"], seconds=1800, say=shown.say)
        requests |= _difference("Ready → Deployed", before, controlplane.requests_by_verb(here.plane))
    with stage(f"{NODE}: withdrawn → Ready") as shown:
        before = _apply(here, DECLARED)
        follow(here, NODE, until=["Ready"], seconds=1800, say=shown.say)
        requests |= _difference("Deployed → Ready", before, controlplane.requests_by_verb(here.plane))
    process = Path(f"/proc/{here.operator.require()}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    ticks = sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:13]))
    return {
        "machine": _machine(),
        "seconds": {title: round(seconds, 1) for title, seconds in TIMES.items()},
        "API requests, Events included": requests,
        "operator": {
            "resident memory at the end, MiB": int(status["VmRSS"].split()[0]) // 1024,
            "resident memory at most, MiB": int(status["VmHWM"].split()[0]) // 1024,
            "processor seconds": round(ticks / os.sysconf("SC_CLK_TCK"), 1),
        },
    }


def stages_of_demo(name: str) -> dict[str, dict[str, object]]:
    """Run the demonstration to its end; seconds by stage, and the products that it didn't find cached."""
    demo = [str(REPOSITORY / "hack/demo"), "--name", name, "--release"]
    if subprocess.run(demo, stdout=sys.stderr, check=False).returncode:  # standard output is for the figures
        raise Unfit("The demo hasn't come to its end.", "see what it says above")
    recorded = json.loads(installation.times_file(name).read_text())
    seconds = {title: round(seconds, 1) for title, seconds in recorded["seconds"].items()}
    products: dict[str, object] = dict.fromkeys(recorded["built"], "built") or {"everything": "cached"}
    return {
        "machine": _machine(),
        "products": products,
        "seconds": seconds | {"total": round(sum(seconds.values()), 1)},
    }


def _machine() -> dict[str, object]:
    return {"cores": os.cpu_count() or 0, "processor": _processor(), "kernel": platform.release()}


def _apply(here: Installation, which: str) -> dict[Requests, int]:
    """Apply a sample while the operator is paused; what was asked of the API server until then."""
    with _paused(here.operator):
        here.apply_sample(which)
        return controlplane.requests_by_verb(here.plane)


@contextmanager
def _paused(operator: Service) -> Iterator[None]:
    operator.require()
    operator.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        operator.kill(signal.SIGCONT)


def _difference(title: str, before: dict[Requests, int], after: dict[Requests, int]) -> dict[str, object]:
    """What the operator asked for between two readings, without its watches and the Lease."""
    counted = {
        key: count - before.get(key, 0)
        for key, count in after.items()
        if key.resource in OURS and key.verb not in ("WATCH", "LIST") and count > before.get(key, 0)
    }
    detail = ", ".join(
        f"{count} {key.verb} {key.resource}{'/' + key.subresource if key.subresource else ''}"
        for key, count in sorted(counted.items(), key=str)
    )
    return {title: f"{sum(counted.values())} ({detail})"}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
