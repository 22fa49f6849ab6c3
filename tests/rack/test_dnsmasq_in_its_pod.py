"""dnsmasq as the manifest confines it: its user, its capabilities, no new privileges, a root that can't be written.

A container runtime isn't needed for that, so none is between the test and what it shows: a network and a mount
namespace, the manifest's own command line, and the configuration that the init container writes for each kind of site.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lab import pod
from lab.pod import Site
from lab.process import Service
from rackwright import __main__ as command

pytestmark = pytest.mark.rack

SITES = pod.sites()
MACHINE = "machine"
"""The machine's end of a cable whose other end is the site's interface."""
DHCP, TFTP, PROXY_DHCP = 67, 69, 4011

CONFINE = """
set -e
ip link set lo up
ip link add "$INTERFACE" type veth peer name "$MACHINE"
ip address add "$ADDRESS" dev "$INTERFACE"
ip link set "$INTERFACE" up
ip link set "$MACHINE" up
mount -t tmpfs -o mode=755 root "$ROOT"
cd "$ROOT"
mkdir usr proc dev etc tmp
mount --bind -o ro /usr usr
for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$folder"; done
mount --rbind /proc proc
mount --rbind /dev dev
cp /etc/passwd /etc/group etc
while read -r source target access; do
    mkdir -p ".$target"
    mount --bind -o "$access" "$source" ".$target"
done < "$VOLUMES"
mount -o remount,ro "$ROOT"
exec chroot . setpriv "$@"
"""


@dataclass(frozen=True)
class Confined:
    """dnsmasq, running."""

    service: Service
    leases: Path

    @property
    def process(self) -> Path:
        """What the kernel says of it."""
        return Path(f"/proc/{self.service.pid}")

    def listens(self) -> set[int]:
        """The UDP ports of its network namespace."""
        try:
            if (self.process / "comm").read_text() != "dnsmasq\n":
                return set()  # what becomes dnsmasq is still in the test's own namespace
            lines = (self.process / "net/udp").read_text().splitlines()[1:]
        except OSError:
            return set()
        return {int(line.split()[1].split(":")[1], 16) for line in lines}

    def boot(self, *further: str) -> list[dict[str, Any]]:
        """What a machine is answered that boots from the network."""
        client = Path(__file__).with_name("dhcp_client.py")
        line = ["nsenter", f"--net={self.process}/ns/net", sys.executable, str(client), MACHINE, *further]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + self.service.log.read_text()
        return [json.loads(line) for line in done.stdout.splitlines()]


def privileges(container: dict[str, Any]) -> list[str]:
    """The container's security context in setpriv's words: a runtime gives root what is added and nothing else."""
    context = container["securityContext"]
    assert context["capabilities"]["drop"] == ["ALL"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    added = [f"+{name.lower()}" for name in context["capabilities"]["add"]]
    return [
        "--no-new-privs",
        f"--reuid={context['runAsUser']}",
        f"--regid={context['runAsGroup']}",
        "--clear-groups",
        "--inh-caps=-all",
        f"--bounding-set={','.join(['-all', *added])}",
    ]


def start(site: Site, folder: Path) -> Confined:
    """Run the init container's command, then dnsmasq as the kubelet would."""
    container = pod.container("dnsmasq")
    volumes = {mount["name"]: folder / mount["name"] for mount in container["volumeMounts"]}
    for source in (*volumes.values(), folder / "root"):
        source.mkdir()
    # The init container's own view of the volume that both mount.
    (mounted,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "dnsmasq-configuration"]
    line = pod.arguments("dnsmasq-configuration", site)
    shared = volumes["dnsmasq-configuration"]
    assert command.main([argument.replace(f"={mounted}/", f"={shared}/") for argument in line]) == 0
    written = shared / "dnsmasq.conf"
    written.write_text(written.read_text().replace(str(shared), mounted))
    (folder / "volumes").write_text(
        "".join(
            f"{volumes[mount['name']]} {mount['mountPath']} {'ro' if mount.get('readOnly') else 'rw'}\n"
            for mount in container["volumeMounts"]
        )
    )
    confined = Confined(Service("dnsmasq", folder), volumes["leases"])
    confined.service.start(
        [
            *("unshare", "--net", "--mount", "sh", "-c", CONFINE, "sh"),
            *privileges(container),
            *container["command"],
            *pod.arguments("dnsmasq", site),
        ],
        ready=lambda: {DHCP, TFTP} <= confined.listens(),
        seconds=20,
        env={
            "INTERFACE": site["INTERFACE"],
            "MACHINE": MACHINE,
            "ADDRESS": f"{urlsplit(site['BASE_URL']).hostname}/{IPv4Network(site['NETWORK']).prefixlen}",
            "ROOT": str(folder / "root"),
            "VOLUMES": str(folder / "volumes"),
        },
    )
    return confined


@pytest.fixture(params=SITES.values(), ids=list(SITES))
def site(request: pytest.FixtureRequest) -> Site:
    """Each kind of site that the manifests' README shows."""
    found: Site = request.param
    return found


@pytest.fixture
def dnsmasq(site: Site, tmp_path: Path) -> Iterator[Confined]:
    """It, ready for machines of that site."""
    confined = start(site, tmp_path)
    try:
        yield confined
    finally:
        confined.service.stop()


def test_it_starts_and_serves_a_machine_with_the_rights_of_its_container(dnsmasq: Confined, site: Site) -> None:
    facts = dict(line.split(":\t", 1) for line in (dnsmasq.process / "status").read_text().splitlines())
    added = pod.container("dnsmasq")["securityContext"]["capabilities"]["add"]
    assert facts["NoNewPrivs"] == "1"
    assert facts["CapEff"] == facts["CapBnd"]
    assert int(facts["CapEff"], 16).bit_count() == len(added)
    if site["DHCP_PROXY"]:
        assert PROXY_DHCP in dnsmasq.listens()
        (offer,) = dnsmasq.boot()
        assert offer["address"] == "0.0.0.0"  # noqa: S104 (none: the site's own DHCP server gives one)
        assert (offer["server"], offer["class"]) == (site["DHCP_PROXY"], "PXEClient")
    else:
        first, _, _ = site["DHCP_RANGE"].partition(",")
        told = {"address": first, "router": [], "dns": [], "file": "snponly.efi"}
        told |= {name.lower(): [site[name]] for name in ("ROUTER", "DNS") if site[name]}
        offer, acknowledgement = dnsmasq.boot("--take")
        assert told.items() <= offer.items()
        assert told.items() <= acknowledgement.items()
        assert first in (dnsmasq.leases / "leases").read_text()
