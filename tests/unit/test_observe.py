"""What an agent's finished command is taken to mean."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

from tests.unit.agent.world import MAC, UID, boot, identity

from rackwright.agent.client import Command, CommandStatus
from rackwright.agent.sessions import Session, Sessions
from rackwright.agent.tokens import Tokens
from rackwright.api.machine import RescueEnvironment
from rackwright.cache import Cache, Machine
from rackwright.install.faults import Doing
from rackwright.install.phone_home import PhoneHome
from rackwright.lifecycle.world import Agent, CommandState, Policy
from rackwright.observe import Observer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AT = "2026-01-01T00:00:00Z"
BLOB = len(b"ssh-ed25519").to_bytes(4, "big") + b"ssh-ed25519" + b"k" * 36
KEY = f"ssh-ed25519 {base64.b64encode(BLOB).decode()}"
IN_RESCUE = Machine.read(
    {
        "metadata": {"namespace": "rack-a", "name": "node-07", "uid": UID, "resourceVersion": "1"},
        "spec": {"bootMACAddress": MAC, "bmc": {"address": "redfish+https://10.0.0.7"}},
        "status": {
            "phase": "Rescue",
            "operation": {"id": "op-1", "name": "Rescue", "beganAt": AT, "startedAt": AT, "deadline": AT},
        },
    }
)


def observer(sessions: Sessions) -> Observer:
    nobody: Any = None
    return Observer(
        cluster=nobody,
        cache=Cache(),
        bmcs=nobody,
        secrets=nobody,
        sessions=sessions,
        tokens=Tokens(b"k" * 32),
        policy=Policy(),
    )


async def test_an_open_rescue_environment_says_where_and_how_to_log_in() -> None:
    sessions = Sessions()
    session = Session("op-1", "https://[2001:db8::7]:9999", identity().certificate, 0.0, "13.0.0")
    sessions.heard(boot(), session, ip_address("2001:db8::7"))
    done = Command(
        "c-1",
        "execute_clean_step",
        CommandStatus.SUCCEEDED,
        {"clean_result": {"user": "rescue", "hostKeys": [KEY, "no key at all"]}},
    )

    agent = await observer(sessions)._at_work(IN_RESCUE, Agent(NOW), done, Doing.RESCUE, NOW)

    assert agent.command is CommandState.SUCCEEDED
    assert agent.rescue == RescueEnvironment(user="rescue", addresses=["2001:db8::7"], ssh_host_keys=[KEY])


async def test_what_an_installed_system_reported_is_forgotten_once_status_has_it() -> None:
    at_rest = Machine.read(
        {
            "metadata": {
                "namespace": "rack-a",
                "name": "node-07",
                "uid": UID,
                "resourceVersion": "2",
                "finalizers": ["metal.rackwright.io/release"],
            },
            "spec": {"bootMACAddress": MAC, "bmc": {"address": "manual://"}},
            "status": {"phase": "Deployed"},
        }
    )
    here = observer(Sessions())
    here._bmcs = SimpleNamespace(turn_to=lambda _machine: None)  # type: ignore[assignment]
    here.reported(UID, PhoneHome("op-1", "10.0.0.7", "web-1", ()))
    await here.world(at_rest, hurry=False)
    assert not here._first_boots
