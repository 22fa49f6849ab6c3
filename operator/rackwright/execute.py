"""Carries out what was decided. Nothing is chosen here: each action is one thing, and may be repeated after a crash.

What goes wrong is returned as a fault for the life-cycle to decide upon, never swallowed and never retried here.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_never

from rackwright.agent.client import AgentError, AgentFault, CommandStatus
from rackwright.agent.sessions import Session, Sessions
from rackwright.agent.tokens import Tokens
from rackwright.api import FINALIZER, GROUP, INSTALLED_ANNOTATION, RECORD_ANNOTATION, VERSION
from rackwright.api.inventory import HardwareInventoryReport
from rackwright.api.machine import BootMode, Deployment, Installed, Operation
from rackwright.bmcs import BMCs
from rackwright.install import erase, rescue
from rackwright.install.faults import Doing, explain
from rackwright.install.image import PREPARE_IMAGE, RootDisk, image_info, root_device
from rackwright.install.phone_home import PATH as PHONE_HOME_PATH
from rackwright.install.seed import Seed, config_drive
from rackwright.install.sentences import names_secret
from rackwright.install.steps import EXECUTE_CLEAN_STEP, JSON, TELL_NODE, node
from rackwright.inventory import report
from rackwright.kube import Cluster, Gone
from rackwright.lifecycle import steps
from rackwright.lifecycle.by_hand import moved_by_hand
from rackwright.lifecycle.steps import Action, Stage
from rackwright.lifecycle.world import Blame, Fault
from rackwright.logs import Line
from rackwright.observe import KeptInventory, Observer
from rackwright.power.port import BootTarget, PowerDriver, PowerError, PowerState
from rackwright.power.settle import wait_for
from rackwright.record import Machine
from rackwright.secrets import Obstructed

MACHINES = "baremetalmachines"
INVENTORIES = "hardwareinventories"
ERASE_SETTINGS: Mapping[str, JSON] = {
    # One pass of zeros where a disk has no erase of its own: more passes take as long again and add nothing on disks
    # of this century (NIST SP 800-88, Clear), and zeros are what the read-back looks for.
    "agent_erase_devices_iterations": 0,
    "agent_erase_devices_zeroize": True,
    "disk_erasure_concurrency": 16,
}
"""How the agent's own erase methods are to work."""
SYNC_SECONDS = 60.0
"""How long the ramdisk may take to write out what it has buffered."""
TELL_SECONDS = 60.0
"""How long the agent may take to hear which disk to write to: it asks each of its hardware managers for steps."""
UNRECORDED_SECONDS = 5.0
"""A system that shuts down within this costs no write; one that takes longer is asked twice if we vanish before."""
SECOND_THOUGHT_SECONDS = 15.0
"""How often it is decided anew whether the power is to go: whoever asked for it may have taken that back meanwhile."""
LOOKS = 12
"""How often the power is looked at while a system shuts down: a thousand may do so at once."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """The operator's settings that actions need."""

    base_url: str
    """Where machines reach the operator."""
    grace: float = 60.0
    """Seconds that an installed system gets to shut down before its power is cut."""


@dataclass(frozen=True, slots=True)
class NotNow:
    """The agent takes no command now, or may have taken this one: what is observed later will tell."""


@dataclass(frozen=True, slots=True)
class AskedToShutDown:
    """The system was asked, and takes its time: when it was is recorded, so that nobody counts that time anew."""

    at: datetime


class Executor:
    """Carries out actions on machines."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        bmcs: BMCs,
        sessions: Sessions,
        tokens: Tokens,
        observer: Observer,
        means: Means,
    ) -> None:
        self._cluster = cluster
        self._bmcs = bmcs
        self._sessions = sessions
        self._tokens = tokens
        self._observer = observer
        self._means = means

    async def carry_out(
        self, action: Action, machine: Machine
    ) -> Fault | NotNow | AskedToShutDown | Mapping[str, Any] | None:
        """Do it. A fault if it failed; the machine's new record if it changed that; None if it is done otherwise.

        Raises:
            ClusterError: the API server didn't do its part; the action may be repeated.
        """
        try:
            try:
                return await self._act(action, machine)
            except PowerError as error:
                if not await self._bmcs.renewed(machine, error):
                    raise
            return await self._act(action, machine)
        except Obstructed as error:
            return error.fault
        except PowerError as error:
            return self._bmcs.failed(machine, error)
        except AgentError as error:
            if error.fault in (AgentFault.BUSY, AgentFault.UNREACHABLE):
                return NotNow()
            return Fault(Blame.AGENT, f"Agent{error.fault.value}", error.message)

    async def _act(self, action: Action, machine: Machine) -> AskedToShutDown | NotNow | Mapping[str, Any] | None:
        match action:
            case steps.PowerOff():
                return await self._power_off(machine)
            case steps.PowerOn():
                self._bmcs.stale(machine.uid)
                await (await self._bmcs.driver(machine)).power_on()
            case steps.BootRamdisk():
                await self._boot(machine, BootTarget.NETWORK)
            case steps.BootDisk():
                await self._boot(machine, BootTarget.DISK)
            case steps.KeepInventory():
                await self._keep_inventory(machine)
            case steps.WriteImage():
                return await self._write_image(machine)
            case steps.EraseDisks():
                parameters = erase.parameters(machine.spec.release.erase, **self._clean_step(machine))
                await self._start(machine, EXECUTE_CLEAN_STEP, parameters)
            case steps.OpenRescue():
                keys = machine.spec.rescue.ssh_authorized_keys if machine.spec.rescue else []
                await self._start(machine, EXECUTE_CLEAN_STEP, rescue.parameters(keys, **self._clean_step(machine)))
            case steps.TakeHold():
                return await self._take_hold(machine)
            case steps.LetGo():
                return await self._let_go(machine)
            case steps.RecordEvidence():
                return await self._metadata(machine, {"annotations": {INSTALLED_ANNOTATION: _evidence(machine)}})
            case _:
                assert_never(action)
        return None

    # --- power ---------------------------------------------------------------------------------------------------

    async def _power_off(self, machine: Machine) -> AskedToShutDown | None:
        """A ramdisk is synced and cut, which is quick and loses nothing; an installed system is asked first."""
        self._bmcs.stale(machine.uid)
        operation, session = machine.status.operation, self._observer.session(machine)
        inspected = operation is not None and self._sessions.inspected(machine.uid, operation.id)
        shuts_down = operation is not None and operation.step == Stage.SHUT_DOWN
        in_ramdisk = session is not None or inspected or shuts_down
        grace = 0.0 if in_ramdisk else self._means.grace
        if session is not None:
            try:
                await self._observer.client(machine, session).run("standby.sync", {}, SYNC_SECONDS)
            except AgentError as error:
                _log.info(Line(f"the ramdisk was not synced before its power is cut: {error}", machine=machine.key))
        if session is not None and moved_by_hand(machine.spec):
            try:
                await self._observer.client(machine, session).run("standby.power_off", {}, SYNC_SECONDS)
            except AgentError as error:
                if error.fault is not AgentFault.UNREACHABLE:
                    raise
                _log.info(Line("the ramdisk went off before it could answer", machine=machine.key))
        driver = await self._bmcs.driver(machine)
        if grace > 0 and (asked := await self._shut_down(machine, driver, grace)) is not None:
            return asked
        await driver.power_off(grace=0)
        self._sessions.cut_off(machine.uid)
        return None

    async def _shut_down(self, machine: Machine, driver: PowerDriver, grace: float) -> AskedToShutDown | None:
        """Ask the system, once, and wait a moment; when that was recorded, for what is left of its time, bit by bit."""
        asked_at, now = machine.status.shutdown_asked_at, datetime.now(UTC)
        if asked_at is not None:
            asked_at = min(asked_at, now)  # the clock may have been set back
            left = max(grace - (now - asked_at).total_seconds(), 0.0)
            within = min(left, SECOND_THOUGHT_SECONDS)
            seen = await self._off_within(driver, within, every=min(grace / LOOKS, SECOND_THOUGHT_SECONDS))
            return AskedToShutDown(asked_at) if seen is not PowerState.OFF and left > within else None
        if not await driver.ask_to_shut_down():
            return None
        seen = await self._off_within(driver, min(grace, UNRECORDED_SECONDS), every=min(grace / LOOKS, 2.0))
        return AskedToShutDown(now) if seen is not PowerState.OFF and grace > UNRECORDED_SECONDS else None

    async def _off_within(self, driver: PowerDriver, seconds: float, *, every: float) -> PowerState:
        return await wait_for(driver.power_state, lambda seen: seen is PowerState.OFF, within=seconds, every=every)

    async def _boot(self, machine: Machine, target: BootTarget) -> None:
        self._bmcs.stale(machine.uid)
        self._sessions.cut_off(machine.uid)
        driver = await self._bmcs.driver(machine)
        await driver.set_boot(target, uefi=machine.spec.boot_mode is not BootMode.LEGACY)
        await driver.power_on()

    # --- the agent -----------------------------------------------------------------------------------------------

    async def _start(self, machine: Machine, command: str, parameters: Mapping[str, Any]) -> None:
        await self._observer.client(machine, self._session(machine)).start(command, parameters)

    def _session(self, machine: Machine) -> Session:
        session = self._observer.session(machine)
        if session is None:
            raise Obstructed(Fault(Blame.AGENT, "AgentLost", "The agent isn't there any more."))
        return session

    def _clean_step(self, machine: Machine) -> dict[str, Any]:
        macs = (machine.spec.boot_mac_address,) if machine.spec.boot_mac_address else ()
        told = node(machine.uid, driver_internal_info=ERASE_SETTINGS)
        return {"node": told, "mac_addresses": macs, "clean_version": None}

    async def _write_image(self, machine: Machine) -> NotNow | None:
        deployment, operation = machine.spec.deployment, machine.status.operation
        image = self._observer.image(deployment)
        if deployment is None or operation is None or image is None:
            raise Obstructed(Fault(Blame.CONFIGURATION, "ImageMissing", "The image that spec names does not exist."))
        seed = await self._seed(machine, deployment, operation)
        recorded = machine.status.installed or Installed()
        user_data, disk = self._observer.user_data.known(machine), await self._observer.root_disk(machine)
        chosen = disk.identity if disk is not None else None
        if (recorded.checksum, recorded.user_data, recorded.disk) != (image.checksum, user_data, chosen):
            return NotNow()  # it changed since it was recorded what is written: another pass records the new one first
        info = image_info(image, uid=machine.uid, boot_mode=machine.spec.boot_mode)
        drive = await asyncio.to_thread(config_drive, seed)
        await self._tell_node(machine, disk)
        await self._start(machine, PREPARE_IMAGE, {"image_info": info, "configdrive": drive})
        return None

    async def _tell_node(self, machine: Machine, disk: RootDisk | None) -> None:
        """Have the agent write to that disk, or where nobody knows the disks to one that the hints allow."""
        hints = disk.hints if disk is not None else root_device(machine.spec.storage.root_device_hints)
        told = node(machine.uid, root_device=hints)
        agent = self._observer.client(machine, self._session(machine))
        answer = await agent.run(TELL_NODE, {"node": told, "ports": []}, TELL_SECONDS)
        if answer.status is not CommandStatus.SUCCEEDED:
            said = {"type": answer.error_type, "details": answer.error or answer.status.value}
            raise Obstructed(explain(said, Doing.WRITE_IMAGE))

    async def _seed(self, machine: Machine, deployment: Deployment, operation: Operation) -> Seed:
        token = self._tokens.for_first_boot(machine.uid, operation.id)
        return Seed(
            instance_id=operation.id,
            hostname=deployment.hostname or machine.key.name,
            boot_mac=machine.spec.boot_mac_address or "",
            ssh_authorized_keys=tuple(deployment.ssh_authorized_keys),
            user_data=await self._observer.user_data.read(machine, deployment),
            phone_home_url=f"{self._means.base_url}{PHONE_HOME_PATH.format(uid=machine.uid)}?token={token}",
        )

    # --- the cluster ---------------------------------------------------------------------------------------------

    async def _keep_inventory(self, machine: Machine) -> None:
        operation = machine.status.operation
        body = self._sessions.inspection(machine.uid, operation.id) if operation else None
        if operation is None or body is None:
            raise Obstructed(Fault(Blame.AGENT, "InspectionLost", "The agent's report isn't there any more."))
        inspection = report.read(body, datetime.now(UTC))
        if inspection.missing or inspection.error:
            problem = inspection.error or f"it found no {', '.join(inspection.missing)}"
            _log.warning(Line(f"the inspection is incomplete: {problem}", machine=machine.key))
        attributes = await self._bios_attributes(machine)
        kept = inspection.report.model_copy(update={"bios_attributes": attributes})
        await self._cluster.apply(INVENTORIES, *machine.key, inventory_of(machine, kept))
        self._observer.kept(machine, KeptInventory(operation.id, inspection.summary, tuple(kept.disks)))

    async def _bios_attributes(self, machine: Machine) -> dict[str, str]:
        """What the BMC says of its firmware's settings; a BMC that doesn't say stops no commissioning."""
        try:
            found = await (await self._bmcs.driver(machine)).bios_attributes()
        except (PowerError, Obstructed) as error:
            _log.info(Line(f"no BIOS attributes: {error}", machine=machine.key))
            return {}
        return {name: str(value) for name, value in found.items() if value is not None and not names_secret(name)}

    async def _metadata(self, machine: Machine, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._cluster.patch_metadata(
            MACHINES, *machine.key, {**metadata, "uid": machine.uid, "resourceVersion": str(machine.version)}
        )

    async def _take_hold(self, machine: Machine) -> Mapping[str, Any]:
        annotations = {RECORD_ANNOTATION: machine.held_as or machine.uid}
        finalizers = [*machine.finalizers_of_others, FINALIZER]
        return await self._metadata(machine, {"finalizers": finalizers, "annotations": annotations})

    async def _let_go(self, machine: Machine) -> Mapping[str, Any] | None:
        if FINALIZER not in machine.finalizers:
            return None
        try:
            return await self._metadata(machine, {"finalizers": machine.finalizers_of_others})
        except Gone:
            return None


def inventory_of(machine: Machine, report: HardwareInventoryReport) -> Mapping[str, Any]:
    """The HardwareInventory of a machine, which goes with it."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "HardwareInventory",
        "metadata": {
            "name": machine.key.name,
            "namespace": machine.key.namespace,
            "ownerReferences": [_owned_by(machine)],
        },
        "report": report.model_dump(by_alias=True, mode="json", exclude_none=True),
    }


def _evidence(machine: Machine) -> str | None:
    """What the annotation is to say; None removes it."""
    installed = machine.status.installed
    if installed is None or installed.at is None:
        return None
    return json.dumps(installed.model_dump(by_alias=True, mode="json", exclude_none=True), sort_keys=True)


def _owned_by(machine: Machine) -> Mapping[str, Any]:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "BareMetalMachine",
        "name": machine.key.name,
        "uid": machine.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
