"""Who asked a scripted machine what, and when: each request to its BMC or its agent, with the process that sent it.

Operators share an account and an address, and what they say of themselves could be wrong. But the kernel knows which
process has the other end of a connection, so it is asked (`/proc/net/tcp`, `/proc/PID/fd`) when the connection is new.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from weakref import WeakKeyDictionary

from aiohttp import web

ESTABLISHED = "01"
FIRST_REFUSAL = 400
DEEDS = {
    **{f"Reset {kind}": kind for kind in ("On", "ForceOff", "GracefulShutdown")},
    "agent standby.prepare_image": "image",
    "agent clean.execute_clean_step": "erase",
}
"""What is done to a machine, of all that is asked, and what it is called here."""
NOBODY = 0
"""A process that was killed before the kernel was asked."""


@dataclass
class Exchange:
    """One request of an operator's, from its arrival until its answer. Times are the wall clock's, in seconds."""

    machine: int
    who: int
    """The process."""
    what: str
    """`Reset On`, `PATCH /redfish/...`, `agent standby.prepare_image`."""
    begun: float
    ended: float = field(default=float("inf"))
    status: int = 0
    """Of the answer."""

    @property
    def acts(self) -> bool:
        """Whether it changes something about the machine."""
        return self.what.startswith(("Reset ", "PATCH ", "agent "))


class Witness:
    """Everything that operators ask of machines, in the order in which it arrives."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._seen: list[Exchange] = []
        self._callers: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    @contextmanager
    def sees(self, machine: int, request: web.Request, what: str) -> Iterator[Exchange]:
        """Note an exchange; it lasts as long as the context."""
        exchange = Exchange(machine, self._caller(request), what, time.time())
        with self._news:
            self._seen.append(exchange)
            self._news.notify_all()
        try:
            yield exchange
        finally:
            exchange.ended = time.time()

    def with_machine(self, machine: int) -> list[Exchange]:
        """All exchanges with a machine so far."""
        with self._news:
            return [each for each in self._seen if each.machine == machine]

    def in_the_middle_of(self, who: int, machines: Collection[int], seconds: float) -> Exchange | None:
        """An action of this process on one of these machines that goes on now; None if there is none for so long."""

        def found() -> Exchange | None:
            alive = (x for x in reversed(self._seen) if x.acts and x.who == who and x.machine in machines)
            return next((x for x in alive if x.ended == float("inf")), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None, seconds)
            return found()

    def _caller(self, request: web.Request) -> int:
        transport = request.transport
        if transport is None:
            return NOBODY
        if transport not in self._callers:
            self._callers[transport] = _owner(
                transport.get_extra_info("peername")[:2], transport.get_extra_info("sockname")[:2]
            )
        return self._callers[transport]


def assert_never_two_at_once(exchanges: Collection[Exchange]) -> None:
    """No exchange of one process goes on while one of another does, whether it acts or only asks."""
    for one, other in combinations(exchanges, 2):
        if one.who != other.who:
            assert one.ended <= other.begun or other.ended <= one.begun, (one, other)


def assert_each_in_its_time(exchanges: Collection[Exchange], tenures: Collection[tuple[int, float, float]]) -> None:
    """Whatever acts was begun and answered while its process held the Lease; a tenure is process, begin, end."""
    for each in exchanges:
        fits = [who for who, begin, end in tenures if begin <= each.begun and each.ended <= end]
        assert not each.acts or (fits and each.who in (*fits, NOBODY)), (each, tenures)


def done(exchanges: Collection[Exchange]) -> list[str]:
    """What one machine was told and took, in order: how its power is to be, and what its agent is to do to disks.

    Told twice in a row counts once if the second time was by another process: it found the step begun, and repeats it.
    """
    told: list[Exchange] = []
    for each in exchanges:
        if each.what in DEEDS and each.status < FIRST_REFUSAL:
            if told and told[-1].what == each.what and told[-1].who != each.who:
                told.pop()
            told.append(each)
    return [DEEDS[each.what] for each in told]


def _owner(theirs: tuple[str, int], ours: tuple[str, int]) -> int:
    """The child process of this one that has the other end of a connection."""
    inode = _inode(theirs, ours)
    for children in Path("/proc/self/task").glob("*/children"):
        for process in children.read_text().split():
            with suppress(OSError):
                for descriptor in Path(f"/proc/{process}/fd").iterdir():
                    with suppress(OSError):
                        if str(descriptor.readlink()) == f"socket:[{inode}]":
                            return int(process)
    return NOBODY


def _inode(theirs: tuple[str, int], ours: tuple[str, int]) -> str:
    wanted = f" {_hexadecimal(theirs)} {_hexadecimal(ours)} {ESTABLISHED} "
    for line in Path("/proc/net/tcp").read_text().splitlines():
        if wanted in line:
            return line.split()[9]
    return ""


def _hexadecimal(end: tuple[str, int]) -> str:
    """As the kernel writes an end of an IPv4 connection: the address in the order of its bytes in memory."""
    address = bytes(reversed([int(part) for part in end[0].split(".")]))
    return f"{address.hex().upper()}:{end[1]:04X}"
