"""A way into the ramdisk for somebody who repairs a machine: a user with SSH keys and sudo, no password anywhere."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

USER = "rescue"
_KEY_TYPES = ("ed25519", "ecdsa")
"""Host keys that are made; an RSA key takes long to find, and no client in use needs one."""
_REBOOTS = ("reboot.target", "kexec.target", "soft-reboot.target")
"""What leaves the environment without switching the machine off: it would start what is on its disk, and nobody would
know that it isn't in rescue any more. To switch it off is as good: it is opened again."""
_KEY = re.compile(
    r"(?:(?:ssh|ecdsa)-[a-z0-9-]+|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
    r" [A-Za-z0-9+/]+={0,3}(?: [^\x00-\x1f\x7f]*)?"
)


class Opened(TypedDict):
    """Whom to log in as, and the host keys (public, without comment) to expect."""

    user: str
    hostKeys: list[str]


def authorized_keys(keys: object) -> str:
    """The content of an authorized_keys file; ValueError unless every entry is one bare public key.

    Options before the key (sshd(8)) are refused too: they could run commands that nobody asked for.
    """
    if not isinstance(keys, list) or not keys:
        raise ValueError("ssh_authorized_keys must be a list of at least one public key")
    for number, key in enumerate(keys):
        if not isinstance(key, str) or not _KEY.fullmatch(key.strip()):
            raise ValueError(f"ssh_authorized_keys[{number}] is not an OpenSSH public key (TYPE BASE64 [COMMENT])")
    return "".join(f"{key.strip()}\n" for key in keys)


def open_rescue(keys: object) -> Opened:
    """Let the holders of these keys, and nobody else, log in over SSH. May be repeated, with other keys."""
    content = authorized_keys(keys)
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        _run("useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", USER)
        user = pwd.getpwnam(USER)
    folder = Path(user.pw_dir) / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / "authorized_keys"
    file.write_text(content)
    file.chmod(0o600)
    for path in (folder, file):
        os.chown(path, user.pw_uid, user.pw_gid)
    host_keys = [_host_key(kind) for kind in _KEY_TYPES]
    _run("systemctl", "mask", "--runtime", *_REBOOTS)
    _run("systemctl", "start", "ssh.service")
    return {"user": USER, "hostKeys": host_keys}


def _host_key(kind: str) -> str:
    """The public host key of a type, made now unless it is there."""
    private = Path(f"/etc/ssh/ssh_host_{kind}_key")
    if not private.exists():
        _run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(private))
    return " ".join(private.with_suffix(".pub").read_text().split()[:2])


def _run(*command: str) -> None:
    """A command; RuntimeError with what it said if it fails."""
    done: Sequence[str] = command
    answer = subprocess.run(done, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"{command[0]} failed ({answer.returncode}): {answer.stderr.strip()[-500:]}")
