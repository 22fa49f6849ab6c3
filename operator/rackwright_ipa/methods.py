"""Which way a disk was really erased, told from the commands that the agent ran.

The agent tries the disk's own erase, may fall back to another method and returns nothing that says which it was, so
the commands that succeeded are observed. That holds for vendors' hardware managers too, as long as they run
commands the agent's way.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Command = tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """A method's name in the evidence, and whether it may leave the disk neither zero nor one."""

    name: str
    scrambles: bool


METADATA = Method("Metadata", scrambles=False)
FAILED = Method("Failed", scrambles=False)
UNKNOWN = Method("Unknown", scrambles=False)


def method_of(commands: Sequence[Command]) -> Method:
    """The method behind the last of the commands that erases; UNKNOWN if none of them does."""
    for command in reversed(commands):
        match command:
            case ["hdparm", *options] if "--security-erase-enhanced" in options:
                # ACS: writes a pattern of the vendor's choice; on self-encrypting disks, a new key.
                return Method("ATAEnhancedSecureErase", scrambles=True)
            case ["hdparm", *options] if "--security-erase" in options:
                return Method("ATASecureErase", scrambles=False)
            case ["nvme", "format", *options] if _option(options, "-s") == "2":
                return Method("NVMeCryptoErase", scrambles=True)
            case ["nvme", "format", *_]:
                # NVM Command Set specification, Format NVM: what a user data erase leaves is indeterminate.
                return Method("NVMeUserDataErase", scrambles=True)
            case ["blkdiscard", *options]:
                return Method("SecureDiscard" if "--secure" in options else "Discard", scrambles=False)
            case ["shred", *options]:
                return Method("Overwrite", scrambles="--zero" not in options)
            case _:
                continue
    return UNKNOWN


def _option(options: Sequence[str], name: str) -> str | None:
    """The word after an option."""
    return next((value for option, value in itertools.pairwise(options) if option == name), None)


class CommandLog:
    """The commands that succeeded on this thread, while somebody listens; disks are erased one per thread."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def observing(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, noting what succeeds."""

        def observed(*command: object, **options: object) -> Any:
            answer = execute(*command, **options)
            commands: list[Command] | None = getattr(self._of_thread, "commands", None)
            if commands is not None:
                commands.append(tuple(map(str, command)))
            return answer

        return observed

    @contextmanager
    def listening(self) -> Iterator[list[Command]]:
        """The list that this thread's commands are noted in, in order."""
        commands: list[Command] = []
        self._of_thread.commands = commands
        try:
            yield commands
        finally:
            self._of_thread.commands = None
