"""Which machine is it that introduces itself, and what is written down of it: decided purely, from what is known.

Two mistakes are possible, and they don't weigh the same. A known machine that is taken for a new one gets a second
record and is switched off, whatever runs on it. A new machine that is taken for a known one goes on to its own disk
and isn't seen; somebody declares it by hand. So where there is doubt about a machine that somebody uses, it is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import count
from typing import Any

from rackwright.api.machine import Architecture, BootMode, HardwareSummary
from rackwright.inventory.report import Inspection, own_addresses

_BOOT_MODES = {"uefi": BootMode.UEFI, "bios": BootMode.LEGACY}
_LABEL = 63
"""Longest DNS label: the name may become the installed system's host name."""
_FEWEST_CHARACTERS = 4
"""A shorter serial number is a slot's number, or a placeholder that no list has."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """What an inspection says of the machine that it comes from."""

    macs: tuple[str, ...]
    """Of its own network cards, unicast; the one that it booted from comes first."""
    hardware: HardwareSummary
    bmc_host: str
    """Its BMC's IP address, seen from inside; empty if it has none that others could reach."""
    architecture: Architecture | None
    boot_mode: BootMode | None

    @classmethod
    def of(cls, inspection: Inspection) -> Stranger | None:
        """The machine behind a report; None if it has no network card that could be told from another's."""
        own = {*own_addresses(inspection.report), inspection.boot_mac_address}
        macs = (nic.mac_address for nic in inspection.report.nics)
        cards = [mac for mac in macs if mac in own and _is_unicast(mac)]
        if not cards:
            return None
        return cls(
            macs=tuple(dict.fromkeys(sorted(cards, key=lambda mac: mac != inspection.boot_mac_address))),
            hardware=inspection.summary,
            bmc_host=bmc_host(inspection.report.bmc_address),
            architecture=inspection.architecture,
            boot_mode=_BOOT_MODES.get(inspection.report.system.boot_mode.lower()),
        )


@dataclass(frozen=True, slots=True)
class Known:
    """A machine that has a record, as far as that tells which machine it is."""

    name: str
    """`namespace/name`."""
    uid: str
    macs: frozenset[str]
    """Its boot MAC address, and its network cards once it was inspected."""
    bmc_host: str
    """Of `spec.bmc`, if that names an IP address."""
    hardware: HardwareSummary | None
    in_use: bool
    """Whether it has an owner, or something is installed on it."""
    is_new: bool
    """Whether it waits for somebody to accept it."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """It has a record."""

    known: Known


@dataclass(frozen=True, slots=True)
class Full:
    """It is new, and there are as many new machines as there may be."""

    at_most: int


@dataclass(frozen=True, slots=True)
class Enlist:
    """It is new: create this record."""

    name: str
    spec: Mapping[str, Any]
    """As the API has it."""


Verdict = Recognised | Full | Enlist


def judge(
    stranger: Stranger, resembling: Iterable[Known], *, taken: Callable[[str], bool], waiting: int, at_most: int
) -> Verdict:
    """What to do about a machine that introduces itself.

    Args:
        stranger: the machine.
        resembling: all machines that share a trait with it (see `traits`).
        taken: whether a name is another record's.
        waiting: how many machines wait for acceptance.
        at_most: how many may.
    """
    resembling = sorted(resembling, key=lambda known: (known.is_new, known.name))
    for known in resembling:
        if is_same(stranger, known):
            return Recognised(known)
    if waiting >= at_most:
        return Full(at_most)
    name = next(name for name in names(stranger) if not taken(name))
    lent = any(stranger.bmc_host == known.bmc_host for known in resembling)  # as BMCs have them that nobody set up
    return Enlist(name, _spec(stranger, bmc="" if lent else stranger.bmc_host))


def is_same(stranger: Stranger, known: Known) -> bool:
    """Whether the two are one machine.

    By a network card, for there are no two of one address but those that BMCs present. By its BMC, unless their serial
    numbers differ: BMCs leave the factory with one address for all of them. By vendor, model and serial number alone
    only where the record's machine is in use, with new network cards perhaps: nodes of one chassis may all have the
    chassis's number.
    """
    if not known.macs.isdisjoint(stranger.macs):
        return True
    theirs, ours = _identity(stranger.hardware), _identity(known.hardware)
    if stranger.bmc_host and stranger.bmc_host == known.bmc_host:
        return theirs is None or ours is None or theirs == ours
    return known.in_use and theirs is not None and theirs == ours


def traits(macs: Iterable[str], host: str, hardware: HardwareSummary | None) -> frozenset[str]:
    """What a machine may be recognised by; two that share nothing of it are two machines."""
    found = {mac_trait(mac) for mac in macs}
    if host:
        found.add(f"bmc {host}")
    if (identity := _identity(hardware)) is not None:
        found.add(f"serial {identity}")
    return frozenset(found)


def mac_trait(mac: str) -> str:
    """The trait that a network card is."""
    return f"mac {mac}"


def bmc_host(host: str) -> str:
    """A BMC's IP address in one spelling; empty for a name, and for an address that only means something inside."""
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    return "" if _is_local(address) else str(address)


def names(stranger: Stranger) -> Iterator[str]:
    """The names that a machine may get, best first: by its serial number, else by its network card."""
    if serial := usable_serial(stranger.hardware.serial):
        yield serial
    card = f"mac-{stranger.macs[0].replace(':', '')}"
    yield card
    yield from (f"{card}-{number}" for number in count(2))


def usable_serial(serial: str) -> str:
    """A serial number as a DNS label; empty for one that says nothing, like 0000000.

    The report's reader has taken out what firmware is known to say where nobody filled in a number.
    """
    label = re.sub(r"[^a-z0-9]+", "-", serial.lower())[:_LABEL].strip("-")
    characters = label.replace("-", "")
    return label if len(characters) >= _FEWEST_CHARACTERS and len(set(characters)) > 1 else ""


def _identity(hardware: HardwareSummary | None) -> tuple[str, str, str] | None:
    if hardware is None or not usable_serial(hardware.serial):
        return None
    return hardware.vendor, hardware.model, hardware.serial


def _spec(stranger: Stranger, *, bmc: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"accepted": False, "bootMACAddress": stranger.macs[0]}
    if stranger.architecture is not None:
        spec["architecture"] = stranger.architecture.value
    if stranger.boot_mode is not None:
        spec["bootMode"] = stranger.boot_mode.value
    if bmc:
        spec["bmc"] = {"address": f"ipmi://[{bmc}]" if ":" in bmc else f"ipmi://{bmc}"}
    return spec


def _is_unicast(mac: str) -> bool:
    return int(mac[:2], 16) % 2 == 0


def _is_local(address: IPv4Address | IPv6Address) -> bool:
    return address.is_unspecified or address.is_link_local or address.is_loopback or address.is_multicast
