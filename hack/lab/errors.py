"""What stops a laboratory command, said to a person: what is wrong, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class Unfit(Exception):
    """The machine, or what was asked of it, doesn't allow the command; `remedy` says what would."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def run(command: Callable[[], int | None]) -> int:
    """Run a command's main function; an `Unfit` or Ctrl-C ends it with a sentence, never a traceback."""
    try:
        return command() or 0
    except Unfit as unfit:
        print(f"{unfit.problem}\n  remedy: {unfit.remedy}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
