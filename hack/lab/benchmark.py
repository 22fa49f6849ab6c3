"""How the operator scales: a fleet of simulated machines through its life, and what that took.

The machines answer at once, so what is measured is the operator and the API server beside it. Each size has an API
server and an operator of its own, freshly started.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from lab import audit, controlplane, installation, interrupt, scenarios, simulated, system, usage
from lab.bare import Written
from lab.controlplane_choice import choose, look_around
from lab.errors import Unfit, together
from lab.fleet import Fleet
from lab.installation import Operated
from lab.measured import PORT, Bench, Figures, start_operator
from lab.paths import run_path
from lab.samples import SAMPLES


def require(counts: Sequence[int], name: str) -> None:
    """Refuse what can't be measured here, before anything is made."""
    together(
        lambda: require_fresh(name),
        lambda: usage.require_memory(max(counts)),
        lambda: system.require_port("127.0.0.1", PORT, "The operator that is measured"),
        lambda: _require_plane(name),
    )


def _require_plane(name: str) -> None:
    audit.require(name, choose(look_around()).kind)
    system.require_room(*controlplane.check(name))


def require_fresh(name: str) -> None:
    """Refuse a laboratory that is there: leftovers would be measured, and somebody else's removed."""
    if installation.is_there(name) or any(run_path(name).glob("*")):
        raise Unfit(
            f"There is a laboratory {name} already, and what is measured has to be new.",
            f"measure in another one: --name; or if nobody needs it: hack/demo down --name {name}",
        )


def run(
    name: str, count: int, wanted: Sequence[str], idle_seconds: float, arguments: Sequence[str] = ()
) -> dict[str, Figures]:
    """Take a fleet of this size through the scenarios that are wanted; `created` comes before all but the storm.

    Ctrl-C ends it, and leaves nothing.
    """
    return interrupt.run(_run(name, count, wanted, idle_seconds, arguments))


async def _run(
    name: str, count: int, wanted: Sequence[str], idle_seconds: float, arguments: Sequence[str]
) -> dict[str, Figures]:
    lives: dict[str, Callable[[Bench], Awaitable[None]]] = {
        "changed": scenarios.changed,
        "wished": scenarios.wished,
        "idle": lambda it: scenarios.idle(it, idle_seconds),
        "restarted": scenarios.restarted,
        "deployed": scenarios.deployed,
        "released": scenarios.released,
    }
    results: dict[str, Figures] = {}
    written = None
    if set(wanted) != {"storm"}:  # whose machines are others
        async with bench(name, count, arguments) as it:
            await scenarios.created(it)
            if "bare" in wanted:
                written = Written.about(it.here, next(iter(it.fleet.machines)), it.results["created"].of_each)
            for scenario, live in lives.items():
                if scenario in wanted:
                    await live(it)
            results |= it.results
    if "storm" in wanted:
        results["storm"] = await _storm(name, count, arguments)
    if written is not None:
        async with bench(name, count, arguments, operated=False) as it:
            await scenarios.bare(it, written)
        results |= it.results
    return results


async def _storm(name: str, count: int, arguments: Sequence[str]) -> Figures:
    """Calm and storm take turns, so that neither has the host's better hours."""
    found: dict[str, list[Figures]] = {"calm": [], "storm": []}
    for _ in range(scenarios.TURNS):
        for weather, live in (("calm", scenarios.calm), ("storm", scenarios.storm)):
            async with bench(name, count, arguments) as it:
                await live(it)
            found[weather].append(it.results[weather])
    return scenarios.compared(found["calm"], found["storm"])


@asynccontextmanager
async def bench(name: str, count: int, arguments: Sequence[str], *, operated: bool = True) -> AsyncIterator[Bench]:
    """A fresh control plane, and an operator unless nobody is to operate; nothing is left of them."""
    require_fresh(name)
    try:
        here = Operated(controlplane.up(name))
        here.install()
        if operated:
            start_operator(here, arguments)
        here.kubectl("apply", "-f", str(SAMPLES / "machines-namespace.yaml"))
        here.kubectl("apply", "-f", "-", stdin=json.dumps(simulated.image()))
        async with Fleet.of(here.plane) as machines:
            yield Bench(here, machines, count, arguments, operated)
    finally:
        installation.stop(name)
