"""A scripted BMC and webhook, the connections of an operator that has little patience, and what it would log."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.unit.power.certificates import Authority
from tests.unit.power.scripted_bmc import IMPATIENT, ScriptedBmc
from tests.unit.power.scripted_webhook import ScriptedWebhook

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
