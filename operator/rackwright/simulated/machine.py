"""One simulated machine: its power, what it boots, what runs on it, what is on its disks.

It knows the operator as metal does: it asks what to boot, and whoever it boots talks to the operator by itself. All
that makes time pass is one timer a machine, and none where nothing is under way: ten thousand of them idle in one
process, so what one keeps is small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol, assert_never

from rackwright.agent.api import AgentAPI
from rackwright.install.phone_home import FirstBoots
from rackwright.netboot.api import BootScripts
from rackwright.netboot.decision import AskAgain, Introduce, LocalDisk, Ramdisk
from rackwright.netboot.script import ASK_SECONDS
from rackwright.power.port import BootTarget, PowerState
from rackwright.simulated import hardware
from rackwright.simulated.behaviour import Behaviour
from rackwright.simulated.chance import What, draw
from rackwright.simulated.ramdisk import Introduction, RunningRamdisk
from rackwright.simulated.system import RunningSystem

BLANK = ""
"""What is on a disk that was erased, or never written."""


@dataclass(frozen=True, slots=True)
class Network:
    """What a machine finds on the provisioning network: what is behind the operator's HTTP routes."""

    scripts: BootScripts
    agents: AgentAPI
    first_boots: FirstBoots


class Running(Protocol):
    """What a machine has booted."""

    def stop(self) -> None:
        """The power is gone."""


class Machine:
    """A machine. Belongs to one event loop."""

    __slots__ = (
        "_counts", "_running", "_switched", "_timer", "behaviour", "disks", "mac", "network", "number", "on", "seed",
        "target", "uid",
    )  # fmt: skip

    def __init__(self, uid: str, mac: str, number: int, behaviour: Behaviour, network: Network) -> None:
        """A machine that is off, with blank disks."""
        self.uid = uid
        """Of its record."""
        self.mac = mac
        """Of its network card; also who it is, for chance and for its hardware."""
        self.number = number
        self.behaviour = behaviour
        self.network = network
        self.on = False
        self.target = BootTarget.DISK
        self.disks: tuple[str, ...] = (BLANK,) * behaviour.disks
        """What is on each: blank, an image's checksum, or what a system wrote there."""
        self.seed = ""
        """The URL that a written system is to call once, until it has."""
        self._counts: dict[What, int] | None = None
        self._running: Running | None = None
        self._timer: asyncio.Handle | None = None
        self._switched: asyncio.Future[None] | None = None

    # --- chance and time ------------------------------------------------------------------------------------------

    def happens(self, what: What) -> int:
        """Something happens once more; its number."""
        if self._counts is None:
            self._counts = {}
        number = self._counts[what] = self._counts.get(what, 0) + 1
        return number

    def chance(self, what: What, number: int, aspect: str) -> float:
        """A number from 0 to 1 for one question about one event."""
        return draw(self.behaviour.seed, self.mac, what, number, aspect)

    def duration(self, seconds: float, what: What, number: int) -> float:
        """How long something takes this time."""
        if not seconds or not self.behaviour.spread:
            return seconds
        return seconds * (1 + self.behaviour.spread * (2 * self.chance(what, number, "duration") - 1))

    # --- what its BMC does ----------------------------------------------------------------------------------------

    @property
    def power(self) -> PowerState:
        """As its BMC reports it."""
        if self._switched is not None:
            return PowerState.UNKNOWN
        return PowerState.ON if self.on else PowerState.OFF

    def switch(self, *, on: bool) -> asyncio.Future[None] | None:
        """Switch it; None if it is so at once, else what is done when it is."""
        if self._switched is not None:
            return self._switched
        if self.on is on:
            return None
        seconds = self.duration(self.behaviour.power, What.SWITCH, self.happens(What.SWITCH))
        if not on:
            self._cut()  # what ran is gone with the command; the BMC takes longer to say so
        if not seconds:
            self._is_switched(on)
            return None
        self._switched = asyncio.get_running_loop().create_future()
        self._after(seconds, lambda: self._is_switched(on))
        return self._switched

    def _is_switched(self, on: bool) -> None:
        self.on = on
        if self._switched is not None and not self._switched.done():
            self._switched.set_result(None)
        self._switched = None
        if on:
            self._boot()

    def _cut(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None:
            self._running.stop()
            self._running = None

    def off(self) -> None:
        """Its power goes, by its own doing or because it isn't needed any more."""
        self._cut()
        self.on = False
        if self._switched is not None:
            self._switched.cancel()
            self._switched = None

    # --- what it boots --------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        boot = self.happens(What.BOOT)
        if self.chance(What.BOOT, boot, "lost") < self.behaviour.lost:
            return
        target, self.target = self.target, BootTarget.DISK
        if target is BootTarget.NETWORK:
            self._after(self.duration(self.behaviour.boot, What.BOOT, boot), self._boot_from_network)
        else:
            self._boot_from_disk()

    def _boot_from_network(self, asked: int = 0) -> None:
        decision = self.network.scripts.decide(self.mac, str(self.address), asked=asked)
        match decision:
            case Ramdisk(boot):
                self._running = RunningRamdisk(self, boot)
            case Introduce():
                self._running = Introduction(self)
            case LocalDisk():
                self._boot_from_disk()
            case AskAgain(_, asked):
                self._after(ASK_SECONDS, lambda: self._boot_from_network(asked))
            case _ as never:
                assert_never(never)

    def _boot_from_disk(self) -> None:
        if any(self.disks):
            number = self.happens(What.START)
            self._after(self.duration(self.behaviour.start, What.START, number), self._start)

    def _start(self) -> None:
        self._running = RunningSystem(self)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        """The one thing that is to happen next."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, act) if seconds > 0 else loop.call_soon(act)

    # --- what runs on it asks -------------------------------------------------------------------------------------

    @property
    def running(self) -> Running | None:
        """What runs on it."""
        return self._running

    @property
    def address(self) -> IPv4Address:
        """Its IP address."""
        return hardware.address(self.number)

    def resume(self) -> None:
        """It is on, and runs what is on its disks, since before anybody looked."""
        self.on = True
        self._running = RunningSystem(self)

    def write(self, disk: int, content: str) -> None:
        """Put something on a disk in place of what is there."""
        self.disks = (*self.disks[:disk], content, *self.disks[disk + 1 :])
