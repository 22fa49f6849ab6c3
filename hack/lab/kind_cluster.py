"""A cluster that kind makes in containers."""

from __future__ import annotations

import os
import shutil
import subprocess

from lab.console import stage
from lab.controlplane_record import Record, run_folder
from lab.errors import Unfit
from lab.private import write_private


def start(name: str, record: Record) -> None:
    """Make the cluster unless it is there, and write its kubeconfig."""
    kubeconfig = run_folder(name) / "kubeconfig"
    write_private(kubeconfig, "")
    target = ("--name", _cluster(name), "--kubeconfig", str(kubeconfig))
    if _cluster(name) in _kind(record.engine, "get", "clusters").split():
        _kind(record.engine, "export", "kubeconfig", *target)
    else:
        with stage(f"start control plane {name}", "1 min, more the first time: it downloads an image"):
            _kind(record.engine, "create", "cluster", "--wait", "3m", *target)


def remove(name: str, record: Record) -> None:
    """Remove the cluster."""
    _kind(record.engine, "delete", "cluster", "--name", _cluster(name))


def _kind(engine: str | None, *arguments: str) -> str:
    """Run kind; an `Unfit` with the end of what it says if it fails."""
    provider = {"KIND_EXPERIMENTAL_PROVIDER": "podman"} if engine == "podman" else {}
    if shutil.which("kind") is None:
        raise Unfit("kind isn't on the PATH any more.", "put it there, so that its cluster can be removed")
    done = subprocess.run(
        ["kind", *arguments], capture_output=True, text=True, check=False, env={**os.environ, **provider}
    )
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-8:])
        raise Unfit(f"kind {' '.join(arguments[:2])} failed:\n{tail}", f"see what `kind {' '.join(arguments)}` says")
    return done.stdout


def _cluster(name: str) -> str:
    return f"rackwright-{name}"
