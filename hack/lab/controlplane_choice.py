"""Where a control plane comes from: the first of four sources that this machine offers, and why.

What the machine offers is looked up first (`look_around`); the choice itself (`choose`) depends on nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lab.controlplane_build import get_go, go_version, why_not
from lab.errors import Unfit

_NEEDED = ("etcd", "kube-apiserver", "kubectl")
_ENGINES = {"docker": "{{.ServerVersion}}", "podman": "{{.Version.Version}}"}
"""Container engines, and the field of their `info` that only an engine can fill in, not a client."""


class Kind(StrEnum):
    """Where a control plane comes from."""

    CURRENT = "current"  # a cluster of the caller's own
    KIND = "kind"  # kind, in containers
    ASSETS = "assets"  # programs that KUBEBUILDER_ASSETS names
    BUILT = "built"  # the same programs, built from Go modules


@dataclass(frozen=True)
class Surroundings:
    """All that the choice depends on."""

    current: str | None = None
    """The value of KUBECONFIG if its cluster was asked for, empty if there is none; None: not asked for."""
    kind: bool = False
    engine: str | None = None
    """The container engine that answered."""
    assets: str = ""
    """The value of KUBEBUILDER_ASSETS."""
    assets_lack: tuple[str, ...] = ()
    go: str | None = None
    """What `go version` says."""


@dataclass(frozen=True)
class Choice:
    """Where the control plane comes from, and the reason as a half-sentence."""

    kind: Kind
    because: str


def choose(seen: Surroundings) -> Choice:
    """The first source that is there: the caller's cluster if asked for, kind, KUBEBUILDER_ASSETS, Go modules."""
    if seen.current is not None:
        if not seen.current:
            raise Unfit("No cluster is current: KUBECONFIG isn't set.", "set KUBECONFIG, or leave --use-current out")
        return Choice(Kind.CURRENT, f"{seen.current} was asked for")
    passed_over = []
    if seen.kind and seen.engine:
        return Choice(Kind.KIND, f"kind is on the PATH and {seen.engine}'s engine answers")
    passed_over.append("no engine of docker or podman answers" if seen.kind else "kind isn't on the PATH")
    if seen.assets and not seen.assets_lack:
        return Choice(Kind.ASSETS, f"{passed_over[0]}, and KUBEBUILDER_ASSETS is {seen.assets}")
    passed_over.append(
        f"KUBEBUILDER_ASSETS ({seen.assets}) lacks {' and '.join(seen.assets_lack)}"
        if seen.assets
        else "KUBEBUILDER_ASSETS isn't set"
    )
    if (reason := why_not(seen.go)) is None:
        return Choice(Kind.BUILT, f"{', '.join(passed_over)}, and there is {seen.go}")
    raise Unfit(
        f"This machine offers no control plane: {', '.join(passed_over)}, and {reason}.",
        f"{get_go()}; or install kind beside a running container engine; or name a cluster with KUBECONFIG and "
        "--use-current",
    )


def look_around(current: str | None = None) -> Surroundings:
    """What this machine offers; `current` as in `Surroundings`."""
    kind = shutil.which("kind") is not None and current is None
    engine = _answering_engine() if kind else None
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    lack = tuple(p for p in _NEEDED if not os.access(Path(assets, p), os.X_OK)) if assets else ()
    # go isn't asked in vain: it may fetch a toolchain to answer.
    go = None if current is not None or engine or (assets and not lack) else go_version()
    return Surroundings(current, kind, engine, assets and str(Path(assets).resolve()), lack, go)


def _answering_engine() -> str | None:
    """Asks the engines, not the PATH: a client may well be installed with nothing behind it."""
    for engine, field in _ENGINES.items():
        with suppress(OSError, subprocess.TimeoutExpired):
            answer = subprocess.run(
                [engine, "info", "--format", field], capture_output=True, text=True, check=False, timeout=5
            )
            if answer.returncode == 0 and answer.stdout.strip():
                return engine
    return None
