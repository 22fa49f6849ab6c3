"""What a simulated machine does with answers that an operator gives it seldom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Address
from itertools import pairwise
from typing import Any

import pytest
from tests.unit.agent.world import MAC, UID, boot
from tests.unit.simulated.virtual import live

from rackwright.agent.api import WITHHELD, Refusal
from rackwright.agent.client import AgentError, AgentFault, CommandStatus
from rackwright.netboot.decision import AskAgain, Decision, Introduce, LocalDisk, Ramdisk, Why
from rackwright.netboot.script import ASK_SECONDS
from rackwright.power.port import BootTarget, PowerState
from rackwright.simulated.behaviour import behaviour
from rackwright.simulated.machine import Machine, Network
from rackwright.simulated.ramdisk import REPEAT_SECONDS, RunningRamdisk, SimulatedAgent

SYNC, POWER_OFF = "standby.sync", "standby.power_off"


def refusal(status: HTTPStatus) -> Refusal:
    return Refusal(status, "no")


@dataclass
class Operator:
    """Answers as it is told, the last answer for ever; `asked` is what it was asked, with the second."""

    decisions: list[Decision]
    inspections: list[Refusal | None] = field(default_factory=lambda: [None])
    lookups: list[Refusal | str] = field(default_factory=lambda: ["token"])
    asked: list[tuple[float, str]] = field(default_factory=list)

    def decide(self, mac: str, peer: str | None, *, asked: int = 0) -> Decision:
        self._note(f"boot {mac} at {peer}, asked {asked}")
        decision: Decision = self._next(self.decisions)
        return decision

    async def take_inspection(self, _peer: IPv4Address, read: Callable[[], Awaitable[bytes]]) -> str:
        assert MAC.encode() in await read()
        self._note("inspection")
        if (answer := self._next(self.inspections)) is not None:
            raise answer
        return UID

    def look_up(self, _peer: IPv4Address, _addresses: list[str]) -> dict[str, Any]:
        self._note("lookup")
        answer = self._next(self.lookups)
        if isinstance(answer, Refusal):
            raise answer
        return {"node": {"uuid": UID, "properties": {}}, "config": {"agent_token": answer}}

    def hear(self, _peer: IPv4Address, uid: str, beat: Mapping[str, Any]) -> None:
        assert (uid, beat["agent_token"]) == (UID, "token")
        self._note("beat")

    def kinds(self) -> list[str]:
        return [what.partition(" ")[0] for _, what in self.asked]

    def _note(self, what: str) -> None:
        self.asked.append((asyncio.get_running_loop().time(), what))

    @staticmethod
    def _next(answers: list[Any]) -> Any:
        return answers.pop(0) if len(answers) > 1 else answers[0]


def booted(
    monkeypatch: pytest.MonkeyPatch, operator: Operator, life: Callable[[Machine], Coroutine[Any, Any, None]]
) -> None:
    """A machine that was just switched on to boot from the network."""

    async def run() -> None:
        around: Any = operator
        machine = Machine(UID, MAC, 0, behaviour("simulated://fast"), Network(around, around, around))
        machine.target = BootTarget.NETWORK
        machine.switch(on=True)
        await life(machine)
        machine.off()

    live(monkeypatch, run)


def test_a_machine_asks_again_while_the_operator_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator([AskAgain(MAC, 1), AskAgain(MAC, 2), Ramdisk(boot(wants_inventory=False), MAC)])

    async def life(_: Machine) -> None:
        await asyncio.sleep(2.5 * ASK_SECONDS)
        assert [when for when, _ in operator.asked[:3]] == [0, ASK_SECONDS, 2 * ASK_SECONDS]
        assert [what.rpartition(" ")[2] for _, what in operator.asked[:3]] == ["0", "1", "2"]
        assert operator.kinds()[3:5] == ["lookup", "beat"]

    booted(monkeypatch, operator, life)


def test_a_machine_that_nobody_boots_goes_on_to_its_disk_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator([LocalDisk(Why.NOT_BEING_BOOTED)])

    async def life(machine: Machine) -> None:
        await asyncio.sleep(3600)
        assert machine.power is PowerState.ON
        assert machine.running is None
        assert operator.kinds() == ["boot"]

    booted(monkeypatch, operator, life)


def test_a_machine_that_only_introduces_itself_switches_itself_off(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator([Introduce(MAC)])

    async def life(machine: Machine) -> None:
        await asyncio.sleep(1)
        assert operator.kinds() == ["boot", "inspection"]
        assert machine.power is PowerState.OFF

    booted(monkeypatch, operator, life)


@pytest.mark.parametrize(
    ("status", "times"), [(HTTPStatus.SERVICE_UNAVAILABLE, 2), (HTTPStatus.CONFLICT, 2), (HTTPStatus.FORBIDDEN, 1)]
)
def test_a_report_is_sent_again_unless_it_is_refused_for_good(
    monkeypatch: pytest.MonkeyPatch, status: HTTPStatus, times: int
) -> None:
    operator = Operator([Ramdisk(boot(), MAC)], inspections=[refusal(status), None])

    async def life(_: Machine) -> None:
        await asyncio.sleep(1.5 * REPEAT_SECONDS)
        assert operator.kinds()[: times + 2] == ["boot", *["inspection"] * times, "lookup"]

    booted(monkeypatch, operator, life)


def test_an_agent_looks_up_until_it_is_known_and_beats_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator([Ramdisk(boot(wants_inventory=False), MAC)], lookups=[refusal(HTTPStatus.NOT_FOUND), "token"])

    async def life(_: Machine) -> None:
        await asyncio.sleep(600)
        beats = [when for when, what in operator.asked if what == "beat"]
        assert beats[0] == REPEAT_SECONDS
        assert all(9 <= later - sooner <= 18 for sooner, later in pairwise(beats))

    booted(monkeypatch, operator, life)


def test_an_agent_that_gets_no_token_waits_for_a_power_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator([Ramdisk(boot(wants_inventory=False), MAC)], lookups=[WITHHELD])

    async def life(_: Machine) -> None:
        await asyncio.sleep(3600)
        assert operator.kinds() == ["boot", "lookup"]

    booted(monkeypatch, operator, life)


def test_commands_need_the_boots_token_and_an_agent_that_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life(machine: Machine) -> None:
        await asyncio.sleep(1)
        for agent, command, fault in (
            (SimulatedAgent(machine, "another"), SYNC, AgentFault.REJECTED),
            (SimulatedAgent(machine, "token"), "flow.unheard_of", AgentFault.PROTOCOL),
        ):
            with pytest.raises(AgentError) as caught:
                await agent.run(command, {}, 1.0)
            assert caught.value.fault is fault
        agent = SimulatedAgent(machine, "token")
        assert (await agent.run(SYNC, {}, 1.0)).status is CommandStatus.SUCCEEDED
        assert isinstance(machine.running, RunningRamdisk)
        await agent.run(POWER_OFF, {}, 1.0)
        assert machine.power is PowerState.OFF
        with pytest.raises(AgentError) as caught:
            await agent.commands()
        assert caught.value.fault is AgentFault.UNREACHABLE

    booted(monkeypatch, Operator([Ramdisk(boot(wants_inventory=False), MAC)]), life)


def test_an_agent_at_work_takes_no_other_command(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life(machine: Machine) -> None:
        machine.behaviour = behaviour("simulated://fast?erase=1m")
        await asyncio.sleep(1)
        agent = SimulatedAgent(machine, "token")
        erase = {"step": {"step": "erase_disks", "args": {"mode": "Full"}}}
        assert (await agent.start("clean.execute_clean_step", erase)).status is CommandStatus.RUNNING
        with pytest.raises(AgentError) as caught:
            await agent.start("clean.execute_clean_step", erase)
        assert caught.value.fault is AgentFault.BUSY
        await asyncio.sleep(61)
        assert [command.status for command in await agent.commands()] == [CommandStatus.SUCCEEDED]

    booted(monkeypatch, Operator([Ramdisk(boot(wants_inventory=False), MAC)]), life)
