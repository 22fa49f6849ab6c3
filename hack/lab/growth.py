"""Draw how the bench's figures grow with the fleet: `growth.py FOLDER`, with a file of results for each size.

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
    "peak": "the operator's peak memory, MB",
}
SCENARIOS = ("created", "deployed", "released", "changed")


def main() -> None:
    """Three drawings side by side, both axes logarithmic but for memory."""
    folder = Path(sys.argv[1])
    found = sorted((json.loads(file.read_text()) for file in folder.glob("*.json")), key=lambda it: int(it["machines"]))
    drawing, axes = plt.subplots(1, len(FIGURES), figsize=(13, 4), layout="constrained")
    for axis, (figure, title) in zip(axes, FIGURES.items(), strict=True):
        for scenario in SCENARIOS if figure != "peak" else ("created", "deployed", "released"):
            points = [
                (int(it["machines"]), it["scenarios"][scenario][figure] / (10**6 if figure == "peak" else 1))
                for it in found
                if scenario in it["scenarios"]
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", label=scenario)
        axis.set(title=title, xlabel="machines", xscale="log", yscale="linear" if figure == "peak" else "log")
        axis.grid(visible=True, alpha=0.3)
        axis.legend()
    host = found[-1]["host"]
    drawing.suptitle(
        f"{host['cores']} cores of {host['processor']}, API server and etcd beside the operator", fontsize=9
    )
    drawing.savefig(folder / "growth.png", dpi=110)


if __name__ == "__main__":
    main()
