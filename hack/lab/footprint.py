"""What a laboratory puts into a cluster, marked as its own, and how that is taken out of a cluster that stays.

In a cluster of somebody's own nothing is touched that doesn't carry the mark: `require_free` refuses to apply over
what is there without it, `remove` deletes by it, and what others have put into our namespaces, or under our CRDs, keeps
these alive.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.console import tell
from lab.controlplane import ControlPlane
from lab.errors import Unfit
from rackwright.api import FINALIZER, GROUP

MARK = f"{GROUP}/laboratory"
"""The label of everything that a laboratory applies; its value is the laboratory's name."""
_MACHINES = f"baremetalmachines.{GROUP}"
_OPERATORS_OWN = ("secret/rackwright-tokens", "lease.coordination.k8s.io/rackwright")
"""What the operator makes in its namespace by itself."""
_CLUSTERS_OWN = frozenset({"configmap/kube-root-ca.crt", "serviceaccount/default"})
"""What Kubernetes puts into every namespace."""


def mark(name: str) -> dict[str, str]:
    """The label of a laboratory's objects."""
    return {MARK: name}


def require_free(plane: ControlPlane, name: str, folder: Path) -> None:
    """Refuse to go on if the cluster has one of a kustomization's objects, and not from this laboratory."""
    told = _ask(plane, "get", "-k", str(folder), "--ignore-not-found", "-o", "json")
    found: dict[str, Any] = json.loads(told or "{}")
    theirs = [
        f"{each['kind']} {each['metadata']['name']}"
        for each in found.get("items", [found] if found else [])
        if each["metadata"].get("labels", {}).get(MARK) != name
    ]
    if theirs:
        raise Unfit(
            f"The cluster at {plane.server} has already, and not from laboratory {name}: {', '.join(theirs)}.",
            f"name a cluster without Rackwright; or, if `kubectl get ... --show-labels` shows the label {MARK}: "
            "hack/demo down --name ITS_VALUE",
        )


def remove(plane: ControlPlane, name: str, operators_namespace: str) -> None:
    """Delete what this laboratory made. The operator must have ended: it would release machines, whose disks go anyway.

    May be repeated, also after it was interrupted.
    """
    marked = f"--selector={MARK}={name}"
    definitions = _names(plane, "crd", marked)
    kinds = [definition.partition("/")[2] for definition in definitions]
    if _MACHINES in kinds:
        for machine in _items(plane, _MACHINES, "--all-namespaces", marked):
            _let_go(plane, machine["metadata"])
    for kind in kinds:
        _delete(plane, kind, "--all-namespaces", marked)
    _delete(plane, "secret,rolebinding,role,serviceaccount", "--all-namespaces", marked)
    for namespace in _names(plane, "namespace", marked):
        if namespace == f"namespace/{operators_namespace}":
            _delete(plane, *_OPERATORS_OWN, "--namespace", operators_namespace)
        _delete_unless_used(plane, namespace, _others_in(plane, namespace.partition("/")[2]))
    _delete(plane, "clusterrolebinding,clusterrole", marked)
    for definition, kind in zip(definitions, kinds, strict=True):
        _delete_unless_used(plane, definition, _names(plane, kind, "--all-namespaces"))


def _let_go(plane: ControlPlane, machine: dict[str, Any]) -> None:
    """Delete a machine with its inventory, without the release that our finalizer waits for."""
    there = (f"--namespace={machine['namespace']}",)
    _delete(plane, f"{_MACHINES}/{machine['name']}", *there, "--wait=false")
    kept = [each for each in machine.get("finalizers", []) if each != FINALIZER]
    if kept != machine.get("finalizers", []):
        patch = json.dumps({"metadata": {"finalizers": kept}})
        _ask(plane, "patch", f"{_MACHINES}/{machine['name']}", *there, "--type=merge", "--patch", patch)
    _delete(plane, f"hardwareinventories.{GROUP}/{machine['name']}", *there)


def _others_in(plane: ControlPlane, namespace: str) -> list[str]:
    """What is in a namespace beside Events and what Kubernetes puts there."""
    kinds = _ask(plane, "api-resources", "--namespaced", "--verbs=list,delete", "--output=name").split()
    listed = ",".join(kind for kind in kinds if kind.partition(".")[0] != "events")
    return [each for each in _names(plane, listed, f"--namespace={namespace}") if each not in _CLUSTERS_OWN]


def _delete_unless_used(plane: ControlPlane, thing: str, others: list[str]) -> None:
    if others:
        tell(f"{thing} stays: the laboratory didn't make {', '.join(others)}; later: kubectl delete {thing}")
    else:
        _delete(plane, thing)


def _names(plane: ControlPlane, *what: str) -> list[str]:
    return _ask(plane, "get", *what, "--ignore-not-found", "-o", "name").split()


def _items(plane: ControlPlane, *what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_ask(plane, "get", *what, "-o", "json"))["items"]
    return found


def _delete(plane: ControlPlane, *what: str) -> None:
    _ask(plane, "delete", *what, "--ignore-not-found", "--timeout=60s")


def _ask(plane: ControlPlane, *arguments: str) -> str:
    done = plane.ctl(*arguments)
    if done.returncode:
        raise Unfit(
            f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}", "mend what it says, and run this again"
        )
    return done.stdout
