"""Gathers one machine's whole world: what the BMC, the agent, the installed system and the cluster say of it.

Nothing is decided here, and nothing is done. Whoever doesn't answer becomes a fact in the world.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from rackwright.agent.client import Agent as AgentPort
from rackwright.agent.client import AgentClient, AgentError, AgentFault, Command, CommandStatus
from rackwright.agent.sessions import Session, Sessions
from rackwright.agent.tokens import Tokens
from rackwright.api.image import OperatingSystemImageSpec
from rackwright.api.inventory import DiskInventory, HardwareInventoryReport
from rackwright.api.machine import (
    Deployment,
    Erasure,
    HardwareSummary,
    Installed,
    Operation,
    OperationName,
    Phase,
    Power,
    RescueEnvironment,
)
from rackwright.bmcs import BMCs, Reading
from rackwright.cache import Cache
from rackwright.install import erase, rescue
from rackwright.install.faults import Doing, explain
from rackwright.install.image import RootDisk, left_behind, misfit, root_disk
from rackwright.install.phone_home import PhoneHome
from rackwright.inventory.report import summary_of
from rackwright.kube import Cluster
from rackwright.lifecycle.by_hand import assumed_power, moved_by_hand
from rackwright.lifecycle.guards import gates_closed, retry_not_due
from rackwright.lifecycle.world import Agent, Blame, CommandState, Fault, Place, Policy, Seen, World
from rackwright.record import Machine
from rackwright.secrets import Obstructed, Secrets
from rackwright.user_data import UserData

_FRESH_AT_WORK = timedelta(seconds=5)
"""How old a power reading may be while an operation is under way."""
_FRESH_WHILE_HEARD = timedelta(seconds=60)
"""The same while its agent reports, which it does only with the power on."""
_HEARD = timedelta(seconds=20)
"""Agents report every 18 s or sooner."""

_DOING = {
    OperationName.DEPLOY: Doing.WRITE_IMAGE,
    OperationName.RELEASE: Doing.ERASE,
    OperationName.RESCUE: Doing.RESCUE,
}


Agents = Callable[[Machine, Session, str], AgentPort]
"""Gives the agent of a machine's session, by the token that both know."""


def over_the_network(machine: Machine, session: Session, token: str) -> AgentPort:
    """The agent of a real machine."""
    del machine
    return AgentClient(session, token)


NO_OPERATION = ""
"""Whose attempt an inventory is of that the machine itself introduced, or that an earlier operator wrote."""


@dataclass(frozen=True, slots=True)
class KeptInventory:
    """What an attempt's inspection found, once it is in the cluster."""

    operation_id: str
    summary: HardwareSummary
    disks: tuple[DiskInventory, ...]


class Observer:
    """Observes machines. What it remembers is only what a new operator would find out again."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        cache: Cache,
        bmcs: BMCs,
        secrets: Secrets,
        sessions: Sessions,
        tokens: Tokens,
        policy: Policy,
        agents: Agents = over_the_network,
    ) -> None:
        self._agents = agents
        self._cluster = cluster
        self._cache = cache
        self._bmcs = bmcs
        self._secrets = secrets
        self._sessions = sessions
        self._tokens = tokens
        self._policy = policy
        self._inventories: dict[str, KeptInventory] = {}
        self._first_boots: dict[str, PhoneHome] = {}
        self.user_data = UserData(secrets, tokens)
        self._listening_since = time.monotonic()
        self._listening_to: dict[str, float] = {}
        """Since when, for machines that another operator heard before, by uid."""

    def listens(self) -> None:
        """From now on agents are heard; until now they were told to call again."""
        self._listening_since = time.monotonic()

    def listens_to(self, uid: str) -> None:
        """From now on this machine's agent is heard here; until now, it was by another operator."""
        self._listening_to[uid] = time.monotonic()

    def kept(self, machine: Machine, inventory: KeptInventory) -> None:
        """The machine's HardwareInventory was written."""
        self._inventories[machine.uid] = inventory
        self._sessions.inspection_kept(machine.uid, inventory.operation_id)

    def found(self, machine: Machine) -> HardwareSummary | None:
        """What the present attempt's inspection found, once that is in the cluster."""
        inventory, operation = self._inventories.get(machine.uid), machine.status.operation
        of_this_attempt = inventory is not None and operation is not None and inventory.operation_id == operation.id
        return inventory.summary if inventory is not None and of_this_attempt else None

    def reported(self, uid: str, report: PhoneHome) -> None:
        """The installed system has called."""
        self._first_boots[uid] = report

    def doubt(self, uid: str) -> None:
        """What was read of the machine's power may not be so any more."""
        self._bmcs.stale(uid)

    def forget(self, machine: Machine) -> None:
        """The machine is gone."""
        self._listening_to.pop(machine.uid, None)
        self._inventories.pop(machine.uid, None)
        self._first_boots.pop(machine.uid, None)
        self.user_data.forget(machine.uid)
        self._sessions.forget(machine.uid)
        self._bmcs.forget(machine)

    def session(self, machine: Machine) -> Session | None:
        """The agent of the machine's present attempt."""
        operation = machine.status.operation
        return self._sessions.current(machine.uid, operation.id) if operation else None

    def client(self, machine: Machine, session: Session) -> AgentPort:
        """Speaks to that agent."""
        return self._agents(machine, session, self._tokens.for_agent(machine.uid, session.operation_id))

    async def world(self, machine: Machine, *, hurry: bool) -> World:
        """Everything a decision may look at, now."""
        self._bmcs.turn_to(machine)
        now = datetime.now(UTC).replace(microsecond=0)
        twin = self._cache.twin_of(machine)
        image = self.image(machine.spec.deployment)
        seen = Seen(
            twin=str(twin) if twin else None,
            evidence=machine.evidence,
            image_checksum=image.checksum if image else None,
            listening_since=_then(self._listening_to.get(machine.uid, self._listening_since), now),
        )
        world = World(
            uid=machine.uid,
            name=machine.key.name,
            generation=machine.generation,
            spec=machine.spec,
            status=machine.status,
            now=now,
            seen=seen,
            policy=self._policy,
            deleting=machine.deleting,
            force_delete=machine.force_delete,
            held=machine.held,
            restored=machine.restored,
            locked_by=machine.locked_by,
            hurry=hurry,
            chance=random.random(),  # noqa: S311 (spreads retries, guards nothing)
        )
        if machine.deleting and machine.force_delete:
            return world  # nobody who doesn't answer may keep a record that is to go at once
        if twin is not None or not machine.held:
            return world  # nothing of it may be touched, so nobody is asked
        if machine.status.phase is Phase.NEW or (machine.status.phase is None and not machine.spec.accepted):
            return replace(world, seen=replace(seen, inventory=await self._introduced(machine)))  # nor here
        return replace(world, seen=await self._asked(machine, world))

    async def _asked(self, machine: Machine, world: World) -> Seen:
        seen, operation = world.seen, machine.status.operation
        if operation is not None:
            seen = replace(
                seen,
                agent=await self._agent(machine, operation, world.now),
                kept=self.found(machine),
                first_boot=self._first_boot(machine, operation, world.now),
            )
        else:
            self._first_boots.pop(machine.uid, None)  # status has it
        if moved_by_hand(machine.spec):
            seen = replace(seen, power=assumed_power(machine.status, seen.agent))
        elif machine.spec.bmc is not None and (reading := await self._reading(machine, world, seen.agent)) is not None:
            seen = replace(seen, power=reading.power, bmc_fault=reading.fault)
        deployment = _may_begin(machine)
        if deployment is not None:
            seen = replace(seen, obstacle=await self._obstacle(machine, deployment))
        if deployment is not None or machine.status.phase is Phase.DEPLOYING:
            seen = await self._disk_chosen(machine, seen)
        if machine.status.phase in (Phase.DEPLOYING, Phase.DEPLOYED):
            seen = replace(seen, user_data=await self.user_data.looked_at(machine))
        misconfigured = seen.bmc_fault is not None and seen.bmc_fault.blame is Blame.CONFIGURATION
        stays_in_pool = machine.status.phase is Phase.READY and gates_closed(world)
        held_up = seen.obstacle is not None or seen.left_behind is not None
        goes_on = not held_up and not misconfigured and not stays_in_pool
        return replace(seen, queued=self._queued(machine, world, take=goes_on))

    async def _reading(self, machine: Machine, world: World, agent: Agent | None) -> Reading | None:
        """What its BMC says, asked as seldom as will do; None if it isn't asked and never was."""
        operation, known, poll = machine.status.operation, self._bmcs.known(machine), self._policy.poll
        if machine.status.phase is Phase.DEPLOYING and self._queued(machine, world, take=False) is not None:
            return await self._bmcs.power(machine, fresh=poll, poll=poll)  # its turn may be hours away
        if operation is None:
            news = machine.generation != machine.status.observed_generation  # something may begin by it
            return await self._bmcs.power(machine, fresh=_FRESH_AT_WORK if news else poll, poll=poll)
        if retry_not_due(world):
            return known
        heard = min(_HEARD, self._policy.silence)  # an agent that counts as lost vouches for nothing
        fresh = _FRESH_WHILE_HEARD if _runs(known, agent, world.now - heard) else _FRESH_AT_WORK
        if operation.next_retry_at is not None or _failed_before(known, operation, world.now):
            fresh = timedelta()  # an attempt that is about to begin looks for itself: what was wrong may be over
        return await self._bmcs.power(machine, fresh=fresh, poll=poll)

    def _queued(self, machine: Machine, world: World, *, take: bool) -> Place | None:
        """Where it waits for its turn to install, if this pass might begin with that."""
        begun = machine.status.phase is Phase.DEPLOYING and not retry_not_due(world)
        if not begun and _may_begin(machine) is None:
            return None
        return self._cache.installs.place(machine, take=take)

    async def _introduced(self, machine: Machine) -> HardwareSummary | None:
        """What a machine said of itself that nobody trusts yet; None once status has it."""
        if machine.status.hardware is not None:
            return None
        kept = await self.inventory(machine)
        return kept.summary if kept is not None else None

    def _first_boot(self, machine: Machine, operation: Operation, now: datetime) -> Installed | None:
        report = self._first_boots.get(machine.uid)
        if report is None or report.operation_id != operation.id:
            return None
        return Installed(
            hostname=report.hostname, addresses=[report.address], ssh_host_keys=list(report.ssh_host_keys), at=now
        )

    # --- the agent -----------------------------------------------------------------------------------------------

    async def _agent(self, machine: Machine, operation: Operation, now: datetime) -> Agent | None:
        session = self._sessions.current(machine.uid, operation.id)
        inspected = self._sessions.inspected(machine.uid, operation.id)
        if session is None and not inspected:
            return None
        agent = Agent(
            heard_at=_then(session.heard_at, now) if session is not None else now,
            takes_commands=session is not None,
            inspected=inspected,
        )
        doing = _DOING.get(operation.name)
        if session is None or doing is None:
            return agent
        try:
            commands = await self.client(machine, session).commands()
        except AgentError as error:
            match error.fault:
                case AgentFault.REJECTED:
                    return None
                case AgentFault.PROTOCOL:
                    fault = Fault(Blame.AGENT, "AgentError", error.message)
                    return replace(agent, command=CommandState.FAILED, fault=fault)
                case _:
                    return replace(agent, command=CommandState.UNKNOWN)
        ours = [c for c in commands if c.name in ("prepare_image", "execute_clean_step")]
        return await self._at_work(machine, agent, ours[-1], doing, now) if ours else agent

    async def _at_work(self, machine: Machine, agent: Agent, command: Command, doing: Doing, now: datetime) -> Agent:
        """The agent with the state of the one command that this boot is for."""
        match command.status:
            case CommandStatus.RUNNING:
                return replace(agent, command=CommandState.RUNNING)
            case CommandStatus.SUCCEEDED:
                result = await self._result(machine, command, doing, now)
                match result:
                    case Fault():
                        return replace(agent, command=CommandState.FAILED, fault=result)
                    case RescueEnvironment():
                        return replace(agent, command=CommandState.SUCCEEDED, rescue=result)
                    case erasure:
                        return replace(agent, command=CommandState.SUCCEEDED, erasure=erasure)
            case _:
                said = {"type": command.error_type, "details": command.error or command.status.value}
                return replace(agent, command=CommandState.FAILED, fault=explain(said, doing))

    async def _result(
        self, machine: Machine, command: Command, doing: Doing, now: datetime
    ) -> tuple[Erasure, ...] | RescueEnvironment | Fault:
        match doing:
            case Doing.ERASE:
                found = erase.evidence(command.result, self._evidence_time(machine, now))
                if isinstance(found, Fault):
                    return found
                return found + erase.missing(found, await self._disks(machine), machine.status.hardware, now)
            case Doing.RESCUE:
                opened, session = rescue.opened(command.result), self.session(machine)
                if isinstance(opened, Fault):
                    return opened
                return RescueEnvironment(
                    user=opened.user,
                    addresses=[session.address] if session is not None else [],
                    ssh_host_keys=list(opened.ssh_host_keys),
                )
            case _:
                return ()

    def _evidence_time(self, machine: Machine, now: datetime) -> datetime:
        """When the evidence was recorded if it was, so that reading it again doesn't look like a change."""
        return machine.status.erasure[0].at if machine.status.erasure else now

    # --- what a deployment needs ---------------------------------------------------------------------------------

    async def _obstacle(self, machine: Machine, deployment: Deployment) -> Fault | None:
        """Why the deployment can't begin."""
        image = self.image(deployment)
        if image is None:
            return Fault(
                Blame.CONFIGURATION,
                "ImageMissing",
                f"The OperatingSystemImage {deployment.image}, which spec.deployment names, does not exist. "
                "It is used as soon as it is there.",
            )
        try:
            await self.user_data.read(machine, deployment)
        except Obstructed as error:
            return error.fault
        return misfit(image, machine.spec, await self._disks(machine))

    async def _disk_chosen(self, machine: Machine, seen: Seen) -> Seen:
        """Where an image would go now, and what that would leave where it is."""
        disk, installed = await self.root_disk(machine), machine.status.installed
        chosen = disk.identity if disk is not None else None
        holds = installed.disk if installed is not None else None
        left = left_behind(holds, chosen, await self._disks(machine) or ())
        return replace(seen, root_disk=chosen, left_behind=left)

    async def root_disk(self, machine: Machine) -> RootDisk | None:
        """The disk that an image would go to, where the HardwareInventory tells."""
        return root_disk(machine.spec.storage.root_device_hints, await self._disks(machine) or ())

    def image(self, deployment: Deployment | None) -> OperatingSystemImageSpec | None:
        """The image that a deployment names, if it exists."""
        return self._cache.image(deployment.image) if deployment is not None and deployment.image else None

    async def _disks(self, machine: Machine) -> tuple[DiskInventory, ...] | None:
        """The machine's disks as its HardwareInventory has them; None without one."""
        kept = await self.inventory(machine)
        return kept.disks if kept is not None else None

    async def inventory(self, machine: Machine) -> KeptInventory | None:
        """What the machine's HardwareInventory has; None without one."""
        kept = self._inventories.get(machine.uid)
        if kept is None:
            found = await self._cluster.get("hardwareinventories", *machine.key)
            if found is None or not _belongs(found, machine):
                return None
            report = HardwareInventoryReport.model_validate(found.get("report") or {})
            kept = KeptInventory(NO_OPERATION, summary_of(report), tuple(report.disks))
            self._inventories[machine.uid] = kept
        return kept


def _belongs(item: Mapping[str, Any], machine: Machine) -> bool:
    """Whether it isn't that of an earlier machine of this name, which the garbage collector has not come to yet."""
    return any(owner["uid"] == machine.uid for owner in item["metadata"].get("ownerReferences") or ())


def _runs(reading: Reading | None, agent: Agent | None, since: datetime) -> bool:
    """Whether the machine was seen on, and its agent has been heard since: to ask its BMC would tell nothing new."""
    on = reading is not None and reading.power is Power.ON
    return on and agent is not None and agent.takes_commands and agent.heard_at > since


def _failed_before(reading: Reading | None, operation: Operation, now: datetime) -> bool:
    """Whether the BMC was asked in vain before the attempt had begun, and not since."""
    if reading is None or reading.fault is None:
        return False
    return _then(reading.at, now) < operation.started_at - _FRESH_AT_WORK


def _then(moment: float, now: datetime) -> datetime:
    """A moment of the monotonic clock as one of the calendar's, by which alone it can be compared with status."""
    return now - timedelta(seconds=time.monotonic() - moment)


def _may_begin(machine: Machine) -> Deployment | None:
    """The deployment that this pass may begin, whatever else it ends first: nothing else needs what that names."""
    deployment, status = machine.spec.deployment, machine.status
    if deployment is None or deployment.existing or (status.phase is Phase.RESCUE and machine.spec.rescue is not None):
        return None
    begun = (
        status.phase in (Phase.DEPLOYING, Phase.DEPLOYED) and deployment.trigger == status.observed_triggers.deployment
    )
    return None if begun else deployment
