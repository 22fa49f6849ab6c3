"""The client, and what it asks of a real API server."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest

from lab.controlplane import ControlPlane
from rackwright import kube
from rackwright.kube import JSON, connected

pytestmark = pytest.mark.kube

NAMESPACE = "large-secrets"
LARGE = 400 * 1024
"""Bytes of a tenant's user data."""


async def test_a_secret_is_watched_without_what_it_holds(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = "kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(location, str(control_plane.kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    async def ctl(*arguments: str, stdin: str = "") -> None:
        await asyncio.to_thread(control_plane.ctl, *arguments, stdin=stdin)

    async def write(letter: str) -> None:
        metadata = {"name": "user-data", "namespace": NAMESPACE}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"value": letter * LARGE}}
        await ctl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(secret))

    await ctl("create", "namespace", NAMESPACE)
    await write("a")
    received = 0
    parse = kube._event

    def counted(line: bytes) -> tuple[str, JSON]:
        nonlocal received
        received += len(line)
        return parse(line)

    monkeypatch.setattr(kube, "_event", counted)
    async with (
        asyncio.timeout(60),
        connected() as cluster,
        aclosing(cluster.secret_changes(NAMESPACE, "user-data", seconds=60)) as versions,
    ):
        first = await anext(versions)
        await write("b")
        second = await anext(versions)
        await ctl("delete", "secret", "-n", NAMESPACE, "user-data")
        assert await anext(versions) is None
    assert received < LARGE
    assert first is not None
    assert second is not None
    assert int(second) > int(first)
