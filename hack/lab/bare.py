"""What to compare a fleet's way to Ready with: how long the API server takes for as many requests of a plain client.

It decides nothing and makes the same requests a machine, with what the operator wrote about one, and there is somebody
else who watches. It writes a machine's whole status each time, where the operator writes what has changed: who is
slower than this client has something to gain, and who is quicker owes it to that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.errors import Unfit
from lab.fleet import GROUP, PLURAL, VERSION, Fleet, side_by_side, together
from lab.installation import MACHINES, Operated

MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
STATUS, EVENTS = "patch baremetalmachines/status", "create events"
ONCE = {"patch baremetalmachines": 1, "patch hardwareinventories": 1}
"""What is asked once for each machine; of the others, as often as the operator did."""
JSON = dict[str, Any]


@dataclass(frozen=True)
class Written:
    """What an operator has written about one machine that is Ready."""

    status: JSON
    finalizers: list[str]
    inventory: JSON
    event: JSON
    statuses: int
    """How often the operator wrote status, for each machine."""
    events: int

    @classmethod
    def about(cls, here: Operated, name: str, asked: Mapping[str, int]) -> Written:
        """From the records, and what the operator asked for each machine; Unfit if that can't be made here."""
        if {what: count for what, count in asked.items() if what not in (STATUS, EVENTS) and count} != ONCE:
            raise Unfit(f"The operator's requests aren't those that lab/bare.py makes: {dict(asked)}", "correct it")

        def get(*what: str) -> JSON:
            found: JSON = json.loads(here.kubectl("get", *what, "-n", MACHINES, "-o", "json"))
            return found

        record, inventory = get("bmm", name), get("hwi", name)
        event = get("events.events.k8s.io", f"--field-selector=regarding.name={name}")["items"][0]
        for kept in (inventory, event):
            kept["metadata"] = {}
        finalizers = record["metadata"]["finalizers"]
        return cls(record["status"], finalizers, inventory, event, asked[STATUS], asked[EVENTS])


async def write(fleet: Fleet, specs: Mapping[str, JSON], written: Written) -> float:
    """Declare these machines and write the same about each; the seconds until the last one is there."""
    api = fleet.custom

    async def one(name: str) -> None:
        await fleet.declare(name, specs[name])
        named = (GROUP, VERSION, MACHINES, PLURAL, name)
        finalizers = {"metadata": {"finalizers": written.finalizers}}
        await api.patch_namespaced_custom_object(*named, finalizers, _content_type=MERGE)
        for number in range(written.statuses):
            status = written.status | {"observedGeneration": number - written.statuses + 2}  # the last is of this spec
            await api.patch_namespaced_custom_object_status(*named, {"status": status}, _content_type=MERGE)
        await api.patch_namespaced_custom_object(
            *(GROUP, VERSION, MACHINES, "hardwareinventories", name, {**written.inventory, "metadata": {"name": name}}),
            field_manager="bench",
            force=True,
            _content_type=APPLY,
        )
        event = {**written.event, "metadata": {"generateName": f"{name}-", "namespace": MACHINES}}
        for _ in range(written.events):
            await api.create_namespaced_custom_object("events.k8s.io", "v1", MACHINES, "events", event)

    begun = time.monotonic()
    await together(
        side_by_side(one, list(specs)),
        fleet.until(lambda: fleet.resting["Ready"] == len(specs), 60 + len(specs), lambda _: None),
    )
    return time.monotonic() - begun
