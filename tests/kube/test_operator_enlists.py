"""Machines that nobody declared introduce themselves: one record each, trusted by nobody, and no more than so many."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.kube.metal import BOOTED, INTRODUCTION, IPXE, NO_SYSTEM, RESTARTED, SWITCHED_OFF
from tests.kube.operators import API, PATIENCE, Machine, Site, condition, deployed, ready, site

from lab.controlplane import ControlPlane
from lab.process import wait_until

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

AT_MOST = 3
SECOND_CARD, NEW_CARD, OTHER_NEW_CARD = "52:54:00:aa:00:01", "52:54:00:aa:00:02", "52:54:00:aa:00:03"


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    arguments = ("--enlist-namespace", "enlist", "--enlist-at-most", str(AT_MOST))
    with site(control_plane, tmp_path_factory.mktemp("enlist"), "enlist", arguments=arguments) as it:
        it.create(it.image("debian-12"))
        yield it


@pytest.fixture(scope="module")
def node(here: Site) -> Machine:
    found = here.undeclared()
    found.metal.macs.append(SECOND_CARD)
    found.metal.bmc_seen_inside = "10.9.0.7"
    return found


def enlistments(here: Site, outcome: str) -> float:
    return here.operator.metric(f'rackwright_enlistments_total{{outcome="{outcome}"}}')


def introduction(number: int) -> dict[str, Any]:
    """A report of a machine that there isn't."""
    card = {"name": "eth0", "mac_address": f"52:54:00:ff:{number // 256:02x}:{number % 256:02x}"}
    return {"inventory": {"interfaces": [card], "system_vendor": {"serial_number": f"MADEUP{number:04}"}}}


def answer_to(here: Site, report: dict[str, Any]) -> int:
    """The status that a report is answered with in the end: where there is no room now, it comes again, as IPA does."""
    while (status := answer_once(here, report)) == 503:
        time.sleep(0.1)
    return status


def answer_once(here: Site, report: dict[str, Any]) -> int:
    """The status that a report is answered with."""
    request = urllib.request.Request(  # noqa: S310 (our own operator)
        f"{here.operator.base_url}/v1/continue_inspection",
        data=json.dumps(report).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 (the same)
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return refusal.code


# One machine that nobody declared, whose story the tests tell in order.


def test_it_is_enlisted_and_switches_itself_off(here: Site, node: Machine) -> None:
    node.metal.press_power()
    node.metal.arrived(SWITCHED_OFF)
    assert node.metal.journal == [IPXE, INTRODUCTION, SWITCHED_OFF]
    assert here.records() == {node.name}, "its record is there before the report is acknowledged"
    node.reaches("New")
    assert not node.metal.on
    assert node.metal.told == [], "its BMC was left alone"
    spec = node.record()["spec"]
    assert spec["accepted"] is False
    assert (spec["bootMACAddress"], spec["architecture"], spec["bootMode"]) == (node.metal.mac, "amd64", "UEFI")
    assert spec["bmc"]["address"] == "ipmi://10.9.0.7"
    assert node.event("Enlisted", "Normal")["action"] == "New"
    assert enlistments(here, "enlisted") == here.operator.metric("rackwright_new_machines") == 1


def test_its_hardware_is_in_an_inventory_that_it_owns_and_in_the_listing(here: Site, node: Machine) -> None:
    inventory = json.loads(here.kubectl("get", "hwi", node.name, "-o", "json"))
    (owner,) = inventory["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("BareMetalMachine", node.record()["metadata"]["uid"])
    assert [disk["serial"] for disk in inventory["report"]["disks"]] == ["DISK0001"]
    status = node.until(lambda s: "hardware" in s, "showed its hardware")
    assert status["hardware"]["macAddresses"] == [node.metal.mac, SECOND_CARD]
    (line,) = here.kubectl("get", "bmm", node.name, "-o", "wide", "--no-headers").splitlines()
    assert [field in line.split() for field in ("New", "8", "16384", "ipmi://10.9.0.7")] == [True] * 4
    assert condition(status, "Commissioned")["reason"] == "NotAccepted"


@pytest.mark.parametrize("card", [None, SECOND_CARD], ids=["its card", "its other card"])
def test_switched_on_again_it_boots_its_disk(here: Site, node: Machine, card: str | None) -> None:
    node.metal.journal.clear()
    node.metal.press_power(card)
    node.metal.arrived(NO_SYSTEM)
    assert node.metal.journal == [IPXE, NO_SYSTEM]
    assert here.records() == {node.name}
    node.metal.hold_power()


def test_an_operator_that_was_killed_still_knows_it_by_every_card(here: Site, node: Machine) -> None:
    here.operator.end(signal.SIGKILL)
    here.operator.start()
    node.metal.journal.clear()
    node.metal.press_power(SECOND_CARD)
    node.metal.arrived(NO_SYSTEM)
    assert node.metal.journal == [IPXE, NO_SYSTEM]
    node.metal.hold_power()


def test_one_patch_accepts_it_and_it_is_commissioned(node: Machine) -> None:
    bmc = {"address": node.metal.bmc_address, "credentialsSecretRef": {"name": "bmc"}}
    node.change(accepted=True, bmc=bmc)
    status = node.reaches("Ready")
    assert node.phases() == ["New", "Commissioning", "Ready"]
    assert condition(status, "Commissioned")["status"] == "True"
    assert not node.metal.on


# Machines that somebody declared.


def test_a_declared_machine_that_boots_by_itself_is_recognised(here: Site) -> None:
    (known,) = ready(here, "declared")
    before, counted, told = here.records(), enlistments(here, "recognised"), list(known.metal.told)
    known.metal.macs.append(NEW_CARD)  # built in after it was commissioned
    known.metal.journal.clear()
    known.metal.press_power(NEW_CARD)
    known.metal.arrived(NO_SYSTEM)
    assert known.metal.journal == [IPXE, INTRODUCTION, RESTARTED, IPXE, NO_SYSTEM]
    assert here.records() == before
    assert enlistments(here, "recognised") == counted + 1
    assert known.metal.told[: len(told)] == told
    known.metal.hold_power()


def test_a_deployed_machine_that_boots_by_itself_runs_on(here: Site) -> None:
    (used,) = deployed(here, "used")
    told, before = list(used.metal.told), here.records()
    used.metal.macs = [OTHER_NEW_CARD]  # its only network card was replaced
    used.metal.journal.clear()
    used.metal.press_power(OTHER_NEW_CARD)
    used.metal.arrived(BOOTED)
    assert used.metal.journal == [IPXE, INTRODUCTION, RESTARTED, IPXE, BOOTED]
    assert used.metal.on
    assert used.metal.told == told
    assert here.records() == before
    assert used.status["phase"] == "Deployed"


def test_a_machine_with_the_name_that_a_new_one_would_get_keeps_it(here: Site) -> None:
    other = here.undeclared()
    spec = {"accepted": False, "bootMACAddress": "52:54:00:aa:00:44"}
    here.create({"apiVersion": API, "kind": "BareMetalMachine",
                 "metadata": {"name": other.name, "namespace": here.namespace}, "spec": spec})  # fmt: skip
    other.metal.press_power()
    other.metal.arrived(SWITCHED_OFF)
    named = f"mac-{other.metal.mac.replace(':', '')}"
    assert {other.name, named} <= here.records()
    here.kubectl("delete", "bmm", other.name, named, "--timeout=60s")


# A flood.


def test_a_flood_creates_no_more_than_may_wait_and_says_so_once(here: Site) -> None:
    waiting = here.operator.metric("rackwright_new_machines")
    assert waiting == 0
    before, full = here.records(), enlistments(here, "full")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: answer_to(here, introduction(number)), range(60)))
    assert answers.count(202) == AT_MOST
    assert answers.count(404) == 60 - AT_MOST
    assert len(here.records() - before) == AT_MOST
    assert enlistments(here, "full") == full + 60 - AT_MOST

    late = here.undeclared()
    late.metal.press_power()
    late.metal.arrived(NO_SYSTEM)
    assert late.metal.journal == [IPXE, NO_SYSTEM], "a machine for which there is no place boots its disk"
    assert enlistments(here, "full") == full + 60 - AT_MOST + 1
    assert here.operator.metric("rackwright_new_machines") == AT_MOST

    def told() -> list[dict[str, Any]]:
        found = here.events.versions(lambda e: e["reason"] == "EnlistmentFull")
        return list({event["metadata"]["uid"]: event for event in found}.values())

    assert here.events.until(lambda: told() or None, PATIENCE)
    (event,) = told()
    assert (event["type"], event["regarding"]["kind"], event["regarding"]["name"]) == (
        "Warning", "Namespace", here.namespace,
    )  # fmt: skip
    assert "--enlist-at-most" in event["note"]
    late.metal.hold_power()

    # A place that becomes free is the next one's.
    made_up = sorted(here.records() - before)
    here.kubectl("delete", "bmm", made_up[0], "--timeout=60s")
    assert wait_until(lambda: here.operator.metric("rackwright_new_machines") == AT_MOST - 1, PATIENCE)
    late.metal.press_power()
    late.metal.arrived(SWITCHED_OFF)
    late.reaches("New")


def test_nothing_of_it_shows_a_secret_a_traceback_or_a_refusal(here: Site) -> None:
    here.assert_discreet()
