"""A machine that reaches the wrong operator is sent to the right one, and is told what to boot by any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from tests.unit.agent.world import MAC as BOOT_MAC
from tests.unit.agent.world import UID, DeclaredBoots, boot
from tests.unit.test_cache import MAC, OTHER_BMC, OTHER_MAC, item

from rackwright import server
from rackwright.agent.api import AgentAPI
from rackwright.agent.sessions import Sessions
from rackwright.agent.tokens import Tokens
from rackwright.cache import Cache
from rackwright.directions import Directions
from rackwright.kube import Unavailable
from rackwright.netboot.api import BootScripts
from rackwright.netboot.files import Files
from rackwright.netboot.script import RamdiskSettings
from rackwright.record import Machine

HERE, THERE = "http://10.0.0.1:8080", "http://10.0.0.2:8080"


@dataclass
class Shards:
    """Two shards: `node-07` is in shard 0, any other machine in shard 1."""

    mine: set[int] = field(default_factory=lambda: {0})
    urls: dict[int, str] = field(default_factory=lambda: {0: HERE, 1: THERE})
    alone: bool = False

    def holds(self, shard: int) -> bool:
        return shard in self.mine

    def of(self, machine: Machine) -> int:
        return int(machine.key.name != "node-07")

    def holder_url(self, shard: int) -> str | None:
        return self.urls.get(shard)


@dataclass
class Rig:
    """Directions, and the records that there are now."""

    shards: Shards = field(default_factory=Shards)
    cache: Cache = field(default_factory=Cache)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)
    silent: bool = False

    def __post_init__(self) -> None:
        for each in (item(), item("node-08", mac=OTHER_MAC, bmc=OTHER_BMC)):
            self.cache.put(Machine.read(each))
        self.directions = Directions(
            shards=self.shards,  # type: ignore[arg-type]
            cache=self.cache,
            cluster=self,  # type: ignore[arg-type]
            reconciler=self,  # type: ignore[arg-type]
            url=HERE,
        )

    async def get(self, _plural: str, _namespace: str, name: str) -> dict[str, Any] | None:
        self.read.append(name)
        if self.silent:
            raise Unavailable("no answer")
        return self.records.get(name)

    def seen(self, record: Mapping[str, Any]) -> None:
        self.cache.put(Machine.read(record))

    def way(self, uid: str | None, path: str = "/v1/heartbeat/x?a=b%20c") -> str | int:
        """Where a request is sent, 200 for nowhere else."""
        try:
            self.directions.guide(made(path), uid)
        except web.HTTPTemporaryRedirect as answer:
            return str(answer.location)
        except web.HTTPServiceUnavailable as answer:
            return answer.status
        return 200


def made(path: str) -> web.Request:
    @dataclass
    class Request:
        raw_path: str

    return Request(path)  # type: ignore[return-value]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_concerns_our_machine_is_answered_here(rig: Rig) -> None:
    assert rig.way("uid-node-07") == 200


def test_what_concerns_another_operators_machine_is_sent_there_with_everything_in_it(rig: Rig) -> None:
    assert rig.way("uid-node-08") == f"{THERE}/v1/heartbeat/x?a=b%20c"


@pytest.mark.parametrize("urls", [{}, {1: HERE}], ids=["nobody's", "ours a moment ago"])
def test_a_machine_that_is_nobodys_now_is_to_ask_again(rig: Rig, urls: dict[int, str]) -> None:
    rig.shards.urls = urls
    assert rig.way("uid-node-08") == 503


def test_whom_nobody_knows_is_the_first_shards_business(rig: Rig) -> None:
    assert rig.way(None) == rig.way("uid-of-nobody") == 200
    rig.shards.mine, rig.shards.urls = {1}, {0: THERE}
    assert rig.way(None, "/v1/continue_inspection") == f"{THERE}/v1/continue_inspection"


async def test_without_shards_everything_is_answered_here(rig: Rig) -> None:
    rig.shards.alone, rig.shards.mine = True, set()
    assert rig.way("uid-node-08") == rig.way(None) == 200
    assert await rig.directions.fresh((OTHER_MAC,))
    assert rig.read == []


async def test_another_operators_machine_is_told_by_what_is_recorded_now(rig: Rig) -> None:
    rig.records["node-08"] = item("node-08", mac=OTHER_MAC, bmc=OTHER_BMC, version=2, status={"phase": "Ready"})
    assert await rig.directions.fresh((MAC,))
    assert rig.read == [], "of our own machine nobody knows more than we"
    assert await rig.directions.fresh((OTHER_MAC,))
    machine = rig.cache.with_uid("uid-node-08")
    assert machine is not None
    assert machine.version == 2


async def test_a_machine_whose_record_can_not_be_read_is_to_ask_again(rig: Rig) -> None:
    rig.silent = True
    assert not await rig.directions.fresh((OTHER_MAC,))
    rig.silent = False
    assert await rig.directions.fresh((OTHER_MAC,)), "and one that is gone is told by what is known"


# --- at the wire --------------------------------------------------------------------------------------------------


async def persisted(_uid: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("method", "path", "asks_about"),
    [
        ("GET", f"/v1/lookup?addresses={BOOT_MAC}", UID),
        ("POST", f"/v1/heartbeat/{UID}", UID),
        ("POST", "/v1/continue_inspection", UID),
        ("POST", f"/v1/phone-home/{UID}?token=T", UID),
    ],
)
async def test_whatever_is_kept_in_memory_goes_to_who_keeps_it(method: str, path: str, asks_about: str) -> None:
    asked: list[str | None] = []

    def guide(request: web.Request, uid: str | None) -> None:
        asked.append(uid)
        raise web.HTTPTemporaryRedirect(f"{THERE}{request.raw_path}")

    async def never(_request: web.Request) -> web.Response:
        raise AssertionError

    boots = DeclaredBoots([boot(wants_inventory=True)])
    tokens = Tokens(b"k" * 32)
    agent = AgentAPI(
        boots=boots, sessions=Sessions(), tokens=tokens, wake=lambda _: None, persisted=persisted, guide=guide
    )
    app = server.build(
        agent=agent,
        scripts=BootScripts(boots=boots, settings=RamdiskSettings(HERE), unready=lambda: None),
        files=Files({}),
        unready=lambda: None,
        guide=guide,
        extra=[web.post("/v1/phone-home/{uid}", never)],
    )
    report = {"inventory": {"interfaces": [{"name": "eth0", "mac_address": BOOT_MAC}]}}
    async with TestClient(TestServer(app)) as client:
        answer = await client.request(method, path, json=report if method == "POST" else None, allow_redirects=False)
    assert answer.status == 307
    assert answer.headers["Location"] == f"{THERE}{path}"
    assert asked == [asks_about]


@pytest.mark.parametrize("known", [True, False])
async def test_a_boot_script_waits_for_the_record_of_another_operators_machine(known: bool) -> None:
    async def fresh(macs: object) -> bool:
        assert macs == (BOOT_MAC,)
        return known

    scripts = BootScripts(
        boots=DeclaredBoots([boot()]), settings=RamdiskSettings(HERE), unready=lambda: None, fresh=fresh
    )
    app = web.Application()
    app.add_routes(scripts.routes())
    async with TestClient(TestServer(app)) as client:
        said = await (await client.get(f"/boot/ipxe?mac={BOOT_MAC.replace(':', '-')}")).text()
    assert ("kernel" in said) is known
    assert ("asked=1" in said) is not known
