"""The ramdisk is for machines that we are booting, and for the introduction of those that nobody knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.agent.world import MAC, OTHER_MAC, DeclaredBoots, boot

from rackwright.agent.sessions import Boot
from rackwright.agent.strangers import Introduction, Nobody, NotYet, Welcome
from rackwright.netboot.decision import ASKS, AskAgain, Decision, Introduce, LocalDisk, Ramdisk, Why
from rackwright.netboot.decision import decide as decide_for

MACS = st.binary(min_size=6, max_size=6).map(lambda address: address.hex(":"))
BOOTS = st.builds(
    DeclaredBoots,
    st.lists(st.builds(lambda macs: boot(macs=tuple(macs)), st.lists(MACS, max_size=3)), max_size=3),
    st.sets(MACS, max_size=3),
)


@dataclass
class Offer:
    """Offers the same to everybody."""

    offered: Welcome

    def welcome(self, mac: str) -> Welcome:
        del mac
        return self.offered

    def invited(self, mac: str) -> None:
        raise AssertionError(f"deciding changes nothing, but {mac} was invited")

    def turned_away(self) -> None:
        raise AssertionError("deciding changes nothing, but somebody was turned away")

    async def introduce(self, report: Mapping[str, Any]) -> Introduction:
        del report
        return NotYet("")


def decide(mac: str, boots: DeclaredBoots, *, ready: bool, asked: int = 0, offered: Welcome | None = None) -> Decision:
    return decide_for(mac, boots, Nobody() if offered is None else Offer(offered), ready=ready, asked=asked)


def test_a_machine_that_we_boot_gets_the_ramdisk() -> None:
    assert decide(MAC, DeclaredBoots([boot()]), ready=True) == Ramdisk(boot(), MAC)


def test_a_machine_of_ours_that_we_do_not_boot_goes_to_its_disk() -> None:
    assert decide(MAC, DeclaredBoots(declared={MAC}), ready=True) == LocalDisk(Why.NOT_BEING_BOOTED)


def test_a_stranger_goes_to_its_disk() -> None:
    assert decide(OTHER_MAC, DeclaredBoots([boot()]), ready=True) == LocalDisk(Why.UNKNOWN_MACHINE)


def test_a_stranger_introduces_itself_where_that_is_wanted() -> None:
    assert decide(OTHER_MAC, DeclaredBoots([boot()]), ready=True, offered=Welcome.OPEN) == Introduce(OTHER_MAC)


@pytest.mark.parametrize(
    ("offered", "reason"),
    [
        (Welcome.OFF, Why.UNKNOWN_MACHINE),
        (Welcome.FULL, Why.ENLISTMENT_FULL),
        (Welcome.SEEN, Why.ALREADY_INSPECTED),
    ],
)
def test_a_stranger_who_is_offered_nothing_goes_to_its_disk(offered: Welcome, reason: Why) -> None:
    assert decide(OTHER_MAC, DeclaredBoots(), ready=True, offered=offered) == LocalDisk(reason)


def test_a_card_of_a_known_machine_never_introduces_itself() -> None:
    assert decide(OTHER_MAC, DeclaredBoots(declared={OTHER_MAC}), ready=True, offered=Welcome.OPEN) == LocalDisk(
        Why.NOT_BEING_BOOTED
    )


def test_nobody_is_a_stranger_to_an_operator_that_knows_nobody_yet() -> None:
    assert isinstance(decide(MAC, DeclaredBoots(), ready=False, offered=Welcome.OPEN), AskAgain)


def test_while_the_operator_starts_a_machine_asks_again_but_not_for_ever() -> None:
    asked, answers = 0, 0
    while isinstance(decision := decide(MAC, DeclaredBoots(), ready=False, asked=asked), AskAgain):
        asked = decision.asked
        answers += 1
    assert decision == LocalDisk(Why.OPERATOR_NOT_READY)
    assert answers == ASKS


@given(st.data(), BOOTS, st.booleans(), st.integers(min_value=0, max_value=9999), st.sampled_from(Welcome))
def test_no_machine_gets_the_ramdisk_but_by_a_boot_that_names_its_card(
    data: st.DataObject, boots: DeclaredBoots, ready: bool, asked: int, offered: Welcome
) -> None:
    named = [mac for each in boots.boots for mac in each.macs]
    mac = data.draw(st.one_of(MACS, st.sampled_from(named)) if named else MACS)
    decision = decide(mac, boots, ready=ready, asked=asked, offered=offered)
    assert isinstance(decision, Ramdisk) == (ready and mac in named)
    if isinstance(decision, Ramdisk):
        assert mac in decision.boot.macs


class Careless(DeclaredBoots):
    """Answers with a boot whoever asks."""

    def by_mac(self, macs: Collection[str]) -> Boot | None:
        del macs
        return self.boots[0]


@given(MACS.filter(lambda mac: mac != MAC))
def test_not_even_a_careless_cache_boots_a_stranger(mac: str) -> None:
    assert isinstance(decide(mac, Careless([boot()]), ready=True), LocalDisk)
