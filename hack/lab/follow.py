"""Following a machine through its life: waits on the API server's watch, tells what it is doing, ends at a phase."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

from lab.errors import Unfit
from lab.installation import MACHINES, Installation

_READY_MESSAGE = "{.status.conditions[?(@.type=='Ready')].message}"
_COLUMNS = "{.status.phase}|{.status.operation.step}|{.status.operation.attempt}|" + _READY_MESSAGE + "{'\\n'}"


@dataclass(frozen=True)
class Sight:
    """What a machine's record said at one moment."""

    phase: str
    step: str
    attempt: str
    message: str

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

    Raises `Unfit` when it is Failed and that wasn't wanted, or when it takes longer than `seconds`.
    """
    command = [
        str(installation.plane.kubectl),
        "get",
        "bmm",
        node,
        "-n",
        MACHINES,
        "--watch",
        "-o",
        f"jsonpath={_COLUMNS}",
    ]
    environment = {"KUBECONFIG": str(installation.plane.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    watch = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, bufsize=1
    )
    timer = threading.Timer(seconds, watch.kill)
    timer.start()
    seen: Sight | None = None
    try:
        for line in watch.stdout or ():
            seen = Sight(*(line.rstrip("\n").split("|", 3)))
            say(str(seen))
            if seen.phase in until and not seen.step:
                return seen
            if seen.phase == "Failed" and "Failed" not in until:
                raise Unfit(f"{node} has Failed: {seen.message}", f"see kubectl describe bmm {node} -n {MACHINES}")
    finally:
        timer.cancel()
        watch.kill()
        watch.wait()
        if watch.stdout:
            watch.stdout.close()
    raise Unfit(
        f"{node} is not {' or '.join(until)} after {seconds:.0f} s; last seen: {seen or 'nothing'}",
        f"see kubectl describe bmm {node} -n {MACHINES}, {installation.operator.log} and its console log",
    )


def ssh(installation: Installation, node: str, command: str, *, user: str = "debian") -> str:
    """What a command on the installed system prints; the host is verified against the keys in status."""
    installed = installation.machine(node)["status"]["installed"]
    address = installed["addresses"][0]
    known_hosts = installation.ssh_key.with_name(f"known_hosts-{node}")
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
