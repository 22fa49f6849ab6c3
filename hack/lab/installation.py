"""A whole Rackwright on this machine: a control plane, a rack, and the operator between them, as it would be deployed.

The operator is a process of its own with a token of its ServiceAccount and nothing else, so that what works here
works with the rights that `manifests/base` gives.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import controlplane, footprint, osimage, ramdisk, samples, venv
from lab import rack as racks
from lab.audit import Audit
from lab.cache import BUILT
from lab.console import TIMES
from lab.controlplane import ControlPlane
from lab.controlplane_choice import Kind
from lab.controlplane_record import Record
from lab.errors import Unfit, together
from lab.paths import REPOSITORY, STATE, run_dir, state_dir
from lab.plan import NodeKind
from lab.process import Service
from lab.rack import Rack

NAMESPACE = "rackwright-system"
ACCOUNT = "rackwright"
MACHINES = "machines"
"""The namespace of the samples' machines."""
ENLISTING = ("--enlist-namespace", MACHINES)
"""The operator's arguments for machines that introduce themselves."""
_FOLDER = "operator"


@dataclass(frozen=True)
class Operated:
    """A control plane with the operator's kinds and rights in it, and the operator's process beside it."""

    plane: ControlPlane

    @property
    def name(self) -> str:
        """Of the laboratory: its control plane, its operator's process, its rack if it has one."""
        return self.plane.name

    @property
    def operator(self) -> Service:
        """The operator's process."""
        return Service("operator", _run(self.name))

    def audit(self) -> Audit:
        """What the operator asks of the API server from now on."""
        return Audit(self.plane, NAMESPACE, ACCOUNT)

    def install(self) -> None:
        """Apply the CRDs and the operator's rights."""
        definitions = sorted((REPOSITORY / "crds").glob("*.metal.*.yaml"))
        files = [*definitions, *(REPOSITORY / "manifests/base" / name for name in ("namespace.yaml", "rbac.yaml"))]
        folder = _state(self.name) / "installed"
        folder.mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, folder)
        kustomization = {
            "namespace": NAMESPACE,
            "resources": [file.name for file in files],
            "labels": [{"pairs": footprint.mark(self.name)}],
        }
        (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
        self.apply(folder)
        established = ("--for=condition=Established", "--timeout=60s")
        self.kubectl("wait", *established, *(f"--filename={file}" for file in definitions))

    def start(self, *, base_url: str, address: str, arguments: Sequence[str | Path]) -> None:
        """Start the operator with its ServiceAccount's rights, unless it runs, and wait until it is ready.

        It listens at `address`, HOST:PORT, which machines, and we, reach as `base_url`.
        """
        kubeconfig = _state(self.name) / "operator.kubeconfig"
        if self.operator.pid is None:
            controlplane.service_account_kubeconfig(self.plane, NAMESPACE, ACCOUNT, kubeconfig)
        command: list[str | Path] = [
            *(venv.ensure("dev"), "-m", "rackwright", "run"),
            *("--base-url", base_url),
            *("--http-address", address),
            *("--namespace", NAMESPACE),
            *arguments,
        ]
        environment = {
            "KUBECONFIG": str(kubeconfig),
            "PYTHONPATH": str(REPOSITORY / "operator"),
            "PYTHONUNBUFFERED": "1",
        }
        self.operator.start(command, ready=lambda: _is_ready(base_url), seconds=60, env=environment)

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """What kubectl prints; `Unfit` if it fails."""
        done = self.plane.ctl(*arguments, stdin=stdin)
        if done.returncode:
            raise Unfit(
                f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}",
                f"see {self.operator.log} and the message",
            )
        return done.stdout

    def machine(self, name: str = "node-01") -> dict[str, Any]:
        """A machine's record; empty if nobody declared it."""
        told = self.kubectl("get", "bmm", name, "-n", MACHINES, "--ignore-not-found", "-o", "json")
        found: dict[str, Any] = json.loads(told or "{}")
        return found

    def apply(self, folder: Path) -> None:
        """`kubectl apply -k` it, over nothing that isn't ours."""
        if self.plane.kind is Kind.CURRENT:
            footprint.require_free(self.plane, self.name, folder)
        self.kubectl("apply", "-k", str(folder))


@dataclass(frozen=True)
class Installation(Operated):
    """The same with a rack."""

    rack: Rack

    @property
    def ssh_key(self) -> Path:
        """The private key whose public half the samples' deployment lets in; made when first asked for."""
        path = _state(self.name) / "id_ed25519"
        if not path.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"rackwright-{self.name}", "-f", str(path)]
            subprocess.run(command, check=True)
        return path

    def allow_enlistment(self) -> None:
        """Let the operator create machines where `ENLISTING` has it create them."""
        self.kubectl("apply", "-f", str(samples.SAMPLES / "machines-namespace.yaml"))
        self.kubectl("apply", "-f", str(REPOSITORY / "manifests/overlays/enlistment/rbac.yaml"))

    def start_operator(self, *, arguments: Sequence[str] = ()) -> None:
        """Start the operator for this rack, unless it runs, and wait until it is ready."""
        self.start(
            base_url=self.rack.base_url,
            address=f"{self.rack.host_address}:{self.rack.operator_port}",
            arguments=["--ramdisk", ramdisk.ensure(), "--images", osimage.ensure(), *arguments],
        )

    def site(self, node: str = "node-01", image: str = "raw") -> samples.Site:
        """The values of this rack for the sample manifests."""
        machine = self.rack.node(node)
        description = json.loads((osimage.ensure() / "image.json").read_text())
        facts = next(each for each in description["images"] if each["format"] == image)
        return samples.Site(
            bmc_address=machine.bmc_address,
            boot_mac_address=machine.mac,
            boot_mode=machine.firmware.value,
            username=self.rack.username,
            password=self.rack.password,
            ca=self.rack.ca,
            root_disk_serial=machine.disks[0].serial,
            image_url=f"{self.rack.base_url}/images/{facts['file']}",
            image_format=image,
            checksum=facts["checksum"],
            ssh_key=self.ssh_key.with_suffix(".pub").read_text().strip(),
        )

    def apply_sample(self, which: str, node: str = "node-01", image: str = "raw") -> Path:
        """`kubectl apply -k` the sample files with this rack's values; returns the folder they are in."""
        folder = self.samples_of(node)
        samples.overlay(folder, which, self.site(node, image), node, labels=footprint.mark(self.name))
        self.apply(folder)
        return folder

    def samples_of(self, node: str) -> Path:
        """The folder with a machine's sample files, as they were applied last."""
        return _state(self.name) / f"samples-{node}"


def record_times(name: str) -> None:
    """Keep, beside the laboratory's state and as long as that, what this command's stages took and what it built."""
    times_file(name).write_text(json.dumps({"seconds": TIMES, "built": BUILT}, indent=2) + "\n")


def times_file(name: str) -> Path:
    """Where `record_times` writes: `seconds` by stage, in order, and `built`, empty if everything was cached."""
    return _state(name) / "stages.json"


def up(name: str, *, nodes: Sequence[NodeKind] | None = None, enlisting: bool = False) -> Installation:
    """Bring everything up, or what of it doesn't run."""
    installation = Installation(controlplane.up(name), racks.up(name, nodes))
    installation.install()
    if enlisting:
        installation.allow_enlistment()
    installation.start_operator(arguments=ENLISTING if enlisting else ())
    return installation


def down(name: str) -> None:
    """Remove everything that `up` made, each part whatever becomes of the others; the caches stay."""
    together(lambda: stop(name), lambda: racks.down(name))


def stop(name: str) -> None:
    """Remove the operator and the control plane, or what is ours in a cluster that stays; the rack stays."""
    together(
        lambda: Service("operator", _run(name)).stop(),
        lambda: _leave(name),
        lambda: _remove_folders(name),
    )


def _leave(name: str) -> None:
    record = Record.of(name)
    if record is not None and record.kind is Kind.CURRENT:
        plane = controlplane.find(name)
        if plane is None:
            raise Unfit(
                f"The cluster of laboratory {name} doesn't answer, so what was made in it is still there.",
                f"run this again when it answers; or give it up: hack/control-plane down --name {name}",
            )
        footprint.remove(plane, name, NAMESPACE)
    controlplane.down(name)


def _remove_folders(name: str) -> None:
    for folder in (_run(name), _state(name)):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def is_there(name: str) -> bool:
    """Whether whoever runs this has a laboratory of this name."""
    return (STATE / name).exists()


def scratch(name: str, what: str) -> Path:
    """A folder of the laboratory's, gone with it."""
    folder = _state(name) / what
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder


def _run(name: str) -> Path:
    path = run_dir(name) / _FOLDER
    path.mkdir(exist_ok=True, mode=0o700)
    return path


def _state(name: str) -> Path:
    path = state_dir(name) / _FOLDER
    path.mkdir(exist_ok=True, mode=0o700)
    return path


def _is_ready(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base_url}/readyz", timeout=2) as answer:  # noqa: S310 (http, ours)
            return bool(answer.status == 200)  # noqa: PLR2004 (HTTP's OK)
    except (urllib.error.URLError, TimeoutError, OSError):
        return False
