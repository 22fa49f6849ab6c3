"""BMCs that do as they are told, and the connections of an operator that has little patience."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.unit.power.certificates import Authority
from tests.unit.power.ipmi_simulator import Simulator
from tests.unit.power.scripted_bmc import IMPATIENT, ScriptedBmc

from lab import ipmi, system
from rackwright.power.connect import Connections


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority("Rack A")


@pytest.fixture
async def bmc() -> AsyncIterator[ScriptedBmc]:
    scripted = ScriptedBmc()
    yield scripted
    await scripted.stop()


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    kept = Connections(concurrency=8, limits=IMPATIENT)
    yield kept
    await kept.close(within=2.0)


@pytest.fixture(scope="session")
def ipmi_sim() -> None:
    """OpenIPMI's simulator is there: installed by root, or a word on how to do that."""
    if not ipmi.is_installed():
        system.ensure_packages(ipmi.PACKAGES)


@pytest.fixture
def simulator(tmp_path: Path, ipmi_sim: None) -> Iterator[Simulator]:  # noqa: ARG001 (it has to be there)
    simulated = Simulator(tmp_path)
    yield simulated
    simulated.stop()
