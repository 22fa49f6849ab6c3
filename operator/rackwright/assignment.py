"""Which machine is in which shard, and which operator takes which shard: arithmetic, without a look at anything.

A machine's shard follows from what its record declares and from the number of shards, so that every operator, asked
about any machine, gives the same answer without asking another. Which operator has a shard is what Leases say; here is
only when one takes a shard, asks for one, or gives one up. There is no list of operators: whoever has too few makes
itself heard by asking. SCALING.md says why.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from rackwright.api import RACK_LABEL, SHARD_LABEL
from rackwright.api.machine import BareMetalMachineSpec
from rackwright.power.address import SIMULATED, parse
from rackwright.power.port import PowerError

Holders: TypeAlias = Mapping[int, str]
"""The shards that somebody holds, and who."""

_NUMBERED = "shard/"


@dataclass(frozen=True, slots=True)
class Plan:
    """How the fleet is divided, and which of it an operator may take."""

    shards: int = 1
    mine: frozenset[int] = frozenset({0})

    def __post_init__(self) -> None:
        if not self.mine or not all(0 <= shard < self.shards for shard in self.mine):
            raise ValueError(f"a shard is a number from 0 to {self.shards - 1}")

    @classmethod
    def shared(cls, shards: int) -> Plan:
        """Any of so many shards."""
        return cls(shards, frozenset(range(shards)))


def shard_key(metadata: Mapping[str, Any], spec: BareMetalMachineSpec) -> str:
    """What puts a machine into its shard: the shard that its label names, its rack, its BMC, or else its name.

    The BMC, because the machines of a chassis are behind one, and one operator at a time is all that it can bear.
    """
    labels = metadata.get("labels") or {}
    number, rack = labels.get(SHARD_LABEL) or "", labels.get(RACK_LABEL)
    if number.isascii() and number.isdigit():
        return f"{_NUMBERED}{int(number)}"
    if rack:
        return f"rack/{rack}"
    place = ""
    if spec.bmc is not None:
        try:
            bmc = parse(spec.bmc.address)
            place = bmc.place if bmc.scheme != SIMULATED else ""  # which says how it behaves, and nothing of where
        except PowerError:
            place = ""  # an address that leads nowhere
    return f"bmc/{place}" if place else f"machine/{metadata['namespace']}/{metadata['name']}"


@lru_cache(maxsize=2**17)
def shard_of(key: str, shards: int) -> int:
    """The shard that a key is in: rendezvous hashing, by which one shard more takes its share and moves nothing else.

    A numbered shard that there isn't is counted round: every key is in exactly one.
    """
    number = key.removeprefix(_NUMBERED)
    if number != key and number.isdigit():
        return int(number) % shards
    return max(range(shards), key=lambda shard: hashlib.blake2b(f"{shard} {key}".encode(), digest_size=8).digest())


def excess(holders: Holders, me: str) -> int:
    """How many shards more I hold than whoever holds fewest; whoever holds none isn't known of, and needs no priority.

    A shard that is free is left to others for the longer, the more this is.
    """
    load = Counter(holders.values())
    mine = load.pop(me, 0)
    return max(0, mine - min(load.values(), default=mine))


def asks_for(holders: Holders, me: str, mine: Collection[int]) -> int | None:
    """The shard that I ask another operator for: one of those that has most, as long as it has two more than I.

    So it ends with nobody having two more than another, and nothing moves to and fro.
    """
    load = Counter(holders.values())
    theirs = [shard for shard, holder in holders.items() if shard in mine and holder != me]
    shard = max(theirs, key=lambda shard: (load[holders[shard]], -shard), default=None)
    return shard if shard is not None and load[holders[shard]] >= load[me] + 2 else None


def gives_up(holders: Holders, me: str, to: str) -> bool:
    """Whether I give a shard to another operator that asks for it."""
    load = Counter(holders.values())
    return to != me and load[me] >= load[to] + 2
