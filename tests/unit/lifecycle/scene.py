"""A machine and its surroundings for a story: the property tests' loop and metal, with what only a person reads.

The metal does what it is asked for, unless the story says otherwise; faults have the names and words of real ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.property.rig import HARDWARE, SILENT, Rig

from rackwright.api.machine import BareMetalMachineStatus, Phase, RescueEnvironment
from rackwright.install.faults import Doing, explain
from rackwright.lifecycle.by_hand import moved_by_hand
from rackwright.lifecycle.steps import Action
from rackwright.lifecycle.world import Agent, CommandState, Fault, World
from rackwright.record import wants_inspection

SERIALS = {"/dev/sda": "S3V1A", "/dev/sdb": "S3V1B"}
DIES = "[Errno 5] Input/output error"
"""What a disk says that is dead."""
DOING = {"Write": Doing.WRITE_IMAGE, "Erase": Doing.ERASE, "Rescue": Doing.RESCUE}


@dataclass
class Scene(Rig):
    """One machine under an operator, before anybody applied it."""

    ramdisk_comes_up: bool = True
    """Whether a machine that is started from the network gets as far as the agent, or its agent is still heard."""
    agent_answers: bool = True
    """Whether an agent that reports says how far its command is."""
    says_bmc: Fault = SILENT
    """Why the BMC can't be talked to, where it can't."""

    def oblige(self) -> None:
        """The metal does what it was asked for, if it is able to.

        An agent that is to tell what the machine is made of sends no heartbeat before that is in the cluster; where a
        person moves the power, it switches the machine off after that, which the loop takes for an answer to us.
        """
        ramdisk, by_hand = self.metal.ramdisk, moved_by_hand(self.spec)
        if not self.ramdisk_comes_up and (ramdisk is not None or by_hand):
            return
        if ramdisk is not None and wants_inspection(self.status) and not ramdisk.beating and not by_hand:
            ramdisk.answers = ramdisk.inspected = True
            self.heartbeat()
            return
        super().oblige()
        if ramdisk is not None:
            ramdisk.answers = self.agent_answers

    def world(self, *, hurry: bool = False, stale: bool = False, chance: float = 0.5) -> World:
        """What an operator observes now; a machine that enlisted itself has an inventory."""
        world = super().world(hurry=hurry, stale=stale, chance=chance)
        introduced = not self.spec.accepted and world.status.phase in (None, Phase.NEW)
        if introduced and self.held and world.status.hardware is None:
            world = replace(world, seen=replace(world.seen, inventory=HARDWARE))
        if world.seen.bmc_fault is SILENT:
            world = replace(world, seen=replace(world.seen, bmc_fault=self.says_bmc))
        return world

    def _carry_out(self, action: Action, world: World) -> Fault | None:
        fault = super()._carry_out(action, world)
        return self.says_bmc if fault is SILENT else fault

    def _agent(self, status: BareMetalMachineStatus) -> Agent | None:
        agent, ramdisk = super()._agent(status), self.metal.ramdisk
        if agent is None or ramdisk is None:
            return agent
        erasure = tuple(
            e.model_copy(update={"serial": SERIALS[e.device], "message": "" if e.verified else DIES})
            for e in agent.erasure
        )
        opened = ramdisk.doing == "Rescue" and agent.command is CommandState.SUCCEEDED
        rescue = RescueEnvironment(user="rescue", addresses=["10.0.0.7"], ssh_host_keys=["k"]) if opened else None
        fault = agent.fault and explain({"type": "CommandExecutionError", "details": DIES}, DOING[ramdisk.doing])
        return replace(agent, erasure=erasure, rescue=rescue, fault=fault)
