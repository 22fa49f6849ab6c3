"""What a machine lacks for the demo is said before anything is made: on this machine, made unfit for one command."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lab import network
from lab.paths import REPOSITORY, STATE

pytestmark = pytest.mark.rack

NAME = "unfit"
SURROUNDINGS = """
set -e
mount -t tmpfs -o size=64m none "$1"
mount -t tmpfs none /dev/net
export XDG_CACHE_HOME="$1" PATH="$2:$PATH"
unset KUBEBUILDER_ASSETS
exec hack/demo --name unfit --port "$3"
"""
"""In a mount namespace of its own: a small file system for the caches, and no tun."""


def test_everything_that_is_missing_is_said_at_once_and_nothing_is_built(tmp_path: Path) -> None:
    caches, programs = tmp_path / "caches", tmp_path / "programs"
    for folder in (caches, programs):
        folder.mkdir()
    for name, script in (("go", "echo go version go1.19.8 linux/amd64"), ("docker", "exit 1"), ("podman", "exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104 (somebody's server, for the length of this test)
        port = str(taken.getsockname()[1])
        refused = subprocess.run(
            ["unshare", "--mount", "bash", "-c", SURROUNDINGS, "-", caches, programs, port],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert refused.returncode == 2, refused.stderr
    for problem, remedy in (
        ("older than the 1.26.0 that is needed", "install Go 1.26.0 or newer"),
        ("There is no /dev/net/tun", "load the kernel module `tun`"),
        (f"needs TCP port {port} on ", "choose another one with --port"),
        ("GiB are needed: venv-dev 1, ramdisk-debian 2, ramdisk 1, os-image 5", "set XDG_CACHE_HOME"),
    ):
        assert problem in refused.stderr
        assert remedy in refused.stderr
    assert refused.stdout == ""
    assert "…" not in refused.stderr  # no stage has begun
    assert not [folder for folder in (Path("/run/rackwright") / NAME, STATE / NAME) if folder.exists()]
    assert not network.namespace_exists(NAME)


def test_down_removes_a_rack_beside_a_control_plane_that_cannot_be_removed(tmp_path: Path) -> None:
    """Its record says that kind made it, and there is no kind."""
    record = STATE / NAME / "control-plane/record.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"kind": "kind", "kubectl": "/nonexistent", "engine": "docker", "ports": []}')
    try:
        subprocess.run(["ip", "netns", "add", f"rackwright-{NAME}"], check=True)
        (tmp_path / "ip").symlink_to(shutil.which("ip") or "")
        down = subprocess.run(
            [sys.executable, "hack/demo", "--name", NAME, "down"],
            cwd=REPOSITORY,
            env={"PATH": str(tmp_path), "HOME": str(Path.home())},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert down.returncode == 2, down.stderr
        assert "kind isn't on the PATH any more" in down.stderr
        assert not network.namespace_exists(NAME)
    finally:
        shutil.rmtree(STATE / NAME)
        network.tear_out(NAME)
