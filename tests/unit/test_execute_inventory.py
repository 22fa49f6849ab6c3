"""Carrying out a step: what is kept of what the machine says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.agent.world import MAC, UID, boot

from rackwright.agent.sessions import Sessions
from rackwright.agent.tokens import Tokens
from rackwright.execute import Executor, Means
from rackwright.lifecycle.steps import KeepInventory
from rackwright.lifecycle.world import Blame, Fault
from rackwright.power.port import FaultClass, PowerError
from rackwright.record import Machine
from rackwright.secrets import Obstructed

AT = "2026-01-01T00:00:00Z"
COMMISSIONING = Machine.read(
    {
        "metadata": {"namespace": "rack-a", "name": "node-07", "uid": UID, "resourceVersion": "1"},
        "spec": {"bootMACAddress": MAC, "bmc": {"address": "redfish+https://10.0.0.7"}},
        "status": {
            "phase": "Commissioning",
            "operation": {"id": "op-1", "name": "Commission", "beganAt": AT, "startedAt": AT, "deadline": AT},
        },
    }
)


@dataclass
class Around:
    """What stands around an executor, scripted."""

    attributes: Mapping[str, Any] | Exception = field(default_factory=dict)
    applied: list[Mapping[str, Any]] = field(default_factory=list)
    sessions: Sessions = field(default_factory=Sessions)

    def __post_init__(self) -> None:
        self.sessions.reported(boot(), {"inventory": {"interfaces": [{"name": "eth0", "mac_address": MAC}]}})

    async def driver(self, _machine: Machine) -> Any:
        if isinstance(self.attributes, Exception):
            raise self.attributes
        return SimpleNamespace(bios_attributes=self.bios_attributes)

    async def bios_attributes(self) -> Any:
        return self.attributes

    async def apply(self, _plural: str, _namespace: str, _name: str, body: Mapping[str, Any]) -> None:
        self.applied.append(body)

    def kept(self, _machine: Machine, _inventory: object) -> None:
        """Nobody looks at it here."""

    async def keep_inventory(self) -> object:
        executor = Executor(
            cluster=self,  # type: ignore[arg-type]
            bmcs=self,  # type: ignore[arg-type]
            sessions=self.sessions,
            tokens=Tokens(b"k" * 32),
            observer=self,  # type: ignore[arg-type]
            means=Means("http://10.0.0.1"),
        )
        return await executor.carry_out(KeepInventory(), COMMISSIONING)


async def test_bios_attributes_are_kept_without_what_sounds_like_a_secret() -> None:
    around = Around(
        {"ProcTurboMode": "Enabled", "Cores": 8, "Gone": None, "AdminPwd": "hunter2", "IscsiChapSecret": "hunter2"}
    )
    assert await around.keep_inventory() is None
    assert around.applied[0]["report"]["biosAttributes"] == {"ProcTurboMode": "Enabled", "Cores": "8"}


@pytest.mark.parametrize(
    "trouble",
    [
        PowerError(FaultClass.UNREACHABLE, "The BMC is silent."),
        Obstructed(Fault(Blame.CONFIGURATION, "SecretMissing", "The Secret bmc does not exist.")),
    ],
)
async def test_a_bmc_that_cant_be_asked_for_its_attributes_stops_no_commissioning(trouble: Exception) -> None:
    around = Around(trouble)
    assert await around.keep_inventory() is None
    assert around.applied[0]["report"]["biosAttributes"] == {}
