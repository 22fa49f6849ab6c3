"""Simulated machines under the whole operator, by a virtual clock: what it does to them, and what chance does."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from itertools import pairwise

import pytest
from tests.unit.simulated.rack import CHECKSUM, Rack
from tests.unit.simulated.virtual import Standstill, live

from rackwright.power.port import PowerState
from rackwright.simulated.machine import BLANK
from rackwright.simulated.system import OWNED

NAMES = tuple(f"node-{number:02}" for number in range(1, 6))


def test_a_fast_machine_lives_its_whole_life_in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare("node-01")
            await rack.reach("Ready")
            assert rack.inventories["node-01"]["report"]["disks"][0]["serial"] == "SIM525400000001-0"
            rack.deploy("node-01")
            await rack.reach("Deployed")
            installed = rack.status("node-01")["installed"]
            assert installed["addresses"] == ["198.18.0.1"]
            assert installed["sshHostKeys"][0].startswith("ssh-ed25519 ")
            rack.release("node-01")
            await rack.reach("Ready")
            assert asyncio.get_running_loop().time() == 0.0

    live(monkeypatch, life)


def test_a_release_really_erases_and_its_evidence_is_what_is_on_the_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare("node-01")
            await rack.reach("Ready")
            assert rack.metal("node-01").disks == (BLANK, BLANK)
            rack.deploy("node-01")
            await rack.reach("Deployed")
            assert rack.metal("node-01").disks == (CHECKSUM, OWNED)
            rack.release("node-01")
            await rack.reach("Ready")
            assert rack.metal("node-01").disks == (BLANK, BLANK)
            erasure = rack.status("node-01")["erasure"]
            assert [(disk["method"], disk["verified"]) for disk in erasure] == [("NVMeCryptoErase", True)] * 2

    live(monkeypatch, life)


def test_a_disk_that_keeps_its_data_keeps_its_machine_out_of_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare("node-01", "simulated://fast?disks=1")
            await rack.reach("Ready")
            rack.deploy("node-01")
            await rack.reach("Deployed")
            rack.change("node-01", bmc={"address": "simulated://fast?disks=1&broken=1"})
            rack.release("node-01")
            await rack.reach("Failed")
            assert rack.metal("node-01").disks == (CHECKSUM,)
            assert rack.status("node-01")["lastFailure"]["reason"] == "EraseNotVerified"

    live(monkeypatch, life)


def test_hints_choose_the_disk_that_the_image_goes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare("node-01", storage={"rootDeviceHints": {"serial": "SIM525400000001-1"}})
            await rack.reach("Ready")
            rack.deploy("node-01")
            await rack.reach("Deployed")
            assert rack.metal("node-01").disks == (OWNED, CHECKSUM)

    live(monkeypatch, life)


def test_hints_that_are_corrected_while_the_agent_waits_choose_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare(
                "node-01", "simulated://fast?boot=90s", storage={"rootDeviceHints": {"serial": "SIM525400000001-1"}}
            )
            await rack.reach("Ready")
            rack.deploy("node-01")
            await rack.until(lambda: rack.status("node-01").get("operation", {}).get("step") == "BootRamdisk")
            await asyncio.sleep(30)  # it boots
            rack.change("node-01", locked=True)
            await asyncio.sleep(600)  # the agent has looked up meanwhile, and isn't told to do anything
            assert rack.metal("node-01").disks == (BLANK, BLANK)
            rack.change("node-01", locked=False, storage={"rootDeviceHints": {"serial": "SIM525400000001-0"}})
            await rack.reach("Deployed")
            assert rack.metal("node-01").disks == (CHECKSUM, OWNED)
            assert rack.status("node-01")["installed"]["disk"] == "SIM525400000001-0"

    live(monkeypatch, life)


def test_a_slow_machine_takes_what_its_address_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare("node-01", "simulated://fast?boot=90s&inspect=20s&write=5m&start=1m")
            await rack.reach("Ready")
            ready = asyncio.get_running_loop().time()
            assert 110 <= ready < 115
            rack.deploy("node-01")
            await rack.reach("Deployed")
            assert 450 <= asyncio.get_running_loop().time() - ready < 460

    live(monkeypatch, life)


def test_a_machine_at_rest_has_nothing_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            for name in NAMES:
                rack.declare(name)
            await rack.reach("Ready")
            rack.deploy("node-01")
            await rack.reach("Deployed", "node-01")
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.Event().wait()  # what still had a timer would be heard; nobody has one

    with pytest.raises(Standstill):
        live(monkeypatch, life)


FAULTY = "simulated://slow?fail=0.05&hang=0.02&lost=0.05&broken=0.02&seed={seed}"


def history(monkeypatch: pytest.MonkeyPatch, seed: int) -> list[str]:
    """What five faulty machines go through in eight hours in which they are deployed and released again."""

    async def life() -> list[str]:
        async with Rack().running() as rack:
            for name in NAMES:
                rack.declare(name, FAULTY.format(seed=seed))
            for change in (rack.deploy, rack.release):
                await asyncio.sleep(4 * 3600)
                for name in NAMES:
                    change(name)
            await asyncio.sleep(4 * 3600)
            return rack.told()

    return live(monkeypatch, life)


def test_the_same_seed_gives_the_same_history_and_another_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = (history(monkeypatch, seed) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert any("BMC" in line or "AgentMissing" in line for line in first)  # something did go wrong


def test_two_machines_with_one_address_have_a_fate_each(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> set[float]:
        async with Rack().running() as rack:
            for name in NAMES:
                rack.declare(name, "simulated://slow?seed=7")
            await rack.reach("Ready")
            return {at for at, _, status in rack.history if status.get("phase") == "Ready"}

    assert len(live(monkeypatch, life)) >= len(NAMES)


def test_a_boot_that_is_lost_is_given_up_and_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare("node-01", "simulated://fast?lost=1")
            await rack.until(lambda: "lastFailure" in rack.status("node-01"))
            assert rack.status("node-01")["lastFailure"]["reason"] == "AgentMissing"
            rack.change("node-01", bmc={"address": "simulated://fast"})
            await rack.reach("Ready")

    live(monkeypatch, life)


@pytest.mark.parametrize(
    ("address", "reasons"),
    [
        ("simulated://fast?fail=1", {"BMCUnreachable", "BMCBusy", "BMCProtocolError"}),
        ("simulated://fast?hang=1", {"BMCUnreachable"}),
    ],
)
def test_a_bmc_that_fails_or_hangs_is_shown_and_its_machine_goes_on_when_it_answers(
    monkeypatch: pytest.MonkeyPatch, address: str, reasons: set[str]
) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare("node-01", address)
            await rack.until(lambda: rack.condition("node-01", "BMCReachable").get("status") == "False")
            assert rack.condition("node-01", "BMCReachable")["reason"] in reasons
            rack.change("node-01", bmc={"address": "simulated://fast"})
            await rack.reach("Ready")

    live(monkeypatch, life)


def test_an_operator_that_may_not_simulate_says_so_and_another_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        rack = Rack()
        rack.declare("node-01")
        async with rack.running(allow_simulated=False):
            await rack.until(lambda: rack.condition("node-01", "Stalled").get("status") == "True")
            for kind in ("Ready", "Stalled", "BMCReachable"):
                assert rack.condition("node-01", kind)["reason"] == "SimulationNotAllowed", kind
            assert "start the operator with --allow-simulated" in rack.condition("node-01", "Ready")["message"]
            assert rack.events[-1][2] == "SimulationNotAllowed"
            await asyncio.sleep(24 * 3600)
            assert rack.status("node-01")["phase"] == "Commissioning"  # no attempt is used up by it
        async with rack.running():
            await rack.reach("Ready")

    live(monkeypatch, life)


def test_a_parameter_that_cannot_be_is_named_in_a_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare("node-01", "simulated://fast?boot=90s&boot=3s")
            await rack.until(lambda: rack.condition("node-01", "BMCReachable").get("status") == "False")
            condition = rack.condition("node-01", "BMCReachable")
            assert condition["reason"] == "BMCUnsupported"
            assert "parameter 'boot'" in condition["message"]

    live(monkeypatch, life)


def test_a_machine_that_runs_its_system_still_does_after_the_operator_was_restarted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def life() -> None:
        rack = Rack()
        rack.declare("node-01")
        async with rack.running():
            await rack.reach("Ready")
            rack.deploy("node-01")
            await rack.reach("Deployed")
            await asyncio.sleep(60)  # what there is left to say of it
        written = len(rack.history)
        async with rack.running():
            await asyncio.sleep(24 * 3600)
            assert rack.metal("node-01").power is PowerState.ON
            assert rack.metal("node-01").disks == (CHECKSUM, OWNED)
            assert len(rack.history) == written  # nothing was done to it
            rack.release("node-01")
            await rack.reach("Ready")
            assert rack.metal("node-01").disks == (BLANK, BLANK)

    live(monkeypatch, life)


STEPS = ("BootRamdisk", "WriteImage", "BootDisk", "EraseDisks")


@pytest.mark.parametrize("step", STEPS)
def test_a_life_goes_on_when_the_operator_restarts_in_the_middle(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    async def until_step(rack: Rack) -> None:
        rack.declare("node-01", "simulated://slow")
        await rack.reach("Ready")
        rack.deploy("node-01")
        if step == "EraseDisks":
            await rack.reach("Deployed")
            rack.release("node-01")
        await rack.until(lambda: rack.status("node-01").get("operation", {}).get("step") == step)
        await asyncio.sleep(10)

    async def life() -> None:
        rack = Rack()
        async with rack.running():
            await until_step(rack)
        async with rack.running():
            if step != "EraseDisks":
                await rack.reach("Deployed", seconds=2 * 3600)
                rack.release("node-01")
            await rack.reach("Ready", seconds=2 * 3600)
            assert rack.metal("node-01").disks == (BLANK, BLANK)

    live(monkeypatch, life)


def test_a_live_machine_is_adopted_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare(
                "node-01", allocation={"owner": "team-search"}, deployment={"existing": True}, bootMACAddress=None
            )
            await rack.until(lambda: rack.status("node-01").get("power") == "On")
            assert rack.status("node-01")["phase"] == "Deployed"

    live(monkeypatch, life)


def test_a_rescue_opens_and_leaves_the_disks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare("node-01")
            await rack.reach("Ready")
            rack.deploy("node-01")
            await rack.reach("Deployed")
            rack.change("node-01", rescue={"sshAuthorizedKeys": ["ssh-ed25519 AAAA"]})
            await rack.reach("Rescue")
            assert rack.status("node-01")["rescue"]["addresses"] == ["198.18.0.1"]
            assert rack.metal("node-01").disks == (CHECKSUM, OWNED)
            await asyncio.sleep(3600)
            assert rack.condition("node-01", "Ready")["reason"] == "RescueOpen"  # it is heard all the time
            rack.change("node-01", rescue=None)
            await rack.reach("Deployed")
            assert rack.metal("node-01").power is PowerState.ON

    live(monkeypatch, life)


def test_a_machine_ends_with_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        async with Rack().running() as rack:
            rack.declare("node-01")
            await rack.reach("Ready")
            rack.delete("node-01")
            await rack.until(lambda: "node-01" not in rack.records)
            await asyncio.sleep(1)
            assert rack.metal_if_any("node-01") is None

    live(monkeypatch, life)


def test_a_simulated_machine_at_rest_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it costs beside its record: its metal, its driver, its BMC's queue, what sessions keep."""
    grown: list[int] = []

    async def life() -> None:
        async with Rack().running() as rack:
            for number in range(1, 121):
                if number in (20, 120):
                    gc.collect()
                    grown.append(_simulated_bytes())
                name = f"node-{number:03}"
                rack.declare(name)
                await rack.reach("Ready", name)

    tracemalloc.start()
    try:
        live(monkeypatch, life)
    finally:
        tracemalloc.stop()
    assert all((later - sooner) / 100 < 2048 for sooner, later in pairwise(grown)), grown


def _simulated_bytes() -> int:
    """Bytes that were taken in the modules of the simulation and of its drivers."""
    modules = ("*/rackwright/simulated/*", "*/rackwright/power/*")
    traces = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, module) for module in modules])
    return sum(trace.size for trace in traces.statistics("filename"))
