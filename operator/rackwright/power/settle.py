"""Waiting for what a BMC promised, gently: a BMC that is asked all the time gets slower still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rackwright.power.port import FaultClass, PowerError

T = TypeVar("T")

LASTING = frozenset({FaultClass.CREDENTIALS, FaultClass.TLS, FaultClass.NOT_ALLOWED})
"""Faults that no waiting ends, and BMCs lock accounts. All others a BMC that switches shows for a moment."""


async def wait_for(read: Callable[[], Awaitable[T]], reached: Callable[[T], bool], *, within: float, every: float) -> T:
    """Read every `every` seconds until it is `reached` or `within` seconds are over; what was read last.

    Faults that may pass are waited out; one that is still there at the deadline is raised.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + within
    while True:
        pause = every
        try:
            seen = await read()
        except PowerError as error:
            if error.fault in LASTING or clock() >= deadline:
                raise
            pause = max(every, error.retry_after or 0.0)
        else:
            if reached(seen) or clock() >= deadline:
                return seen
        await asyncio.sleep(max(0.0, min(pause, deadline - clock())))
