"""A control plane that answers, whatever it comes from: its administrator, its ServiceAccounts, what it counted."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lab import kubectl
from lab.controlplane_choice import Kind
from lab.errors import Unfit
from lab.private import write_private


@dataclass(frozen=True)
class ControlPlane:
    """A control plane that answers."""

    name: str
    kubeconfig: Path
    """Administrator's access; readable by its owner only."""
    kubectl: Path
    kind: Kind
    server: str
    controllers: bool
    """Whether namespaces get deleted and owned objects collected; not so with envtest's own KUBEBUILDER_ASSETS."""

    def ctl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run kubectl as this kubeconfig's user, untouched by the caller's own settings and caches."""
        return kubectl.run(self.kubectl, self.kubeconfig, *arguments, stdin=stdin)


def service_account_kubeconfig(
    plane: ControlPlane, namespace: str, account: str, path: Path, duration: str = "24h"
) -> Path:
    """Write a kubeconfig with nothing but a token of that ServiceAccount, from the TokenRequest API.

    `duration` is as kubectl takes it.
    """
    token = _answer(plane, "create", "token", account, f"--namespace={namespace}", f"--duration={duration}").strip()
    cluster = kubectl.config_of(plane.kubectl, str(plane.kubeconfig))["clusters"][0]["cluster"]
    write_private(path, kubectl.kubeconfig_of(cluster, token, namespace))
    return path


class Requests(NamedTuple):
    """What `requests_by_verb` sums by; `verb` as the server names it, such as GET, LIST, WATCH, PATCH or APPLY."""

    verb: str
    group: str
    resource: str
    subresource: str


def requests_by_verb(plane: ControlPlane) -> dict[Requests, int]:
    """How many requests the API server has answered since it started, whoever made them, from its /metrics.

    The difference of two readings is what happened in between: the cluster's own controllers are in it (the garbage
    collector looks up owners), and a watch counts when it ends.
    """
    return sum_requests(_answer(plane, "get", "--raw", "/metrics"))


def sum_requests(metrics: str) -> dict[Requests, int]:
    """`apiserver_request_total` of a Prometheus text exposition, over all codes, versions and scopes."""
    sums: dict[Requests, int] = {}
    for labels, value in re.findall(r"^apiserver_request_total\{(.*)\} (\S+)$", metrics, re.MULTILINE):
        by = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
        key = Requests(by["verb"], by["group"], by["resource"], by["subresource"])
        sums[key] = sums.get(key, 0) + int(float(value))
    return sums


def _answer(plane: ControlPlane, *arguments: str) -> str:
    """What kubectl prints; an `Unfit` if it fails."""
    done = plane.ctl(*arguments)
    if done.returncode:
        raise Unfit(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}", f"see that {plane.server} answers")
    return done.stdout
