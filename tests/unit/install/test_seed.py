"""The seed, read back as cloud-init would read it."""

from __future__ import annotations

import base64
import gzip
import io
import shutil
import subprocess
from pathlib import Path

import pycdlib
import pytest
import yaml

from rackwright.install.seed import LABEL, NO_USER_DATA, Seed, config_drive

URL = "http://10.0.0.1:8080/v1/phone-home/6b1c?token=Zm9v-bar_baz"
KEYS = ("ssh-ed25519 AAAAC3Nza ops@example.org", "ssh-rsa AAAAB3Nza it's: a 'comment' # here")


def seed(user_data: bytes | None = None, *, hostname: str = "node-07.example.org") -> Seed:
    return Seed("op-17", hostname, "52:54:00:AA:00:07", KEYS, user_data, URL)


def image(drive: str) -> bytes:
    return gzip.decompress(base64.b64decode(drive, validate=True))


def files(drive: str, names: str = "rr") -> dict[str, bytes]:
    """Content by name, read by Rock Ridge or Joliet names."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image(drive)))
    found = {}
    for name in ("meta-data", "network-config", "user-data", "vendor-data"):
        content = io.BytesIO()
        iso.get_file_from_iso_fp(content, **{f"{names}_path": f"/{name}"})
        found[name] = content.getvalue()
    iso.close()
    return found


def test_the_drive_holds_the_four_files_under_either_kind_of_name() -> None:
    drive = config_drive(seed(b"#!/bin/sh\n"))
    assert files(drive) == files(drive, "joliet")


def test_the_drive_is_labelled_cidata() -> None:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image(config_drive(seed()))))
    assert iso.pvd.volume_identifier.decode().strip() == LABEL
    assert iso.joliet_vd.volume_identifier.decode("utf-16-be").strip() == LABEL
    iso.close()


@pytest.mark.skipif(
    not shutil.which("blkid", path="/usr/sbin:/sbin:/usr/bin"), reason="needs blkid, as cloud-init does"
)
def test_blkid_finds_the_label_that_cloud_init_asks_it_for(tmp_path: Path) -> None:
    path = tmp_path / "seed"
    path.write_bytes(image(config_drive(seed())))
    blkid = shutil.which("blkid", path="/usr/sbin:/sbin:/usr/bin")
    assert blkid
    told = subprocess.run([blkid, "-o", "export", "-p", path], capture_output=True, text=True, check=True).stdout
    assert {"LABEL=cidata", "TYPE=iso9660"} <= set(told.splitlines())


def test_the_operation_is_the_instance_so_that_a_reinstall_is_a_new_one() -> None:
    meta_data = yaml.safe_load(files(config_drive(seed()))["meta-data"])
    assert meta_data == {"instance-id": "op-17", "local-hostname": "node-07.example.org", "public-keys": list(KEYS)}


def test_a_hostname_of_digits_stays_text() -> None:
    assert yaml.safe_load(files(config_drive(seed(hostname="007")))["meta-data"])["local-hostname"] == "007"


def test_the_boot_card_gets_its_address_by_dhcp_under_its_mac_address() -> None:
    network = yaml.safe_load(files(config_drive(seed()))["network-config"])
    assert network == {
        "version": 2,
        "ethernets": {
            "boot": {"match": {"macaddress": "52:54:00:aa:00:07"}, "dhcp4": True, "dhcp-identifier": "mac"},
        },
    }


@pytest.mark.parametrize(
    "content", [b"#cloud-config\nhostname: x\r\n", b"#!/bin/sh\nexit 0", b"", bytes(range(256)) * 999]
)
def test_user_data_arrives_byte_for_byte(content: bytes) -> None:
    assert files(config_drive(seed(content)))["user-data"] == content


def test_without_user_data_there_is_an_empty_cloud_config() -> None:
    assert files(config_drive(seed()))["user-data"] == NO_USER_DATA
    assert yaml.safe_load(NO_USER_DATA) == {}


def test_vendor_data_makes_the_system_phone_home_with_its_host_keys() -> None:
    vendor_data = files(config_drive(seed()))["vendor-data"]
    assert vendor_data.startswith(b"#cloud-config\n")
    phone_home = yaml.safe_load(vendor_data)["phone_home"]
    assert phone_home["url"] == URL
    assert set(phone_home["post"]) == {
        "pub_key_ed25519",
        "pub_key_ecdsa",
        "pub_key_rsa",
        "hostname",
        "instance_id",
        "fqdn",
    }
    assert phone_home["tries"] >= 10


def test_the_largest_user_data_that_is_let_through_fits_into_the_agents_64_mib() -> None:
    overhead = len(image(config_drive(seed(b""))))
    assert 60 * 2**20 + overhead <= 64 * 2**20


def test_only_root_may_read_what_is_on_the_drive() -> None:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image(config_drive(seed()))))
    modes = {iso.get_record(rr_path=f"/{name}").rock_ridge.get_file_mode() for name in ("user-data", "vendor-data")}
    iso.close()
    assert modes == {0o100400}


def test_a_seed_does_not_show_its_secrets() -> None:
    shown = repr(seed(b"#!/bin/sh\necho hunter2\n"))
    assert "hunter2" not in shown
    assert "Zm9v" not in shown
