"""BMC addresses in one spelling, so that one BMC is known as one whoever wrote its address down.

Two machine objects for one physical machine fight over its power. That shows only if `redfish+https://BMC-7/…/1/`
and `redfish+https://bmc-7:443/…/1` are seen to be the same place.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from rackwright.power.port import FaultClass, PowerError

DEFAULT_PORTS = {"http": 80, "https": 443, "ipmi": 623}
SERVICE_ROOTS = ("/redfish", "/redfish/v1")


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
        return f"{self.scheme}://{self.authority}{self.path}"


def parse(text: str) -> Address:
    """Read an address as `spec.bmc.address` has it; raises `PowerError` (UNSUPPORTED) for what isn't one."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise _unusable("is not a URL") from None
    if not parts.scheme or "://" not in text:
        raise _unusable("has no scheme")
    if parts.username is not None or parts.password is not None:
        raise _unusable("holds a name or password, which belong in credentialsSecretRef")
    if parts.query or parts.fragment:
        raise _unusable("has a query or a fragment, which no BMC needs")
    host = _host(parts)
    transport = parts.scheme.rpartition("+")[2]
    if not host and (transport in DEFAULT_PORTS or port is not None):
        raise _unusable("names no host")
    return Address(parts.scheme, host, port or DEFAULT_PORTS.get(transport), _path(parts))


def bmc_key(address: str) -> str:
    """The one spelling of an address: two machines with one key are one machine. Raises as `parse` does."""
    return str(parse(address))


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
    return "" if parts.scheme.startswith("redfish") and path in SERVICE_ROOTS else path


def _unusable(why: str) -> PowerError:
    return PowerError(
        FaultClass.UNSUPPORTED,
        f"The BMC address {why}: write it like redfish+https://10.0.0.7/redfish/v1/Systems/1",
    )
