"""A real, current Kubernetes API server for whoever asks, on any machine that can run one.

CRD validation, RBAC, admission policies, watches and garbage collection are the API server's own work, so tests,
demo and figures run against a real one. It comes from the first of four sources that this machine offers
(`controlplane_choice` says which and why); callers get the same `ControlPlane` from each.

Programs that run here (the last two sources) listen on 127.0.0.1 only and need no root. There are no nodes: Pods
are stored, never started.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

from lab import controlplane_build, kind_cluster, kubectl
from lab import controlplane_services as services
from lab.console import tell
from lab.controlplane_access import ControlPlane, service_account_kubeconfig
from lab.controlplane_build import programs
from lab.controlplane_choice import Kind, Surroundings, choose, look_around
from lab.controlplane_record import Record, one_at_a_time, run_folder, state_folder
from lab.errors import Unfit
from lab.paths import run_dir, state_dir
from lab.private import write_private
from lab.system import Room

__all__ = ["ControlPlane", "check", "down", "find", "service_account_kubeconfig", "up"]


def up(name: str, *, current: str | None = None) -> ControlPlane:
    """Bring a control plane up, or find the one of that name that runs already.

    `current` asks for the caller's own cluster and is a value of KUBECONFIG (one file, or several joined by colons);
    its current context is copied, so that a later change of context doesn't redirect what runs here.
    """
    config = None if current is None else _current_config(current)
    if (running := _running(name, config)) is not None:
        tell(f"control plane {name} runs already: {running.kind} at {running.server}")
        return running
    decided = _decide(name, current)
    with one_at_a_time(name):
        before = Record.of(name)
        _require_same_kind(name, before, decided.kind)
        record = replace(decided, ports=before.ports if before else services.free_ports(name))
        record.write(name)
        run_folder(name).mkdir(mode=0o700, parents=True, exist_ok=True)
        match record.kind:
            case Kind.CURRENT:
                if config is None:
                    raise _silent(name)
                write_private(run_folder(name) / "kubeconfig", json.dumps(config))
            case Kind.KIND:
                kind_cluster.start(name, record)
            case Kind.ASSETS | Kind.BUILT:
                try:
                    services.start(name, record)
                except BaseException:
                    services.stop(name)
                    raise
            case _ as never:
                assert_never(never)
    plane = find(name)
    if plane is None:
        raise Unfit(
            f"Control plane {name} doesn't answer.",
            f"see {run_folder(name)}; hack/control-plane down --name {name} removes it",
        )
    return plane


def check(name: str, *, current: str | None = None) -> list[Room]:
    """Refuse what `up` would refuse, before anything is made or built; the disk space that `up` will need."""
    config = None if current is None else _current_config(current)
    if _running(name, config) is not None:
        return []
    record = Record.of(name)
    kind = record.kind if record is not None and current is None else choose(look_around(current)).kind
    _require_same_kind(name, record, kind)
    match kind:
        case Kind.CURRENT:
            if current is None:
                raise _silent(name)
            asked = kubectl.run(kubectl.on_path(), current, "get", "--raw", "/readyz", "--request-timeout=10s")
            if asked.returncode:
                raise Unfit(
                    f"The cluster that {current} names doesn't answer: {asked.stderr.strip()}",
                    "see what `kubectl cluster-info` says",
                )
        case Kind.KIND:
            kubectl.on_path()
        case Kind.ASSETS | Kind.BUILT:
            services.free_ports(name) if record is None else services.require_ports(name, record)
        case _ as never:
            assert_never(never)
    return controlplane_build.room(controlplane_build.require_go()) if kind is Kind.BUILT else []


def _running(name: str, config: dict[str, Any] | None) -> ControlPlane | None:
    """The one that is up, which is the one that `config` is about if that is given."""
    running = find(name)
    if running is not None and config is not None and kubectl.server_of(config) != running.server:
        raise Unfit(
            f"Control plane {name} is up already, at {running.server}, not at {kubectl.server_of(config)}.",
            f"hack/control-plane down --name {name}",
        )
    return running


def _require_same_kind(name: str, before: Record | None, kind: Kind) -> None:
    if before is not None and before.kind is not kind:
        raise Unfit(
            f"Control plane {name} is there already, as {before.kind}, and doesn't answer.",
            f"hack/control-plane down --name {name}",
        )


def _silent(name: str) -> Unfit:
    return Unfit(
        f"The cluster that control plane {name} stands for doesn't answer.", f"hack/control-plane down --name {name}"
    )


def _decide(name: str, current: str | None) -> Record:
    """The source, as before or as `choose` says, its programs built; that can take minutes, so it holds no lock."""
    record = Record.of(name)
    if record is not None and current is None:
        tell(f"control plane {name}: {record.kind}, as before")
        return replace(record, kubectl=programs() / "kubectl") if record.kind is Kind.BUILT else record
    choice = choose(seen := look_around(current))
    tell(f"control plane {name}: {choice.kind}, because {choice.because}")
    match choice.kind:
        case Kind.CURRENT | Kind.KIND:
            return Record(choice.kind, kubectl.on_path(), seen.engine)
        case Kind.ASSETS:
            return Record(choice.kind, Path(seen.assets, "kubectl"))
        case Kind.BUILT:
            return Record(choice.kind, programs() / "kubectl")
        case _ as never:
            assert_never(never)


def _current_config(kubeconfig: str) -> dict[str, Any]:
    choose(Surroundings(current=kubeconfig))  # refuses an empty one, for which kubectl would look elsewhere
    return kubectl.config_of(kubectl.on_path(), kubeconfig)


def down(name: str) -> None:
    """Remove a control plane with all it stored, if it is there; a cluster of the caller's own stays as it is."""
    with one_at_a_time(name):
        record = Record.of(name)
        services.stop(name)
        if record is not None and record.kind is Kind.KIND:
            kind_cluster.remove(name, record)
        for folder in (run_folder(name), state_folder(name)):
            if folder.exists():
                shutil.rmtree(folder)
    for folder in (run_dir(name), state_dir(name)):
        with suppress(OSError):  # not empty: a rack of that name is there
            folder.rmdir()
    tell(f"control plane {name} is gone" if record else f"there is no control plane {name}")


def find(name: str) -> ControlPlane | None:
    """The control plane of that name, if it is up and answers."""
    record = Record.of(name)
    if record is None or not record.kubectl.exists() or not (kubeconfig := run_folder(name) / "kubeconfig").exists():
        return None
    if kubectl.run(record.kubectl, kubeconfig, "get", "--raw", "/readyz", "--request-timeout=5s").returncode:
        return None
    if any(service.pid is None for service in services.expected(name, record)):
        return None
    server = kubectl.server_of(kubectl.config_of(record.kubectl, str(kubeconfig)))
    controllers = record.kind is not Kind.ASSETS or services.has_controllers(record)
    return ControlPlane(name, kubeconfig, record.kubectl, record.kind, server, controllers)
