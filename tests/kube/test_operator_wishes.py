"""What people may wish of a machine beyond a deployment: a restart, a lock, a gate, a fault report, a person at it.

Each wish has its own machine. Power is looked at every second here, so that drift is seen while a test waits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.kube.metal import BOOTED, ERASING, FIRST_BOOT, INSPECTION, IPXE, LOOKUP, Outlet
from tests.kube.operators import DEPLOYED, Machine, Site, condition, deployed, ready, site
from tests.unit.power.scripted_webhook import KEY as SIGNING_KEY
from tests.unit.power.scripted_webhook import KEY_NAME

from lab.controlplane import ControlPlane

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

GATE = "example.org/BurnIn"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f you@example.org"


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    arguments = ("--power-poll", "1", "--grace", "1")
    with site(control_plane, tmp_path_factory.mktemp("wishes"), "wishes", arguments=arguments) as it:
        it.create(it.image("debian-12"), it.secret("user-data", userData="#cloud-config\n{}\n"))
        yield it


def reason(status: dict[str, Any], kind: str = "Ready") -> str:
    """Why a condition is as it is."""
    return str(condition(status, kind).get("reason"))


def because(node: Machine, why: str) -> dict[str, Any]:
    """Wait until Ready is what it is for this reason."""
    return node.until(lambda status: reason(status) == why, f"was {why}")


# --- power ----------------------------------------------------------------------------------------------------------


def test_a_new_trigger_restarts_a_deployed_machine_once(here: Site) -> None:
    (node,) = deployed(here, "restarted")
    node.change(powerCycle={"trigger": "kernel-update"})
    status = node.until(lambda s: s["history"][0]["name"] == "Restart", "was restarted")
    assert (status["phase"], status["history"][0]["outcome"]) == ("Deployed", "Succeeded")
    node.metal.arrived(BOOTED, times=2)
    assert node.metal.told == [*DEPLOYED, "GracefulShutdown", "On"]
    assert "Deployed" in node.phases()[-1:], "a restart is no change of phase"
    here.operator.end()
    here.operator.start()
    node.change(powerCycle={"trigger": "kernel-update"}, release={"erase": "Quick"})
    because(node, "Running")
    assert node.metal.told == [*DEPLOYED, "GracefulShutdown", "On"]


def test_a_trigger_finds_nothing_to_restart_on_a_machine_that_is_off(here: Site) -> None:
    (node,) = ready(here, "off-already")
    told = list(node.metal.told)
    node.change(powerCycle={"trigger": "now"})
    node.until(lambda s: s["observedTriggers"].get("powerCycle") == "now", "took note")
    assert node.metal.told == told


def test_power_that_somebody_switched_is_shown_and_corrected_only_where_spec_says_so(here: Site) -> None:
    (node,) = deployed(here, "drifting")
    node.switch(on=False)
    node.until(lambda s: s["power"] == "Off", "was seen to be off")
    assert node.status["phase"] == "Deployed"
    assert node.metal.told == DEPLOYED
    node.change(power="On")
    node.until(lambda s: s["power"] == "On", "was switched on")
    node.switch(on=False)
    node.metal.arrived(BOOTED, times=3)
    assert node.metal.told == [*DEPLOYED, "On", "On"]


# --- lock -----------------------------------------------------------------------------------------------------------


def test_nothing_but_unlocking_has_an_effect_on_a_locked_machine(here: Site) -> None:
    (node,) = deployed(here, "locked")
    node.change(locked=True)
    status = node.until(lambda s: condition(s, "Locked")["status"] == "True", "was locked")
    assert "Locked by kubectl-patch" in condition(status, "Locked")["message"]
    assert (condition(status, "Ready")["status"], reason(status)) == ("True", "Running")

    node.switch(on=False)
    node.until(lambda s: s["power"] == "Off", "was seen to be off")
    for wish in (
        {"power": "On"},
        {"broken": {"reason": "DIMM A3"}},
        {"rescue": {"sshAuthorizedKeys": [KEY]}},
        {"deployment": None, "allocation": None, "broken": None, "rescue": None},
    ):
        node.change(**wish)
        status = node.stalls("Locked")
        assert (status["phase"], condition(status, "Ready")["status"]) == ("Deployed", "False")
    uid = node.delete()
    here.kubectl("annotate", "bmm", node.name, "metal.rackwright.io/force-delete=true")
    node.until(lambda s: "deletion" not in s and s["power"] == "Off", "was left alone")
    assert node.metal.told == DEPLOYED
    assert node.metal.system is not None

    node.change(locked=False)
    here.machines.until_deleted(uid)
    assert node.metal.told == DEPLOYED, "let go by force: not released"


# --- readiness gates --------------------------------------------------------------------------------------------------


def write_gate(here: Site, node: Machine, verdict: str) -> None:
    """Somebody else's controller writes its condition, by server-side apply."""
    mine = {
        "apiVersion": "metal.rackwright.io/v1alpha1",
        "kind": "BareMetalMachine",
        "metadata": {"name": node.name, "namespace": here.namespace},
        "status": {
            "conditions": [
                {
                    "type": GATE,
                    "status": verdict,
                    "reason": "Measured",
                    "message": "12 h",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ]
        },
    }
    arguments = ("apply", "--server-side", "--subresource=status", "--field-manager=burn-in", "-f", "-")
    here.kubectl(*arguments, stdin=json.dumps(mine))


def test_the_pool_waits_for_a_condition_that_somebody_else_writes(here: Site) -> None:
    node = here.machine("gated")
    node.declare(readinessGates=[{"conditionType": GATE}])
    status = because(node, "ReadinessGatesClosed")
    assert status["phase"] == "Commissioning"
    assert GATE in condition(status, "Ready")["message"]
    assert status["operation"]["deadline"]
    assert not node.metal.on
    write_gate(here, node, "False")
    write_gate(here, node, "True")
    status = node.reaches("Ready")
    kept = next(c for c in status["conditions"] if c["type"] == GATE)
    assert (kept["status"], kept["message"], kept["lastTransitionTime"]) == ("True", "12 h", "2026-01-01T00:00:00Z")

    write_gate(here, node, "False")
    because(node, "ReadinessGatesClosed")
    node.change(allocation={"owner": "team-search"})
    status = because(node, "ReadinessGatesClosed")
    assert (status["phase"], status.get("owner")) == ("Ready", None)
    write_gate(here, node, "True")
    node.deploy()
    status = node.reaches("Deployed")

    write_gate(here, node, "False")
    node.until(lambda s: any(c["type"] == GATE and c["status"] == "False" for c in s["conditions"]), "lost its gate")
    assert (node.status["phase"], condition(node.status, "Ready")["status"]) == ("Deployed", "True")
    assert node.metal.told == DEPLOYED


def test_a_gate_that_never_opens_fails_the_commissioning_at_its_deadline(here: Site) -> None:
    node = here.machine("burnt-out")
    node.declare(readinessGates=[{"conditionType": GATE}], commissioning={"timeout": "8s"})
    status = node.reaches("Failed")
    assert (status["lastFailure"]["reason"], status["history"][0]["attempts"]) == ("ReadinessGatesClosed", 1)
    assert GATE in status["lastFailure"]["message"]
    assert not node.metal.on


# --- release ----------------------------------------------------------------------------------------------------------


def test_a_fault_that_its_owner_reports_keeps_an_erased_machine_out_of_the_pool(here: Site) -> None:
    (node,) = deployed(here, "faulty")
    fault = {"category": "Hardware", "summary": "DIMM A3 throws ECC errors"}
    node.change(allocation=None, deployment=None, release={"fault": fault})
    status = node.reaches("Broken")
    assert all(disk["verified"] for disk in status["erasure"])
    assert "installed" not in status
    assert "owner" not in status
    status = node.stalls("FaultReported")
    assert "Hardware: DIMM A3 throws ECC errors" in condition(status, "Ready")["message"]
    node.event("FaultReported")
    node.change(release={"fault": None})
    assert node.reaches("Ready")["history"][0]["name"] == "Commission"


def test_a_release_that_erases_nothing_is_recorded_as_one_and_leaves_the_disks_alone(here: Site) -> None:
    (node,) = deployed(here, "unerased")
    system = node.metal.system
    node.change(allocation=None, deployment=None, release={"erase": "None"})
    status = node.reaches("Ready")
    (evidence,) = status["erasure"]
    assert (evidence["device"], evidence["method"], evidence["verified"]) == ("*", "None", False)
    assert "release.erase was None" in evidence["message"]
    assert (status["history"][0]["name"], status["history"][0]["outcome"]) == ("Release", "Succeeded")
    assert "installed" not in status
    assert "owner" not in status
    node.event("EraseNotWanted", "Normal", says="nothing was erased")
    assert node.metal.told == [*DEPLOYED, "GracefulShutdown"], "it was not booted again"
    assert node.metal.journal.count(ERASING) == 0
    assert node.metal.system is system

    # Whoever has it next gets their own system, and nothing that says that its disks were erased.
    node.deploy()
    assert node.reaches("Deployed")["erasure"] == []
    node.change(allocation=None, deployment=None, release={"erase": "Full"})
    assert all(disk["verified"] for disk in node.reaches("Ready")["erasure"])
    assert node.metal.system is None


def test_what_differs_from_what_was_installed_is_said_and_never_wiped(here: Site) -> None:
    node = here.machine("differing")
    here.create(node.manifest())
    node.reaches("Ready")
    node.deploy(userDataSecretRef={"name": "user-data"})
    node.reaches("Deployed")
    here.create(here.secret("user-data-2", userData="#cloud-config\n{hostname: other}\n"))
    for change, named in (
        ({"sshAuthorizedKeys": [KEY]}, "hostname, SSH keys or root device hints"),
        ({"sshAuthorizedKeys": [], "userDataSecretRef": {"name": "user-data-2"}}, "user data"),
    ):
        node.change(deployment=change)
        status = because(node, "ReinstallNeeded")
        assert f"What differs: {named}." in condition(status, "Ready")["message"]
        assert "spec.deployment.trigger" in condition(status, "Ready")["message"]
    node.change(deployment={"userDataSecretRef": {"name": "user-data"}})
    because(node, "Running")
    assert node.metal.told == DEPLOYED
    assert len(node.metal.images_written) == 1


def test_a_reinstallation_that_is_wished_for_before_the_image_is_written_keeps_nothing_from_being_written(
    here: Site,
) -> None:
    (node,) = ready(here, "wished-anew")
    node.metal.halt_at(IPXE)
    node.deploy(userDataSecretRef={"name": "user-data"})
    node.metal.arrived(IPXE, times=2)
    node.change(deployment={"trigger": "again"})
    node.until(lambda status: status["operation"]["step"] == "BootRamdisk", "went on booting")
    node.metal.go_on()
    status = node.until(lambda status: len(status["history"]) == 3, "was installed twice")
    done = [("Deploy", "Succeeded", 1), ("Deploy", "Succeeded", 1), ("Commission", "Succeeded", 1)]
    assert [(entry["name"], entry["outcome"], entry["attempts"]) for entry in status["history"]] == done
    assert status["observedTriggers"]["deployment"] == "again"
    assert len(node.metal.images_written) == 2
    assert here.operator.text().count("machine=wishes/wished-anew step=WriteImage") == 2


# --- live machines, and machines moved by hand ------------------------------------------------------------------------


def test_a_live_machine_is_adopted_untouched_and_inspected_before_it_is_erased(here: Site) -> None:
    node = here.machine("live")
    node.switch(on=True)
    node.declare(allocation={"owner": "team-search"}, deployment={"existing": True})
    status = node.reaches("Deployed")
    assert (status["power"], reason(status)) == ("On", "Running")
    assert "hardware" not in status
    assert node.metal.told == []
    node.release()
    status = node.reaches("Ready")
    assert node.metal.journal.index(INSPECTION) < node.metal.journal.index(LOOKUP)
    assert status["hardware"]["disks"] == 1
    assert [disk["serial"] for disk in status["erasure"]] == list(node.metal.disks_gib)
    assert node.metal.told == ["GracefulShutdown", "On", "ForceOff"]


def test_a_machine_without_a_bmc_is_moved_by_a_person_who_is_told_when(here: Site) -> None:
    node = here.machine("by-hand")
    node.declare(bmc={"address": "manual://"})
    status = because(node, "AwaitingStartFromNetwork")
    assert "Start by-hand from the network by hand" in condition(status, "Ready")["message"]
    assert reason(status, "BMCReachable") == "ByHand"
    node.switch(on=True)
    status = node.reaches("Ready")
    assert status["power"] == "Unknown"

    node.switch(on=False)
    node.deploy()
    because(node, "AwaitingStartFromNetwork")
    node.switch(on=True)
    because(node, "AwaitingStartFromDisk")
    assert not node.metal.on, "the ramdisk's agent switched it off"
    node.switch(on=True)
    node.reaches("Deployed")
    node.metal.arrived(FIRST_BOOT)

    node.release()
    because(node, "AwaitingStartFromNetwork")
    node.switch(on=False)
    node.switch(on=True)
    status = node.reaches("Ready")
    assert all(disk["verified"] for disk in status["erasure"])
    assert not node.metal.on
    assert node.metal.told == [], "nobody but a person moved it"
    assert node.metal.journal.count(IPXE) == 4


def test_a_machine_behind_a_power_webhook_is_led_through_its_life_by_signed_calls(here: Site) -> None:
    node = here.machine("outlet")
    outlet, address = here.metal.outlet(node.metal)
    here.create(here.secret("outlet", username=KEY_NAME, password="not-the-key"))
    node.declare(bmc={"address": address, "credentialsSecretRef": {"name": "outlet"}})
    node.until(lambda s: reason(s, "BMCReachable") == "BMCCredentialsRejected", "was refused")
    assert outlet.actions == []
    here.change_secret("outlet", password=SIGNING_KEY)
    status = node.reaches("Ready")
    assert (status["power"], condition(status, "BMCReachable")["status"]) == ("Off", "True")
    there_and_back = ["SetBoot", "PowerOn", "ForceOff"]
    assert done(outlet) == there_and_back

    node.deploy()
    status = node.reaches("Deployed")
    node.metal.arrived(BOOTED)
    assert status["power"] == "On"
    assert done(outlet) == [*there_and_back, *there_and_back, "SetBoot", "PowerOn"]
    assert node.metal.journal.count(IPXE) == 3, "it starts from the network each time, and is sent on to its disk"

    node.release()
    assert all(disk["verified"] for disk in node.reaches("Ready")["erasure"])
    assert not node.metal.on
    assert node.metal.told == [], "nobody asked another BMC"


def done(outlet: Outlet) -> list[str]:
    """What a socket was asked to do, without the button that it hasn't got."""
    return [action for action in outlet.actions if action != "PowerOff"]


def test_two_machines_moved_by_hand_are_no_twins(here: Site) -> None:
    first, second = here.machine("hand-1"), here.machine("hand-2")
    for node in (first, second):
        node.declare(bmc={"address": "manual://"})
    for node in (first, second):
        because(node, "AwaitingStartFromNetwork")


def test_nothing_of_it_shows_a_secret_a_traceback_or_a_refusal(here: Site) -> None:
    here.assert_discreet()
