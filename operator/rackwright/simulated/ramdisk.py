"""What runs on a simulated machine that was sent to the ramdisk: an agent, as ironic-python-agent is one.

It inspects, looks its machine up, beats, takes one command at a time and beats when one ends, by the operator's own
entry points, with that boot's token. The README of `rackwright.agent` has what the real one does about each answer.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from rackwright.agent.api import WITHHELD, Refusal
from rackwright.agent.client import AgentError, AgentFault, Command, CommandStatus
from rackwright.agent.sessions import Boot
from rackwright.install import erase, rescue
from rackwright.install.image import PREPARE_IMAGE
from rackwright.install.steps import EXECUTE_CLEAN_STEP, TELL_NODE
from rackwright.simulated import hardware
from rackwright.simulated.chance import What
from rackwright.simulated.hints import root_disk
from rackwright.simulated.system import host_key_of

if TYPE_CHECKING:
    from rackwright.simulated.machine import Machine

REPEAT_SECONDS = 5.0
"""Until the agent repeats what was refused; nothing is refused where all goes well."""
BEATS = (9.0, 18.0)
"""Between two heartbeats: 0.3 to 0.6 of the timeout that a lookup is answered with."""
ERASE_METHOD = {"Full": "NVMeCryptoErase", "Quick": "Metadata"}

# Self-signed; its key was thrown away. Sessions want a certificate, and nobody connects to a simulated agent.
CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBizCCATGgAwIBAgIUR2lW1oudNExqZ0XNJJcu9C/W8pswCgYIKoZIzj0EAwIw
GjEYMBYGA1UEAwwPc2ltdWxhdGVkIGFnZW50MCAXDTI2MTEyNTE5MzE0NFoYDzIx
MjYxMTAxMTkzMTQ0WjAaMRgwFgYDVQQDDA9zaW11bGF0ZWQgYWdlbnQwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAAQhcWDO+cJci9PPi5h2NI/cgGy5tZWU2fYu6Jib
cFXXzCBdEYuABr+evDIsW0qk9vAETuq/EpUUjx3cgytbamzto1MwUTAdBgNVHQ4E
FgQUtkhCp/291rrjn9opPuuiovFC42gwHwYDVR0jBBgwFoAUtkhCp/291rrjn9op
PuuiovFC42gwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAjWqE
BjCI9SSwV0bA5CgYHaYEDR5YVGIoBUWgvMs1kzMCIFAHCaK4Z8TyVY2aiLU3auRl
z2S7aBOnG4Cm5A10svMw
-----END CERTIFICATE-----
"""

_CALL = b"#cloud-config\nphone_home:\n"
_CALLS = re.compile(re.escape(_CALL) + rb" *url: '?(http[^\s']+)")
"""The URL that vendor data has a system call; the files of a config drive lie in it as they are."""


class Introduction:
    """A ramdisk that only inspects its machine, reports, and switches it off."""

    __slots__ = ("_machine", "_task")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        await inspected(self._machine)
        self._machine.off()

    def stop(self) -> None:
        """The power is gone."""
        self._task.cancel()


class RunningRamdisk:
    """A ramdisk whose agent takes commands."""

    __slots__ = ("_beating", "_hints", "_machine", "_task", "_working", "commands", "token", "uid")

    def __init__(self, machine: Machine, boot: Boot) -> None:
        self._machine = machine
        self._beating: asyncio.Handle | None = None
        self._working: asyncio.Handle | None = None
        self._hints: Mapping[str, Any] = {}
        self.uid = ""
        """Its machine's, by the lookup."""
        self.token = ""
        self.commands: tuple[Command, ...] = ()
        self._task = asyncio.get_running_loop().create_task(self._introduce_itself(boot))

    def stop(self) -> None:
        """The power is gone."""
        self._task.cancel()
        for timer in (self._beating, self._working):
            if timer is not None:
                timer.cancel()

    async def _introduce_itself(self, boot: Boot) -> None:
        if boot.wants_inventory:
            await inspected(self._machine)
        if boot.goes_off:
            self._machine.off()
        elif await self._look_up():
            self._beat()

    async def _look_up(self) -> bool:
        """Whether it has a token now: one that doesn't get any waits for a power cycle."""
        machine = self._machine
        while True:
            try:
                found = machine.network.agents.look_up(machine.address, [machine.mac])
            except Refusal:
                await asyncio.sleep(REPEAT_SECONDS)
                continue
            self.uid = found["node"]["uuid"]
            self.token = found["config"]["agent_token"]
            return self.token != WITHHELD

    def _beat(self) -> None:
        machine, (soonest, latest) = self._machine, BEATS
        if self._beating is not None:
            self._beating.cancel()
        try:
            machine.network.agents.hear(
                machine.address,
                self.uid,
                {
                    "callback_url": f"https://{machine.address}:9999",
                    "agent_token": self.token,
                    "agent_verify_ca": CERTIFICATE,
                    "agent_version": "simulated",
                },
            )
        except Refusal:
            pause = REPEAT_SECONDS
        else:
            chance = machine.chance(What.BEAT, machine.happens(What.BEAT), "pause")
            pause = soonest + (latest - soonest) * chance
        self._beating = asyncio.get_running_loop().call_later(pause, self._beat)

    # --- commands -------------------------------------------------------------------------------------------------

    def start(self, name: str, params: Mapping[str, Any]) -> Command:
        """Take a command; it ends when its time is over."""
        if self.commands and self.commands[-1].status is CommandStatus.RUNNING:
            raise AgentError(AgentFault.BUSY, f"The simulated agent of {self.uid} is at work.")
        behaviour, number = self._machine.behaviour, self._machine.happens(What.WORK)
        step = params.get("step", {}).get("step") if name == EXECUTE_CLEAN_STEP else None
        match name, step:
            case "standby.sync", None:
                return self._ended(name, {})
            case _, None if name == TELL_NODE:
                self._hints = params["node"]["properties"].get("root_device", {})
                return self._ended(name, {})
            case "standby.power_off", None:
                done = self._ended(name, {})
                self._machine.off()
                return done
            case _, rescue.STEP:
                self._takes(name, 0, number, self._open_rescue)
            case _, erase.STEP:
                mode = params["step"]["args"]["mode"]
                self._takes(name, behaviour.erase, number, lambda: self._erase(mode, number))
            case _, None if name == PREPARE_IMAGE:
                image, drive = params["image_info"], _called(params["configdrive"])
                checksum = f"{image['os_hash_algo']}:{image['os_hash_value']}"
                self._takes(name, behaviour.write, number, lambda: self._write(checksum, drive, number))
            case _:
                raise AgentError(AgentFault.PROTOCOL, f"A simulated agent doesn't know {step or name}.")
        return self.commands[-1]

    def _takes(self, name: str, seconds: float, number: int, act: Callable[[], Mapping[str, Any] | None]) -> None:
        """Be at work for so long, then do it."""
        machine, loop = self._machine, asyncio.get_running_loop()
        self.commands = (*self.commands, _command(number, name, CommandStatus.RUNNING))
        seconds = machine.duration(seconds, What.WORK, number)
        end = self._end
        self._working = loop.call_later(seconds, end, act) if seconds > 0 else loop.call_soon(end, act)

    def _end(self, act: Callable[[], Mapping[str, Any] | None]) -> None:
        result, running = act(), self.commands[-1]
        self.commands = (
            *self.commands[:-1],
            Command(
                id=running.id,
                name=running.name,
                status=CommandStatus.FAILED if result is None else CommandStatus.SUCCEEDED,
                result=result or {},
                error="Writing image to device failed: simulated" if result is None else None,
                error_type="ImageWriteError" if result is None else "",
            ),
        )
        self._beat()

    def _ended(self, name: str, result: Mapping[str, Any]) -> Command:
        return _command(0, name, CommandStatus.SUCCEEDED, result)

    def _is_broken(self, number: int) -> bool:
        return self._machine.chance(What.WORK, number, "broken") < self._machine.behaviour.broken

    def _write(self, checksum: str, seed: str, number: int) -> Mapping[str, Any] | None:
        machine = self._machine
        disk = root_disk(hardware.disks(machine.mac, len(machine.disks)), self._hints)
        if self._is_broken(number):
            machine.write(disk, f"a part of {checksum}")
            return None
        machine.write(disk, checksum)
        machine.seed = seed
        return {}

    def _erase(self, mode: str, number: int) -> Mapping[str, Any]:
        """The evidence is what is on the disks afterwards, read back."""
        machine = self._machine
        spared = int(machine.chance(What.WORK, number, "disk") * len(machine.disks)) if self._is_broken(number) else -1
        machine.disks = tuple(content if disk == spared else "" for disk, content in enumerate(machine.disks))
        machine.seed = ""
        return {
            "clean_result": [
                {
                    "device": disk.name,
                    "serial": disk.serial,
                    "sizeBytes": disk.size,
                    "method": "Failed" if content else ERASE_METHOD[mode],
                    "verified": not content,
                    "message": "The simulated disk was read back and still holds data." if content else None,
                    "samples": 0 if content else 64,
                }
                for disk, content in zip(hardware.disks(machine.mac, len(machine.disks)), machine.disks, strict=True)
            ]
        }

    def _open_rescue(self) -> Mapping[str, Any]:
        return {"clean_result": {"user": "rescue", "hostKeys": [host_key_of(f"rescue of {self._machine.mac}")]}}


class SimulatedAgent:
    """`agent.client.Agent` for what runs on a simulated machine now; commands need that boot's token."""

    __slots__ = ("_machine", "_token")

    def __init__(self, machine: Machine, token: str) -> None:
        self._machine = machine
        self._token = token

    async def commands(self) -> tuple[Command, ...]:
        """Every command since the agent started, the latest last."""
        return self._ramdisk().commands

    async def start(self, name: str, params: Mapping[str, Any]) -> Command:
        """Set a command going."""
        return self._ramdisk().start(name, params)

    async def run(self, name: str, params: Mapping[str, Any], limit: float) -> Command:
        """Carry a short command out."""
        del limit
        return self._ramdisk().start(name, params)

    def _ramdisk(self) -> RunningRamdisk:
        running = self._machine.running
        if not isinstance(running, RunningRamdisk):
            raise AgentError(AgentFault.UNREACHABLE, f"The simulated agent at {self._machine.address} isn't there.")
        if not running.token or running.token != self._token:
            raise AgentError(AgentFault.REJECTED, "The simulated agent doesn't accept the token of this boot.")
        return running


async def inspected(machine: Machine) -> None:
    """Inspect a machine and report it until the report is taken, or refused for good."""
    seconds = machine.duration(machine.behaviour.inspect, What.INSPECT, machine.happens(What.INSPECT))
    if seconds > 0:
        await asyncio.sleep(seconds)
    body = json.dumps(hardware.report(machine.mac, machine.mac, len(machine.disks), machine.address)).encode()

    def read() -> Coroutine[Any, Any, bytes]:
        return _now(body)

    while True:
        try:
            await machine.network.agents.take_inspection(machine.address, read)
        except Refusal as refusal:
            if refusal.status_code != HTTPStatus.CONFLICT and refusal.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                return
            await asyncio.sleep(REPEAT_SECONDS)
        else:
            return


async def _now(body: bytes) -> bytes:
    return body


def _command(number: int, name: str, status: CommandStatus, result: Mapping[str, Any] | None = None) -> Command:
    return Command(id=str(number), name=name.rpartition(".")[2], status=status, result=result or {})


def _called(drive: str) -> str:
    """The URL in a config drive that the system is to call."""
    image = gzip.decompress(base64.b64decode(drive))
    found = _CALLS.match(image, image.find(_CALL))
    return found[1].decode() if found is not None else ""
