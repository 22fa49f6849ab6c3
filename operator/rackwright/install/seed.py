"""The cloud-init seed: what the installed system is told about itself on its first boot.

An ISO 9660 image labelled `cidata`, which the agent writes to a small partition behind the operating system and
where cloud-init's NoCloud data source looks for it. The operator's own wish, that the system phones home, is
vendor data; keys and the host's name are metadata. The user's data stays theirs, byte for byte.

cloud-init lets user data override vendor data key by key, so that user data must leave phone_home alone (`user_data`).

Sources: cloud-init's `sources/DataSourceNoCloud.py`, `config/cc_phone_home.py` and `stages.py`;
`partition_utils.py` of ironic-python-agent 13.0.0 for the drive's encoding and size.
"""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import pycdlib
import yaml

LABEL = "cidata"
"""The file system's label, by which cloud-init finds it."""

PHONE_HOME_TRIES = 100
"""cloud-init waits 3 s between tries: an operator that is away for five minutes is not missed."""

NO_USER_DATA = b"#cloud-config\n{}\n"

_POSTED = ("pub_key_ed25519", "pub_key_ecdsa", "pub_key_rsa", "hostname", "fqdn", "instance_id")


@dataclass(frozen=True, slots=True)
class Seed:
    """What the installed system is told."""

    instance_id: str
    """The operation's id: cloud-init does its first-boot work again whenever this changes."""
    hostname: str
    boot_mac: str
    """Of the network card that the system configures, by DHCP."""
    ssh_authorized_keys: tuple[str, ...]
    """For the image's default user."""
    user_data: bytes | None = field(repr=False)
    """The user's; None for none. Checked with `user_data.problem_with`."""
    phone_home_url: str = field(repr=False)
    """With its token, and without a `$`: cloud-init would replace it."""


def config_drive(seed: Seed) -> str:
    """The seed as `standby.prepare_image` wants it: base64 of gzip of an ISO 9660 with Rock Ridge and Joliet names.

    The files are the same for the same seed. The image isn't, bit for bit: it carries the time it was made at.
    """
    image = _iso(_files(seed))
    return base64.b64encode(gzip.compress(image, compresslevel=6, mtime=0)).decode("ascii")


def _files(seed: Seed) -> dict[str, bytes]:
    meta_data = {
        "instance-id": seed.instance_id,
        "local-hostname": seed.hostname,
        "public-keys": list(seed.ssh_authorized_keys),
    }
    network = {
        "version": 2,
        "ethernets": {
            "boot": {
                "match": {"macaddress": seed.boot_mac.lower()},
                "dhcp4": True,
                # By default an installed system has another DHCP identity than its ramdisk, and so another address.
                "dhcp-identifier": "mac",
            }
        },
    }
    vendor_data = {
        "phone_home": {"url": seed.phone_home_url, "post": list(_POSTED), "tries": PHONE_HOME_TRIES},
    }
    return {
        "meta-data": _yaml(meta_data),
        "network-config": _yaml(network),
        "user-data": NO_USER_DATA if seed.user_data is None else seed.user_data,
        "vendor-data": b"#cloud-config\n" + _yaml(vendor_data),
    }


def _yaml(document: Mapping[str, object]) -> bytes:
    return yaml.safe_dump(document, sort_keys=False, width=2**20).encode()


def _iso(files: Mapping[str, bytes]) -> bytes:
    """An ISO 9660 image with these files in its root; names as given for whoever reads Rock Ridge or Joliet."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    try:
        for name, content in files.items():
            iso.add_fp(
                io.BytesIO(content),
                len(content),
                iso_path=f"/{name.upper().replace('-', '_')}.;1",
                rr_name=name,
                joliet_path=f"/{name}",
                file_mode=0o100400,
            )
        out = io.BytesIO()
        iso.write_fp(out)
    finally:
        iso.close()
    return out.getvalue()
