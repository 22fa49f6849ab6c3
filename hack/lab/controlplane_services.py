"""The processes of a control plane that runs here: etcd, kube-apiserver and the controllers, on 127.0.0.1 only."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from lab import audit, kubectl, system
from lab.console import stage, tell
from lab.controlplane_choice import Kind
from lab.controlplane_record import Record, run_folder, state_folder
from lab.errors import Unfit
from lab.private import write_private
from lab.process import Service

_HOST = "127.0.0.1"
_FIRST_PORT, _PORTS, _BLOCKS = 21000, 4, 2000
"""Blocks of four ports, below the range that Linux hands out to clients (32768 and up)."""
_CONTROLLERS = (
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "clusterrole-aggregation-controller",
    "validatingadmissionpolicy-status-controller",
)
"""What objects without nodes need."""


def services(name: str) -> tuple[Service, Service, Service]:
    """Its processes, in the order in which they start; none of them runs for a cluster of the caller's, or kind's."""
    etcd, server, controllers = (
        Service(p, run_folder(name)) for p in ("etcd", "kube-apiserver", "kube-controller-manager")
    )
    return etcd, server, controllers


def expected(name: str, record: Record) -> tuple[Service, ...]:
    """Those without which a control plane that came from there isn't up."""
    if record.kind not in {Kind.ASSETS, Kind.BUILT}:
        return ()
    return services(name) if has_controllers(record) else services(name)[:2]


def has_controllers(record: Record) -> bool:
    """Whether its programs include the controllers."""
    return (record.kubectl.parent / "kube-controller-manager").exists()


def free_ports(name: str) -> tuple[int, ...]:
    """Four free ports, the same ones for a name whenever nobody else took them."""
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()) % _BLOCKS
    for i in range(_BLOCKS):
        first = _FIRST_PORT + (start + i) % _BLOCKS * _PORTS
        block = tuple(range(first, first + _PORTS))
        if all(system.port_is_free(_HOST, port) for port in block):
            return block
    raise Unfit(f"No {_PORTS} ports in a row are free on {_HOST}.", "end some of the control planes that run here")


def require_ports(name: str, record: Record) -> None:
    """Refuse to go on when something else holds a port of those that don't run."""
    client, peer, secure, health = record.ports
    for service, ports in zip(services(name), ((client, peer), (secure,), (health,)), strict=True):
        for port in ports if service.pid is None else ():
            system.require_port(_HOST, port, f"{service.name} of control plane {name}")


def start(name: str, record: Record) -> None:
    """Start etcd, kube-apiserver and the controllers, each once the one before it answers."""
    run, state, folder = run_folder(name), state_folder(name), record.kubectl.parent
    client, peer, secure, health = record.ports
    etcd, server, controllers = services(name)
    require_ports(name, record)
    signing_key, tokens = state / "service-accounts.key", run / "tokens.csv"
    if not signing_key.exists():
        write_private(signing_key, _elliptic_key())
    if not tokens.exists():
        write_private(tokens, f'{secrets.token_urlsafe(32)},admin,admin,"system:masters"\n')
    certificate, kubeconfig = state / "certificates/apiserver.crt", run / "kubeconfig"
    policy = run / "audit-policy.json"
    policy.write_text(json.dumps(audit.POLICY))
    with stage(f"start control plane {name}", "4 s"):
        etcd.start(
            [
                folder / "etcd",
                f"--data-dir={state / 'etcd'}",
                "--unsafe-no-fsync",  # a laboratory's data needs no power failure to survive
                f"--listen-client-urls=http://{_HOST}:{client}",
                f"--advertise-client-urls=http://{_HOST}:{client}",
                f"--listen-peer-urls=http://{_HOST}:{peer}",
                "--log-level=error",
            ],
            ready=lambda: _is_healthy(client, "/health"),
        )
        server.start(
            [
                folder / "kube-apiserver",
                f"--etcd-servers=http://{_HOST}:{client}",
                f"--bind-address={_HOST}",
                f"--advertise-address={_HOST}",  # else it wants a default route
                f"--secure-port={secure}",
                f"--cert-dir={certificate.parent}",
                f"--token-auth-file={tokens}",
                "--authorization-mode=RBAC",
                f"--audit-policy-file={policy}",
                f"--audit-log-path={run / audit.LOG}",
                "--audit-log-maxsize=0",  # no rotation: who counts would lose what is in the old one
                "--service-cluster-ip-range=10.0.0.0/24",
                "--endpoint-reconciler-type=none",
                f"--service-account-issuer=https://{_HOST}",
                f"--service-account-signing-key-file={signing_key}",
                f"--service-account-key-file={signing_key}",
                "--disable-admission-plugins=ServiceAccount",  # it holds Pods back until a token controller served them
            ],
            ready=lambda: _is_healthy(secure, "/readyz", certificate),
            seconds=120,
        )
        write_private(
            kubeconfig, kubectl.kubeconfig_of(_cluster_entry(secure, certificate), tokens.read_text().partition(",")[0])
        )
        if not has_controllers(record):
            tell(f"{folder} has no kube-controller-manager: no namespace is deleted, no owned object collected")
            return
        controllers.start(
            [
                folder / "kube-controller-manager",
                f"--kubeconfig={kubeconfig}",
                "--leader-elect=false",
                "--use-service-account-credentials=false",
                f"--bind-address={_HOST}",
                f"--secure-port={health}",
                f"--cert-dir={certificate.parent}",
                f"--controllers={','.join(_CONTROLLERS)}",
            ],
            ready=lambda: _is_healthy(health, "/healthz", certificate.with_name("kube-controller-manager.crt")),
        )


def stop(name: str) -> None:
    """End those that run, the last one started first."""
    for service in reversed(services(name)):
        service.stop()


def _is_healthy(port: int, path: str, certificate: Path | None = None) -> bool:
    """Whether it answers 200, proving itself with the certificate that it made for itself if one is named."""
    try:
        if certificate is None:
            connection = HTTPConnection(_HOST, port, timeout=5)
        else:
            connection = HTTPSConnection(_HOST, port, timeout=5, context=ssl.create_default_context(cafile=certificate))
        with closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status == 200  # noqa: PLR2004 (OK)
    except (OSError, HTTPException):
        return False


def _elliptic_key() -> str:
    """A new P-256 private key as PEM (RFC 5915; the optional public key left out), what signs ServiceAccount tokens."""
    scalar = (secrets.randbelow(2**255) + 1).to_bytes(32)  # the curve's order is nearly 2**256
    der = bytes.fromhex("3031020101 0420") + scalar + bytes.fromhex("a00a 06082a8648ce3d030107")
    return f"-----BEGIN EC PRIVATE KEY-----\n{base64.encodebytes(der).decode()}-----END EC PRIVATE KEY-----\n"


def _cluster_entry(port: int, certificate: Path) -> dict[str, str]:
    return {
        "server": f"https://{_HOST}:{port}",
        "certificate-authority-data": base64.b64encode(certificate.read_bytes()).decode(),
    }
