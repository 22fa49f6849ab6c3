"""A machine's whole life with nothing in its way: phases, Events, records, and what it costs the API server."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.kube.metal import BOOTED
from tests.kube.operators import (
    IMAGE_CHECKSUM,
    PATIENCE,
    Machine,
    Site,
    condition,
    site,
)

from lab.audit import Audit
from lab.controlplane import ControlPlane
from lab.process import wait_until

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f you@example.org"
INTO_THE_POOL = Counter({
    "patch baremetalmachines": 1,
    "patch baremetalmachines/status": 2,
    "patch hardwareinventories": 1,
    "create events": 2,
})  # fmt: skip
DEPLOYMENT = Counter({"patch baremetalmachines": 1, "patch baremetalmachines/status": 4, "create events": 2})
"""What these cost the API server, however busy the host is. Secrets come on top: a BMC's is read once, and for several
machines that name it once in minutes; user data are looked at when a deployment begins and when they are written."""
SECRETS = "get secrets"
USER_DATA = "#cloud-config\nwrite_files: [{path: /etc/motd, content: the-tenants-own-words}]\n"


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    arguments = ("--show-progress-after", "3600")  # what takes longer on a busy host isn't told of by itself
    with site(control_plane, tmp_path_factory.mktemp("life"), "life", arguments=arguments) as it:
        it.metal.secrets.add("the-tenants-own-words")
        it.create(it.image("debian-12"), it.secret("user-data", userData=USER_DATA))
        yield it


@pytest.fixture(scope="module")
def node(here: Site) -> Machine:
    return here.machine("node-01")


def settled(node: Machine, phase: str, audit: Audit) -> Counter[str]:
    """Wait until the machine is in a phase and Ready, and the operator is silent for a moment; what it asked."""
    node.until(
        lambda s: s.get("phase") == phase and condition(s, "Ready")["status"] == "True", f"was {phase} and Ready"
    )
    counts = [-1, -2]

    def quiet() -> bool:
        counts.append(audit.so_far().total())
        return counts[-1] == counts[-2]

    assert wait_until(quiet, PATIENCE, every=1.0)
    return about_machines(audit)


def about_machines(audit: Audit) -> Counter[str]:
    """Without listings, which come round by themselves."""
    return Counter({what: count for what, count in audit.so_far().items() if not what.startswith("list")})


def besides_secrets(audit: Audit) -> Counter[str]:
    """How often the operator read the Secret that machines share is chance."""
    asked = about_machines(audit)
    del asked[SECRETS]
    return asked


# One machine, whose story the tests tell in order.


def test_a_declared_machine_is_commissioned_and_ready(here: Site, node: Machine) -> None:
    audit = here.audit()
    node.declare()
    asked = settled(node, "Ready", audit)
    print(f"\nAPI requests from declared to Ready: {asked.total()} {asked}")
    assert asked == INTO_THE_POOL + Counter({SECRETS: 1})
    assert node.phases() == ["Commissioning", "Ready"]
    assert not node.metal.on
    assert node.metal.told == ["On", "ForceOff"]


def test_its_hardware_is_in_status_and_in_an_inventory_that_it_owns(here: Site, node: Machine) -> None:
    assert node.status["hardware"] == {
        "cpus": 8, "memoryMiB": 16384, "disks": 1, "diskGiB": 16, "nics": 1,
        "vendor": "Contoso", "model": "R1", "serial": "SN0001", "macAddresses": ["52:54:00:00:00:01"],
    }  # fmt: skip
    inventory = json.loads(here.kubectl("get", "hwi", node.name, "-o", "json"))
    (owner,) = inventory["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("BareMetalMachine", node.record()["metadata"]["uid"])
    assert [disk["serial"] for disk in inventory["report"]["disks"]] == ["DISK0001"]
    assert inventory["report"]["biosAttributes"] == {"ProcTurboMode": "Enabled", "Cores": "8"}
    assert node.record()["metadata"]["finalizers"] == ["metal.rackwright.io/release"]


def test_every_condition_is_set_and_says_why(node: Machine) -> None:
    said = {c["type"]: (c["status"], c["reason"]) for c in node.status["conditions"]}
    assert said["Ready"] == ("True", "Available")
    assert said["Reconciling"][0] == said["Stalled"][0] == "False"
    assert said["BMCReachable"] == ("True", "Answered")
    assert {"Commissioned", "TestsPassed", "Allocated", "Deployed", "LayoutCompatible"} <= set(said)
    assert all(c["observedGeneration"] == 1 for c in node.status["conditions"])


def test_an_idle_machine_costs_nothing(here: Site, node: Machine) -> None:
    audit, version = here.audit(), node.record()["metadata"]["resourceVersion"]
    asked_of_bmc = len(node.metal.bmc.requests)
    time.sleep(4)  # nothing is what is waited for
    assert about_machines(audit) == {}
    assert node.record()["metadata"]["resourceVersion"] == version
    assert len(node.metal.bmc.requests) == asked_of_bmc


def test_an_allocated_machine_is_reserved_and_left_alone(node: Machine) -> None:
    told = list(node.metal.told)
    node.change(allocation={"owner": "team-search"})
    status = node.reaches("Allocated")
    assert status["owner"] == "team-search"
    assert node.condition("Ready")["reason"] == "AwaitingDeployment"
    node.change(allocation=None)
    assert "owner" not in node.reaches("Ready")
    node.event("AllocationWithdrawn", "Normal")
    assert node.metal.told == told


def test_a_deployment_ends_when_the_system_phones_home(here: Site, node: Machine) -> None:
    audit = here.audit()
    node.deploy(hostname="web-1", sshAuthorizedKeys=[KEY], userDataSecretRef={"name": "user-data"})
    asked = settled(node, "Deployed", audit)
    print(f"\nAPI requests from Ready to Deployed: {asked.total()} {asked}")
    assert asked == DEPLOYMENT + Counter({SECRETS: 2})
    assert node.phases()[-2:] == ["Deploying", "Deployed"]
    node.metal.arrived(BOOTED)
    assert node.metal.images_written == [IMAGE_CHECKSUM]
    assert node.metal.told[2:] == ["On", "ForceOff", "On"]


def test_what_is_installed_is_recorded_with_address_and_host_keys(node: Machine) -> None:
    system, installed = node.metal.system, node.status["installed"]
    assert system is not None
    assert installed["image"] == "debian-12"
    assert installed["checksum"] == IMAGE_CHECKSUM
    assert installed["hostname"] == "web-1"
    assert installed["addresses"] == [node.metal.address]
    assert installed["sshHostKeys"] == [system.host_key]
    assert "operation" not in node.status
    assert "lastFailure" not in node.status
    remembered = json.loads(node.record()["metadata"]["annotations"]["metal.rackwright.io/installed"])
    assert remembered == {"addresses": [], "sshHostKeys": [], **installed}


def test_the_system_was_told_what_its_owner_declared(node: Machine) -> None:
    system = node.metal.system
    assert system is not None
    assert system.seed["meta-data"]["local-hostname"] == "web-1"
    assert system.seed["meta-data"]["public-keys"] == [KEY]
    assert system.seed["user-data"] == USER_DATA


def test_a_deployed_machine_is_not_touched(here: Site, node: Machine) -> None:
    audit, told, version = here.audit(), list(node.metal.told), node.record()["metadata"]["resourceVersion"]
    time.sleep(4)  # nothing is what is waited for
    assert about_machines(audit) == {}
    assert (node.metal.told, node.record()["metadata"]["resourceVersion"]) == (told, version)


def test_a_withdrawn_deployment_is_released_with_evidence(here: Site, node: Machine) -> None:
    audit = here.audit()
    node.release()
    settled(node, "Ready", audit)
    (erased,) = node.status["erasure"]
    assert (erased["device"], erased["serial"], erased["method"], erased["verified"]) == (
        "/dev/sda", "DISK0001", "Overwrite", True,
    )  # fmt: skip
    assert node.metal.system is None
    assert not node.metal.on
    assert "installed" not in node.status
    assert "owner" not in node.status
    assert "metal.rackwright.io/installed" not in node.record()["metadata"].get("annotations", {})
    assert node.metal.told[5:8] == ["GracefulShutdown", "On", "ForceOff"]


def test_the_history_tells_what_was_done(node: Machine) -> None:
    told = [(entry["name"], entry["outcome"], entry["attempts"]) for entry in node.status["history"]]
    assert told == [("Release", "Succeeded", 1), ("Deploy", "Succeeded", 1), ("Commission", "Succeeded", 1)]


def test_there_is_one_event_for_each_phase_change_and_none_else(node: Machine) -> None:
    events = node.events()
    assert [event["action"] for event in events] == node.phases()
    assert {event["type"] for event in events} == {"Normal"}
    assert not any("series" in event for event in events)


def test_what_recurs_is_counted_in_the_event_that_is_there(here: Site, node: Machine) -> None:
    node.change(allocation={"owner": "team-search"})
    node.reaches("Allocated")
    node.change(allocation=None)
    node.reaches("Ready")

    def counted() -> bool | None:
        return node.event("AllocationDeclared", "Normal").get("series", {}).get("count") == 2 or None

    assert here.events.until(counted, PATIENCE)
    settled(node, "Ready", here.audit())


def test_several_machines_go_at_once_and_none_costs_more_than_seven_requests_a_way(here: Site) -> None:
    nodes = [here.machine(f"crowd-{number}") for number in range(1, 7)]
    audit = here.audit()
    here.create(*(node.manifest() for node in nodes))
    for node in nodes:
        settled(node, "Ready", audit)
    assert besides_secrets(audit) == {what: len(nodes) * count for what, count in INTO_THE_POOL.items()}
    audit = here.audit()
    for node in nodes:
        node.deploy()
    for node in nodes:
        settled(node, "Deployed", audit)
        assert node.status["installed"]["addresses"] == [node.metal.address]
        assert len(node.metal.images_written) == 1
    assert besides_secrets(audit) == {what: len(nodes) * count for what, count in DEPLOYMENT.items()}
    assert (INTO_THE_POOL.total(), DEPLOYMENT.total()) == (6, 7)


def test_nothing_of_it_shows_a_secret_a_traceback_or_a_refusal(here: Site) -> None:
    here.assert_discreet()
