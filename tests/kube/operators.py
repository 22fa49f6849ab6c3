"""The operator under test: a process of its own with its ServiceAccount's rights, and what it does to the cluster.

What happens to objects is followed by watches, so that tests wait for facts and can say which versions there were.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from tests.kube import promises
from tests.kube.metal import BOOTED, Metal, ScriptedMachine, base64_of, credentials
from tests.kube.promises import Life, Message
from tests.kube.store import Store
from tests.kube.wire import Wire

from lab import controlplane, kubectl
from lab.audit import Audit
from lab.controlplane import ControlPlane
from lab.paths import REPOSITORY
from lab.private import write_private
from lab.process import wait_until
from rackwright.agent.tokens import Tokens

SYSTEM = "rackwright-system"
ACCOUNT = "rackwright"
GROUP = "metal.rackwright.io"
API = f"{GROUP}/v1alpha1"
HOST = "127.0.0.1"
IMAGE_CHECKSUM = f"sha256:{'ab' * 32}"
PATIENCE = 90.0
"""Seconds for whatever should happen; the machine that tests run on may be busy."""

PROBE_SECONDS = 2.0
"""How long an operator may take to say that it is ready."""

COMMISSIONED = ["On", "ForceOff"]
DEPLOYED = [*COMMISSIONED, "On", "ForceOff", "On"]
RELEASED = [*DEPLOYED, "GracefulShutdown", "On", "ForceOff"]
"""What a machine's BMC is told on the way there, if nothing is told twice."""

JSON = dict[str, Any]
T = TypeVar("T")


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as it:
        it.bind((HOST, 0))
        return int(it.getsockname()[1])


def answers(port: int, probe: str) -> bool:
    """Whether this probe of the operator there succeeds."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/{probe}", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@dataclass
class Operator:
    """One operator's process."""

    kubeconfig: Path
    folder: Path
    port: int
    base_url: str
    arguments: Sequence[str] = ()
    clock: Path | None = None
    """Holds the seconds that it is to be off by (`tests.kube.clock`); None for the real time."""
    log: Path = field(init=False)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.log = self.folder / f"operator-{self.port}.log"

    @property
    def url(self) -> str:
        """Where it alone is reached."""
        return f"http://{HOST}:{self.port}"

    def start(self, *, ready: str = "readyz") -> None:
        """Start it, and wait for the probe to succeed; `healthz` for one that is to stand by."""
        self.launch()
        assert wait_until(lambda: self.ended() or self.probe(ready), PATIENCE), self.text()[-2000:]
        assert not self.ended(), self.text()[-2000:]

    def launch(self) -> None:
        """Start it."""
        ramdisk = self.folder / "ramdisk"
        ramdisk.mkdir(exist_ok=True)
        for name in ("vmlinuz", "initrd"):
            (ramdisk / name).write_text(name)
        command = [
            *(sys.executable, "-m", "rackwright" if self.clock is None else "tests.kube.clock", "run"),
            *("--base-url", self.base_url),
            *("--http-address", f"{HOST}:{self.port}"),
            *("--namespace", SYSTEM),
            *("--ramdisk", str(ramdisk)),
            *(("--own-url", self.url) if "--shards" in self.arguments else ()),
            *self.arguments,
        ]
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "operator"), str(REPOSITORY)]),
            **({} if self.clock is None else {"CLOCK": str(self.clock)}),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def probe(self, which: str) -> bool:
        """Whether `readyz` or `healthz` succeeds."""
        return answers(self.port, which)

    def send(self, sign: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(sign)

    def end(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """End it, for sure, and return its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(sign)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        code, self.process = self.process.returncode, None
        return code

    def acted_on(self) -> set[str]:
        """The machines that it began to do something to, by its log."""
        return set(re.findall(r"machine=\S+/(\S+) step=", self.text()))

    def get(self, path: str) -> str:
        """What it answers to this."""
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def metric(self, sample: str) -> float:
        """A sample of its metrics, by its name and labels."""
        lines = self.get("metrics").splitlines()
        (value,) = [line.rpartition(" ")[2] for line in lines if line.rpartition(" ")[0] == sample]
        return float(value)

    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def ended(self) -> bool:
        """Whether it doesn't run."""
        return self.process is None or self.process.poll() is not None


@contextmanager
def kept_running(operator: Operator) -> Iterator[None]:
    """What a kubelet does: start it again whenever it ends."""
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(0.5):
            if operator.ended():
                operator.launch()

    kubelet = threading.Thread(target=keep, name="kubelet")
    kubelet.start()
    try:
        yield
    finally:
        stop.set()
        kubelet.join()


class Watch:
    """Every version of every object of a kind, in all namespaces, as the API server told of it.

    `named` is whom an object is about: what concerns one machine is found by its namespace and name. An API server
    ends the watch of who is slow, as a busy host is: it is taken up again where it ended.
    """

    def __init__(
        self, plane: ControlPlane, path: str, named: Callable[[JSON], str] = lambda it: str(it["metadata"]["name"])
    ) -> None:
        self._news = threading.Condition()
        self._objects: list[JSON] = []
        self._about: dict[tuple[str, str], list[JSON]] = {}
        self._named = named
        self._deleted: set[str] = set()
        self._command = [str(plane.kubectl), f"--kubeconfig={plane.kubeconfig}", "get", "--raw"]
        self._path = f"{path}?watch=1"
        self._ending = False
        self._process = self._watched()
        self._thread = threading.Thread(target=self._read, name=f"watch {path}")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._news:
            self._ending = True
            self._process.terminate()
        self._thread.join()

    def _watched(self, since: str = "") -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self._command, f"{self._path}{since}"], stdout=subprocess.PIPE)

    def _read(self) -> None:
        since = ""
        while True:
            with self._process as process:
                assert process.stdout is not None
                for line in process.stdout:
                    since = f"&resourceVersion={self._take(json.loads(line))}"
            with self._news:
                if self._ending:
                    return
                self._process = self._watched(since)

    def _take(self, event: JSON) -> str:
        """Keep what was told; the version that it is of."""
        it: JSON = event["object"]
        metadata = it["metadata"]
        with self._news:
            self._objects.append(it)
            self._about.setdefault((metadata["namespace"], self._named(it)), []).append(it)
            if event["type"] == "DELETED":
                self._deleted.add(metadata["uid"])
            self._news.notify_all()
        return str(metadata["resourceVersion"])

    def versions(self, wanted: Callable[[JSON], bool]) -> list[JSON]:
        """Those versions that are wanted, in order."""
        with self._news:
            return [each for each in self._objects if wanted(each)]

    def about(self, namespace: str, name: str) -> list[JSON]:
        """Those versions that concern this machine, in order."""
        with self._news:
            return list(self._about.get((namespace, name), ()))

    @property
    def deleted(self) -> set[str]:
        """The uids of those that are gone."""
        with self._news:
            return set(self._deleted)

    def until(self, found: Callable[[], T | None], seconds: float = PATIENCE) -> T | None:
        """What is looked for, again with every piece of news until it is not None or time is up."""
        with self._news:
            self._news.wait_for(lambda: found() is not None, seconds)
            return found()

    def until_deleted(self, uid: str, seconds: float = PATIENCE) -> None:
        """Wait until it is gone."""
        with self._news:
            gone = self._news.wait_for(lambda: uid in self._deleted, seconds)
        assert gone, f"{uid} still exists"


class Leases:
    """The operators' Leases, followed by a watch: who held which, and since when by the taker's own clock."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def holders(self) -> dict[str, str]:
        """Who holds each Lease now."""
        newest = {lease["metadata"]["name"]: lease for lease in self._watch.versions(lambda _: True)}
        return {name: str(lease["spec"].get("holderIdentity") or "") for name, lease in newest.items()}

    def shares(self) -> list[int]:
        """How many Leases each operator holds that holds any, in order."""
        return sorted(Counter(holder for holder in self.holders().values() if holder).values())

    def until(self, holds: Callable[[dict[str, str]], bool], seconds: float = PATIENCE) -> dict[str, str]:
        """Wait until they are held like this."""

        def found() -> dict[str, str] | None:
            holders = self.holders()
            return holders if holds(holders) else None

        result = self._watch.until(found, seconds)
        assert result is not None, self.holders()
        return result

    def until_another_holds(self, name: str, before: str) -> None:
        """Wait until somebody else holds this one."""
        self.until(lambda holders: holders[name] not in ("", before))

    def changes_of_hands(self, name: str) -> list[tuple[str, datetime]]:
        """Who took a Lease, in order, and when."""
        found: list[tuple[str, datetime]] = []
        for lease in self._watch.versions(lambda lease: lease["metadata"]["name"] == name):
            holder = str(lease["spec"].get("holderIdentity") or "")
            if holder and (not found or found[-1][0] != holder):
                found.append((holder, moment(lease["spec"]["acquireTime"])))
        return found

    def tenures(self, name: str) -> list[Tenure]:
        """Which process held a Lease from when to when by the wall clock, in order; the last one to this day."""
        taken = self.changes_of_hands(name)
        ends = [at.timestamp() for _, at in taken[1:]] + [math.inf]
        return [Tenure(process_of(who), at.timestamp(), end) for (who, at), end in zip(taken, ends, strict=True)]


class Tenure(NamedTuple):
    """The time that a process held a Lease, in seconds."""

    who: int
    begin: float
    end: float


def process_of(holder: str) -> int:
    """The process that holds a Lease, by the identity that it goes by: host, process, something made up."""
    return int(holder.rsplit("-", 2)[1])


@contextmanager
def leases(plane: ControlPlane) -> Iterator[Leases]:
    """The operators' Leases from now on."""
    with Watch(plane, f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases") as watch:
        yield Leases(watch)


class Listing:
    """The lines that `kubectl get bmm --watch` shows of a namespace."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._news = threading.Condition()
        self._lines: list[list[str]] = []
        command = [str(plane.kubectl), f"--kubeconfig={plane.kubeconfig}", "-n", namespace, "get", "bmm", "--watch"]
        self._process = subprocess.Popen([*command, "--no-headers"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._thread = threading.Thread(target=self._read, name="listing")
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line.decode().split())
                self._news.notify_all()

    def shows(self, name: str, *words: str) -> None:
        """Wait for a line about this machine with all of these words in it."""

        def shown() -> bool:
            return any(line[0] == name and set(words) <= set(line) for line in self._lines)

        with self._news:
            came = self._news.wait_for(shown, PATIENCE)
        assert came, (name, words, [line for line in self._lines if line[0] == name])

    def close(self) -> None:
        """Show no more."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Front:
    """What a Service is: a place where connections go on to an operator that is ready, from the caller's address."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        """Of the operators behind it."""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Break every connection off."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._forward(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(writer.close)
            with suppress(OSError):
                for port in self.ports:
                    if not await self._is_ready(port):
                        continue
                    caller = writer.get_extra_info("peername")[0]
                    there, onward = await asyncio.open_connection(HOST, port, local_addr=(caller, 0))
                    stack.callback(onward.close)
                    await asyncio.gather(self._pipe(reader, onward), self._pipe(there, writer))
                    return

    async def _is_ready(self, port: int) -> bool:
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return False
        try:
            writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
            async with asyncio.timeout(PROBE_SECONDS):
                return b" 200 " in await reader.readline()
        except TimeoutError:
            return False
        finally:
            writer.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


@dataclass
class Machine:
    """One declared machine: its record in the cluster, and the metal behind it."""

    site: Site
    name: str
    metal: ScriptedMachine
    _generation: int = 1
    """Of spec, by the last `change`."""
    _mark: int = 0
    """How many versions of the record there were before it."""

    def declare(self, **spec: Any) -> None:
        """Create its record, with its BMC's Secret unless that is there."""
        self.site.create(self.manifest(**spec))

    def manifest(self, **spec: Any) -> JSON:
        """Its record as a person writes it; of `bmc`, what isn't given is right."""
        right = {"address": self.metal.bmc_address, "credentialsSecretRef": {"name": "bmc"}}
        return {
            "apiVersion": API,
            "kind": "BareMetalMachine",
            "metadata": {"name": self.name, "namespace": self.site.namespace},
            "spec": {"bootMACAddress": self.metal.mac, **spec, "bmc": {**right, **spec.get("bmc", {})}},
        }

    def restore(self, backup: JSON) -> None:
        """Create its record from a backup."""
        self._mark, self._generation = len(self.versions), 1
        self.site.create(backup)

    def change(self, **spec: Any) -> None:
        """Merge into its spec; None removes."""
        self._mark = len(self.versions)
        patch = json.dumps({"spec": spec})
        changed = json.loads(self.site.kubectl("patch", "bmm", self.name, "--type=merge", "-p", patch, "-o", "json"))
        self._generation = changed["metadata"]["generation"]

    def switch(self, *, on: bool) -> None:
        """Somebody at the machine switches it, and what is recorded from then on is what counts."""
        self._mark = len(self.versions)
        if on:
            self.metal.press_power()
        else:
            self.metal.hold_power()

    def deploy(self, image: str = "debian-12", **more: Any) -> None:
        """Allocate it and declare a deployment."""
        self.change(allocation={"owner": "team-search"}, deployment={"image": image, **more})

    def release(self) -> None:
        """Withdraw deployment and allocation."""
        self.change(allocation=None, deployment=None)

    def delete(self) -> str:
        """Ask for its deletion; its uid."""
        uid = str(self.record()["metadata"]["uid"])
        self.site.kubectl("delete", "bmm", self.name, "--wait=false")
        return uid

    @property
    def versions(self) -> list[JSON]:
        """Every version of its record that there was."""
        return self.site.machines.about(self.site.namespace, self.name)

    def record(self) -> JSON:
        """Its newest record."""
        return self.versions[-1]

    @property
    def status(self) -> JSON:
        """Its newest status."""
        found: JSON = self.record().get("status", {})
        return found

    def condition(self, kind: str) -> JSON:
        """One of its conditions."""
        return condition(self.status, kind)

    def phases(self) -> list[str]:
        """The phases that it was in, in order, none twice in a row."""
        found = [version.get("status", {}).get("phase") for version in self.versions]
        return [phase for before, phase in zip([None, *found], found, strict=False) if phase and phase != before]

    def noted(self) -> None:
        """Wait until its annotation says what is installed, which is written right after status."""
        assert self.site.machines.until(lambda: self._note or None), self._unmet("noted what is installed")

    def note_removed(self) -> None:
        """Wait until its annotation says nothing any more, which is written right after status too."""
        assert self.site.machines.until(lambda: not self._note or None), self._unmet("removed its note")

    @property
    def _note(self) -> str | None:
        noted: str | None = self.record()["metadata"].get("annotations", {}).get(f"{GROUP}/installed")
        return noted

    def until(self, holds: Callable[[JSON], bool], what: str, seconds: float = PATIENCE) -> JSON:
        """Wait for a status, of those since the last `change` that answer it, that is like this; given up if Failed."""

        def answering() -> list[JSON]:
            statuses = [version.get("status", {}) for version in self.versions[self._mark :]]
            return [status for status in statuses if status.get("observedGeneration", 0) >= self._generation]

        def verdict() -> JSON | None:
            found = answering()
            wanted = next((status for status in found if holds(status)), None)
            lost = (
                bool(found)
                and found[-1].get("phase") == "Failed"
                and condition(found[-1], "Stalled")["status"] == "True"
            )
            return wanted or ({} if lost else None)

        status = self.site.machines.until(verdict, seconds)
        assert status, self._unmet(what)
        return status

    def reaches(self, phase: str, seconds: float = PATIENCE) -> JSON:
        """Wait until it is in this phase."""
        return self.until(lambda status: status.get("phase") == phase, f"was {phase}", seconds)

    def stalls(self, reason: str, seconds: float = PATIENCE) -> JSON:
        """Wait until it is stalled for this reason."""
        return self.until(
            lambda s: condition(s, "Stalled").get("status") == "True" and condition(s, "Stalled")["reason"] == reason,
            f"was stalled by {reason}",
            seconds,
        )

    def event(self, reason: str, kind: str = "Warning", *, says: str = "") -> JSON:
        """Wait for an Event of this reason, with this in its note."""

        def told() -> JSON | None:
            alike = (e for e in self.events() if (e["reason"], e["type"]) == (reason, kind))
            return next((event for event in alike if says in event["note"]), None)

        found = self.site.events.until(told, PATIENCE)
        assert found, f"no {kind} Event {reason} of {self.name}: {[(e['reason'], e['note']) for e in self.events()]}"
        return found

    def events(self) -> list[JSON]:
        """Its Events, each as it is now, in order."""
        found = self.site.events.about(self.site.namespace, self.name)
        return list({event["metadata"]["uid"]: event for event in found}.values())

    def _unmet(self, what: str) -> str:
        versions = self.versions
        status = json.dumps(versions[-1].get("status"), indent=1) if versions else "no record"
        return f"{self.name} never {what}; {self.metal.journal}\n{status}\n{self.site.operator.text()[-3000:]}"


@dataclass
class Site:
    """A namespace for machines, the metal, and an operator between them."""

    plane: ControlPlane
    namespace: str
    metal: Metal
    operator: Operator
    machines: Watch
    events: Watch
    front: Front
    wire: Wire

    def another_operator(self) -> Operator:
        """A second operator behind the same Service, not started."""
        port = free_port()
        self.front.ports.append(port)
        first = self.operator
        return Operator(first.kubeconfig, first.folder, port, first.base_url, first.arguments)

    def audit(self) -> Audit:
        """What the operator asks of the API server from now on."""
        return Audit(self.plane, SYSTEM, ACCOUNT)

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """What kubectl prints, for this namespace."""
        done = self.plane.ctl("-n", self.namespace, *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, *objects: JSON) -> None:
        """Create objects, in one go."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("create", "-f", "-", stdin=json.dumps(listed))

    def machine(self, name: str, **metal: Any) -> Machine:
        """A machine that nobody has declared yet."""
        return Machine(self, name, self.metal.machine(**metal))

    def undeclared(self, **metal: Any) -> Machine:
        """A machine that nobody will declare, by the name that its serial number gives it."""
        scripted = self.metal.machine(**metal)
        return Machine(self, scripted.serial.lower(), scripted)

    def records(self) -> set[str]:
        """The names of all machines in the cluster."""
        return set(self.kubectl("get", "bmm", "-o", "jsonpath={.items[*].metadata.name}").split())

    def secret(self, name: str, **data: str) -> JSON:
        """A Secret with these texts."""
        encoded = {key: base64_of(value) for key, value in data.items()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": self._metadata(name), "data": encoded}

    def change_image(self, name: str, **spec: Any) -> None:
        """Merge into an image's spec."""
        self.kubectl("patch", "osimage", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def change_secret(self, name: str, **data: str) -> None:
        """Give a Secret these texts."""
        self.kubectl(
            "patch", "secret", name, "--type=merge", "-p", json.dumps({"data": self.secret(name, **data)["data"]})
        )

    def bmc_secret(self, name: str = "bmc") -> JSON:
        """A Secret that the BMCs accept."""
        return {"apiVersion": "v1", "kind": "Secret", "metadata": self._metadata(name), "data": credentials()}

    def image(self, name: str, **spec: Any) -> JSON:
        """An OperatingSystemImage."""
        url = f"http://{HOST}/{name}.raw"
        return {
            "apiVersion": API,
            "kind": "OperatingSystemImage",
            "metadata": {"name": name},
            "spec": {"url": url, "checksum": IMAGE_CHECKSUM, "format": "raw", **spec},
        }

    def _metadata(self, name: str) -> JSON:
        return {"name": name, "namespace": self.namespace}

    def assert_discreet(self) -> None:
        """No secret in the log, in Events, in the machines' records; no traceback, no refusal by the API server."""
        text = self.operator.text()
        assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:3000]
        assert "internal error" not in text, [line for line in text.splitlines() if "internal error" in line]
        assert " 403 " not in text, [line for line in text.splitlines() if " 403 " in line]
        places = {"log": text}
        for kind in ("baremetalmachines", "hardwareinventories", "events.events.k8s.io"):
            places[kind] = self.kubectl("get", kind, "-o", "json")
        shown = {place: self.metal.shown_secrets(content) for place, content in places.items()}
        assert not any(shown.values()), shown

    def assert_promises_kept(self) -> None:
        """All that is promised of a machine was kept, from the beginning, for each that there is or was."""
        told = self.metal.told
        self._catch_up()
        token_of, leads = self._token_of(), any(answers(port, "readyz") for port in self.front.ports)
        if leads:  # what was declared last may not be answered yet
            self.machines.until(lambda: all(map(promises.is_settled, self._lives(told))) or None)
        for life in self._lives(told):
            for kept in promises.PROMISES:
                kept(life)
            promises.tokens_are_those_of_recorded_attempts(life, token_of)
            if leads:
                promises.what_is_declared_is_answered(life)
                promises.nothing_is_overdue(life, datetime.now(UTC))

    def _lives(self, told: Sequence[Message]) -> list[Life]:
        return promises.lives(self.machines.versions(lambda _: True), self.machines.deleted, told, self.metal.disks)

    def _token_of(self) -> Callable[[str, str, str], str]:
        """Derives what an attempt's agent and its system prove themselves with, as the operator does."""
        read = self.plane.ctl("-n", SYSTEM, "get", "secret", "rackwright-tokens", "-o", "jsonpath={.data.key}")
        if not read.stdout:  # no operator has come that far
            return lambda *_: ""
        tokens = Tokens(base64.b64decode(read.stdout))
        derive = {"agent": tokens.for_agent, "first-boot": tokens.for_first_boot}
        return lambda purpose, uid, attempt: derive[purpose](uid, attempt)

    def _catch_up(self) -> None:
        """Wait until the watch has told of all that there is."""
        listing = json.loads(self.plane.ctl("get", "--raw", f"/apis/{API}/baremetalmachines").stdout)
        then = int(listing["metadata"]["resourceVersion"])
        newest = {it["metadata"]["uid"]: int(it["metadata"]["resourceVersion"]) for it in listing["items"]}

        def told() -> bool | None:
            deleted, seen = self.machines.deleted, self.machines.versions(lambda _: True)
            left = {it["metadata"]["uid"]: int(it["metadata"]["resourceVersion"]) for it in seen}
            behind = {uid for uid, version in left.items() if uid not in deleted and version < newest.get(uid, then)}
            return None if behind or newest.keys() - left.keys() else True

        assert self.machines.until(told), "the watch fell silent"


def allow_enlistment(plane: ControlPlane, namespace: str) -> None:
    """Give the operator the rights that the overlay gives it."""
    rights = (REPOSITORY / "manifests/overlays/enlistment/rbac.yaml").read_text()
    done = plane.ctl("apply", "-f", "-", stdin=rights.replace(": machines", f": {namespace}"))
    assert done.returncode == 0, done.stderr


@contextmanager
def site(
    plane: ControlPlane,
    folder: Path,
    namespace: str,
    *,
    arguments: Sequence[str] = (),
    behind_service: bool = False,
    wired: bool = False,
) -> Iterator[Site]:
    """Install the operator's rights, give it a namespace for machines, and run it until the end of the context.

    With `behind_service` machines reach it through a `Front`; `wired`, it reaches the API server through a `Wire`.
    """
    _install(plane, namespace)
    if "--enlist-namespace" in arguments:
        allow_enlistment(plane, namespace)
    kubeconfig = controlplane.service_account_kubeconfig(plane, SYSTEM, ACCOUNT, folder / "operator.kubeconfig")
    with (
        Metal(folder) as metal,
        Watch(plane, f"/apis/{API}/baremetalmachines") as machines,
        Watch(plane, "/apis/events.k8s.io/v1/events", lambda it: str(it["regarding"].get("name"))) as events,
    ):
        port = free_port()
        front, wire = Front(), Wire(plane, metal)
        there = f"http://{HOST}:{metal.do(wire.start())}"
        if wired:
            token = json.loads(kubeconfig.read_text())["users"][0]["user"]["token"]
            write_private(kubeconfig, kubectl.kubeconfig_of({"server": there}, token))
        store = Store(plane, namespace, folder)
        metal.do(store.start())
        metal.revision = store.revision
        metal.base_url = f"http://{HOST}:{metal.do(front.start()) if behind_service else port}"
        front.ports = [port]
        operator = Operator(kubeconfig, folder, port, metal.base_url, arguments)
        it = Site(plane, namespace, metal, operator, machines, events, front, wire)
        it.create(it.bmc_secret())
        try:
            operator.start()
            yield it
            it.assert_promises_kept()
        finally:
            try:
                _forget(it)
            finally:
                it.operator.end()
                plane.ctl("-n", SYSTEM, "delete", "lease", "--all")  # another site may have fewer shards
                metal.do(front.stop())
                metal.do(wire.stop())
                metal.do(store.stop())


def _install(plane: ControlPlane, namespace: str) -> None:
    """The operator's rights as the manifests have them, and a namespace in which it may read Secrets.

    What other tests declared goes first: no operator has seen it, and it names BMCs that nobody may talk to.
    """
    for kind in ("baremetalmachines", "operatingsystemimages"):
        removed = plane.ctl("delete", kind, "--all", "--all-namespaces")
        assert removed.returncode == 0, removed.stderr
    base = REPOSITORY / "manifests/base"
    for arguments in (
        ("--server-side", "-f", str(base / "namespace.yaml")),
        ("--server-side", "-n", SYSTEM, "-f", str(base / "rbac.yaml")),
    ):
        applied = plane.ctl("apply", *arguments)
        assert applied.returncode == 0, applied.stderr
    sample = (REPOSITORY / "manifests/samples/machines-namespace.yaml").read_text()
    made = plane.ctl("create", "-f", "-", stdin=sample.replace(": machines", f": {namespace}"))
    assert made.returncode == 0, made.stderr


def _forget(it: Site) -> None:
    """Let go of what is left, so that no later operator looks for metal that is gone."""
    if it.operator.probe("readyz"):
        it.kubectl("annotate", "bmm", "--all", f"{GROUP}/force-delete=true")
    else:
        for name in it.kubectl("get", "bmm", "-o", "name").split():
            it.kubectl("patch", name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    it.kubectl("delete", "bmm", "--all", "--timeout=60s")
    it.plane.ctl("delete", "osimage", "--all")
    it.plane.ctl("delete", "namespace", it.namespace, "--wait=false")


def deployed(here: Site, *names: str) -> list[Machine]:
    """Machines that run their system."""
    nodes = ready(here, *names)
    for node in nodes:
        node.deploy()
    for node in nodes:
        node.reaches("Deployed")
        node.metal.arrived(BOOTED)
    return nodes


def ready(here: Site, *names: str) -> list[Machine]:
    """Machines in the pool."""
    nodes = [here.machine(name) for name in names]
    here.create(*(node.manifest() for node in nodes))
    for node in nodes:
        node.reaches("Ready")
    return nodes


def attempts(node: Machine, name: str) -> set[tuple[str, int]]:
    """Every attempt at an operation that its record ever told of: id and number."""
    operations = [version.get("status", {}).get("operation") or {} for version in node.versions]
    return {(operation["id"], operation["attempt"]) for operation in operations if operation.get("name") == name}


def condition(status: Mapping[str, Any], kind: str) -> JSON:
    """One condition of a status; empty if it isn't set."""
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


def moment(text: str) -> datetime:
    """A time of the API's."""
    return datetime.fromisoformat(text)


def elapsed(since: float) -> float:
    """Seconds by the monotonic clock."""
    return time.monotonic() - since
