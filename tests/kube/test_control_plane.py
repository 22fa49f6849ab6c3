"""The control plane is chosen as its documentation says, and does what a cluster does."""

from __future__ import annotations

import json
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lab import controlplane
from lab.audit import Audit
from lab.controlplane import ControlPlane
from lab.controlplane_build import MODULE, build_flags, needed_go
from lab.controlplane_choice import Choice, Kind, Surroundings, choose, look_around
from lab.controlplane_services import services
from lab.errors import Unfit
from lab.kubectl import Kubectl
from lab.paths import REPOSITORY, run_dir, state_dir
from lab.process import wait_until

pytestmark = pytest.mark.kube

COMMAND = REPOSITORY / "hack/control-plane"
RUN_HERE = {Kind.ASSETS, Kind.BUILT}


# --- the choice ---------------------------------------------------------------------------------------------------


def test_the_callers_cluster_comes_first_when_asked_for() -> None:
    seen = Surroundings(current="/home/me/.kube/config", kind=True, engine="docker", assets="/assets", go="go version")
    assert choose(seen) == Choice(Kind.CURRENT, "/home/me/.kube/config was asked for")


def test_asking_for_the_callers_cluster_without_one_is_refused() -> None:
    with pytest.raises(Unfit, match="KUBECONFIG isn't set"):
        choose(Surroundings(current="", kind=True, engine="docker", go="go version"))


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_kind_comes_before_programs_when_an_engine_answers(engine: str) -> None:
    seen = Surroundings(kind=True, engine=engine, assets="/assets", go="go version")
    assert choose(seen) == Choice(Kind.KIND, f"kind is on the PATH and {engine}'s engine answers")


def test_kind_without_an_engine_is_passed_over() -> None:
    choice = choose(Surroundings(kind=True, assets="/assets"))
    assert choice == Choice(Kind.ASSETS, "no engine of docker or podman answers, and KUBEBUILDER_ASSETS is /assets")


def test_programs_at_hand_come_before_a_build() -> None:
    choice = choose(Surroundings(assets="/assets", go="go version"))
    assert choice == Choice(Kind.ASSETS, "kind isn't on the PATH, and KUBEBUILDER_ASSETS is /assets")


def test_incomplete_programs_are_passed_over_and_named() -> None:
    choice = choose(Surroundings(assets="/assets", assets_lack=("etcd", "kubectl"), go="go version go1.26"))
    assert choice == Choice(
        Kind.BUILT,
        "kind isn't on the PATH, KUBEBUILDER_ASSETS (/assets) lacks etcd and kubectl, and there is go version go1.26",
    )


def test_a_build_is_the_last_resort() -> None:
    choice = choose(Surroundings(go="go version go1.26"))
    assert choice == Choice(
        Kind.BUILT, "kind isn't on the PATH, KUBEBUILDER_ASSETS isn't set, and there is go version go1.26"
    )


def test_a_machine_that_offers_nothing_is_refused_with_a_remedy() -> None:
    with pytest.raises(Unfit, match="offers no control plane") as refused:
        choose(Surroundings())
    assert f"install Go {needed_go()} or newer" in refused.value.remedy


def test_a_go_that_is_too_old_is_passed_over_and_named() -> None:
    with pytest.raises(
        Unfit, match=r"`go version` says go1\.21\.0 linux/amd64, older than the 1\.\d+\.\d that is needed"
    ):
        choose(Surroundings(go="go version go1.21.0 linux/amd64"))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH, empty."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder: Path, name: str, script: str) -> None:
    """A program that does what the shell script says."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_client_without_an_engine_is_no_engine(path: Path) -> None:
    put(path, "kind", "exit 0")
    put(path, "docker", "echo; echo 'Cannot connect to the Docker daemon' >&2")
    put(path, "podman", "echo 'cannot connect to Podman' >&2; exit 125")
    seen = look_around()
    assert seen.kind
    assert seen.engine is None


def test_an_engine_that_answers_is_found(path: Path) -> None:
    put(path, "kind", "exit 0")
    put(path, "docker", "exit 1")
    put(path, "podman", "echo 5.4.2")
    assert look_around().engine == "podman"


def test_what_assets_lack_is_seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, "etcd", "exit 0")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(path))
    assert look_around().assets_lack == ("kube-apiserver", "kubectl")


def test_kind_makes_the_cluster_and_removes_it(
    path: Path, tmp_path: Path, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a kind that hands out the session's cluster as its own."""
    put(path, "docker", "echo 28.0")
    put(path, "kubectl", f'exec {shlex.quote(str(control_plane.kubectl))} "$@"')
    hand_out = f'[ "$1" = --kubeconfig ] && /bin/cp {control_plane.kubeconfig} "$2"'
    put(path, "kind", f'echo "$@" >> {tmp_path}/calls\nwhile [ $# -gt 0 ]; do {hand_out}; shift; done')
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    name = "kd" + control_plane.name[-4:]
    try:
        plane = controlplane.up(name)
        assert (plane.kind, plane.server) == (Kind.KIND, control_plane.server)
        assert controlplane.up(name) == plane
        kubeconfig = plane.kubeconfig
    finally:
        controlplane.down(name)
    assert not kubeconfig.exists()
    assert (tmp_path / "calls").read_text().splitlines() == [
        "get clusters",
        f"create cluster --wait 3m --name rackwright-{name} --kubeconfig {kubeconfig}",
        f"delete cluster --name rackwright-{name}",
    ]


# --- a control plane that runs ------------------------------------------------------------------------------------


def pids(name: str) -> dict[str, int | None]:
    """Its processes."""
    return {service.name: service.pid for service in services(name)}


@pytest.fixture
def second(control_plane: ControlPlane) -> Iterator[str]:
    """The name of a control plane beside the session's own, gone with the test."""
    name = "two" + control_plane.name[-4:]
    yield name
    controlplane.down(name)


def test_up_is_idempotent(control_plane: ControlPlane) -> None:
    before = pids(control_plane.name)
    assert controlplane.up(control_plane.name) == control_plane
    assert pids(control_plane.name) == before


def test_a_second_one_stands_beside_it_and_leaves_nothing_behind(control_plane: ControlPlane, second: str) -> None:
    plane = controlplane.up(second)
    assert plane.server != control_plane.server
    running = [pid for pid in pids(second).values() if pid is not None]
    controlplane.down(second)
    assert not [pid for pid in running if Path(f"/proc/{pid}").exists()]
    assert not [
        p
        for p in (*run_dir(second).parent.iterdir(), *state_dir(second).parent.iterdir())
        if p.name == second and any(p.iterdir())
    ]
    assert control_plane.ctl("get", "--raw", "/readyz").stdout == "ok"


def test_what_died_comes_back_with_what_was_stored(control_plane: ControlPlane, second: str) -> None:
    if control_plane.kind not in RUN_HERE:
        pytest.skip("its processes are not ours")
    plane = controlplane.up(second)
    assert plane.ctl("create", "configmap", "kept").returncode == 0
    etcd, server, controllers = services(second)
    server.kill()
    assert wait_until(lambda: server.pid is None, 10)
    unharmed = etcd.pid, controllers.pid
    assert controlplane.find(second) is None
    assert controlplane.up(second) == plane
    assert (etcd.pid, controllers.pid) == unharmed
    assert plane.ctl("get", "configmap", "kept").returncode == 0


def sockets_of(pid: int) -> set[str]:
    """Its open sockets, as /proc names them; some may close while one looks."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return found


def test_it_listens_on_loopback_only(control_plane: ControlPlane) -> None:
    if control_plane.kind not in RUN_HERE:
        pytest.skip("its processes are not ours")
    sockets = set().union(*(sockets_of(pid) for pid in pids(control_plane.name).values() if pid))
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                listening.append(local.partition(":")[0])
    assert listening == ["0100007F"] * (4 if control_plane.controllers else 3)


def test_the_administrators_kubeconfig_is_private(control_plane: ControlPlane) -> None:
    assert stat.S_IMODE(control_plane.kubeconfig.stat().st_mode) == 0o600


def test_what_env_prints_evaluates(control_plane: ControlPlane) -> None:
    printed = subprocess.run(
        [sys.executable, COMMAND, "env", "--name", control_plane.name], capture_output=True, text=True, check=True
    )
    assert all(line.startswith("export ") for line in printed.stdout.splitlines())
    asked = subprocess.run(
        [
            "bash",
            "-c",
            'eval "$1"; kubectl config view -o jsonpath="{.clusters[0].cluster.server}"; command -v kubectl >&2',
            "-",
            printed.stdout,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout == control_plane.server
    assert asked.stderr.strip() == str(control_plane.kubectl)


def test_env_of_one_that_is_not_up_says_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, COMMAND, "env", "--name", "absent"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "hack/control-plane up --name absent" in done.stderr


def test_the_callers_cluster_is_used_as_it_is_and_survives_down(control_plane: ControlPlane, second: str) -> None:
    plane = controlplane.up(second, current=str(control_plane.kubeconfig))
    assert (plane.kind, plane.server) == (Kind.CURRENT, control_plane.server)
    assert plane.ctl("auth", "whoami").returncode == 0
    with pytest.raises(Unfit, match="names no cluster"):
        controlplane.up(second, current="/nowhere")
    controlplane.down(second)
    assert control_plane.ctl("get", "--raw", "/readyz").stdout == "ok"


# --- what a cluster does ------------------------------------------------------------------------------------------


@pytest.fixture
def controllers(control_plane: ControlPlane) -> None:
    """Skips a test where nobody deletes or collects."""
    if not control_plane.controllers:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager")


@pytest.mark.usefixtures("controllers")
def test_an_owned_object_goes_with_its_owner(kubectl: Kubectl, namespace: str) -> None:
    owner = json.loads(kubectl("create", "configmap", "owner", "-n", namespace, "-o", "json").stdout)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    owned = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "owned", "namespace": namespace, "ownerReferences": [reference]},
    }
    assert kubectl("create", "-f", "-", stdin=json.dumps(owned)).returncode == 0
    assert kubectl("delete", "configmap", "owner", "-n", namespace).returncode == 0
    assert wait_until(lambda: "NotFound" in kubectl("get", "configmap", "owned", "-n", namespace).stderr, 60)


@pytest.mark.usefixtures("controllers")
def test_a_deleted_namespace_goes_with_all_that_is_in_it(kubectl: Kubectl, namespace: str) -> None:
    assert kubectl("create", "configmap", "inside", "-n", namespace).returncode == 0
    done = kubectl("delete", "namespace", namespace, "--timeout=60s")
    assert done.returncode == 0, done.stderr
    assert "NotFound" in kubectl("get", "namespace", namespace).stderr


def test_a_service_accounts_token_is_an_identity_that_rbac_binds(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    kubectl = control_plane.ctl
    assert kubectl("create", "serviceaccount", "tenant", "-n", namespace).returncode == 0
    path = controlplane.service_account_kubeconfig(
        control_plane, namespace, "tenant", tmp_path / "tenant", duration="1h"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tenant = replace(control_plane, kubeconfig=path).ctl
    assert (
        tenant("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").stdout
        == f"system:serviceaccount:{namespace}:tenant"
    )
    assert "Forbidden" in tenant("get", "configmaps").stderr
    binding = (
        "create",
        "rolebinding",
        "tenant-views",
        "--clusterrole=view",
        f"--serviceaccount={namespace}:tenant",
        "-n",
        namespace,
    )
    assert kubectl(*binding).returncode == 0
    assert wait_until(lambda: tenant("get", "configmaps").returncode == 0, 30)
    assert "forbidden" in tenant("create", "configmap", "mine").stderr
    assert "Forbidden" in tenant("get", "configmaps", "-n", "default").stderr


def test_a_token_of_an_account_that_is_not_there_is_refused(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    with pytest.raises(Unfit, match="not found"):
        controlplane.service_account_kubeconfig(control_plane, namespace, "nobody", tmp_path / "nobody")


def test_requests_are_counted_by_verb_and_resource_for_one_account(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    def account(name: str) -> Kubectl:
        assert control_plane.ctl("create", "serviceaccount", name, "-n", namespace).returncode == 0
        kubeconfig = controlplane.service_account_kubeconfig(control_plane, namespace, name, tmp_path / name)
        return replace(control_plane, kubeconfig=kubeconfig).ctl

    binding = ("create", "rolebinding", "edits", "--clusterrole=edit", f"--group=system:serviceaccounts:{namespace}")
    assert control_plane.ctl(*binding, "-n", namespace).returncode == 0
    measured, another = account("measured"), account("another")
    assert wait_until(lambda: measured("get", "configmaps").returncode == 0, 30)
    audit = Audit(control_plane, namespace, "measured")
    for name in ("a", "b", "c"):
        for who in (measured, another, control_plane.ctl):
            who("create", "configmap", name, "-n", namespace)
    assert measured("patch", "configmap", "a", "--type=merge", "-p", '{"data": {"k": "v"}}').returncode == 0
    asked = {"create configmaps": 3, "get configmaps": 1, "patch configmaps": 1}
    assert wait_until(lambda: audit.so_far() == asked, 10), audit.so_far()
    assert Audit(control_plane, namespace, "measured").so_far() == {}


def test_where_there_is_no_audit_log_nothing_is_counted(control_plane: ControlPlane, tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="keeps no audit log here"):
        Audit(replace(control_plane, kubeconfig=tmp_path / "kubeconfig"), "default", "default")


# --- the build ----------------------------------------------------------------------------------------------------


def test_the_module_pins_one_kubernetes() -> None:
    """A staging module of another version would build, and misbehave."""
    text = (MODULE / "go.mod").read_text()
    (version,) = re.findall(r"^\tk8s\.io/kubernetes v1\.(\S+)", text, re.MULTILINE)
    assert set(re.findall(r"^\t(k8s\.io/\S+) => \1 v0\.(\S+)$", text, re.MULTILINE)) == {
        (module, version) for module in re.findall(r"^\t(k8s\.io/\S+) =>", text, re.MULTILINE)
    }
    assert f"v1.{version}" in " ".join(build_flags(text))


def test_kubectl_and_the_server_are_of_the_same_build(control_plane: ControlPlane) -> None:
    if control_plane.kind is not Kind.BUILT:
        pytest.skip("only a build of ours is one build")
    versions = json.loads(control_plane.ctl("version", "-o", "json").stdout)
    assert versions["clientVersion"]["gitVersion"] == versions["serverVersion"]["gitVersion"]
    assert versions["serverVersion"]["gitVersion"] in (MODULE / "go.mod").read_text()
