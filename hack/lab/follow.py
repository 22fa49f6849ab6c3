"""Following a machine through its life: waits on the API server's watch, tells what it is doing, ends at a phase.

It waits for nothing that can't come: a machine that waits for a person, or an operator that has died, ends it too.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from lab.errors import Unfit
from lab.installation import MACHINES, Installation
from lab.news import news

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
    with news(installation, node, "-n", MACHINES, columns=_COLUMNS) as told:
        while (left := min(deadline, patience) - time.monotonic()) > 0:
            for seen in (Sight(*columns) for columns in told.wait(left)):
                say(str(seen))
                answers = seen.observed == seen.generation  # else it tells of an earlier spec
                if answers and seen.phase in until and not seen.step:
                    return seen
                if answers and seen.phase == "Failed" and "Failed" not in until:
                    raise Unfit(f"{node} has Failed: {seen.message}", remedy)
                patience = min(patience, time.monotonic() + PATIENCE) if seen.waits_for_a_person else float("inf")
    if seen is not None and patience < deadline:
        raise Unfit(f"{node} is {seen.phase} and waits for a person: {seen.reason}: {seen.message}", remedy)
    wanted = " or ".join(until)
    raise Unfit(f"{node} is not {wanted} after {seconds:.0f} s; last seen: {seen or 'nothing'}", remedy)


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
