"""What stops a laboratory command, said to a person: what is wrong, and what to do about it.

`Unfit` is one thing that is wrong, `Several` (an `Unfit` too) is more than one, none of which hides the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence


class Unfit(Exception):
    """The machine, or what was asked of it, doesn't allow the command; `remedy` says what would."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n  remedy: {self.remedy}"


class Several(Unfit):
    """More than one thing is wrong, each with its own remedy."""

    every: tuple[Unfit, ...]

    def __init__(self, problems: Sequence[Unfit]) -> None:
        self.every = tuple(each for one in problems for each in (one.every if isinstance(one, Several) else (one,)))
        super().__init__("; ".join(each.problem for each in self.every), "; ".join(e.remedy for e in self.every))

    def __str__(self) -> str:
        return "\n".join(map(str, self.every))


def together(*steps: Callable[[], object]) -> None:
    """Take every step, whatever the ones before it met, and raise what they met together at the end."""
    met: list[Exception] = []
    for step in steps:
        try:
            step()
        except Exception as error:  # noqa: BLE001 (raised below, once the other steps had their turn)
            met.append(error)
    match met:
        case []:
            return
        case [only]:
            raise only
    unfit = [error for error in met if isinstance(error, Unfit)]
    if len(unfit) < len(met):
        raise ExceptionGroup("several steps failed", met)
    raise Several(unfit)


def run(command: Callable[[], int | None]) -> int:
    """Run a command's main function; an `Unfit` or Ctrl-C ends it with a sentence, never a traceback."""
    try:
        return command() or 0
    except Unfit as unfit:
        print(unfit, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
