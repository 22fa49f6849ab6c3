"""The rack's network: a namespace of its own with a bridge in it, and one cable to the host.

The namespace keeps the rack's DHCP server away from every network of the host. It also says for certain which
processes belong to the rack: those in it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

from lab.errors import Unfit
from lab.plan import Plan, host_interface_of, namespace_of

_NAMESPACES = Path("/run/netns")
_FREEBIND = getattr(socket, "IP_FREEBIND", 15)
"""ip(7): bind to an address that the host doesn't have yet."""


def _ip(*arguments: object) -> str:
    done = subprocess.run(["ip", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unfit(
            f"`ip {' '.join(map(str, arguments))}` failed: {done.stderr.strip()}",
            "see whether the kernel has what it names",
        )
    return done.stdout


def require_capabilities() -> None:
    """Refuse to go on where namespaces, bridges, virtual cables or taps can't be made; makes none that stays."""
    probe = (
        "ip link add name bridge0 type bridge && "
        "ip link add name cable0 type veth peer name cable1 && "
        "ip tuntap add name tap0 mode tap"
    )
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", probe], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unfit(
            f"This machine can't make a virtual network: {done.stderr.strip()}",
            "the kernel needs bridge, veth and tun; a container needs CAP_NET_ADMIN, CAP_SYS_ADMIN and /dev/net/tun",
        )


def routed() -> frozenset[IPv4Network]:
    """Every IPv4 network that the host has a route to, its own addresses included, the default route not."""
    destinations = {route["dst"] for route in json.loads(_ip("-4", "-j", "route", "show", "table", "all"))}
    return frozenset(IPv4Network(destination) for destination in destinations - {"default"})


def namespace_exists(name: str) -> bool:
    """Whether the rack's namespace is there."""
    return (_NAMESPACES / namespace_of(name)).exists()


def host_interface_exists(name: str) -> bool:
    """Whether the host's end of the cable is there."""
    return Path("/sys/class/net", host_interface_of(name)).exists()


def require_operator_port(plan: Plan) -> None:
    """Refuse to go on when a process of the host holds the operator's port on every address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(plan.host_address), plan.operator_port))
        except OSError as error:
            raise Unfit(
                f"The rack's operator needs TCP port {plan.operator_port} on {plan.host_address}: {error.strerror}.",
                f"choose another one with --port, or see what holds it with: ss -ltnp sport = :{plan.operator_port}",
            ) from error


def has_ipv6() -> bool:
    """Whether the kernel speaks IPv6; without it iPXE takes 13 s longer, because nobody advertises a router."""
    return Path("/proc/sys/net/ipv6").exists()


def lay(plan: Plan) -> None:
    """Make what is missing of the namespace, the bridge and the cable; safe to repeat."""
    inside = ("-n", plan.namespace)
    if not namespace_exists(plan.name):
        if host_interface_exists(plan.name):  # Half of an interrupted start: the other end is in no namespace of ours.
            _ip("link", "del", plan.host_interface)
        _ip("netns", "add", plan.namespace)
    _ip(*inside, "link", "set", "lo", "up")
    links = {link["ifname"] for link in json.loads(_ip(*inside, "-j", "link", "show"))}
    if plan.bridge not in links:
        _ip(
            *inside,
            "link",
            "add",
            plan.bridge,
            "type",
            "bridge",
            "stp_state",
            0,
            "forward_delay",
            0,
            "mcast_snooping",
            0,
        )
    _ip(*inside, "addr", "replace", f"{plan.rack_address}/{plan.subnet.prefixlen}", "dev", plan.bridge)
    for node in plan.nodes:
        if node.ipmi is not None:  # A network of one: DHCP serves the network of the rack's own address alone.
            _ip(*inside, "addr", "replace", f"{node.ipmi.address}/32", "dev", plan.bridge)
    if has_ipv6():
        _ip("netns", "exec", plan.namespace, "sysctl", "-qw", f"net.ipv6.conf.{plan.bridge}.accept_ra=0")
        _ip(*inside, "addr", "replace", f"{plan.rack_address6}/{plan.prefix.prefixlen}", "dev", plan.bridge, "nodad")
    _ip(*inside, "link", "set", plan.bridge, "up")
    if not host_interface_exists(plan.name):
        _ip("link", "add", plan.host_interface, "type", "veth", "peer", "name", "uplink", "netns", plan.namespace)
    _ip(*inside, "link", "set", "uplink", "master", plan.bridge, "up")
    if has_ipv6():  # The host has no business with the prefix that the rack advertises.
        Path(f"/proc/sys/net/ipv6/conf/{plan.host_interface}/disable_ipv6").write_text("1")
    _ip("addr", "replace", f"{plan.host_address}/{plan.subnet.prefixlen}", "dev", plan.host_interface)
    _ip("link", "set", plan.host_interface, "up")


def tear_out(name: str) -> None:
    """Remove cable, bridge and namespace. The cable first: the kernel removes a namespace's links only later."""
    if host_interface_exists(name):
        _ip("link", "del", host_interface_of(name))
    if namespace_exists(name):
        _ip("netns", "del", namespace_of(name))


def end_processes_of(name: str, disks: Path) -> None:
    """Kill what still runs in the rack's namespace, and machines of its disks that lost their namespace.

    Each is looked at again after the kernel has pinned its identity (pidfd_open(2)), so no process that took
    over a pid is ever hit.
    """
    namespace = (_NAMESPACES / namespace_of(name)).stat().st_ino if namespace_exists(name) else None

    def belongs(pid: int) -> bool:
        process = Path("/proc", str(pid))
        try:
            if namespace is not None and (process / "ns/net").stat().st_ino == namespace:
                return True
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return False
        return Path(command.split("\0")[0]).name.startswith("qemu-system") and f"{disks}/" in command

    _kill_all(belongs)


def _kill_all(belongs: Callable[[int], bool]) -> None:
    descriptors = []
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        if pid != os.getpid() and belongs(pid):
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            descriptors.append(descriptor)
            if belongs(pid):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    for descriptor in descriptors:
        select.select([descriptor], [], [], 10)
        os.close(descriptor)
