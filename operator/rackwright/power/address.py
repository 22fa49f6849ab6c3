"""BMC addresses in one spelling, so that one BMC is known as one whoever wrote its address down.

Two machine objects for one physical machine fight over its power. That shows only if `redfish+https://BMC-7/…/1/`
and `redfish+http://bmc-7/…/1` are seen to be the same place, and `ipmi://bmc-7` to be all that is there.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from rackwright.power.port import FaultClass, PowerError

SIMULATED = "simulated"
"""The scheme of machines that exist in the operator's memory alone. Its addresses say how they behave, not where they
are: many machines share one."""
DEFAULT_PORTS = {"http": 80, "https": 443, "ipmi": 623}
ABOVE_SYSTEMS = ("/redfish", "/redfish/v1", "/redfish/v1/Systems")
"""Paths of a Redfish service that name none of its systems."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a BMC answers and which system behind it is meant; `str` gives the one spelling, which parses again."""

    scheme: str
    host: str
    """Lower case; IPv6 compressed and without brackets; empty for a scheme that needs none."""
    port: int | None
    path: str
    """Empty when the address names no system; without a slash at its end, except for a webhook's, which is called
    at the path that is written."""
    query: str = ""
    """How a simulated machine behaves; empty for all others."""

    @property
    def transport(self) -> str:
        """What carries the protocol: `https` of `redfish+https`."""
        return self.scheme.rpartition("+")[2]

    @property
    def authority(self) -> str:
        """`host:port`, what one BMC's exchanges are queued by: a chassis has many systems behind one."""
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def place(self) -> str:
        """The BMC in a sentence: its host, and its port where that says something."""
        return self.authority.removesuffix(f":{DEFAULT_PORTS.get(self.transport)}")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}{'?' if self.query else ''}{self.query}"


@lru_cache(maxsize=4096)
def parse(text: str) -> Address:
    """Read an address as `spec.bmc.address` has it; raises `PowerError` (UNSUPPORTED) for what isn't one.

    One that was read lately is known: each version of a record has its own again.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise _unusable("is not a URL") from None
    if not parts.scheme or "://" not in text:
        raise _unusable("has no scheme")
    if parts.username is not None or parts.password is not None:
        raise _unusable("holds a name or password, which belong in credentialsSecretRef")
    if parts.fragment or (parts.query and parts.scheme != SIMULATED):
        raise _unusable("has a query or a fragment, which no BMC needs")
    host = _host(parts)
    transport = parts.scheme.rpartition("+")[2]
    if not host and (transport in DEFAULT_PORTS or port is not None):
        raise _unusable("names no host")
    return Address(parts.scheme, host, port or DEFAULT_PORTS.get(transport), _path(parts), parts.query)


def bmc_key(address: str) -> str:
    """The one spelling of an address: what has one key is reached in one way. Raises as `parse` does."""
    return str(parse(address))


class Stake(NamedTuple):
    """What an address lays hold of, and what others may not hold beside it: then both mean one machine."""

    holds: frozenset[str]
    rivals: frozenset[str]


NO_STAKE = Stake(frozenset(), frozenset())


def stake(address: str) -> Stake:
    """What an address lays hold of: a system behind a BMC, or all of the BMC where it names no system.

    The protocol says nothing here, and neither does its usual port: whoever speaks Redfish to a BMC and whoever speaks
    IPMI to it move the same power. Any other port is one that somebody forwards, perhaps to another BMC. A name and an
    IP address of one BMC are not seen to be the same. A simulated address lays hold of nothing: each record that has it
    is a machine of its own. Raises as `parse` does.
    """
    bmc = parse(address)
    if bmc.scheme == SIMULATED:
        return NO_STAKE
    place = bmc.place or str(bmc)
    whole, part, system = f"all of {place}", f"part of {place}", f"{place}{bmc.path}"
    if not bmc.path:
        return Stake(frozenset({whole}), frozenset({whole, part}))
    return Stake(frozenset({part, system}), frozenset({whole, system}))


def _host(parts: SplitResult) -> str:
    host = unquote(parts.hostname or "")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        if ":" in host:
            raise _unusable("has a broken IPv6 address") from None
        return host.lower()


def _path(parts: SplitResult) -> str:
    path = parts.path.rstrip("/")
    if parts.scheme.startswith("webhook"):
        return parts.path if path else ""
    return "" if parts.scheme.startswith("redfish") and path in ABOVE_SYSTEMS else path


def _unusable(why: str) -> PowerError:
    return PowerError(
        FaultClass.UNSUPPORTED,
        f"The BMC address {why}: write it like redfish+https://10.0.0.7/redfish/v1/Systems/1",
    )
