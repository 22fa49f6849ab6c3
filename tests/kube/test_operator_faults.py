"""What goes wrong, a row each: what is shown meanwhile, where people look, and how it ends.

Each row has a machine of its own, and many of them go wrong side by side on one operator. What a person corrects is
noticed at once: the operator waits long between attempts here, so that whatever goes on sooner was woken by the
correction. What befalls operators and the API server is in `test_operator_survives` and `test_operator_standby`.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, assert_never

import pytest
from tests.kube.metal import BOOTED, FIRST_BOOT, INSPECTION, IPXE, LOOKUP, REFUSING, RESCUING, WRITING, Flaw, PoorErase
from tests.kube.operators import (
    COMMISSIONED,
    HOST,
    IMAGE_CHECKSUM,
    JSON,
    PATIENCE,
    Listing,
    Machine,
    Site,
    condition,
    deployed,
    elapsed,
    moment,
    ready,
    site,
)
from tests.unit.power.certificates import LOCAL, Authority
from tests.unit.power.scripted_bmc import PASSWORD, USERNAME, Fault, answer, break_off, hang

from lab.controlplane import ControlPlane
from lab.process import wait_until

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

RETRY_BASE = 20.0
PEACE = 30.0
"""Seconds that a BMC asks for: longer than the operator waits by itself."""
ARGUMENTS = (
    *("--retry-base", f"{RETRY_BASE}"),
    *("--boot-timeout", "20"),
    *("--agent-silence", "12"),
    *("--bmc-timeout", "4"),
    *("--bmc-settle", "4"),
    *("--grace", "4"),
    *("--show-progress-after", "1"),
)
AT_ONCE = 20
"""Rows that are told side by side."""
OTHER_CHECKSUM = f"sha256:{'cd' * 32}"
PHONE_HOME = "#cloud-config\nphone_home: {url: http://elsewhere.example/the-tenants-own-words}\n"

WRITTEN = ["On", "ForceOff", "On"]
"""What the BMC is told for an image to be written and booted."""
IN_VAIN = ["On", "GracefulShutdown"]
"""What it is told for an attempt that comes to nothing once the machine is on."""
ERASED = ["On", "ForceOff"]
TWO_DISKS = {"SYSTEM": 16, "DATA": 32}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f you@example.org"


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    with site(control_plane, tmp_path_factory.mktemp("faults"), "faults", arguments=ARGUMENTS) as it:
        it.metal.secrets |= {"the-tenants-own-words", "a-wrong-password"}
        it.create(it.image("debian-12"), it.image("large", minDisk="64Gi"))
        yield it


# --- the columns --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class During:
    """What a fault strikes: how to come to that, how it begins, and where it leads."""

    phase: str
    comes: Callable[[Machine, Mapping[str, Any]], None]
    begins: Callable[[Machine, Mapping[str, Any]], None]
    arrives: str


class Meanwhile(Enum):
    """What a fault does to what is going on."""

    UNNOTICED = auto()
    """Nothing."""
    WAITS = auto()
    """It waits, in the same attempt."""
    HOLDS = auto()
    """It doesn't begin until somebody changes something."""
    RETRIES = auto()
    """The attempt fails, and the next waits for its time."""
    GIVES_UP = auto()
    """The last attempt fails; the machine is switched off and quarantined until it is recommissioned."""


UNNOTICED, WAITS, HOLDS, RETRIES, GIVES_UP = Meanwhile


def _nothing(_: Machine) -> None:
    """Nothing is done."""


def _mend(node: Machine) -> None:
    node.metal.mend()


@dataclass(frozen=True)
class Row:
    """One fault."""

    what: str
    """A sentence."""
    during: During
    meanwhile: Meanwhile
    reason: str
    """What `kubectl get` shows beside the phase."""
    told: Sequence[str]
    """Every reset that the BMC is given, from the beginning to the good end."""
    blames: str = ""
    """`status.lastFailure.class`."""
    says: str = ""
    """Part of the sentence for a person."""
    strikes: Callable[[Machine], None] = _nothing
    """What goes wrong from the beginning."""
    later: Callable[[Machine], None] = _nothing
    """What goes wrong once it has begun."""
    ends: Callable[[Machine], None] = _mend
    """What makes it go on."""
    at_once: bool = False
    """Whether the next attempt is made as soon as that was done."""
    silent: bool = False
    """Whether the BMC can't even be asked."""
    disks_gib: Mapping[str, int] | None = None
    """By serial number; None for one of no account."""
    secure: bool = False
    """Whether the BMC speaks HTTPS."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Declared from the beginning."""
    how: Mapping[str, Any] = field(default_factory=dict)
    """Declared with what is struck."""

    def __str__(self) -> str:
        return self.what

    @property
    def machine(self) -> str:
        """The name of its machine."""
        return re.sub(r"[^a-z0-9]+", "-", self.what.lower()).strip("-")[:60].strip("-")


def _declared(node: Machine, spec: Mapping[str, Any]) -> None:
    node.declare(**spec)


def _pooled(node: Machine, spec: Mapping[str, Any]) -> None:
    node.declare(**spec)
    node.reaches("Ready")


def _running(node: Machine, spec: Mapping[str, Any]) -> None:
    _pooled(node, spec)
    node.deploy()
    node.reaches("Deployed")
    node.metal.arrived(BOOTED)


def _deployed(node: Machine, how: Mapping[str, Any]) -> None:
    node.deploy(**how)


def _rescued(node: Machine, how: Mapping[str, Any]) -> None:
    node.change(rescue={"sshAuthorizedKeys": [KEY], **how})


def _released(node: Machine, how: Mapping[str, Any]) -> None:
    node.change(allocation=None, deployment=None, release=how)


COMMISSIONING = During("Commissioning", lambda _, __: None, _declared, "Ready")
DEPLOYING = During("Deploying", _pooled, _deployed, "Deployed")
REINSTALLING = During("Deploying", _running, lambda node, how: _deployed(node, {"trigger": "1", **how}), "Deployed")
RESCUED = During("Rescue", _running, _rescued, "Rescue")
RELEASING = During("Releasing", _running, _released, "Ready")
BEGINNING = During("Allocated", _pooled, _deployed, "Deployed")
BEGINNING_ANEW = During("Deployed", _running, REINSTALLING.begins, "Deployed")
BEGINNING_AT_ONCE = During("Allocated", lambda _, __: None, _declared, "Deployed")


# --- what goes wrong, and how it ends -----------------------------------------------------------------------------


def _flaw(flaw: Flaw, *, halted: str = "") -> Callable[[Machine], None]:
    def strikes(node: Machine) -> None:
        node.metal.flaws.add(flaw)
        node.metal.halt_at(halted)

    return strikes


def _halted(place: str) -> Callable[[Machine], None]:
    return lambda node: node.metal.halt_at(place)


def _at(place: str, happens: Callable[[Machine], None], *, times: int = 1) -> Callable[[Machine], None]:
    """It happens when the machine has come to this place so many times, where it halts."""

    def later(node: Machine) -> None:
        node.metal.arrived(place, times)
        happens(node)

    return later


def _asked_for_power(fault: Fault) -> Callable[[Machine], None]:
    return lambda node: node.metal.bmc.fail("GET", "/Systems/one", fault)


def _ignores_power_on(node: Machine) -> None:
    node.metal.bmc.systems["one"].ignored_resets.add("On")


def _forgets_boot(node: Machine) -> None:
    node.metal.bmc.systems["one"].forgets_boot = True


def _drops_session(node: Machine) -> None:
    node.metal.bmc.sessions.clear()


def _refuses_connections(node: Machine) -> None:
    node.site.metal.listen(node.metal, on=False)


def _accepts_connections(node: Machine) -> None:
    node.site.metal.listen(node.metal)


def _secret(name: str, **data: str) -> Callable[[Machine], None]:
    return lambda node: node.site.create(node.site.secret(name, **data))


def _corrected(name: str, **data: str) -> Callable[[Machine], None]:
    return lambda node: node.site.change_secret(name, **data)


def _deleted_and_made_anew(node: Machine) -> None:
    node.site.kubectl("delete", "secret", "of-another-bmc")
    status = node.until(lambda s: condition(s, "BMCReachable")["reason"] == "SecretMissing", "missed its Secret")
    assert status["operation"]["attempt"] == 2
    node.site.create(node.site.bmc_secret("of-another-bmc"))


def _vouched_for(node: Machine) -> None:
    node.site.change_secret("rack-ca", **{"ca.crt": AUTHORITY.pem})


def _fails(*errors: Mapping[str, Any]) -> Callable[[Machine], None]:
    return lambda node: node.metal.command_errors.extend(errors)


def _erases(poorly: PoorErase) -> Callable[[Machine], None]:
    return lambda node: node.metal.poor_erases.append(poorly)


def _loses_power(node: Machine) -> None:
    node.switch(on=False)


def _others_call(node: Machine) -> None:
    earlier, present = node.metal.tokens[-2:]
    elsewhere = f"127.0.200.{node.metal.number}"
    assert node.metal.another_agent_beats(earlier, elsewhere) == http.HTTPStatus.UNAUTHORIZED
    assert node.metal.another_agent_beats(present, elsewhere) == http.HTTPStatus.CONFLICT


def _mend_for_the_next(place: str) -> Callable[[Machine], None]:
    def ends(node: Machine) -> None:
        node.metal.flaws.clear()
        node.metal.arrived(place, 2)  # the first is cut off there
        node.metal.go_on()

    return ends


def _mend_after_some_refusals(node: Machine) -> None:
    refused, since = node.metal.journal.count(REFUSING), time.monotonic()
    node.metal.arrived(REFUSING, refused + 4)
    assert elapsed(since) > 1.5, "an agent that takes no command is asked again when it reports, and not all the time"
    node.metal.mend()


def _image(name: str) -> Callable[[Machine], None]:
    return lambda node: node.site.create(node.site.image(name))


def _change(**spec: Any) -> Callable[[Machine], None]:
    return lambda node: node.change(**spec)


def _true_hints(node: Machine) -> None:
    node.change(storage={"rootDeviceHints": {"serial": next(iter(node.metal.disks_gib))}})


def _ipa_error(kind: str, message: str, details: str) -> JSON:
    """As ironic-python-agent reports a command's failure."""
    return {"type": kind, "code": 500, "message": message, "details": details}


AUTHORITY, STRANGER = Authority("Rack A"), Authority("Somebody else")
URL = "http://127.0.0.1/debian-12.raw"
NOT_FOUND = _ipa_error(
    "ImageDownloadError",
    "Error downloading image",
    f"Download of image sha256-abab failed: URL: {URL}; time: 0.1 seconds. Error: Received status code 404 from {URL}, "
    "expected 200. Response body: <p>the-tenants-own-words</p> Response headers: {}",
)
MISMATCH = _ipa_error(
    "ImageChecksumError",
    "Error verifying image checksum",
    f"Image failed to verify against checksum. location: /dev/sda; image ID: sha256-abab; "
    f"image checksum: {'ab' * 32}; verification checksum: {'0f' * 32}",
)
NOT_ERASABLE = _ipa_error("BlockDeviceEraseError", "Error erasing block device", "/dev/sda: input/output error")

BMC = (
    Row("its BMC accepts that it is to be on, says so, and it stays dark", COMMISSIONING, RETRIES, "AgentMissing",
        [*IN_VAIN, *COMMISSIONED], "Agent", "Look at its console", strikes=_flaw(Flaw.STAYS_DARK)),
    Row("its BMC says that it is on whatever it is told", COMMISSIONING, RETRIES, "BMCProtocolError",
        ["GracefulShutdown", "ForceOff", *COMMISSIONED], "BMC", "it reports the power as On",
        strikes=_flaw(Flaw.SAYS_ON)),
    Row("its BMC accepts to switch it on and does nothing", COMMISSIONING, RETRIES, "BMCProtocolError",
        ["On", *COMMISSIONED], "BMC", "accepted to switch the machine on", strikes=_ignores_power_on),
    Row("its BMC forgets what it is to boot", COMMISSIONING, RETRIES, "BMCProtocolError",
        COMMISSIONED, "BMC", "accepted Pxe as the boot device", strikes=_forgets_boot),
    Row("it boots its disk instead of the network", REINSTALLING, RETRIES, "AgentMissing",
        ["GracefulShutdown", *IN_VAIN, *WRITTEN], "Agent", "does it boot from the network card",
        strikes=_flaw(Flaw.BOOTS_DISK)),
    Row("it boots the network instead of its disk", DEPLOYING, UNNOTICED, "AwaitingFirstBoot", WRITTEN,
        strikes=_flaw(Flaw.BOOTS_NETWORK, halted=FIRST_BOOT), later=_at(IPXE, _nothing, times=3)),
    Row("its BMC drops the session in the middle", DEPLOYING, UNNOTICED, "WritingImage", WRITTEN,
        strikes=_halted(WRITING), later=_at(WRITING, _drops_session)),
    Row("its BMC never answers", COMMISSIONING, RETRIES, "BMCUnreachable", COMMISSIONED, "BMC", "not answer in time",
        strikes=_asked_for_power(hang), silent=True),
    Row("its BMC asks for peace", COMMISSIONING, RETRIES, "BMCBusy", COMMISSIONED, "BMC", "too busy",
        strikes=_asked_for_power(answer(503, headers={"Retry-After": f"{PEACE:.0f}"})), silent=True),
    Row("its BMC refuses connections", COMMISSIONING, RETRIES, "BMCUnreachable", COMMISSIONED, "BMC",
        "refuses connections", strikes=_refuses_connections, ends=_accepts_connections, silent=True),
    Row("its BMC breaks off in the middle of an answer", COMMISSIONING, RETRIES, "BMCUnreachable", COMMISSIONED, "BMC",
        "broke the connection off", strikes=_asked_for_power(break_off), silent=True),
    Row("its BMC answers 500", COMMISSIONING, RETRIES, "BMCProtocolError", COMMISSIONED, "BMC", "HTTP 500",
        strikes=_asked_for_power(answer(500)), silent=True),
    Row("its BMC answers 401", COMMISSIONING, RETRIES, "BMCCredentialsRejected", COMMISSIONED, "BMC",
        "Correct the Secret of-a-bmc", strikes=_secret("of-a-bmc", username=USERNAME, password="a-wrong-password"),
        ends=_corrected("of-a-bmc", password=PASSWORD), at_once=True, silent=True,
        spec={"bmc": {"credentialsSecretRef": {"name": "of-a-bmc"}}}),
    Row("its BMC's certificate is nobody's that is trusted", COMMISSIONING, RETRIES, "BMCCertificateUntrusted",
        COMMISSIONED, "BMC", "Correct the Secret rack-ca", strikes=_secret("rack-ca", **{"ca.crt": STRANGER.pem}),
        ends=_vouched_for, at_once=True, silent=True, secure=True, spec={"bmc": {"caSecretRef": {"name": "rack-ca"}}}),
    Row("its BMC's Secret is missing", COMMISSIONING, HOLDS, "SecretMissing", COMMISSIONED, says="forgotten",
        ends=lambda node: node.site.create(node.site.bmc_secret("forgotten")), silent=True,
        spec={"bmc": {"credentialsSecretRef": {"name": "forgotten"}}}),
    Row("its BMC's Secret is deleted and made anew", COMMISSIONING, RETRIES, "BMCCredentialsRejected", COMMISSIONED,
        "BMC", "Correct the Secret", strikes=_secret("of-another-bmc", username=USERNAME, password="a-wrong-password"),
        ends=_deleted_and_made_anew, at_once=True, silent=True,
        spec={"bmc": {"credentialsSecretRef": {"name": "of-another-bmc"}}}),
)  # fmt: skip

AGENT = (
    Row("its agent never calls", COMMISSIONING, GIVES_UP, "AgentMissing", [*IN_VAIN, *COMMISSIONED], "Agent",
        "Look at its console", strikes=_halted(INSPECTION), spec={"commissioning": {"maxAttempts": 1}}),
    Row("its agent's report holds no hardware", COMMISSIONING, RETRIES, "AgentMissing", [*IN_VAIN, *COMMISSIONED],
        "Agent", strikes=_flaw(Flaw.GARBLED_REPORT)),
    Row("its agent calls with a token that nobody gave it", DEPLOYING, RETRIES, "AgentMissing", [*IN_VAIN, *WRITTEN],
        "Agent", strikes=_flaw(Flaw.WRONG_TOKEN)),
    Row("its agent calls no more in the middle of a write", DEPLOYING, RETRIES, "AgentLost", [*IN_VAIN, *WRITTEN],
        "Agent", strikes=_halted(WRITING), later=_at(WRITING, _flaw(Flaw.MUTE)), ends=_mend_for_the_next(WRITING)),
    Row("it loses power in the middle of a write", DEPLOYING, WAITS, "BootingRamdisk", ["On", *WRITTEN],
        strikes=_halted(WRITING), later=_at(WRITING, _loses_power), ends=_mend_for_the_next(WRITING)),
    Row("its agent changes its address", DEPLOYING, RETRIES, "AgentLost", [*IN_VAIN, *WRITTEN], "Agent",
        strikes=_halted(WRITING), later=_at(WRITING, _flaw(Flaw.MOVED)), ends=_mend_for_the_next(WRITING)),
    Row("its agent answers garbage", DEPLOYING, RETRIES, "AgentError", [*IN_VAIN, *WRITTEN], "Agent",
        "something that isn't JSON", strikes=_halted(WRITING), later=_at(WRITING, _flaw(Flaw.GARBAGE)),
        ends=_mend_for_the_next(WRITING)),
    Row("its agent answers 409", DEPLOYING, WAITS, "AgentUnclear", WRITTEN, says="takes no command now",
        strikes=_flaw(Flaw.BUSY), ends=_mend_after_some_refusals),
    Row("agents of two boots call", REINSTALLING, UNNOTICED, "WritingImage", ["GracefulShutdown", *WRITTEN],
        strikes=_halted(WRITING), later=_at(WRITING, _others_call, times=2)),
    Row("its image isn't where it should be", DEPLOYING, RETRIES, "ImageNotFound", [*IN_VAIN, *WRITTEN], "Image",
        "correct spec.url", strikes=_fails(NOT_FOUND)),
    Row("its image isn't what it should be", DEPLOYING, GIVES_UP, "ChecksumMismatch",
        [*IN_VAIN, *IN_VAIN, *COMMISSIONED, *ERASED], "Image", "correct the checksum or the file",
        strikes=_fails(MISMATCH, MISMATCH), how={"maxAttempts": 2}),
    Row("its disk can't be erased", RELEASING, RETRIES, "EraseFailed",
        ["GracefulShutdown", *IN_VAIN, *ERASED], "Disk", "check its health", strikes=_fails(NOT_ERASABLE)),
    Row("its disk holds data after its erase", RELEASING, GIVES_UP, "EraseNotVerified",
        ["GracefulShutdown", *IN_VAIN, *COMMISSIONED, *ERASED], "Disk", "status.erasure names it",
        strikes=_erases(PoorErase.LEAVES_DATA), how={"maxAttempts": 1}),
    Row("one of its disks can't be erased", RELEASING, GIVES_UP, "EraseNotVerified",
        ["GracefulShutdown", *IN_VAIN, *COMMISSIONED, *ERASED], "Disk", "Not erased: /dev/sdb (DATA).",
        strikes=_erases(PoorErase.REFUSED), how={"maxAttempts": 1}, disks_gib=TWO_DISKS),
    Row("one of its disks isn't there to be erased", RELEASING, GIVES_UP, "EraseNotVerified",
        ["GracefulShutdown", *IN_VAIN, *COMMISSIONED, *ERASED], "Disk", "Not erased: /dev/sdb (DATA).",
        strikes=_erases(PoorErase.UNSEEN), how={"maxAttempts": 1}, disks_gib=TWO_DISKS),
    Row("no agent calls for its rescue", RESCUED, GIVES_UP, "AgentMissing",
        ["GracefulShutdown", *IN_VAIN, *COMMISSIONED, *ERASED], "Agent", "Look at its console",
        strikes=_halted(LOOKUP), how={"maxAttempts": 1}),
    Row("its agent calls no more while its rescue is opened", RESCUED, RETRIES, "AgentLost",
        ["GracefulShutdown", *IN_VAIN, "On"], "Agent", strikes=_halted(RESCUING),
        later=_at(RESCUING, _flaw(Flaw.MUTE)), ends=_mend_for_the_next(RESCUING)),
    Row("its system never phones home", DEPLOYING, GIVES_UP, "FirstBootMissing",
        [*WRITTEN, "GracefulShutdown", *COMMISSIONED, *ERASED], "OperatingSystem", "does cloud-init run",
        strikes=_halted(FIRST_BOOT), how={"timeout": "30s", "maxAttempts": 1}),
)  # fmt: skip

OBSTACLES = (
    Row("its image is not declared yet", BEGINNING, HOLDS, "ImageMissing", WRITTEN, says="not-yet",
        ends=_image("not-yet"), how={"image": "not-yet"}),
    Row("its image was not even declared when it was", BEGINNING_AT_ONCE, HOLDS, "ImageMissing",
        [*COMMISSIONED, *WRITTEN], says="still-built", ends=_image("still-built"),
        spec={"allocation": {"owner": "team-search"}, "deployment": {"image": "still-built"}}),
    Row("its user data is missing", BEGINNING, HOLDS, "SecretMissing", WRITTEN, says="user-data",
        ends=_secret("user-data", userData="#cloud-config\n{}\n"), how={"userDataSecretRef": {"name": "user-data"}}),
    Row("its user data phones elsewhere", BEGINNING, HOLDS, "UserDataInvalid", WRITTEN, says="phone_home",
        strikes=_secret("phones-elsewhere", userData=PHONE_HOME),
        ends=_corrected("phones-elsewhere", userData="#!/bin/sh\n"),
        how={"userDataSecretRef": {"name": "phones-elsewhere"}}),
    Row("it has no such disk", BEGINNING, HOLDS, "NoMatchingDisk", WRITTEN, says="spec.storage.rootDeviceHints",
        ends=_true_hints, spec={"storage": {"rootDeviceHints": {"serial": "NOSUCHDISK"}}}),
    Row("its image would go to another disk than its system", BEGINNING_ANEW, HOLDS, "SystemOnOtherDisk",
        ["GracefulShutdown", *WRITTEN], says="Choose SYSTEM in place of DATA",
        strikes=_change(storage={"rootDeviceHints": {"serial": "DATA"}}), ends=_true_hints, disks_gib=TWO_DISKS),
    Row("its disk is too small", BEGINNING, HOLDS, "DiskTooSmall", WRITTEN, says="16.0Gi",
        ends=_change(deployment={"image": "debian-12"}), how={"image": "large"}),
)  # fmt: skip

TABLE = (*BMC, *AGENT, *OBSTACLES)
ATTEMPTS = {UNNOTICED: 1, WAITS: 1, HOLDS: 1, RETRIES: 2, GIVES_UP: 1}


# --- a row's story ------------------------------------------------------------------------------------------------


def story(here: Site, shown: Listing, row: Row) -> None:
    """Tell it from the machine's beginning to its good end."""
    tls = AUTHORITY.server(here.operator.folder, LOCAL) if row.secure else None
    node = here.machine(row.machine, tls=tls, disks_gib=row.disks_gib)
    row.during.comes(node, row.spec)
    before, written = len(node.metal.told), len(node.metal.images_written)
    row.strikes(node)
    row.during.begins(node, row.spec if row.during.begins is _declared else row.how)
    row.later(node)
    status = _seen(node, row)
    shown.shows(node.name, status["phase"], row.reason)
    row.ends(node)
    if row.at_once:
        begun = node.until(_acts, "began its next attempt")
        assert moment(begun["operation"]["stepStartedAt"]) < moment(status["operation"]["nextRetryAt"])
    if row.meanwhile is GIVES_UP:
        node.change(allocation=None, deployment=None, rescue=None, commissioning={"trigger": "again"})
    arrives = "Ready" if row.meanwhile is GIVES_UP else row.during.arrives
    status = node.until(lambda s: s.get("phase") == arrives and "operation" not in s, f"was {arrives}, and done")
    assert node.metal.told[before:] == row.told
    assert (status["history"][0]["outcome"], status["history"][0]["attempts"]) == (
        "Succeeded",
        ATTEMPTS[row.meanwhile],
    )
    assert "lastFailure" not in status
    assert condition(status, "BMCReachable")["status"] == "True"
    if status["phase"] == "Deployed":
        assert node.metal.images_written[written:] == [IMAGE_CHECKSUM]
        assert status["installed"]["checksum"] == IMAGE_CHECKSUM
    elif status["phase"] == "Rescue":
        assert status["rescue"]["sshHostKeys"]
        assert status["installed"]["checksum"] == IMAGE_CHECKSUM
        assert node.metal.system is not None
    elif row.during.phase != "Commissioning":
        assert all(disk["verified"] for disk in status["erasure"])
        assert status["erasure"]


def _seen(node: Machine, row: Row) -> JSON:
    """What its record says while the fault lasts."""
    phase = "Failed" if row.meanwhile is GIVES_UP else row.during.phase

    def holds(status: JSON) -> bool:
        if (status.get("phase"), condition(status, "Ready").get("reason")) != (phase, row.reason):
            return False
        scheduled = "nextRetryAt" in status.get("operation", {})
        return scheduled is (row.meanwhile is RETRIES) and (
            row.meanwhile is not GIVES_UP or condition(status, "Stalled")["status"] == "True"
        )

    status = node.until(holds, f"was {phase} because of {row.reason}")
    assert condition(status, "Ready")["status"] == "False"
    assert row.says in condition(status, "Ready")["message"]
    stalled = row.meanwhile in (HOLDS, GIVES_UP)
    assert condition(status, "Stalled")["status"] == str(stalled)
    assert condition(status, "Reconciling")["status"] == str(not stalled)
    if row.silent:
        reachable = condition(status, "BMCReachable")
        assert (reachable["status"], reachable["reason"]) == ("False", row.reason)
        node.event(row.reason)
    match row.meanwhile:
        case Meanwhile.UNNOTICED | Meanwhile.WAITS:
            assert "lastFailure" not in status
            assert status["operation"]["attempt"] == 1
            assert "nextRetryAt" not in status["operation"]
        case Meanwhile.HOLDS:
            assert "lastFailure" not in status
            assert status.get("operation", {}).get("step", "") == "", "nothing is done while it is held up"
            node.event(row.reason, says=row.says)
        case Meanwhile.RETRIES:
            _retries(node, row, status)
        case Meanwhile.GIVES_UP:
            _gave_up(node, row, status)
        case _:
            assert_never(row.meanwhile)
    return status


def _retries(node: Machine, row: Row, status: JSON) -> None:
    failure, operation = status["lastFailure"], status["operation"]
    assert (failure["class"], failure["reason"], failure["attempt"]) == (row.blames, row.reason, 1)
    assert operation["attempt"] == 2
    pause = (moment(operation["nextRetryAt"]) - moment(failure["at"])).total_seconds()
    shortest, longest = (PEACE, PEACE) if row.reason == "BMCBusy" else (0.8 * RETRY_BASE, 1.2 * RETRY_BASE)
    assert shortest - 1 <= pause <= longest + 1
    node.event(row.reason, says="Attempt 2 of ")


def _gave_up(node: Machine, row: Row, status: JSON) -> None:
    failure = status["lastFailure"]
    assert (failure["class"], failure["reason"]) == (row.blames, row.reason)
    assert "operation" not in status
    assert node.phases()[-2:] == [row.during.phase, "Failed"], "nobody could have it in between"
    assert (status["history"][0]["outcome"], status["history"][0]["reason"]) == ("Failed", row.reason)
    node.event(row.reason, says="Failed: ")
    assert wait_until(lambda: not node.metal.on, PATIENCE)
    # Quarantined: whoever wants it now, or wanted it all the time, doesn't get it.
    node.change(allocation={"owner": status.get("owner", "team-next")}, storage={"rootDeviceHints": {"minSizeGiB": 1}})
    kept = node.until(lambda s: condition(s, "Stalled")["status"] == "True", "stayed where it was")
    assert (kept["phase"], kept.get("owner")) == ("Failed", status.get("owner"))


def _acts(status: JSON) -> bool:
    """Whether an attempt has begun to act."""
    operation = status.get("operation", {})
    return operation.get("step", "") != "" and "nextRetryAt" not in operation


@pytest.fixture(scope="module")
def outcomes(here: Site, request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[None]]]:
    """The rows that were asked for, told side by side."""
    asked = [row for item in request.session.items if isinstance(row := _parameter(item), Row)]
    shown = Listing(here.plane, here.namespace)
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield {row.what: pool.submit(story, here, shown, row) for row in asked}
    finally:
        shown.close()


def _parameter(item: Any) -> object:
    return item.callspec.params.get("row") if hasattr(item, "callspec") else None


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_it_is_shown_and_survived_that(outcomes: Mapping[str, Future[None]], row: Row) -> None:
    outcomes[row.what].result()


# --- what anybody on the network may ask ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request that no machine of ours has a reason for, and its answer."""

    what: str
    path: str
    status: int
    says: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.what


QUESTIONS = (
    Asked("the boot script of an unknown MAC address", "/boot/ipxe?mac=02-00-00-00-00-01", 200, "local disk, Unknown"),
    Asked("the boot script of what is no MAC address", "/boot/ipxe?mac=$(reboot)", 400),
    Asked("a file with ..", "/boot/files/../operator.kubeconfig", 404),
    Asked("a file with .. in other letters", "/boot/files/%2e%2e%2foperator.kubeconfig", 404),
    Asked("a range beyond the end", "/boot/files/vmlinuz", 416, headers={"Range": "bytes=1000000-"}),
    Asked("who it is, for an unknown MAC address", "/v1/lookup?addresses=02:00:00:00:00:01", 404, "No machine"),
)


@pytest.mark.parametrize("asked", QUESTIONS, ids=str)
def test_whoever_asks_for_it_learns_nothing_and_boots_nothing_of_ours(here: Site, asked: Asked) -> None:
    connection = http.client.HTTPConnection(HOST, here.operator.port, timeout=10)
    try:
        connection.request("GET", asked.path, headers=dict(asked.headers))  # as it is: no client tidies `..` away
        answered = connection.getresponse()
        said = answered.read().decode()
    finally:
        connection.close()
    assert answered.status == asked.status
    assert asked.says in said
    assert "kernel" not in said
    assert here.metal.shown_secrets(said) == []


# --- stories ------------------------------------------------------------------------------------------------------


def test_a_system_is_believed_once_and_by_the_token_of_its_own_installation(here: Site) -> None:
    (node,) = deployed(here, "calls-again")
    first = node.metal.system
    assert first is not None
    node.noted()
    version = node.record()["metadata"]["resourceVersion"]
    assert node.metal.calls_again(first) == http.HTTPStatus.OK  # its answer may have got lost
    assert node.record()["metadata"]["resourceVersion"] == version
    node.metal.halt_at(FIRST_BOOT)
    node.deploy(trigger="1")
    node.metal.arrived(FIRST_BOOT, 2)
    assert node.metal.calls_again(first) == http.HTTPStatus.FORBIDDEN
    status = node.until(lambda s: condition(s, "Ready")["reason"] == "AwaitingFirstBoot", "awaited its own system")
    assert node.status == status
    node.metal.go_on()
    node.reaches("Deployed")
    second = node.metal.system
    assert second is not None
    assert node.status["installed"]["sshHostKeys"] == [second.host_key]
    assert node.metal.calls_again(first) == http.HTTPStatus.FORBIDDEN
    node.release()
    node.reaches("Ready")
    node.note_removed()
    version = node.record()["metadata"]["resourceVersion"]
    for system in (first, second):
        assert node.metal.calls_again(system) == http.HTTPStatus.NOT_FOUND
    assert node.record()["metadata"]["resourceVersion"] == version


def test_an_image_that_changes_while_it_is_written_is_what_it_was_until_it_is_installed_again(here: Site) -> None:
    here.create(here.image("changing"))
    (node,) = ready(here, "image-changes")
    node.metal.halt_at(WRITING)
    node.deploy("changing")
    node.metal.arrived(WRITING)
    here.change_image("changing", checksum=OTHER_CHECKSUM)
    node.metal.go_on()
    status = node.reaches("Deployed")
    assert node.metal.images_written == [IMAGE_CHECKSUM]
    assert status["installed"]["checksum"] == IMAGE_CHECKSUM
    assert condition(status, "Ready")["reason"] == "ReinstallNeeded"
    told = list(node.metal.told)
    node.deploy("changing", trigger="1")
    status = node.until(lambda s: condition(s, "Ready")["status"] == "True", "was installed again")
    assert node.metal.images_written == [IMAGE_CHECKSUM, OTHER_CHECKSUM]
    assert status["installed"]["checksum"] == OTHER_CHECKSUM
    assert node.metal.told[len(told) :] == ["GracefulShutdown", *WRITTEN]


def test_an_image_that_is_corrected_between_two_attempts_is_what_the_second_writes(here: Site) -> None:
    here.create(here.image("corrected"))
    (node,) = ready(here, "image-corrected")
    node.metal.command_errors = [MISMATCH]
    node.deploy("corrected")
    status = node.until(lambda s: "nextRetryAt" in s.get("operation", {}), "failed once")
    assert status["installed"]["checksum"] == IMAGE_CHECKSUM
    here.change_image("corrected", checksum=OTHER_CHECKSUM)
    begun = node.until(_acts, "began its next attempt")
    assert moment(begun["operation"]["stepStartedAt"]) < moment(status["operation"]["nextRetryAt"])
    status = node.reaches("Deployed")
    assert node.metal.images_written == [OTHER_CHECKSUM]
    assert status["installed"]["checksum"] == OTHER_CHECKSUM
    assert condition(status, "Ready")["status"] == "True"


@pytest.mark.parametrize("shared", ["mac", "bmc"])
def test_the_younger_of_two_with_one_mac_or_bmc_waits_untouched(here: Site, shared: str) -> None:
    older, younger = here.machine(f"{shared}-older"), here.machine(f"{shared}-younger")
    older.declare()
    older.reaches("Ready")
    created = moment(older.record()["metadata"]["creationTimestamp"])
    assert wait_until(lambda: time.time() >= created.timestamp() + 1, PATIENCE)  # which the API server tells in seconds
    asked = len(older.metal.bmc.requests)
    if shared == "mac":
        younger.metal.mac = older.metal.mac
        younger.metal.macs = [older.metal.mac]
        younger.declare()
    else:
        younger.declare(bmc={"address": older.metal.bmc_address})
    status = younger.stalls("DuplicateMachine")
    assert f"{here.namespace}/{older.name} has the same" in condition(status, "Stalled")["message"]
    younger.event("DuplicateMachine")
    assert younger.metal.bmc.requests == []
    assert len(older.metal.bmc.requests) == asked
    here.machines.until_deleted(older.delete())
    younger.reaches("Commissioning")
    if shared == "mac":
        younger.reaches("Ready")


# --- all of them --------------------------------------------------------------------------------------------------


def test_every_fault_was_told_once(here: Site) -> None:
    versions = here.events.versions(lambda e: e["metadata"]["namespace"] == here.namespace)
    events = {e["metadata"]["uid"]: e for e in versions}.values()
    warnings = [(e["regarding"]["name"], e["reason"], e["note"]) for e in events if e["type"] == "Warning"]
    assert len(warnings) == len(set(warnings))


def test_no_secret_was_shown_anywhere_and_nothing_broke(here: Site) -> None:
    here.assert_discreet()
