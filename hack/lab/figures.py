"""Measurements of one machine's life: requests, memory, seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

from lab import installation, usage
from lab.console import TIMES, stage
from lab.errors import Unfit
from lab.follow import follow
from lab.paths import REPOSITORY
from lab.samples import DECLARED, DEPLOYED

NODE = "node-01"
WAYS = (
    ("declared → Ready", DECLARED, "Ready", 1200),
    ("Ready → Deployed", DEPLOYED, "Deployed", 1800),
    ("Deployed → Ready", DECLARED, "Ready", 1800),
)
"""What is applied, the phase that it leads to, and the seconds after which that is given up."""


def measure(name: str) -> dict[str, dict[str, object]]:
    """Take one machine through its life; what was measured, by section."""
    with stage("installation"):
        here = installation.up(name)
    requests: dict[str, object] = {}
    for way, sample, phase, seconds in WAYS:
        with stage(f"{NODE}: {way}") as shown:
            asked = here.audit()
            here.apply_sample(sample)
            follow(here, NODE, until=[phase], seconds=seconds, say=shown.say)
            requests[way] = _told(asked.so_far())
    pid = here.operator.require()
    return {
        "machine": usage.host(),
        "seconds": {title: round(seconds, 1) for title, seconds in TIMES.items()},
        "API requests, Events included": requests,
        "operator": {
            "resident memory at the end, MiB": usage.memory(pid) // 2**20,
            "resident memory at most, MiB": usage.peak_memory(pid) // 2**20,
            "processor seconds": round(usage.processor_seconds(pid), 1),
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
        "machine": usage.host(),
        "products": products,
        "seconds": seconds | {"total": round(sum(seconds.values()), 1)},
    }


def _told(requests: Counter[str]) -> str:
    """Without listings, which are about all machines together."""
    counted = {what: count for what, count in sorted(requests.items()) if not what.startswith("list")}
    return f"{sum(counted.values())} ({', '.join(f'{count} {what}' for what, count in counted.items())})"
