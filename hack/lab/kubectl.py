"""kubectl, run on one kubeconfig and nothing else; and kubeconfigs, read and made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lab.errors import Unfit


class Kubectl(Protocol):
    """Runs kubectl; it never raises, the caller reads `returncode`."""

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run it with these arguments and this standard input."""


def run(kubectl: Path, kubeconfig: Path | str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run kubectl on one kubeconfig; a value with colons goes the way KUBECONFIG goes."""
    own = {"KUBECONFIG": str(kubeconfig), "KUBERC": "off"}
    if isinstance(kubeconfig, Path):
        # Beside the kubeconfig, gone with it: another cluster behind the same port later has another schema.
        own["KUBECACHEDIR"] = str(kubeconfig.parent / "kubectl-cache")
    return subprocess.run(
        [kubectl, *arguments], input=stdin, capture_output=True, text=True, check=False, env={**os.environ, **own}
    )


def on_path() -> Path:
    """The caller's own kubectl."""
    found = shutil.which("kubectl")
    if found is None:
        raise Unfit("kubectl isn't on the PATH.", "install kubectl")
    return Path(found)


def config_of(kubectl: Path, kubeconfig: str) -> dict[str, Any]:
    """The current context's cluster and user, certificates and keys inlined."""
    done = run(kubectl, kubeconfig, "config", "view", "--minify", "--flatten", "--raw", "--output=json")
    if done.returncode:
        raise Unfit(
            f"{kubeconfig} names no cluster: {done.stderr.strip()}",
            "name another kubeconfig, or choose a context in it",
        )
    config: dict[str, Any] = json.loads(done.stdout)
    return config


def server_of(config: dict[str, Any]) -> str:
    """The URL of the cluster in what `config_of` returned."""
    return str(config["clusters"][0]["cluster"]["server"])


def kubeconfig_of(cluster: Mapping[str, Any], token: str, namespace: str = "default") -> str:
    """A kubeconfig with one context; JSON, which is YAML too."""
    only = "rackwright"
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": only, "cluster": cluster}],
            "users": [{"name": only, "user": {"token": token}}],
            "contexts": [{"name": only, "context": {"cluster": only, "user": only, "namespace": namespace}}],
            "current-context": only,
        },
        indent=2,
    )
