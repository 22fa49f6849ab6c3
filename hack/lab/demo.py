"""The demonstration: one machine's life on this machine, told as it happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from lab import controlplane, debian, installation, osimage, ramdisk, system, venv
from lab import rack as racks
from lab.console import TIMES, stage, tell
from lab.errors import Unfit, together
from lab.follow import follow, ssh
from lab.installation import ENLISTING, MACHINES, Installation
from lab.plan import NodeKind, default_nodes
from lab.process import wait_until
from lab.samples import DECLARED
from lab.stages import RETURNED, UNMARKED, Arrived, Go, Stop, next_stage, patch
from lab.system import Room

NODE, STRANGER = "node-01", "node-02"
NAME = "demo"
_PLAN = """\
This brings up, on this machine and removed again by `{command} down`, but for packages and caches:

  1  a Python environment                                     20 s   {venv}
  2  Debian packages: QEMU, libvirt, dnsmasq, iPXE            30 s   {packages}
  3  a Kubernetes API server, built from source if need be    7 min  {plane}
  4  the ramdisk: Debian and ironic-python-agent              2 min  {ramdisk}
  5  an operating system image: Debian 12 with cloud-init     2 min  {image}
  6  a rack: machines with Redfish BMCs, DHCP, TFTP, iPXE     10 s
  7  CRDs, rights, and the operator with those rights         10 s
  8  node-01: declared, commissioned, Ready                   2 min
  9  node-01: allocated, deployed, logged in to               5 min
"""


@dataclass(frozen=True)
class Asked:
    """What somebody wants to see."""

    name: str = NAME
    """Of the rack and the control plane."""
    release: bool = False
    """Go on through Releasing, back to Ready."""
    current: str | None = None
    """A value of KUBECONFIG whose current cluster is to be used; None: one of this laboratory's own."""
    nodes: int | None = None
    port: int | None = None
    """As in `hack/rack`."""
    enlist: bool = False
    """A machine that nobody declared introduces itself, too."""

    @property
    def command(self) -> str:
        """The demonstration's command line, as it is repeated or undone."""
        return "hack/demo" if self.name == NAME else f"hack/demo --name {self.name}"

    @property
    def environment(self) -> str:
        """What makes a shell's kubectl use this laboratory's cluster."""
        return f'eval "$(hack/control-plane env --name {self.name})"'

    @property
    def kinds(self) -> Sequence[NodeKind] | None:
        """The rack's machines."""
        return None if self.nodes is None else default_nodes(self.nodes)


def prepare(asked: Asked) -> None:
    """Refuse what can't be done on this machine, all reasons together; then say what will be. Nothing is built yet."""
    rooms = check(asked)
    to_build = {room.what for room in rooms}
    there = {
        "venv": not venv.room(),
        "packages": not system.missing_packages(racks.PACKAGES),
        "plane": "control-plane" not in to_build,
        "ramdisk": not ramdisk.room(),
        "image": not osimage.room(),
    }
    print(_PLAN.format(command=asked.command, **{each: "(there)" if it else "" for each, it in there.items()}))
    if needed := sum(room.gib for room in rooms):
        print(f"It takes up to {needed:g} GiB of disk.\n")
    sys.stdout.flush()


def check(asked: Asked) -> list[Room]:
    """Ask for all that the stages need of this machine, before the first of them; the disk space that they take."""
    rooms = [*venv.room(), *ramdisk.room(), *osimage.room(), *racks.room(asked.name, asked.kinds)]

    def packages() -> None:
        if system.missing_packages(racks.PACKAGES):
            rooms.append(Room("Debian packages", Path("/usr"), 1))

    together(
        packages,
        lambda: rooms.extend(controlplane.check(asked.name, current=asked.current)),
        lambda: debian.require_host("The demo") if ramdisk.room() or osimage.room() else None,
        lambda: racks.check(asked.name, asked.kinds, operator_port=asked.port),
        lambda: system.require_room(*rooms),
    )
    return rooms


def up(asked: Asked) -> None:
    """Bring everything up, follow the machine to Deployed, and back to Ready if asked to."""
    try:
        here = _install(asked)
        _tour(asked, here)
    finally:
        installation.record_times(asked.name)
    print(_afterwards(asked, here))
    print("Took: " + ", ".join(f"{title} {seconds:.0f} s" for title, seconds in TIMES.items() if seconds >= 1))


def _install(asked: Asked) -> Installation:
    if packages := system.missing_packages(racks.PACKAGES):
        with stage(f"Debian packages: {len(packages)} missing", "30 s"):
            system.ensure_packages(racks.PACKAGES)
        racks.check(asked.name, asked.kinds, operator_port=asked.port)
    with stage("control plane", "7 s; 7 min when it is built"):
        plane = controlplane.up(asked.name, current=asked.current)
    with stage("ramdisk", "2 min when it is built"):
        ramdisk.ensure()
    with stage("operating system image", "2 min when it is built"):
        osimage.ensure()
    with stage("rack", "10 s"):
        rack = racks.up(asked.name, asked.kinds, operator_port=asked.port)
    here = Installation(plane, rack)
    with stage("CRDs and rights"):
        here.install()
    with stage("operator"):
        if asked.enlist:
            here.allow_enlistment()
            here.operator.stop()  # one that runs may have been started without
        here.start_operator(arguments=ENLISTING if asked.enlist else ())
    return here


def _tour(asked: Asked, here: Installation) -> None:
    """The machine's life, from wherever it is."""
    releasing = here.machine(NODE).get("status", {}).get("phase") == "Releasing"
    if not (asked.release and releasing):
        _to_deployed(asked, here)
        with stage(f"{NODE}: log in over SSH, host key from status"):
            answer = ssh(here, NODE, "hostname; . /etc/os-release; echo $PRETTY_NAME; uptime -p; cloud-init status")
        print("\n" + "\n".join(f"    {NODE}$ {line}" for line in answer.splitlines()) + "\n", flush=True)
    if asked.release:
        with stage(f"{NODE}: kubectl apply -f {DECLARED} → Releasing, erased, Ready", "3 min") as shown:
            here.apply_sample(DECLARED)
            follow(here, NODE, until=["Ready"], seconds=1500, say=shown.say)
        print("\n    evidence of the erase, in status.erasure:")
        for disk in here.machine(NODE)["status"]["erasure"]:
            verified = "verified" if disk["verified"] else "NOT VERIFIED"
            known_by = disk.get("serial") or disk.get("wwn") or "no serial number"
            print(f"    {disk['device']} {known_by}: {disk['method']}, {verified}. {disk['message']}")

    if asked.enlist:
        _enlist(here)


def _to_deployed(asked: Asked, here: Installation) -> None:
    while True:
        match next_stage(NODE, here.machine(NODE), now=f"{time.time():.0f}"):
            case Arrived(sentence):
                tell(sentence)
                return
            case Stop(sentence) as stop:
                raise Unfit(sentence, stop.remedy(NODE, asked.command, asked.environment))
            case Go() as go:
                with stage(go.sentence, go.expect) as shown:
                    if go.apply is not None:
                        here.apply_sample(go.apply)
                    follow(here, NODE, until=go.until, seconds=go.seconds, say=shown.say)
            case _ as never:
                assert_never(never)


def _afterwards(asked: Asked, here: Installation) -> str:
    """What there is, and what to try with it."""
    installed = "{.status.installed.addresses[0]}"
    return f"""
{here.kubectl("get", "bmm", "-A", *(["-o", "wide"] if asked.enlist else []))}
Look around:
    {asked.environment}
    kubectl get bmm -A -w                          # watch it
    kubectl describe bmm {NODE} -n machines        # conditions, the operation, Events
    kubectl get hwi {NODE} -n machines -o yaml     # what the machine is made of
    tail -f {here.operator.log}

Three things to try (the manifests with this rack's values are in {here.samples_of(NODE)}):
    release it:  {asked.command} --release
                 # or: {patch(NODE, RETURNED)}
    break it:    {patch(NODE, {"broken": {"reason": "DIMM A3"}})}
    and mend it: {patch(NODE, UNMARKED)}
    log in:      ssh -i {here.ssh_key} \\
                     debian@$(kubectl get bmm {NODE} -n machines -o jsonpath='{installed}')

    {asked.command} down                                 # removes all of it, keeps the caches
"""


def _enlist(here: Installation) -> None:
    """Switch on the machine that nobody declared, and wait until it has introduced itself."""
    serial = here.rack.node(STRANGER).serial.lower()
    if here.machine(serial):
        return
    with stage(f"{STRANGER}, which nobody declared: switched on → {MACHINES}/{serial} New, off again", "2 min"):
        here.rack.press_power(STRANGER)
        if not wait_until(lambda: here.rack.power(STRANGER) == "Off", 900):
            raise Unfit(f"{STRANGER} did not switch itself off", f"read {here.rack.node(STRANGER).console}")
        follow(here, serial, until=["New"], seconds=60)
