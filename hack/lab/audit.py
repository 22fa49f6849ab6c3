"""What somebody asked of a control plane that runs here: its audit log, which says of each request whose it was.

The API server's own counters don't: the garbage collector looks up the owner of every object, and would be counted
as whoever is measured.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lab.controlplane_access import ControlPlane
from lab.controlplane_choice import Kind
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


def require(name: str, kind: Kind) -> None:
    """Refuse a control plane whose API server isn't a program that runs here, with such a log."""
    if kind not in {Kind.ASSETS, Kind.BUILT}:
        raise _unkept(name, kind)


def _unkept(name: str, kind: Kind) -> Unfit:
    return Unfit(
        f"Control plane {name} ({kind}) keeps no audit log here: nobody can say who asked it what.",
        "take kind off the PATH, or leave --use-current out, so that the API server runs here",
    )


class Audit:
    """The requests of one ServiceAccount from now on."""

    def __init__(self, plane: ControlPlane, namespace: str, account: str) -> None:
        """Unfit where the API server isn't one that runs here."""
        self._user = f"system:serviceaccount:{namespace}:{account}"
        self._log = plane.kubeconfig.with_name(LOG)
        self._counted: Counter[str] = Counter()
        try:
            now = self._log.stat()
        except FileNotFoundError:
            raise _unkept(plane.name, plane.kind) from None
        self._read, self._file = now.st_size, now.st_ino

    def so_far(self) -> Counter[str]:
        """How many were answered, by verb and resource as in `patch baremetalmachines/status`.

        Without watches and Leases, which have nothing to do with how many machines there are. Raises as `news` does.
        """
        for entry in self.news():
            if entry["verb"] != "watch" and entry["objectRef"]["resource"] != "leases":
                self._counted[f"{entry['verb']} {resource(entry)}"] += 1
        return self._counted.copy()

    def news(self) -> list[dict[str, Any]]:
        """The requests for objects that were answered since the last look, as audit.k8s.io/v1 Events.

        Unfit if some were lost, because the log was begun anew.
        """
        found = []
        with self._log.open("rb") as log:
            now = os.fstat(log.fileno())
            if now.st_size < self._read or now.st_ino != self._file:
                raise Unfit(
                    f"{self._log} was begun anew: what was asked before that can't be counted.",
                    "use a kube-apiserver that takes --audit-log-maxsize=0 for no rotation (1.36 does)",
                )
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # it is still being written
                self._read += len(line)
                entry = json.loads(line)
                if entry["user"]["username"] == self._user and "objectRef" in entry:
                    found.append(entry)
        return found


def resource(entry: Mapping[str, Any]) -> str:
    """What was asked for, as in `baremetalmachines/status`."""
    what = entry["objectRef"]
    return "/".join(part for part in (what["resource"], what.get("subresource")) if part)
