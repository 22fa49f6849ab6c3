"""What somebody asked of a control plane that runs here: its audit log, which says of each request whose it was.

The API server's own counters don't: the garbage collector looks up the owner of every object, and would be counted
as whoever is measured.
"""

from __future__ import annotations

import json
from collections import Counter

from lab.controlplane_access import ControlPlane
from lab.errors import Unfit

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}],
}
"""ServiceAccounts' requests, when they have been answered, without what was in them."""
LOG = "audit.log"
"""Beside the administrator's kubeconfig."""


class Audit:
    """The requests of one ServiceAccount from now on."""

    def __init__(self, plane: ControlPlane, namespace: str, account: str) -> None:
        """Unfit where the API server isn't one that runs here."""
        self._user = f"system:serviceaccount:{namespace}:{account}"
        self._log = plane.kubeconfig.with_name(LOG)
        self._counted: Counter[str] = Counter()
        try:
            self._read = self._log.stat().st_size
        except FileNotFoundError:
            raise Unfit(
                f"Control plane {plane.name} ({plane.kind}) keeps no audit log here: nobody can say who asked it what.",
                "take kind off the PATH, or leave --use-current out, so that the API server runs here",
            ) from None

    def so_far(self) -> Counter[str]:
        """How many were answered, by verb and resource as in `patch baremetalmachines/status`.

        Without watches and Leases, which have nothing to do with how many machines there are.
        """
        with self._log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # it is still being written
                self._read += len(line)
                self._take(json.loads(line))
        return self._counted.copy()

    def _take(self, entry: dict[str, object]) -> None:
        user, what = entry["user"], entry.get("objectRef")
        if not isinstance(user, dict) or user["username"] != self._user or not isinstance(what, dict):
            return
        if entry["verb"] != "watch" and what["resource"] != "leases":
            resource = "/".join(part for part in (what["resource"], what.get("subresource")) if part)
            self._counted[f"{entry['verb']} {resource}"] += 1
