"""The rack's BMCs: sushy-tools' Redfish emulator on the rack's libvirt, over HTTPS, with a password.

Each rack has a certificate authority of its own, so that verification against `spec.bmc.caSecretRef` is done in
earnest and the wrong authority is refused in earnest.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from lab.domains import UEFI_CODE, UEFI_VARIABLES, UEFI_VARIABLES_SECURE_BOOT
from lab.errors import Unfit
from lab.hypervisor import enclosed
from lab.plan import BMC_PORT, Plan
from lab.process import Service

_SERVER = ("--worker-class=gthread", "--threads=16", "--graceful-timeout=1", "--log-level=warning")
"""The emulator's own server shakes hands with one client at a time: one that says nothing would silence every BMC."""
_HASH = "import bcrypt, sys; print(bcrypt.hashpw(sys.stdin.buffer.read(), bcrypt.gensalt(4)).decode())"
"""The cheapest cost: the emulator checks the password at each request, and it guards nothing of value."""


def emulator(plan: Plan) -> Service:
    """The one process that is all BMCs of the rack."""
    return Service("redfish", plan.run)


def write_certificates(plan: Plan) -> None:
    """Make the rack's authority and the BMCs' certificate, unless they exist. The authority's key is not kept."""
    authority, certificate, key = plan.state / "ca.pem", plan.state / "bmc.pem", plan.state / "bmc.key"
    if authority.exists() and certificate.exists() and key.exists():
        return
    from lab.authority import issue  # noqa: PLC0415 (needs cryptography: what only looks at a rack works without)

    ca_pem, certificate_pem, key_pem = issue(f"Rackwright virtual rack {plan.name}", plan.rack_address)
    for path, text in ((key, key_pem), (certificate, certificate_pem), (authority, ca_pem)):
        write_secret(path, text)


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    unfinished.replace(path)


def emulator_configuration(plan: Plan) -> str:
    """The emulator's configuration, a Python file of settings."""
    settings = {
        "AUTH_FILE": str(plan.state / "bmc.htpasswd"),
        "LIBVIRT_URI": "qemu:///system",
        "STATE_DIR": str(plan.state / "redfish"),
        "VMEDIA_VERIFY_SSL": False,
        "BOOT_LOADER_MAP": {"UEFI": {"x86_64": UEFI_CODE}, "Legacy": {"x86_64": None}},
        "SECURE_BOOT_ENABLED_NVRAM": UEFI_VARIABLES_SECURE_BOOT,
        "SECURE_BOOT_DISABLED_NVRAM": UEFI_VARIABLES,
    }
    return "".join(f"SUSHY_EMULATOR_{name} = {value!r}\n" for name, value in settings.items())


def answers(plan: Plan) -> bool:
    """Whether the Redfish root answers, with a certificate that the rack's authority signed."""
    trust = ssl.create_default_context(cafile=str(plan.state / "ca.pem"))
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    try:
        with direct.open(f"{plan.bmc_url}/redfish/v1/", timeout=5) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 (OK)
    except (OSError, urllib.error.URLError):
        return False


def start(plan: Plan, python: Path, username: str, password: str) -> None:
    """Start the emulator unless it runs, and wait until it answers."""
    write_certificates(plan)
    folder = plan.state / "redfish"
    folder.mkdir(exist_ok=True)
    hashed = subprocess.run([python, "-c", _HASH], input=password, capture_output=True, text=True, check=False)
    if hashed.returncode:
        raise Unfit(
            f"The BMCs' password could not be hashed: {hashed.stderr.strip()[-300:]}",
            f"remove {python.parents[1]} and try again",
        )
    write_secret(plan.state / "bmc.htpasswd", f"{username}:{hashed.stdout}")
    configuration = plan.run / "redfish.conf"
    configuration.write_text(emulator_configuration(plan))
    emulator(plan).start(
        enclosed(
            plan,
            [
                *(python.parent / "gunicorn", *_SERVER, f"--bind={plan.rack_address}:{BMC_PORT}"),
                *(f"--certfile={plan.state / 'bmc.pem'}", f"--keyfile={plan.state / 'bmc.key'}"),
                "sushy_tools.emulator.main:app",
            ],
        ),
        ready=lambda: answers(plan),
        # It keeps a database and images in the folder for temporary files, whichever rack it serves; and it fetches
        # images from the rack's network, which no proxy of the host's reaches.
        env={
            "SUSHY_EMULATOR_CONFIG": str(configuration),
            "TMPDIR": str(folder),
            "NO_PROXY": "*",
            "no_proxy": "*",
        },
        namespace=plan.namespace,
    )
