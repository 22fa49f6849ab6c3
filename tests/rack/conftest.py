"""The virtual rack that the tests of this folder share: brought up once, removed at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.laboratories import own

from lab import rack as racks
from lab.rack import Rack

NAME = f"test{os.environ.get('PYTEST_XDIST_WORKER', '')}"
"""Two files that are tested side by side have a rack each."""


@pytest.fixture(scope="session")
def rack() -> Iterator[Rack]:
    """A rack of two nodes, UEFI and Legacy BIOS."""
    with own(NAME) as name:
        yield racks.up(name)
