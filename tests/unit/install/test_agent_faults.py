"""What ironic-python-agent 13 really raises, and the sentence a person reads."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright.install.faults import Doing, explain
from rackwright.install.sentences import MESSAGE_LIMIT, names_secret, presentable
from rackwright.lifecycle.world import Blame

GOT, WANT = "0f" * 32, "ab" * 32
URL = "http://10.0.0.1/os/debian.raw"
POOL = "HTTPConnectionPool(host='10.0.0.1', port=80): Max retries exceeded with url: /os/debian.raw "


def error(kind: str, details: str, message: str = "Command execution failed", code: int = 500) -> dict[str, Any]:
    return {"type": kind, "code": code, "message": message, "details": details}


def refused(code: int, kind: str = "ImageDownloadFatalError") -> dict[str, Any]:
    return error(
        kind,
        f"Download of image sha256-abab failed: Received status code {code} from {URL}, expected 200. "
        "Response body: <html>secret page</html> Response headers: {'Set-Cookie': 'session=hunter2'}",
        "Error downloading image",
    )


WRITE = Doing.WRITE_IMAGE

CASES = [
    (WRITE, refused(404), Blame.IMAGE, "ImageNotFound", f"no image at {URL} (status 404)"),
    (WRITE, refused(410), Blame.IMAGE, "ImageNotFound", "(status 410)"),
    (WRITE, refused(403), Blame.IMAGE, "ImageForbidden", f"refuses {URL} (status 403)"),
    (WRITE, refused(429), Blame.IMAGE, "ImageUnreachable", f"answers {URL} with status 429"),
    (
        WRITE,
        error(
            "ImageDownloadError",
            f"Download of image sha256-abab failed: URL: {URL}; time: 91.2 seconds. Error: "
            f"Received status code 503 from {URL}, expected 200. Response body: busy Response headers: {{}}",
        ),
        Blame.IMAGE,
        "ImageUnreachable",
        "with status 503",
    ),
    (
        WRITE,
        error(
            "CommandExecutionError",
            POOL + "(Caused by NewConnectionError('<urllib3.connection.HTTPConnection object at 0x7f2c>: "
            "Failed to establish a new connection: [Errno 111] Connection refused'))",
        ),
        Blame.IMAGE,
        "ImageUnreachable",
        "can't reach the image's web server (Connection refused)",
    ),
    (
        WRITE,
        error(
            "CommandExecutionError",
            "HTTPConnectionPool(host='images.example', port=80): Max retries exceeded with url: /a.raw (Caused by "
            "NameResolutionError(\"Failed to resolve 'images.example' ([Errno -2] Name or service not known)\"))",
        ),
        Blame.IMAGE,
        "ImageUnreachable",
        "can't reach the image's web server (Failed to resolve)",
    ),
    (
        WRITE,
        error(
            "CommandExecutionError",
            "HTTPSConnectionPool(host='10.0.0.1', port=443): Max retries exceeded with url: /a.raw (Caused by SSLError("
            "SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed "
            "certificate (_ssl.c:992)')))",
        ),
        Blame.IMAGE,
        "ImageUnreachable",
        "can't verify the certificate",
    ),
    (
        WRITE,
        error(
            "CommandExecutionError",
            "HTTPSConnectionPool(host='10.0.0.1', port=80): Max retries exceeded with url: /x (Caused by SSLError("
            "SSLError(1, '[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)')))",
        ),
        Blame.IMAGE,
        "ImageUnreachable",
        "no TLS that the ramdisk accepts (WRONG_VERSION_NUMBER)",
    ),
    (
        WRITE,
        error(
            "CommandExecutionError", "HTTPConnectionPool(host='10.0.0.1', port=80): Read timed out. (read timeout=60)"
        ),
        Blame.IMAGE,
        "ImageUnreachable",
        "(Read timed out)",
    ),
    (WRITE, error("CommandExecutionError", POOL), Blame.IMAGE, "ImageUnreachable", "web server; check"),
    (
        WRITE,
        error(
            "ImageDownloadError",
            "Download of image sha256-abab failed: Unable to write image to device /dev/sda. Error: "
            "('Connection broken: IncompleteRead(5242880 bytes read, 1024 more expected)', IncompleteRead())",
        ),
        Blame.IMAGE,
        "ImageUnreachable",
        "(Connection broken)",
    ),
    (
        WRITE,
        error(
            "ImageDownloadTimeoutError", "Download of image x failed: Download exceeded max allowed time (3600 seconds)"
        ),
        Blame.IMAGE,
        "ImageUnreachable",
        "could not be downloaded",
    ),
    (
        WRITE,
        error(
            "ImageDownloadError",
            "Download of image sha256-abab failed: Unable to write image to device /dev/sda. Error: "
            "[Errno 28] No space left on device",
        ),
        Blame.DISK,
        "DiskTooSmall",
        "larger than the disk",
    ),
    (
        WRITE,
        error("CommandExecutionError", "[Errno 28] No space left on device"),
        Blame.DISK,
        "DiskTooSmall",
        "larger than the disk",
    ),
    (
        WRITE,
        error(
            "ImageWriteError",
            "Writing image to device /dev/sda failed with exit code 1. stdout: . stderr: qemu-img: /dev/sda: "
            "error while converting host_device: Cannot grow device files\n",
            "Error writing image to device",
        ),
        Blame.DISK,
        "DiskTooSmall",
        "larger than the disk",
    ),
    (
        WRITE,
        error(
            "ImageDownloadError",
            "Download of image x failed: Unable to write image to device /dev/sda. Error: [Errno 5] Input/output error",
        ),
        Blame.DISK,
        "ImageWriteFailed",
        "check its health",
    ),
    (
        WRITE,
        error(
            "ImageWriteError",
            "Writing image to device /dev/sda failed with exit code 1. stdout: . stderr: qemu-img: error while reading "
            "at byte 1048576: Invalid argument",
        ),
        Blame.DISK,
        "ImageWriteFailed",
        "that the image is whole",
    ),
    (
        WRITE,
        error(
            "ImageDownloadOutofSpaceError",
            "Download of image x failed: Unable to write image to /tmp/x. Error: [Errno 28] No space left on device",
        ),
        Blame.IMAGE,
        "ImageTooLargeForMemory",
        "format raw",
    ),
    (
        WRITE,
        error(
            "ImageChecksumError",
            f"Image failed to verify against checksum. location: x; image ID: /dev/sda; image checksum: {WANT}; "
            f"verification checksum: {GOT}",
            "Error verifying image checksum",
        ),
        Blame.IMAGE,
        "ChecksumMismatch",
        f"is {GOT[:12]}… and not {WANT[:12]}…",
    ),
    (WRITE, error("ImageChecksumError", ""), Blame.IMAGE, "ChecksumMismatch", "correct the checksum or the file"),
    (
        WRITE,
        error("InvalidImage", "Security: Expected format was qcow2, but image was actually raw"),
        Blame.IMAGE,
        "ImageInvalid",
        "The image is raw and not qcow2",
    ),
    (
        WRITE,
        error("InvalidImage", "Security: Image failed safety check"),
        Blame.IMAGE,
        "ImageInvalid",
        "refuses the image",
    ),
    (
        WRITE,
        error(
            "DeviceNotFound",
            "No suitable device was found for deployment - root device hints were not provided and all found block "
            "devices are smaller than 4294967296B.",
            "Error finding the disk or partition device to deploy the image onto",
            404,
        ),
        Blame.DISK,
        "NoMatchingDisk",
        "no disk of 4 GiB or more",
    ),
    (
        WRITE,
        error(
            "DeviceNotFound",
            "No suitable device was found for deployment using these hints {'serial': 's== S1'}",
            code=404,
        ),
        Blame.DISK,
        "NoMatchingDisk",
        "compare them with the machine's HardwareInventory",
    ),
    (
        WRITE,
        error(
            "DeploymentError",
            "Unable to find a valid partition table on the disk after writing the image. The image may be corrupted or "
            "it uses a different sector size than the device. Error: x",
            "Deploy step failed",
        ),
        Blame.IMAGE,
        "ImageInvalid",
        "no valid partition table",
    ),
    (
        WRITE,
        error("DeploymentError", "No partitions found on the device /dev/sda after writing the image."),
        Blame.IMAGE,
        "ImageInvalid",
        "no valid partition table",
    ),
    (
        WRITE,
        error(
            "DeploymentError",
            "Config drive cannot be created for node 6b1c. Disk (/dev/sda) uses MBR partitioning and already has 4 "
            "primary partitions.",
        ),
        Blame.IMAGE,
        "SeedNotWritten",
        "fewer than four primary partitions",
    ),
    (
        WRITE,
        error(
            "DeploymentError",
            "Failed to create config drive on disk /dev/sda for node 6b1c. Error: Unexpected error while running "
            "command.\nCommand: sgdisk -n 0:-64MB:0 -u 0:aaaa /dev/sda\nExit code: 4",
        ),
        Blame.DISK,
        "SeedNotWritten",
        "64 MiB",
    ),
    (
        Doing.ERASE,
        error("BlockDeviceEraseError", "Erase failed for device /dev/sda: frozen", "Error erasing block device"),
        Blame.DISK,
        "EraseFailed",
        "could not be erased",
    ),
    (
        Doing.ERASE,
        error(
            "CleaningError",
            "Unexpected exception performing clean step erase_disks. OSError: [Errno 5] Input/output error",
        ),
        Blame.DISK,
        "EraseFailed",
        "could not be erased",
    ),
    (
        Doing.ERASE,
        error("ProtectedDeviceError", "Protected VMware VMFS Partition (GPT) located on device /dev/sdb."),
        Blame.DISK,
        "EraseFailed",
        "shared file system",
    ),
    (
        Doing.ERASE,
        error("HardwareManagerMethodNotFound", "Could not find method: erase_disks"),
        Blame.AGENT,
        "RamdiskIncompatible",
        "built for this operator",
    ),
    (
        Doing.ERASE,
        error("VersionMismatch", "Current versions: {}, versions used", code=409),
        Blame.AGENT,
        "RamdiskChanged",
        "anew",
    ),
    (Doing.RESCUE, error("CleaningError", "OSError: no sshd"), Blame.AGENT, "RescueFailed", "rescue environment"),
    (
        WRITE,
        error("AgentIsBusy", "executing command prepare_image", code=409),
        Blame.AGENT,
        "AgentBusy",
        "earlier command",
    ),
    (
        WRITE,
        error("InvalidCommandParamsError", "Image is missing 'urls' field.", code=400),
        Blame.AGENT,
        "RamdiskIncompatible",
        "built for this operator",
    ),
    (
        WRITE,
        error("CommandExecutionError", "'NoneType' object has no attribute 'x'"),
        Blame.AGENT,
        "AgentError",
        "NoneType",
    ),
    (Doing.OTHER, error("CommandExecutionError", POOL), Blame.AGENT, "AgentError", "console"),
    (Doing.OTHER, None, Blame.AGENT, "AgentError", "console"),
    (Doing.OTHER, "it broke", Blame.AGENT, "AgentError", "it broke"),
    (Doing.OTHER, {"error": "it broke"}, Blame.AGENT, "AgentError", "console"),
]


@pytest.mark.parametrize(
    ("doing", "command_error", "blame", "reason", "says"), CASES, ids=[f"{c[3]}-{i}" for i, c in enumerate(CASES)]
)
def test_an_agents_error_becomes_a_reason_and_advice(
    doing: Doing, command_error: object, blame: Blame, reason: str, says: str
) -> None:
    fault = explain(command_error, doing)
    assert (fault.blame, fault.reason) == (blame, reason)
    assert says in fault.message
    assert len(fault.message) <= MESSAGE_LIMIT
    assert "hunter2" not in fault.message
    assert "secret page" not in fault.message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("from http://admin:hunter2@10.0.0.1/a.raw now", "from http://10.0.0.1/a.raw now"),
        ("url: /a.raw?X-Amz-Signature=hunter2&b=c (Caused", "url: /a.raw?… (Caused"),
        ("agent_token=hunter2, next", "agent_token=…, next"),
        ("{'password': 'hunter2', 'user': 'me'}", "{'password': …, 'user': 'me'}"),
        ("from http://admin:hun@er/2@10.0.0.1/a.raw now", "from http://10.0.0.1/a.raw now"),
        ("user=agent_token=hunter2 of a-key-b = 'hunter2' rest", "user=agent_token=… of a-key-b = … rest"),
        ("key-" * 10 + "key: hunter2", "key-" * 10 + "key: …"),
        ("from ftp://a@b:hunter2@c/://d@e/f://g now", "from ftp://e/f://g now"),
        ("Authorization: Bearer hunter2 rest", "Authorization: … rest"),
        ("ipmi_pwd=hunter2, iscsiChapSecret: hunter2", "ipmi_pwd=…, iscsiChapSecret: …"),
        ("KeyError: 'disks' of the keyboard: none", "KeyError: 'disks' of the keyboard: none"),
        ("body " + "QUJD" * 40, "body QUJDQUJDQUJD…"),
        ("two\n lines\x00\x1b[31m", "two lines [31m"),
        ("really? yes", "really? yes"),
    ],
)
def test_what_may_be_secret_is_left_out(text: str, shown: str) -> None:
    assert presentable(text) == shown


@pytest.mark.parametrize(
    "name",
    [
        "AdminPassword",
        "SetupPwd",
        "ADMINPWD",
        "SysPasswd",
        "AdminPass",
        "IscsiInit1ChapSecret",
        "WpaPSK",
        "TlsPsk",
        "WifiPassphrase",
        "HttpBootToken",
        "Tpm2OwnerKey",
        "SecureBootKeys",
        "api_key",
        "ChapName",
        "UserCredential",
    ],
)
def test_a_setting_that_sounds_like_a_secret_is_one(name: str) -> None:
    assert names_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "ProcTurboMode",
        "KeyboardLayout",
        "KEYBOARD",
        "KeypadLock",
        "Chapter",
        "BypassMode",
        "PciePassThrough",
        "TopSkew",
    ],
)
def test_a_setting_that_only_looks_a_little_like_one_is_not(name: str) -> None:
    assert not names_secret(name)


@pytest.mark.parametrize("text", ["-a" * 2**22, " " * 2**22, "key" * 2**20, "http://" * 2**20, "?a" * 2**21])
def test_a_text_without_end_is_read_in_bounded_time(text: str) -> None:
    started = time.process_time()
    presentable(text)
    assert time.process_time() - started < 2, "of the event loop's time"


@pytest.mark.parametrize(
    "part", ["key-", "token-", "pass_", "key='", "key= ", "-", " ", "\n", "a ", "http://", "?", "a" * 79 + " "]
)
def test_however_a_text_repeats_itself_it_is_read_in_proportion_to_its_length(part: str) -> None:
    started = time.process_time()
    for _ in range(10):
        presentable((part * 4096)[:4096])
    assert time.process_time() - started < 0.2, "of the event loop's time, for ten texts"


@given(st.text(max_size=500), st.integers(-5, 400))
def test_a_presentable_text_is_one_bounded_line(text: str, limit: int) -> None:
    shown = presentable(text, limit)
    assert len(shown) <= max(limit, 0)
    assert all(c.isprintable() for c in shown)


@given(
    st.none()
    | st.text()
    | st.dictionaries(st.sampled_from(["type", "message", "details"]), st.none() | st.text() | st.integers()),
    st.sampled_from(Doing),
)
def test_every_error_has_a_fault(command_error: object, doing: Doing) -> None:
    fault = explain(command_error, doing)
    assert fault.reason
    assert 0 < len(fault.message) <= MESSAGE_LIMIT
