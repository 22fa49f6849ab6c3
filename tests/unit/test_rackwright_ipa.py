"""The ramdisk's plug-in: an erase counts only if the disk, read back, says so.

Files stand in for disks; a small stand-in for the agent's package lets the hardware manager run without one.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rackwright_ipa import disk, evidence, methods, rescue
from rackwright_ipa.disk import SECTOR, Extent, Sample

MIB = 1 << 20
BLANK = disk.sampled(bytes(SECTOR))
ONES = disk.sampled(b"\xff" * SECTOR)
DATA = disk.sampled(b"tenant's" * (SECTOR // 8))
OTHER_DATA = disk.sampled(b"scramble" * (SECTOR // 8))

sizes = st.integers(1, 1 << 44 >> 9).map(lambda sectors: sectors * 512)


@st.composite
def partitioned(draw: st.DrawFn) -> tuple[int, int, list[Extent]]:
    """A disk's size, its logical sector, and partitions that lie on it."""
    sector = draw(st.sampled_from([512, 4096]))
    sectors = draw(st.integers(8, 1 << 32))
    marks = sorted(set(draw(st.lists(st.integers(0, sectors), max_size=12))))
    pairs = list(zip(marks[::2], marks[1::2], strict=False))
    return sectors * sector, sector, [Extent(a * sector, (b - a) * sector) for a, b in pairs]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk of 8 MiB full of data that is different everywhere."""
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(8 * MIB))
    return path


# Where to look


@given(partitioned(), st.randoms())
def test_every_place_looked_at_is_aligned_distinct_and_on_the_disk(
    world: tuple[int, int, list[Extent]], dice: random.Random
) -> None:
    size, sector, parts = world
    offsets = evidence.sample_offsets(size, parts, sector=sector, dice=dice)
    assert offsets == sorted(set(offsets))
    assert all(offset % sector == 0 and 0 <= offset <= size - SECTOR for offset in offsets)


@given(partitioned(), st.randoms())
def test_the_first_and_the_last_sector_are_looked_at_and_64_at_least(
    world: tuple[int, int, list[Extent]], dice: random.Random
) -> None:
    size, sector, parts = world
    offsets = evidence.sample_offsets(size, parts, sector=sector, dice=dice)
    last = (size - SECTOR) // sector * sector
    assert offsets[0] == 0
    assert offsets[-1] == last
    assert len(offsets) >= min(evidence.SAMPLES, last // sector + 1)


@given(partitioned(), st.randoms())
def test_every_partition_is_looked_at_from_its_first_sector_on(
    world: tuple[int, int, list[Extent]], dice: random.Random
) -> None:
    size, sector, parts = world
    offsets = evidence.sample_offsets(size, parts, sector=sector, dice=dice)
    for part in parts:
        if part.length >= SECTOR:
            assert part.start in offsets


@given(sizes)
def test_a_disk_smaller_than_a_sample_is_looked_at_from_its_start(size: int) -> None:
    if size < SECTOR:
        assert evidence.sample_offsets(size, []) == [0]


def test_two_looks_choose_different_places() -> None:
    assert evidence.sample_offsets(1 << 40, []) != evidence.sample_offsets(1 << 40, [])


# Reading and clearing


def test_a_sample_tells_blank_from_data_and_data_from_other_data() -> None:
    assert BLANK.uniform
    assert ONES.uniform
    assert not DATA.uniform
    assert not disk.sampled(b"\xaa" * SECTOR).uniform
    assert DATA != OTHER_DATA


def test_a_cleared_end_is_blank_and_the_middle_stays(image: Path) -> None:
    content = image.read_bytes()
    cleared = evidence.edges(8 * MIB, [])
    disk.write_zeros(image, cleared)
    assert disk.first_not_zero(image, cleared) is None
    assert image.read_bytes() == bytes(MIB) + content[MIB : 7 * MIB] + bytes(MIB)


def test_the_first_byte_that_is_left_is_found_to_within_its_sector(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(3 * MIB) + b"\x01" + bytes(MIB - 1))
    assert disk.first_not_zero(path, [Extent(0, 4 * MIB)]) == 3 * MIB
    path.write_bytes(bytes(2 * MIB - 1) + b"\x01")
    assert disk.first_not_zero(path, [Extent(0, 2 * MIB)]) == 2 * MIB - SECTOR


def test_an_offset_past_the_end_reads_as_unreadable(image: Path) -> None:
    assert disk.read_samples(image, 9 * MIB, [8 * MIB])[8 * MIB] is None


def test_partitions_are_read_from_the_kernel_in_units_of_512_bytes(tmp_path: Path) -> None:
    for name, start, size in (("sda2", 4096, 8), ("sda1", 2048, 2048)):
        entry = tmp_path / "sda" / name
        entry.mkdir(parents=True)
        for key, value in (("start", start), ("size", size), ("partition", 1)):
            (entry / key).write_text(f"{value}\n")
    (tmp_path / "sda" / "queue").mkdir()
    (tmp_path / "sda" / "ro").write_text("1\n")
    found = disk.partitions("sda", tmp_path)
    assert list(found.items()) == [("sda1", Extent(MIB, MIB)), ("sda2", Extent(2 * MIB, 4096))]
    assert disk.is_read_only("sda", tmp_path)


# Judging a Full erase


def overwrite(path: Path, size: int) -> None:
    path.write_bytes(bytes(size))


@settings(deadline=None, max_examples=25)
@given(st.randoms(), st.binary(min_size=1, max_size=64).filter(any))
def test_an_overwritten_disk_is_verified_and_one_left_alone_is_not(
    tmp_path_factory: pytest.TempPathFactory, dice: random.Random, pattern: bytes
) -> None:
    size = 2 * MIB
    path = tmp_path_factory.mktemp("disks") / "disk"
    path.write_bytes((pattern * (size // len(pattern) + 1))[: size - 1] + b"\x5a")
    before = disk.read_samples(path, size, evidence.sample_offsets(size, [], dice=dice))
    again = sorted({*before, *evidence.sample_offsets(size, [], dice=dice)})
    for scrambles in (False, True):
        lazy = evidence.judge_full(before, disk.read_samples(path, size, again), scrambles=scrambles)
        assert not lazy.verified
        assert "still hold data" in lazy.message
    path.write_bytes(bytes(size))
    done = evidence.judge_full(before, disk.read_samples(path, size, again), scrambles=False)
    assert done == evidence.Verdict(verified=True, samples=len(again))


offsets = st.integers(0, 1000).map(lambda n: n * SECTOR)
samples = st.sampled_from([BLANK, ONES, DATA, OTHER_DATA, None])


@given(st.dictionaries(offsets, samples), st.dictionaries(offsets, samples), st.booleans())
def test_a_verified_disk_has_no_sector_that_is_known_to_hold_what_it_held(
    before: dict[int, Sample | None], after: dict[int, Sample | None], scrambles: bool
) -> None:
    verdict = evidence.judge_full(before, after, scrambles=scrambles)
    if verdict.verified:
        assert verdict.samples > 0
        assert verdict.message == ""
        assert None not in after.values()
        for offset, now in after.items():
            assert now is not None
            assert now.uniform or (scrambles and before.get(offset) != now)
    else:
        assert verdict.message


def test_a_crypto_erase_counts_where_sectors_differ_from_what_they_were() -> None:
    before: dict[int, Sample | None] = {0: DATA, SECTOR: BLANK}
    after: dict[int, Sample | None] = {0: OTHER_DATA, SECTOR: OTHER_DATA, 2 * SECTOR: OTHER_DATA}
    assert evidence.judge_full(before, after, scrambles=True) == evidence.Verdict(verified=True, samples=2)
    assert not evidence.judge_full(before, after, scrambles=False).verified


def test_a_crypto_erase_without_anything_to_compare_with_proves_nothing() -> None:
    verdict = evidence.judge_full({}, {0: OTHER_DATA}, scrambles=True)
    assert not verdict.verified
    assert verdict.message == "no sector could be compared with what it held before"


def test_one_sector_that_cannot_be_read_back_spoils_the_evidence() -> None:
    verdict = evidence.judge_full({0: DATA}, {0: BLANK, SECTOR: None}, scrambles=False)
    assert verdict.message == "1 of 2 sampled sectors (the first at byte 4096) can't be read back"


# Judging a Quick erase


@given(partitioned())
def test_both_ends_of_the_disk_and_of_every_partition_are_cleared_and_nothing_beyond(
    world: tuple[int, int, list[Extent]],
) -> None:
    size, sector, parts = world
    cleared = evidence.edges(size, parts, sector=sector)
    assert all(extent.length > 0 and extent.start % sector == 0 and extent.length % sector == 0 for extent in cleared)
    assert all(a.end < b.start for a, b in pairwise(cleared))

    def is_cleared(start: int, end: int) -> bool:
        return any(extent.start <= start and end <= extent.end for extent in cleared)

    for whole in (Extent(0, size), *parts):
        reach = min(evidence.EDGE, whole.length)
        if whole.length:
            assert is_cleared(whole.start, whole.start + reach)
            assert is_cleared(whole.end - reach, whole.end)
    assert sum(extent.length for extent in cleared) <= 2 * evidence.EDGE * (1 + len(parts))


def test_a_signature_or_a_byte_that_is_left_spoils_a_quick_erase() -> None:
    cleared = [Extent(0, MIB)]
    assert evidence.judge_quick(cleared, None, []) == evidence.Verdict(verified=True, samples=256)
    assert not evidence.judge_quick(cleared, 512, []).verified
    assert "zfs_member" in evidence.judge_quick(cleared, None, ["zfs_member"]).message


# Which method it was


@pytest.mark.parametrize(
    ("command", "name", "scrambles"),
    [
        ("hdparm --user-master u --security-erase NULL /dev/sda", "ATASecureErase", False),
        ("hdparm --user-master u --security-erase-enhanced NULL /dev/sda", "ATAEnhancedSecureErase", True),
        ("nvme format /dev/nvme0n1 -s 2 -f", "NVMeCryptoErase", True),
        ("nvme format /dev/nvme0n1 -s 1 -f", "NVMeUserDataErase", True),
        ("blkdiscard --secure /dev/sda", "SecureDiscard", False),
        ("blkdiscard /dev/sda", "Discard", False),
        ("shred --force --zero --verbose --iterations 1 /dev/sda", "Overwrite", False),
        ("shred --force --verbose --iterations 3 /dev/sda", "Overwrite", True),
        ("lsblk --fs --noheadings /dev/sda", "Unknown", False),
    ],
)
def test_the_method_is_told_from_the_command(command: str, name: str, scrambles: bool) -> None:
    around: list[methods.Command] = [("hdparm", "-I", "/dev/sda"), tuple(command.split()), ("blockdev", "--flushbufs")]
    assert methods.method_of(around) == methods.Method(name, scrambles=scrambles)


def test_commands_that_failed_or_ran_for_another_disk_are_not_noted() -> None:
    def execute(*command: str) -> str:
        if "frozen" in command:
            raise OSError
        return " ".join(command)

    commands = methods.CommandLog()
    observed = commands.observing(execute)
    with commands.listening() as noted:
        assert observed("shred", "/dev/sda") == "shred /dev/sda"
        with pytest.raises(OSError):  # noqa: PT011 (any will do)
            observed("hdparm", "frozen")
        other = threading.Thread(target=observed, args=("shred", "/dev/sdb"))
        other.start()
        other.join()
    observed("wipefs", "/dev/sda")
    assert noted == [("shred", "/dev/sda")]


# Keys of a rescue

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeal2O2a9S01EvFueySP5gXnfZiKNw6JD3vzT3Guh4v"
GOOD_KEYS = [
    ED25519,
    f"{ED25519} ops@example.org, the one with spaces",
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAI=",
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t",
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ== old",
]


def test_keys_become_lines_of_authorized_keys() -> None:
    assert rescue.authorized_keys([f" {key}\n" for key in GOOD_KEYS]).splitlines() == GOOD_KEYS


@pytest.mark.parametrize(
    "keys",
    [
        None,
        [],
        ED25519,
        [""],
        [7],
        ["not a key"],
        [f'command="reboot" {ED25519}'],
        [f"{ED25519}\n{ED25519}"],
        [f"{ED25519} a\nssh-rsa AAAA"],
        [ED25519, "ssh-ed25519"],
    ],
)
def test_what_is_not_a_list_of_bare_public_keys_is_refused(keys: object) -> None:
    with pytest.raises(ValueError, match="ssh_authorized_keys"):
        rescue.authorized_keys(keys)


@given(st.lists(st.text(), min_size=1))
def test_no_key_adds_a_line_of_its_own(keys: list[str]) -> None:
    try:
        content = rescue.authorized_keys(keys)
    except ValueError:
        return
    assert len(content.splitlines()) == len(keys)


# The hardware manager, in a stand-in for the agent


class RESTError(Exception):
    """The agent's errors, as far as the plug-in sees them."""

    def __init__(self, details: str = "") -> None:
        super().__init__(details)
        self.details = details


class BlockDevice(SimpleNamespace):
    """The agent's."""


class Agent:
    """The agent's functions that the plug-in calls; disks are files, `erase` is what erasing one does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disks: list[SimpleNamespace] = []
        self.erase: dict[str, Callable[[Path], None]] = {}
        self.settings: dict[str, Any] = {}
        self.execute: Callable[..., tuple[str, str]] = lambda *_command: ("", "")

    def run(self, *command: str) -> tuple[str, str]:
        """Run a command."""
        return self.execute(*command)

    def add(self, name: str, erase: Callable[[Path], None], **facts: Any) -> Path:
        """A disk of 4 MiB with data."""
        path = self.folder / name
        path.write_bytes(os.urandom(4 * MIB))
        known = {"serial": f"S-{name}", "wwn": None, "logical_sectors": 512, "tran": "sata", **facts}
        self.disks.append(BlockDevice(name=str(path), size=4 * MIB, **known))
        self.erase[str(path)] = erase
        return path

    def listed(self) -> list[SimpleNamespace]:
        """The disks that its managers don't leave out."""
        kept = []
        for each in self.disks:
            try:
                assert manager().filter_device(each) is None
            except RESTError:
                kept.append(each)
        return kept

    def dispatch(self, method: str, node: dict[str, Any], device: Any = None) -> Any:
        """What the agent's managers answer."""
        if method == "list_block_devices_check_skip_list":
            listed = self.listed()
            self.disks = [each for each in listed if "unplugged" not in each.name]
            return listed
        assert method == "erase_block_device"
        self.settings = node["driver_internal_info"]
        self.erase[device.name](Path(device.name))
        return None


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    stand_in = Agent(tmp_path)
    names = ("BlockDeviceEraseError", "CleaningError", "IncompatibleHardwareMethodError")
    errors = SimpleNamespace(RESTError=RESTError, **{name: type(name, (RESTError,), {}) for name in names})
    utils = SimpleNamespace(execute=stand_in.run, try_execute=lambda *_c: None)
    hardware = SimpleNamespace(
        HardwareManager=object,
        BlockDevice=BlockDevice,
        HardwareSupport=SimpleNamespace(SERVICE_PROVIDER=3),
        dispatch_to_managers=stand_in.dispatch,
        list_all_block_devices=lambda **_k: [],
        safety_check_block_device=lambda _node, _name: None,
    )
    disk_utils = SimpleNamespace(destroy_disk_metadata=lambda _name, _uuid: None, udev_settle=lambda: None)
    package = ModuleType("ironic_python_agent")
    vars(package).update(errors=errors, utils=utils, hardware=hardware, disk_utils=disk_utils)
    concurrency = ModuleType("oslo_concurrency")
    vars(concurrency)["processutils"] = SimpleNamespace(ProcessExecutionError=OSError)
    monkeypatch.setitem(sys.modules, "ironic_python_agent", package)
    monkeypatch.setitem(sys.modules, "oslo_concurrency", concurrency)
    monkeypatch.setattr(disk, "partitions", lambda _name: {})
    monkeypatch.setattr(disk, "is_read_only", lambda name: name.startswith("ro"))
    yield stand_in
    sys.modules.pop("rackwright_ipa.manager", None)


def manager() -> Any:
    """The hardware manager, as the agent would make it."""
    made = importlib.import_module("rackwright_ipa.manager").RackwrightHardwareManager()
    made.initialize()
    return made


def shredding(path: Path) -> None:
    """Overwrite with zeros, by the command that the agent runs."""
    sys.modules["ironic_python_agent"].utils.execute("shred", "--zero", str(path))
    overwrite(path, 4 * MIB)


def failing(path: Path) -> None:
    raise RESTError(f"{path.name} is frozen")


def pretending(path: Path) -> None:
    """Run the command and leave the disk as it is."""
    sys.modules["ironic_python_agent"].utils.execute("hdparm", "--security-erase", "NULL", str(path))


NODE: dict[str, Any] = {"uuid": "u", "properties": {}, "driver_internal_info": {"disk_erasure_concurrency": 2}}


def test_each_disk_gets_its_own_evidence_and_a_failure_stops_no_other(agent: Agent) -> None:
    agent.add("broken", failing)
    agent.add("lying", pretending)
    agent.add("idle", lambda _path: None)
    agent.add("good", shredding, wwn="0x5000")
    found = {Path(entry["device"]).name: entry for entry in manager().erase_disks(NODE, [], mode="Full")}
    assert found["broken"]["method"] == "Failed"
    assert not found["broken"]["verified"]
    assert found["broken"]["message"] == "broken is frozen"
    assert (found["lying"]["method"], found["lying"]["verified"]) == ("ATASecureErase", False)
    assert "still hold data" in found["lying"]["message"]
    assert found["idle"]["method"] == "Unknown"
    assert found["idle"]["message"].endswith("the agent ran no command that erases")
    good = found["good"]
    assert good["samples"] >= evidence.SAMPLES
    assert {**good, "samples": 0} == {
        "device": str(agent.folder / "good"),
        "serial": "S-good",
        "wwn": "0x5000",
        "sizeBytes": 4 * MIB,
        "method": "Overwrite",
        "verified": True,
        "samples": 0,
        "message": "",
    }


def test_a_disk_without_an_erase_of_its_own_is_overwritten_unless_the_node_says_otherwise(agent: Agent) -> None:
    agent.add("good", shredding)
    made = manager()
    made.erase_disks(NODE, [], mode="Full")
    assert agent.settings["agent_continue_if_secure_erase_failed"] is True
    info = {"agent_continue_if_secure_erase_failed": False}
    made.erase_disks({**NODE, "driver_internal_info": info}, [], mode="Full")
    assert agent.settings["agent_continue_if_secure_erase_failed"] is False


def test_a_quick_erase_clears_the_ends_and_believes_what_it_reads(agent: Agent) -> None:
    path = agent.add("disk", failing)
    (entry,) = manager().erase_disks(NODE, [], mode="Quick")
    assert (entry["method"], entry["verified"], entry["samples"]) == ("Metadata", True, 512)
    content = path.read_bytes()
    assert content[:MIB] == content[-MIB:] == bytes(MIB)
    assert any(content[MIB:-MIB])
    agent.execute = lambda *command: ("crypto_LUKS\n" if command[0] == "wipefs" else "", "")
    (entry,) = manager().erase_disks(NODE, [], mode="Quick")
    assert not entry["verified"]
    assert "crypto_LUKS" in entry["message"]


@pytest.mark.parametrize(("offset", "mark"), [(510, b"\x55\xaa"), (512, b"EFI PART")])
def test_a_quick_erase_leaves_no_partitions_that_it_does_not_know(agent: Agent, offset: int, mark: bytes) -> None:
    for name in ("dm-0", "dm-1", "sda"):
        path = agent.add(name, shredding)
        with path.open("r+b") as file:
            file.write(bytes(MIB))
            if name != "dm-1":
                file.seek(offset)
                file.write(mark)
    for _attempt in range(2):
        found = {Path(entry["device"]).name: entry for entry in manager().erase_disks(NODE, [], mode="Quick")}
        assert {name: entry["verified"] for name, entry in found.items()} == {"dm-0": False, "dm-1": True, "sda": True}
        assert "erase it with Full" in found["dm-0"]["message"]
    assert all(entry["verified"] for entry in manager().erase_disks(NODE, [], mode="Full"))


def test_virtual_media_is_left_out_and_another_read_only_disk_is_told_of(agent: Agent) -> None:
    agent.add("ro-usb", shredding, tran="usb")
    agent.add("ro-sata", failing)
    for mode in ("Full", "Quick"):
        (entry,) = manager().erase_disks(NODE, [], mode=mode)
        assert Path(entry["device"]).name == "ro-sata"
        assert entry["method"] == "Failed"


@pytest.mark.parametrize("name", ["mmcblk0boot0", "mmcblk12boot1", "mmcblk0rpmb"])
def test_firmware_of_an_emmc_is_neither_inspected_nor_erased(agent: Agent, name: str) -> None:
    agent.add(name, failing)
    agent.add("mmcblk0", shredding)
    agent.add("mmcblk0gp0", shredding)
    assert [Path(each.name).name for each in agent.listed()] == ["mmcblk0", "mmcblk0gp0"]
    assert [entry["method"] for entry in manager().erase_disks(NODE, [], mode="Full")] == ["Overwrite"] * 2


def test_what_is_inspected_is_what_is_erased(agent: Agent) -> None:
    for name, tran in (("ro-usb", "usb"), ("ro-sata", "sata"), ("usb", "usb"), ("nvme0n1", "nvme")):
        agent.add(name, shredding, tran=tran)
    listed = [each.name for each in agent.listed()]
    assert [Path(name).name for name in listed] == ["ro-sata", "usb", "nvme0n1"]
    assert sorted(e["device"] for e in manager().erase_disks(NODE, [], mode="Full")) == sorted(listed)


@pytest.mark.usefixtures("agent")
def test_only_disks_are_left_out_of_listings() -> None:
    with pytest.raises(RESTError):
        manager().filter_device(SimpleNamespace(name="mmcblk0boot0"))


def test_a_node_may_say_that_read_only_disks_are_skipped(agent: Agent) -> None:
    agent.add("ro-sata", failing)
    node = {**NODE, "driver_internal_info": {"agent_erase_skip_read_only": True}}
    assert manager().erase_disks(node, [], mode="Full") == []


def test_a_disk_that_goes_away_is_told_of(agent: Agent) -> None:
    agent.add("unplugged", failing)
    (entry,) = manager().erase_disks(NODE, [], mode="Full")
    assert Path(entry["device"]).name == "unplugged"
    assert entry["method"] == "Failed"
    assert agent.disks == []


def test_no_disk_is_no_evidence_and_an_unknown_mode_is_refused(agent: Agent) -> None:
    assert manager().erase_disks(NODE, [], mode="Full") == []
    agent.add("disk", shredding)
    with pytest.raises(RESTError, match="Full or Quick"):
        manager().erase_disks(NODE, [], mode="full")


def test_the_steps_never_run_by_themselves(agent: Agent) -> None:
    steps = manager().get_clean_steps(NODE, [])
    assert agent.disks == []
    assert [(step["step"], step["priority"]) for step in steps] == [("erase_disks", 0), ("open_rescue", 0)]


def test_a_key_that_is_none_opens_nothing(agent: Agent) -> None:
    assert agent.disks == []
    with pytest.raises(RESTError, match="not an OpenSSH public key"):
        manager().open_rescue(NODE, [], ssh_authorized_keys=["hello"])
