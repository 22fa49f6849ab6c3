"""A real IPMI BMC in software, whose machine is a file: OpenIPMI's simulator, with habits that the test gives it.

What it was asked, it tells itself: each message as it arrived after decryption.
"""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import IO

from lab import ipmi
from lab.process import wait_until
from rackwright.power.port import Credentials, Endpoint

ACCOUNT = Credentials("admin", "p4ss-w0rd$%&/()=")

_CHASSIS = """\
#!/bin/sh
cd "$(dirname "$0")" || exit 1
operation=$1
shift
while [ $# -gt 0 ]; do
  case "$operation $1" in
    "get power") : > asked; while [ -e slow ]; do sleep 0.02; done; echo "power:$(cat power)"; shift ;;
    "get "*) echo "$1:default"; shift ;;
    "set power") echo "power $2" >> changes; [ -e deaf ] || echo "$2" > power; shift 2 ;;
    "set shutdown")
      echo shutdown >> changes
      [ ! -e refuses-shutdown ] || exit 1
      [ -e deaf ] || [ -e ignores-shutdown ] || echo 0 > power
      shift 2 ;;
    *) shift 2 ;;
  esac
done
"""
_RECEIVED = re.compile(r"Receive message:\n channel=1 netfn=(\S+) cmd=(\S+) .*\n.*\n((?: [0-9a-f]{2})*)")

_BEGUN = re.compile(r"Activate session: Session started, .*\n.*\n.*\n((?: [0-9a-f]{2}){32})")
SUITE_3 = (1, 1, 1)
"""Its algorithms for authentication, integrity and confidentiality: SHA-1, SHA-1, AES-128 (IPMI 2.0, table 22-20)."""


def free_port() -> int:
    """A UDP port of the loopback that nothing listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def endpoint(port: int, credentials: Credentials | None = ACCOUNT) -> Endpoint:
    """A BMC's endpoint on the loopback."""
    return Endpoint(f"ipmi://127.0.0.1:{port}", credentials)


class Simulator:
    """One BMC in a folder of its own; its habits may change at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.port = free_port()
        self.power = 0
        chassis = folder / "chassis"
        chassis.write_text(_CHASSIS)
        chassis.chmod(0o755)

    @property
    def power(self) -> int:
        """1 for on, 0 for off."""
        return int((self._folder / "power").read_text())

    @power.setter
    def power(self, value: int) -> None:
        (self._folder / "power").write_text(f"{value}\n")

    def habit(self, name: str, *, on: bool = True) -> None:
        """`deaf` accepts and does nothing, `slow` keeps a question waiting; `refuses-shutdown`, `ignores-shutdown`."""
        (self._folder / name).touch() if on else (self._folder / name).unlink()

    @property
    def changes(self) -> list[str]:
        """What the machine was told to do."""
        told = self._folder / "changes"
        return told.read_text().splitlines() if told.exists() else []

    @property
    def asked(self) -> bool:
        """Is it looking up the power state, or was it ever?"""
        return (self._folder / "asked").exists()

    def received(self, function: int, command: int) -> list[str]:
        """The data of such messages, in hexadecimal, as they arrived over the network."""
        return [
            data.strip()
            for netfn, cmd, data in _RECEIVED.findall(self._said())
            if (int(netfn, 16), int(cmd, 16)) == (function, command)
        ]

    def suites(self) -> list[tuple[int, ...]]:
        """The algorithms of each session that was begun, as it was asked for and granted (IPMI 2.0, table 13-9)."""
        asked = [bytes.fromhex(data) for data in _BEGUN.findall(self._said())]
        return [(it[12], it[20], it[28]) for it in asked]

    def sessions(self) -> tuple[int, int]:
        """How many were begun, and how many ended."""
        said = self._said()
        return said.count("Session started"), said.count("Session closed: Closed due to request")

    def start(self, password: str = ACCOUNT.password) -> Endpoint:
        """Switch the BMC on, and wait until it listens; how it is reached."""
        chassis = str(self._folder / "chassis")
        bmc = ipmi.Simulated("127.0.0.1", self.port, ACCOUNT.username, password, chassis)
        (self._folder / "bmc.conf").write_text(bmc.configuration())
        (self._folder / "bmc.emu").write_text(f"{ipmi.STARTUP}debug msg\n")
        state = self._folder / f"state-{len(list(self._folder.glob('state-*')))}"  # users are kept in it
        state.mkdir()
        self._log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(
            ["stdbuf", "--output=L", "ipmi_sim", "-c", "bmc.conf", "-f", "bmc.emu", "-s", str(state), "-d"],
            cwd=self._folder,
            stdin=subprocess.PIPE,  # it ends at the end of its input
            stdout=self._log,
            stderr=self._log,
        )
        assert wait_until(self._listens, 10, every=0.01), self._said()
        return endpoint(self.port, Credentials(ACCOUNT.username, password))

    def send_signal(self, sign: int) -> None:
        """SIGSTOP makes it silent, SIGCONT lets it go on."""
        assert self._process is not None
        self._process.send_signal(sign)

    def stop(self) -> None:
        """Pull the BMC's plug."""
        if self._process is not None and self._log is not None:
            self._process.kill()
            self._process.communicate()
            self._log.close()
        self._process = None

    def _said(self) -> str:
        return re.sub(r"\n+", "\n", (self._folder / "log").read_text(errors="replace"))

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None
        return f":{self.port:04X} " in Path("/proc/net/udp").read_text()
