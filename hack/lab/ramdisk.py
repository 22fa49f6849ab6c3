"""The ramdisk: Debian, the stock agent from PyPI and our plug-in, as a kernel and an initrd.

Firmware loads the initrd over the network at every boot and the kernel unpacks it, so it is laid out for that: a
small archive whose first process stacks two compressed, read-only layers (squashfs) under a writable one in memory.
Only what is read gets decompressed, and a machine spends memory on the compressed layers only. `debian` is the large
layer, which changes when a package list does; `agent` holds the agent, the plug-in and our configuration and is made
in seconds.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lab import cache, console, debian, venv
from lab.paths import REPOSITORY
from lab.system import Room

FILES = REPOSITORY / "hack/ramdisk.d"
PLUGIN = REPOSITORY / "operator/rackwright_ipa"
LOCK = venv.LOCKS / "ramdisk.txt"
KERNEL_PACKAGE = "linux-image-amd64"

_TOOLS = ("squashfs-tools", "cpio", "kmod", "dpkg", "apt")
_BOOT_MODULES = ("drivers/block/loop", "fs/squashfs/squashfs", "fs/overlayfs/overlay")
_PYTHON = ("3.11", "cp311")
"""The suite's interpreter: wheels are chosen for it, whatever Python this command runs in."""
_GLIBC_MINOR = 36
"""The suite's C library is 2.36: the newest that wheels may be built for."""
_COMPRESSION = ("-comp", "zstd", "-Xcompression-level", "6", "-b", "64K")
"""Level 15 takes nine times as long and saves 5 %; larger blocks make a small read decompress more."""
_LAYER_GIB, _GIB = 2, 1
"""Disk space to build the large layer, and to build the rest."""
_MODULES_FOLDER = "usr/local/lib/python3.11/dist-packages"
"""On the search path of Debian's interpreter even where the agent starts one without any environment."""


def debian_key(extra_packages: Sequence[str] = ()) -> str:
    """What the large layer is built from."""
    lists = [FILES / name for name in ("packages", "enabled-units", "masked-units", "dropped-modules")]
    return cache.fingerprint([*lists, Path(debian.__file__), Path(__file__), *sorted(extra_packages)])


def key(extra_packages: Sequence[str] = ()) -> str:
    """What the whole is built from."""
    return cache.fingerprint([debian_key(extra_packages), FILES, PLUGIN, LOCK])


def room() -> list[Room]:
    """The disk space that `ensure` will need."""
    if cache.is_built("ramdisk", key()):
        return []
    return [
        *cache.room_for("ramdisk-debian", debian_key(), _LAYER_GIB),
        *cache.room_for("ramdisk", key(), _GIB),
    ]


def ensure(extra_packages: Sequence[str] = (), *, refresh: bool = False) -> Path:
    """The folder with `vmlinuz` and `initrd`, built now unless it is there; `refresh` takes today's Debian packages."""
    if refresh:
        cache.forget("ramdisk-debian", debian_key(extra_packages))
        cache.forget("ramdisk", key(extra_packages))
    if cache.is_built("ramdisk", key(extra_packages)):
        return cache.path_of("ramdisk", key(extra_packages))
    debian.require_builder("The ramdisk", _TOOLS)
    layer = cache.built(
        "ramdisk-debian",
        debian_key(extra_packages),
        lambda folder: _build_debian(folder, extra_packages),
        needs_gib=_LAYER_GIB,
    )
    return cache.built("ramdisk", key(extra_packages), lambda folder: _build(folder, layer), needs_gib=_GIB)


def _build_debian(folder: Path, extra_packages: Sequence[str]) -> None:
    """The large layer, the kernel beside it, and the modules that the first process needs before it has the layer."""
    root, log = folder / "root", folder / "build.log"
    fetch = (
        'cd "$1/boot" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" && apt-get download '
        f"$(apt-cache depends {KERNEL_PACKAGE} | sed -n 's/.*Depends: \\(linux-image-.*\\)/\\1/p')"
    )
    packages = [*debian.entries(FILES / "packages"), *extra_packages]
    with console.stage("Debian packages of the ramdisk", "60 s"):
        # The kernel is only unpacked: installing it would build an initramfs that nobody boots.
        debian.bootstrap(root, packages, log=log, hooks={"customize": [fetch]})
        (kernel_package,) = (root / "boot").glob("linux-image-*.deb")
        debian.run(["dpkg-deb", "-x", kernel_package, folder / "kernel"], log=log, what="dpkg-deb")
        kernel_package.unlink()
        _add_modules(folder / "kernel", root, log)
        (folder / "packages.txt").write_text(debian.package_versions(root))
        _choose_units(root, log)
        for name in ("etc/fstab", "etc/hostname"):
            (root / name).write_text("")
        (root / "etc/resolv.conf").symlink_to("/run/systemd/resolve/resolv.conf")
    with console.stage("the ramdisk's Debian layer", "10 s"):
        shutil.copy(root / "usr/bin/busybox", folder / "busybox")
        _squash(root, folder / "debian.squashfs", log)
        shutil.rmtree(folder / "kernel")


def _choose_units(root: Path, log: Path) -> None:
    """Enable what the ramdisk is for, and nothing that a package enabled for itself.

    Generators translate configuration into units (fstab, crypttab, gettys for consoles, partitions found by type);
    there is none here, and one of them would use swap space that it finds on a disk.
    """
    debian.empty(root / "etc/systemd/system")
    debian.empty(root / "usr/lib/systemd/system-generators")
    debian.mask(root, debian.entries(FILES / "masked-units"))
    debian.chroot(root, "systemctl", "-q", "enable", *debian.entries(FILES / "enabled-units"), log=log)
    debian.chroot(root, "systemctl", "-q", "set-default", "multi-user.target", log=log)


def _add_modules(kernel: Path, root: Path, log: Path) -> None:
    """Move the kernel's modules into the tree, less the dropped ones; the kernel and its boot modules stay outside."""
    (image,) = (kernel / "boot").glob("vmlinuz-*")
    version = image.name.removeprefix("vmlinuz-")
    modules = root / "lib/modules" / version
    shutil.copytree(kernel / "lib/modules" / version, modules, symlinks=True)
    for dropped in debian.entries(FILES / "dropped-modules"):
        shutil.rmtree(modules / "kernel" / dropped, ignore_errors=True)  # a later kernel may not have it
    debian.run(["depmod", "-b", root, version], log=log, what="depmod")
    shutil.copy(image, kernel.parent / "vmlinuz")
    (kernel.parent / "modules").mkdir()
    for module in _BOOT_MODULES:
        shutil.copy(modules / "kernel" / f"{module}.ko", kernel.parent / "modules")


def _build(folder: Path, layer: Path) -> None:
    """The agent's layer, and the archive of everything."""
    log = folder / "build.log"
    with console.stage("the ramdisk's agent layer", "20 s"):
        agent_layer = folder / "agent.squashfs"
        _build_agent(folder / "root", agent_layer, layer / "root", log)
    with console.stage("the ramdisk's initrd", "2 s"):
        archive = folder / "archive"
        debian.lay(FILES / "initramfs", archive)
        for name in ("bin", "layers", "dev", "debian", "agent", "writable", "system"):
            (archive / name).mkdir()
        shutil.copy(layer / "busybox", archive / "bin/busybox")
        shutil.copytree(layer / "modules", archive / "modules")
        shutil.copy(layer / "debian.squashfs", archive / "layers")
        agent_layer.rename(archive / "layers/agent.squashfs")
        names = "\n".join(sorted(str(path.relative_to(archive)) for path in archive.rglob("*")))
        cpio = ["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0"]
        debian.run([*cpio, f"--directory={archive}", f"--file={folder / 'initrd'}"], log=log, what="cpio", stdin=names)
        shutil.rmtree(archive)
        for name in ("vmlinuz", "packages.txt"):
            shutil.copy(layer / name, folder / name)


def _build_agent(root: Path, image: Path, debian_root: Path, log: Path) -> None:
    """The small layer: the agent and what it imports, the plug-in, our configuration."""
    modules = root / _MODULES_FOLDER
    _install(modules, log)
    shutil.rmtree(modules / "bin")  # commands for an interpreter that isn't there
    for tests in [*modules.glob("*/tests"), *modules.glob("*/test")]:
        shutil.rmtree(tests)
    _add_plugin(modules)
    debian.lay(FILES / "root", root)
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir()
    for unit in ("ironic-python-agent.service", "enlist.service"):
        (wanted / unit).symlink_to(f"../{unit}")
    _compile(modules, debian_root, log)
    _squash(root, image, log, "-all-root")
    shutil.rmtree(root)


def _install(modules: Path, log: Path) -> None:
    """The locked distributions, as wheels for the ramdisk's interpreter rather than the one this runs in."""
    python = sys.executable if find_spec("pip") else str(venv.ensure("dev"))
    version, abi = _PYTHON
    quietly = ["--quiet", "--no-compile", "--root-user-action=ignore"]
    chosen = [f"--python-version={version}", "--implementation=cp", f"--abi={abi}", "--abi=abi3", "--abi=none"]
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(_GLIBC_MINOR, 4, -1)]
    locked = ["--only-binary=:all:", "--no-deps", "--require-hashes", f"--requirement={LOCK}", f"--target={modules}"]
    debian.run([python, "-m", "pip", "install", *quietly, *chosen, *platforms, *locked], log=log, what="pip")


def _add_plugin(modules: Path) -> None:
    """Install the plug-in as a distribution of its own: its entry point is how the agent finds it."""
    shutil.copytree(
        PLUGIN, modules / PLUGIN.name, ignore=shutil.ignore_patterns("__pycache__", "*.md", "entry_points.txt")
    )
    metadata = modules / f"{PLUGIN.name}-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rackwright-ipa\nVersion: 0.1.0\n")
    shutil.copy(PLUGIN / "entry_points.txt", metadata)


def _compile(modules: Path, debian_root: Path, log: Path) -> None:
    """Compile with the layer's own interpreter, for the path the files will have; never checked again at run time."""
    python = [*debian.program(debian_root, f"usr/bin/python{_PYTHON[0]}"), "-m", "compileall", "-q"]
    paths = ["-s", str(modules), "-p", f"/{_MODULES_FOLDER}", str(modules)]
    environment = {"PYTHONHOME": f"{debian_root}/usr"}
    debian.run([*python, "--invalidation-mode", "unchecked-hash", *paths], log=log, what="compileall", env=environment)


def _squash(root: Path, image: Path, log: Path, *options: str) -> None:
    """Pack a tree into a compressed, read-only file system."""
    quietly = ["-noappend", "-no-progress", "-quiet", "-reproducible"]
    debian.run(["mksquashfs", root, image, *quietly, *_COMPRESSION, *options], log=log, what="mksquashfs")
