"""Which shard a machine is in, and that operators which come and go share fairly, moving no more than that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright.api.machine import BareMetalMachineSpec
from rackwright.assignment import Plan, asks_for, excess, gives_up, shard_key, shard_of

KEYS = st.text(min_size=1, max_size=40) | st.from_regex(r"shard/[0-9]{1,6}", fullmatch=True)
SHARDS = st.integers(1, 64)
OPERATORS = "abcdefgh"
FOREVER = [0, 0, 1, 0, 0, 3, 2, 1]
"""What is written into fleets' leases and annotations must mean the same to the next version."""


def key(labels: Mapping[str, str] | None = None, bmc: str | None = None, name: str = "node-07") -> str:
    spec = BareMetalMachineSpec.model_validate({} if bmc is None else {"bmc": {"address": bmc}})
    return shard_key({"namespace": "rack-a", "name": name, "labels": labels}, spec)


# --- machines -----------------------------------------------------------------------------------------------------


@given(KEYS, SHARDS)
def test_every_machine_is_in_exactly_one_shard_that_there_is(machine: str, shards: int) -> None:
    assert sum(shard_of(machine, shards) == shard for shard in range(shards)) == 1


@given(st.lists(KEYS.filter(lambda key: not key.startswith("shard/")), max_size=50), SHARDS)
def test_one_shard_more_takes_its_share_and_moves_no_machine_between_the_others(
    machines: list[str], shards: int
) -> None:
    assert all(shard_of(machine, shards + 1) in (shard_of(machine, shards), shards) for machine in machines)


@pytest.mark.parametrize("shards", [2, 5, 16])
def test_a_fleet_is_spread_evenly(shards: int) -> None:
    load = Counter(shard_of(f"bmc/10.{n // 256}.{n % 256}.7", shards) for n in range(10_000))
    assert len(load) == shards
    assert max(load.values()) < 1.25 * 10_000 / shards


def test_the_spread_is_the_same_in_every_process_and_version() -> None:
    assert [shard_of(f"rack/{name}", 4) for name in "abcdefgh"] == FOREVER


def test_a_rack_is_in_one_shard_whatever_the_machines_bmcs_are() -> None:
    labels = {"metal.rackwright.io/rack": "a12"}
    assert key(labels, "ipmi://10.0.0.7") == key(labels, "ipmi://10.0.0.8", name="node-08") == "rack/a12"


def test_machines_behind_one_bmc_are_in_one_shard_whatever_they_speak_to_it() -> None:
    found = {
        key(None, "redfish+https://BMC-7/redfish/v1/Systems/1"),
        key(None, "redfish+https://bmc-7:443/redfish/v1/Systems/2", name="node-08"),
        key({}, "ipmi://bmc-7:623", name="node-09"),
    }
    assert found == {"bmc/bmc-7"}


@pytest.mark.parametrize("bmc", [None, "manual://", "nonsense", "simulated://fast"])
def test_a_machine_without_a_bmc_is_put_by_its_name(bmc: str | None) -> None:
    assert key(None, bmc) == "machine/rack-a/node-07"


@pytest.mark.parametrize(("number", "shard"), [("0", 0), ("3", 3), ("03", 3), ("4", 0), ("7", 3)])
def test_a_site_that_numbers_its_shards_gets_them(number: str, shard: int) -> None:
    labels = {"metal.rackwright.io/shard": number, "metal.rackwright.io/rack": "a12"}
    assert shard_of(key(labels), 4) == shard


@pytest.mark.parametrize("number", ["", "-1", "x", "²"])
def test_a_shard_that_is_no_number_is_as_good_as_none(number: str) -> None:
    labels = {"metal.rackwright.io/shard": number, "metal.rackwright.io/rack": "a12"}
    assert key(labels) == "rack/a12"


@pytest.mark.parametrize("mine", [frozenset[int](), frozenset({4}), frozenset({-1})])
def test_a_plan_has_shards_that_there_are(mine: frozenset[int]) -> None:
    with pytest.raises(ValueError, match="from 0 to 3"):
        Plan(4, mine)


# --- operators ----------------------------------------------------------------------------------------------------


class Fleet:
    """Operators that take, ask for and give up shards, one at a time and in any order."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.operators: set[str] = set()
        self.holders: dict[int, str] = {}
        self.moves = 0

    def leave(self, operator: str) -> None:
        self.operators.discard(operator)
        self.holders = {shard: holder for shard, holder in self.holders.items() if holder != operator}

    def settle(self) -> None:
        """Until nobody wants anything; whoever hesitates least takes what is free."""
        for shard in sorted(set(range(self.shards)) - self.holders.keys()):
            if self.operators:
                self.holders[shard] = min(sorted(self.operators), key=self._hesitation)
        while asked := self._asked():
            self.moves += 1
            assert self.moves < 1000, "shards go to and fro"
            by, shard = asked
            assert gives_up(self.holders, self.holders[shard], by)
            self.holders[shard] = by

    def _hesitation(self, operator: str) -> tuple[int, int]:
        return excess(self.holders, operator), Counter(self.holders.values())[operator]

    def _asked(self) -> tuple[str, int] | None:
        for operator in sorted(self.operators):
            shard = asks_for(self.holders, operator, range(self.shards))
            if shard is not None:
                return operator, shard
        return None

    def loads(self) -> list[int]:
        load = Counter(self.holders.values())
        return [load[operator] for operator in self.operators]


@given(st.integers(1, 16), st.lists(st.sampled_from(OPERATORS), max_size=20))
def test_whoever_comes_and_goes_every_shard_has_one_holder_and_nobody_two_more_than_another(
    shards: int, changes: list[str]
) -> None:
    fleet = Fleet(shards)
    for operator in changes:
        if operator in fleet.operators:
            fleet.leave(operator)
        else:
            fleet.operators.add(operator)
        fleet.settle()
        if fleet.operators:
            assert fleet.holders.keys() == set(range(shards))
            assert max(fleet.loads()) - min(fleet.loads()) <= 1


@given(st.integers(1, 16), st.integers(2, 8))
def test_when_an_operator_leaves_only_its_shards_move(shards: int, operators: int) -> None:
    fleet = Fleet(shards)
    fleet.operators = set(OPERATORS[:operators])
    fleet.settle()
    before, fleet.moves = dict(fleet.holders), 0
    fleet.leave("a")
    fleet.settle()
    assert fleet.moves == 0
    assert all(fleet.holders[shard] == holder for shard, holder in before.items() if holder != "a")


@given(st.integers(1, 16), st.integers(1, 8))
def test_when_an_operator_comes_it_gets_its_share_and_nothing_else_moves(shards: int, operators: int) -> None:
    fleet = Fleet(shards)
    fleet.operators = set(OPERATORS[1:operators])
    fleet.settle()
    before, fleet.moves = dict(fleet.holders), 0
    fleet.operators.add("a")
    fleet.settle()
    moved = [shard for shard, holder in before.items() if fleet.holders[shard] != holder]
    assert {fleet.holders[shard] for shard in moved} <= {"a"}
    assert len(moved) == fleet.moves <= shards // operators


def test_nobody_asks_for_what_it_may_not_take() -> None:
    holders = dict.fromkeys(range(4), "a")
    assert asks_for(holders, "b", {2}) == 2
    assert asks_for(holders, "b", set()) is None
    assert asks_for(holders, "a", range(4)) is None


def test_nobody_gives_up_a_shard_to_itself_or_to_one_that_has_as_many() -> None:
    assert not gives_up({0: "a", 1: "a"}, "a", "a")
    assert not gives_up({0: "a", 1: "a", 2: "b"}, "a", "b")
    assert gives_up({0: "a", 1: "a", 2: "a", 3: "b"}, "a", "b")
