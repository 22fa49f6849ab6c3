"""What goes wrong with a machine, on real parts: what is shown meanwhile, and that it arrives when it is mended.

The faults of `tests/kube/test_operator_faults.py`, which has many more, but with a BMC that lies about a machine which
exists, an agent whose processor stands still, and a system that was really installed. Two machines at once; each boot
serves as many faults as it can, because a boot takes a minute or two here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from tests.rack import lying_bmc
from tests.rack.lying_bmc import Lie, LyingBMC

from lab import controlplane, footprint, installation, samples
from lab.errors import Unfit
from lab.follow import follow, ssh
from lab.installation import MACHINES, Installation
from lab.plan import NodeKind
from lab.process import wait_until
from lab.rack import Rack
from lab.samples import DECLARED

pytestmark = [pytest.mark.rack, pytest.mark.nightly]

JSON = dict[str, Any]
UEFI, BIOS, OVER_IPMI = "node-01", "node-02", "node-03"
FORMATS = {UEFI: "raw", BIOS: "qcow2"}
IMAGES = {UEFI: "debian-12", BIOS: "debian-12-qcow2"}
IMPATIENT = ("--boot-timeout", "20", "--retry-base", "10", "--grace", "3", "--bmc-settle", "8")
"""For boots that can't arrive: a fault is told soon. None of them is to arrive, so none is cut short."""
PATIENT = ("--boot-timeout", "600", "--agent-silence", "75", "--retry-base", "5", "--grace", "20")
"""For boots that are to arrive, however busy this host is."""
BOOT, WRITE, ERASE, SOON = 900.0, 1500.0, 1500.0, 120.0
FIRST_BOOT_TIMEOUT = "6m"
"""For the ramdisk's boot and the write as well, which take half of it."""
MARKER = "kept-through-a-rescue-71b0"
WRITTEN_AT_LEAST = 64 * 2**20
"""Bytes that are more than partition tables and less than the image."""
IPMI_RACK = "ipmi"


@pytest.fixture(scope="module")
def here(rack: Rack) -> Iterator[Installation]:
    """A control plane and an impatient operator beside the rack; the machines are off afterwards, as they were."""
    try:
        it = Installation(controlplane.up(rack.name), rack)
        it.install()
        it.start_operator(arguments=IMPATIENT)
        yield it
    finally:
        installation.stop(rack.name)
        for node in rack.nodes:
            rack.hard_off(node)


@pytest.fixture(scope="module")
def bmcs(rack: Rack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, LyingBMC]]:
    """What the operator takes for the machines' BMCs."""
    with lying_bmc.before(rack, tmp_path_factory.mktemp("bmcs")) as them:
        yield them


@pytest.fixture(scope="module")
def over_ipmi() -> Iterator[Future[JSON]]:
    """The status of a machine that is commissioned by IPMI, beside all else: it boots while the others stay dark."""
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(commissioned_over_ipmi)
        finally:
            pool.submit(installation.down, IPMI_RACK).result()


def commissioned_over_ipmi() -> JSON:
    there = installation.up(IPMI_RACK, nodes=[NodeKind.parse(f"{OVER_IPMI}:UEFI:ipmi")])
    there.apply_sample(DECLARED, OVER_IPMI)
    follow(there, OVER_IPMI, until=["Ready"], seconds=BOOT)
    assert there.machine(OVER_IPMI)["spec"]["bmc"]["address"].startswith("ipmi://")
    assert there.rack.power(OVER_IPMI) == "Off"
    assert_discreet(there)
    return status_of(there, OVER_IPMI)


def side_by_side(*stories: Callable[[], None]) -> None:
    """Tell them at once; each to its end, whatever becomes of the other."""
    with ThreadPoolExecutor(len(stories)) as pool:
        for told in [pool.submit(story) for story in stories]:
            told.result()


def declare(here: Installation, bmc: LyingBMC, node: str) -> None:
    """Apply the samples of a machine for the pool, with that BMC."""
    folder = here.samples_of(node)
    site = replace(here.site(node, FORMATS[node]), bmc_address=bmc.address, ca=bmc.ca)
    samples.overlay(folder, DECLARED, site, node, labels=footprint.mark(here.name))
    here.kubectl("apply", "-k", str(folder))


def change(here: Installation, node: str, **spec: Any) -> None:
    """Change some of spec; None removes a field."""
    patch = json.dumps({"spec": spec})
    here.kubectl("patch", "bmm", node, "-n", MACHINES, "--type=merge", "-p", patch)


def deploy(here: Installation, node: str, **how: Any) -> None:
    """Want an operating system on it."""
    key = here.ssh_key.with_suffix(".pub").read_text().strip()
    deployment = {"image": IMAGES[node], "sshAuthorizedKeys": [key], **how}
    change(here, node, allocation={"owner": "team-search"}, deployment=deployment)


def status_of(here: Installation, node: str) -> JSON:
    status: JSON = here.machine(node).get("status", {})
    return status


def until(here: Installation, node: str, holds: Callable[[JSON], bool], seconds: float, *, fails: bool = False) -> JSON:
    """Its status once that holds of it; the operator may be killed meanwhile. Unless it `fails`, it may not."""
    seen: JSON = {}

    def so() -> bool:
        nonlocal seen
        seen = status_of(here, node)
        assert fails or seen.get("phase") != "Failed", seen["lastFailure"]
        return holds(seen)

    assert wait_until(so, seconds, every=0.3), seen
    return seen


def reaches(here: Installation, node: str, phase: str, seconds: float) -> JSON:
    """Its status once it rests in this phase."""
    return until(here, node, lambda s: s.get("phase") == phase and "operation" not in s, seconds)


def retries(here: Installation, node: str, attempt: int, seconds: float = SOON) -> JSON:
    """Its status once that attempt has failed and the next waits for its time."""

    def failed(status: JSON) -> bool:
        retry = "nextRetryAt" in status.get("operation", {})
        return retry and status.get("lastFailure", {}).get("attempt") == attempt

    status = until(here, node, failed, seconds)
    assert status["operation"]["attempt"] == attempt + 1
    assert ready(status)["status"] == "False"
    assert ready(status)["reason"] == status["lastFailure"]["reason"]
    return status


def at_step(step: str, *, of: str) -> Callable[[JSON], bool]:
    """Whether an operation is at this step."""

    def holds(status: JSON) -> bool:
        operation = status.get("operation", {})
        return (operation.get("name"), operation.get("step")) == (of, step)

    return holds


def ready(status: JSON) -> JSON:
    """The condition that `kubectl get` shows."""
    return condition(status, "Ready")


def condition(status: JSON, kind: str) -> JSON:
    return next((each for each in status.get("conditions", []) if each["type"] == kind), {})


def blame(status: JSON) -> tuple[str, str]:
    failure = status["lastFailure"]
    return failure["class"], failure["reason"]


def kill_operator(here: Installation) -> None:
    """SIGKILL, then start it again."""
    here.operator.kill()
    assert wait_until(lambda: here.operator.pid is None, 10)
    here.start_operator(arguments=PATIENT)


def log_of(here: Installation) -> str:
    return here.operator.log.read_text(errors="replace")


def assert_discreet(here: Installation) -> None:
    log = log_of(here)
    assert "Traceback" not in log
    assert "internal error" not in log
    assert here.rack.password not in log


# --- a boot that comes to nothing ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("over_ipmi")
def test_a_boot_that_comes_to_nothing_is_told_and_tried_again_until_it_is_mended(
    here: Installation, bmcs: Mapping[str, LyingBMC]
) -> None:
    bmcs[UEFI].lie, bmcs[BIOS].lie = Lie.STAYS_DARK, Lie.FORGETS_BOOT
    for node in FORMATS:
        declare(here, bmcs[node], node)
    side_by_side(
        lambda: is_dark_and_then_hangs(here, bmcs[UEFI]),
        lambda: boots_its_disk_and_is_said_to_be_on(here, bmcs[BIOS]),
    )
    here.operator.stop()
    here.start_operator(arguments=PATIENT)
    for node in FORMATS:
        status = reaches(here, node, "Ready", BOOT)
        assert [(e["outcome"], e["attempts"]) for e in status["history"]] == [("Succeeded", 3)]
        assert "lastFailure" not in status
        assert condition(status, "BMCReachable")["status"] == "True"
        assert status["hardware"]["disks"] == len(here.rack.node(node).disks)
        assert (status["power"], here.rack.power(node)) == ("Off", "Off")


def is_dark_and_then_hangs(here: Installation, bmc: LyingBMC) -> None:
    status = retries(here, UEFI, attempt=1)
    assert blame(status) == ("Agent", "AgentMissing")
    assert "Look at its console" in ready(status)["message"]
    assert here.rack.power(UEFI) == "Off", "its BMC says otherwise"
    assert "hardware" not in status
    bmc.lie = None

    assert wait_until(lambda: here.rack.power(UEFI) == "On", SOON)
    here.rack.freeze(UEFI)
    status = retries(here, UEFI, attempt=2)
    assert blame(status) == ("Agent", "AgentMissing")
    assert (status["power"], here.rack.power(UEFI)) == ("On", "On")
    # It stays frozen: the next attempt cuts its power.


def boots_its_disk_and_is_said_to_be_on(here: Installation, bmc: LyingBMC) -> None:
    assert wait_until(lambda: "No bootable device" in here.rack.console(BIOS), SOON), here.rack.console(BIOS)
    status = retries(here, BIOS, attempt=1)
    assert blame(status) == ("Agent", "AgentMissing")
    assert "does it boot from the network card" in ready(status)["message"]
    assert (status["power"], here.rack.power(BIOS)) == ("On", "On")

    bmc.lie = Lie.ALWAYS_ON
    status = retries(here, BIOS, attempt=2)
    assert blame(status) == ("BMC", "BMCProtocolError")
    assert "it reports the power as On" in ready(status)["message"]
    assert here.rack.power(BIOS) == "Off", "its BMC says otherwise"
    bmc.lie = None


# --- an installation that is interrupted, a rescue; a system that hangs --------------------------------------------


@pytest.mark.usefixtures("bmcs")
def test_a_machine_that_hangs_is_written_again_and_rescued_or_quarantined_and_erased(here: Installation) -> None:
    side_by_side(lambda: is_written_twice_and_rescued(here), lambda: never_phones_home(here))


def is_written_twice_and_rescued(here: Installation) -> None:
    is_written_again_after_its_agent_hung(here)
    ssh(here, UEFI, f"echo {MARKER} | sudo tee /marker && sudo sync")
    is_rescued_though_the_operator_is_killed(here)
    comes_back_from_rescue_though_the_operator_is_killed(here)


def is_written_again_after_its_agent_hung(here: Installation) -> None:
    backing = here.rack.node(UEFI).disks[0].backing
    before = backing.stat().st_blocks * 512
    deploy(here, UEFI)
    until(here, UEFI, at_step("WriteImage", of="Deploy"), BOOT)
    assert wait_until(lambda: backing.stat().st_blocks * 512 - before > WRITTEN_AT_LEAST, WRITE)
    here.rack.freeze(UEFI)
    assert at_step("WriteImage", of="Deploy")(status_of(here, UEFI)), "it was frozen in the middle"
    status = retries(here, UEFI, attempt=1, seconds=BOOT)
    assert blame(status) == ("Agent", "AgentLost")
    assert status["lastFailure"]["step"] == "WriteImage"
    assert "at" not in status["installed"]
    status = reaches(here, UEFI, "Deployed", WRITE)
    assert (status["history"][0]["outcome"], status["history"][0]["attempts"]) == ("Succeeded", 2)
    assert "lastFailure" not in status
    assert log_of(here).count(f"machine={MACHINES}/{UEFI} step=WriteImage") == 2
    assert ssh(here, UEFI, "hostname") == UEFI


def is_rescued_though_the_operator_is_killed(here: Installation) -> None:
    key = here.ssh_key.with_suffix(".pub").read_text().strip()
    change(here, UEFI, rescue={"sshAuthorizedKeys": [key]})
    until(here, UEFI, at_step("OpenRescue", of="Rescue"), BOOT)
    kill_operator(here)
    rescue = until(here, UEFI, lambda s: "rescue" in s and "operation" not in s, BOOT)
    assert (rescue["phase"], ready(rescue)["reason"]) == ("Rescue", "RescueOpen")
    assert (rescue["history"][0]["name"], rescue["history"][0]["attempts"]) == ("Rescue", 1)
    assert rescue["rescue"]["user"] == "rescue"
    look = "sudo mount -o ro /dev/disk/by-label/rackwright-root /mnt && cat /mnt/marker"
    assert rescue_ssh(here, rescue, look).stdout.strip() == MARKER
    password = ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive")
    refused = rescue_ssh(here, rescue, "true", *password)
    assert refused.returncode != 0
    assert "Permission denied (publickey)" in refused.stderr, "it offers nothing but keys"


def comes_back_from_rescue_though_the_operator_is_killed(here: Installation) -> None:
    change(here, UEFI, rescue=None)
    until(
        here, UEFI, lambda s: s.get("operation", {}).get("name") == "EndRescue" and s["operation"]["step"] != "", SOON
    )
    kill_operator(here)
    status = reaches(here, UEFI, "Deployed", BOOT)
    assert status["history"][0]["name"] == "EndRescue"
    assert (status["history"][0]["outcome"], status["history"][0]["attempts"]) == ("Succeeded", 1)
    assert "rescue" not in status
    assert "rescuedFrom" not in status
    assert (status["power"], here.rack.power(UEFI)) == ("On", "On")

    def answers() -> bool:
        try:
            return ssh(here, UEFI, "cat /marker") == MARKER
        except (Unfit, subprocess.TimeoutExpired):
            return False

    assert wait_until(answers, BOOT, every=2), here.rack.console(UEFI)[-3000:]


def rescue_ssh(here: Installation, status: JSON, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A command in the rescue environment; the host is verified against the keys in status."""
    address = status["rescue"]["addresses"][0]
    known_hosts = here.ssh_key.with_name("known_hosts-rescue")
    known_hosts.write_text("".join(f"{address} {key}\n" for key in status["rescue"]["sshHostKeys"]))
    return subprocess.run(
        [
            *("ssh", "-i", here.ssh_key, "-o", f"UserKnownHostsFile={known_hosts}", "-F", "none"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", *options),
            *(f"{status['rescue']['user']}@{address}", command),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def never_phones_home(here: Installation) -> None:
    deploy(here, BIOS, timeout=FIRST_BOOT_TIMEOUT, maxAttempts=1)
    until(here, BIOS, lambda s: ready(s).get("reason") == "AwaitingFirstBoot", BOOT)
    here.rack.freeze(BIOS)
    status = until(here, BIOS, lambda s: s["phase"] == "Failed", BOOT, fails=True)
    assert blame(status) == ("OperatingSystem", "FirstBootMissing")
    assert "operation" not in status
    assert status["history"][0] == {
        **status["history"][0],
        "outcome": "Failed",
        "reason": "FirstBootMissing",
        "attempts": 1,
    }
    assert "does cloud-init run" in status["lastFailure"]["message"]
    assert wait_until(lambda: here.rack.power(BIOS) == "Off", SOON)

    # Quarantined: that its owner goes on wanting it, in whatever way, changes nothing.
    change(here, BIOS, deployment={"maxAttempts": 5, "timeout": "1h"}, power="On")
    generation = here.machine(BIOS)["metadata"]["generation"]
    status = until(here, BIOS, lambda s: s.get("observedGeneration") == generation, SOON, fails=True)
    assert (status["phase"], condition(status, "Stalled")["status"]) == ("Failed", "True")
    assert here.rack.power(BIOS) == "Off"

    # What is on its disks is erased before it is anybody's again.
    change(here, BIOS, allocation=None, deployment=None, power=None)
    until(here, BIOS, lambda s: s["phase"] == "Releasing", SOON, fails=True)
    status = reaches(here, BIOS, "Ready", ERASE)
    assert {e["serial"] for e in status["erasure"]} == {disk.serial for disk in here.rack.node(BIOS).disks}
    assert all(e["verified"] for e in status["erasure"])
    assert not {"installed", "owner", "lastFailure"} & set(status)
    assert (status["power"], here.rack.power(BIOS)) == ("Off", "Off")


# --- all of it ------------------------------------------------------------------------------------------------------


def test_a_machine_is_commissioned_by_ipmi(over_ipmi: Future[JSON]) -> None:
    status = over_ipmi.result()
    assert [(e["name"], e["outcome"], e["attempts"]) for e in status["history"]] == [("Commission", "Succeeded", 1)]
    assert status["power"] == "Off"


def test_no_secret_was_shown_and_nothing_broke(here: Installation) -> None:
    assert_discreet(here)
