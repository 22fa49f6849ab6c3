"""Machines that nobody declared: what they are offered, and what their introduction comes to.

The HTTP side knows no more of enlistment than this. `Nobody` is what it talks to while enlistment is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


class Welcome(StrEnum):
    """What a network card that belongs to no known machine is offered when it boots."""

    OFF = "Off"
    """Nothing: enlistment is off."""
    OPEN = "Open"
    """The ramdisk, to introduce the machine."""
    FULL = "Full"
    """Nothing: as many machines as may wait for acceptance are waiting."""
    SEEN = "Seen"
    """Nothing: it was offered enough lately, or a report told whose card it is."""


@dataclass(frozen=True, slots=True)
class Enlisted:
    """The machine has a record and its inventory is kept; it can switch itself off."""

    uid: str


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """There is nothing to enlist; asking again changes nothing now."""

    sentence: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """It could not be written down: the report is to be sent again."""

    sentence: str


Introduction = Enlisted | TurnedAway | NotYet


class Strangers(Protocol):
    """Decides about machines that nobody declared."""

    def welcome(self, mac: str) -> Welcome:
        """What is offered to this canonical MAC address, which belongs to no known machine; changes nothing."""

    def invited(self, mac: str) -> None:
        """It was sent to the ramdisk."""

    def turned_away(self) -> None:
        """Somebody was not, because enlistment is full."""

    async def introduce(self, report: Mapping[str, Any]) -> Introduction:
        """Take in a report of a machine that is not being booted; may be called again for the same machine."""


class Nobody:
    """Enlistment is off."""

    def welcome(self, mac: str) -> Welcome:
        """Offer nothing."""
        del mac
        return Welcome.OFF

    def invited(self, mac: str) -> None:
        """Never comes about."""

    def turned_away(self) -> None:
        """Never comes about."""

    async def introduce(self, report: Mapping[str, Any]) -> Introduction:
        """Turn it away."""
        del report
        return TurnedAway("No machine with these MAC addresses is being booted into the ramdisk.")
