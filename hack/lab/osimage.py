"""The OS image: Debian with cloud-init, as a disk that boots from BIOS and from UEFI.

It is what a machine is deployed with until somebody brings an image of their own, and what the virtual rack installs.
No loop device, no mount and no boot loader's installer is used, so that it builds in a container too: file systems
are filled by mke2fs and mtools, and GRUB's two sectors for BIOS are put in place here.
"""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from lab import cache, console, debian
from lab.paths import REPOSITORY
from lab.system import Room

FILES = REPOSITORY / "hack/os-image.d"
NAME = f"debian-{debian.VERSION}"
ROOT_LABEL = "rackwright-root"
"""The root file system's; the files that GRUB and the kernel read name it too."""

_TOOLS = ("dosfstools", "mtools", "fdisk", "qemu-utils")
_NEEDS_GIB = 5
_MIB = 1 << 20
_SECTOR = 512
_SECTORS_PER_MIB = _MIB // _SECTOR
_BIOS_BOOT_MIB = 1
_ESP_MIB = 33
"""The least that FAT32 fits into."""
_TYPES = {  # UEFI specification and the Discoverable Partitions Specification
    "bios": "21686148-6449-6E6F-744E-656564454649",
    "ESP": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "root": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
}
_BIOS_MODULES = (
    *("biosdisk", "part_gpt", "ext2", "search", "search_label", "configfile", "normal", "linux"),
    *("serial", "terminal", "echo", "test", "ls", "cat", "reboot", "halt"),
)


@dataclass(frozen=True)
class Partition:
    """A partition's place, in sectors of 512 bytes."""

    name: str
    start: int
    size: int


@dataclass(frozen=True)
class Layout:
    """The disk: where each partition is, and how long the whole is, in sectors."""

    bios: Partition
    esp: Partition
    root: Partition
    size: int

    @property
    def script(self) -> str:
        """The same for sfdisk(8)."""
        rows = (
            f"{number} : start={part.start}, size={part.size}, type={_TYPES[part.name]}, name={part.name}"
            for number, part in enumerate((self.bios, self.esp, self.root), 1)
        )
        return "\n".join(("label: gpt", *rows)) + "\n"


def layout_for(root_bytes: int) -> Layout:
    """Partitions on boundaries of 1 MiB, the root last so that growpart can extend it; room for both tables."""
    root_mib = -(-root_bytes // _MIB)
    starts_mib = (1, 1 + _BIOS_BOOT_MIB, 1 + _BIOS_BOOT_MIB + _ESP_MIB)
    sizes_mib = (_BIOS_BOOT_MIB, _ESP_MIB, root_mib)
    bios, esp, root = (
        Partition(name, start * _SECTORS_PER_MIB, size * _SECTORS_PER_MIB)
        for name, start, size in zip(_TYPES, starts_mib, sizes_mib, strict=True)
    )
    return Layout(bios, esp, root, root.start + root.size + _SECTORS_PER_MIB)


def root_bytes_for(content_bytes: int, files: int) -> int:
    """How large the root file system must be for so much content.

    An inode takes 256 bytes, and mke2fs makes four for each file here at most; 5 % for block maps and folders, 16 MiB
    for the journal, and 48 MiB that the first boot needs before the file system has grown.
    """
    return content_bytes + content_bytes // 20 + files * 4 * 256 + 64 * _MIB


def bios_boot_sectors(boot: bytes, core: bytes, core_start: int) -> tuple[bytes, bytes]:
    """GRUB's boot code for the first sector and its core image, each told where the core is on the disk.

    `boot.img` (offsets in GRUB's grub-core/boot/i386/pc/boot.S) holds the core's first sector at 0x5C; the two bytes
    at 0x66 become no-ops so that it trusts the drive number that the BIOS gives. The core's first sector ends with
    one block list entry (0x1F4: first sector, count, segment 0x820) for the rest of it. Only 440 bytes are boot code:
    what follows in the first sector is the partition table.
    """
    code = bytearray(boot[:440])
    struct.pack_into("<Q", code, 0x5C, core_start)
    code[0x66:0x68] = b"\x90\x90"
    image = bytearray(core)
    rest = -(-len(core) // _SECTOR) - 1
    struct.pack_into("<QHH", image, 0x1F4, core_start + 1, rest, 0x820)
    return bytes(code), bytes(image)


def key() -> str:
    """What it is built from."""
    return cache.fingerprint([FILES, Path(debian.__file__), Path(__file__)])


def room() -> list[Room]:
    """The disk space that `ensure` will need."""
    return cache.room_for("os-image", key(), _NEEDS_GIB)


def ensure(*, refresh: bool = False) -> Path:
    """The folder with the images and `image.json`, built now unless it is there; `refresh`: with today's packages."""
    if refresh:
        cache.forget("os-image", key())
    if cache.is_built("os-image", key()):
        return cache.path_of("os-image", key())
    debian.require_builder("The OS image", _TOOLS)
    return cache.built("os-image", key(), _build, needs_gib=_NEEDS_GIB)


def _build(folder: Path) -> None:
    """The whole image."""
    root, log = folder / "root", folder / "build.log"
    with console.stage("Debian packages of the OS image", "90 s"):
        early = ["initramfs-tools", "kernel-img.conf"]  # the kernel's installation reads them
        copies = [f"copy-in {FILES}/root/etc/{name} /etc" for name in early]
        excluded = [f"/lib/modules/*/kernel/{name}/*" for name in debian.entries(FILES / "dropped-modules")]
        packages = debian.entries(FILES / "packages")
        debian.bootstrap(root, packages, log=log, hooks={"essential": copies}, paths_excluded=excluded)
        debian.lay(FILES / "root", root)
        (root / "boot/grub").mkdir(exist_ok=True)
        shutil.copy(FILES / "boot/grub.cfg", root / "boot/grub/grub.cfg")
        (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
        debian.chroot(root, "systemctl", "-q", "enable", "systemd-networkd", "systemd-resolved", "ssh", log=log)
        debian.chroot(root, "systemctl", "-q", "disable", "e2scrub_reap", "e2scrub_all.timer", log=log)  # for LVM
        (folder / "packages.txt").write_text(debian.package_versions(root))
    raw = folder / f"{NAME}.raw"
    with console.stage("the OS image's disk", "20 s"):
        _assemble(root, raw, folder, log)
        shutil.rmtree(root)
    with console.stage("the OS image as qcow2, and checksums", "40 s"):
        qcow2 = raw.with_suffix(".qcow2")
        convert: list[str | Path] = [
            "qemu-img",
            "convert",
            "-q",
            "-c",
            "-O",
            "qcow2",
            "-o",
            "compression_type=zstd",
            raw,
            qcow2,
        ]
        debian.run(convert, log=log, what="qemu-img")
        images = [_described(image, raw.stat().st_size) for image in (raw, qcow2)]
        description = {"name": NAME, "architecture": "amd64", "images": images}
        (folder / "image.json").write_text(json.dumps(description, indent=2) + "\n")


def _assemble(root: Path, raw: Path, folder: Path, log: Path) -> None:
    """Partition an empty disk and put the file systems and the BIOS boot code in their places."""
    files = list(root.rglob("*"))
    blocks = sum(-(-path.lstat().st_size // 4096) * 4096 for path in files if not path.is_symlink())
    layout = layout_for(root_bytes_for(blocks, len(files)))
    file_system = folder / "root.ext4"
    with file_system.open("wb") as empty:
        empty.truncate(layout.root.size * _SECTOR)
    # The image's own mke2fs: GRUB reads what that makes, once two features that came after GRUB are left out.
    mke2fs: list[Path | str] = [
        *debian.program(root, "usr/sbin/mke2fs"),
        "-q",
        "-t",
        "ext4",
        "-L",
        ROOT_LABEL,
        "-d",
        root,
    ]
    features = ["-O", "^metadata_csum_seed,^orphan_file", "-m", "1", "-i", "16384"]
    settings = {"MKE2FS_CONFIG": f"{root}/etc/mke2fs.conf"}
    debian.run([*mke2fs, *features, file_system], log=log, what="mke2fs", env=settings)
    esp = folder / "esp.vfat"
    _make_esp(root, esp, log)
    with raw.open("wb") as disk:
        disk.truncate(layout.size * _SECTOR)
    debian.run(["sfdisk", "-q", raw], log=log, what="sfdisk", stdin=layout.script)
    core = folder / "core.img"
    grub = root / "usr/lib/grub/i386-pc"
    mkimage: list[Path | str] = [
        *debian.program(root, "usr/bin/grub-mkimage"),
        "-d",
        grub,
        "-O",
        "i386-pc",
        "-p",
        "/boot/grub",
    ]
    debian.run([*mkimage, "-c", FILES / "boot/first.cfg", "-o", core, *_BIOS_MODULES], log=log, what="grub-mkimage")
    boot_code, core_image = bios_boot_sectors((grub / "boot.img").read_bytes(), core.read_bytes(), layout.bios.start)
    if len(core_image) > layout.bios.size * _SECTOR:
        raise ValueError(f"GRUB's core image has {len(core_image)} bytes, its partition holds less")
    with raw.open("r+b") as disk:
        disk.write(boot_code)
        disk.seek(layout.bios.start * _SECTOR)
        disk.write(core_image)
    for image, part in ((esp, layout.esp), (file_system, layout.root)):
        _copy_sparse(image, raw, part.start * _SECTOR)
        image.unlink()
    core.unlink()


def _make_esp(root: Path, esp: Path, log: Path) -> None:
    """The EFI system partition: signed shim and GRUB at the path for removable media, which needs no boot entry."""
    with esp.open("wb") as empty:
        empty.truncate(_ESP_MIB * _MIB)
    debian.run(["mkfs.vfat", "-F", "32", "-n", "ESP", esp], log=log, what="mkfs.vfat")
    debian.run(["mmd", "-i", esp, "::EFI", "::EFI/BOOT", "::EFI/debian"], log=log, what="mmd")
    for source, target in (
        (root / "usr/lib/shim/shimx64.efi.signed", "::EFI/BOOT/BOOTX64.EFI"),
        (root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "::EFI/BOOT/grubx64.efi"),
        (FILES / "boot/first.cfg", "::EFI/debian/grub.cfg"),
    ):
        debian.run(["mcopy", "-i", esp, source, target], log=log, what="mcopy")


def _copy_sparse(source: Path, target: Path, offset: int) -> None:
    """Copy a file into another at an offset, leaving holes where it has only zeros."""
    with source.open("rb") as content, target.open("r+b") as disk:
        while chunk := content.read(_MIB):
            if chunk.count(0) != len(chunk):
                disk.seek(offset)
                disk.write(chunk)
            offset += len(chunk)


def _described(image: Path, virtual_size: int) -> dict[str, str | int]:
    """An image's entry in `image.json`; writes the files that sha256sum(1) and sha512sum(1) check."""
    sums = {}
    for algorithm in ("sha256", "sha512"):
        with image.open("rb") as data:
            sums[algorithm] = file_digest(data, algorithm).hexdigest()
        image.with_name(f"{image.name}.{algorithm}").write_text(f"{sums[algorithm]}  {image.name}\n")
    return {
        "file": image.name,
        "format": image.suffix.removeprefix("."),
        "checksum": f"sha256:{sums['sha256']}",
        "sha512": sums["sha512"],
        "sizeBytes": image.stat().st_size,
        "virtualSizeBytes": virtual_size,
    }
