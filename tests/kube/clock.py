"""Runs the operator by a clock that a test sets: `CLOCK=FILE python -m tests.kube.clock run ...`.

The file holds by how many seconds the calendar is off. The monotonic clock is left alone: the kernel's can't be set.
Everything in the operator that asks what time it is asks `datetime.now`; the API's models read times and never ask.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from rackwright import __main__ as operator

OFFSET = Path(os.environ["CLOCK"])


class Clock(datetime):
    """A `datetime` whose now is off."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        """What the operator takes for the present."""
        return datetime.now(tz) + timedelta(seconds=float(OFFSET.read_text()))


def set_operator_by_it() -> None:
    """Let every module of the operator look at this clock."""
    for name, module in list(sys.modules.items()):
        asks = name.startswith("rackwright.") and not name.startswith("rackwright.api")
        if asks and getattr(module, "datetime", None) is datetime:
            module.datetime = Clock  # type: ignore[attr-defined]


if __name__ == "__main__":
    set_operator_by_it()
    operator.command()
