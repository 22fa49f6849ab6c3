"""An IPMI BMC in software: OpenIPMI's `ipmi_sim`, which speaks the whole protocol and leaves the power to a program.

The same for the virtual rack, where the program switches a virtual machine, and for the unit tests, where it keeps a
file. `ipmi_sim` ignores SIGTERM, so it is ended by SIGKILL.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

PACKAGES = ("openipmi",)
STARTUP = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
"""Commands that make one management controller, at the address that BMCs have (ipmi_sim_cmd(5))."""


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

    def configuration(self) -> str:
        """Its configuration file (ipmi_lan(5)), password included."""
        serial = f"  serial kcs {self.in_band[0]} {self.in_band[1]} codec VM\n" if self.in_band else ""
        methods = "".join(f"    allowed_auths_{rights} md5\n" for rights in ("callback", "user", "operator", "admin"))
        return f"""\
name "bmc"
set_working_mc 0x20
  startlan 1
    addr {self.address} {self.port}
    priv_limit admin
{methods}\
    guid a123456789abcdefa123456789abcde3
  endlan
  chassis_control "{self.chassis_control}"
{serial}\
  startnow false
  user 2 true "{self.username}" "{self.password}" admin 10 md5
"""
