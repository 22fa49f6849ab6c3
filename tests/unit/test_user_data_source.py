"""User data that are told apart from what was installed: looked at seldom, and never by a watch."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.unit.agent.world import UID

from rackwright.agent.tokens import Tokens
from rackwright.kube import Secret
from rackwright.record import Machine
from rackwright.secrets import Name
from rackwright.user_data import LOOK_SECONDS, UserData


class Secrets:
    """Secrets that a test sets, and what was asked of them."""

    def __init__(self, **data: bytes) -> None:
        self.data = data
        self.reads: list[str] = []
        self.awaited: list[str] = []

    async def read(self, name: Name, *, fresh: bool = False) -> Secret | None:
        self.reads.append(f"{name.name}{' afresh' if fresh else ''}")
        return Secret("1", {"userData": self.data[name.name]}) if name.name in self.data else None

    def awaiting(self, name: Name, *_: object) -> None:
        self.awaited.append(name.name)


def deployed(named: str | None = "words") -> Machine:
    ref = {"userDataSecretRef": {"name": named}} if named else {}
    return Machine.read(
        {
            "metadata": {"namespace": "rack-a", "name": "node-07", "uid": UID, "resourceVersion": "1"},
            "spec": {"allocation": {"owner": "a"}, "deployment": {"image": "debian-12", **ref}},
            "status": {"phase": "Deployed", "owner": "a"},
        }
    )


def user_data(secrets: Any) -> UserData:
    return UserData(secrets, Tokens(b"k" * 32))


async def test_a_deployed_machines_user_data_are_looked_at_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("rackwright.user_data.time.monotonic", lambda: now[0])
    secrets = Secrets(words=b"#cloud-config\n{}\n")
    looked = user_data(secrets)
    before = await looked.looked_at(deployed())
    secrets.data["words"] = b"#cloud-config\n{hostname: other}\n"
    assert await looked.looked_at(deployed()) == before
    assert secrets.reads == ["words"]

    now[0] += LOOK_SECONDS
    after = await looked.looked_at(deployed())
    assert after not in (None, before)


async def test_another_secret_is_looked_at_at_once() -> None:
    secrets = Secrets(words=b"#cloud-config\n{}\n", other=b"#cloud-config\n{hostname: other}\n")
    looked = user_data(secrets)
    assert await looked.looked_at(deployed()) != await looked.looked_at(deployed("other"))
    assert await looked.looked_at(deployed(None)) is not None, "none is something to compare with, too"


async def test_a_secret_that_was_deleted_after_the_installation_is_nobodys_concern() -> None:
    secrets = Secrets()
    assert await user_data(secrets).looked_at(deployed()) is None
    assert secrets.awaited == []


async def test_what_is_read_for_an_installation_is_what_is_compared_with() -> None:
    secrets = Secrets(words=b"#cloud-config\n{}\n")
    source, machine = user_data(secrets), deployed()
    assert machine.spec.deployment is not None
    assert await source.read(machine, machine.spec.deployment) == b"#cloud-config\n{}\n"
    assert source.known(machine) == await source.looked_at(machine)
    assert secrets.reads == ["words afresh"]
    source.forget(UID)
    assert source.known(machine) is None


async def test_a_check_that_takes_long_takes_no_thread_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr("rackwright.user_data.problem_with", lambda _: None if done.wait(10) else "stuck")
    source, machine = user_data(Secrets(words=b"#cloud-config\n{}\n")), deployed()
    assert machine.spec.deployment is not None
    reads = [asyncio.ensure_future(source.read(machine, machine.spec.deployment)) for _ in range(64)]
    await asyncio.sleep(0.05)  # all are at their check
    async with asyncio.timeout(5):
        await asyncio.to_thread(done.set)
    assert await asyncio.gather(*reads) == [b"#cloud-config\n{}\n"] * 64
