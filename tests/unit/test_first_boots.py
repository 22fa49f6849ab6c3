"""Who may report a first boot, and what is answered: by what status says, so that a restart changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rackwright.agent.tokens import Tokens
from rackwright.cache import Cache
from rackwright.install.phone_home import PhoneHome
from rackwright.record import Machine
from rackwright.recorded import FirstBoots

AT = "2026-01-01T00:00:00Z"
REPORT = PhoneHome("op-1", "node-07.example", "10.0.0.107", ())


def deploying(operation: str = "op-1") -> dict[str, Any]:
    """An attempt whose image is written."""
    under_way = {"id": operation, "name": "Deploy", "step": "BootDisk", "beganAt": AT, "startedAt": AT, "deadline": AT}
    return {"phase": "Deploying", "operation": under_way, "installed": {"image": "debian-12"}}


def deployed(**more: Any) -> dict[str, Any]:
    """What is recorded once the system of that attempt has reported."""
    return {"phase": "Deployed", "installed": {"image": "debian-12", "at": AT, "operation": "op-1"}, **more}


class Operator:
    """An operator that has just started, on a cluster with one machine."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.cache, self.version, self.reported_to_loop = Cache(), 0, False
        self.first_boots = FirstBoots(self.cache, Tokens(b"k" * 32), self.tell)
        self.becomes(status)

    def becomes(self, status: dict[str, Any]) -> None:
        """A watch brings another status."""
        self.version += 1
        metadata = {"namespace": "rack-a", "name": "node-07", "uid": "uid", "resourceVersion": str(self.version)}
        self.cache.put(Machine.read({"metadata": metadata, "spec": {"accepted": False}, "status": status}))

    def tell(self, _uid: str, _report: PhoneHome) -> None:
        self.reported_to_loop = True


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (deploying(), "op-1"),
        (deploying("op-2"), "op-2"),
        (deployed(), "op-1"),
        (deployed(operation={**deploying("op-9")["operation"], "name": "Restart"}), "op-1"),
        ({"phase": "Deployed", "installed": {"hostname": "adopted", "at": AT}}, None),
        ({"phase": "Releasing", "installed": {"image": "debian-12"}}, None),
        ({"phase": "Ready"}, None),
    ],
)
def test_a_new_operator_expects_the_attempt_under_way_or_the_one_that_reported(
    status: dict[str, Any], expected: str | None
) -> None:
    it = Operator(status)
    assert it.first_boots.expected("uid") == expected
    assert it.first_boots.expected("another") is None


async def test_a_report_whose_answer_got_lost_in_a_restart_is_answered_at_once() -> None:
    it = Operator(deployed())
    async with asyncio.timeout(5):
        assert await it.first_boots.received("uid", REPORT)


async def test_a_report_is_answered_when_it_is_recorded() -> None:
    it = Operator(deploying())
    answer = asyncio.create_task(it.first_boots.received("uid", REPORT))
    await asyncio.sleep(0)
    assert it.reported_to_loop
    it.becomes({**deploying(), "conditions": []})
    await asyncio.sleep(0)
    assert not answer.done()
    it.becomes(deployed())
    assert await answer


@pytest.mark.parametrize(
    "instead",
    [deploying("op-2"), {"phase": "Failed", "installed": {"image": "debian-12"}}, {"phase": "Ready"}],
    ids=["another attempt", "given up", "withdrawn"],
)
async def test_a_report_of_an_attempt_that_is_over_is_not_said_to_be_recorded(instead: dict[str, Any]) -> None:
    it = Operator(deploying())
    answer = asyncio.create_task(it.first_boots.received("uid", REPORT))
    await asyncio.sleep(0)
    it.becomes(instead)
    assert await answer is False
