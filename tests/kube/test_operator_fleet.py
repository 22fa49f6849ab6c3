"""Three operators share some hundred simulated machines; one comes, one is killed, and nobody acts on another's.

Two that hear of each other's machines seconds late begin no more installations than may be under way.

Who acted is read from the API server's audit log, in which each operator has a token of its own, and from the
operators' logs; when they might, from the Leases.
"""

from __future__ import annotations

import base64
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.kube.operators import (
    ACCOUNT,
    API,
    JSON,
    PATIENCE,
    SYSTEM,
    Operator,
    Site,
    Tenure,
    leases,
    moment,
    process_of,
    site,
)

from lab import controlplane
from lab.controlplane import ControlPlane
from lab.process import wait_until
from rackwright.assignment import shard_of
from rackwright.shards import lease_name

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]

SHARDS, RACKS, MACHINES = 8, 40, 200
SLOTS, WANTED = 6, 50
"""Far fewer installations at once than machines want, three for each of two operators."""
LISTED = 3
"""Seconds between two listings, where they are all that an operator hears by."""
ADDRESS = "simulated://fast?answer=20ms&power=200ms&boot=3s&write=3s&start=1s&spread=0.5"
QUICK = "simulated://fast?answer=20ms&power=100ms&boot=1s&write=1s&start=1s"
"""Whose installation is over before another operator hears of it."""
SHARED, TAKEN = 40.0, 20.0
"""Seconds until an operator that comes has its share, two shards of up to 12 s after its start, and until those of one
that was killed are others'."""
WRITES = {"patch", "update", "create", "delete"}
CREDENTIAL = "authentication.kubernetes.io/credential-id"


class Act(NamedTuple):
    """Something that an operator did about a machine. Times are the wall clock's, in seconds."""

    begun: float
    ended: float
    who: int
    """The process."""
    what: str


@dataclass
class Replica:
    """One operator, and what tells it from the others."""

    operator: Operator
    process: int
    credential: str
    """Of its token, as the audit log has it."""


@pytest.fixture
def here(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operators watch them)
    tmp_path: Path,
) -> Iterator[Site]:
    with shared(control_plane, tmp_path, "fleet", "--max-concurrent-deployments", str(MACHINES)) as it:
        yield it


@pytest.fixture
def hard_of_hearing(
    control_plane: ControlPlane,
    crds: None,  # noqa: ARG001 (the operators watch them)
    tmp_path: Path,
) -> Iterator[Site]:
    arguments = ("--max-concurrent-deployments", str(SLOTS), "--watch-silence", "3600", "--resync", str(LISTED))
    with shared(control_plane, tmp_path, "late", *arguments, wired=True) as it:
        yield it


@contextmanager
def shared(plane: ControlPlane, folder: Path, namespace: str, *further: str, wired: bool = False) -> Iterator[Site]:
    """The first of the operators that share a fleet; at the end all machines are deleted at once."""
    arguments = ("--allow-simulated", "--shards", str(SHARDS), *further)
    with site(plane, folder, namespace, arguments=arguments, wired=wired) as it:
        it.create(it.image("debian-12"))
        yield it
        it.kubectl("delete", "--raw", f"/apis/{API}/namespaces/{it.namespace}/baremetalmachines")
        assert wait_until(lambda: not it.records(), PATIENCE)


def test_of_three_operators_that_come_and_go_one_at_a_time_acts_on_each_of_200_machines(here: Site) -> None:
    audit = here.audit()
    replicas = [replica(here.operator)]
    try:
        with leases(here.plane) as watched, ThreadPoolExecutor(1) as people:
            replicas.append(another(here, "second"))
            watched.until(lambda _: watched.shares() == [4, 4])
            declaring = people.submit(here.create, *fleet())
            assert wait_until(lambda: len(here.records()) > MACHINES // 4, PATIENCE, every=0.5)
            replicas.append(another(here, "third"))
            begun = time.time()
            watched.until(lambda _: watched.shares() == [2, 3, 3])
            shared = time.time() - begun
            unsettled = MACHINES - settled(here)
            before, at = watched.holders(), time.time()
            replicas[1].operator.send(signal.SIGKILL)
            gone = {name for name, it in before.items() if process_of(it) == replicas[1].process}
            watched.until(lambda now: all(now[name] not in ("", before[name]) for name in gone))
            taken = max(watched.changes_of_hands(name)[-1][1].timestamp() for name in gone) - at
            declaring.result()
            assert wait_until(lambda: settled(here) == MACHINES, PATIENCE, every=0.5), phases(here)
            held = {shard: watched.tenures(lease_name(shard)) for shard in range(SHARDS)}
    finally:
        for each in replicas[1:]:
            each.operator.end(signal.SIGKILL)
    assert shared <= SHARED
    assert taken <= TAKEN
    assert unsettled > MACHINES // 4, "it is killed in the middle of everything"
    acts = written(audit.news(), {each.credential: each.process for each in replicas})
    for each in replicas:
        for name, begun_acts in begun_by(each).items():
            acts[name] += begun_acts
    assert len(acts) == MACHINES
    for number in range(MACHINES):
        shard = shard_of(f"rack/{rack(number)}", SHARDS)
        for act in acts[name_of(number)]:
            assert (act.who, act.who) == (holder(held[shard], act.begun), holder(held[shard], act.ended)), (number, act)
        actors = [who for who, _ in groupby(sorted(acts[name_of(number)]), key=lambda act: act.who)]
        assert len(actors) == len(set(actors)), "whoever another has followed doesn't come back"
    assert {act.who for found in acts.values() for act in found} == {each.process for each in replicas}
    moved = [name for name, found in acts.items() if len({act.who for act in found}) > 1]
    assert len(moved) > MACHINES // 20, "many went from one operator to another in the middle of something"


def test_operators_that_hear_late_of_each_other_install_no_more_at_once_than_may(hard_of_hearing: Site) -> None:
    here = hard_of_hearing
    second = here.another_operator()
    with leases(here.plane) as watched:
        second.start()
        try:
            watched.until(lambda _: watched.shares() == [4, 4])
            with here.wire.silent(all_of_them=True):
                here.create(*fleet(QUICK)[1 : 2 * WANTED : 2])
                assert wait_until(lambda: phases(here)["Deployed"] == WANTED, 2 * PATIENCE, every=0.5), phases(here)
        finally:
            second.end()
    assert max(under_way(here)) == SLOTS
    assert min(len(each.acted_on()) for each in (here.operator, second)) > WANTED // 4, "both had many"


def under_way(here: Site) -> Iterator[int]:
    """How many machines install, after each change of a record."""
    loading: set[str] = set()
    for version in here.machines.versions(lambda it: it["metadata"]["namespace"] == here.namespace):
        operation = version.get("status", {}).get("operation") or {}
        if operation.get("name") == "Deploy" and operation.get("step") in ("PowerOff", "BootRamdisk", "WriteImage"):
            loading.add(version["metadata"]["name"])
        else:
            loading.discard(version["metadata"]["name"])
        yield len(loading)


def fleet(address: str = ADDRESS) -> list[JSON]:
    """Records of machines, of which every second one is to be deployed as soon as it is commissioned."""
    deployed = {"allocation": {"owner": "team-search"}, "deployment": {"image": "debian-12"}}
    return [
        {
            "apiVersion": API,
            "kind": "BareMetalMachine",
            "metadata": {
                "name": name_of(number),
                "labels": {"metal.rackwright.io/rack": rack(number)},
                "annotations": {"metal.rackwright.io/force-delete": "true"},  # nobody waits for their release
            },
            "spec": {
                "bootMACAddress": f"52:54:00:00:{number // 256:02x}:{number % 256:02x}",
                "bmc": {"address": address},
                **(deployed if number % 2 else {}),
            },
        }
        for number in range(MACHINES)
    ]


def name_of(number: int) -> str:
    """A machine's."""
    return f"node-{number:03}"


def rack(number: int) -> str:
    """That a machine stands in."""
    return f"rack-{number % RACKS:02}"


def phases(here: Site) -> Counter[str]:
    """How many machines are in each phase."""
    return Counter(here.kubectl("get", "bmm", "-o", "jsonpath={.items[*].status.phase}").split())


def settled(here: Site) -> int:
    """How many machines are where they are to be."""
    found = here.kubectl("get", "bmm", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}")
    return found.split().count("True")


def another(here: Site, name: str) -> Replica:
    """One more operator, with a token of its own."""
    operator = here.another_operator()
    operator.kubeconfig = controlplane.service_account_kubeconfig(
        here.plane, SYSTEM, ACCOUNT, operator.folder / f"{name}.kubeconfig"
    )
    operator.launch()
    return replica(operator)


def replica(operator: Operator) -> Replica:
    """An operator that runs."""
    assert operator.process is not None
    return Replica(operator, operator.process.pid, credential(operator.kubeconfig))


def credential(kubeconfig: Path) -> str:
    """What the audit log says of requests with its token: the token's own id (RFC 7519, `jti`)."""
    token = json.loads(kubeconfig.read_text())["users"][0]["user"]["token"]
    claims = token.split(".")[1]
    return f"JTI={json.loads(base64.urlsafe_b64decode(claims + '=' * (-len(claims) % 4)))['jti']}"


def written(entries: list[JSON], processes: dict[str, int]) -> dict[str, list[Act]]:
    """What was written about each machine: its record, its status, its inventory; refusals aside."""
    found: dict[str, list[Act]] = {name_of(number): [] for number in range(MACHINES)}
    for entry in entries:
        what = entry["objectRef"]
        if entry["verb"] not in WRITES or what["resource"] not in ("baremetalmachines", "hardwareinventories"):
            continue
        if entry["responseStatus"]["code"] < 400:
            (who,) = entry["user"]["extra"][CREDENTIAL]
            begun, ended = (moment(entry[at]).timestamp() for at in ("requestReceivedTimestamp", "stageTimestamp"))
            found[what["name"]].append(Act(begun, ended, processes[who], f"{entry['verb']} {what['resource']}"))
    return found


def begun_by(replica: Replica) -> dict[str, list[Act]]:
    """What an operator began to do to each machine, by its log."""
    found: dict[str, list[Act]] = {}
    line = re.compile(r"^(\S+ \S+) INFO +machine=fleet/(\S+) step=(\S+)", re.MULTILINE)
    for at, name, step in line.findall(replica.operator.text()):
        begun = datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
        found.setdefault(name, []).append(Act(begun, begun, replica.process, step))
    return found


def holder(held: list[Tenure], at: float) -> int:
    """The process that held a Lease then."""
    return next(tenure.who for tenure in held if tenure.begin <= at < tenure.end)
