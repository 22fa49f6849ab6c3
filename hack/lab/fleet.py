"""Thousands of machines at once, as a GitOps tool declares them: created, changed, and watched by one program.

kubectl starts anew for each call, which would be most of what is measured. This keeps its connections, and knows of
every machine what the API server told last.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from kubernetes.aio import client, config, watch

from lab.controlplane import ControlPlane
from lab.errors import Unfit
from lab.installation import MACHINES

GROUP, VERSION, PLURAL = "metal.rackwright.io", "v1alpha1", "baremetalmachines"
AT_ONCE = 32
"""Requests under way."""
PASSING, AGAIN = {410, 429, 500, 503, 504}, 0.2
"""What an API server ends a watch with that it allows again: it is 429 of a kind that was defined just now. Seconds."""
WATCH_SECONDS = 240
"""After which the API server ends a watch: the client would end it after 300, with an error."""
JSON = dict[str, Any]


@dataclass(slots=True)
class Known:
    """What matters of a machine's newest record."""

    version: int
    """Which one it is: the API server counts them."""
    phase: str
    power: str
    rests: bool
    """It is Ready: nothing is under way or left to say, and status answers spec as it was last declared."""

    @classmethod
    def of(cls, record: Mapping[str, Any], declared: int) -> Known:
        """From the API server's JSON, and the generation of spec that was declared last."""
        status, generation = record.get("status", {}), record["metadata"]["generation"]
        version = int(record["metadata"]["resourceVersion"])
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
        rests = ready and "operation" not in status and status.get("observedGeneration") == generation >= declared
        return cls(version, status.get("phase", ""), status.get("power", ""), rests)


@dataclass
class Fleet:
    """The machines of one namespace."""

    custom: client.CustomObjectsApi
    machines: dict[str, Known] = field(default_factory=dict)
    resting: Counter[str] = field(default_factory=Counter)
    """How many rest, by phase."""
    apart: frozenset[str] = frozenset()
    """Machines that `others` leaves out; set before they are declared."""
    others: Counter[str] = field(default_factory=Counter)
    """How many of the others rest, by phase."""
    _declared: dict[str, int] = field(default_factory=dict)
    """The generation of each machine's spec after its last change."""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @classmethod
    @asynccontextmanager
    async def of(cls, plane: ControlPlane) -> AsyncIterator[Fleet]:
        """As the administrator; watched until the end."""
        settings = client.Configuration()
        await config.load_kube_config(str(plane.kubeconfig), client_configuration=settings)
        settings.client_side_validation = False
        settings.connection_pool_maxsize = AT_ONCE + 4
        settings.client_session_kwargs = {"trust_env": False}  # which reads files at each request
        async with client.ApiClient(settings) as api:
            fleet = cls(client.CustomObjectsApi(api))
            watching = asyncio.create_task(fleet._watch())
            try:
                yield fleet
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching

    async def _watch(self) -> None:
        version = "0"
        while True:
            told = watch.Watch(return_type="object")
            try:
                async for event in told.stream(
                    self.custom.list_namespaced_custom_object, GROUP, VERSION, MACHINES, PLURAL,
                    resource_version=version, allow_watch_bookmarks=True, timeout_seconds=WATCH_SECONDS,
                ):  # fmt: skip
                    record = event["raw_object"]
                    version = record["metadata"]["resourceVersion"]
                    if event["type"] in ("ADDED", "MODIFIED"):
                        await self._take(record)
            except client.ApiException as refused:
                if refused.status not in PASSING:
                    raise
                version = "0"  # from the beginning: it is all told again
                await asyncio.sleep(AGAIN)
            finally:
                await told.close()

    async def _take(self, record: Mapping[str, Any]) -> None:
        name = record["metadata"]["name"]
        self._put(name, Known.of(record, self._declared.get(name, 0)))
        async with self._news:
            self._news.notify_all()

    def _put(self, name: str, now: Known) -> None:
        before = self.machines.get(name)
        for counted in (self.resting, *([] if name in self.apart else [self.others])):
            if before is not None and before.rests:
                counted[before.phase] -= 1
            counted[now.phase] += now.rests
        self.machines[name] = now

    # --- what is declared -------------------------------------------------------------------------------------------

    async def create(self, specs: Mapping[str, JSON]) -> None:
        """Declare machines."""
        await side_by_side(lambda name: self.declare(name, specs[name]), list(specs))

    async def declare(self, name: str, spec: JSON) -> None:
        """Declare one."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "BareMetalMachine",
            "metadata": {"name": name, "namespace": MACHINES},
            "spec": spec,
        }
        await self.custom.create_namespaced_custom_object(GROUP, VERSION, MACHINES, PLURAL, body)

    async def change(self, names: Sequence[str], spec: JSON) -> None:
        """Merge the same into the spec of each."""

        async def one(name: str) -> None:
            record = await self.custom.patch_namespaced_custom_object(
                GROUP, VERSION, MACHINES, PLURAL, name, {"spec": spec}, _content_type="application/merge-patch+json"
            )
            self._declared[name] = record["metadata"]["generation"]
            answer = Known.of(record, self._declared[name])
            if self.machines[name].version < answer.version:  # else the watch was faster, and knows what came of it
                self._put(name, answer)

        await side_by_side(one, names)

    # --- what becomes of it -----------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], bool], seconds: float, say: Callable[[str], None]) -> float:
        """Wait until that is so of what is known; when it became so, by the monotonic clock."""
        said = 0.0
        async with self._news:
            try:
                async with asyncio.timeout(seconds):
                    while not holds():
                        if (now := time.monotonic()) > said + 1:
                            say(str(self))
                            said = now
                        await self._news.wait()
            except TimeoutError:
                raise Unfit(
                    f"After {seconds:.0f} s: {self}", "see the operator's log; measure fewer machines"
                ) from None
        return time.monotonic()

    def rest(self, names: Collection[str], phase: str) -> int:
        """How many of these rest in that phase."""
        return sum(known.rests and known.phase == phase for name in names if (known := self.machines.get(name)))

    def __str__(self) -> str:
        counted = Counter(known.phase or "declared" for known in self.machines.values())
        return ", ".join(f"{phase} {count}" for phase, count in sorted(counted.items())) or "none declared"


async def side_by_side(one: Callable[[str], Awaitable[None]], names: Sequence[str]) -> None:
    """Do that for each, as many at once as there are connections."""
    left = iter(names)

    async def some() -> None:
        for name in left:
            await one(name)

    await together(*(some() for _ in range(AT_ONCE)))


async def together(*work: Coroutine[Any, Any, object]) -> None:
    """All of it at once; the first that fails ends the others, and is what is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def specs(count: int, address: str) -> dict[str, JSON]:
    """So many machines with that BMC address, by name."""
    return {
        f"m-{number:05}": {
            "bootMACAddress": "52:54:00:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(3, "big")),
            "bmc": {"address": address},
        }
        for number in range(count)
    }
