"""Long-running processes of a laboratory: started once, found again by pid *and* start time, stopped for sure.

A pid alone can be another process's by the time it is used; the kernel's start time beside it can't.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import Unfit


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat (proc(5)), None for a process that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def wait_until(condition: Callable[[], bool], seconds: float, *, every: float = 0.1) -> bool:
    """Poll a condition that has no event to wait on; whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


_CHILDREN: list[subprocess.Popen[bytes]] = []
"""What this command started and nobody has collected yet: Python warns of a child whose handle is gone."""


@dataclass(frozen=True)
class Service:
    """A process with a pid file and a log in `folder`, independent of the command that started it."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """Its standard output and error."""
        return self.folder / f"{self.name}.log"

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    @property
    def pid(self) -> int | None:
        """The running process, if it still is the one that was started."""
        try:
            pid, started = self._pid_file.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if _start_time(int(pid)) == started else None

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        ready: Callable[[], bool],
        seconds: float = 60,
        env: Mapping[str, str] | None = None,
        namespace: str | None = None,
    ) -> None:
        """Start it unless it runs, in a network namespace if one is named, and wait until `ready`."""
        if self.pid is None:
            command = [*(["ip", "netns", "exec", namespace] if namespace else []), *map(str, argv)]
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=None if env is None else {**os.environ, **env},
                )
            _CHILDREN.append(process)
            self._pid_file.write_text(f"{process.pid} {_start_time(process.pid)}")
            # Reaped if it ends while this command still runs; init reaps it afterwards.
            died: Callable[[], bool] = lambda: process.poll() is not None  # noqa: E731
        else:
            died = lambda: self.pid is None  # noqa: E731
        if not wait_until(lambda: died() or ready(), seconds) or died():
            tail = self._end_of_log()
            self.stop()
            raise Unfit(f"{self.name} did not start within {seconds:.0f} s. {tail}", f"read {self.log}")

    def require(self) -> int:
        """Its pid; an `Unfit` with its last words if it doesn't run."""
        if (pid := self.pid) is None:
            raise Unfit(f"{self.name} doesn't run. {self._end_of_log()}", f"read {self.log}")
        return pid

    def _end_of_log(self) -> str:
        if not self.log.exists():
            return "It has no log: it was never started."
        return f"The end of {self.log}:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> None:
        """Send its whole process group a signal, if it runs."""
        if (pid := self.pid) is not None:
            os.killpg(pid, sign)

    def stop(self, *, seconds: float = 15) -> None:
        """End its whole process group: politely, then for sure; waits on the kernel, not on a clock."""
        if (pid := self.pid) is not None:
            descriptor = os.pidfd_open(pid)
            try:
                for sign, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
                    try:
                        os.killpg(pid, sign)
                    except ProcessLookupError:
                        break
                    if select.select([descriptor], [], [], patience)[0]:
                        break
            finally:
                os.close(descriptor)
        _collect()
        self._pid_file.unlink(missing_ok=True)


def _collect() -> None:
    """Let go of those children that have ended, however they did: stopped, killed, or ended by another command."""
    _CHILDREN[:] = [child for child in _CHILDREN if child.poll() is None]


@atexit.register
def _leave() -> None:
    """What still runs is to outlive this command: with a return code set, Python doesn't warn of it."""
    _collect()
    for child in _CHILDREN:
        child.returncode = 0
