"""A clock that stands still while anything is to be done and jumps to the next timer when nothing is.

The whole operator lives by it, so that an hour of a rack's life takes a second and is the same hour each time: what an
executor's thread would do is done at once, and nobody looks at another clock.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, TypeVar

import pytest

import rackwright.app  # noqa: F401 (every module that asks what time it is)

T = TypeVar("T")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Standstill(Exception):
    """Nobody waits for anything that could still come."""


class _Selector(selectors.SelectSelector):
    """Lets time pass instead of waiting for connections, which nobody has."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Standstill
            self.elapsed += timeout
        return ready


class Loop(asyncio.SelectorEventLoop):
    """An event loop by a clock of its own, without threads."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.elapsed

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        del executor
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 (raised where it is awaited, as an executor does)
            done.set_exception(error)
        return done


def live(patch: pytest.MonkeyPatch, life: Callable[[], Coroutine[Any, Any, T]], *, chance: int = 0) -> T:
    """Run a coroutine by a clock that begins at nought, in a world where chance begins anew."""
    loop = Loop()

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return (EPOCH + timedelta(seconds=loop.time())).astimezone(tz)

    before = random.getstate()
    with patch.context() as patched, asyncio.Runner(loop_factory=lambda: loop) as runner:
        patched.setattr(time, "monotonic", loop.time)
        for name, module in list(sys.modules.items()):
            if name.startswith("rackwright.") and not name.startswith("rackwright.api"):
                if getattr(module, "datetime", None) is datetime:
                    patched.setattr(module, "datetime", Clock)
                if getattr(module, "monotonic", None) is not None:
                    patched.setattr(module, "monotonic", loop.time)
        random.seed(chance)
        try:
            return runner.run(life())
        finally:
            random.setstate(before)
