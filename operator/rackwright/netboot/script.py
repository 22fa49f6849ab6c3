"""The iPXE scripts: the first, which asks the operator what to boot, and the one for each decision.

iPXE splits a line at white space, expands `${...}`, and takes `||`, `&&`, `;` and `#` for syntax. So whatever goes
into a script is checked against what it can be: settings when they are made, a machine's name when it is printed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from rackwright.agent.sessions import Boot, canonical_mac
from rackwright.netboot.decision import AskAgain, Decision, Introduce, LocalDisk, Ramdisk

RETRY_SECONDS = 10
ASK_SECONDS, ASK_TIMES = 5, 24
ENLIST = "rackwright.enlist=1"
"""Tells the ramdisk to leave disks read-only, to inspect and report, and then to switch the machine off (its unit
`enlist.service`)."""

_URL = re.compile(r"http://([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ARGUMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:/=@+-]*")
_UNPRINTABLE = re.compile(r"[^A-Za-z0-9 .,:/_-]")


@dataclass(frozen=True, slots=True)
class RamdiskSettings:
    """How machines load the ramdisk, and what its kernel is told; ValueError where iPXE could misread a value."""

    base_url: str
    """Where machines reach the operator, without a path: `http://10.0.0.1:8080`."""
    kernel: str = "vmlinuz"
    initrd: str = "initrd"
    """Names of files under `/boot/files/`."""
    consoles: tuple[str, ...] = ("tty0", "ttyS0,115200")
    """The kernel's consoles; the last is the one that the ramdisk's own programs write to."""
    insecure: bool = False
    """Let the agent accept any TLS certificate: for image servers whose certificate authority the ramdisk lacks."""
    arguments: tuple[str, ...] = ()
    """More of the kernel's arguments: `nomodeset`."""

    def __post_init__(self) -> None:
        for kind, pattern, values in (
            ("the base URL must be http://HOST or http://HOST:PORT, without a path", _URL, (self.base_url,)),
            ("a file's name must be letters, digits, dots, hyphens, underscores", _FILE, (self.kernel, self.initrd)),
            ("a console must be like ttyS0,115200", _ARGUMENT, self.consoles),
            ("a kernel argument may hold letters, digits and _.,:/=@+- only", _ARGUMENT, self.arguments),
        ):
            for value in values:
                if not pattern.fullmatch(value):
                    raise ValueError(f"{value!r}: {kind}")


def entry_script(base_url: str) -> str:
    """For every machine; iPXE puts in the MAC of the card it booted from: 02-00-5e-10-00-01."""
    return "\n".join(["#!ipxe", *_ask(f"{base_url}/boot/ipxe?mac=${{netX/mac:hexhyp}}"), ""])


def script(decision: Decision, settings: RamdiskSettings) -> str:
    """The script for a decision, ready to be served; ValueError for a MAC address that is none."""
    return "\n".join(["#!ipxe", *_lines(decision, settings), ""])


def kernel_arguments(decision: Ramdisk | Introduce, settings: RamdiskSettings) -> list[str]:
    """What the ramdisk's kernel, and IPA in it, are told."""
    arguments = [f"initrd={settings.initrd}", *(f"console={console}" for console in settings.consoles)]
    arguments += [f"BOOTIF=01-{_hyphens(decision.mac)}"]
    callback = f"ipa-inspection-callback-url={settings.base_url}/v1/continue_inspection"
    match decision:
        case Introduce() | Ramdisk(Boot(goes_off=True)):
            # Without ipa-api-url: nothing is asked of it but who it is; without the journal, which is its own affair.
            arguments += [ENLIST, callback, "ipa-inspection-collectors=default"]
        case Ramdisk(boot):
            arguments += [f"ipa-api-url={settings.base_url}"]
            if boot.wants_inventory:
                # Not for any other boot: to IPA each of these alone means that an inspection is wanted.
                arguments += [callback, "ipa-inspection-collectors=default,logs"]
        case _ as never:
            assert_never(never)
    if settings.insecure:
        arguments.append("ipa-insecure=1")
    return [*arguments, *settings.arguments]


def _lines(decision: Decision, settings: RamdiskSettings) -> list[str]:
    match decision:
        case Ramdisk(boot):
            title = f"machine {boot.namespace}/{boot.name}, {boot.operation}, attempt {boot.attempt}"
            # For ever: what its disk holds isn't wanted now, and in the end its attempt cuts the power.
            return _ramdisk(decision, settings, title, [f"chain --replace {_url(decision, settings)} || goto again"])
        case Introduce():
            title = "a machine nobody declared, inspecting it"
            return _ramdisk(decision, settings, title, _ask(_url(decision, settings)))
        case LocalDisk(reason):
            # With status 1: UEFI firmware takes 0 for a boot that succeeded, and may show its menu instead of going on.
            return [f"echo Rackwright: booting the local disk, {reason}", "exit 1"]
        case AskAgain(_, asked):
            return [
                "echo Rackwright: the operator is starting, please wait",
                f"sleep {ASK_SECONDS}",
                *_ask(f"{_url(decision, settings)}&asked={asked}"),
            ]
        case _ as never:
            assert_never(never)


def _ramdisk(decision: Ramdisk | Introduce, settings: RamdiskSettings, title: str, ask: Sequence[str]) -> list[str]:
    """Load it; where that fails `ask`, instead of repeating: by then the operation may be over."""
    files = f"{settings.base_url}/boot/files"
    arguments = " ".join(kernel_arguments(decision, settings))
    return [
        f"echo Rackwright: {_UNPRINTABLE.sub('?', title)}",
        f"kernel --name {settings.kernel} {files}/{settings.kernel} {arguments} || goto again",
        f"initrd --name {settings.initrd} {files}/{settings.initrd} || goto again",
        "boot || goto again",
        ":again",
        f"echo Rackwright: the ramdisk could not be loaded, asking again in {RETRY_SECONDS} s",
        "imgfree",
        f"sleep {RETRY_SECONDS}",
        *ask,
    ]


def _ask(url: str) -> list[str]:
    """Ask for a script for two minutes, then let the firmware go on.

    A machine must not depend on the operator's being there at that moment, nor be kept from its own disk where there is
    none for long.
    """
    return [
        "set asked:int32 0",
        ":ask",
        # From where it takes over, nothing here is run any more: what it ends with is told to the firmware.
        f"chain --replace {url} ||",
        "inc asked",
        f"iseq ${{asked}} {ASK_TIMES} && goto absent ||",
        f"echo Rackwright: the operator does not answer, asking again in {ASK_SECONDS} s",
        f"sleep {ASK_SECONDS}",
        "goto ask",
        ":absent",
        "echo Rackwright: there is no operator, booting the local disk",
        "exit 1",
    ]


def _url(decision: Ramdisk | Introduce | AskAgain, settings: RamdiskSettings) -> str:
    return f"{settings.base_url}/boot/ipxe?mac={_hyphens(decision.mac)}"


def _hyphens(mac: str) -> str:
    canonical = canonical_mac(mac)
    if canonical is None:
        raise ValueError(f"{mac!r} is no MAC address")
    return canonical.replace(":", "-")
