"""Laboratories under names that all sessions of the tests on a machine share, each for one of them at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab import installation
from lab.paths import CACHE, checked_name


@contextmanager
def own(name: str, remove: Callable[[str], None] = installation.down) -> Iterator[str]:
    """Nothing is there of this laboratory at first, though another session was killed in it, and nothing afterwards.

    Who finds it in use waits. With RACKWRIGHT_KEEP_RACK=1 what the tests made is left for a look at it. The file
    that is locked always stays: whoever waits has it open.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{checked_name(name)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove(name)
        try:
            yield name
        finally:
            if os.environ.get("RACKWRIGHT_KEEP_RACK") != "1":
                remove(name)
