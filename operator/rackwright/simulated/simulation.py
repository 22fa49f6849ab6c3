"""All simulated machines of an operator, by the uids of their records.

One comes into being when its BMC is first spoken to, as its record says it was left: these machines end with the
operator's process, and what a real one would still have after a restart, its disks and its power, is in status.
Who was in the ramdisk comes back switched off, as after a power failure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from rackwright.agent.client import Agent, AgentClient
from rackwright.agent.sessions import Session
from rackwright.agent.tokens import Tokens
from rackwright.api.machine import OperationName, Phase, Power
from rackwright.install.phone_home import PATH as PHONE_HOME_PATH
from rackwright.lifecycle.steps import Stage
from rackwright.power.address import SIMULATED
from rackwright.power.line import Line
from rackwright.power.port import Endpoint, Limits, PowerDriver
from rackwright.record import Machine as Record
from rackwright.simulated.behaviour import behaviour
from rackwright.simulated.bmc import SimulatedBMC
from rackwright.simulated.machine import Machine, Network
from rackwright.simulated.ramdisk import SimulatedAgent
from rackwright.simulated.system import OWNED


class Simulation:
    """Machines in memory. Belongs to one event loop."""

    def __init__(self, records: Callable[[str], Record | None], tokens: Tokens) -> None:
        """`records` gives the record with a uid."""
        self._records = records
        self._tokens = tokens
        self._machines: dict[str, Machine] = {}
        self._made = 0
        self._network: Network | None = None
        self._left = self._forget_if_gone  # one for all drivers

    def plug_into(self, network: Network) -> None:
        """Let the machines reach the operator, before any of them is switched on."""
        self._network = network

    def machine(self, uid: str) -> Machine | None:
        """The machine with this uid, if it was spoken to."""
        return self._machines.get(uid)

    def driver(self, endpoint: Endpoint, line: Line, limits: Limits) -> PowerDriver:
        """The driver for `simulated://` endpoints (`power.connect.Factory`)."""
        asked, record = behaviour(endpoint.address), self._records(endpoint.machine)
        mac = (record.spec.boot_mac_address if record is not None else None) or endpoint.machine
        machine = self._machines.get(endpoint.machine)
        if machine is None:
            if self._network is None:
                raise RuntimeError("simulated machines are spoken to before they are plugged in")
            machine = Machine(endpoint.machine, mac, self._made, asked, self._network)
            self._machines[endpoint.machine] = machine
            self._made += 1
            if record is not None:
                self._restore(machine, record)
        machine.mac, machine.behaviour = mac, asked
        return SimulatedBMC(machine, line, limits, self._left)

    def agent(self, record: Record, session: Session, token: str) -> Agent:
        """The agent of a session (`observe.Agents`): a simulated machine's is here, any other is on the network."""
        machine = self._machines.get(record.uid)
        if machine is None or not _is_simulated(record):
            return AgentClient(session, token)
        return SimulatedAgent(machine, token)

    def close(self) -> None:
        """Switch all of them off, for good."""
        for machine in self._machines.values():
            machine.off()
        self._machines.clear()

    def _forget_if_gone(self, machine: Machine) -> None:
        """A driver was closed: the machine ends with its record, and not when its address asks for other behaviour."""
        record = self._records(machine.uid)
        if record is None or not _is_simulated(record):
            machine.off()
            self._machines.pop(machine.uid, None)

    def _restore(self, machine: Machine, record: Record) -> None:
        """Let it be as an earlier operator left it."""
        status, deployment = record.status, record.spec.deployment
        installed, operation = status.installed, status.operation
        lives = deployment is not None and deployment.existing and status.phase is None
        if installed is None and not lives:
            return
        content = (installed.checksum if installed is not None else "") or OWNED
        machine.disks = (sys.intern(content), *(OWNED for _ in machine.disks[1:]))
        if operation is not None and operation.name is OperationName.DEPLOY and operation.step == Stage.BOOT_DISK:
            token = self._tokens.for_first_boot(record.uid, operation.id)
            machine.seed = f"http://operator{PHONE_HOME_PATH.format(uid=record.uid)}?token={token}"
        elif lives or (status.phase is Phase.DEPLOYED and status.power is Power.ON):
            machine.resume()


def _is_simulated(record: Record) -> bool:
    return record.spec.bmc is not None and record.spec.bmc.address.startswith(f"{SIMULATED}://")
