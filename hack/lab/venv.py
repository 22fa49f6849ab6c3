"""Python environments, each from a lock file of pinned versions and hashes, cached like every build product."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lab import cache, console
from lab.errors import Unfit
from lab.paths import REPOSITORY
from lab.system import Room

LOCKS = REPOSITORY / "hack/requirements"
NEEDS_GIB = 1


def key(name: str) -> str:
    """What an environment is built from: its lock file and the interpreter."""
    return cache.fingerprint([LOCKS / f"{name}.txt", sys.version])


def ensure(name: str = "dev") -> Path:
    """The interpreter of the environment that `hack/requirements/NAME.txt` pins, made now unless it is there."""
    if sys.version_info < (3, 11):  # noqa: UP036 (whatever python3 is there may start this)
        raise Unfit(f"Python {sys.version.split()[0]} is too old.", "use Python 3.11 or newer")

    def build(folder: Path) -> None:
        log = folder / "pip.log"
        with log.open("w") as out:
            for command in (
                [sys.executable, "-m", "venv", str(folder)],
                [
                    str(folder / "bin/python"),
                    "-m",
                    "pip",
                    "install",
                    "--no-deps",
                    "--require-hashes",
                    "-r",
                    str(LOCKS / f"{name}.txt"),
                ],
            ):
                if subprocess.run(command, stdout=out, stderr=out, check=False).returncode:
                    tail = "\n".join(log.read_text().splitlines()[-8:])
                    raise Unfit(f"The Python environment {name!r} could not be made:\n{tail}", f"read {log}")

    return cache.built(f"venv-{name}", key(name), build, needs_gib=NEEDS_GIB) / "bin/python"


def room(name: str = "dev") -> list[Room]:
    """The disk space that making it will need."""
    return cache.room_for(f"venv-{name}", key(name), NEEDS_GIB)


def is_entered(name: str = "dev") -> bool:
    """Whether this process runs in the environment."""
    return Path(sys.prefix).resolve() == cache.path_of(f"venv-{name}", key(name)).resolve()


def enter(name: str = "dev") -> None:
    """Go on in the project's environment, with the project's own packages: replaces this process unless it is there."""
    python = ensure(name)
    paths = [str(REPOSITORY / "operator"), str(REPOSITORY / "hack")]
    if not is_entered(name):
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        console.hand_on()
        os.execv(python, [str(python), *sys.argv])  # noqa: S606 (the same command, where its libraries are)
    sys.path[:0] = [path for path in paths if path not in sys.path]
