"""The whole operator, as `app` wires it, between an API server in memory and simulated machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.unit.simulated.virtual import EPOCH

from rackwright.agent.tokens import Tokens
from rackwright.api.image import OperatingSystemImageSpec
from rackwright.app import Operator, Settings
from rackwright.kube import Conflict, Secret
from rackwright.metrics import Metrics
from rackwright.netboot.script import RamdiskSettings
from rackwright.record import Machine as Record
from rackwright.shards import Ours
from rackwright.simulated.machine import Machine

JSON = dict[str, Any]
CHECKSUM = f"sha256:{'ab' * 32}"
NAMESPACE = "rack-a"


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396's own pseudocode."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


@dataclass
class Rack:
    """An operator with its machines; `history` is every status that was written, with its second."""

    records: dict[str, JSON] = field(default_factory=dict)
    history: list[tuple[float, str, JSON]] = field(default_factory=list)
    events: list[tuple[float, str, str, str]] = field(default_factory=list)
    version: int = 0
    inventories: dict[str, JSON] = field(default_factory=dict)
    operator: Operator | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def _started(self, **settings: Any) -> Operator:
        """An operator, which knows nothing of an earlier one."""
        self.operator = operator = Operator(
            self,  # type: ignore[arg-type]
            Tokens(bytes(32)),
            Settings(
                "http://10.0.0.1",
                "127.0.0.1",
                0,
                "system",
                RamdiskSettings("http://10.0.0.1"),
                **{"allow_simulated": True, **settings},
            ),
            self,  # type: ignore[arg-type]
            Metrics(),
        )
        image = OperatingSystemImageSpec.model_validate(
            {"url": "http://images.example/debian-12.raw", "checksum": CHECKSUM, "format": "raw"}
        )
        operator._cache.put_image("debian-12", image, 1)
        operator._synced = True
        for record in self.records.values():
            operator._machine(record, deleted=False)
        return operator

    @asynccontextmanager
    async def running(self, **settings: Any) -> AsyncIterator[Rack]:
        """An operator at work until the end of the context."""
        operator = self._started(**settings)
        tasks = [asyncio.create_task(operator._reconciler.work()) for _ in range(4)]
        tasks.append(asyncio.create_task(operator._queue.run_timers()))
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if operator._simulation is not None:
                operator._simulation.close()
            await operator._connections.close()
            self.operator = None

    # --- what people do -------------------------------------------------------------------------------------------

    def declare(self, name: str, address: str = "simulated://fast", **spec: Any) -> None:
        number = len(self.records) + 1
        self._put(
            name,
            {
                "metadata": {
                    "name": name,
                    "namespace": NAMESPACE,
                    "uid": f"uid-of-{name}",
                    "generation": 1,
                    "creationTimestamp": EPOCH.isoformat(),
                },
                "spec": {"bootMACAddress": f"52:54:00:00:00:{number:02x}", "bmc": {"address": address}, **spec},
            },
        )

    def change(self, name: str, **spec: Any) -> None:
        record = merged(self.records[name], {"spec": spec})
        record["metadata"]["generation"] += 1
        self._put(name, record)

    def deploy(self, name: str) -> None:
        self.change(name, allocation={"owner": "team-search"}, deployment={"image": "debian-12"})

    def release(self, name: str) -> None:
        self.change(name, allocation=None, deployment=None)

    def delete(self, name: str) -> None:
        record = merged(self.records[name], {"metadata": {"deletionTimestamp": EPOCH.isoformat()}})
        self._put(name, record)

    # --- what is seen ---------------------------------------------------------------------------------------------

    def status(self, name: str) -> JSON:
        return dict(self.records[name].get("status") or {})

    def condition(self, name: str, kind: str) -> JSON:
        return next((dict(c) for c in self.status(name).get("conditions", ()) if c["type"] == kind), {})

    def metal(self, name: str) -> Machine:
        found = self.metal_if_any(name)
        assert found is not None
        return found

    def metal_if_any(self, name: str) -> Machine | None:
        assert self.operator is not None
        simulation = self.operator._simulation
        return simulation.machine(f"uid-of-{name}") if simulation is not None else None

    async def until(self, holds: Callable[[], bool], seconds: float = 3600.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def reach(self, phase: str, *names: str, seconds: float = 3600.0) -> None:
        """Wait until machines rest in this phase, all of them unless some are named."""
        chosen = names or tuple(self.records)
        await self.until(
            lambda: all(self.status(n).get("phase") == phase and "operation" not in self.status(n) for n in chosen),
            seconds,
        )

    def told(self) -> list[str]:
        """The history in lines."""
        return [
            f"{at:9.3f} {name} {status.get('phase')} {operation.get('step', '')} {operation.get('attempt', '')} "
            f"{status.get('power', '')} {status.get('lastFailure', {}).get('reason', '')}"
            for at, name, status in self.history
            for operation in [status.get("operation") or {}]
        ]

    # --- the API server and the Lease, as far as the operator uses them -------------------------------------------

    alone = True

    def holds(self) -> bool:
        return True

    holds_any = holds

    def jurisdiction(self, _machine: Record) -> Ours:
        return Ours(self.holds)

    async def patch_status(self, _plural: str, _namespace: str, name: str, body: JSON) -> JSON:
        self._require_newest(name, body["metadata"])
        return self._put(name, merged(self.records[name], {"status": body["status"]}))

    async def patch_metadata(self, _plural: str, _namespace: str, name: str, metadata: JSON) -> JSON:
        self._require_newest(name, metadata)
        wanted = {key: value for key, value in metadata.items() if key not in ("uid", "resourceVersion")}
        return self._put(name, merged(self.records[name], {"metadata": wanted}))

    async def apply(self, _plural: str, _namespace: str, _name: str, body: JSON) -> None:
        self.inventories[body["metadata"]["name"]] = dict(body)

    async def get(self, plural: str, _namespace: str, name: str) -> JSON | None:
        return self.records.get(name) if plural == "baremetalmachines" else self.inventories.get(name)

    async def secret(self, _namespace: str, _name: str) -> Secret | None:
        return None

    async def create_event(self, _namespace: str, body: JSON) -> str:
        now = asyncio.get_running_loop().time()
        self.events.append((now, body["regarding"]["name"], body["reason"], body["note"]))
        return f"event-{len(self.events)}"

    async def patch_event(self, _namespace: str, _name: str, _body: JSON) -> None:
        return None

    def _require_newest(self, name: str, metadata: JSON) -> None:
        if metadata["resourceVersion"] != self.records[name]["metadata"]["resourceVersion"]:
            raise Conflict("somebody else wrote first")

    def _put(self, name: str, record: JSON) -> JSON:
        self.version += 1
        record = merged(record, {"metadata": {"resourceVersion": str(self.version)}})
        gone = "deletionTimestamp" in record["metadata"] and not record["metadata"].get("finalizers")
        if gone:
            self.records.pop(name, None)
        else:
            self.records[name] = record
        self.history.append((asyncio.get_running_loop().time(), name, dict(record.get("status") or {})))
        if self.operator is not None:
            self.operator._machine(record, deleted=gone)
        self._changed.set()
        return record
