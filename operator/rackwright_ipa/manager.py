"""The hardware manager: our clean steps, in terms of the agent's own methods.

The agent finds it by its entry point (`ironic_python_agent.hardware_managers`) and asks it before the generic one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from ironic_python_agent import disk_utils, errors, hardware, utils
from oslo_concurrency import processutils

from rackwright_ipa import disk, evidence, methods, rescue

LOG = logging.getLogger(__name__)
COMMANDS = methods.CommandLog()

_FIRMWARE = re.compile(r"mmcblk\d+(?:boot\d+|rpmb)")
"""An eMMC's boot areas and its replay-protected block: read-only, and the board may start from them."""

Node = Mapping[str, Any]


class RackwrightHardwareManager(hardware.HardwareManager):  # type: ignore[misc]  # published without types
    """Lists the machine's disks, erases them and proves it, and opens a rescue; the rest is the generic manager's."""

    HARDWARE_MANAGER_NAME = "rackwright"
    HARDWARE_MANAGER_VERSION = "1"

    def evaluate_hardware_support(self) -> int:
        """Above the generic manager, beside the vendors'."""
        return int(hardware.HardwareSupport.SERVICE_PROVIDER)

    def initialize(self) -> None:
        """Observe the agent's commands from now on."""
        utils.execute = COMMANDS.observing(utils.execute)

    def filter_device(self, device: Any) -> None:
        """Leave out of every listing what is no disk of the machine: what is inspected is what is erased."""
        if not (isinstance(device, hardware.BlockDevice) and (_is_firmware(device) or _is_presented_by_bmc(device))):
            raise errors.IncompatibleHardwareMethodError  # another manager may have an opinion

    def get_clean_steps(self, node: Node, ports: Sequence[Any]) -> list[dict[str, Any]]:  # noqa: ARG002 (the agent's signature)
        """Both steps, with priority 0: they run when they are asked for, never by themselves."""
        mode = {"description": "Full: every sector. Quick: partition tables and signatures.", "required": True}
        keys = {"description": "OpenSSH public keys that may log in as user rescue.", "required": True}
        common = {"priority": 0, "interface": "deploy", "reboot_requested": False}
        return [
            {"step": "erase_disks", "abortable": False, "argsinfo": {"mode": mode}, **common},
            {"step": "open_rescue", "abortable": True, "argsinfo": {"ssh_authorized_keys": keys}, **common},
        ]

    def erase_disks(self, node: Node, ports: Sequence[Any], mode: str = "") -> list[evidence.ErasedDisk]:
        """Erase every disk that the agent's own listing gives, and say for each how, and whether it is so.

        One disk's failure is that disk's evidence; it doesn't stop the others.
        """
        if mode not in ("Full", "Quick"):
            raise errors.CleaningError(f"erase_disks: mode must be Full or Quick, not {mode!r}")
        # Before anything is stopped, which may write already: what the sectors hold and where partitions are.
        seen = {device.name: _Look(device) for device in _erasable(node)}
        _let_go(node, ports)
        # An array that was stopped is gone, and so it should be; a disk that went away is one that isn't erased.
        known = {name: look for name, look in seen.items() if not look.path.name.startswith("md")}
        known |= {device.name: seen.get(device.name) or _Look(device) for device in _erasable(node)}
        if not (looks := [known[name] for name in sorted(known)]):
            return []
        erase = _erase_full if mode == "Full" else _erase_quick
        at_once = int(_settings(node).get("disk_erasure_concurrency", 1))
        with ThreadPool(max(1, min(at_once, len(looks)))) as pool:
            return pool.map(lambda look: _evidence(look, erase, node), looks, chunksize=1)

    def open_rescue(self, node: Node, ports: Sequence[Any], ssh_authorized_keys: object = None) -> rescue.Opened:  # noqa: ARG002 (the agent's signature)
        """Start sshd for user `rescue` and these keys. No disk is touched."""
        try:
            opened = rescue.open_rescue(ssh_authorized_keys)
        except (ValueError, RuntimeError, OSError) as error:
            raise errors.CleaningError(f"open_rescue: {error}") from error
        LOG.info("Rescue is open: user %s, host keys %s", opened["user"], opened["hostKeys"])
        return opened


class _Look:
    """A disk before its erase: what the agent knows of it, and what sampled sectors hold."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.path = Path(device.name)
        self.size = int(device.size)
        self.sector = int(device.logical_sectors or 512)
        self.partitions: dict[str, disk.Extent] = {}
        self.before: dict[int, disk.Sample | None] = {}
        try:
            self.partitions = disk.partitions(self.path.name)
            self.before = disk.read_samples(self.path, self.size, self.offsets())
        except OSError as error:  # a disk this broken may still be erased; it then has less evidence
            LOG.warning("%s can't be sampled before its erase: %s", self.path, error)

    def offsets(self) -> list[int]:
        """Places to look at, other ones each time."""
        return evidence.sample_offsets(self.size, list(self.partitions.values()), sector=self.sector)


_Erase = Callable[[_Look, Node], tuple[methods.Method, evidence.Verdict]]


def _settings(node: Node) -> Mapping[str, Any]:
    """The agent's settings for this node (`agent_erase_devices_iterations` and the like)."""
    return node.get("driver_internal_info") or {}


def _erasable(node: Node) -> list[Any]:
    """The agent's own listing, less its skip list, the members of arrays that are kept, and what it is told to skip."""
    found = hardware.dispatch_to_managers("list_block_devices_check_skip_list", node)
    kept: set[str] = set()
    if any("volume_name" in hint for hint in (node.get("properties") or {}).get("skip_block_devices") or []):
        for array in _arrays():
            kept |= {*hardware.get_component_devices(array.name), *hardware.get_holder_disks(array.name), array.name}
    if _settings(node).get("agent_erase_skip_read_only", False):
        kept |= {device.name for device in found if disk.is_read_only(Path(device.name).name)}
    return [device for device in found if device.name not in kept]


def _is_firmware(device: Any) -> bool:
    return _FIRMWARE.fullmatch(Path(device.name).name) is not None


def _is_presented_by_bmc(device: Any) -> bool:
    """Virtual media: known by the agent's label, or a read-only disk on USB. Other read-only disks must be told of."""
    label = Path("/dev/disk/by-label/ir-vfd-dev")
    if label.exists() and label.resolve() == Path(device.name):
        return True
    return device.tran == "usb" and disk.is_read_only(Path(device.name).name)


def _arrays() -> list[Any]:
    """Software RAID arrays that are assembled."""
    return list(hardware.list_all_block_devices(block_type=["raid", "md"], ignore_raid=False, ignore_empty=False))


def _let_go(node: Node, ports: Sequence[Any]) -> None:
    """Stop what holds disks: LVM first, which may lie on arrays, then those; the agent skips an array's members."""
    utils.try_execute("vgchange", "--activate", "n")
    if _arrays():
        try:
            hardware.dispatch_to_managers("delete_configuration", node, ports)
        except errors.RESTError as error:
            LOG.warning("Not every software RAID array could be stopped: %s", error)


def _evidence(look: _Look, erase: _Erase, node: Node) -> evidence.ErasedDisk:
    """Erase one disk and say what came of it, whatever that is."""
    LOG.info("Erasing %s (%s, %d bytes)", look.path, look.device.serial, look.size)
    try:
        hardware.safety_check_block_device(node, str(look.path))
        method, verdict = erase(look, node)
    except Exception as error:  # one disk's evidence, whatever went wrong
        LOG.exception("Erasing %s failed", look.path)
        method, verdict = methods.FAILED, evidence.Verdict(False, 0, _said(error))
    LOG.info(
        "%s: %s, verified: %s, samples: %d. %s",
        look.path,
        method.name,
        verdict.verified,
        verdict.samples,
        verdict.message,
    )
    return {
        "device": str(look.path),
        "serial": look.device.serial,
        "wwn": look.device.wwn,
        "sizeBytes": look.size,
        "method": method.name,
        "verified": verdict.verified,
        "samples": verdict.samples,
        "message": verdict.message,
    }


def _erase_full(look: _Look, node: Node) -> tuple[methods.Method, evidence.Verdict]:
    """The disk's own erase if it has one, else an overwrite, and what the sectors hold then."""
    given = _settings(node)
    settings = {"agent_continue_if_secure_erase_failed": given.get("agent_continue_if_ata_erase_failed", True), **given}
    with COMMANDS.listening() as commands:
        hardware.dispatch_to_managers("erase_block_device", {**node, "driver_internal_info": settings}, look.device)
    method = methods.method_of(commands)
    _forget_partitions(look.path)
    after = disk.read_samples(look.path, look.size, sorted({*look.before, *look.offsets()}))
    verdict = evidence.judge_full(look.before, after, scrambles=method.scrambles)
    if method is methods.UNKNOWN and not verdict.verified:
        verdict = evidence.Verdict(False, verdict.samples, f"{verdict.message}; the agent ran no command that erases")
    return method, verdict


def _erase_quick(look: _Look, node: Node) -> tuple[methods.Method, evidence.Verdict]:
    """The agent's erase of tables and signatures, then the ends of the disk and of what were its partitions."""
    if disk.is_read_only(look.path.name):
        raise errors.BlockDeviceEraseError(f"{look.path} is read-only")
    # The kernel lists no partitions of a multipath disk. Refused while the table is there: nobody can tell afterwards.
    if look.path.name.startswith("dm-") and not look.partitions and disk.has_partition_table(look.path, look.sector):
        raise errors.BlockDeviceEraseError(f"where the partitions of {look.path} are isn't known: erase it with Full")
    for name in reversed(look.partitions):
        try:
            disk_utils.destroy_disk_metadata(f"/dev/{name}", node["uuid"])
        except (errors.RESTError, processutils.ProcessExecutionError) as error:
            LOG.warning("The metadata of %s will only be overwritten: %s", name, error)
    disk_utils.destroy_disk_metadata(str(look.path), node["uuid"])
    cleared = evidence.edges(look.size, list(look.partitions.values()), sector=look.sector)
    disk.write_zeros(look.path, cleared)
    _forget_partitions(look.path)
    found, _ = utils.execute("wipefs", "--no-act", "--noheadings", "--output", "TYPE", str(look.path))
    return methods.METADATA, evidence.judge_quick(cleared, disk.first_not_zero(look.path, cleared), found.split())


def _forget_partitions(path: Path) -> None:
    """Have the kernel read the table that isn't there any more, so that what is done next finds an empty disk."""
    utils.try_execute("blockdev", "--rereadpt", str(path))
    disk_utils.udev_settle()


def _said(error: Exception) -> str:
    """An exception in one line of bearable length."""
    return " ".join(str(getattr(error, "details", None) or error).split())[:500] or type(error).__name__
