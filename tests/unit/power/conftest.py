"""A scripted BMC, and the connections of an operator that has little patience."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.unit.power.certificates import Authority
from tests.unit.power.scripted_bmc import IMPATIENT, ScriptedBmc

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
