"""How a simulated machine behaves, as its address says it: `simulated://slow?boot=90s&fail=0.02&seed=7`.

A profile is a name for durations: `fast` answers at once, so that what takes time is the operator, and `slow` takes
what servers take. Parameters override it one by one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from urllib.parse import parse_qsl

from rackwright.power.address import SIMULATED, parse
from rackwright.power.port import FaultClass, PowerError


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Durations in seconds, chances from 0 to 1; all machines with one address share one."""

    answer: float = 0.0
    """The BMC: a question or a command, until it is answered."""
    power: float = 0.0
    """An accepted power command, until the power is so."""
    boot: float = 0.0
    """Power on, until the ramdisk runs."""
    inspect: float = 0.0
    """The ramdisk: an inspection."""
    write: float = 0.0
    """The ramdisk: writing an image."""
    erase: float = 0.0
    """The ramdisk: erasing all disks."""
    start: float = 0.0
    """Power on, until the installed system phones home."""
    spread: float = 0.0
    """By what part of itself each duration is longer or shorter, at most."""
    fail: float = 0.0
    """Of a BMC's exchange: an error instead of an answer."""
    hang: float = 0.0
    """Of a BMC's exchange: no answer until the operator gives up."""
    lost: float = 0.0
    """Of a boot: neither ramdisk nor system is ever heard."""
    broken: float = 0.0
    """Of an agent's command: the image isn't written, or a disk keeps its data."""
    disks: int = 2
    seed: int = 0
    """Other machines with the same address have another fate each, and the same one in the next run."""


PROFILES: Mapping[str, Behaviour] = {
    "fast": Behaviour(),
    "slow": Behaviour(
        answer=0.4, power=6, boot=150, inspect=25, write=150, erase=300, start=75, spread=0.25
    ),  # a 2-socket server with two SSDs, of the middle of its market
}

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,5})(ms|s|m|h)")
_CHANCE = re.compile(r"0|1|0\.[0-9]{1,6}")
_CHANCES = frozenset({"spread", "fail", "hang", "lost", "broken"})
_COUNTS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "disks": (re.compile(r"[1-9][0-9]?"), "a number from 1 to 99"),
    "seed": (re.compile(r"[0-9]{1,9}"), "a whole number of up to 9 digits"),
}
_NAMES = tuple(field.name for field in fields(Behaviour))


@lru_cache(maxsize=256)
def behaviour(address: str) -> Behaviour:
    """What an address asks for; raises `PowerError` (UNSUPPORTED) that names the parameter which can't be.

    Most of this the API server has refused already; what a regular expression can't see is left to here.
    """
    read = parse(address)
    profile = PROFILES.get(read.host)
    if profile is None or read.path or read.port is not None:
        known = " or ".join(f"{SIMULATED}://{name}" for name in PROFILES)
        raise PowerError(FaultClass.UNSUPPORTED, f"There is no {SIMULATED}://{read.host}{read.path}: write {known}")
    asked: dict[str, float | int] = {}
    for name, text in parse_qsl(read.query, keep_blank_values=True):
        if name in asked:
            raise _unusable(name, "is given twice")
        asked[name] = _value(name, text)
    return replace(profile, **asked)  # type: ignore[arg-type]  # by name, whole numbers where they belong


def _value(name: str, text: str) -> float | int:
    if name in _COUNTS:
        pattern, wanted = _COUNTS[name]
        if not pattern.fullmatch(text):
            raise _unusable(name, f"must be {wanted}")
        return int(text)
    if name in _CHANCES:
        if not _CHANCE.fullmatch(text):
            raise _unusable(name, "must be a number from 0 to 1, like 0.02")
        return float(text)
    if name not in _NAMES:
        raise _unusable(name, f"is unknown: there are {', '.join(_NAMES)}")
    duration = _DURATION.fullmatch(text)
    if duration is None:
        raise _unusable(name, "must be a duration like 500ms, 90s or 5m")
    return int(duration[1]) * _UNITS[duration[2]]


def _unusable(name: str, why: str) -> PowerError:
    return PowerError(FaultClass.UNSUPPORTED, f"The parameter {name[:40]!r} of the simulated BMC address {why}")
