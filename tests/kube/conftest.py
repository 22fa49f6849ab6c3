"""One real control plane per test session, and a namespace of its own for each test."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import controlplane
from lab.controlplane import ControlPlane
from lab.kubectl import Kubectl
from lab.paths import REPOSITORY, run_dir


def _remove_leftovers(folder: Path) -> None:
    """Take down what sessions that were killed left behind: their lock is free, the kernel saw to that.

    Their names end alike: `kube1f3a`, and `own1f3a` beside it.
    """
    for held in folder.glob("kube????/session"):
        with held.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            held.unlink()
            for left in folder.glob(f"*{held.parent.name[-4:]}"):
                controlplane.down(left.name)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane of this session's own: CRDs and policies are cluster-wide, so sessions can't share one."""
    name = "kube" + hashlib.sha256(f"{REPOSITORY} {os.getpid()}".encode()).hexdigest()[:4]
    session = run_dir(name) / "session"
    _remove_leftovers(session.parents[1])
    run_dir(name)
    with session.with_suffix(".new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Path(lock.name).rename(session)  # locked from the moment that another session can see it
        try:
            yield controlplane.up(name)
        finally:
            session.unlink()
            controlplane.down(name)


@pytest.fixture
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """Runs kubectl as the administrator: `kubectl("apply", "-f", "-", stdin=manifest)`."""
    return control_plane.ctl


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A fresh namespace; deleted afterwards, which nobody waits for."""
    made = kubectl(
        "create",
        "-f",
        "-",
        "-o",
        "name",
        stdin='{"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}}',
    )
    assert made.returncode == 0, made.stderr
    name = made.stdout.strip().removeprefix("namespace/")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def crds(control_plane: ControlPlane) -> None:
    """The CRDs as they are committed, ready to be used."""
    made = control_plane.ctl("apply", "--server-side", "-k", str(REPOSITORY / "crds"))
    assert made.returncode == 0, made.stderr
    ready = control_plane.ctl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
    assert ready.returncode == 0, ready.stderr
