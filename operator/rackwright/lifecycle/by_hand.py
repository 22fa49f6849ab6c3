"""Machines whose power a person moves: what may be assumed of it.

Nobody can be asked whether such a machine is on. What is known is what a person was asked to do and whether an agent
reports, and both are enough to go on: the person is told, in a condition, what to do next, and is believed to have
done it as soon as the agent or the installed system is heard.
"""

from __future__ import annotations

from rackwright.api.machine import BareMetalMachineSpec, BareMetalMachineStatus, Phase, Power
from rackwright.lifecycle.steps import Stage
from rackwright.lifecycle.world import Agent

SCHEME = "manual:"

_STARTED = frozenset(
    {Stage.BOOT_RAMDISK, Stage.WRITE_IMAGE, Stage.ERASE_DISKS, Stage.OPEN_RESCUE, Stage.BOOT_DISK, Stage.POWER_ON}
)
"""Stages at which a person was asked to start the machine."""


def moved_by_hand(spec: BareMetalMachineSpec) -> bool:
    """Whether spec says that a person moves the machine's power."""
    return spec.bmc is not None and spec.bmc.address.startswith(SCHEME)


def assumed_power(status: BareMetalMachineStatus, agent: Agent | None) -> Power:
    """On where it was asked to be started, runs its system, or is heard; otherwise off, so that it is asked for."""
    if agent is not None and agent.takes_commands:
        return Power.ON
    if status.operation is not None:
        return Power.ON if status.operation.step in _STARTED else Power.OFF
    return Power.ON if status.phase in (Phase.DEPLOYED, Phase.RESCUE) else Power.OFF
