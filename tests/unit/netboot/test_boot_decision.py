"""The ramdisk is for machines that we are booting, and for nobody else."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.agent.world import MAC, OTHER_MAC, DeclaredBoots, boot

from rackwright.agent.sessions import Boot
from rackwright.netboot.decision import ASKS, AskAgain, LocalDisk, Ramdisk, Why, decide

MACS = st.binary(min_size=6, max_size=6).map(lambda address: address.hex(":"))
BOOTS = st.builds(
    DeclaredBoots,
    st.lists(st.builds(lambda macs: boot(macs=tuple(macs)), st.lists(MACS, max_size=3)), max_size=3),
    st.sets(MACS, max_size=3),
)


def test_a_machine_that_we_boot_gets_the_ramdisk() -> None:
    assert decide(MAC, DeclaredBoots([boot()]), ready=True) == Ramdisk(boot(), MAC)


def test_a_machine_of_ours_that_we_do_not_boot_goes_to_its_disk() -> None:
    assert decide(MAC, DeclaredBoots(declared={MAC}), ready=True) == LocalDisk(Why.NOT_BEING_BOOTED)


def test_a_stranger_goes_to_its_disk() -> None:
    assert decide(OTHER_MAC, DeclaredBoots([boot()]), ready=True) == LocalDisk(Why.UNKNOWN_MACHINE)


def test_while_the_operator_starts_a_machine_asks_again_but_not_for_ever() -> None:
    asked, answers = 0, 0
    while isinstance(decision := decide(MAC, DeclaredBoots(), ready=False, asked=asked), AskAgain):
        asked = decision.asked
        answers += 1
    assert decision == LocalDisk(Why.OPERATOR_NOT_READY)
    assert answers == ASKS


@given(st.data(), BOOTS, st.booleans(), st.integers(min_value=0, max_value=9999))
def test_no_machine_gets_the_ramdisk_but_by_a_boot_that_names_its_card(
    data: st.DataObject, boots: DeclaredBoots, ready: bool, asked: int
) -> None:
    named = [mac for each in boots.boots for mac in each.macs]
    mac = data.draw(st.one_of(MACS, st.sampled_from(named)) if named else MACS)
    decision = decide(mac, boots, ready=ready, asked=asked)
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
