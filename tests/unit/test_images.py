"""How the ramdisk and the OS image are laid out, as far as that is arithmetic and choice."""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import cache, debian, osimage, ramdisk

MIB = 1 << 20
SECTOR = 512

# Where packages come from


def test_only_debians_own_suites_of_the_release_are_used() -> None:
    targets = """\
Debian|bookworm|http://mirror.test/debian/|bookworm|main
Debian|bookworm|http://mirror.test/debian/|bookworm|non-free-firmware
Debian|bookworm|http://mirror.test/debian/|bookworm|main
Debian|bookworm-security|http://mirror.test/debian-security/|bookworm-security|main
Debian|trixie|http://mirror.test/debian/|trixie|main
Example|bookworm|http://packages.test/|bookworm|main
"""
    signed = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert debian.sources_of(targets) == [
        f"{signed} http://mirror.test/debian-security/ bookworm-security main",
        f"{signed} http://mirror.test/debian/ bookworm main non-free-firmware",
    ]
    assert debian.sources_of("") == []


def test_lists_are_read_without_their_comments(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# why\n\nudev  # needed\nkmod\n")
    assert debian.entries(tmp_path / "list") == ["udev", "kmod"]


@pytest.mark.parametrize("files", [ramdisk.FILES, osimage.FILES])
def test_every_list_names_each_thing_once(files: Path) -> None:
    for path in files.iterdir():
        if path.is_file() and not path.suffix:
            entries = debian.entries(path)
            assert len(entries) == len(set(entries)), path


def test_units_are_not_both_enabled_and_masked() -> None:
    enabled, masked = (set(debian.entries(ramdisk.FILES / f"{kind}-units")) for kind in ("enabled", "masked"))
    assert not enabled & masked


# Static files


def test_laid_files_keep_their_executable_bit_and_nothing_else_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "chown", lambda _path, user, group, **_options: owners.append((user, group)))
    source, root = tmp_path / "source", tmp_path / "root"
    (source / "etc").mkdir(parents=True)
    (source / "etc/plain").write_text("text")
    (source / "etc/plain").chmod(0o666)
    (source / "etc/command").write_text("#!")
    (source / "etc/command").chmod(0o777)
    (source / "etc/link").symlink_to("/dev/null")
    (root / "etc").mkdir(parents=True)
    (root / "etc/plain").symlink_to("/etc/hostname")
    debian.lay(source, root)
    assert (root / "etc/plain").read_text() == "text"
    assert (root / "etc/plain").stat().st_mode & 0o7777 == 0o644
    assert (root / "etc/command").stat().st_mode & 0o7777 == 0o755
    assert (root / "etc/link").readlink() == Path("/dev/null")
    assert owners == [(0, 0)] * 3


def test_a_masked_unit_points_to_nothing_even_if_it_was_enabled(tmp_path: Path) -> None:
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "getty.target").write_text("[Unit]\n")
    debian.mask(tmp_path, ["getty.target", "not-installed.service"])
    assert {path.name: str(path.readlink()) for path in units.iterdir()} == {
        "getty.target": "/dev/null",
        "not-installed.service": "/dev/null",
    }


# What a build is kept under


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of every input, so that a test may change them."""
    for module, name in ((ramdisk, "FILES"), (ramdisk, "PLUGIN"), (osimage, "FILES")):
        original: Path = getattr(module, name)
        copy = tmp_path / f"{module.__name__}-{original.name}"
        for path in original.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = copy / path.relative_to(original)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        monkeypatch.setattr(module, name, copy)
    return tmp_path


def test_a_change_of_the_plug_in_repacks_and_does_not_bootstrap(inputs: Path) -> None:
    assert inputs.exists()
    before = ramdisk.debian_key(), ramdisk.key()
    (ramdisk.PLUGIN / "manager.py").write_text("changed")
    after = ramdisk.debian_key(), ramdisk.key()
    assert after[0] == before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize("name", ["packages", "enabled-units", "masked-units", "dropped-modules"])
def test_a_change_of_a_list_bootstraps_again(inputs: Path, name: str) -> None:
    assert inputs.exists()
    before = ramdisk.debian_key(), ramdisk.key()
    with (ramdisk.FILES / name).open("a") as file:
        file.write("more\n")
    after = ramdisk.debian_key(), ramdisk.key()
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_further_packages_make_another_ramdisk_in_whatever_order() -> None:
    assert ramdisk.key(["a", "b"]) == ramdisk.key(["b", "a"]) != ramdisk.key()


def test_a_change_of_any_file_makes_another_image(inputs: Path) -> None:
    assert inputs.exists()
    files = [path for path in sorted(osimage.FILES.rglob("*")) if path.is_file() and path.suffix != ".md"]
    keys = {osimage.key()}
    for path in files:
        path.write_bytes(path.read_bytes() + b"\n")
        keys.add(osimage.key())
        path.chmod(path.stat().st_mode ^ 0o111)
        keys.add(osimage.key())
    assert len(keys) == 1 + 2 * len(files)
    (osimage.FILES / "README.md").write_text("documentation builds nothing")
    assert osimage.key() in keys


def test_a_sweep_keeps_two_builds_and_those_of_other_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", tmp_path)
    cache.built("ramdisk-debian", "0" * 16, lambda _folder: None)
    (tmp_path / "ramdisk-interrupted").mkdir()
    for number in range(4):
        built = cache.built("ramdisk", f"{number:016}", lambda _folder: None)
        os.utime(built, (number, number))
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert names == ["ramdisk-0000000000000002", "ramdisk-0000000000000003", f"ramdisk-debian-{'0' * 16}"]
    cache.forget("ramdisk", f"{3:016}")
    assert not cache.is_built("ramdisk", f"{3:016}")


# The OS image's disk


@given(st.integers(1, 1 << 36))
def test_partitions_are_aligned_in_order_apart_and_leave_room_for_both_tables(root_bytes: int) -> None:
    layout = osimage.layout_for(root_bytes)
    parts = (layout.bios, layout.esp, layout.root)
    assert all(part.start * SECTOR % MIB == 0 and part.size > 0 for part in parts)
    assert parts[0].start * SECTOR == MIB
    assert all(a.start + a.size == b.start for a, b in pairwise(parts))
    assert layout.root.size * SECTOR >= root_bytes
    assert layout.size - (layout.root.start + layout.root.size) >= 34


def test_the_table_is_said_in_sfdisks_words() -> None:
    rows = osimage.layout_for(100 * MIB).script.splitlines()
    assert rows[0] == "label: gpt"
    assert rows[3] == "3 : start=71680, size=204800, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root"


@given(st.integers(0, 1 << 34), st.integers(0, 1 << 20))
def test_the_root_file_system_is_larger_than_what_goes_into_it(content: int, files: int) -> None:
    assert osimage.root_bytes_for(content, files) >= content + files * 256 + 64 * MIB


@given(st.integers(512, 1 << 20), st.integers(1, 1 << 32))
def test_the_bios_finds_grub_where_it_was_put(core_bytes: int, start: int) -> None:
    boot, core = osimage.bios_boot_sectors(bytes(512), bytes(core_bytes), start)
    assert len(boot) == 440  # the partition table follows
    assert struct.unpack_from("<Q", boot, 0x5C) == (start,)
    assert boot[0x66:0x68] == b"\x90\x90"
    first, count, segment = struct.unpack_from("<QHH", core, 0x1F4)
    assert (first, segment) == (start + 1, 0x820)
    assert (count + 1) * SECTOR >= core_bytes > count * SECTOR
    assert len(core) == core_bytes


def test_what_boots_names_the_root_file_system_that_is_made() -> None:
    for name in ("boot/grub.cfg", "boot/first.cfg", "root/etc/fstab"):
        assert osimage.ROOT_LABEL in (osimage.FILES / name).read_text()


def test_content_lands_at_its_offset_and_zeros_stay_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(4 * MIB) + b"data" + bytes(100))
    with target.open("wb") as empty:
        empty.truncate(16 * MIB)
    osimage._copy_sparse(source, target, 8 * MIB)
    content = target.read_bytes()
    assert content[12 * MIB : 12 * MIB + 4] == b"data"
    assert content.count(0) == 16 * MIB - 4
    assert target.stat().st_blocks * 512 <= 2 * MIB


def test_no_host_of_a_package_registry_is_named() -> None:
    for files in (ramdisk.FILES, osimage.FILES):
        for path in files.rglob("*"):
            if path.is_file():
                assert "debian.org" not in path.read_text(), path
