"""What the API server tells of machines: a line for each version of a record, for as long as the operator lives.

It comes from `kubectl get --watch`: a command that only follows machines needs no more than the standard library.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from lab.errors import Unfit

if TYPE_CHECKING:
    from lab.installation import Operated
    from lab.process import Service

MARK = "|"
"""Between two columns."""


@dataclass
class News:
    """The output of a watch."""

    columns: int
    told: int
    complaints: IO[bytes]
    operator: Service
    operator_ended: int
    """Becomes readable then (pidfd_open(2))."""
    unread: bytes = b""

    def wait(self, seconds: float) -> list[list[str]]:
        """The columns of each line since the last time, once there are any or time is up."""
        happened = select.select([self.told, self.operator_ended], [], [], seconds)[0]
        if self.told in happened:
            if not (chunk := os.read(self.told, 1 << 16)):
                problem = self.complaints.read().decode(errors="replace").strip() or "nothing"
                raise Unfit(f"kubectl's watch has ended; it says: {problem}", "see that the cluster answers")
            *lines, self.unread = (self.unread + chunk).split(b"\n")
            return [found for line in lines if len(found := self._split(line)) == self.columns]
        if self.operator_ended in happened:
            self.operator.require()
        return []

    def _split(self, line: bytes) -> list[str]:
        """The last column may hold anything; what a message has after its first line has too few, and is left out."""
        return line.decode(errors="replace").split(MARK, self.columns - 1)


@contextmanager
def news(here: Operated, *which: str, columns: Sequence[str]) -> Iterator[News]:
    """Watch the machines that these arguments of `kubectl get bmm` name; each column is a JSONPath.

    Raises:
        Unfit: there is no operator; in `wait`, it or the watch has ended.
    """
    operator_ended = os.pidfd_open(here.operator.require())
    paths = MARK.join(columns)
    watch = subprocess.Popen(
        [str(here.plane.kubectl), "get", "bmm", *which, "--watch", "-o", f"jsonpath={paths}{{'\\n'}}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"KUBECONFIG": str(here.plane.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )
    told, complaints = cast("IO[bytes]", watch.stdout), cast("IO[bytes]", watch.stderr)  # they are pipes
    with watch:
        try:
            yield News(len(columns), told.fileno(), complaints, here.operator, operator_ended)
        finally:
            watch.kill()
            os.close(operator_ended)
