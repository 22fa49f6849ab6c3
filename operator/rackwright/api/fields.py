"""The vocabulary of the API: scalar types with the rules and sentences that guard them.

A rule is CEL, evaluated by the API server when somebody applies an object; its message names the remedy, the
API server itself names the field. pydantic doesn't repeat the rules: what reaches the operator has passed them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

_SPECIAL = {
    "boot_mac_address": "bootMACAddress",
    "insecure_skip_tls_verify": "insecureSkipTLSVerify",
    "mac_address": "macAddress",
    "ip_addresses": "ipAddresses",
    "memory_mib": "memoryMiB",
    "disk_gib": "diskGiB",
    "min_size_gib": "minSizeGiB",
}


def _camel(name: str) -> str:
    return _SPECIAL.get(name) or to_camel(name)


CONFIG = ConfigDict(alias_generator=_camel, populate_by_name=True, extra="ignore")
"""Of all objects of the API: camelCase on the wire, unknown fields kept out by the schema.

A field that a newer version wrote is ignored here rather than an error: an operator that is rolled back must still be
able to read its machines.
"""


class Model(BaseModel):
    """An object of the API; immutable.

    Those that a record has a dozen of are pydantic's dataclasses with slots instead: they take a tenth of the memory.
    """

    model_config = CONFIG | ConfigDict(frozen=True)

    def model_post_init(self, _context: Any) -> None:
        """Which fields were given is in memory once for all objects that were given the same: they are immutable."""
        given = self.__pydantic_fields_set__
        object.__setattr__(self, "__pydantic_fields_set__", _GIVEN.setdefault(frozenset(given), given))


_GIVEN: dict[frozenset[str], set[str]] = {}
"""There are as many as combinations of fields that occur: some dozens."""


Repeated = Annotated[str, AfterValidator(sys.intern)]
"""One of the few texts that are in the records of all machines: in memory once."""


def rules(*rules_: tuple[str, str]) -> dict[str, Any]:
    """CEL rules for a schema: pairs of the rule and the sentence that a refused apply prints."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules_]}


def documented(values: Iterable[str]) -> dict[str, Any]:
    """An enum as a plain list of strings, which is what a structural schema wants."""
    return {"enum": list(values)}


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def parse_duration(value: Any) -> Any:
    """`1h30m`, `45m`, `90s` → timedelta; anything else is left for pydantic to refuse."""
    if isinstance(value, str) and value and (match := _DURATION.fullmatch(value)):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        try:
            return timedelta(hours=hours, minutes=minutes, seconds=seconds)
        except OverflowError:
            raise ValueError("is longer than any duration can be") from None
    return value


def format_duration(value: timedelta) -> str:
    """The shortest string that `parse_duration` reads back; `0s` for nothing."""
    total = int(value.total_seconds())
    parts = ((total // 3600, "h"), (total % 3600 // 60, "m"), (total % 60, "s"))
    return "".join(f"{amount}{unit}" for amount, unit in parts if amount) or "0s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    Field(
        json_schema_extra={
            "type": "string",
            "maxLength": 20,
            **rules(
                (
                    "self.matches('^([0-9]{1,4}h)?([0-9]{1,5}m)?([0-9]{1,7}s)?$') && self.matches('[1-9]')",
                    (
                        "must be a duration of hours, minutes and seconds like 30m, 1h30m or 90s, "
                        "more than nothing and at most 9999h"
                    ),
                )
            ),
        }
    ),
]


@lru_cache(maxsize=4096)
def _seconds(value: datetime) -> datetime:
    """One machine's times are mostly the same few, and in memory once."""
    return value.astimezone(UTC).replace(microsecond=0)


@lru_cache(maxsize=4096)
def _rfc3339(value: datetime) -> str:
    """The conditions of one machine share most of their times, and those of many the last ones."""
    return f"{value.replace(tzinfo=None).isoformat(timespec='seconds')}Z"  # strftime may leave a year's zeros out


Time = Annotated[
    datetime,
    AfterValidator(_seconds),
    PlainSerializer(_rfc3339, return_type=str),
    Field(json_schema_extra={"type": "string", "format": "date-time"}),
]
"""An instant, as Kubernetes writes them: RFC 3339, UTC, whole seconds."""

MACAddress = Annotated[
    str,
    AfterValidator(str.lower),
    Field(
        json_schema_extra={
            "maxLength": 17,
            **rules(
                (
                    "self.matches('^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$')",
                    "must be a MAC address like 52:54:00:00:00:07: six pairs of hexadecimal digits joined by colons",
                ),
                (
                    "!self.matches('^[0-9A-Fa-f][13579bdfBDF]')",
                    "is a multicast address (the first byte is odd): give the address of the network card that boots",
                ),
            ),
        }
    ),
]

_HOST_AND_PORT = (
    "([^/?#]*@)?"  # refused by a rule of its own, whose sentence says where it belongs
    "([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|[[][0-9A-Fa-f:.]+[]])"
    "(:[0-9]{1,5})?"
)
"""A name, an IPv4 address or an IPv6 address in brackets."""

_SIMULATED_VALUES = {
    ("answer", "power", "boot", "inspect", "write", "erase", "start"): "[0-9]{1,5}(ms|s|m|h)",
    ("fail", "hang", "lost", "broken", "spread"): "(0|1|0[.][0-9]{1,6})",
    ("disks",): "[1-9][0-9]?",
    ("seed",): "[0-9]{1,9}",
}

SIMULATED_PARAMETERS = tuple(f"({'|'.join(names)})={value}" for names, value in _SIMULATED_VALUES.items())
"""What a simulated address may ask for, as regular expressions: `rackwright.simulated.behaviour` reads them."""

_SIMULATED_PARAMETER = f"({'|'.join(SIMULATED_PARAMETERS)})"
_SIMULATED_NAMES = [name for names in _SIMULATED_VALUES for name in names]

BMCAddress = Annotated[
    str,
    Field(
        json_schema_extra={
            "maxLength": 512,
            **rules(
                (
                    (
                        f"self.matches('^(redfish|webhook)[+]https?://{_HOST_AND_PORT}(/[^ ?#]*)?$')"
                        f" || self.matches('^ipmi://{_HOST_AND_PORT}/?$')"
                        " || self.matches('^manual://[-A-Za-z0-9.]*$')"
                        " || self.matches('^simulated://')"
                    ),
                    (
                        "must be an address with a known scheme: redfish+https://HOST/redfish/v1/Systems/ID "
                        "or webhook+https://HOST/PATH (+http:// without TLS), ipmi://HOST (no path), or manual:// "
                        "where a person moves the power"
                    ),
                ),
                (
                    (
                        "!self.matches('^simulated:') || self.matches('^simulated://(fast|slow)"
                        f"([?]{_SIMULATED_PARAMETER}(&{_SIMULATED_PARAMETER})*)?$')"
                    ),
                    (
                        "must be simulated://fast or simulated://slow, with parameters like "
                        "?boot=90s&fail=0.02&seed=7: "
                        "answer, power, boot, inspect, write, erase and start are durations like 500ms, 90s or 5m; "
                        "fail, hang, lost, broken and spread go from 0 to 1; disks and seed are whole numbers"
                    ),
                ),
                (
                    (
                        f"!self.matches('^simulated:') || {_SIMULATED_NAMES}.all(name, "
                        "self.replace('?', '&').split('&' + name + '=').size() <= 2)"
                    ),
                    "must not give one parameter of a simulated machine twice",
                ),
                (
                    "!self.matches('^[^/]*//[^/]*@')",
                    "must not hold a name or password: those belong in the Secret that credentialsSecretRef names",
                ),
            ),
        }
    ),
]

Checksum = Annotated[
    str,
    Field(
        json_schema_extra={
            "maxLength": 135,
            **rules(
                (
                    "self.matches('^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$')",
                    (
                        "must be sha256: and 64, or sha512: and 128 lower-case hexadecimal digits; "
                        "print it with: sha256sum IMAGE"
                    ),
                )
            ),
        }
    ),
]

HTTPURL = Annotated[
    str,
    Field(
        json_schema_extra={
            "maxLength": 2048,
            **rules(
                (
                    "self.matches('^https?://[^/ @]+(/[^ ]*)?$')",
                    "must be an http:// or https:// URL that machines can reach from the ramdisk",
                )
            ),
        }
    ),
]

Hostname = Annotated[
    str,
    Field(
        json_schema_extra={
            "maxLength": 253,
            **rules(
                (
                    "self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')",
                    "must be a DNS name: lower-case letters, digits and hyphens, labels of at most 63 joined by dots",
                )
            ),
        }
    ),
]

Owner = Annotated[
    str,
    Field(
        json_schema_extra={
            "maxLength": 63,
            **rules(
                (
                    "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
                    "must name an owner in lower-case letters, digits, hyphens and dots, like team-search",
                )
            ),
        }
    ),
]

ObjectName = Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 253})]
"""The name of another object."""

Trigger = Annotated[str, Field(json_schema_extra={"maxLength": 253})]
"""Any string: a value that differs from the last one acted upon asks for the action once."""

GateType = Annotated[
    str,
    Field(
        json_schema_extra={
            "maxLength": 316,
            **rules(
                (
                    ("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')"),
                    (
                        "must be a condition type of your own with its domain, like example.org/BurnIn: "
                        "types without one are the operator's"
                    ),
                )
            ),
        }
    ),
]
"""The type of a condition that somebody else writes."""

SSHKey = Annotated[
    str,
    Field(
        json_schema_extra={
            "maxLength": 8192,
            **rules(
                (
                    (
                        "self.matches('^((ssh|ecdsa)-[a-z0-9-]+|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh[.]com)"
                        " [A-Za-z0-9+/]+={0,3}( [^\\\\x00-\\\\x1f\\\\x7f]*)?$')"
                    ),
                    (
                        "must be one line of an OpenSSH public key, like the content of ~/.ssh/id_ed25519.pub: "
                        "no options, no certificate, no tabs"
                    ),
                )
            ),
        }
    ),
]
"""A public key in OpenSSH's authorized_keys format, as `rackwright_ipa.rescue` takes it.

sshd lets nobody in for a certificate that stands there without options, and options could run commands.
"""
