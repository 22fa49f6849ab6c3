"""Where the cluster's watches come in: the only module that imports kopf.

kopf logs in, watches, and lists again when a watch breaks. Its handlers only feed the cache and the work queue: they
neither decide nor wait nor write, so that nothing of kopf's own retries, finalizers or annotations is in play.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import kopf

from rackwright.api import GROUP, VERSION
from rackwright.kube import PAGE, SILENCE_SECONDS

WIND_UP_SECONDS = 2.0
"""How long kopf may take to end, once it is to."""

Seen = Callable[[Mapping[str, Any], bool], None]
"""Told of an object's JSON, and whether it was deleted."""


async def watch(
    *,
    machine: Seen,
    image: Seen,
    stop: asyncio.Event,
    started: Callable[[], None],
    silence: float = SILENCE_SECONDS,
) -> None:
    """Watch machines and images in all namespaces until `stop` is set; anew whenever a watch is silent for so long.

    `started` is called once kopf runs: by then it has taken SIGINT and SIGTERM for itself.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    def tells(seen: Seen) -> Callable[..., Awaitable[None]]:
        async def handler(event: kopf.RawEvent, **_: Any) -> None:  # a plain function kopf would call in a thread
            told = cast("dict[str, Any]", event["object"])
            seen(told, event["type"] == "DELETED")
            told.clear()  # kopf's views of it refer to each other, and would keep all of it until they are collected

        return handler

    kopf.on.event(GROUP, VERSION, "baremetalmachines", id="machine", registry=registry)(tells(machine))
    kopf.on.event(GROUP, VERSION, "operatingsystemimages", id="image", registry=registry)(tells(image))
    tasks = await kopf.spawn_tasks(registry=registry, settings=_settings(silence), clusterwide=True, stop_flag=stop)
    started()
    # Not kopf's run_tasks: when a watch has failed, that cancels whatever goes on in this process, and waits for it.
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    finally:
        winding_up = [*tasks, *_watchers()]
        for task in winding_up:
            task.cancel()
        await asyncio.wait(winding_up, timeout=WIND_UP_SECONDS)
        for task in winding_up:
            if task.done() and not task.cancelled():
                task.exception()  # seen: it is told below, or was told by kopf
    for error in filter(None, ended):
        raise error


def _watchers() -> list[asyncio.Task[Any]]:
    """Those of kopf's tasks that watch one kind each.

    When one of them has failed kopf ends itself, and leaves the others to whoever ends the loop. That cancels also what
    they wait for, which they take for a pause: they begin anew, and the process never ends.
    """
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("watcher for ")]


class _NoDifferences(kopf.DiffBaseStorage):
    """kopf would copy each object, to tell handlers that we haven't what is new in it: a seventh of all our work."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """Our handlers are never retried, so nothing of that is kept, and kopf needn't look for it in each object."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def _settings(silence: float) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # our kinds are known, and the operator may not list CRDs or namespaces
    settings.posting.enabled = False  # Events are ours to write
    settings.persistence.diffbase_storage = _NoDifferences()
    settings.persistence.progress_storage = _NoProgress()
    settings.peering.standalone = True  # leadership is a Lease's business
    settings.networking.error_backoffs = (0.5, 1, 2, 3)  # a watch that broke is back before anybody misses it
    settings.watching.inactivity_timeout = silence  # a connection may live on when nobody speaks on it any more
    settings.watching.server_timeout = 300  # whatever else becomes of a watch, it doesn't last
    settings.watching.client_timeout = 330
    settings.watching.chunk_size = PAGE  # or the fleet is in memory as a whole while it is listed
    settings.queueing.idle_timeout = 0.5  # kopf has a task for each object that changed within this time
    return settings
