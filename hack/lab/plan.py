"""The plan of a virtual rack: every name and address, computed from the rack's name and nothing else.

Two racks can stand on one host, next to each other and next to whatever else runs there, only if no two of
them share an interface, an address, a MAC or a file. So nothing is counted up or picked at random: all of it
is derived from the name, the same every time, and `down` can find what a crashed `up` left without a record.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Self

from lab.errors import Unfit
from lab.paths import checked_name

POOL = IPv4Network("198.18.0.0/15")
"""Set aside for testing network devices (RFC 2544): no site routes it."""
NODES_AT_MOST = 90
"""As many as the DHCP range of a /24 holds, with some left for the leases of earlier boots."""
BMC_PORT = 8000
IPMI_PORT = 623
_IN_BAND_PORT = 9000
OPERATOR_PORT = 8080

_NAMESPACE = uuid.UUID("5a2ca9b4-6d3b-5b5e-8e0f-0d6a6a0d6b7e")


class Firmware(StrEnum):
    """What a node's mainboard runs; the values are those of `spec.bootMode`."""

    UEFI = "UEFI"
    LEGACY = "Legacy"


class Protocol(StrEnum):
    """What a node's BMC speaks."""

    REDFISH = "redfish"
    IPMI = "ipmi"


class Bus(StrEnum):
    """How a disk is attached."""

    SCSI = "SCSI"
    NVME = "NVMe"


@dataclass(frozen=True, slots=True)
class NodeKind:
    """A node as it is asked for."""

    name: str
    firmware: Firmware
    bmc: Protocol = Protocol.REDFISH

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `NAME:FIRMWARE` or `NAME:FIRMWARE:ipmi`, as on the command line."""
        name, _, rest = text.partition(":")
        firmware, *further = rest.lower().split(":")
        known = {f.value.lower(): f for f in Firmware}
        bmc = {(): Protocol.REDFISH, ("ipmi",): Protocol.IPMI}.get(tuple(further))
        named = name and name.replace("-", "").isalnum() and name.islower()
        if not named or firmware not in known or bmc is None:
            raise Unfit(
                f"{text!r} names no node.",
                f"write it as NAME:FIRMWARE, or NAME:FIRMWARE:ipmi for an IPMI BMC;"
                f" FIRMWARE is {' or '.join(f.value for f in Firmware)}",
            )
        return cls(name, known[firmware], bmc)

    def __str__(self) -> str:
        return f"{self.name}:{self.firmware}" + (f":{self.bmc}" if self.bmc is Protocol.IPMI else "")


def default_nodes(count: int = 2) -> tuple[NodeKind, ...]:
    """`node-01`, `node-02`, …: UEFI and Legacy BIOS in turn, because both ways of booting must keep working."""
    if not 1 <= count <= NODES_AT_MOST:
        raise Unfit(f"A rack can't have {count} nodes.", f"ask for 1 to {NODES_AT_MOST}")
    return tuple(NodeKind(f"node-{i:02}", Firmware.UEFI if i % 2 else Firmware.LEGACY) for i in range(1, count + 1))


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a node, and the file behind it, which a test may read while the machine runs."""

    backing: Path
    bus: Bus
    gib: int
    serial: str
    wwn: str | None
    """World Wide Name, 16 hexadecimal digits; QEMU gives NVMe disks none."""


@dataclass(frozen=True, slots=True)
class IPMI:
    """Where an IPMI BMC answers."""

    address: IPv4Address
    """In the rack's network; the port is always 623."""
    in_band: tuple[str, int]
    """Address and TCP port at which the BMC waits for its machine, inside the rack's namespace."""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the rack."""

    name: str
    firmware: Firmware
    mac: str
    uuid: str
    domain: str
    """Its name in the rack's own libvirt, and in the process table of the host."""
    serial: str
    disks: tuple[Disk, ...]
    console: Path
    """What it printed on its serial line, over all its boots."""
    nvram: Path | None
    """UEFI variables."""
    bmc_address: str
    """As in `spec.bmc.address`."""
    ipmi: IPMI | None
    """None: the BMC is one of the Redfish server's systems."""


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def subnets(name: str) -> Iterator[IPv4Network]:
    """All /24 of the pool, in the order in which a rack of this name tries them."""
    every = list(POOL.subnets(new_prefix=24))
    first = int.from_bytes(_digest(name, "subnet")) % len(every)
    yield from every[first:] + every[:first]


def first_free(name: str, taken: Collection[IPv4Network]) -> IPv4Network:
    """The /24 that a new rack gets: the first of its own order that nothing on the host routes already."""
    for subnet in subnets(name):
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise Unfit(f"Every network of {POOL} is routed on this host already.", "see which with: ip route show table all")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a rack that is known before it exists."""

    name: str
    subnet: IPv4Network
    operator_port: int
    """On `host_address`, where the operator or a test serves HTTP to the machines."""
    run: Path
    """Sockets, pid files, logs."""
    state: Path
    """Disks, keys, the record."""
    kinds: tuple[NodeKind, ...]

    @classmethod
    def of(
        cls,
        name: str,
        kinds: Sequence[NodeKind],
        *,
        subnet: IPv4Network,
        run: Path,
        state: Path,
        operator_port: int = OPERATOR_PORT,
    ) -> Self:
        """Compute it, and refuse what can't be told apart later."""
        if len({kind.name for kind in kinds}) != len(kinds):
            raise Unfit("Two nodes have the same name.", "give each node a name of its own")
        if not 1 <= len(kinds) <= NODES_AT_MOST:
            raise Unfit(f"A rack can't have {len(kinds)} nodes.", f"ask for 1 to {NODES_AT_MOST}")
        return cls(checked_name(name), subnet, operator_port, run, state, tuple(kinds))

    @property
    def namespace(self) -> str:
        """The network namespace that everything of the rack runs in."""
        return namespace_of(self.name)

    @property
    def bridge(self) -> str:
        """The provisioning network's bridge, inside the namespace."""
        return f"br-{self.name}"

    @property
    def host_interface(self) -> str:
        """The host's end of the cable to the bridge."""
        return host_interface_of(self.name)

    @property
    def rack_address(self) -> IPv4Address:
        """Of the rack's own services: the BMCs, DHCP, TFTP."""
        return self.subnet[1]

    @property
    def host_address(self) -> IPv4Address:
        """Of the host in the rack's network: what the machines know the operator by."""
        return self.subnet[2]

    @property
    def leases(self) -> tuple[IPv4Address, IPv4Address]:
        """First and last address that DHCP gives to machines."""
        return self.subnet[100], self.subnet[199]

    @property
    def prefix(self) -> IPv6Network:
        """A unique local /64 (RFC 4193), advertised so that iPXE doesn't wait for a router."""
        return IPv6Network((b"\xfd" + _digest(self.name, "prefix")[:5] + bytes(10), 64))

    @property
    def rack_address6(self) -> IPv6Address:
        """The bridge's address in `prefix`: dnsmasq advertises only prefixes that it has an address in."""
        return self.prefix[1]

    @property
    def base_url(self) -> str:
        """Where the machines find the operator."""
        return f"http://{self.host_address}:{self.operator_port}"

    @property
    def bmc_url(self) -> str:
        """The root of all Redfish BMCs: one server, a system for each node, also for one with a BMC of its own."""
        return f"https://{self.rack_address}:{BMC_PORT}"

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The machines; the first one has an NVMe disk beside its root disk."""
        return tuple(self._node(number, kind) for number, kind in enumerate(self.kinds, start=1))

    def _node(self, number: int, kind: NodeKind) -> Node:
        identity = str(uuid.uuid5(_NAMESPACE, f"{self.name}/{kind.name}"))
        folder = self.state / "disks"
        serial = f"{self.name.upper()}{number:02}"
        disks = [
            Disk(
                folder / f"{kind.name}-root.raw",
                Bus.SCSI,
                4,  # the least that the agent takes for a root disk; with less it waits half a minute
                f"{serial}A",
                f"5{_digest(self.name, kind.name, 'root').hex()[:15]}",
            ),
        ]
        if number == 1:
            disks.append(Disk(folder / f"{kind.name}-nvme.raw", Bus.NVME, 1, f"{serial}B", None))
        ipmi = None
        bmc_address = f"redfish+{self.bmc_url}/redfish/v1/Systems/{identity}"
        if kind.bmc is Protocol.IPMI:
            # After the rack's and the host's; the leases begin further on.
            ipmi = IPMI(self.subnet[2 + number], ("127.0.0.1", _IN_BAND_PORT + number))
            bmc_address = f"ipmi://{ipmi.address}"
        return Node(
            name=kind.name,
            firmware=kind.firmware,
            # 02: locally administered, unicast (IEEE 802).
            mac=":".join(f"{byte:02x}" for byte in (0x02, *_digest(self.name, "mac")[:4], number)),
            uuid=identity,
            domain=f"{self.name}-{kind.name}",
            serial=serial,
            disks=tuple(disks),
            console=self.run / f"{kind.name}-console.log",
            nvram=folder / f"{kind.name}-variables.fd" if kind.firmware is Firmware.UEFI else None,
            bmc_address=bmc_address,
            ipmi=ipmi,
        )


def namespace_of(name: str) -> str:
    """The network namespace of the rack of this name."""
    return f"rackwright-{name}"


def host_interface_of(name: str) -> str:
    """The host's interface to the rack of this name; Linux allows 15 characters."""
    return f"rw-{name}"
