"""Chance that repeats itself: what befalls a simulated machine depends on its seed, itself and how often it happened.

A generator per machine would cost kilobytes each, and one for all would make a machine's fate depend on its
neighbours'. A hash costs nothing to keep, and the third boot of a machine goes the same way whatever came between.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

_RANGE = 2**64


class What(StrEnum):
    """What chance decides upon; each kind has a history of its own."""

    ANSWER = "answer"
    """Whether, and how soon, a BMC answers a question."""
    OBEY = "obey"
    """The same for a command."""
    SWITCH = "switch"
    BOOT = "boot"
    START = "start"
    INSPECT = "inspect"
    WORK = "work"
    """How an agent's command goes."""
    BEAT = "beat"


def draw(seed: int, identity: str, what: What, time: int, aspect: str = "") -> float:
    """A number from 0 to 1, 1 excluded; the same for the same arguments, on every machine and in every version.

    `aspect` tells questions apart that are asked of one event: whether it fails, and how.
    """
    text = f"{seed}/{identity}/{what}/{time}/{aspect}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") / _RANGE
