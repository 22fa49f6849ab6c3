"""The rack's machines, as libvirt describes them, and the files that stand for their disks.

Chosen for what a life-cycle operator meets in the field: UEFI and BIOS firmware, disks with serial numbers and
World Wide Names, an NVMe disk, a network card whose firmware boots by itself, a serial console, and a BMC that the
machine itself can speak to.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

from lab.plan import Bus, Disk, Firmware, Node, Plan

MEMORY_MIB = 2048
UEFI_CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
UEFI_VARIABLES = "/usr/share/OVMF/OVMF_VARS_4M.fd"
UEFI_VARIABLES_SECURE_BOOT = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"


def make_disks(node: Node) -> None:
    """Create the node's disks as sparse files, unless they exist: a disk keeps its contents over an `up`."""
    for disk in node.disks:
        disk.backing.parent.mkdir(parents=True, exist_ok=True)
        if not disk.backing.exists():
            with disk.backing.open("xb") as image:
                image.truncate(disk.gib * 2**30)


def domain_xml(node: Node, plan: Plan) -> str:
    """The libvirt domain of a node: software emulation, booting from the network, then from its root disk."""
    return f"""\
<domain type="qemu" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>{node.domain}</name>
  <uuid>{node.uuid}</uuid>
  <memory unit="MiB">{MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch="x86_64" machine="q35">hvm</type>
    {_firmware(node)}
    <boot dev="network"/>
    <boot dev="hd"/>
    <smbios mode="sysinfo"/>
  </os>
  <sysinfo type="smbios">
    <system>
      <entry name="manufacturer">Rackwright</entry>
      <entry name="product">Virtual Node</entry>
      <entry name="serial">{node.serial}</entry>
      <entry name="uuid">{node.uuid}</entry>
    </system>
  </sysinfo>
  <features><acpi/><apic/></features>
  <cpu mode="custom" match="exact" check="none">
    <model fallback="forbid">qemu64</model>
    <feature policy="require" name="rdrand"/>
  </cpu>
  <clock offset="utc"/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type="scsi" model="virtio-scsi"/>
{_scsi_disks(node)}
    <interface type="bridge">
      <mac address="{node.mac}"/>
      <source bridge="{plan.bridge}"/>
      <model type="virtio"/>
      {_network_rom(node)}
    </interface>
    <serial type="file"><source path={quoteattr(str(node.console))} append="on"/></serial>
    <rng model="virtio"><backend model="random">/dev/urandom</backend></rng>
    <memballoon model="none"/>
  </devices>
{_qemu_arguments(node)}
</domain>
"""


def _firmware(node: Node) -> str:
    match node.firmware:
        case Firmware.UEFI:
            return (
                f'<loader readonly="yes" type="pflash">{UEFI_CODE}</loader>\n'
                f'    <nvram template="{UEFI_VARIABLES}">{node.nvram}</nvram>'
            )
        case Firmware.LEGACY:
            return '<bios useserial="yes"/>'


def _network_rom(node: Node) -> str:
    """UEFI firmware has a driver and a PXE client for this card and fetches iPXE by itself, as servers do.

    SeaBIOS has neither: there the card's own ROM boots, which is iPXE already.
    """
    return '<rom enabled="no"/>' if node.firmware is Firmware.UEFI else ""


def _scsi_disks(node: Node) -> str:
    def xml(disk: Disk, letter: str) -> str:
        return f"""\
    <disk type="file" device="disk">
      <driver name="qemu" type="raw" cache="unsafe" discard="unmap"/>
      <source file={quoteattr(str(disk.backing))}/>
      <target dev="sd{letter}" bus="scsi"/>
      <serial>{disk.serial}</serial>
      <wwn>{disk.wwn}</wwn>
    </disk>"""

    return "\n".join(
        xml(disk, letter)
        for disk, letter in zip((d for d in node.disks if d.bus is Bus.SCSI), "abcdefgh", strict=False)
    )


def _qemu_arguments(node: Node) -> str:
    """What QEMU has and libvirt knows nothing of is passed through on the command line."""
    if not (arguments := [*_nvme_disks(node), *_in_band_bmc(node)]):
        return ""
    return "\n".join(
        ["  <qemu:commandline>", *(f"    <qemu:arg value={quoteattr(a)}/>" for a in arguments), "  </qemu:commandline>"]
    )


def _in_band_bmc(node: Node) -> list[str]:
    """The keyboard controller style interface (KCS) on which an operating system finds its BMC.

    QEMU connects again and again, for the BMC may be switched on after the machine.
    """
    if node.ipmi is None:
        return []
    host, port = node.ipmi.in_band
    return [
        *("-chardev", f"socket,id=bmc,host={host},port={port},reconnect=5"),
        *("-device", "ipmi-bmc-extern,id=bmc0,chardev=bmc"),
        *("-device", "isa-ipmi-kcs,bmc=bmc0"),
    ]


def _nvme_disks(node: Node) -> list[str]:
    """An emulated NVMe disk.

    QEMU places it before libvirt's devices, which are to keep the slots that libvirt gave them: hence the address.
    """

    def quoted(path: Path) -> str:
        return str(path).replace(",", ",,")

    return [
        argument
        for number, disk in enumerate(d for d in node.disks if d.bus is Bus.NVME)
        for argument in (
            "-drive",
            f"if=none,id=nvme{number},format=raw,cache=unsafe,discard=unmap,file={quoted(disk.backing)}",
            "-device",
            f"nvme,drive=nvme{number},serial={disk.serial},bus=pcie.0,addr={0x10 + number:#x}",
        )
    ]
