"""A virtual rack: machines with real BMCs, real DHCP, TFTP and iPXE, on one host, without special hardware.

What talks to it can't tell it from a rack by its protocols. `up` makes it or repairs it, `down` leaves nothing
of it, and `Rack` is all that the operator's tests need to know of it:

    rack = up("test")
    rack.node("node-01").bmc_address, rack.username, rack.password, rack.ca    # for the operator's power driver
    rack.host_address, rack.operator_port, rack.base_url                       # where to serve HTTP to machines
    rack.console("node-01"), rack.hard_off("node-01"), rack.freeze("node-01")  # for tests of faults
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from lab import bmc, hypervisor, ipmi, network, system, venv
from lab.console import stage
from lab.domains import MEMORY_MIB
from lab.errors import Unfit, together
from lab.paths import STATE, checked_name, run_dir, state_dir
from lab.plan import OPERATOR_PORT, Node, NodeKind, Plan, default_nodes, first_free, host_interface_of, namespace_of
from lab.process import Service
from lab.system import Room
from rackwright.netboot.dnsmasq import Leases, NetbootService, render
from rackwright.netboot.tftp import furnish

PACKAGES = (
    "iproute2",
    "procps",
    "qemu-system-x86",
    "qemu-utils",
    "seabios",
    "ovmf",
    "ipxe",
    "ipxe-qemu",
    "dnsmasq-base",
    "libvirt-daemon-system",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "libvirt-dev",
    "gcc",
    "pkg-config",
    "python3-dev",
    *ipmi.PACKAGES,
)
IPXE = Path("/usr/lib/ipxe")
"""Where Debian's package has it."""
_FOLDER = "rack"
"""Below the folders of the laboratory, where a control plane of the same name has one too."""
_RECORD = "rack.json"
_USERNAME = "admin"
_GIB_PER_NODE = 4


@dataclass(frozen=True, slots=True)
class Rack:
    """A rack that was brought up, and the credentials to its BMCs."""

    plan: Plan
    username: str
    password: str = field(repr=False)
    ca: str = field(repr=False)
    """PEM; signed the BMCs' certificate."""

    @property
    def name(self) -> str:
        """The rack's name."""
        return self.plan.name

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its machines."""
        return self.plan.nodes

    @property
    def host_address(self) -> str:
        """Where the operator listens, as the machines reach it."""
        return str(self.plan.host_address)

    @property
    def operator_port(self) -> int:
        """The port there that the boot script's URL names."""
        return self.plan.operator_port

    @property
    def base_url(self) -> str:
        """Both, as a URL without a slash at the end."""
        return self.plan.base_url

    @property
    def services(self) -> dict[str, Service]:
        """Its processes by name: `libvirtd`, `dnsmasq`, `redfish`, and `ipmi-NODE` for each IPMI BMC.

        A test may stop one, and `up` starts it again; or silence it: `kill(SIGSTOP)`, then `kill(SIGCONT)`.
        """
        return {
            service.name: service
            for service in (
                hypervisor.daemon(self.plan),
                _dnsmasq(self.plan),
                bmc.emulator(self.plan),
                *ipmi.simulators(self.plan),
            )
        }

    def node(self, node: Node | str) -> Node:
        """A machine by its name."""
        name = node if isinstance(node, str) else node.name
        for candidate in self.nodes:
            if candidate.name == name:
                return candidate
        raise Unfit(f"Rack {self.name!r} has no node {name!r}.", f"it has {', '.join(n.name for n in self.nodes)}")

    def console(self, node: Node | str) -> str:
        """What the machine printed on its serial line, over all its boots."""
        try:
            return self.node(node).console.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def power(self, node: Node | str) -> str:
        """`On`, `Off` or `Unknown`, as the hypervisor knows it, whatever the BMC says."""
        return hypervisor.power(self.plan, self.node(node))

    def press_power(self, node: Node | str) -> None:
        """Press the machine's power button, as a person does who stands before it: it boots from the network."""
        hypervisor.press_power(self.plan, self.node(node))

    def hard_off(self, node: Node | str) -> None:
        """Pull the machine's plug, behind its BMC's back."""
        hypervisor.hard_off(self.plan, self.node(node))

    def freeze(self, node: Node | str) -> None:
        """Stop the machine's processor where it is; its BMC says what it said before, and nobody else hears of it."""
        hypervisor.freeze(self.plan, self.node(node))


def up(name: str, kinds: Sequence[NodeKind] | None = None, *, operator_port: int | None = None) -> Rack:
    """Bring the rack up, or repair what died of it; what is there stays as it is, disks and running machines too.

    Without `kinds` and `operator_port`: as it was, two nodes and port 8080 for a new one.
    """
    _require_host(name)
    with _alone(name):
        recorded = _recorded(name)
        plan = _settle(name, recorded.plan if recorded else None, kinds, operator_port)
        if not _stands(name):
            together(lambda: system.require_room(*room(name, plan.kinds)), lambda: _require_for(plan))
        password = recorded.password if recorded else secrets.token_urlsafe(12)  # 16 characters; IPMI takes 20
        if recorded is None:
            # Before anything is made: `down` and the next `up` know from it that the names are this rack's.
            _record(plan, password)
        with stage("The Redfish emulator's Python environment", "30 s at first"):
            python = venv.ensure("rack")
        with stage(f"Network {plan.subnet} in namespace {plan.namespace}"):
            if not network.namespace_exists(name):
                _end_processes(name)  # They would be left in a namespace that nobody can enter.
            network.lay(plan)
        with stage(f"DHCP and TFTP on {plan.rack_address}"):
            _start_dnsmasq(plan)
        with stage("A libvirt of its own", "5 s"):
            if hypervisor.start(plan):
                bmc.emulator(plan).stop()  # It holds on to machines of the earlier libvirtd.
        with stage(f"{len(plan.nodes)} machines: {', '.join(f'{n.name} ({n.firmware})' for n in plan.nodes)}"):
            hypervisor.define(plan)
        with stage(f"Redfish BMCs at {plan.bmc_url}"):
            bmc.start(plan, python, _USERNAME, password)
        if addresses := [str(node.ipmi.address) for node in plan.nodes if node.ipmi is not None]:
            with stage(f"IPMI BMCs at {', '.join(addresses)}"):
                ipmi.start(plan, python, _USERNAME, password)
    return load(name)


def check(name: str, kinds: Sequence[NodeKind] | None = None, *, operator_port: int | None = None) -> None:
    """Refuse what `up` would refuse, room on a disk aside, before anything is made."""

    def settle() -> None:
        with _alone(name):
            recorded = _recorded(name)
            plan = _settle(name, recorded.plan if recorded else None, kinds, operator_port)
            if not _stands(name):
                _require_for(plan)

    # Without iproute2, which is one of the packages, it can't be told yet.
    together(_require_tun, *([network.require_capabilities, settle] if shutil.which("ip") else []))


def room(name: str, kinds: Sequence[NodeKind] | None = None) -> list[Room]:
    """The disk space that `up` will need."""
    rooms = venv.room("rack")
    if not _stands(name):
        recorded = _recorded(name)
        gib = _GIB_PER_NODE * len(recorded.plan.kinds if recorded else kinds or default_nodes())
        rooms.append(Room(f"rack {name}", STATE / name, gib, "set XDG_STATE_HOME to a larger file system"))
    return rooms


def load(name: str) -> Rack:
    """The rack as it was recorded; whether it runs is for `Rack.services` to say."""
    if (recorded := _recorded(name)) is None:
        others = f"; there are: {', '.join(names())}" if names() else ""
        raise Unfit(f"There is no rack {name!r}{others}.", f"bring it up with: hack/rack up --name {name}")
    try:
        ca = (recorded.plan.state / "ca.pem").read_text()
    except FileNotFoundError as missing:
        raise Unfit(
            f"Rack {name!r} was not brought up completely.", f"do it with: hack/rack up --name {name}"
        ) from missing
    return Rack(recorded.plan, _USERNAME, recorded.password, ca)


def names() -> list[str]:
    """The racks that are recorded."""
    return sorted(record.parents[1].name for record in STATE.glob(f"*/{_FOLDER}/{_RECORD}"))


def down(name: str) -> None:
    """Remove everything of the rack: processes, network, machines, disks, files. Needs no record; safe to repeat."""
    system.require_root("a rack")
    with _alone(name), stage(f"Rack {name} down"):
        _end_processes(name)
        network.tear_out(name)
        for folder in _folders(name):
            shutil.rmtree(folder)


def _folders(name: str) -> tuple[Path, Path]:
    """For what lives as long as the processes, and for what a restart of the host must not take away."""
    run, state = run_dir(name) / _FOLDER, state_dir(name) / _FOLDER
    for folder in (run, state):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return run, state


def _end_processes(name: str) -> None:
    run, state = _folders(name)
    ipmi.stop_all(run)
    for service in ("redfish", "dnsmasq", "libvirtd"):
        Service(service, run).stop()
    network.end_processes_of(name, state / "disks")


def _require_host(name: str) -> None:
    """Everything that can be known to be missing before anything is changed, the cheapest first."""
    system.require_root("a rack")
    checked_name(name)
    _require_tun()
    if missing := system.missing_packages(PACKAGES):
        with stage(f"Debian packages: {' '.join(missing)}", "20 s"):
            system.ensure_packages(PACKAGES)
    network.require_capabilities()


def _require_tun() -> None:
    if not Path("/dev/net/tun").exists():
        raise Unfit(
            "There is no /dev/net/tun: a virtual machine can't be plugged into a network.",
            "load the kernel module `tun`",
        )


def _stands(name: str) -> bool:
    return network.namespace_exists(name) or network.host_interface_exists(name)


def _settle(name: str, recorded: Plan | None, kinds: Sequence[NodeKind] | None, port: int | None) -> Plan:
    """The plan: the recorded one if there is one, else a new one that nothing on the host contradicts."""
    if recorded is None:
        if _stands(name):
            raise Unfit(
                f"{namespace_of(name)} or {host_interface_of(name)} exists, and no rack {name!r} is recorded.",
                f"remove it with: hack/rack down --name {name}, or choose another name",
            )
        run, state = _folders(name)
        subnet = first_free(name, network.routed())
        plan = Plan.of(
            name, kinds or default_nodes(), subnet=subnet, run=run, state=state, operator_port=port or OPERATOR_PORT
        )
    else:
        plan = recorded
        if (kinds is not None and tuple(kinds) != plan.kinds) or (port is not None and port != plan.operator_port):
            there = ", ".join(map(str, plan.kinds))
            raise Unfit(
                f"Rack {name!r} exists with port {plan.operator_port} and {there}.",
                f"leave these arguments out to use it, or remove it first with: hack/rack down --name {name}",
            )
    if not _stands(name) and any(plan.subnet.overlaps(other) for other in network.routed()):
        raise Unfit(
            f"Rack {name!r} was made in {plan.subnet}, and the host routes that elsewhere now.",
            f"make it anew: hack/rack down --name {name}, then up",
        )
    return plan


def _require_for(plan: Plan) -> None:
    """What a rack that doesn't stand yet takes of the host, beside room on a disk."""
    together(lambda: _require_memory(len(plan.kinds)), lambda: network.require_operator_port(plan))


def _require_memory(nodes: int) -> None:
    meminfo = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in meminfo if line.startswith("MemAvailable:"))
    if available < (needed := nodes * MEMORY_MIB * 1024):
        raise Unfit(
            f"{available / 2**20:.1f} GiB of memory are available, {nodes} nodes need {needed / 2**20:.1f} GiB.",
            "end something, or ask for fewer nodes with --nodes",
        )


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One rack command at a time: two that choose a network at once would choose the same.

    Afterwards folders that hold nothing are gone, whatever the command made or refused to make.
    """
    checked_name(name)
    STATE.mkdir(parents=True, exist_ok=True)
    lock = os.open(STATE, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        for folder in (run_dir(name), state_dir(name)):
            with suppress(OSError):
                (folder / _FOLDER).rmdir()
            with suppress(OSError):
                folder.rmdir()
        os.close(lock)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What can't be computed from the rack's name again."""

    plan: Plan
    password: str = field(repr=False)


def _record(plan: Plan, password: str) -> None:
    facts = {
        "subnet": str(plan.subnet),
        "operatorPort": plan.operator_port,
        "nodes": [str(kind) for kind in plan.kinds],
        "password": password,
    }
    bmc.write_secret(plan.state / _RECORD, json.dumps(facts, indent=2) + "\n")


def _recorded(name: str) -> _Recorded | None:
    try:
        facts = json.loads((STATE / checked_name(name) / _FOLDER / _RECORD).read_text())
    except FileNotFoundError:
        return None
    run, state = _folders(name)
    kinds = [NodeKind.parse(node) for node in facts["nodes"]]
    subnet = IPv4Network(facts["subnet"])
    plan = Plan.of(name, kinds, subnet=subnet, run=run, state=state, operator_port=facts["operatorPort"])
    return _Recorded(plan, facts["password"])


def _dnsmasq(plan: Plan) -> Service:
    return Service("dnsmasq", plan.run)


def netboot_service(plan: Plan, *, advertise: bool) -> NetbootService:
    """What the rack's dnsmasq is to do."""
    first, last = plan.leases
    return NetbootService(
        interface=plan.bridge,
        addressing=Leases(first, last, plan.subnet, lease_file=str(plan.run / "leases")),
        base_url=plan.base_url,
        tftp_root=str(plan.run / "tftp"),
        advertise=plan.prefix if advertise else None,
        log_exchanges=True,
    )


def _start_dnsmasq(plan: Plan) -> None:
    configuration = plan.run / "dnsmasq.conf"
    netboot = netboot_service(plan, advertise=network.has_ipv6())
    configuration.write_text(render(netboot))
    furnish(netboot, IPXE)
    service = _dnsmasq(plan)

    def listens() -> bool:
        """On UDP ports 67 (DHCP) and 69 (TFTP), as the process's own namespace shows them, in hexadecimal."""
        try:
            sockets = Path(f"/proc/{service.pid}/net/udp").read_text()
        except OSError:
            return False
        return ":0043 " in sockets and ":0045 " in sockets

    service.start(
        # As another user it couldn't enter the rack's folders, which hold passwords too.
        ["dnsmasq", "--keep-in-foreground", "--user=root", f"--conf-file={configuration}", "--pid-file="],
        ready=listens,
        namespace=plan.namespace,
    )


def addresses_leased(rack: Rack) -> dict[str, IPv4Address]:
    """The address that each MAC got last, as dnsmasq recorded it: expiry, MAC, address, name, client's id."""
    try:
        leases = [line.split() for line in (rack.plan.run / "leases").read_text().splitlines()]
    except FileNotFoundError:
        return {}
    return {lease[1]: IPv4Address(lease[2]) for lease in leases if lease[0].isdecimal() and "." in lease[2]}
