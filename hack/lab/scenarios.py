"""What happens to the bench's fleet, in the order in which one fleet goes through it.

Wall times are what a person who declared the change would see: from the first request to the last machine's record that
says so.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence

from lab import fleet, simulated
from lab.bare import Written, write
from lab.fleet import Fleet, together
from lab.measured import Bench, Figures, start_operator

FAST, HANGING = "simulated://fast", "simulated://fast?hang=1"
WISHES = 200
"""Changes that are made one after the other, to see how soon each is acted upon."""
HANGS = 10
"""One machine in so many is apart: its BMC hangs in the storm."""
TURNS = 2
"""How often calm and storm are measured, in turns: two runs of the same differ by some percent, as the host does."""
SLOWER = "percent slower than where the tenth is locked"
AFTERWARDS = 5.0
"""Seconds for what the operator still has to say when the last machine is there."""


async def created(it: Bench) -> None:
    """All are declared, and become Ready."""
    specs = fleet.specs(it.count, FAST)
    async with it.measured("created", "declared → Ready"):
        await together(it.fleet.create(specs), it.all_rest(list(specs), "Ready"))


async def changed(it: Bench) -> None:
    """One change is applied to all of them, as GitOps does."""
    names = list(it.fleet.machines)
    async with it.measured("changed", "one change to each"):
        await it.fleet.change(names, {"release": {"erase": "Quick"}})  # at once known to be unanswered
        await it.all_rest(names, "Ready")


async def wished(it: Bench) -> None:
    """One by one, some are wished to be on: how soon the BMC was told and the record says so."""
    names = random.Random(7).sample(list(it.fleet.machines), min(WISHES, it.count))  # noqa: S311 (a choice, no secret)
    delays = []
    async with it.measured(
        "wished", f"{len(names)} wishes for power, one after the other", machines=len(names)
    ) as figures:
        for name in names:
            begun = time.monotonic()
            await it.fleet.change([name], {"power": "On"})
            delays.append(await it.fleet.until(_is_on(it.fleet, name), 30, it.say) - begun)
    await it.fleet.change(names, {"power": None})  # an idle machine goes off again
    await it.fleet.until(lambda: not any(known.power == "On" for known in it.fleet.machines.values()), 60, it.say)
    await it.all_rest(names, "Ready")
    ordered = sorted(delays)
    figures.further["milliseconds to act, half"] = 1000 * statistics.median(ordered)
    figures.further["milliseconds to act, 99 %"] = 1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def _is_on(machines: Fleet, name: str) -> Callable[[], bool]:
    return lambda: machines.machines[name].power == "On"


async def idle(it: Bench, seconds: float) -> None:
    """Nothing is wanted for a while."""
    await asyncio.sleep(AFTERWARDS)
    async with it.measured("idle", f"at rest for {seconds:.0f} s") as figures:
        await asyncio.sleep(seconds)  # what is measured is how little happens meanwhile
    if figures.operator is not None and figures.quiet is not None:
        figures.further["percent of a core"] = 100 * figures.operator / figures.quiet


async def restarted(it: Bench) -> None:
    """The operator ends and is started again."""
    it.here.operator.stop()
    async with it.measured("restarted", "operator started again") as figures:
        begun = time.monotonic()
        start_operator(it.here, it.arguments)  # not in a thread, which would go on after Ctrl-C
        figures.further["seconds until ready"] = time.monotonic() - begun
        await it.all_looked_at()
        figures.wall = time.monotonic() - begun
        await asyncio.sleep(AFTERWARDS)


async def deployed(it: Bench) -> None:
    """All are reserved and deployed."""
    names = list(it.fleet.machines)
    wish = {"allocation": {"owner": "team-search"}, "deployment": {"image": simulated.IMAGE}}
    async with it.measured("deployed", "Ready → Deployed"):
        await together(it.fleet.change(names, wish), it.all_rest(names, "Deployed"))


async def released(it: Bench) -> None:
    """All are given back."""
    names = list(it.fleet.machines)
    async with it.measured("released", "Deployed → Ready"):
        await together(it.fleet.change(names, {"allocation": None, "deployment": None}), it.all_rest(names, "Ready"))


async def calm(it: Bench) -> None:
    """What a storm is compared with: a tenth of the machines is locked, so that nothing is done to it."""
    await _the_others(it, "calm", "are locked", {"locked": True})


async def storm(it: Bench) -> None:
    """The BMCs of a tenth never answer."""
    await _the_others(it, "storm", "hang", {"bmc": {"address": HANGING}})


async def _the_others(it: Bench, name: str, title: str, tenth: fleet.JSON) -> None:
    """All are declared, a tenth of them like that; timed are those that can be Ready."""
    specs = fleet.specs(it.count, FAST)
    it.fleet.apart = frozenset(list(specs)[HANGS - 1 :: HANGS])
    for each in it.fleet.apart:
        specs[each] |= tenth
    apart = len(it.fleet.apart)

    async with it.measured(name, f"declared → Ready, {apart} of them {title}", rests=False) as figures:
        begun = time.monotonic()

        async def others() -> None:
            able = it.count - apart
            there = await it.fleet.until(lambda: it.fleet.others["Ready"] == able, it.patience, it.say)
            figures.wall = there - begun

        await together(it.fleet.create(specs), others())


def compared(calms: Sequence[Figures], storms: Sequence[Figures]) -> Figures:
    """The quickest storm, with how much longer storms took than calms, on average over as many turns."""
    quickest = min(storms, key=_wall)
    usual, beside = (statistics.fmean(map(_wall, figures)) for figures in (calms, storms))
    quickest.further["seconds, on average"] = beside
    quickest.further["seconds where the tenth is locked"] = usual
    quickest.further[SLOWER] = 100 * (beside / usual - 1)
    walls = [figures.wall for figures in calms]
    quickest.further["percent between two runs where it is locked"] = 100 * (max(walls) / min(walls) - 1)
    return quickest


def _wall(figures: Figures) -> float:
    return figures.wall


async def bare(it: Bench, written: Written) -> None:
    """The same requests without an operator, and two who watch."""
    async with Fleet.of(it.here.plane), it.measured("bare", "as many requests, nobody decides") as figures:
        figures.wall = await write(it.fleet, fleet.specs(it.count, FAST), written)
