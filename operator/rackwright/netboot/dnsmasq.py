"""The configuration of dnsmasq, which tells a machine's firmware how to reach the operator.

A machine that boots from the network asks DHCP twice: once as bare firmware, which gets iPXE over TFTP (or over
HTTP, where the firmware asks for that), and once as iPXE, which gets a script over TFTP that asks the operator what to
boot. Everything else is decided by the operator, so this file never changes while machines come and go.

Firmware tries the network once. That the script comes from here and not from the operator is why a machine that boots
while the operator is being replaced asks again, where it would have gone on to its disk.

Two ways to stand in a site's network:

- `Leases`: the provisioning network is ours, dnsmasq gives out addresses.
- `ProxyDHCP`: the site's DHCP server gives out addresses and knows nothing of us; dnsmasq adds the boot
  information (PXE specification 2.1, section 2.2.3). dnsmasq serves no UEFI HTTP boot in this mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import assert_never

ENTRY_SCRIPT = "boot.ipxe"
"""What every iPXE runs first; a file in the TFTP folder (`tftp`)."""


@dataclass(frozen=True, slots=True)
class Loader:
    """An iPXE build for one kind of firmware."""

    tag: str
    file: str
    """In the TFTP folder (`tftp`), and below `/boot/files/` at the operator for firmware that boots over HTTP."""
    architectures: tuple[int, ...]
    """DHCP option 93 of firmware that fetches by TFTP (RFC 4578; IANA, Processor Architecture Types)."""
    http_architectures: tuple[int, ...] = ()
    """DHCP option 93 of firmware that fetches by HTTP."""


LOADERS = (
    Loader("bios", "undionly.kpxe", (0,)),
    # 7 is EFI byte code by the book and x86-64 in practice.
    Loader("efi-x64", "snponly.efi", (7, 9), (16,)),
)
"""As Debian's package `ipxe` names them."""

_PLAIN = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Leases:
    """dnsmasq is the network's DHCP server."""

    first: IPv4Address
    last: IPv4Address
    network: IPv4Network
    lease_file: str
    router: IPv4Address | None = None
    """Told to machines as their default route; None for a network that leads nowhere else."""
    dns: tuple[IPv4Address, ...] = ()

    def __post_init__(self) -> None:
        if not (self.first in self.network and self.last in self.network and self.first <= self.last):
            raise ValueError(f"{self.first} to {self.last} is no range of addresses in {self.network}")
        if self.router is not None and self.router not in self.network:
            raise ValueError(f"the router {self.router} is no address in {self.network}: machines couldn't reach it")
        for address in filter(None, (self.router, *self.dns)):
            if self.first <= address <= self.last:
                raise ValueError(f"{address} is a router's or name server's, and would be given out: shrink the range")


@dataclass(frozen=True, slots=True)
class ProxyDHCP:
    """The network has a DHCP server; dnsmasq only adds where to boot from."""

    network: IPv4Network
    server: IPv4Address
    """dnsmasq's own address in it, where the entry script is: iPXE takes a proxy's word only if that says where."""

    def __post_init__(self) -> None:
        if self.server not in self.network:
            raise ValueError(f"{self.server} is no address in {self.network}")


@dataclass(frozen=True, slots=True)
class NetbootService:
    """What dnsmasq needs to know of a provisioning network."""

    interface: str
    addressing: Leases | ProxyDHCP
    base_url: str
    """The operator's, as the machines reach it; without a slash at the end."""
    tftp_root: str
    loaders: tuple[Loader, ...] = field(default=LOADERS)
    advertise: IPv6Network | None = None
    """A prefix of the interface to advertise, without a route. The iPXE of many distributions waits 13 s for an
    IPv6 router before it boots; any advertisement ends the wait."""
    log_exchanges: bool = False

    def __post_init__(self) -> None:
        for text in (self.interface, self.base_url, self.tftp_root, *(loader.file for loader in self.loaders)):
            if not _PLAIN.fullmatch(text) or set(text) & set(',"#\\'):
                raise ValueError(f"dnsmasq can't be told {text!r}: it holds a blank, a comma, a quote or a hash sign")
        if not re.fullmatch(r"https?://[^/]+(/.*[^/])?", self.base_url):
            raise ValueError(f"{self.base_url!r} is no HTTP URL without a slash at its end")

    def loader_url(self, loader: Loader) -> str:
        """Where firmware that boots over HTTP fetches iPXE."""
        return f"{self.base_url}/boot/files/{loader.file}"


def render(service: NetbootService) -> str:
    """dnsmasq.conf for the service: the same text for the same service, every time."""
    match service.addressing:
        case Leases() as leases:
            addressing = [*_leases(leases), *_boot_with_leases(service)]
        case ProxyDHCP() as proxy:
            addressing = [
                "leasefile-ro",  # Without it dnsmasq wants a file for leases though it gives out none.
                f"dhcp-range={proxy.network.network_address},proxy,{proxy.network.netmask}",
                *_boot_with_proxy(service, proxy),
            ]
        case _:
            assert_never(service.addressing)
    lines = [
        "# Generated by rackwright.netboot.dnsmasq.",
        "port=0",
        f"interface={service.interface}",
        "except-interface=lo",
        "bind-dynamic",
        "log-facility=-",
        *(["log-dhcp"] if service.log_exchanges else []),
        "enable-tftp",
        f"tftp-root={service.tftp_root}",
        *_tags(service),
        *addressing,
        *_advertisement(service),
    ]
    return "\n".join(lines) + "\n"


def _leases(leases: Leases) -> Iterator[str]:
    yield "dhcp-authoritative"
    yield "no-ping"  # Else every first answer is 3 s late: dnsmasq asks whether the address is in use.
    yield "dhcp-sequential-ip"
    yield "dhcp-ignore-names"
    yield f"dhcp-leasefile={leases.lease_file}"
    yield f"dhcp-range={leases.first},{leases.last},{leases.network.netmask},1h"
    yield f"dhcp-lease-max={int(leases.last) - int(leases.first) + 1}"  # Else 1,000, however long the range is.
    # An option without a value is not sent; without the line dnsmasq would name itself.
    yield ",".join(["dhcp-option=option:router", *([str(leases.router)] if leases.router else [])])
    yield ",".join(["dhcp-option=option:dns-server", *map(str, leases.dns)])


def _tags(service: NetbootService) -> Iterator[str]:
    yield "dhcp-match=set:ipxe,175"
    yield "dhcp-userclass=set:ipxe,iPXE"
    for loader in service.loaders:
        for architecture in loader.architectures:
            yield f"dhcp-match=set:{loader.tag},option:client-arch,{architecture}"
        for architecture in loader.http_architectures:
            yield f"dhcp-match=set:{loader.tag}-http,option:client-arch,{architecture}"


def _boot_with_leases(service: NetbootService) -> Iterator[str]:
    yield f"dhcp-boot=tag:ipxe,{ENTRY_SCRIPT}"
    yield "dhcp-option=tag:ipxe,encap:175,176,1b"  # no-pxedhcp: iPXE needn't wait 2 s for a proxy.
    for loader in service.loaders:
        yield f"dhcp-boot=tag:!ipxe,tag:{loader.tag},{loader.file}"
        if loader.http_architectures:
            yield f"dhcp-boot=tag:!ipxe,tag:{loader.tag}-http,{service.loader_url(loader)}"
            # UEFI 2.10, section 24.7: the firmware takes an offer only if it says HTTPClient.
            yield f"dhcp-option-force=tag:!ipxe,tag:{loader.tag}-http,60,HTTPClient"


def _boot_with_proxy(service: NetbootService, proxy: ProxyDHCP) -> Iterator[str]:
    yield f"dhcp-boot=tag:ipxe,{ENTRY_SCRIPT},,{proxy.server}"
    for loader in service.loaders:
        for architecture in loader.architectures:
            yield f'pxe-service=tag:!ipxe,{architecture},"iPXE",{loader.file}'


def _advertisement(service: NetbootService) -> Iterator[str]:
    if service.advertise is not None:
        yield "enable-ra"
        yield f"dhcp-range={service.advertise.network_address},ra-only,{service.advertise.prefixlen},1h"
        yield f"ra-param={service.interface},30,0"  # Every 30 s; lifetime 0: no default route.
