"""BMCs and a webhook that do as they are told, the connections of an impatient operator, and what it would log."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.unit.power.certificates import Authority
from tests.unit.power.ipmi_simulator import Simulator
from tests.unit.power.scripted_bmc import IMPATIENT, ScriptedBmc
from tests.unit.power.scripted_webhook import ScriptedWebhook

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
async def hook() -> AsyncIterator[ScriptedWebhook]:
    scripted = ScriptedWebhook()
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


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that an operator would log at DEBUG; caplog listens to sushy's own loggers too, as nobody else does."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)
