"""Who is who: one BMC under two addresses, a system that calls twice, a Secret that comes and goes, a taken port."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit

import pytest
from tests.kube.metal import BOOTED
from tests.kube.operators import PATIENCE, Site, condition, deployed, elapsed, moment, site

from lab.controlplane import ControlPlane
from lab.process import wait_until

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

SOON = 5.0
"""Seconds until the operator must have noticed, which by itself looks again after two minutes."""


@pytest.fixture(scope="module")
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operator watches them)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    with site(control_plane, tmp_path_factory.mktemp("identity"), "identity") as it:
        it.create(it.image("debian-12"))
        yield it


@pytest.mark.parametrize("older_names_its_system", [True, False], ids=["only-the-older", "only-the-younger"])
def test_one_bmc_under_two_addresses_is_driven_by_the_older_record_alone(
    here: Site, older_names_its_system: bool
) -> None:
    name = "named" if older_names_its_system else "unnamed"
    older, younger = here.machine(f"{name}-older"), here.machine(f"{name}-younger")
    whole = older.metal.bmc_address.partition("/redfish")[0] + "/"
    first, second = older.metal.bmc_address, whole
    if not older_names_its_system:
        first, second = second, first
    older.declare(bmc={"address": first, "credentialsSecretRef": {"name": "bmc"}})
    older.reaches("Ready")
    created = moment(older.record()["metadata"]["creationTimestamp"])
    assert wait_until(lambda: time.time() >= created.timestamp() + 1, PATIENCE)  # which the API server tells in seconds
    asked = len(older.metal.bmc.requests)
    younger.declare(bmc={"address": second, "credentialsSecretRef": {"name": "bmc"}})
    status = younger.stalls("DuplicateMachine")
    assert f"{here.namespace}/{older.name} has the same" in condition(status, "Stalled")["message"]
    assert len(older.metal.bmc.requests) == asked
    here.machines.until_deleted(older.delete())
    younger.reaches("Commissioning")


def test_a_system_that_calls_again_after_a_restart_is_told_that_it_is_recorded(here: Site) -> None:
    (node,) = deployed(here, "calls-twice")
    system = node.metal.system
    assert system is not None
    here.operator.end()
    here.operator.start()
    form = urlencode({"pub_key_ed25519": f"{system.host_key} root@host\n", "fqdn": system.hostname}).encode()
    url = urlsplit(system.seed["vendor-data"]["phone_home"]["url"])
    with urllib.request.urlopen(f"http://{url.netloc}{url.path}?{url.query}", data=form, timeout=40) as answer:
        assert answer.status == 200
    assert node.status["phase"] == "Deployed"
    assert node.metal.journal.count(BOOTED) == 1


def test_a_secret_that_is_taken_away_and_given_back_is_noticed_at_once(here: Site) -> None:
    node = here.machine("comes-and-goes")
    here.create(here.secret("fickle", username="admin", password="another-wrong-password"))
    here.metal.secrets.add("another-wrong-password")
    node.declare(bmc={"address": node.metal.bmc_address, "credentialsSecretRef": {"name": "fickle"}})
    node.until(lambda s: "nextRetryAt" in s.get("operation", {}), "failed once")
    here.kubectl("delete", "secret", "fickle")
    since = time.monotonic()
    node.until(lambda s: condition(s, "BMCReachable").get("reason") == "SecretMissing", "missed the Secret")
    assert elapsed(since) < SOON
    here.create(here.bmc_secret("fickle"))
    since = time.monotonic()
    node.until(lambda s: s.get("operation", {}).get("step", "") != "", "went on")
    assert elapsed(since) < SOON
    node.reaches("Ready")


def test_an_operator_whose_port_is_taken_says_so_and_ends(here: Site) -> None:
    other = here.another_operator()
    here.front.ports.remove(other.port)
    other.port = here.operator.port
    other.log = other.folder / "taken.log"
    with pytest.raises(AssertionError, match="Address already in use"):
        other.start(ready="never")
    text = other.text()
    assert f"rackwright: can't listen on 127.0.0.1:{other.port}: Address already in use" in text
    assert "Traceback" not in text
    assert other.end() == 2


def test_no_secret_was_shown_anywhere_and_nothing_broke(here: Site) -> None:
    here.assert_discreet()
