"""Answers a machine's iPXE: which script it boots by."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import assert_never

from aiohttp import web

from rackwright.agent.sessions import Boots, canonical_mac
from rackwright.agent.strangers import Nobody, Strangers
from rackwright.logs import Line
from rackwright.netboot.decision import AskAgain, Decision, Introduce, LocalDisk, Ramdisk, Why, decide
from rackwright.netboot.script import RamdiskSettings, script

_log = logging.getLogger(__name__)


class BootScripts:
    """`GET /boot/ipxe?mac=52-54-00-00-00-07`."""

    def __init__(
        self,
        *,
        boots: Boots,
        settings: RamdiskSettings,
        unready: Callable[[], str | None],
        strangers: Strangers | None = None,
        fresh: Callable[[Collection[str]], Awaitable[bool]] | None = None,
    ) -> None:
        """Decide by `boots`, which are believed once `unready` answers None; without `strangers`, enlistment is off.

        `fresh` brings `boots` up to date for these MAC addresses where others change them; False if that failed.
        """
        self._boots = boots
        self._strangers = strangers or Nobody()
        self._settings = settings
        self._unready = unready
        self._fresh = fresh

    def routes(self) -> list[web.RouteDef]:
        """What the application serves for iPXE."""
        return [web.get("/boot/ipxe", self.ipxe)]

    async def ipxe(self, request: web.Request) -> web.Response:
        """The script by which the machine with this MAC address boots now; 400 where `mac` is none."""
        mac = canonical_mac(request.query.get("mac", ""))
        if mac is None:
            raise web.HTTPBadRequest(text="mac must be a MAC address like 52-54-00-00-00-07.\n")
        asked = request.query.get("asked", "0")
        times = int(asked) if asked.isascii() and asked.isdigit() and len(asked) <= 4 else 0  # noqa: PLR2004
        ready = self._unready() is None and (self._fresh is None or await self._fresh((mac,)))
        decision = self.decide(mac, request.remote, asked=times, ready=ready)
        return web.Response(text=script(decision, self._settings), headers={"Cache-Control": "no-store"})

    def decide(self, mac: str, peer: str | None, *, asked: int = 0, ready: bool = True) -> Decision:
        """What the machine with this canonical MAC address boots, having `asked` so often; it is taken to do so."""
        ready = ready and self._unready() is None
        decision = decide(mac, self._boots, self._strangers, ready=ready, asked=asked)
        match decision:
            case Introduce(mac):
                self._strangers.invited(mac)
            case LocalDisk(Why.ENLISTMENT_FULL):
                self._strangers.turned_away()
        _log.info(_line(f"boot script for {mac} at {peer}: {_summary(decision)}", decision))
        return decision


def _line(sentence: str, decision: Decision) -> Line:
    """A line of the log, by the machine if it is one that we boot."""
    if not isinstance(decision, Ramdisk):
        return Line(sentence)
    boot = decision.boot
    return Line(sentence, machine=f"{boot.namespace}/{boot.name}", operation=boot.operation, attempt=boot.attempt)


def _summary(decision: Decision) -> str:
    match decision:
        case Ramdisk():
            return "ramdisk"
        case Introduce():
            return "ramdisk, to introduce itself"
        case LocalDisk(reason):
            return f"local disk, {reason}"
        case AskAgain(_, asked):
            return f"asks again, {asked}"
        case _ as never:
            assert_never(never)
