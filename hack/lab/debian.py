"""Debian file trees, which the ramdisk and the OS image are made from.

The host's own apt configuration says where Debian's packages come from: a mirror that works for the host works
here, and none is named in the project. apt checks the archive's signatures as it does for the host.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lab import system
from lab.errors import Unfit

SUITE = "bookworm"
VERSION = "12"
TOOLS = ("mmdebstrap", "debian-archive-keyring")
"""Debian packages that `bootstrap` needs on the host."""

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LEFT_OUT = ("man", "doc", "locale", "info", "bug", "lintian", "bash-completion", "doc-base")
"""Folders of /usr/share that nobody reads on these systems."""


def require_builder(what: str, tools: Sequence[str] = ()) -> None:
    """Refuse to build where that can't be, or without the tools; installs those that it may."""
    require_host(what)
    system.ensure_packages([*TOOLS, *tools])


def require_host(what: str) -> None:
    """Refuse to build without root, on another architecture, or on another system than Debian."""
    system.require_root(what, why="it unpacks Debian packages with their owners and runs their scripts in a chroot")
    if platform.machine() != "x86_64":
        raise Unfit(f"{what} is built for amd64, this machine is {platform.machine()}.", "run it on an amd64 machine")
    if shutil.which("apt-get") is None:
        raise Unfit(f"{what} is made of Debian packages, and this machine has no apt.", "run it on Debian or Ubuntu")


def entries(file: Path) -> list[str]:
    """The lines of a list that people keep: blank lines and comments left out."""
    return [line for text in file.read_text().splitlines() if (line := text.partition("#")[0].strip())]


def sources_of(index_targets: str) -> list[str]:
    """The one-line sources of Debian's own suites among apt's index targets.

    Targets are `ORIGIN|CODENAME|URI|SUITE|COMPONENT` lines. Security and updates are suites of their own
    (`bookworm-security`); archives of other origins stay out.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for line in index_targets.splitlines():
        origin, codename, uri, suite, component = line.split("|")
        components = found.setdefault((uri, suite), [])
        if origin == "Debian" and codename.partition("-")[0] == SUITE and component not in components:
            components.append(component)
    return [
        f"deb [signed-by={_KEYRING}] {uri} {suite} {' '.join(sorted(c))}"
        for (uri, suite), c in sorted(found.items())
        if c
    ]


def host_sources() -> list[str]:
    """Where the host gets Debian's packages of this suite from."""
    form = "$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]

    def listed() -> list[str]:
        return sources_of(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    if not (found := listed()):  # also when apt's lists were cleaned away: the origin stands in them
        subprocess.run(["apt-get", "-q", "update"], capture_output=True, check=False)
        found = listed()
    if not found:
        raise Unfit(
            f"This machine's apt has no source of Debian {VERSION} ({SUITE}).",
            f"add {SUITE}, {SUITE}-updates and {SUITE}-security to /etc/apt/sources.list.d, then apt-get update",
        )
    return found


def bootstrap(
    target: Path,
    packages: Iterable[str],
    *,
    log: Path,
    hooks: Mapping[str, Sequence[str]] | None = None,
    paths_excluded: Iterable[str] = (),
) -> None:
    """Unpack and configure Debian packages, with what they depend on and nothing they recommend, into `target`.

    `hooks` are shell commands by mmdebstrap's hook name (`customize`, `essential`, ...), with the tree as `$1`.
    What belongs to one system stays out: sources of packages (the host's may be reachable from here only), host
    keys, a machine id, name servers.
    """
    excluded = [*(f"/usr/share/{folder}/*" for folder in _LEFT_OUT), *paths_excluded]
    command = [
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--variant=minbase",
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={path}" for path in excluded),
        *(f"--{when}-hook={command}" for when, commands in (hooks or {}).items() for command in commands),
        f"--include={','.join(packages)}",
        SUITE,
        str(target),
        "-",
    ]
    run(command, log=log, what="mmdebstrap", stdin="\n".join(host_sources()))
    for folder in ("var/cache/apt", "var/lib/apt/lists", "var/log", "tmp"):
        for file in (target / folder).rglob("*"):  # the folders stay: some have an owner that writes there
            if not file.is_dir():
                file.unlink()
    for path in ("etc/apt/sources.list", "etc/resolv.conf", "etc/hostname", "var/lib/dbus/machine-id"):
        (target / path).unlink(missing_ok=True)
    for pattern in (
        "etc/ssh/ssh_host_*",
        "var/cache/debconf/*-old",
        "var/lib/dpkg/*-old",
        "var/cache/ldconfig/aux-cache",
    ):
        for path_found in target.glob(pattern):
            path_found.unlink()
    (target / "etc/machine-id").write_text("")


def chroot(root: Path, *command: str, log: Path) -> None:
    """Run a command of the tree in it."""
    run(["chroot", str(root), *command], log=log, what=command[0])


def program(root: Path, path: str) -> list[str]:
    """The start of a command that runs a tree's own program from outside of it, with the tree's libraries.

    What is made then doesn't depend on the host's version of the program, and the program sees the host's files.
    """
    libraries = root / "usr/lib/x86_64-linux-gnu"
    return [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", str(libraries), f"{root}/{path}"]


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    what: str,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a build step, its output in `log`; a failure is told with the end of that."""
    # Without SOURCE_DATE_EPOCH: with it, Python's compiled modules are of the kind that is checked at every import.
    environment = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"}
    environment |= {"LC_ALL": "C.UTF-8", **(env or {})}
    with log.open("ab") as out:
        done = subprocess.run(
            [str(c) for c in command],
            input=None if stdin is None else stdin.encode(),
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=out,
            stderr=out,
            env=environment,
            check=False,
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise Unfit(f"{what} failed ({done.returncode}):\n{tail}", f"read {log}")


def empty(folder: Path) -> None:
    """Remove what is in a folder, keep the folder."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def lay(files: Path, root: Path) -> None:
    """Copy static files over a tree, owned by root, with modes that don't depend on the checkout's umask."""
    for source in sorted(files.rglob("*")):
        target = root / source.relative_to(files)
        if source.is_dir() and not source.is_symlink():
            if not target.is_dir():
                target.mkdir(parents=True)
                target.chmod(0o755)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target, follow_symlinks=False)
        if not source.is_symlink():
            target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
        os.chown(target, 0, 0, follow_symlinks=False)


def mask(root: Path, units: Iterable[str]) -> None:
    """Make systemd ignore units, installed or not."""
    folder = root / "etc/systemd/system"
    folder.mkdir(parents=True, exist_ok=True)
    for unit in units:
        (folder / unit).unlink(missing_ok=True)
        (folder / unit).symlink_to("/dev/null")


def package_versions(root: Path) -> str:
    """Name and version of every package in a tree, one a line: what a scanner for vulnerabilities wants to know."""
    query = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Package} ${Version}\n"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout
