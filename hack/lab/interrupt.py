"""Ctrl-C where something has to be removed: it ends once what is under way, and never the removing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from lab.console import tell
from lab.errors import Unfit

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Like `asyncio.run`; a SIGINT cancels it, whatever runs just then, and those after it do nothing.

    KeyboardInterrupt once it has ended.
    """
    pressed = False

    async def main() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def press(*_: object) -> None:
            nonlocal pressed
            if not pressed and task is not None and not task.done():
                pressed = True
                loop.call_soon_threadsafe(task.cancel)

        signal.signal(signal.SIGINT, press)
        return await work

    before = signal.getsignal(signal.SIGINT)
    try:
        result = asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except Unfit as unfit:  # which can come of it: kubectl on the same terminal is interrupted as well
        if not pressed:
            raise
        tell(str(unfit))
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
    return result
