"""The look at Rackwright for people without QEMU, root or hardware: fifty machines in the operator's memory.

Everything above the wire is what runs with real machines: an API server, the operator with its ServiceAccount's rights,
the life-cycle. What BMCs, firmware and disks do is simulated, and proves nothing about real ones: `demo.py` has those.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import controlplane, crowd, footprint, installation, system, venv
from lab.console import TIMES, stage, tell
from lab.errors import Unfit, together
from lab.installation import MACHINES, Operated
from lab.samples import SAMPLES
from lab.system import Room

NAME = "sim"
"""Of the laboratory, beside which one with real machines may stand."""
MACHINES_AT_FIRST = 50
MOST_MACHINES = 10_000
PORT = 8080
IMAGE = "simulated-os"
OWNER = "team-search"
ADDRESS = "simulated://slow?boot=8s&inspect=3s&write=12s&erase=8s&start=6s&power=1s&answer=200ms&fail=0.005&seed=7"
"""Servers that boot in seconds, and whose BMCs fail now and then, so that something can be seen."""
ARGUMENTS = ("--allow-simulated", "--retry-base", "3", "--power-poll", "30", "--grace", "5")
RESTING = ("Ready", "Allocated", "Deployed", "Failed", "Broken", "New", "Rescue")
SECONDS = 300.0
_PLAN = """\
This brings up, on this machine and removed again by `{command} down`:

  1  a Python environment                                     20 s   {venv}
  2  a Kubernetes API server, built from source if need be    7 min  {plane}
  3  CRDs, rights, and the operator, which may simulate       10 s
  4  {machines} machines that exist in its memory: declared, Ready
  5  {deployed} of them allocated and deployed

No server, virtual machine or network is touched, and nothing of this says how real ones behave: hack/demo does.
"""


@dataclass(frozen=True)
class Asked:
    """What somebody wants to see."""

    name: str = NAME
    machines: int = MACHINES_AT_FIRST
    current: str | None = None
    """As in `demo.Asked`."""
    port: int = PORT

    @property
    def deployed(self) -> int:
        """How many of the machines get an owner and a system."""
        return max(1, self.machines // 3)

    @property
    def command(self) -> str:
        """The command line, as it is repeated."""
        return "hack/demo --simulated" + ("" if self.name == NAME else f" --name {self.name}")

    @property
    def down(self) -> str:
        """The command line that removes it."""
        return "hack/demo down" + ("" if self.name == NAME else f" --name {self.name}")

    @property
    def environment(self) -> str:
        """What makes a shell's kubectl use this laboratory's cluster."""
        return f'eval "$(hack/control-plane env --name {self.name})"'


def prepare(asked: Asked) -> None:
    """Refuse what can't be done on this machine, all reasons together; then say what will be. Nothing is built yet."""
    rooms: list[Room] = [*venv.room()]
    together(
        lambda: rooms.extend(controlplane.check(asked.name, current=asked.current)),
        lambda: _require_port(asked),
        lambda: system.require_room(*rooms),
    )
    there = {
        "venv": "" if venv.room() else "(there)",
        "plane": "" if "control-plane" in {room.what for room in rooms} else "(there)",
    }
    print(
        _PLAN.format(
            command=asked.down.removesuffix(" down"), machines=asked.machines, deployed=asked.deployed, **there
        )
    )
    if needed := sum(room.gib for room in rooms):
        print(f"It takes up to {needed:g} GiB of disk.\n")
    sys.stdout.flush()


def _require_port(asked: Asked) -> None:
    if not installation.is_there(asked.name) and not system.port_is_free("127.0.0.1", asked.port):
        raise Unfit(
            f"The operator needs TCP port {asked.port} on 127.0.0.1, and it is taken.", "choose another: --port"
        )


def up(asked: Asked) -> None:
    """Bring everything up, follow the machines to Ready, and some of them to Deployed; go on where it is."""
    with stage("control plane", "7 s; 7 min when it is built"):
        here = Operated(controlplane.up(asked.name, current=asked.current))
    with stage("CRDs and rights"):
        here.install()
    with stage("operator"):
        no_ramdisk = installation.scratch(here.name, "no-ramdisk")
        here.start(
            base_url=f"http://127.0.0.1:{asked.port}",
            address=f"127.0.0.1:{asked.port}",
            arguments=["--ramdisk", no_ramdisk, *ARGUMENTS],
        )
    names = [f"sim-{number:05}" for number in range(1, asked.machines + 1)]
    missing = [name for name in names if name not in _records(here)]
    with stage(f"{asked.machines} machines: declared → at rest", "30 s") as shown:
        _declare(here, missing)
        crowd.follow(here, dict.fromkeys(names, RESTING), seconds=SECONDS + asked.machines, say=shown.say)
    chosen = _to_deploy(_records(here), names, asked.deployed)
    if chosen:
        with stage(f"{len(chosen)} of them: allocated → Deployed", "1 min") as shown:
            _deploy(here, chosen)
            ends = dict.fromkeys(chosen, ("Deployed", "Failed"))
            crowd.follow(here, ends, seconds=SECONDS + asked.machines, say=shown.say)
    else:
        tell(f"{asked.deployed} or more machines have owners already")
    print(_afterwards(asked, here, names))
    print("Took: " + ", ".join(f"{title} {seconds:.0f} s" for title, seconds in TIMES.items() if seconds >= 1))


def manifest(name: str, number: int, labels: dict[str, str]) -> dict[str, Any]:
    """A machine's record, as a person would write it."""
    mac = "52:54:00:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(3, "big"))
    return {
        "apiVersion": "metal.rackwright.io/v1alpha1",
        "kind": "BareMetalMachine",
        "metadata": {"name": name, "namespace": MACHINES, "labels": labels},
        "spec": {"bootMACAddress": mac, "bmc": {"address": ADDRESS}},
    }


def image() -> dict[str, Any]:
    """The manifest of an image that simulated machines take."""
    return {
        "apiVersion": "metal.rackwright.io/v1alpha1",
        "kind": "OperatingSystemImage",
        "metadata": {"name": IMAGE},
        "spec": {"url": "http://192.0.2.1/simulated.raw", "checksum": f"sha256:{'5' * 64}", "format": "raw"},
    }


def _declare(here: Operated, names: list[str]) -> None:
    """Apply those machines that aren't there: an earlier manifest of one that is would take back what came after."""
    folder, labels = installation.scratch(here.name, "simulated"), footprint.mark(here.name)
    shutil.copy(SAMPLES / "machines-namespace.yaml", folder)
    machines = [manifest(name, int(name.rpartition("-")[2]), labels) for name in names]
    _write(folder / "objects.yaml", [image(), *machines])
    kustomization = {"resources": ["machines-namespace.yaml", "objects.yaml"], "labels": [{"pairs": labels}]}
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
    here.apply(folder)


def _to_deploy(records: dict[str, dict[str, Any]], names: list[str], wanted: int) -> list[str]:
    """Machines of the pool that are to have an owner, as many as are still wanted."""
    owned = sum("allocation" in record["spec"] for record in records.values())
    pool = [
        name
        for name in names
        if records[name].get("status", {}).get("phase") == "Ready" and "allocation" not in records[name]["spec"]
    ]
    return pool[: max(0, wanted - owned)]


def _deploy(here: Operated, names: list[str]) -> None:
    wish = {"allocation": {"owner": OWNER}, "deployment": {"image": IMAGE}}
    records = [
        {
            "apiVersion": "metal.rackwright.io/v1alpha1",
            "kind": "BareMetalMachine",
            "metadata": {"name": name, "namespace": MACHINES},
            "spec": wish,
        }
        for name in names
    ]
    listed = {"apiVersion": "v1", "kind": "List", "items": records}
    here.kubectl("apply", "--server-side", f"--field-manager={OWNER}", "-f", "-", stdin=json.dumps(listed))


def _records(here: Operated) -> dict[str, dict[str, Any]]:
    told = json.loads(here.kubectl("get", "bmm", "-n", MACHINES, "-o", "json"))
    return {record["metadata"]["name"]: record for record in told["items"]}


def _write(path: Path, objects: list[dict[str, Any]]) -> None:
    # JSON is YAML too, and needs no library.
    path.write_text("".join(f"---\n{json.dumps(each)}\n" for each in objects))


def _afterwards(asked: Asked, here: Operated, names: list[str]) -> str:
    """What there is, and what to try with it."""
    first, last = names[0], names[-1]
    listed = here.kubectl("get", "bmm", "-n", MACHINES).splitlines()
    shown = listed if len(listed) <= 12 else [*listed[:9], f"... {len(listed) - 11} more ...", *listed[-2:]]  # noqa: PLR2004
    returned = json.dumps({"spec": {"allocation": None, "deployment": None}})
    failing = json.dumps({"spec": {"bmc": {"address": "simulated://slow?fail=1"}, "power": "On"}})
    look = "\n".join(shown)
    return f"""
{look}

Look around:
    {asked.environment}
    kubectl get bmm -A -w                             # watch it
    kubectl describe bmm {first} -n {MACHINES}     # conditions, the operation, Events
    tail -f {here.operator.log}

Three things to try:
    release one, and see its disks erased:
        kubectl patch bmm {first} -n {MACHINES} --type merge -p '{returned}'
    let a BMC fail, and wish for something (the address of a simulated machine says how it behaves):
        kubectl patch bmm {last} -n {MACHINES} --type merge -p '{failing}'
    have more machines:
        {asked.command} --machines {asked.machines * 4}

    {asked.down}                                    # removes all of it, keeps the caches
"""
