"""Progress for people: a live line on a terminal, plain lines with times elsewhere.

All of it goes to standard error: standard output is for what a command answers, so that scripts can use it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


def tell(sentence: str) -> None:
    """Say something beside the stages."""
    print(f"  {sentence}", file=sys.stderr, flush=True)


@dataclass
class Stage:
    """One stage under way; `say` changes what it shows."""

    title: str
    note: str = ""
    started: float = field(default_factory=time.monotonic)

    def say(self, note: str) -> None:
        """What it is doing now; a plain line when nobody watches live."""
        if note != self.note:
            self.note = note
            if not sys.stderr.isatty():
                print(f"      {note}", file=sys.stderr, flush=True)


_HANDED_ON = "RACKWRIGHT_STAGE_TIMES"
CONTINUED = _HANDED_ON in os.environ
"""Whether this program goes on with what another one began."""
TIMES: dict[str, float] = json.loads(os.environ.pop(_HANDED_ON, "{}"))
"""Seconds that each finished stage took, in order; stages within a stage are part of it and not listed."""


def hand_on() -> None:
    """Let the program that replaces this one (execve(2)) know of it, and count on: its stages come after these."""
    os.environ[_HANDED_ON] = json.dumps(TIMES)


_UNDER_WAY: list[Stage] = []
"""The stages that have begun, the innermost last: it alone is drawn."""


@contextmanager
def stage(title: str, expect: str = "") -> Iterator[Stage]:
    """Show a stage: its name and how long it should take at the start, how long it took at the end."""
    current = Stage(title)
    live = sys.stderr.isatty()
    over = threading.Event()
    indent = "  " * (len(_UNDER_WAY) + 1)
    expected = f" (about {expect})" if expect else ""

    def draw() -> None:
        while not over.wait(0.2):
            if _UNDER_WAY[-1] is current:
                line = f"{indent}… {title} {time.monotonic() - current.started:3.0f} s{expected}  {current.note}"
                sys.stderr.write("\r\033[K" + line[: shutil.get_terminal_size().columns - 1])
                sys.stderr.flush()

    painter = threading.Thread(target=draw, daemon=True)
    _UNDER_WAY.append(current)
    if live:
        painter.start()
    else:
        print(f"{indent}… {title}{expected}", file=sys.stderr, flush=True)
    mark = "✗"
    try:
        yield current
        mark = "✓"
    finally:
        over.set()
        if live:
            painter.join()
            sys.stderr.write("\r\033[K")
        _UNDER_WAY.pop()
        seconds = time.monotonic() - current.started
        if not _UNDER_WAY:
            TIMES[title] = seconds
        print(f"{indent}{mark} {title} {seconds:.0f} s", file=sys.stderr, flush=True)
