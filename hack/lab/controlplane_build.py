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

MODULE = REPOSITORY / "hack/control_plane"
"""The Go module without Go code that pins what is built."""
GET_GO = f"install the Go that {MODULE / 'go.mod'} asks for, or newer"


def programs() -> Path:
    """The folder with etcd, kube-apiserver, kube-controller-manager and kubectl, built now unless it is cached."""
    go = go_version()
    if go is None:
        raise Unfit("There is no working go on the PATH.", GET_GO)
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

    return cache.built("control-plane", _programs_key(go), build, needs_gib=6) / "bin"


def programs_are_built() -> bool:
    """Whether `programs` has nothing to build."""
    go = go_version()
    return go is not None and cache.is_built("control-plane", _programs_key(go))


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


def go_version() -> str | None:
    """What `go version` says, None without a working go; it may fetch the toolchain that go.mod asks for."""
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(["go", "version"], cwd=MODULE, capture_output=True, text=True, check=True).stdout.strip()
    return None
