"""The folder that dnsmasq serves by TFTP: iPXE for bare firmware, and the script that iPXE runs first.

The script asks the operator what to boot. It must not depend on the operator's being there at that moment, nor keep a
machine from its own disk where there is none for long: it asks for two minutes, then the firmware goes on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rackwright.netboot.dnsmasq import ENTRY_SCRIPT, NetbootService

ASK_SECONDS, ASK_TIMES = 5, 24


def entry_script(base_url: str) -> str:
    """For every machine; iPXE puts in the MAC of the card it booted from: 02-00-5e-10-00-01."""
    return "\n".join(
        [
            "#!ipxe",
            "set asked:int32 0",
            ":ask",
            # From where it takes over, nothing here is run any more: what it ends with is told to the firmware.
            f"chain --replace {base_url}/boot/ipxe?mac=${{netX/mac:hexhyp}} ||",
            "inc asked",
            f"iseq ${{asked}} {ASK_TIMES} && goto absent ||",
            f"echo Rackwright: the operator does not answer, asking again in {ASK_SECONDS} s",
            f"sleep {ASK_SECONDS}",
            "goto ask",
            ":absent",
            "echo Rackwright: there is no operator, booting the local disk",
            "exit 1",
            "",
        ]
    )


def furnish(service: NetbootService, ipxe: Path) -> None:
    """Put into the service's folder what machines fetch from it, iPXE from the folder `ipxe`.

    FileNotFoundError if that lacks a loader.
    """
    folder = Path(service.tftp_root)
    folder.mkdir(parents=True, exist_ok=True)
    for loader in service.loaders:
        shutil.copy(ipxe / loader.file, folder / loader.file)
    (folder / ENTRY_SCRIPT).write_text(entry_script(service.base_url))
