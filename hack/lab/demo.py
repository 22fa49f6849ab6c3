"""The demonstration: one machine's life on this machine, told as it happens."""

from __future__ import annotations

from pathlib import Path

from lab import cache, controlplane, controlplane_build, installation, osimage, paths, ramdisk, system
from lab import rack as racks
from lab.console import TIMES, stage
from lab.errors import Unfit
from lab.follow import follow, ssh
from lab.installation import ENLISTING, MACHINES, Installation
from lab.process import wait_until
from lab.samples import ALLOCATED, DECLARED, DEPLOYED

NODE, STRANGER = "node-01", "node-02"
_PLAN = """\
This brings up, on this machine and removed again by `hack/demo down`:

  1  a Python environment                                     20 s   (there)
  2  Debian packages: QEMU, libvirt, dnsmasq, iPXE            30 s   {packages}
  3  a Kubernetes API server, built from source if need be    7 min  {plane}
  4  the ramdisk: Debian and ironic-python-agent              2 min  {ramdisk}
  5  an operating system image: Debian 12 with cloud-init     2 min  {image}
  6  a rack: machines with Redfish BMCs, DHCP, TFTP, iPXE     10 s
  7  CRDs, rights, and the operator with those rights         10 s
  8  node-01: declared, commissioned, Ready                   2 min
  9  node-01: allocated, deployed, logged in to               5 min
"""


def up(name: str, *, release: bool, enlist: bool) -> None:
    """Bring everything up, follow the machine to Deployed, and back to Ready if asked to.

    With `enlist`, a machine that nobody declared introduces itself, too.
    """
    system.require_disk(paths.STATE.parent if paths.STATE.parent.exists() else Path("/"), 3)
    packages = system.missing_packages(racks.PACKAGES)
    print(
        _PLAN.format(
            packages="" if packages else "(there)",
            plane="(there)" if controlplane_build.programs_are_built() else "",
            ramdisk="(there)" if cache.is_built("ramdisk", ramdisk.key()) else "",
            image="(there)" if cache.is_built("os-image", osimage.key()) else "",
        )
    )
    if packages:
        with stage(f"Debian packages: {len(packages)} missing", "30 s"):
            system.ensure_packages(racks.PACKAGES)
    with stage("control plane", "7 s; 7 min when it is built"):
        plane = controlplane.up(name)
    with stage("ramdisk", "2 min when it is built"):
        ramdisk.ensure()
    with stage("operating system image", "2 min when it is built"):
        osimage.ensure()
    with stage("rack", "10 s"):
        rack = racks.up(name)
    here = installation.Installation(plane, rack)
    with stage("CRDs and rights"):
        here.install()
    with stage("operator"):
        if enlist:
            here.allow_enlistment()
            here.operator.stop()  # one that runs may have been started without
        here.start_operator(arguments=ENLISTING if enlist else ())

    phase = installation.phase_of(here, NODE)
    if phase not in ("Allocated", "Deploying", "Deployed"):
        with stage(f"{NODE}: kubectl apply -f {DECLARED} → Ready", "2 min") as shown:
            folder = here.apply_sample(DECLARED)
            follow(here, NODE, until=["Ready"], seconds=900, say=shown.say)
        with stage(f"{NODE}: kubectl apply -f {ALLOCATED} → Allocated") as shown:
            here.apply_sample(ALLOCATED)
            follow(here, NODE, until=["Allocated"], seconds=60, say=shown.say)
    with stage(f"{NODE}: kubectl apply -f {DEPLOYED} → Deployed", "5 min") as shown:
        folder = here.apply_sample(DEPLOYED)
        follow(here, NODE, until=["Deployed"], seconds=1500, say=shown.say)
    with stage(f"{NODE}: log in over SSH, host key from status"):
        answer = ssh(here, NODE, "hostname; . /etc/os-release; echo $PRETTY_NAME; uptime -p; cloud-init status")
    print("\n" + "\n".join(f"    {NODE}$ {line}" for line in answer.splitlines()) + "\n")
    if release:
        with stage(f"{NODE}: kubectl apply -f {DECLARED} → Releasing, erased, Ready", "3 min") as shown:
            here.apply_sample(DECLARED)
            follow(here, NODE, until=["Ready"], seconds=1500, say=shown.say)
        print("\n    evidence of the erase, in status.erasure:")
        for disk in here.machine(NODE)["status"]["erasure"]:
            verified = "verified" if disk["verified"] else "NOT VERIFIED"
            print(f"    {disk['device']} {disk['serial']}: {disk['method']}, {verified}. {disk['message']}")

    if enlist:
        _enlist(here)
    print(f"\n{here.kubectl('get', 'bmm', '-A', *(['-o', 'wide'] if enlist else []))}")
    print(f"""Look around:
    eval "$(hack/control-plane env --name {name})"
    kubectl get bmm -A -w                          # watch it
    kubectl describe bmm {NODE} -n machines        # conditions, the operation, Events
    kubectl get hwi {NODE} -n machines -o yaml     # what the machine is made of
    tail -f {here.operator.log}

Three things to try (the manifests with this rack's values are in {folder}):
    release it:  hack/demo --release               # or: kubectl patch bmm {NODE} -n machines --type merge \\
                                                   #       -p '{{"spec":{{"deployment":null,"allocation":null}}}}'
    break it:    kubectl patch bmm {NODE} -n machines --type merge -p '{{"spec":{{"broken":{{"reason":"DIMM A3"}}}}}}'
    log in:      ssh -i {here.ssh_key} \\
                     debian@$(kubectl get bmm {NODE} -n machines -o jsonpath='{{.status.installed.addresses[0]}}')

    hack/demo down                                 # removes all of it, keeps the caches
""")
    print("Took: " + ", ".join(f"{title} {seconds:.0f} s" for title, seconds in TIMES.items() if seconds >= 1))


def _enlist(here: Installation) -> None:
    """Switch on the machine that nobody declared, and wait until it has introduced itself."""
    serial = here.rack.node(STRANGER).serial.lower()
    if installation.phase_of(here, serial):
        return
    with stage(f"{STRANGER}, which nobody declared: switched on → {MACHINES}/{serial} New, off again", "2 min"):
        here.rack.press_power(STRANGER)
        if not wait_until(lambda: here.rack.power(STRANGER) == "Off", 900):
            raise Unfit(f"{STRANGER} did not switch itself off", f"read {here.rack.node(STRANGER).console}")
        follow(here, serial, until=["New"], seconds=60)
