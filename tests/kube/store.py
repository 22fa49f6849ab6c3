"""How far the API server's store is: what puts what arrives at metal in order with what is recorded.

A watch tells of a version a moment after it was written, and times in records are whole seconds. Revisions are exact:
whatever was written before somebody asks for the store's has that one or an older one.
"""

from __future__ import annotations

import base64
import json
import ssl
from pathlib import Path

import aiohttp

from lab import controlplane, kubectl
from lab.controlplane import ControlPlane


class Store:
    """Asks the API server in the metal's thread, by an account of its own, for what the operator asks is counted."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        """Let the namespace's default account look at what is in it."""
        account = f"--serviceaccount={namespace}:default"
        granted = plane.ctl("-n", namespace, "create", "rolebinding", "store", "--clusterrole=view", account)
        assert granted.returncode == 0, granted.stderr
        file = controlplane.service_account_kubeconfig(plane, namespace, "default", folder / "store.kubeconfig")
        config = json.loads(file.read_text())
        cluster = config["clusters"][0]["cluster"]
        authority = cluster.get("certificate-authority-data")
        self._tls = ssl.create_default_context(cadata=base64.b64decode(authority).decode() if authority else None)
        self._headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
        self._url = f"{kubectl.server_of(config)}/api/v1/namespaces/{namespace}/configmaps?limit=1"

    async def start(self) -> None:
        """Be ready to ask."""
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._http = aiohttp.ClientSession(connector=connector, headers=self._headers)

    async def stop(self) -> None:
        """Ask no more."""
        await self._http.close()

    async def revision(self) -> int:
        """The newest that there is."""
        async with self._http.get(self._url) as answer:
            listed = await answer.json()
            assert answer.status == 200, listed
        return int(listed["metadata"]["resourceVersion"])
