"""Carrying an action out: what the agent is asked for, and what its refusal means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from rackwright.agent.client import AgentError, AgentFault, Command, CommandStatus
from rackwright.agent.sessions import Session, Sessions
from rackwright.agent.tokens import Tokens
from rackwright.api.image import OperatingSystemImageSpec
from rackwright.execute import Executor, Means, NotNow
from rackwright.install.image import RootDisk
from rackwright.install.steps import TELL_NODE
from rackwright.lifecycle.steps import PowerOff, PowerOn, WriteImage
from rackwright.lifecycle.world import Blame, Fault
from rackwright.power.port import FaultClass, PowerError
from rackwright.record import Machine

RECORDED, OTHER = f"sha256:{'ab' * 32}", f"sha256:{'cd' * 32}"
DISK = "DISK1"
USER_DATA, EDITED = "k:recorded", "k:edited"
"""Fingerprints."""
AT = "2026-01-01T08:00:00Z"


def machine(disk: str | None = DISK, **spec: Any) -> Machine:
    """One that is about to have an image written, which its status says."""
    operation = {"id": "op-1", "name": "Deploy", "step": "WriteImage", "beganAt": AT, "startedAt": AT, "deadline": AT}
    return Machine.read(
        {
            "metadata": {"namespace": "rack-a", "name": "node-07", "uid": "uid", "resourceVersion": "1"},
            "spec": {"allocation": {"owner": "a"}, "deployment": {"image": "debian-12"}, **spec},
            "status": {
                "phase": "Deploying",
                "operation": operation,
                "installed": {"image": "debian-12", "checksum": RECORDED, "disk": disk, "userData": USER_DATA},
            },
        }
    )


class Ramdisk:
    """What an executor has around it, with an agent in it; `asked` is what that was asked for."""

    def __init__(
        self, checksum: str, refusal: AgentError | None = None, *, user_data: str = USER_DATA, disk: str | None = DISK
    ) -> None:
        self._fingerprint = user_data
        self._disk = disk
        self.asked: list[Mapping[str, Any]] = []
        self.told: list[Mapping[str, Any]] = []
        """The node's properties, each time that it was told of the node."""
        self.answer, self.error = CommandStatus.SUCCEEDED, ""
        """How such a command ends."""
        self._image = OperatingSystemImageSpec.model_validate(
            {"url": "http://images.example/debian-12.raw", "checksum": checksum, "format": "raw"}
        )
        self._refusal = refusal

    def executor(self) -> Executor:
        """One that works on it."""
        unused: Any = None
        around: Any = self
        return Executor(
            cluster=unused,
            bmcs=unused,
            sessions=Sessions(),
            tokens=Tokens(bytes(32)),
            observer=around,
            means=Means("http://127.0.0.1"),
        )

    def image(self, _deployment: object) -> OperatingSystemImageSpec:
        return self._image

    async def root_disk(self, _machine: Machine) -> RootDisk | None:
        return RootDisk(self._disk, {"serial": f"s== {self._disk}"}) if self._disk is not None else None

    @property
    def user_data(self) -> Ramdisk:
        return self

    async def read(self, _machine: Machine, _deployment: object) -> None:
        return None

    def known(self, _machine: Machine) -> str:
        return self._fingerprint

    def session(self, _machine: Machine) -> Session:
        return Session("op-1", "https://127.0.0.1:9999", "PEM", 0.0, "13.0.0")

    def client(self, _machine: Machine, _session: Session) -> Ramdisk:
        return self

    async def start(self, _name: str, params: Mapping[str, Any]) -> None:
        if self._refusal is not None:
            raise self._refusal
        self.asked.append(params)

    async def run(self, name: str, params: Mapping[str, Any], _seconds: float) -> Command:
        if name == "standby.power_off" and self._refusal is not None:
            raise self._refusal
        if name == TELL_NODE:
            self.told.append(params["node"]["properties"])
        return Command(id="1", name=name, status=self.answer, result={}, error=self.error or None)


async def test_the_image_that_is_recorded_is_the_one_that_is_written() -> None:
    ramdisk = Ramdisk(RECORDED)
    assert await ramdisk.executor().carry_out(WriteImage(), machine()) is None
    (asked,) = ramdisk.asked
    assert f"sha256:{asked['image_info']['os_hash_value']}" == RECORDED
    assert json.dumps(asked)


async def test_the_agent_is_told_before_it_writes_of_the_very_disk_that_is_recorded() -> None:
    """It would go by its own order of disks, else, or by what was declared when it booted."""
    ramdisk = Ramdisk(RECORDED)
    assert await ramdisk.executor().carry_out(WriteImage(), machine()) is None
    assert ramdisk.told == [{"root_device": {"serial": f"s== {DISK}"}}]
    assert len(ramdisk.asked) == 1


async def test_without_an_inventory_the_agent_is_told_of_the_hints_as_they_are_declared_now() -> None:
    ramdisk = Ramdisk(RECORDED, disk=None)
    hints = {"rootDeviceHints": {"serial": "S7"}}
    assert await ramdisk.executor().carry_out(WriteImage(), machine(None, storage=hints)) is None
    assert await ramdisk.executor().carry_out(WriteImage(), machine(None)) is None
    assert ramdisk.told == [{"root_device": {"serial": "s== S7"}}, {}], "it is to forget hints that were taken away"


async def test_an_agent_that_can_not_be_told_of_the_disk_writes_nothing() -> None:
    ramdisk = Ramdisk(RECORDED)
    ramdisk.answer, ramdisk.error = CommandStatus.FAILED, "no such command"
    fault = await ramdisk.executor().carry_out(WriteImage(), machine())
    assert isinstance(fault, Fault)
    assert (fault.blame, fault.reason) == (Blame.AGENT, "AgentError")
    assert "no such command" in fault.message
    assert ramdisk.asked == []


async def test_an_image_that_changed_since_it_was_recorded_is_not_written_before_that_is_recorded() -> None:
    ramdisk = Ramdisk(OTHER)
    assert await ramdisk.executor().carry_out(WriteImage(), machine()) == NotNow()
    assert ramdisk.asked == []


async def test_another_disk_that_was_chosen_since_is_not_written_to_before_that_is_recorded() -> None:
    ramdisk = Ramdisk(RECORDED, disk="DISK2")
    assert await ramdisk.executor().carry_out(WriteImage(), machine()) == NotNow()
    assert ramdisk.asked == []


async def test_user_data_that_changed_since_they_were_recorded_are_not_written_before_that_is_recorded() -> None:
    ramdisk = Ramdisk(RECORDED, user_data=EDITED)
    assert await ramdisk.executor().carry_out(WriteImage(), machine()) == NotNow()
    assert ramdisk.asked == []


@pytest.mark.parametrize("fault", [AgentFault.BUSY, AgentFault.UNREACHABLE])
async def test_an_agent_that_takes_no_command_or_does_not_say_so_is_no_failure(fault: AgentFault) -> None:
    ramdisk = Ramdisk(RECORDED, AgentError(fault, "The agent is busy."))
    assert await ramdisk.executor().carry_out(WriteImage(), machine()) == NotNow()


class Locked:
    """A BMC that rejects its account, and whose Secret was corrected so many times since it was read."""

    def __init__(self, corrections: int) -> None:
        self.corrections = corrections
        self.asked = 0

    def stale(self, _uid: str) -> None:
        """Nothing was read."""

    async def driver(self, _machine: Machine) -> Locked:
        return self

    async def power_on(self) -> None:
        self.asked += 1
        raise PowerError(FaultClass.CREDENTIALS, "The BMC refuses the credentials")

    async def renewed(self, _machine: Machine, _error: PowerError) -> bool:
        self.corrections -= 1
        return self.corrections >= 0

    def failed(self, _machine: Machine, error: PowerError) -> Fault:
        return Fault(Blame.BMC, error.fault.value, error.message)


@pytest.mark.parametrize(("corrections", "asked"), [(0, 1), (1, 2), (9, 2)])
async def test_what_a_bmc_rejects_is_repeated_once_if_its_secret_was_corrected(corrections: int, asked: int) -> None:
    bmc, executor = Locked(corrections), Ramdisk(RECORDED).executor()
    executor._bmcs = bmc  # type: ignore[assignment]
    assert isinstance(await executor.carry_out(PowerOn(), machine()), Fault)
    assert bmc.asked == asked


class ByHand:
    """A machine that a person moves: nobody is told anything."""

    def stale(self, _uid: str) -> None:
        """Nothing was read."""

    async def driver(self, _machine: Machine) -> ByHand:
        return self

    async def power_off(self, *, grace: float) -> None:
        """It does so by itself, or a person does."""


@pytest.mark.parametrize(("fault", "outcome"), [(AgentFault.UNREACHABLE, None), (AgentFault.BUSY, NotNow())])
async def test_a_ramdisk_that_goes_off_before_it_can_answer_has_gone_off(
    fault: AgentFault, outcome: NotNow | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = {"beganAt": AT, "startedAt": AT, "deadline": AT}
    moved = Machine.read(
        {
            "metadata": {"namespace": "rack-a", "name": "node-07", "uid": "uid", "resourceVersion": "1"},
            "spec": {"bmc": {"address": "manual://"}},
            "status": {
                "phase": "Releasing",
                "operation": {"id": "op-1", "name": "Release", "step": "ShutDown", **at},
            },
        }
    )
    executor = Ramdisk(RECORDED, AgentError(fault, "The agent doesn't answer.")).executor()
    monkeypatch.setattr(executor, "_bmcs", ByHand())
    assert await executor.carry_out(PowerOff(stage=None), moved) == outcome


async def test_an_agent_that_makes_no_sense_is_one() -> None:
    ramdisk = Ramdisk(RECORDED, AgentError(AgentFault.PROTOCOL, "The agent answers 500."))
    fault = await ramdisk.executor().carry_out(WriteImage(), machine())
    assert fault == Fault(Blame.AGENT, "AgentProtocol", "The agent answers 500.")
