"""What goes wrong is said once, where people look, with what to do; and what is put right is noticed at once.

Each fault has its own machine. The operator waits long between attempts here, so that whatever goes on sooner was
woken by the correction and not by the clock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from tests.kube.metal import INSPECTION
from tests.kube.operators import PATIENCE, Machine, Site, condition, elapsed, moment, site

from lab.controlplane import ControlPlane
from lab.process import wait_until

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

SOON = 2.0
"""Seconds until the operator must have noticed a correction."""
RETRY_BASE = 30.0
PHONE_HOME = "#cloud-config\nphone_home: {url: http://elsewhere.example/the-tenants-own-words}\n"


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    arguments = ("--retry-base", str(RETRY_BASE))
    with site(control_plane, tmp_path_factory.mktemp("faults"), "faults", arguments=arguments) as it:
        it.metal.secrets |= {"the-tenants-own-words", "a-wrong-password"}
        it.create(it.image("debian-12"))
        yield it


def assert_retried_later(status: Mapping[str, Any], reason: str) -> None:
    """The first attempt has failed, and the second has its time."""
    failure, operation = status["lastFailure"], status["operation"]
    assert (failure["reason"], failure["attempt"]) == (reason, 1)
    assert operation["attempt"] == 2
    pause = (moment(operation["nextRetryAt"]) - moment(failure["at"])).total_seconds()
    assert 0.8 * RETRY_BASE - 1 <= pause <= 1.2 * RETRY_BASE + 1


def failed_once(status: Mapping[str, Any]) -> bool:
    """Whether an attempt has failed and the next waits."""
    return "nextRetryAt" in status.get("operation", {})


def goes_on(node: Machine, corrected: Callable[[], None], holds: Callable[[dict[str, Any]], bool]) -> None:
    """Correct something, and see the machine go on before anything but the correction would have woken it."""
    corrected()
    since = time.monotonic()
    node.until(holds, "went on")
    assert elapsed(since) < SOON


def commissions(status: Mapping[str, Any]) -> bool:
    """Whether the attempt has begun to act."""
    operation = status.get("operation", {})
    return operation.get("step", "") != "" and "nextRetryAt" not in operation


def deploys(status: Mapping[str, Any]) -> bool:
    """Whether the deployment has begun."""
    return status.get("phase") == "Deploying"


# --- the BMC ------------------------------------------------------------------------------------------------------


def test_a_bmc_that_refuses_connections_is_tried_again_later(here: Site) -> None:
    node = here.machine("unreachable", listening=False)
    node.declare()
    status = node.until(failed_once, "failed once")
    assert_retried_later(status, "BMCUnreachable")
    reachable = condition(status, "BMCReachable")
    assert (reachable["status"], reachable["reason"]) == ("False", "BMCUnreachable")
    assert condition(status, "Ready")["reason"] == "BMCUnreachable"
    assert condition(status, "Stalled")["status"] == "False"
    assert "Attempt 2 of 3 follows." in node.event("BMCUnreachable")["note"]
    assert "BMCUnreachable" in here.kubectl("get", "bmm", node.name)


def test_wrong_credentials_are_tried_again_as_soon_as_their_secret_is_corrected(here: Site) -> None:
    node = here.machine("wrong-password")
    here.create(here.secret("wrong", username="admin", password="a-wrong-password"))
    node.declare(bmc={"address": node.metal.bmc_address, "credentialsSecretRef": {"name": "wrong"}})
    status = node.until(failed_once, "failed once")
    assert_retried_later(status, "BMCCredentialsRejected")
    assert condition(status, "BMCReachable")["reason"] == "BMCCredentialsRejected"
    assert "Correct the Secret wrong" in node.event("BMCCredentialsRejected")["note"]
    tried = node.metal.bmc.logins

    def corrected() -> None:
        assert node.metal.bmc.logins == tried, "a BMC that locks accounts is asked once an attempt"
        data = here.bmc_secret()["data"]
        here.kubectl("patch", "secret", "wrong", "--type=merge", "-p", json.dumps({"data": data}))

    goes_on(node, corrected, commissions)
    assert node.reaches("Ready")["history"][0]["attempts"] == 2
    assert condition(node.status, "BMCReachable")["status"] == "True"


def test_a_missing_secret_is_awaited_and_used_as_soon_as_it_is_there(here: Site) -> None:
    node = here.machine("no-secret")
    node.declare(bmc={"address": node.metal.bmc_address, "credentialsSecretRef": {"name": "forgotten"}})
    status = node.until(lambda s: condition(s, "Ready").get("reason") == "SecretMissing", "missed the Secret")
    assert condition(status, "BMCReachable")["reason"] == "SecretMissing"
    assert status["operation"]["attempt"] == 1
    assert "nextRetryAt" not in status["operation"]
    assert "forgotten" in node.event("SecretMissing")["note"]
    goes_on(node, lambda: here.create(here.bmc_secret("forgotten")), commissions)
    node.reaches("Ready")
    assert node.metal.bmc.logins == 1


# --- what a deployment needs --------------------------------------------------------------------------------------


@dataclass
class Obstacle:
    """Why a deployment doesn't begin, and what lets it."""

    reason: str
    says: str
    deployment: Mapping[str, Any]
    corrected: Callable[[Site, Machine], None] | None = None
    storage: Mapping[str, Any] | None = None


def _create_image(here: Site, _: Machine) -> None:
    here.create(here.image("not-yet"))


def _create_user_data(here: Site, _: Machine) -> None:
    here.create(here.secret("user-data", userData="#cloud-config\n{}\n"))


def _correct_user_data(here: Site, _: Machine) -> None:
    data = here.secret("phones-elsewhere", userData="#!/bin/sh\n")["data"]
    here.kubectl("patch", "secret", "phones-elsewhere", "--type=merge", "-p", json.dumps({"data": data}))


def _correct_hints(_: Site, node: Machine) -> None:
    node.change(storage={"rootDeviceHints": {"serial": next(iter(node.metal.disks_gib))}})


OBSTACLES = {
    "no-image": Obstacle("ImageMissing", "not-yet", {"image": "not-yet"}, _create_image),
    "no-user-data": Obstacle(
        "SecretMissing",
        "user-data",
        {"image": "debian-12", "userDataSecretRef": {"name": "user-data"}},
        _create_user_data,
    ),
    "phones-elsewhere": Obstacle(
        "UserDataInvalid",
        "phone_home",
        {"image": "debian-12", "userDataSecretRef": {"name": "phones-elsewhere"}},
        _correct_user_data,
    ),
    "no-such-disk": Obstacle(
        "NoMatchingDisk",
        "spec.storage.rootDeviceHints",
        {"image": "debian-12"},
        _correct_hints,
        storage={"rootDeviceHints": {"serial": "NOSUCHDISK"}},
    ),
    "small-disk": Obstacle("DiskTooSmall", "16.0Gi", {"image": "large"}),
}


def test_a_deployment_that_can_not_begin_says_why_and_begins_when_it_can(here: Site) -> None:
    here.create(here.image("large", minDisk="64Gi"), here.secret("phones-elsewhere", userData=PHONE_HOME))
    nodes = {name: here.machine(name) for name in OBSTACLES}
    here.create(*(nodes[name].manifest(storage=dict(case.storage or {})) for name, case in OBSTACLES.items()))
    for name, case in OBSTACLES.items():
        node = nodes[name]
        node.reaches("Ready")
        told = list(node.metal.told)
        node.change(allocation={"owner": "team-search"}, deployment=dict(case.deployment))
        status = node.stalls(case.reason)
        assert status["phase"] == "Allocated"
        assert "operation" not in status
        assert condition(status, "Reconciling")["status"] == "False"
        assert (condition(status, "Ready")["status"], condition(status, "Ready")["reason"]) == ("False", case.reason)
        assert case.says in condition(status, "Stalled")["message"]
        assert case.says in node.event(case.reason)["note"]
        assert node.metal.told == told
    for name, case in OBSTACLES.items():
        if case.corrected is not None:
            corrected = case.corrected
            goes_on(nodes[name], lambda c=corrected, n=nodes[name]: c(here, n), deploys)  # type: ignore[misc]
    for name, case in OBSTACLES.items():
        if case.corrected is not None:
            nodes[name].reaches("Deployed")


def test_a_deployment_that_was_declared_with_the_machine_waits_for_its_image_too(here: Site) -> None:
    node = here.machine("all-at-once")
    node.declare(allocation={"owner": "team-search"}, deployment={"image": "still-built"})
    assert node.stalls("ImageMissing")["phase"] == "Allocated"
    assert node.metal.told == ["On", "ForceOff"]
    goes_on(node, lambda: here.create(here.image("still-built")), deploys)
    assert node.reaches("Deployed")["history"][0]["attempts"] == 1


# --- what the agent reports ---------------------------------------------------------------------------------------


def ipa_error(kind: str, message: str, details: str) -> dict[str, Any]:
    """As ironic-python-agent reports a command's failure."""
    return {"type": kind, "code": 500, "message": message, "details": details}


URL = "http://127.0.0.1/debian-12.raw"
NOT_FOUND = ipa_error(
    "ImageDownloadError",
    "Error downloading image",
    f"Download of image sha256-abab failed: URL: {URL}; time: 0.1 seconds. Error: Received status code 404 from {URL}, "
    "expected 200. Response body: <p>the-tenants-own-words</p> Response headers: {}",
)
MISMATCH = ipa_error(
    "ImageChecksumError",
    "Error verifying image checksum",
    f"Image failed to verify against checksum. location: /dev/sda; image ID: sha256-abab; "
    f"image checksum: {'ab' * 32}; verification checksum: {'0f' * 32}",
)


@pytest.mark.parametrize(
    ("name", "error", "reason", "says"),
    [
        ("url-404", NOT_FOUND, "ImageNotFound", "correct spec.url"),
        ("mismatch", MISMATCH, "ChecksumMismatch", "correct the checksum or the file"),
    ],
)
def test_an_image_that_can_not_be_written_fails_the_attempt(
    here: Site, name: str, error: Mapping[str, Any], reason: str, says: str
) -> None:
    node = here.machine(name)
    node.metal.write_errors = [error]
    node.declare()
    node.reaches("Ready")
    node.deploy(maxAttempts=2)
    status = node.until(failed_once, "failed once")
    assert_retried_later(status, reason)
    assert status["phase"] == "Deploying"
    assert status["lastFailure"]["class"] == "Image"
    assert status["lastFailure"]["step"] == "WriteImage"
    assert condition(status, "Ready")["reason"] == reason
    assert says in condition(status, "Ready")["message"]
    assert "Attempt 2 of 2 follows." in node.event(reason)["note"]
    # Its owner gives up: nothing is left of it afterwards.
    node.release()
    assert node.reaches("Ready")["erasure"][0]["verified"]


def test_the_last_attempt_fails_the_machine_until_it_is_recommissioned(here: Site) -> None:
    node = here.machine("exhausted")
    node.metal.write_errors = [MISMATCH]
    node.declare()
    node.reaches("Ready")
    node.deploy(maxAttempts=1)
    status = node.reaches("Failed")
    assert (status["lastFailure"]["reason"], status["lastFailure"]["attempt"]) == ("ChecksumMismatch", 1)
    assert status["history"][0]["outcome"] == "Failed"
    assert node.event("ChecksumMismatch")["note"].startswith("Failed: ")
    status = node.stalls("ChecksumMismatch")
    assert [e["reason"] for e in node.events()].count("ChecksumMismatch") == 1
    assert wait_until(lambda: not node.metal.on, PATIENCE)
    (line,) = here.kubectl("get", "bmm", node.name, "--no-headers").splitlines()
    assert {"Failed", "ChecksumMismatch", "team-search"} <= set(line.split())
    assert status["installed"]["image"] == "debian-12"  # something may be on its disk
    node.change(deployment=None, allocation=None, commissioning={"trigger": "1"})
    status = node.reaches("Ready")
    assert status["erasure"][0]["verified"], "what may have been written was erased before it joined the pool"
    assert "lastFailure" not in status


def test_a_ramdisk_that_never_reports_fails_the_attempt_at_its_deadline(here: Site) -> None:
    node = here.machine("silent")
    node.metal.halt_at(INSPECTION)
    node.declare(commissioning={"timeout": "3s", "maxAttempts": 1})
    status = node.reaches("Failed")
    assert status["lastFailure"]["reason"] in ("AgentMissing", "DeadlineExceeded")
    assert wait_until(lambda: not node.metal.on, PATIENCE)
    node.metal.go_on()
    node.change(commissioning={"trigger": "again", "timeout": "30m"})
    assert node.reaches("Ready")["history"][0]["outcome"] == "Succeeded"


# --- twins --------------------------------------------------------------------------------------------------------


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
        younger.declare()
    else:
        younger.declare(bmc={"address": older.metal.bmc_address, "credentialsSecretRef": {"name": "bmc"}})
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
