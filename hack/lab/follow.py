"""Following a machine through its life: waits on the API server's watch, tells what it is doing, ends at a phase.

It waits for nothing that can't come: a machine that waits for a person, or an operator that has died, ends it too.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

from lab.errors import Unfit
from lab.installation import MACHINES, Installation
from lab.process import Service

PATIENCE = 30.0
"""Seconds that a machine may be Stalled: long enough for what was applied beside it to be seen, a Secret for one."""
_CONDITION = "{{.status.conditions[?(@.type=='{}')].{}}}"
_COLUMNS = (
    "{.status.phase}",
    "{.status.operation.step}",
    "{.status.operation.attempt}",
    "{.metadata.generation}",
    "{.status.observedGeneration}",
    _CONDITION.format("Stalled", "status"),
    _CONDITION.format("Stalled", "reason"),
    _CONDITION.format("Ready", "message"),
)


@dataclass(frozen=True)
class Sight:
    """What a machine's record said at one moment."""

    phase: str
    step: str
    attempt: str
    generation: str
    observed: str
    """The generation that status is about."""
    stalled: str
    """The condition's status."""
    reason: str
    """Why it is stalled."""
    message: str

    @classmethod
    def read(cls, line: str) -> Sight:
        """From a line of the watch; the message comes last, it may hold anything."""
        return cls(*line.split("|", len(_COLUMNS) - 1))

    @property
    def waits_for_a_person(self) -> bool:
        """Whether nothing goes on by itself, as spec is now."""
        return self.stalled == "True" and self.observed == self.generation

    def __str__(self) -> str:
        if not self.phase:
            return "declared"
        attempt = f" (attempt {self.attempt})" if self.attempt not in ("", "1") else ""
        step = f", {self.step}{attempt}" if self.step else ""
        return f"{self.phase}{step}: {self.message}"


def follow(
    installation: Installation,
    node: str,
    *,
    until: Collection[str],
    seconds: float,
    say: Callable[[str], None] = lambda _: None,
) -> Sight:
    """Wait until the machine is in one of these phases and at rest, saying each change.

    Raises `Unfit` when it is Failed and that wasn't wanted, when it stays Stalled for longer than `PATIENCE`, when the
    operator has died, and when it takes longer than `seconds`.
    """
    remedy = f"see kubectl describe bmm {node} -n {MACHINES}, {installation.operator.log} and its console log"
    seen: Sight | None = None
    deadline, patience = time.monotonic() + seconds, float("inf")
    with _News.of(installation, node) as news:
        while (left := min(deadline, patience) - time.monotonic()) > 0:
            for seen in news.wait(left):
                say(str(seen))
                if seen.phase in until and not seen.step:
                    return seen
                if seen.phase == "Failed" and "Failed" not in until:
                    raise Unfit(f"{node} has Failed: {seen.message}", remedy)
                patience = min(patience, time.monotonic() + PATIENCE) if seen.waits_for_a_person else float("inf")
    if seen is not None and patience < deadline:
        raise Unfit(f"{node} is {seen.phase} and waits for a person: {seen.reason}: {seen.message}", remedy)
    wanted = " or ".join(until)
    raise Unfit(f"{node} is not {wanted} after {seconds:.0f} s; last seen: {seen or 'nothing'}", remedy)


@dataclass
class _News:
    """What the API server tells of one machine, for as long as the operator lives."""

    told: int
    """The output of a watch, a line for each version of the machine's record."""
    complaints: IO[bytes]
    operator: Service
    operator_ended: int
    """Becomes readable then (pidfd_open(2))."""
    unread: bytes = b""

    @classmethod
    @contextmanager
    def of(cls, installation: Installation, node: str) -> Iterator[_News]:
        """Of this machine; an `Unfit` if there is no operator."""
        operator_ended = os.pidfd_open(installation.operator.require())
        watch = subprocess.Popen(
            [
                *(str(installation.plane.kubectl), "get", "bmm", node, "-n", MACHINES),
                *("--watch", "-o", f"jsonpath={'|'.join(_COLUMNS)}{{'\\n'}}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"KUBECONFIG": str(installation.plane.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        )
        told, complaints = cast("IO[bytes]", watch.stdout), cast("IO[bytes]", watch.stderr)  # they are pipes
        with watch:
            try:
                yield cls(told.fileno(), complaints, installation.operator, operator_ended)
            finally:
                watch.kill()
                os.close(operator_ended)

    def wait(self, seconds: float) -> list[Sight]:
        """What has been seen of it since the last time, once there is something or time is up."""
        happened = select.select([self.told, self.operator_ended], [], [], seconds)[0]
        if self.told in happened:
            if not (chunk := os.read(self.told, 1 << 16)):
                problem = self.complaints.read().decode(errors="replace").strip() or "nothing"
                raise Unfit(f"kubectl's watch has ended; it says: {problem}", "see that the cluster answers")
            *lines, self.unread = (self.unread + chunk).split(b"\n")
            # A message of several lines goes on without columns.
            whole = [line.decode(errors="replace") for line in lines if line.count(b"|") >= len(_COLUMNS) - 1]
            return [Sight.read(line) for line in whole]
        if self.operator_ended in happened:
            self.operator.require()
        return []


def ssh(installation: Installation, node: str, command: str, *, user: str = "debian", at: str = "") -> str:
    """What a command on the installed system prints; the host is verified against the keys in status.

    One that runs `at` an address that status doesn't know any more is verified against the keys of the last time.
    """
    known_hosts = installation.ssh_key.with_name(f"known_hosts-{node}")
    if not (address := at):
        installed = installation.machine(node)["status"]["installed"]
        address = installed["addresses"][0]
        known_hosts.write_text("".join(f"{address} {key}\n" for key in installed["sshHostKeys"]))
    done = subprocess.run(
        [
            *("ssh", "-i", installation.ssh_key, "-o", f"UserKnownHostsFile={known_hosts}"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", "-F", "none"),
            *(f"{user}@{address}", command),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise Unfit(f"ssh {user}@{address} failed: {done.stderr.strip()}", f"see the console log of {node}")
    return done.stdout.strip()
