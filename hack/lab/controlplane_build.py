"""The programs of a control plane, built from Go modules: etcd, kube-apiserver, kube-controller-manager, kubectl."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

from lab import cache
from lab.console import stage
from lab.errors import Unfit
from lab.paths import REPOSITORY
from lab.system import Room

MODULE = REPOSITORY / "hack/control_plane"
"""The Go module without Go code that pins what is built."""
_NEEDS_GIB = 6
"""To build, what Go keeps in its own caches included."""


def programs() -> Path:
    """The folder with etcd, kube-apiserver, kube-controller-manager and kubectl, built now unless it is cached."""
    go = require_go()
    flags = build_flags((MODULE / "go.mod").read_text())

    def build(folder: Path) -> None:
        log = folder / "build.log"
        with (
            stage("build etcd and Kubernetes from Go modules", "6 min the first time, with 2 cores") as now,
            log.open("w") as out,
            subprocess.Popen(
                ["go", "build", "-v", *flags, "-o", f"{folder / 'bin'}/", "tool"],
                cwd=MODULE,
                env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as building,
        ):
            for count, line in enumerate(building.stdout or (), 1):
                out.write(line)
                if count % 200 == 0:
                    now.say(f"{count} packages")
            if building.wait():
                out.flush()
                tail = "\n".join(log.read_text().splitlines()[-8:])
                raise Unfit(
                    f"The control plane could not be built:\n{tail}",
                    f"read {log}; go must be able to download modules (go env GOPROXY)",
                )
        (folder / "bin/server").rename(folder / "bin/etcd")

    return cache.built("control-plane", _programs_key(go), build, needs_gib=_NEEDS_GIB) / "bin"


def room(go: str) -> list[Room]:
    """The disk space that `programs` will need with that Go, which is what `go version` says."""
    return cache.room_for("control-plane", _programs_key(go), _NEEDS_GIB)


def _programs_key(go: str) -> str:
    flags = build_flags((MODULE / "go.mod").read_text())
    return cache.fingerprint([MODULE / "go.mod", MODULE / "go.sum", go, *flags])


def build_flags(go_mod: str) -> tuple[str, ...]:
    """Reproducible, and calling itself by the version that go.mod requires (a bare build says v0.0.0-master)."""
    version = re.search(r"^(?:require |\t)k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)", go_mod, re.MULTILINE)
    if version is None:
        raise Unfit(f"{MODULE / 'go.mod'} requires no k8s.io/kubernetes.", "restore it")
    full, major, minor = version.groups()
    component, client = "k8s.io/component-base/version", "k8s.io/client-go/pkg/version"
    values = {
        f"{p}.{k}": v
        for p in (component, client)
        for k, v in (("gitVersion", full), ("gitMajor", major), ("gitMinor", minor))
    }
    return ("-trimpath", "-buildvcs=false", "-ldflags", "-s -w " + " ".join(f"-X {k}={v}" for k, v in values.items()))


def needed_go() -> str:
    """The oldest Go that can build it, as go.mod says: 1.26.0."""
    return next(line.split()[1] for line in (MODULE / "go.mod").read_text().splitlines() if line.startswith("go "))


def get_go() -> str:
    """What a person does who has no such Go. Since 1.21 a Go can fetch the one that a module asks for."""
    return f"install Go {needed_go()} or newer, or 1.21 or newer with GOTOOLCHAIN=auto, which fetches it"


def why_not(go: str | None) -> str | None:
    """Why a Go can't build it, given what `go version` says, as a half-sentence; None if it can."""
    if go is None:
        return "there is no working go on the PATH"
    if _release(go) < _release(f"go{needed_go()}"):
        return f"`go version` says {go.removeprefix('go version ')}, older than the {needed_go()} that is needed"
    return None


def _release(go: str) -> tuple[int, ...]:
    """The release in what `go version` says, a pre-release before its release; nothing comes before all of them."""
    found = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?((?:rc|beta)\d)?", go)
    if found is None:
        return ()
    major, minor, patch, before = found.groups()
    return int(major), int(minor), -1 if before else int(patch or 0)


def require_go() -> str:
    """What `go version` says; an `Unfit` if that can't build it."""
    go = go_version()
    if (reason := why_not(go)) is not None:
        raise Unfit(f"The control plane can't be built: {reason}.", get_go())
    return str(go)


def go_version() -> str | None:
    """What `go version` says, None without a working go; it may fetch the toolchain that go.mod asks for.

    An older Go that mayn't fetch one says its own version here, without a word about go.mod.
    """
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(["go", "version"], cwd=MODULE, capture_output=True, text=True, check=True).stdout.strip()
    return None
