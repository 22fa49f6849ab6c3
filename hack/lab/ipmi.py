"""IPMI BMCs in software: OpenIPMI's `ipmi_sim`, which speaks the whole protocol and leaves the power to a program.

The same for the virtual rack, where the program switches a virtual machine, and for the unit tests, where it keeps a
file. In the rack each has an address of its own, as BMCs have.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from lab import chassis
from lab.bmc import write_secret
from lab.hypervisor import socket_of
from lab.plan import IPMI_PORT, Node, Plan
from lab.process import Service

PACKAGES = ("openipmi",)
STARTUP = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
"""Commands that make one management controller, at the address that BMCs have (ipmi_sim_cmd(5))."""
_PREFIX = "ipmi-"


def is_installed() -> bool:
    """Whether the program is there."""
    return shutil.which("ipmi_sim") is not None


@dataclass(frozen=True, slots=True)
class Simulated:
    """What one BMC is to be."""

    address: str
    port: int
    username: str
    password: str
    chassis_control: str
    """A command line; gets `get power` or `set power 1` appended, and prints `power:1` for the former."""
    in_band: tuple[str, int] | None = None
    """Address and TCP port where QEMU connects the guest's own way to its BMC."""
    lan_settings: Path | None = None
    """A file with what the guest is told of the BMC's own network, as `lan_settings` writes it."""

    def configuration(self) -> str:
        """Its configuration file (ipmi_lan(5)), password included."""
        serial = f"  serial kcs {self.in_band[0]} {self.in_band[1]} codec VM\n" if self.in_band else ""
        # What is asked for is appended to the command, and all is told whatever it is.
        lan = f'    lan_config_program "cat {self.lan_settings} #"\n' if self.lan_settings else ""
        methods = "".join(f"    allowed_auths_{rights} md5\n" for rights in ("callback", "user", "operator", "admin"))
        return f"""\
name "bmc"
set_working_mc 0x20
  startlan 1
    addr {self.address} {self.port}
    priv_limit admin
{methods}\
{lan}\
    guid a123456789abcdefa123456789abcde3
  endlan
  chassis_control "{self.chassis_control}"
{serial}\
  startnow false
  user 2 true "{self.username}" "{self.password}" admin 10 md5
"""


def lan_settings(address: IPv4Address) -> str:
    """The BMC's own network, a setting a line, by the simulator's names for them; hardware addresses aren't known."""
    settings = {
        "ip_addr": address,
        "ip_addr_src": "static",
        "mac_addr": "00:00:00:00:00:00",
        "subnet_mask": "255.255.255.255",
        "default_gw_ip_addr": "0.0.0.0",  # noqa: S104 (none)
        "default_gw_mac_addr": "00:00:00:00:00:00",
        "backup_gw_ip_addr": "0.0.0.0",  # noqa: S104 (none)
        "backup_gw_mac_addr": "00:00:00:00:00:00",
    }
    return "".join(f"{name}:{value}\n" for name, value in settings.items())


def simulator(plan: Plan, node: Node) -> Service:
    """The process that is the node's BMC."""
    return Service(f"{_PREFIX}{node.name}", plan.run)


def simulators(plan: Plan) -> tuple[Service, ...]:
    """Those of all nodes that have such a BMC."""
    return tuple(simulator(plan, node) for node in plan.nodes if node.ipmi is not None)


def stop_all(run: Path) -> None:
    """End all that a rack ever started. At once, for `ipmi_sim` ignores SIGTERM."""
    for pid_file in run.glob(f"{_PREFIX}*.pid"):
        Service(pid_file.stem, run).stop(seconds=0)


def start(plan: Plan, python: Path, username: str, password: str) -> None:
    """Start each unless it runs, and wait until it listens. What it keeps lasts as long as the rack."""
    for node in plan.nodes:
        if node.ipmi is None:
            continue
        folder = plan.state / "ipmi" / node.name
        folder.mkdir(parents=True, exist_ok=True)
        control = f"{python} -IS {chassis.__file__} {socket_of(plan)} {node.domain}"
        settings = folder / "lan"
        settings.write_text(lan_settings(node.ipmi.address))
        simulated = Simulated(
            str(node.ipmi.address), IPMI_PORT, username, password, control, node.ipmi.in_band, settings
        )
        write_secret(folder / "bmc.conf", simulated.configuration())
        (folder / "bmc.emu").write_text(STARTUP)
        service = simulator(plan, node)
        service.start(
            ["ipmi_sim", "-c", folder / "bmc.conf", "-f", folder / "bmc.emu", "-s", folder, "-n"],
            ready=partial(_listens, service, node.ipmi.address),
            namespace=plan.namespace,
        )


def _listens(service: Service, address: IPv4Address) -> bool:
    """On its UDP port, as the process's own namespace shows it: in hexadecimal, the address in the machine's order."""
    try:
        sockets = Path(f"/proc/{service.pid}/net/udp").read_text()
    except OSError:
        return False
    return f" {int.from_bytes(address.packed, 'little'):08X}:{IPMI_PORT:04X} " in sockets
