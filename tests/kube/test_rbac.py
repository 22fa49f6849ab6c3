"""The operator's rights: what it needs and nothing else, read from the manifests and asked of a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import yaml

from lab import pod
from lab.controlplane import ControlPlane
from rackwright.api import GROUP
from rackwright.shards import lease_name

BASE = pod.MANIFESTS / "base"
OPERATOR = "system:serviceaccount:rackwright-system:rackwright"


def documents(name: str) -> list[dict[str, Any]]:
    """The objects in one of the base's files."""
    return list(yaml.safe_load_all((BASE / name).read_text()))


def rules() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every rule, with the kind and name of the role it is in."""
    for role in documents("rbac.yaml"):
        for rule in role.get("rules", []):
            yield f"{role['kind']}/{role['metadata']['name']}", rule


def rights(role: str) -> set[str]:
    """Everything that a role allows, as VERB RESOURCE.GROUP, and /NAME where it is to one object."""
    found: set[str] = set()
    for owner, rule in rules():
        if owner == role:
            for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"]):
                what = f"{resource}.{group}".rstrip(".")
                found |= {f"{verb} {what}{'/' if name else ''}{name}" for name in rule.get("resourceNames", [""])}
    return found


# --- the manifests ------------------------------------------------------------------------------------------------


MACHINES, IMAGES, INVENTORIES, EVENTS, LEASES = (
    "baremetalmachines.metal.rackwright.io",
    "operatingsystemimages.metal.rackwright.io",
    "hardwareinventories.metal.rackwright.io",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
)
RIGHTS = {
    "ClusterRole/rackwright-operator": {
        f"list {MACHINES}",  # Cluster.listed, and kopf's watch begins with a listing
        f"watch {MACHINES}",  # handlers.watch
        f"get {MACHINES}",  # Cluster.get: after a conflict
        f"patch {MACHINES}",  # Cluster.patch_metadata
        f"patch baremetalmachines/status.{GROUP}",  # Cluster.patch_status
        f"list {IMAGES}",  # Cluster.listed
        f"watch {IMAGES}",  # handlers.watch
        f"get {INVENTORIES}",  # Cluster.get
        f"create {INVENTORIES}",  # Cluster.apply: the API server asks for both
        f"patch {INVENTORIES}",
        f"create {EVENTS}",  # Cluster.create_event
        f"patch {EVENTS}",  # Cluster.patch_event
    },
    "Role/rackwright-operator": {
        f"create {LEASES}",  # Cluster.put_lease
        f"list {LEASES}",  # Cluster.leases
        f"watch {LEASES}",  # Cluster.lease_changes
        *(f"get {LEASES}/{lease_name(shard)}" for shard in range(16)),  # Cluster.lease
        *(f"update {LEASES}/{lease_name(shard)}" for shard in range(16)),  # Cluster.put_lease
        "create secrets",  # Cluster.create_secret
        "get secrets/rackwright-tokens",  # Cluster.secret
    },
    "ClusterRole/rackwright-secret-reader": {
        "get secrets",  # Cluster.secret
        "watch secrets",  # Cluster.secret_changes
    },
    "ClusterRole/rackwright-view": {
        f"{verb} {what}" for verb in ("get", "list", "watch") for what in (MACHINES, INVENTORIES)
    },
    "ClusterRole/rackwright-edit": {f"{verb} {MACHINES}" for verb in ("create", "update", "patch", "delete")},
    "ClusterRole/rackwright-images-view": {f"{verb} {IMAGES}" for verb in ("get", "list", "watch")},
}
"""Every right that the base gives, and what calls it. One more is to be added here too, with its reason."""


def test_each_role_allows_what_is_called_and_nothing_else() -> None:
    assert {role: rights(role) for role, _ in rules()} == RIGHTS


def test_nothing_is_allowed_by_wildcard() -> None:
    assert not [role for role, rule in rules() if "*" in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]]


def test_nobody_may_list_secrets_and_no_binding_of_ours_reads_them_cluster_wide() -> None:
    of_secrets = {role: set(rule["verbs"]) for role, rule in rules() if "secrets" in rule["resources"]}
    assert not [role for role, verbs in of_secrets.items() if verbs & {"list", "update", "patch", "delete"}]
    bound = {d["roleRef"]["name"] for d in documents("rbac.yaml") if d["kind"] == "ClusterRoleBinding"}
    assert bound == {"rackwright-operator"}
    assert "ClusterRole/rackwright-operator" not in of_secrets


def test_rights_in_its_own_namespace_are_to_named_objects() -> None:
    unnamed = [rule for role, rule in rules() if role.startswith("Role/") and "resourceNames" not in rule]
    assert {verb for rule in unnamed for verb in rule["verbs"]} == {"create", "list", "watch"}
    assert all(rule["verbs"] == ["create"] for rule in unnamed if rule["resources"] != ["leases"])


@pytest.mark.parametrize("container", pod.containers(), ids=lambda c: c["name"])
def test_a_container_is_confined(container: dict[str, Any]) -> None:
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"]["drop"] == ["ALL"]
    assert "memory" in container["resources"]["limits"]


def test_only_dnsmasq_is_root_and_with_four_capabilities() -> None:
    assert pod.spec()["securityContext"]["runAsNonRoot"] is True
    assert pod.spec()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    roots = [c for c in pod.containers() if c["securityContext"].get("runAsUser") == 0]
    assert [c["name"] for c in roots] == ["dnsmasq"]
    added = set(roots[0]["securityContext"]["capabilities"]["add"])
    assert added == {"NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW", "SETGID"}  # tests/rack starts it with just these
    assert not [c["name"] for c in pod.containers() if "add" in c["securityContext"]["capabilities"] and c not in roots]


def test_only_the_operator_gets_the_api_servers_token() -> None:
    assert pod.spec()["automountServiceAccountToken"] is False
    holders = [
        container["name"]
        for container in pod.containers()
        if any(mount["name"] == "api-access" for mount in container["volumeMounts"])
    ]
    assert holders == ["operator"]


def test_every_volume_that_is_mounted_exists() -> None:
    mounted = {m["name"] for c in pod.containers() for m in c["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod.spec()["volumes"]}


# --- a real API server --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(control_plane: ControlPlane, crds: None) -> ControlPlane:  # noqa: ARG001 (the base builds on them)
    """The base, with the samples' namespace for machines."""
    for arguments in (
        ("--server-side", "-k", str(BASE)),
        ("-f", str(BASE.with_name("samples") / "machines-namespace.yaml")),
    ):
        applied = control_plane.ctl("apply", *arguments)
        assert applied.returncode == 0, applied.stderr
    return control_plane


MAY = [
    ("list", "baremetalmachines.metal.rackwright.io", "any"),
    ("watch", "baremetalmachines.metal.rackwright.io", "any"),
    ("patch", "baremetalmachines.metal.rackwright.io", "any"),
    ("patch", "baremetalmachines.metal.rackwright.io/status", "any"),
    ("watch", "operatingsystemimages.metal.rackwright.io", "any"),
    ("create", "hardwareinventories.metal.rackwright.io", "any"),
    ("patch", "hardwareinventories.metal.rackwright.io", "any"),
    ("create", "events.events.k8s.io", "any"),
    ("get", "secrets/node-01-bmc", "machines"),
    ("watch", "secrets/node-01-bmc", "machines"),
    ("create", "leases.coordination.k8s.io", "rackwright-system"),
    ("update", "leases.coordination.k8s.io/rackwright", "rackwright-system"),
    ("create", "secrets", "rackwright-system"),
    ("get", "secrets/rackwright-tokens", "rackwright-system"),
]
MAY_NOT = [
    ("create", "baremetalmachines.metal.rackwright.io", "any"),
    ("delete", "baremetalmachines.metal.rackwright.io", "any"),
    ("get", "operatingsystemimages.metal.rackwright.io", ""),
    ("patch", "operatingsystemimages.metal.rackwright.io", ""),
    ("delete", "hardwareinventories.metal.rackwright.io", "any"),
    ("list", "secrets", "machines"),
    ("list", "secrets", ""),
    ("get", "secrets/anything", "any"),
    ("watch", "secrets", "any"),
    ("create", "secrets", "machines"),
    ("get", "secrets/another", "rackwright-system"),
    ("list", "secrets", "rackwright-system"),
    ("update", "secrets/rackwright-tokens", "rackwright-system"),
    ("update", "leases.coordination.k8s.io/another", "rackwright-system"),
    ("create", "leases.coordination.k8s.io", "any"),
    ("create", "pods", "any"),
    ("get", "customresourcedefinitions.apiextensions.k8s.io", ""),
    ("list", "namespaces", ""),
]


def may(plane: ControlPlane, verb: str, what: str, namespace: str) -> bool:
    """Whether the operator's account may do that; `what` is RESOURCE.GROUP, then /NAME or /status."""
    resource, _, name = what.partition("/")
    resource, _, group = resource.partition(".")
    attributes = {"verb": verb, "resource": resource, "group": group, "namespace": namespace}
    attributes |= {"subresource": name} if name == "status" else {"name": name}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": OPERATOR, "resourceAttributes": attributes},
    }
    done = plane.ctl("create", "-o", "json", "-f", "-", stdin=json.dumps(review))
    assert done.returncode == 0, done.stderr
    return bool(json.loads(done.stdout)["status"]["allowed"])


@pytest.mark.kube
@pytest.mark.parametrize(("verb", "what", "namespace"), MAY)
def test_the_operator_may(installed: ControlPlane, verb: str, what: str, namespace: str) -> None:
    assert may(installed, verb, what, namespace)


@pytest.mark.kube
def test_only_enlistment_lets_it_create_machines_and_only_where_they_enlist(installed: ControlPlane) -> None:
    machines = "baremetalmachines.metal.rackwright.io"
    assert not may(installed, "create", machines, "machines")
    rights = str(BASE.parent / "overlays/enlistment/rbac.yaml")
    try:
        applied = installed.ctl("apply", "-f", rights)
        assert applied.returncode == 0, applied.stderr
        assert may(installed, "create", machines, "machines")
        assert not may(installed, "create", machines, "rackwright-system")
        assert not may(installed, "delete", machines, "machines")
        assert not may(installed, "update", machines, "machines")
    finally:
        installed.ctl("delete", "-f", rights)
    assert not may(installed, "create", machines, "machines")


@pytest.mark.kube
@pytest.mark.parametrize(("verb", "what", "namespace"), MAY_NOT)
def test_the_operator_may_not(installed: ControlPlane, verb: str, what: str, namespace: str) -> None:
    assert not may(installed, verb, what, namespace)
