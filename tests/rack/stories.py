"""What the stories of this folder are told with: a machine of the rack, its record, and what is waited for.

Several machines share an operator, and any story may kill it: what is waited for is what the API server says, and
that a watch tells as it happens.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.kube.operators import Watch, condition

from lab import footprint, samples
from lab.errors import Unfit
from lab.follow import ssh
from lab.installation import MACHINES, Installation
from lab.plan import Node
from lab.process import wait_until
from lab.samples import DECLARED

JSON = dict[str, Any]
GROUP = "metal.rackwright.io"
IMAGES = {"raw": "debian-12", "qcow2": "debian-12-qcow2"}
BOOT, WRITE, ERASE, SOON = 900.0, 1500.0, 1500.0, 120.0
"""Seconds that it may take on a busy host: a boot, an installation, a release, and what needs no boot."""
LINES = 200
"""Of the operator's log that are shown of a story that went wrong: some ten minutes."""
WRITTEN_AT_LEAST = 2**26
"""Bytes that are more than partition tables and less than an image."""


def side_by_side(*stories: Callable[[], None]) -> None:
    """Tell them at once; each to its end, whatever becomes of the other."""
    with ThreadPoolExecutor(len(stories)) as pool:
        for told in [pool.submit(story) for story in stories]:
            told.result()


@dataclass
class Scene:
    """An installation, and the news of its machines."""

    here: Installation
    records: Watch
    arguments: Sequence[str] = ()
    """What the operator is started with."""
    alone: threading.Lock = field(default_factory=threading.Lock)
    """Held for what no two stories may do at once: kill the operator, apply objects that all machines share."""
    kills: int = 0
    """How often the operator was killed so far, by whichever story."""

    @classmethod
    @contextmanager
    def of(cls, here: Installation, arguments: Sequence[str] = ()) -> Iterator[Scene]:
        """For as long as the stories take; the machines are off afterwards, whatever became of them."""
        assert here.ssh_key.exists()  # made once, before several stories ask for it
        try:
            with Watch(here.plane, f"/apis/{GROUP}/v1alpha1/baremetalmachines") as records:
                yield cls(here, records, arguments)
        finally:
            for node in here.rack.nodes:
                here.rack.hard_off(node)

    def machine(self, node: str, image: str = "raw", name: str = "") -> Machine:
        """A machine of the rack, with that format of image; its record is called after it unless it has a name."""
        return Machine(self, self.here.rack.node(node), image, name or node)

    def kill_operator(self) -> None:
        """SIGKILL, then start it again."""
        with self.alone:
            self.kills += 1
            self.here.operator.kill()
            assert wait_until(lambda: self.here.operator.pid is None, 10)
            self.here.start_operator(arguments=self.arguments)

    @property
    def log(self) -> str:
        """All that operators said so far."""
        return self.here.operator.log.read_text(errors="replace")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """A story that goes wrong brings along what the operator said."""
        try:
            yield
        except Exception as error:
            error.add_note("\n".join(self.log.splitlines()[-LINES:]))
            raise

    def assert_discreet(self) -> None:
        """No operator stumbled or told a secret."""
        log = self.log
        assert "Traceback" not in log
        assert "internal error" not in log
        assert self.here.rack.password not in log


@dataclass
class Machine:
    """One machine of the rack: its record in the cluster, and the metal behind it."""

    scene: Scene
    node: Node
    image: str
    name: str
    _mark: int = 0
    """How many versions of the record there were before the last `change`."""
    _generation: int = 0
    """Of spec, by the last `change`."""

    def __post_init__(self) -> None:
        self.here, self.rack = self.scene.here, self.scene.here.rack

    # --- its record -------------------------------------------------------------------------------------------------

    def declare(self, which: str = DECLARED, *, spec: Mapping[str, Any] | None = None, **site: str) -> None:
        """Apply the samples of a machine with the rack's values but for these, and with more in `spec`."""
        folder = self.here.samples_of(self.node.name)
        values = replace(self.here.site(self.node.name, self.image), **site)
        labels = footprint.mark(self.here.name)
        samples.overlay(folder, which, values, self.node.name, labels=labels, spec=spec)
        with self.scene.alone:
            self.here.kubectl("apply", "-k", str(folder))

    def declared_anew(self) -> None:
        """What a record of this name said until now was another's."""
        self._mark, self._generation = len(self.versions), 1

    def change(self, **spec: Any) -> None:
        """Merge into its spec; None removes."""
        self._mark = len(self.versions)
        patch = json.dumps({"spec": spec})
        changed = self.here.kubectl(
            "patch",
            "bmm",
            self.name,
            "-n",
            MACHINES,
            "--type=merge",
            "-p",
            patch,
            "-o",
            "jsonpath={.metadata.generation}",
        )
        self._generation = int(changed)

    def deploy(self, **how: Any) -> None:
        """Allocate it and want an operating system on it."""
        deployment = {"image": IMAGES[self.image], "sshAuthorizedKeys": [self.key], **how}
        self.change(allocation={"owner": "team-search"}, deployment=deployment)

    def release(self, **more: Any) -> None:
        """Withdraw deployment and allocation."""
        self.change(allocation=None, deployment=None, **more)

    @property
    def key(self) -> str:
        """The public SSH key that is let in."""
        return self.here.ssh_key.with_suffix(".pub").read_text().strip()

    @property
    def versions(self) -> list[JSON]:
        """Every version of its record that there was."""
        return self.scene.records.about(MACHINES, self.name)

    @property
    def record(self) -> JSON:
        """Its newest record; empty before there is one."""
        return self.versions[-1] if self.versions else {}

    @property
    def status(self) -> JSON:
        """Its newest status."""
        found: JSON = self.record.get("status", {})
        return found

    @property
    def reason(self) -> str:
        """Why it is Ready, or isn't."""
        return str(condition(self.status, "Ready").get("reason", ""))

    # --- what is waited for -----------------------------------------------------------------------------------------

    def until(self, holds: Callable[[JSON], bool], seconds: float, *, fails: bool = False) -> JSON:
        """Wait for a status like this among those that answer the last `change`; unless it `fails`, it may not."""

        def answering() -> list[JSON]:
            statuses = [version.get("status", {}) for version in self.versions[self._mark :]]
            return [status for status in statuses if status.get("observedGeneration", 0) >= self._generation]

        def verdict() -> JSON | None:
            found = answering()
            wanted = next((status for status in found if holds(status)), None)
            lost = not fails and bool(found) and found[-1].get("phase") == "Failed"
            return wanted or ({} if lost else None)

        status = self.scene.records.until(verdict, seconds)
        assert status, f"{self.name}: {json.dumps(self.status, indent=1)}\n{self.rack.console(self.node)[-3000:]}"
        return status

    def reaches(self, phase: str, seconds: float, *, fails: bool = False) -> JSON:
        """Wait until it rests in this phase."""
        return self.until(lambda s: s.get("phase") == phase and "operation" not in s, seconds, fails=fails)

    def fails(self, seconds: float) -> JSON:
        """Wait until it is Failed."""
        return self.reaches("Failed", seconds, fails=True)

    def at_step(self, step: str, *, of: str, seconds: float = BOOT) -> JSON:
        """Wait until an operation is at this step."""

        def holds(status: JSON) -> bool:
            operation = status.get("operation", {})
            return (operation.get("name"), operation.get("step")) == (of, step)

        return self.until(holds, seconds)

    def because(self, reason: str, seconds: float = SOON, *, fails: bool = False) -> JSON:
        """Wait until it is Ready, or isn't, for this reason."""
        return self.until(lambda s: condition(s, "Ready").get("reason") == reason, seconds, fails=fails)

    def retries(self, attempt: int, seconds: float = SOON) -> JSON:
        """Wait until that attempt has failed and the next waits for its time."""

        def failed(status: JSON) -> bool:
            retry = "nextRetryAt" in status.get("operation", {})
            return retry and status.get("lastFailure", {}).get("attempt") == attempt

        status = self.until(failed, seconds)
        assert status["operation"]["attempt"] == attempt + 1
        ready = condition(status, "Ready")
        assert (ready["status"], ready["reason"]) == ("False", status["lastFailure"]["reason"])
        return status

    # --- the metal --------------------------------------------------------------------------------------------------

    @property
    def power(self) -> str:
        """As the hypervisor knows it."""
        return self.rack.power(self.node)

    def is_off(self, seconds: float = SOON) -> None:
        """Wait until it is."""
        assert wait_until(lambda: self.power == "Off", seconds), self.rack.console(self.node)[-3000:]

    def touched(self) -> list[int]:
        """When something was last written to each of its disks."""
        return [disk.backing.stat().st_mtime_ns for disk in self.node.disks]

    def is_being_written(self, blank: int) -> None:
        """Wait until there is more than a partition table on its first disk, which took `blank` bytes on the host."""
        assert wait_until(lambda: self.bytes_written() > blank + WRITTEN_AT_LEAST, BOOT), self.status

    def bytes_written(self) -> int:
        """What the file behind its first disk takes on the host."""
        return self.node.disks[0].backing.stat().st_blocks * 512

    def disks_hold(self, text: str) -> bool:
        """Whether any of its disks holds this text, read from outside."""
        return any(_holds(disk.backing, text.encode()) for disk in self.node.disks)

    def assert_erased(self, status: JSON, marker: str = "") -> None:
        """Every disk has evidence, and nothing is left of what there was, the marker in it for one."""
        assert {e["serial"] for e in status["erasure"]} == {disk.serial for disk in self.node.disks}
        assert all(e["verified"] for e in status["erasure"])
        assert not {"installed", "owner", "lastFailure"} & set(status)
        assert not (marker and self.disks_hold(marker))
        assert (status["power"], self.power) == ("Off", "Off")

    # --- what runs on it --------------------------------------------------------------------------------------------

    def ssh(self, command: str) -> str:
        """What a command on the installed system prints; the host is verified against the keys in status."""
        return ssh(self.here, self.name, command)

    def ssh_at(self, address: str, command: str) -> str:
        """The same on a system that status knows nothing of, at an address where it was verified before."""
        return ssh(self.here, self.name, command, at=address)

    def answers(self, seconds: float = BOOT) -> None:
        """Wait until the installed system takes commands again."""

        def answered() -> bool:
            try:
                return bool(self.ssh("hostname"))
            except (Unfit, subprocess.TimeoutExpired):
                return False

        assert wait_until(answered, seconds, every=2), self.rack.console(self.node)[-3000:]

    def rescue_ssh(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        """A command in the rescue environment; the host is verified against the keys in status."""
        rescue = self.status["rescue"]
        known_hosts = self.here.ssh_key.with_name(f"known_hosts-rescue-{self.name}")
        known_hosts.write_text("".join(f"{rescue['addresses'][0]} {key}\n" for key in rescue["sshHostKeys"]))
        return subprocess.run(
            [
                *("ssh", "-i", self.here.ssh_key, "-o", f"UserKnownHostsFile={known_hosts}", "-F", "none"),
                *("-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", *options),
                *(f"{rescue['user']}@{rescue['addresses'][0]}", command),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def _holds(backing: Path, wanted: bytes) -> bool:
    kept = b""
    with backing.open("rb") as disk:
        while chunk := disk.read(1 << 24):
            if wanted in kept + chunk:
                return True
            kept = chunk[-len(wanted) :]
    return False


def outcomes(status: JSON) -> list[tuple[str, str, int]]:
    """What was done to it, newest first: operation, outcome, attempts."""
    return [(entry["name"], entry["outcome"], entry["attempts"]) for entry in status["history"]]


def blame(status: JSON) -> tuple[str, str]:
    """Class and reason of the last failure."""
    failure = status["lastFailure"]
    return failure["class"], failure["reason"]
