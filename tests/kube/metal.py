"""The metal side of a rack, scripted at the wire: BMCs, firmware, the ramdisk's agent and the installed system.

A machine is switched on through its BMC's Redfish service. Then it does over the network what real ones do: it asks
for its boot script as iPXE does, and if that is the ramdisk, it inspects itself, looks up who it is, beats and takes
commands over HTTPS as ironic-python-agent does; or it starts from its disk, and if a system was written there, that
phones home. Tests let it halt at a place on this way, give it flaws, and ask afterwards what happened.

Every machine has an address of its own in 127.0.0.0/8. All of them live in one thread beside the test's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import gzip
import hashlib
import io
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pycdlib
import yaml
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.kube.promises import Message, Told
from tests.kube.witness import Witness
from tests.unit.agent.world import identity
from tests.unit.power.scripted_bmc import PASSWORD, ROOT, USERNAME, ScriptedBmc, System
from tests.unit.power.scripted_webhook import KEY, ScriptedWebhook

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

IPXE = "asks for its boot script"
INSPECTION = "reports its hardware"
LOOKUP = "looks up who it is"
WRITING = "writes an image"
REFUSING = "takes no command"
ERASING = "erases its disks"
RESCUING = "opens the rescue environment"
FIRST_BOOT = "phones home"
BOOTED = "runs its system"
NO_SYSTEM = "has nothing to boot"
LOCKED = "locked itself down"
INTRODUCTION = "introduces itself"
SWITCHED_OFF = "switches itself off"
RESTARTED = "restarts itself"

CALLS = {
    "Pxe": Told.BOOT_NETWORK,
    "Hdd": Told.BOOT_DISK,
    "On": Told.SWITCH_ON,
    "PowerOn": Told.SWITCH_ON,
    "GracefulShutdown": Told.SWITCH_OFF,
    "ForceOff": Told.SWITCH_OFF,
    "PowerOff": Told.SWITCH_OFF,
    "Network": Told.BOOT_NETWORK,
    "Disk": Told.BOOT_DISK,
}
"""What a BMC's or a power webhook's words mean."""

COMMANDS = {
    "standby.sync": Told.LEAVE,
    "standby.power_off": Told.LEAVE,
    "deploy.get_deploy_steps": Told.NODE,
    "standby.prepare_image": Told.WRITE,
    "erase_disks": Told.ERASE,
    "open_rescue": Told.OPEN_RESCUE,
}
"""What an agent's commands and clean steps mean."""

BEAT_SECONDS = 1.0
IPXE_SECONDS = 2.0
AGAIN_SECONDS = 0.2
"""Between tries of whatever isn't answered."""
STRANGE_TOKEN = "made-up-0123456789"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def reset(kind: str) -> str:
    """The place where the BMC was told a reset and has not carried it out."""
    return f"is told {kind}"


class Flaw(Enum):
    """How a machine misbehaves until it is mended."""

    SAYS_ON = "its BMC says that it is on, whatever is so"
    STAYS_DARK = "its BMC says that it is on once it was told to, and it stays dark"
    BOOTS_DISK = "boots its disk, whatever the BMC was told"
    BOOTS_NETWORK = "boots the network, whatever the BMC was told"
    GARBLED_REPORT = "its agent's report holds no hardware"
    WRONG_TOKEN = "its agent beats with a token that nobody gave it"
    MUTE = "its agent beats no more"
    MOVED = "its agent names another address than before"
    BUSY = "its agent takes no command"
    GARBAGE = "its agent answers what isn't JSON"


class PoorErase(Enum):
    """What an erase does about the last of a machine's disks."""

    LEAVES_DATA = "it is overwritten, and the read-back finds data"
    REFUSED = "it can't be overwritten"
    UNSEEN = "it isn't there"


@dataclass
class Installed:
    """A system on a disk."""

    seed: Mapping[str, Any] = field(repr=False)
    host_key: str = ""
    reported: bool = False

    @property
    def hostname(self) -> str:
        """Its name, by its seed."""
        return str(self.seed["meta-data"]["local-hostname"])

    @property
    def phone_home(self) -> tuple[str, str]:
        """Where it reports, and the form that it posts there."""
        form = {"pub_key_ed25519": f"{self.host_key} root@host\n", "pub_key_rsa": "N/A", "fqdn": self.hostname}
        return str(self.seed["vendor-data"]["phone_home"]["url"]), urlencode(form)


class Chassis(ScriptedBmc):
    """A BMC whose machine notices that it is switched."""

    def __init__(self, machine: ScriptedMachine) -> None:
        super().__init__(one=System())
        self._machine = machine

    @web.middleware
    async def _every(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        witness = self._machine.witness
        if witness is None:
            return await self._taken(request, handler)
        await request.read()  # what has arrived counts, also if who sent it is gone by the time that it is carried out
        what = f"{request.method} {request.path}"
        if request.path.endswith("ComputerSystem.Reset"):
            what = f"Reset {(await request.json())['ResetType']}"
        with witness.sees(self._machine.number, request, what) as exchange:
            response = await self._taken(request, handler)
            exchange.status = response.status
            return response

    async def _taken(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "PATCH":
            device = (await request.json()).get("Boot", {}).get("BootSourceOverrideTarget")
            if device is not None:
                await self._machine.told_by(self._machine.bmc_port, device)
        elif request.path.endswith("Reset"):
            await self._machine.told_by(self._machine.bmc_port, (await request.json())["ResetType"])
        return await super()._every(request, handler)

    async def _switch(self, system: System, kind: str) -> None:
        before = system.power
        await super()._switch(system, kind)
        on = system.power == "On"
        if system.power != before and not (on and Flaw.STAYS_DARK in self._machine.flaws):
            await self._machine.switched(on=on)

    def _description(self, name: str) -> dict[str, Any]:
        claim = {"PowerState": "On"} if Flaw.SAYS_ON in self._machine.flaws else {}
        return super()._description(name) | claim


class Outlet(ScriptedWebhook):
    """A socket of a PDU that a machine is plugged into, behind the power webhook: it has power, and no more."""

    def __init__(self, machine: ScriptedMachine) -> None:
        self._machine = machine
        super().__init__()
        self.lacks = {"PowerOff", "SetBoot"}
        self.port = 0

    @property
    def power(self) -> Any:
        """The machine's."""
        return self._machine.bmc.systems["one"].power

    @power.setter
    def power(self, to: Any) -> None:
        self._machine.bmc.systems["one"].power = to

    async def _every(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if asked["action"] != "PowerState":
            await self._machine.told_by(self.port, asked["boot"]["target"] if "boot" in asked else asked["action"])
        return await super()._every(request)

    async def _switch(self, to: str) -> None:
        if to != self.power:
            await super()._switch(to)
            await self._machine.switched(on=to == "On")


class ScriptedMachine:
    """One machine. What is public may be used from the test's thread."""

    def __init__(self, metal: Metal, number: int, disks_gib: Mapping[str, int], *, tls: bool) -> None:
        self.number = number
        self.mac = f"52:54:00:00:{number // 256:02x}:{number % 256:02x}"
        self.macs = [self.mac]
        """Of its network cards."""
        self.serial = f"SN{number:04}"
        self.bmc_seen_inside: str | None = None
        """The BMC's address, as the ramdisk sees it."""
        self.address = f"127.0.{2 + number // 200}.{1 + number % 200}"
        self.disks_gib = dict(disks_gib)
        self.bmc = Chassis(self)
        self.bmc.fail("POST", "ComputerSystem.Reset", self._told)
        self.bmc_port = 0
        self.flaws: set[Flaw] = set()
        self.system: Installed | None = None
        self.journal: list[str] = []
        """The places that it came to, in order."""
        self.images_written: list[str] = []
        """Checksums of the images that were written to the end."""
        self.command_errors: list[Mapping[str, Any]] = []
        """How the next writes or erases fail, as IPA reports it."""
        self.poor_erases: list[PoorErase] = []
        """How the next erases that end well end nevertheless."""
        self.uid = ""
        self.tokens: list[str] = []
        """Those that its agents were given, one a boot."""
        self.witness: Witness | None = None
        """Who takes note of what operators ask of it."""
        self._scheme = "redfish+https" if tls else "redfish+http"
        self._metal = metal
        self._halts: set[str] = set()
        self._ending: asyncio.Task[None] | None = None
        self._life: asyncio.Task[None] | None = None
        self._boots_from = self.mac

    @property
    def bmc_address(self) -> str:
        """For `spec.bmc.address`."""
        return f"{self._scheme}://127.0.0.1:{self.bmc_port}{ROOT}Systems/one"

    @property
    def told(self) -> list[str]:
        """Every reset that the BMC was given."""
        return [change.rpartition(" ")[2] for change in self.bmc.changes if change.startswith("Reset")]

    @property
    def on(self) -> bool:
        """Whether it is on."""
        return self.bmc.systems["one"].power == "On"

    def halt_at(self, *places: str) -> None:
        """Stay at these places until `go_on`."""
        self._halts |= set(places)

    def go_on(self, *places: str) -> None:
        """Don't stay there any longer; without places, nowhere."""
        self._halts -= set(places) or set(self._halts)
        self._metal.stir()

    def arrived(self, place: str, times: int = 1, seconds: float = 60.0) -> None:
        """Wait until it has come to this place so many times."""
        with self._metal.moved:
            came = self._metal.moved.wait_for(lambda: self.journal.count(place) >= times, seconds)
        assert came, f"machine {self.number} has not come to {place!r} {times} times: {self.journal}"

    def press_power(self, card: str | None = None) -> None:
        """Switch it on by hand: it boots from the network, by this card."""
        self._boots_from = card or self.mac
        self._metal.do(self._pressed(on=True))

    def hold_power(self) -> None:
        """Switch it off by hand."""
        self._metal.do(self._pressed(on=False))

    def mend(self) -> None:
        """Let it do again what it is told, and stay nowhere."""
        self.flaws.clear()
        del self.bmc.faults[1:]  # the first one only takes note
        system = self.bmc.systems["one"]
        system.forgets_boot = False
        system.ignored_resets.clear()
        self.go_on()

    def another_agent_beats(self, token: str, address: str) -> int:
        """What the operator answers an agent that beats for this machine with this token, from another address."""
        beat = {
            "callback_url": f"https://{address}:9999",
            "agent_verify_ca": identity(address=address).certificate,
            "agent_token": token,
            "agent_version": "13.0.0",
        }
        url = f"{self._metal.base_url}/v1/heartbeat/{self.uid}"
        return self._metal.do(posted_from(address, url, json=beat))

    def calls_again(self, system: Installed) -> int:
        """What the operator answers a system that was installed on it when that phones home once more."""
        url, form = system.phone_home
        return self._metal.do(posted_from(self.address, url, data=form, headers=FORM))

    async def told_by(self, port: int, what: str) -> None:
        """Its BMC, or whoever else switches it, is told something there."""
        self._metal.note(Message(CALLS[what], await self._metal.revision(), port=port))

    # --- power ---------------------------------------------------------------------------------------------------

    async def power_itself_off(self) -> None:
        """The system in it switches it off."""
        self.bmc.systems["one"].power = "Off"
        self._ending = asyncio.create_task(self.end())

    async def _pressed(self, *, on: bool) -> None:
        firmware = self.bmc.systems["one"]
        firmware.power = "On" if on else "Off"
        firmware.target, firmware.enabled = "None", "Disabled"
        await self.switched(on=on)

    async def switched(self, *, on: bool) -> None:
        """The power has changed."""
        await self.end()
        if on:
            self._life = asyncio.create_task(self._start())

    async def end(self) -> None:
        """Whatever runs on it stops at once."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
            self._life = None

    async def _told(self, request: web.Request) -> None:
        await self._at(reset((await request.json())["ResetType"]))

    async def _at(self, place: str) -> None:
        with self._metal.moved:
            self.journal.append(place)
            self._metal.moved.notify_all()
        while place in self._halts:
            await self._metal.stirred.wait()

    # --- firmware and iPXE ---------------------------------------------------------------------------------------

    async def _start(self) -> None:
        firmware = self.bmc.systems["one"]
        while await self._boot(firmware):
            await self._at(RESTARTED)

    async def _boot(self, firmware: System) -> bool:
        """Boot once, and run; whether it then restarts."""
        target = firmware.target
        if Flaw.BOOTS_DISK in self.flaws or Flaw.BOOTS_NETWORK in self.flaws:
            target = "Hdd" if Flaw.BOOTS_DISK in self.flaws else "Pxe"
        if firmware.enabled == "Once":
            firmware.target, firmware.enabled = "None", "Disabled"
            self._boots_from = self.mac
        connector = aiohttp.TCPConnector(local_addr=(self.address, 0), force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=40)) as http:
            kernel = None if target == "Hdd" else await self._ipxe(http)
            if kernel is None:
                await self._boot_disk(http)
                return False
            ramdisk = Ramdisk(self, self._metal, http, kernel, self._at)
            if "rackwright.enlist" not in kernel:
                await ramdisk.run()
                return False
            if not await ramdisk.introduce():
                return True
        firmware.power = "Off"
        await self._at(SWITCHED_OFF)
        return False

    async def _ipxe(self, http: aiohttp.ClientSession) -> Mapping[str, str] | None:
        """The kernel's arguments if it is to load the ramdisk; None for its disk."""
        url = f"{self._metal.base_url}/boot/ipxe?mac={self._boots_from.replace(':', '-')}"
        while True:
            await self._at(IPXE)
            script = await answered(http, url)
            if (kernel := re.search(r"^kernel --name \S+ (\S+) (.*) \|\| goto again$", script, re.MULTILINE)) is None:
                following = re.search(r"^chain --replace (\S+)", script, re.MULTILINE)
                if following is None:
                    return None
                url = following[1]
                await asyncio.sleep(IPXE_SECONDS)
                continue
            initrd = re.search(r"^initrd --name \S+ (\S+)", script, re.MULTILINE)
            assert initrd is not None, script
            for file in (kernel[1], initrd[1]):
                await answered(http, file)
            return dict(argument.partition("=")[::2] for argument in kernel[2].split())

    # --- the installed system ------------------------------------------------------------------------------------

    async def _boot_disk(self, http: aiohttp.ClientSession) -> None:
        system = self.system
        if system is None:
            await self._at(NO_SYSTEM)
            return
        if not system.reported:
            await self._at(FIRST_BOOT)
            url, form = system.phone_home
            await posted_until(lambda status: status < 400, http, url, data=form, headers=FORM)
            system.reported = True
        await self._at(BOOTED)


class Ramdisk:
    """A ramdisk on a machine, with its agent."""

    def __init__(
        self,
        machine: ScriptedMachine,
        metal: Metal,
        http: aiohttp.ClientSession,
        kernel: Mapping[str, str],
        at: Any,
    ) -> None:
        self._machine = machine
        self._metal = metal
        self._http = http
        self._api = kernel.get("ipa-api-url")
        self._bootif = kernel["BOOTIF"]
        self._inspection = kernel.get("ipa-inspection-callback-url")
        self._at = at
        self._token = ""
        self._uid = ""
        self._commands: list[dict[str, Any]] = []
        self._beat = asyncio.Event()
        self._work: set[asyncio.Task[None]] = set()

    async def introduce(self) -> bool:
        """Report as a machine does that nobody knows, and take no command; whether it was thanked."""
        await self._at(INTRODUCTION)
        assert self._inspection is not None
        assert self._api is None, "it is told of no API to look itself up"
        report = self._report()
        status = await posted_until(lambda status: status < 500, self._http, self._inspection, json=report)
        return status == 202

    async def run(self) -> None:
        """From its start until the power goes."""
        if self._inspection is not None:
            await self._at(INSPECTION)
            report = self._report()
            status = await posted_until(lambda status: status < 500, self._http, self._inspection, json=report)
            if status != 202:  # IPA ends then, and nobody starts it again
                await self._at(LOCKED)
                return
        await self._look_up()
        if self._token == "******":
            await self._at(LOCKED)
            return
        self._metal.secrets.add(self._token)
        self._machine.uid = self._uid
        self._machine.tokens.append(self._token)
        revision = await self._metal.revision()
        self._metal.note(Message(Told.TOKEN, revision, uid=self._uid, proof=self._token))
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/commands/", self._list)
        app.router.add_post("/v1/commands/", self._command)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await runner.setup()
        try:
            shown = identity(address=self._machine.address)
            site = web.TCPSite(runner, self._machine.address, 0, ssl_context=self._metal.tls(self._machine.address))
            await site.start()
            url = f"https://{self._machine.address}:{runner.addresses[0][1]}"
            await self._keep_beating({"callback_url": url, "agent_verify_ca": shown.certificate})
        finally:
            for task in self._work:
                task.cancel()
            await runner.cleanup()

    async def _look_up(self) -> None:
        await answered(self._http, f"{self._api}/")
        url = f"{self._api}/v1/lookup?addresses={self._machine.mac}"
        while not self._uid:
            await self._at(LOOKUP)
            with contextlib.suppress(aiohttp.ClientError):
                async with self._http.get(url) as response:
                    if response.status == 200:
                        said = await response.json()
                        self._uid, self._token = said["node"]["uuid"], said["config"]["agent_token"]
                        return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _keep_beating(self, about: Mapping[str, str]) -> None:
        flaws = self._machine.flaws
        while True:
            self._beat.clear()
            beat = {**about, "agent_token": self._token, "agent_version": "13.0.0"}
            if Flaw.WRONG_TOKEN in flaws:
                beat["agent_token"] = STRANGE_TOKEN
            if Flaw.MOVED in flaws:
                beat["callback_url"] = f"https://{self._machine.address}:9999"
            if Flaw.MUTE not in flaws:
                await posted(self._http, f"{self._api}/v1/heartbeat/{self._uid}", json=beat)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._beat.wait()

    # --- commands ------------------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.Response:
        self._require_token(request)
        if Flaw.GARBAGE in self._machine.flaws:
            return web.Response(text="<html>It works!</html>", content_type="text/html")
        return web.json_response({"commands": self._commands})

    async def _command(self, request: web.Request) -> web.Response:
        witness = self._machine.witness
        if witness is None:
            return await self._take(request)
        with witness.sees(self._machine.number, request, f"agent {(await request.json())['name']}") as exchange:
            response = await self._take(request)
            exchange.status = response.status
            return response

    async def _take(self, request: web.Request) -> web.Response:
        self._require_token(request)
        asked = await request.json()
        await self._note(asked, request.query.get("agent_token", ""))
        if Flaw.BUSY in self._machine.flaws:
            await self._at(REFUSING)
        if Flaw.BUSY in self._machine.flaws or any(c["command_status"] == "RUNNING" for c in self._commands):
            return web.json_response({"faultstring": "Agent is busy: executing a command"}, status=409)
        command: dict[str, Any] = {
            "id": f"c-{len(self._commands)}",
            "command_name": asked["name"].rpartition(".")[2],
            "command_params": asked["params"],
            "command_status": "RUNNING",
            "command_error": None,
            "command_result": None,
        }
        self._commands.append(command)
        match asked["name"]:
            case "standby.sync":
                command |= {"command_status": "SUCCEEDED", "command_result": {"result": "sync: None"}}
            case "standby.power_off":
                command |= {"command_status": "SUCCEEDED", "command_result": {"result": "power_off: None"}}
                await self._machine.power_itself_off()
            case "deploy.get_deploy_steps":
                command |= {"command_status": "SUCCEEDED", "command_result": {"deploy_steps": {}}}
            case "standby.prepare_image":
                self._go(command, self._write(asked["params"]))
            case "clean.execute_clean_step" if asked["params"]["step"]["step"] == "erase_disks":
                self._go(command, self._erase(asked["params"]["step"]))
            case "clean.execute_clean_step" if asked["params"]["step"]["step"] == "open_rescue":
                self._go(command, self._open_rescue())
            case name:
                error = {"type": "InvalidCommandError", "code": 400, "message": "Invalid command", "details": name}
                command |= {"command_status": "FAILED", "command_error": error}
        return web.json_response(command)

    async def _note(self, asked: Mapping[str, Any], proof: str) -> None:
        params = asked["params"]
        told = COMMANDS[params["step"]["step"] if "step" in params else asked["name"]]
        seed = first_boot_token(read_seed(params["configdrive"])) if told is Told.WRITE else ""
        revision = await self._metal.revision()
        self._metal.note(Message(told, revision, uid=self._uid, proof=proof, seed=seed))

    def _require_token(self, request: web.Request) -> None:
        if request.query.get("agent_token") != self._token:
            raise web.HTTPUnauthorized(text='{"faultstring": "Token invalid."}', content_type="application/json")

    def _go(self, command: dict[str, Any], work: Coroutine[Any, Any, Mapping[str, Any]]) -> None:
        async def carry_out() -> None:
            command.update(await work)
            self._beat.set()  # as IPA does when an asynchronous command ends

        task = asyncio.create_task(carry_out())
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _write(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        machine, info = self._machine, params["image_info"]
        machine.system = None  # from the first byte on, what was there is no more
        await self._at(WRITING)
        if machine.command_errors:
            return {"command_status": "FAILED", "command_error": machine.command_errors.pop(0)}
        seed = read_seed(params["configdrive"])
        self._metal.secrets.add(first_boot_token(seed))
        machine.system = Installed(seed, new_host_key())
        machine.images_written.append(f"{info['os_hash_algo']}:{info['os_hash_value']}")
        result = f"prepare_image: image ({info['id']}) written to device /dev/sda root_uuid=None"
        return {"command_status": "SUCCEEDED", "command_result": {"result": result}}

    async def _erase(self, step: Mapping[str, Any]) -> Mapping[str, Any]:
        await self._at(ERASING)
        machine = self._machine
        if machine.command_errors:
            return {"command_status": "FAILED", "command_error": machine.command_errors.pop(0)}
        machine.system = None
        evidence = [
            {
                "device": disk["name"],
                "serial": disk["serial"],
                "wwn": None,
                "sizeBytes": disk["size"],
                "method": "Overwrite",
                "verified": True,
                "samples": 64,
                "message": "64 of 64 samples read back as zeros",
            }
            for disk in self._disks()
        ]
        match machine.poor_erases.pop(0) if machine.poor_erases else None:
            case PoorErase.LEAVES_DATA:
                evidence[-1] |= {"verified": False, "message": "63 of 64 samples read back as zeros"}
            case PoorErase.REFUSED:
                evidence[-1] |= {"method": "Failed", "verified": False, "samples": 0, "message": "input/output error"}
            case PoorErase.UNSEEN:
                evidence.pop()
        return {"command_status": "SUCCEEDED", "command_result": {"clean_result": evidence, "clean_step": dict(step)}}

    async def _open_rescue(self) -> Mapping[str, Any]:
        await self._at(RESCUING)
        opened = {"user": "rescue", "hostKeys": [new_host_key()]}
        return {"command_status": "SUCCEEDED", "command_result": {"clean_result": opened}}

    # --- what it finds -------------------------------------------------------------------------------------------

    def _disks(self) -> list[dict[str, Any]]:
        return [
            {
                "name": f"/dev/sd{chr(ord('a') + position)}",
                "model": "SCRIPTED DISK",
                "size": gib * 2**30,
                "rotational": False,
                "wwn": None,
                "serial": serial,
                "vendor": "Contoso",
                "by_path": f"/dev/disk/by-path/pci-0000:00:04.0-scsi-0:0:{position}:0",
            }
            for position, (serial, gib) in enumerate(self._machine.disks_gib.items())
        ]

    def _report(self) -> dict[str, Any]:
        """As IPA 13 posts it."""
        machine = self._machine
        card = {
            "ipv4_address": machine.address,
            "ipv6_address": "fe80::5054:ff:fe00:7%enp1s0",
            "has_carrier": True,
            "lldp": None,
            "vendor": "0x1af4",
            "product": "0x0001",
            "speed_mbps": 10000,
            "pci_address": "0000:01:00.0",
            "driver": "virtio_net",
        }
        cards = [{**card, "name": f"enp{n}s0", "mac_address": mac} for n, mac in enumerate(machine.macs, start=1)]
        cpu = {
            "model_name": "Scripted CPU",
            "frequency": "",
            "count": 8,
            "architecture": "x86_64",
            "flags": ["fpu", "lm"],
            "socket_count": 1,
        }
        inventory = {
            "interfaces": cards,
            "cpu": cpu,
            "disks": self._disks(),
            "memory": {"total": 16 * 2**30 - 2**25, "physical_mb": 16384},
            "bmc_address": machine.bmc_seen_inside,
            "bmc_v6address": None,
            "system_vendor": {
                "product_name": "R1",
                "serial_number": machine.serial,
                "manufacturer": "Contoso",
                "firmware": {"vendor": "EDK II", "version": "2023.05", "build_date": "05/01/2023"},
            },
            "boot": {"current_boot_mode": "uefi", "pxe_interface": self._bootif},
            "hostname": "ramdisk",
        }
        return {
            "inventory": "none" if Flaw.GARBLED_REPORT in machine.flaws else inventory,
            "root_disk": None,
            "boot_interface": self._bootif,
            "configuration": {"collectors": ["default", "logs"], "managers": []},
            "logs": base64.b64encode(b"journal").decode(),
            "error": None,
        }


class Metal:
    """Every scripted machine, and the thread that they live in."""

    def __init__(self, folder: Path) -> None:
        self.base_url = ""
        """Where iPXE finds the operator."""
        self.moved = threading.Condition()
        self.secrets: set[str] = {PASSWORD, KEY, STRANGE_TOKEN}
        """Whatever must be seen nowhere."""
        self.revision: Callable[[], Awaitable[int]] = _unordered
        """Tells how far the API server's store is."""
        self._told: list[Message] = []
        self._folder = folder
        self._machines: list[ScriptedMachine] = []
        self._outlets: list[Outlet] = []
        self._making = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="metal")
        self.stirred = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            for machine in self._machines:
                self.do(machine.end())
                self.do(machine.bmc.stop())
            for outlet in self._outlets:
                self.do(outlet.stop())
        finally:
            self.do(_all_else_ended())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run this in the machines' thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def machine(
        self, *, disks_gib: Mapping[str, int] | None = None, tls: ssl.SSLContext | None = None
    ) -> ScriptedMachine:
        """A new machine, off; disks by serial number; its BMC speaks HTTPS if it is given the server's side of it."""
        with self._making:
            number = len(self._machines) + 1
            machine = ScriptedMachine(self, number, disks_gib or {f"DISK{number:04}": 16}, tls=tls is not None)
            self._machines.append(machine)
        machine.bmc_port = self.do(machine.bmc.start(tls))
        return machine

    def outlet(self, machine: ScriptedMachine) -> tuple[Outlet, str]:
        """A socket that this machine is plugged into, and its address for `spec.bmc`."""
        outlet = Outlet(machine)
        self._outlets.append(outlet)
        outlet.port = self.do(outlet.start())
        return outlet, f"webhook+http://127.0.0.1:{outlet.port}/outlets/{machine.number}"

    def listen(self, machine: ScriptedMachine, *, on: bool = True) -> None:
        """Let its BMC answer, or refuse connections."""
        self.do(machine.bmc.start(port=machine.bmc_port) if on else machine.bmc.stop())

    def note(self, message: Message) -> None:
        """A machine was told this."""
        self._told.append(message)

    @property
    def told(self) -> list[Message]:
        """Whatever machines were told, in order."""
        return list(self._told)

    @property
    def disks(self) -> dict[str, list[str]]:
        """Each machine's disks, by its network card."""
        return {machine.mac: list(machine.disks_gib) for machine in self._machines}

    def stir(self) -> None:
        """Have whoever halts look whether it may go on."""

        def wake() -> None:
            self.stirred.set()
            self.stirred = asyncio.Event()

        self._loop.call_soon_threadsafe(wake)

    def shown_secrets(self, text: str) -> list[str]:
        """The secrets that a text holds, plain or as base64."""
        bmc_tokens = {token for machine in self._machines for token in machine.bmc.tokens}
        spellings = {s for secret in self.secrets | bmc_tokens for s in (secret, base64_of(secret))}
        return sorted(spelling for spelling in spellings if spelling in text)

    def tls(self, address: str) -> ssl.SSLContext:
        """The server's side of the certificate that an agent at this address makes itself."""
        mine = identity(address=address)
        file = self._folder / f"{hashlib.sha256(mine.certificate.encode()).hexdigest()[:16]}.pem"
        file.write_text(mine.certificate + mine.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def credentials() -> dict[str, str]:
    """The data of a Secret that the BMCs accept."""
    return {"username": base64_of(USERNAME), "password": base64_of(PASSWORD)}


def base64_of(text: str) -> str:
    """Of UTF-8."""
    return base64.b64encode(text.encode()).decode()


async def answered(http: aiohttp.ClientSession, url: str) -> str:
    """What is at a URL, asked for until it is there."""
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with http.get(url) as response:
                if response.status == 200:
                    return await response.text()
        await asyncio.sleep(AGAIN_SECONDS)


async def posted(http: aiohttp.ClientSession, url: str, **body: Any) -> int:
    """The status that a post is answered with; 599 if nobody answers."""
    try:
        async with http.post(url, **body) as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError):
        return 599


async def posted_from(address: str, url: str, **body: Any) -> int:
    """The status that one post from this address is answered with."""
    connector = aiohttp.TCPConnector(local_addr=(address, 0), force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http:
        return await posted(http, url, **body)


async def posted_until(good: Callable[[int], bool], http: aiohttp.ClientSession, url: str, **body: Any) -> int:
    """Post until the answer's status is good; that status."""
    while True:
        if good(status := await posted(http, url, **body)):
            return status
        await asyncio.sleep(AGAIN_SECONDS)


def read_seed(config_drive: str) -> dict[str, Any]:
    """The files of a cloud-init seed, read as cloud-init does; user data as text."""
    try:
        image = gzip.decompress(base64.b64decode(config_drive, validate=True))
    except (binascii.Error, gzip.BadGzipFile) as error:
        raise AssertionError("the config drive is no base64 of gzip") from error
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    files: dict[str, Any] = {}
    for name in ("meta-data", "network-config", "vendor-data", "user-data"):
        content = io.BytesIO()
        iso.get_file_from_iso_fp(content, rr_path=f"/{name}")
        text = content.getvalue().decode()
        files[name] = text if name == "user-data" else yaml.safe_load(text)
    iso.close()
    return files


def first_boot_token(seed: Mapping[str, Any]) -> str:
    """What the system with this seed proves itself with when it phones home."""
    (token,) = parse_qs(urlsplit(str(seed["vendor-data"]["phone_home"]["url"])).query)["token"]
    return token


async def _all_else_ended() -> None:
    """End whatever still goes on in this loop, as `asyncio.run` does, and with it the connections that it holds."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _unordered() -> int:
    """Without an API server nothing has an order."""
    return 0


def new_host_key() -> str:
    """An SSH host key as ssh-keygen makes one; the public half."""
    public = Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
