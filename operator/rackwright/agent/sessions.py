"""Who may be talked to: the boots that the operator asked for, and the agents that were heard from them.

A ramdisk's agent is trusted because the operator booted it a moment ago, and only for that one boot. A boot belongs
to one operation id; what an agent of another operation said is worthless, so nothing here outlives its operation.
Everything is in memory: after a restart of the operator the agents' next heartbeats fill it again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

LATE_SECONDS = 30.0
"""How long a heartbeat may be on its way: an agent that beats after that was not switched off."""

_MAC = re.compile(r"[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}")


def canonical_mac(text: str) -> str | None:
    """`52-54-00-AA-BB-0C` or `52:54:00:aa:bb:0c` → `52:54:00:aa:bb:0c`; None for anything but a MAC address."""
    text = text.lower()
    return text.replace("-", ":") if _MAC.fullmatch(text) else None


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot into the ramdisk that the operator itself asked for; there is none for any other machine."""

    machine_uid: str
    namespace: str
    name: str
    operation_id: str
    operation: str
    """What the boot is for, for a person at the machine's console: `Commission`."""
    attempt: int
    macs: tuple[str, ...]
    """The machine's network cards, as `canonical_mac` writes them."""
    wants_inventory: bool = False
    """Whether the agent is to inspect the hardware and report it before anything else."""
    goes_off: bool = False
    """Whether the machine is to switch itself off after its inspection, because nobody else can."""
    agent_known: bool = False
    """Whether status says that an agent of this boot was heard: then its token was handed out, and never is again."""


class Boots(Protocol):
    """What the loop knows of machines; answered at once, from its cache."""

    def by_mac(self, macs: Collection[str]) -> Boot | None:
        """The boot of the machine that owns one of these canonical MAC addresses, if there is one."""

    def by_uid(self, uid: str) -> Boot | None:
        """The boot of this machine, if there is one."""

    def knows(self, mac: str) -> bool:
        """Whether a known machine has this network card, booted by us or not."""


@dataclass(frozen=True, slots=True)
class Session:
    """An agent that can be given commands."""

    operation_id: str
    callback_url: str
    """`https://ADDRESS:PORT`, without a path."""
    certificate: str
    """The agent's own certificate, PEM; connections are pinned to it."""
    heard_at: float
    """Of the last heartbeat, by the monotonic clock: how long ago that was is no matter of what time it is."""
    version: str
    """Of the agent; empty where it didn't say."""

    @property
    def address(self) -> str:
        """The machine's IP address."""
        return urlsplit(self.callback_url).hostname or ""


@dataclass(slots=True)
class _Record:
    """What is known of one boot's agent, which reports before its first heartbeat."""

    operation_id: str
    address: Address | None = None
    inspected: bool = False
    inspection: Mapping[str, Any] | None = None
    """Until it is in the cluster: an agent may live for months, where nobody can switch its machine off."""
    session: Session | None = None


class Sessions:
    """The agents of the current boots, by machine uid."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._cut_off: dict[str, tuple[str, float]] = {}
        """By machine uid: the certificate of the agent whose power was cut last, and when, by the monotonic clock."""

    def current(self, uid: str, operation_id: str) -> Session | None:
        """The agent of this boot, once it sent a valid heartbeat."""
        record = self._of(uid, operation_id)
        return record.session if record else None

    def inspected(self, uid: str, operation_id: str) -> bool:
        """Whether this boot's agent has sent its report, which it does before it first beats."""
        record = self._of(uid, operation_id)
        return record is not None and record.inspected

    def inspection(self, uid: str, operation_id: str) -> Mapping[str, Any] | None:
        """The report of this boot's agent, once it came and until it is kept elsewhere."""
        record = self._of(uid, operation_id)
        return record.inspection if record else None

    def inspection_kept(self, uid: str, operation_id: str) -> None:
        """What this boot's agent has reported is in the cluster: nobody asks for more than whether it has."""
        record = self._of(uid, operation_id)
        if record is not None:
            record.inspection = None

    def address(self, uid: str, operation_id: str) -> Address | None:
        """The address that this boot's token was handed to, or that its agent beats from."""
        record = self._of(uid, operation_id)
        return record.address if record else None

    def forget(self, uid: str) -> None:
        """Drop everything about a machine that is gone."""
        self._records.pop(uid, None)
        self._cut_off.pop(uid, None)

    def cut_off(self, uid: str) -> None:
        """The machine's power was cut: whatever its agent still has on its way here says nothing any more."""
        record = self._records.pop(uid, None)
        if record is not None and record.session is not None:
            self._cut_off[uid] = (record.session.certificate, time.monotonic())

    def is_late(self, uid: str, session: Session) -> bool:
        """Whether a heartbeat was sent before its agent's power was cut; one that lives all the same beats again."""
        certificate, since = self._cut_off.get(uid, ("", 0.0))
        return certificate == session.certificate and time.monotonic() - since < LATE_SECONDS

    def bind(self, boot: Boot, address: Address) -> None:
        """Remember who was given the boot's token: an agent of a new boot, whatever became of an earlier one."""
        self._ensure(boot).address = address
        self._cut_off.pop(boot.machine_uid, None)

    def reported(self, boot: Boot, inspection: Mapping[str, Any]) -> None:
        """Keep the agent's report; a repeated one takes the earlier one's place."""
        record = self._ensure(boot)
        record.inspected, record.inspection = True, inspection

    def heard(self, boot: Boot, session: Session, address: Address) -> None:
        """Keep what a valid heartbeat said."""
        record = self._ensure(boot)
        record.session = session
        record.address = address

    def _of(self, uid: str, operation_id: str) -> _Record | None:
        record = self._records.get(uid)
        return record if record and record.operation_id == operation_id else None

    def _ensure(self, boot: Boot) -> _Record:
        record = self._of(boot.machine_uid, boot.operation_id)
        if record is None:
            record = self._records[boot.machine_uid] = _Record(boot.operation_id)
        return record
