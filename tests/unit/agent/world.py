"""Machines, boots and certificates for tests of the conversation with agents."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rackwright.agent.sessions import Boot

UID = "6f1c2f0e-0000-4000-8000-000000000007"
MAC = "52:54:00:00:00:07"
OTHER_MAC = "52:54:00:00:00:08"


def boot(**changes: Any) -> Boot:
    """A commissioning boot of rack-a/node-07."""
    return Boot(
        **{
            "machine_uid": UID,
            "namespace": "rack-a",
            "name": "node-07",
            "operation_id": "op-1",
            "operation": "Commission",
            "attempt": 1,
            "macs": (MAC,),
            "wants_inventory": True,
            **changes,
        }
    )


@dataclass(slots=True)
class DeclaredBoots:
    """The loop's view, set by a test."""

    boots: list[Boot] = field(default_factory=list)
    declared: set[str] = field(default_factory=set)

    def by_mac(self, macs: Collection[str]) -> Boot | None:
        return next((each for each in self.boots if set(each.macs) & set(macs)), None)

    def by_uid(self, uid: str) -> Boot | None:
        return next((each for each in self.boots if each.machine_uid == uid), None)

    def knows(self, mac: str) -> bool:
        return mac in self.declared or any(mac in each.macs for each in self.boots)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, PEM."""

    certificate: str
    key: str


@cache
def identity(name: str = "agent", address: str = "127.0.0.1", *, year: int = 0) -> Identity:
    """As IPA makes them: self-signed, one IP address as a critical SAN; valid for a day from now, or from `year` on."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin = datetime(year, 1, 1, tzinfo=UTC) if year else datetime.now(UTC) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=True)
        .sign(key, hashes.SHA512())
    )
    return Identity(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )
