"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="session", autouse=True)
def unicode_tables() -> None:
    """Hypothesis makes tables of Unicode at the first text in a new checkout: in nobody's time who is timed.

    It takes longer than it allows a test to draw ten examples.
    """

    @settings(max_examples=1, database=None, suppress_health_check=[HealthCheck.too_slow])  # this is what is slow
    @given(st.text())
    def draw(_: str) -> None:
        """Want one."""

    draw()
