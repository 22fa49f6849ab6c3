"""A libvirt of the rack's own, so that a user's libvirt on the same host is neither touched nor needed.

libvirt's folders and its socket have fixed places. So its daemon, and the Redfish emulator that talks to it,
run in mount namespaces where those places are the rack's own folders: `qemu:///system` is the rack's libvirt
there, and can't be anything else.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.domains import domain_xml, make_disks
from lab.errors import Unfit
from lab.plan import Node, Plan
from lab.process import Service

_ENTER = """\
set -e
while [ "$1" != -- ]; do mount --rbind "$1" "$2"; shift 2; done
shift
if [ -e /dev/kvm ]; then mount --bind "$1" /dev/kvm; mount -o remount,bind,ro /dev/kvm; fi
shift
exec "$@"
"""
"""`ip netns exec` makes a mount namespace for each command and lets no mount out of it; this fills it."""

_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ ]
dynamic_ownership = 0
remember_owner = 0
stdio_handler = "file"
"""
"""Nothing that needs the host's systemd or cgroups, and no log daemon between QEMU and its files."""

_LIBVIRTD_CONF = """\
listen_tls = 0
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:stderr"
"""


def daemon(plan: Plan) -> Service:
    """The rack's libvirtd."""
    return Service("libvirtd", plan.run)


def enclosed(plan: Plan, command: Sequence[str | Path]) -> list[str]:
    """The command, so that it finds the rack's folders where libvirt's are.

    /dev/kvm is an unreadable file there. The rack emulates in software on every host, and libvirt would find
    its record of QEMU's abilities outdated at each call if KVM were there but of no use.
    """
    private_run = plan.run / "enclosed"
    folders = {
        plan.state / "libvirt-etc": "/etc/libvirt",
        plan.state / "libvirt-lib": "/var/lib/libvirt",
        plan.state / "libvirt-cache": "/var/cache/libvirt",
        plan.state / "libvirt-log": "/var/log/libvirt",
        plan.run: private_run / plan.run.relative_to("/run"),
        # Last: it hides the real /run, and libvirt's sockets are made in it.
        private_run: "/run",
    }
    return [
        *("sh", "-c", _ENTER, "enclosed"),
        *(str(part) for pair in folders.items() for part in pair),
        *("--", str(plan.run / "no-kvm")),
        *map(str, command),
    ]


def _furnish(plan: Plan) -> None:
    private_run = plan.run / "enclosed"
    for folder in (
        private_run / plan.run.relative_to("/run"),
        *(plan.state / f"libvirt-{part}" for part in ("etc", "lib", "cache", "log")),
        plan.state / "virtual-media",
    ):
        folder.mkdir(parents=True, exist_ok=True)
    (plan.run / "no-kvm").touch(mode=0o000)
    (plan.state / "libvirt-etc/qemu.conf").write_text(_QEMU_CONF)
    (plan.state / "libvirt-etc/libvirtd.conf").write_text(_LIBVIRTD_CONF)


def socket_of(plan: Plan) -> Path:
    """Where the rack's libvirtd is reached from outside of its mount namespace."""
    return plan.run / "enclosed/libvirt/libvirt-sock"


def _virsh(plan: Plan, *arguments: str) -> subprocess.CompletedProcess[str]:
    uri = f"qemu+unix:///system?socket={socket_of(plan)}"
    return subprocess.run(["virsh", "-q", "-c", uri, *arguments], capture_output=True, text=True, check=False)


def _must(done: subprocess.CompletedProcess[str], plan: Plan) -> str:
    if done.returncode:
        raise Unfit(f"libvirt refused `{' '.join(done.args[4:])}`: {done.stderr.strip()}", f"read {daemon(plan).log}")
    return done.stdout


def start(plan: Plan) -> bool:
    """Start libvirtd unless it runs; whether it was started anew. Machines outlive its end and are found again.

    They are emulated in software and take all the processor they get, so they, its children, are nice to the rest.
    """
    if daemon(plan).pid is not None and _virsh(plan, "version").returncode == 0:
        return False
    _furnish(plan)
    daemon(plan).start(
        enclosed(plan, ["nice", "/usr/sbin/libvirtd"]),
        ready=lambda: _virsh(plan, "version").returncode == 0,
        seconds=120,
        namespace=plan.namespace,
    )
    return True


def define(plan: Plan) -> None:
    """Make the machines, and the storage pool that virtual media needs, unless they are there.

    A machine that is defined keeps the boot device that its BMC chose for it.
    """
    if "default" not in _must(_virsh(plan, "pool-list", "--all", "--name"), plan).split():
        _must(_virsh(plan, "pool-define-as", "default", "dir", "--target", str(plan.state / "virtual-media")), plan)
    if "default" not in _must(_virsh(plan, "pool-list", "--name"), plan).split():
        _must(_virsh(plan, "pool-start", "default"), plan)
    known = _must(_virsh(plan, "list", "--all", "--name"), plan).split()
    for node in plan.nodes:
        make_disks(node)
        if node.domain not in known:
            description = plan.run / f"{node.name}.xml"
            description.write_text(domain_xml(node, plan))
            _must(_virsh(plan, "define", str(description)), plan)


def power(plan: Plan, node: Node) -> str:
    """`On`, `Off`, or `Unknown` while libvirt doesn't answer."""
    done = _virsh(plan, "domstate", node.domain)
    if done.returncode:
        return "Unknown"
    return "Off" if done.stdout.strip() == "shut off" else "On"


def press_power(plan: Plan, node: Node) -> None:
    """Press its power button; it is off."""
    _must(_virsh(plan, "start", node.domain), plan)


def hard_off(plan: Plan, node: Node) -> None:
    """Cut a machine's power behind its BMC's back, as a pulled plug does; nothing happens to one that is off."""
    done = _virsh(plan, "destroy", node.domain)
    if done.returncode and power(plan, node) != "Off":
        _must(done, plan)


def freeze(plan: Plan, node: Node) -> None:
    """Stop its processor as a hung machine's stands still; it keeps its power."""
    _must(_virsh(plan, "suspend", node.domain), plan)
