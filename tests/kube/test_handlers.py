"""The operator's watches, as a real API server feeds them."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from lab.controlplane import ControlPlane
from rackwright import handlers

pytestmark = pytest.mark.kube

MACHINES = 20


@contextmanager
def no_collection() -> Iterator[None]:
    """What only a collection would free stays."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("crds")
async def test_what_a_watch_told_of_is_freed_at_once(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet that changes is told of faster than garbage is collected."""
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    items = [
        {
            "apiVersion": "metal.rackwright.io/v1alpha1",
            "kind": "BareMetalMachine",
            "metadata": {"name": f"m-{number}", "namespace": namespace},
            "spec": {"accepted": False},
        }
        for number in range(MACHINES)
    ]
    uids: set[str] = set()
    all_seen, stop = asyncio.Event(), asyncio.Event()

    def seen(machine: Mapping[str, Any], _deleted: bool) -> None:
        if machine["metadata"]["namespace"] == namespace:
            uids.add(machine["metadata"]["uid"])
        if len(uids) == MACHINES:
            all_seen.set()

    watching = asyncio.create_task(
        handlers.watch(machine=seen, image=lambda _image, _deleted: None, stop=stop, started=lambda: None)
    )
    with no_collection():
        manifest = json.dumps({"kind": "List", "apiVersion": "v1", "items": items})
        created = await asyncio.to_thread(control_plane.ctl, "create", "-f", "-", stdin=manifest)
        assert created.returncode == 0, created.stderr
        async with asyncio.timeout(60):
            await all_seen.wait()
        stop.set()
        await watching
        assert not [it for it in gc.get_objects() if isinstance(it, dict) and str(it.get("uid")) in uids]
