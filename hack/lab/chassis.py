"""The chassis of a virtual machine, as `ipmi_sim` knows chassis: a program to ask, once for each question.

    chassis.py SOCKET DOMAIN get power boot         prints `power:1` and `boot:pxe`
    chassis.py SOCKET DOMAIN set power 1 boot pxe   SOCKET is that of the rack's own libvirt

A program of its own, started for every look at the power state: the standard library and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from xml.etree import ElementTree as ET

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
DEVICES = {"pxe": "network", "cdrom": "cdrom", "default": "hd"}
"""The simulator's words for boot devices, and libvirt's; a disk is its `default`."""


def virsh(socket: str, *arguments: str) -> str:
    """What virsh prints; CalledProcessError if libvirt refuses, which `ipmi_sim` answers with an error of its own."""
    command = ["virsh", "-q", "-c", f"qemu+unix:///system?socket={socket}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def get(socket: str, domain: str, what: str) -> str:
    """`power`: 1 or 0; `boot`: the device; nothing else is known of the machine."""
    match what:
        case "power":
            return "0" if virsh(socket, "domstate", domain).strip() == "shut off" else "1"
        case "boot":
            chosen = ET.fromstring(virsh(socket, "dumpxml", "--inactive", domain)).find("os/boot")  # noqa: S314 (libvirt's own)
            words = {device: word for word, device in DEVICES.items()}
            return words.get("" if chosen is None else chosen.get("dev", ""), "none")
        case _:
            return "0"


def put(socket: str, domain: str, what: str, value: str) -> None:
    """Switch, reset, shut down, or choose the boot device of the next power-on."""
    is_on = get(socket, domain, "power") == "1"
    match what, value:
        case "power", "1" if not is_on:
            virsh(socket, "start", domain)
        case "power", "0" if is_on:
            virsh(socket, "destroy", domain)
        case "reset", _ if is_on:
            virsh(socket, "reset", domain)
        case "shutdown", _ if is_on:
            virsh(socket, "shutdown", domain)
        case "boot", _:
            description = virsh(socket, "dumpxml", "--inactive", "--security-info", domain)
            with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
                file.write(booting_from(description, DEVICES.get(value, "hd")))
                file.flush()
                virsh(socket, "define", file.name)


def booting_from(description: str, device: str) -> str:
    """A domain's XML with one boot device in place of those that it had."""
    ET.register_namespace("qemu", QEMU)
    domain = ET.fromstring(description)  # noqa: S314 (libvirt's own)
    system = domain.find("os")
    if system is not None:
        for former in system.findall("boot"):
            system.remove(former)
        ET.SubElement(system, "boot", dev=device)
    return ET.tostring(domain, encoding="unicode")


def main() -> None:
    """Answer one question of `ipmi_sim`, which may be about several things."""
    socket, domain, operation, *asked = sys.argv[1:]
    if operation == "get":
        for what in asked:
            print(f"{what}:{get(socket, domain, what)}")
    else:
        for what, value in zip(asked[::2], asked[1::2], strict=True):
            put(socket, domain, what, value)


if __name__ == "__main__":
    main()
