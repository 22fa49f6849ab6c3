"""What went wrong in the ramdisk, and what a person does about it.

The agent reports a failed command as `{"type", "code", "message", "details"}`: the name of one of
ironic-python-agent's exceptions and a text that was written for its log. Neither says whose fault it is, and the
text may hold response bodies, headers and URLs with passwords. One table turns it into a reason that is stable
enough to alert on and one sentence that says what to do.

Sources: `ironic_python_agent/errors.py`, `extensions/standby.py`, `extensions/base.py`, `partition_utils.py` and
`device_hints.py` of ironic-python-agent 13.0.0. What isn't one of its own exceptions arrives as
`CommandExecutionError` with the exception's text, a lost connection to the image's web server among them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rackwright.install.sentences import MESSAGE_LIMIT, presentable
from rackwright.lifecycle.world import Blame, Fault


class Doing(StrEnum):
    """What the agent was asked to do; the same exception means different things."""

    WRITE_IMAGE = "WriteImage"
    ERASE = "Erase"
    RESCUE = "Rescue"
    OTHER = "Other"


@dataclass(frozen=True, slots=True)
class _Row:
    """One kind of error. The first row whose every given column matches explains it."""

    types: frozenset[str]
    """Names of IPA's exceptions; empty for any."""
    says: re.Pattern[str] | None
    """Found in the error's text; its named groups fill the advice, which else ends in the agent's own words."""
    doing: Doing | None
    blame: Blame
    reason: str
    advice: str


def _row(
    types: str,
    says: str | None,
    blame: Blame,
    reason: str,
    advice: str,
    *,
    doing: Doing | None = None,
) -> _Row:
    pattern = None if says is None else re.compile(says, re.IGNORECASE | re.DOTALL)
    return _Row(frozenset(types.split()), pattern, doing, blame, reason, advice)


_ANY = ""
_DOWNLOAD = "ImageDownloadError ImageDownloadFatalError ImageDownloadTimeoutError"
_NETWORK = f"{_DOWNLOAD} CommandExecutionError"
_WRITING = f"{_DOWNLOAD} ImageWriteError CommandExecutionError"
_NO_SPACE = r"\[errno 28\]|no space left on device|cannot grow device files|device is too small"
_IO_ERROR = r"\[errno (?:5|30|121)\]|input/output error|remote i/o error|read-only file system"
_NO_CONNECTION = (
    "(?P<what>connection (?:refused|reset|aborted|broken)|(?:read )?timed out|no route to host"
    "|network is unreachable|name or service not known|temporary failure in name resolution|failed to resolve)"
)

_TABLE = (
    _row(
        "VersionMismatch",
        None,
        Blame.AGENT,
        "RamdiskChanged",
        "The ramdisk changed while it was being worked with; boot it anew",
    ),
    _row(
        "AgentIsBusy",
        None,
        Blame.AGENT,
        "AgentBusy",
        "The agent still executes an earlier command; wait for it to end or restart the machine",
    ),
    _row(
        "HardwareManagerMethodNotFound InvalidCommandError InvalidCommandParamsError RequestedObjectNotFoundError",
        None,
        Blame.AGENT,
        "RamdiskIncompatible",
        "The ramdisk doesn't know what the operator asks for; boot the ramdisk that was built for this operator",
    ),
    _row(
        "DeviceNotFound",
        "hints were not provided",
        Blame.DISK,
        "NoMatchingDisk",
        "The machine has no disk of 4 GiB or more; name a smaller one in spec.storage.rootDeviceHints",
    ),
    _row(
        "DeviceNotFound",
        None,
        Blame.DISK,
        "NoMatchingDisk",
        "No disk matches spec.storage.rootDeviceHints; compare them with the machine's HardwareInventory",
    ),
    _row(
        "ImageChecksumError",
        r"image checksum: (?P<want>\w{12})\w*; verification checksum: (?P<got>\w{12})",
        Blame.IMAGE,
        "ChecksumMismatch",
        "The file's checksum is {got}… and not {want}… as the OperatingSystemImage says; "
        "correct the checksum or the file",
    ),
    _row(
        "ImageChecksumError",
        None,
        Blame.IMAGE,
        "ChecksumMismatch",
        "The file's checksum is not what the OperatingSystemImage says; correct the checksum or the file",
    ),
    _row(
        "ImageDownloadOutofSpaceError",
        None,
        Blame.IMAGE,
        "ImageTooLargeForMemory",
        "The image doesn't fit into the machine's memory; publish it in the format raw, which is streamed to the disk",
    ),
    _row(
        _DOWNLOAD,
        r"status code (?P<code>404|410) from (?P<url>[^\s,]+)",
        Blame.IMAGE,
        "ImageNotFound",
        "There is no image at {url} (status {code}); correct spec.url of the OperatingSystemImage",
    ),
    _row(
        _DOWNLOAD,
        r"status code (?P<code>401|403|407) from (?P<url>[^\s,]+)",
        Blame.IMAGE,
        "ImageForbidden",
        "The web server refuses {url} (status {code}); let machines read it without a password",
    ),
    _row(
        _WRITING,
        _NO_SPACE,
        Blame.DISK,
        "DiskTooSmall",
        "The image is larger than the disk; "
        "choose a larger one in spec.storage.rootDeviceHints and set the image's minDisk",
        doing=Doing.WRITE_IMAGE,
    ),
    _row(
        _WRITING,
        _IO_ERROR,
        Blame.DISK,
        "ImageWriteFailed",
        "The disk doesn't take what is written to it; check its health and replace it",
        doing=Doing.WRITE_IMAGE,
    ),
    _row(
        _NETWORK,
        "certificate.?verify",
        Blame.IMAGE,
        "ImageUnreachable",
        "The ramdisk can't verify the certificate of the image's web server; build its authority into the ramdisk",
        doing=Doing.WRITE_IMAGE,
    ),
    _row(
        _NETWORK,
        r"\[ssl: (?P<what>\w+)\]",
        Blame.IMAGE,
        "ImageUnreachable",
        "The image's web server speaks no TLS that the ramdisk accepts ({what}); "
        "correct spec.url of the OperatingSystemImage or the server",
        doing=Doing.WRITE_IMAGE,
    ),
    _row(
        _DOWNLOAD,
        r"status code (?P<code>\d+) from (?P<url>[^\s,]+)",
        Blame.IMAGE,
        "ImageUnreachable",
        "The web server answers {url} with status {code}; check the web server",
    ),
    _row(
        _NETWORK,
        _NO_CONNECTION,
        Blame.IMAGE,
        "ImageUnreachable",
        "The ramdisk can't reach the image's web server ({what}); "
        "check that spec.url of the OperatingSystemImage answers on the machine's network",
        doing=Doing.WRITE_IMAGE,
    ),
    _row(
        "CommandExecutionError",
        "https?connectionpool",
        Blame.IMAGE,
        "ImageUnreachable",
        "The ramdisk can't reach the image's web server; "
        "check that spec.url of the OperatingSystemImage answers on the machine's network",
        doing=Doing.WRITE_IMAGE,
    ),
    _row(
        _DOWNLOAD,
        None,
        Blame.IMAGE,
        "ImageUnreachable",
        "The image could not be downloaded; "
        "check that spec.url of the OperatingSystemImage answers on the machine's network",
    ),
    _row(
        "ImageWriteError",
        None,
        Blame.DISK,
        "ImageWriteFailed",
        "The image could not be written; check the disk's health and that the image is whole",
    ),
    _row(
        "InvalidImage",
        r"expected format was (?P<want>\w+), but image was actually (?P<got>\w+)",
        Blame.IMAGE,
        "ImageInvalid",
        "The image is {got} and not {want}; correct spec.format of the OperatingSystemImage",
    ),
    _row(
        "InvalidImage",
        None,
        Blame.IMAGE,
        "ImageInvalid",
        "The ramdisk refuses the image; publish one in the format of the OperatingSystemImage, without backing files",
    ),
    _row(
        "DeploymentError",
        "already has .* primary partitions",
        Blame.IMAGE,
        "SeedNotWritten",
        "The image leaves no room for the cloud-init seed; "
        "build it with a GPT or with fewer than four primary partitions",
    ),
    _row(
        "DeploymentError",
        "config ?drive|configuration drive",
        Blame.DISK,
        "SeedNotWritten",
        "The cloud-init seed could not be written behind the image; "
        "check that 64 MiB of the disk stay free and its health",
    ),
    _row(
        "DeploymentError",
        "partition",
        Blame.IMAGE,
        "ImageInvalid",
        "What was written has no valid partition table; "
        "publish an image of a whole disk, made for the disk's sector size",
    ),
    _row(
        "ProtectedDeviceError",
        None,
        Blame.DISK,
        "EraseFailed",
        "The ramdisk doesn't erase a disk that holds a shared file system; detach it from the machine",
    ),
    _row(
        _ANY,
        None,
        Blame.DISK,
        "EraseFailed",
        "A disk could not be erased; check its health, replace it or take it out, then recommission",
        doing=Doing.ERASE,
    ),
    _row(
        _ANY,
        None,
        Blame.AGENT,
        "RescueFailed",
        "The ramdisk could not open the rescue environment; "
        "restart the machine or boot the ramdisk that was built for this operator",
        doing=Doing.RESCUE,
    ),
    _row(
        _ANY,
        None,
        Blame.AGENT,
        "AgentError",
        "The ramdisk could not carry out a command; read its log on the machine's console",
    ),
)


def explain(command_error: object, doing: Doing) -> Fault:
    """The fault behind a failed command.

    Args:
        command_error: the value of the same name in the agent's answer, `{"type", "code", "message", "details"}`,
            of which nothing needs to be there; what can't be told apart is an `AgentError`.
        doing: what the command was meant to do.
    """
    error = command_error if isinstance(command_error, Mapping) else {"details": command_error}
    kind = error.get("type")
    kind = kind if isinstance(kind, str) else ""
    text = ": ".join(part for part in (error.get("message"), error.get("details")) if isinstance(part, str) and part)
    for row in _TABLE:
        if (row.types and kind not in row.types) or row.doing not in (None, doing):
            continue
        match = row.says.search(text) if row.says else None
        if row.says and match is None:
            continue
        facts = {name: presentable(fact, 100) for name, fact in (match.groupdict() if match else {}).items()}
        return Fault(row.blame, row.reason, row.advice.format_map(facts) if facts else _with_words(row.advice, text))
    raise AssertionError("the table's last row matches every error")


def _with_words(advice: str, text: str) -> str:
    """Advice that names no fact of the case, with the agent's own words behind it."""
    words = presentable(text, MESSAGE_LIMIT - len(advice) - len(" (agent: )"))
    return f"{advice} (agent: {words})" if words else advice
