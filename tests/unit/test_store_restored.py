"""An API server whose store was restored from a backup under a running operator: what it lists is older than it was."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from tests.unit.simulated.rack import Rack
from tests.unit.simulated.virtual import live

from rackwright.app import Operator

OTHER_CHECKSUM = f"sha256:{'cd' * 32}"


class Restorable(Rack):
    """An API server whose store can go back."""

    def __init__(self) -> None:
        super().__init__()
        self.images = {"debian-12": self.image(1)}

    @staticmethod
    def image(version: int, checksum: str = OTHER_CHECKSUM) -> dict[str, Any]:
        spec = {"url": "http://images.example/debian-12.raw", "checksum": checksum, "format": "raw"}
        return {"metadata": {"name": "debian-12", "resourceVersion": str(version)}, "spec": spec}

    async def listed(self, plural: str) -> AsyncGenerator[dict[str, Any]]:
        for item in list((self.records if plural == "baremetalmachines" else self.images).values()):
            yield item

    def backup(self) -> dict[str, Any]:
        return copy.deepcopy({name: getattr(self, name) for name in ("records", "images", "version")})

    def restore(self, backup: dict[str, Any]) -> None:
        for name, value in copy.deepcopy(backup).items():
            setattr(self, name, value)

    def present(self) -> Operator:
        assert self.operator is not None
        return self.operator


def versions(operator: Operator) -> dict[str, str]:
    """Of the machines that the operator knows."""
    known = [machine for key in operator._cache if (machine := operator._cache.get(key)) is not None]
    return {machine.key.name: str(machine.version) for machine in known}


def test_what_is_listed_after_the_store_went_back_is_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Restorable().running() as rack:
            assert isinstance(rack, Restorable)
            operator = rack.present()
            rack.declare("node-01")
            rack.declare("node-02")
            await rack.reach("Ready")
            backup = rack.backup()
            rack.deploy("node-01")
            rack.delete("node-02")
            await rack.reach("Deployed", "node-01")
            await rack.until(lambda: "node-02" not in rack.records)
            operator._image(rack.image(90, f"sha256:{'ef' * 32}"), deleted=False)
            rack.restore(backup)
            await operator._list()
            assert versions(operator) == {name: it["metadata"]["resourceVersion"] for name, it in rack.records.items()}
            image = operator._cache.image("debian-12")
            assert image is not None
            assert image.checksum == OTHER_CHECKSUM
            rack.change("node-02", allocation={"owner": "team-search"})
            await rack.until(lambda: rack.status("node-02").get("phase") == "Allocated")

    live(monkeypatch, life)


def test_a_listing_that_a_watch_overtakes_takes_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Restorable().running() as rack:
            assert isinstance(rack, Restorable)
            operator = rack.present()
            rack.declare("node-01")
            await rack.reach("Ready")
            before = rack.backup()

            async def late(plural: str) -> AsyncGenerator[dict[str, Any]]:
                rack.change("node-01", allocation={"owner": "team-search"})
                for item in before["records" if plural == "baremetalmachines" else "images"].values():
                    yield item

            monkeypatch.setattr(rack, "listed", late)
            await operator._list()
            assert versions(operator) == {"node-01": rack.records["node-01"]["metadata"]["resourceVersion"]}

    live(monkeypatch, life)
