"""The folder that dnsmasq serves by TFTP: iPXE for bare firmware, and the script that iPXE runs first."""

from __future__ import annotations

import shutil
from pathlib import Path

from rackwright.netboot.dnsmasq import ENTRY_SCRIPT, NetbootService
from rackwright.netboot.script import entry_script


def furnish(service: NetbootService, ipxe: Path) -> None:
    """Put into the service's folder what machines fetch from it, iPXE from the folder `ipxe`.

    FileNotFoundError if that lacks a loader.
    """
    folder = Path(service.tftp_root)
    folder.mkdir(parents=True, exist_ok=True)
    for loader in service.loaders:
        shutil.copy(ipxe / loader.file, folder / loader.file)
    (folder / ENTRY_SCRIPT).write_text(entry_script(service.base_url))
