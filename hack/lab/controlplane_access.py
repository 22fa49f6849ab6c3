"""A control plane that answers, whatever it comes from: its administrator, its ServiceAccounts."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

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


def _answer(plane: ControlPlane, *arguments: str) -> str:
    """What kubectl prints; an `Unfit` if it fails."""
    done = plane.ctl(*arguments)
    if done.returncode:
        raise Unfit(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}", f"see that {plane.server} answers")
    return done.stdout
