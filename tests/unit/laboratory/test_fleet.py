"""What the bench knows of its fleet is what the API server told last, whichever of two answers came first."""

from __future__ import annotations

from typing import Any, cast

import pytest
from kubernetes.aio import client

from lab import fleet
from lab.fleet import Fleet

JSON = dict[str, Any]


def record(version: int, power: str, generation: int, observed: int) -> JSON:
    ready = [{"type": "Ready", "status": "True"}]
    status = {"phase": "Ready", "power": power, "observedGeneration": observed, "conditions": ready}
    return {"metadata": {"name": "m", "resourceVersion": str(version), "generation": generation}, "status": status}


class Answers:
    """An API server that answers a change; `meanwhile`, the watch tells of what the operator made of it."""

    def __init__(self) -> None:
        self.fleet = Fleet(cast("client.CustomObjectsApi", self))
        self.meanwhile: list[JSON] = []

    async def patch_namespaced_custom_object(self, *_: object, **__: object) -> JSON:
        for each in self.meanwhile:
            await self.fleet._take(each)
        return record(version=2, power="Off", generation=2, observed=1)


async def test_a_change_is_not_yet_answered_until_the_watch_says_so() -> None:
    it = Answers()
    await it.fleet._take(record(version=1, power="Off", generation=1, observed=1))
    assert it.fleet.resting["Ready"] == 1
    await it.fleet.change(["m"], {"power": "On"})
    assert it.fleet.resting["Ready"] == 0
    await it.fleet._take(record(version=3, power="On", generation=2, observed=2))
    assert (it.fleet.resting["Ready"], it.fleet.machines["m"].power) == (1, "On")


async def test_machines_that_are_set_apart_are_not_among_the_others() -> None:
    it = Answers()
    it.fleet.apart = frozenset({"hangs"})
    for name in ("m", "hangs"):
        seen = record(version=1, power="Off", generation=1, observed=1)
        seen["metadata"]["name"] = name
        await it.fleet._take(seen)
    assert (it.fleet.resting["Ready"], it.fleet.others["Ready"]) == (2, 1)
    await it.fleet._take(record(version=2, power="Off", generation=2, observed=1))
    assert (it.fleet.resting["Ready"], it.fleet.others["Ready"]) == (1, 0)


async def test_an_operator_that_is_faster_than_the_answer_to_a_change_is_believed() -> None:
    it = Answers()
    await it.fleet._take(record(version=1, power="Off", generation=1, observed=1))
    it.meanwhile = [record(2, "Off", generation=2, observed=1), record(3, "On", generation=2, observed=2)]
    await it.fleet.change(["m"], {"power": "On"})
    assert (it.fleet.resting["Ready"], it.fleet.machines["m"].power) == (1, "On")


async def test_a_watch_that_is_refused_for_now_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a kind that was defined just now: 429, storage is (re)initializing."""
    begun: list[str] = []

    class Watch:
        def __init__(self, **_: object) -> None: ...

        async def stream(self, *_: object, resource_version: str, **__: object) -> Any:
            begun.append(resource_version)
            if len(begun) == 1:
                yield {"type": "ADDED", "raw_object": record(version=1, power="Off", generation=1, observed=1)}
                raise client.ApiException(status=429)
            raise client.ApiException(status=403)

        async def close(self) -> None: ...

    monkeypatch.setattr(fleet, "AGAIN", 0)
    monkeypatch.setattr("lab.fleet.watch.Watch", Watch)
    it = Answers()
    it.list_namespaced_custom_object = None  # type: ignore[attr-defined]
    with pytest.raises(client.ApiException, match="403"):
        await it.fleet._watch()
    assert begun == ["0", "0"]
    assert it.fleet.resting["Ready"] == 1
