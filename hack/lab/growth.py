"""Draw how the bench's figures grow with the fleet: `growth.py RESULTS.json PICTURE.png`.

A program of its own, for an environment of its own: nothing else needs a library that draws.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

FIGURES = {
    "wall": "seconds until all were there",
    "operator": "the operator's processor seconds",
    "peak": "the operator's peak memory, MiB",
}
SCENARIOS = ("created", "deployed", "released", "changed")


def main() -> None:
    """Three drawings side by side, both axes logarithmic but for memory."""
    source, target = map(Path, sys.argv[1:])
    document = json.loads(source.read_text())
    sizes = sorted(document["machines"], key=int)
    drawing, axes = plt.subplots(1, len(FIGURES), figsize=(13, 4), layout="constrained")
    for axis, (figure, title) in zip(axes, FIGURES.items(), strict=True):
        for scenario in SCENARIOS if figure != "peak" else ("created", "released"):
            points = [
                (int(size), document["machines"][size][scenario][figure] / (2**20 if figure == "peak" else 1))
                for size in sizes
                if scenario in document["machines"][size]
            ]
            axis.plot(*zip(*points, strict=True), marker="o", label=scenario)
        axis.set(title=title, xlabel="machines", xscale="log", yscale="linear" if figure == "peak" else "log")
        axis.grid(visible=True, alpha=0.3)
        axis.legend()
    host = document["host"]
    drawing.suptitle(
        f"{host['cores']} cores of {host['processor']}, API server and etcd beside the operator", fontsize=9
    )
    drawing.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
