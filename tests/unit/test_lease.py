"""Leadership by a Lease: one holds it, a silent holder loses it, and nobody acts who can't be sure to hold it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from rackwright.kube import Conflict, Gone, Unavailable
from rackwright.lease import Leadership, Sighting, Terms

SHORT = Terms(duration=1.0, deadline=0.5, period=0.05)


class Leases:
    """The API server's one Lease, which may fall silent or be overtaken by another writer."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.silent = False
        self.writes = 0

    async def lease(self, namespace: str, name: str, *, seconds: float) -> dict[str, Any] | None:
        assert (namespace, name) == ("rackwright-system", "rackwright")
        assert seconds <= SHORT.deadline, "an answer that comes later is worthless"
        self._answer()
        return copy.deepcopy(self.stored)

    async def put_lease(
        self, _namespace: str, _name: str, body: Mapping[str, Any], *, seconds: float
    ) -> dict[str, Any]:
        assert seconds <= SHORT.deadline
        self._answer()
        if self.stored is None and "resourceVersion" in body["metadata"]:
            raise Gone("it isn't there")
        version = (self.stored or {"metadata": {}})["metadata"].get("resourceVersion")
        if body["metadata"].get("resourceVersion") != version:
            raise Conflict("somebody else wrote first")
        self.writes += 1
        self.stored = copy.deepcopy(dict(body))
        self.stored["metadata"] = {**body["metadata"], "resourceVersion": str(self.writes)}
        return self.stored

    def _answer(self) -> None:
        if self.silent:
            raise Unavailable("no answer")

    @property
    def spec(self) -> dict[str, Any]:
        assert self.stored is not None
        spec: dict[str, Any] = self.stored["spec"]
        return spec


def candidate(leases: Leases, identity: str, terms: Terms = SHORT) -> Leadership:
    return Leadership(leases, "rackwright-system", "rackwright", identity, terms)  # type: ignore[arg-type]


@asynccontextmanager
async def kept(leadership: Leadership) -> AsyncIterator[asyncio.Task[None]]:
    """A leader that renews."""
    keeping = asyncio.create_task(leadership.keep())
    yield keeping
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def within(seconds: float, leadership: Leadership) -> None:
    async with asyncio.timeout(seconds):
        await leadership.acquire()


async def test_the_first_takes_the_lease_and_says_for_how_long() -> None:
    leases = Leases()
    first = candidate(leases, "first")
    assert not first.holds()
    await within(5, first)
    assert first.holds()
    assert leases.spec["holderIdentity"] == "first"
    assert leases.spec["leaseDurationSeconds"] == 1
    assert leases.spec["leaseTransitions"] == 1


async def test_a_standby_waits_as_long_as_the_holder_renews() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await within(5, first)
    async with kept(first) as keeping:
        with pytest.raises(TimeoutError):
            await within(2 * SHORT.duration, second)
        assert first.holds()
        assert not second.holds()
        assert not keeping.done()


async def test_a_lease_is_said_to_be_anothers_when_it_is_and_not_when_nobody_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    leases.silent = True
    with pytest.raises(TimeoutError):
        await within(2 * SHORT.period, first)
    assert "standing by" not in caplog.text
    leases.silent = False
    await within(5, first)
    with pytest.raises(TimeoutError):
        await within(2 * SHORT.period, second)
    assert caplog.text.count("standing by: another operator holds the Lease rackwright-system/rackwright") == 1


async def test_a_standby_takes_over_at_once_when_the_lease_is_given_up() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await within(5, first)
    await first.release()
    assert not first.holds()
    assert leases.spec["holderIdentity"] == ""
    await within(SHORT.duration / 2, second)
    assert leases.spec["leaseTransitions"] == 2


async def test_a_silent_holder_has_stopped_before_another_starts() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await within(5, first)
    acquiring = asyncio.create_task(second.acquire())
    while not acquiring.done():
        assert not (first.holds() and second.holds())
        await asyncio.sleep(0.01)
    assert second.holds()
    assert not first.holds()


async def test_the_deadline_leaves_a_margin_before_the_lease_runs_out() -> None:
    terms = Terms()
    assert terms.deadline + 2 * terms.period < terms.duration


async def test_a_leader_that_is_not_heard_stops_by_itself() -> None:
    leases = Leases()
    leader = candidate(leases, "first")
    await within(5, leader)
    async with kept(leader) as keeping:
        leases.silent = True
        async with asyncio.timeout(5):
            await keeping
        assert not leader.holds()


async def test_a_leader_rides_out_a_moment_of_silence() -> None:
    leases = Leases()
    leader = candidate(leases, "first")
    await within(5, leader)
    async with kept(leader) as keeping:
        leases.silent = True
        await asyncio.sleep(SHORT.deadline / 2)
        leases.silent = False
        await asyncio.sleep(2 * SHORT.period)
        assert leader.holds()
        assert not keeping.done()


async def test_leadership_counts_from_when_renewal_was_asked_for_not_from_its_answer() -> None:
    leases = Leases()
    leader = candidate(leases, "first")
    slow = leases.put_lease

    async def after_a_while(*arguments: Any, **keywords: Any) -> dict[str, Any]:
        await asyncio.sleep(SHORT.deadline + 0.1)
        return await slow(*arguments, **keywords)

    leases.put_lease = after_a_while  # type: ignore[method-assign]
    assert await leader._renew()
    assert not leader.holds()


async def test_clocks_that_differ_do_not_matter() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await within(5, first)
    assert leases.stored is not None
    leases.stored["spec"]["renewTime"] = "1999-01-01T00:00:00.000000Z"
    async with kept(first):
        with pytest.raises(TimeoutError):
            await within(SHORT.duration / 2, second)


async def test_of_two_that_write_at_once_one_becomes_leader() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    assert sorted(await asyncio.gather(first._renew(), second._renew())) in ([False, True], [True, True])
    assert [first.holds(), second.holds()].count(True) == 1


async def test_who_does_not_lead_gives_nothing_up() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await within(5, first)
    await second.release()
    assert leases.spec["holderIdentity"] == "first"


async def test_giving_up_what_another_took_meanwhile_changes_nothing() -> None:
    leases = Leases()
    first = candidate(leases, "first")
    await within(5, first)
    leases.spec["holderIdentity"] = "second"
    await first.release()
    assert leases.spec["holderIdentity"] == "second"


async def test_a_lease_that_can_not_be_given_up_runs_out() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await within(5, first)
    leases.silent = True
    await first.release()
    leases.silent = False
    await within(5, second)


async def test_whoever_takes_a_lease_is_told_which_bmcs_had_not_answered_when_it_was_given_up() -> None:
    leases = Leases()
    first, second, third = (candidate(leases, name) for name in ("first", "second", "third"))
    await within(5, first)
    assert first.unfinished == frozenset()
    await first.release({"10.0.0.8:443", "10.0.0.7:443"})
    await within(5, second)
    assert second.unfinished == {"10.0.0.7:443", "10.0.0.8:443"}
    assert leases.stored is not None
    assert "annotations" not in leases.stored["metadata"], "the next one is told by its holder"
    await second.release()
    await within(5, third)
    assert third.unfinished == frozenset()


async def test_whoever_does_not_hear_that_it_took_a_lease_knows_what_it_was_told() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await within(5, first)
    await first.release({"10.0.0.7:443"})
    put = leases.put_lease

    async def lost(*arguments: Any, **keywords: Any) -> dict[str, Any]:
        await put(*arguments, **keywords)
        raise Unavailable("no answer")

    leases.put_lease = lost  # type: ignore[method-assign]
    assert not await second._renew()
    leases.put_lease = put  # type: ignore[method-assign]
    await within(5, second)
    assert second.unfinished == {"10.0.0.7:443"}


def sighted(before: Sighting | None = None, *, annotations: Mapping[str, str] | None = None, **spec: Any) -> Sighting:
    held = {"holderIdentity": "first", "renewTime": "2026-01-01T00:00:00.000000Z", "leaseTransitions": 3}
    return Sighting.of({"metadata": {"annotations": annotations}, "spec": {**held, **spec}}, before)


@pytest.mark.parametrize(
    ("change", "lives"),
    [
        ({"annotations": {"metal.rackwright.io/wanted-by": "second"}}, False),
        ({"renewTime": "2026-01-01T00:00:00+00:00"}, False),
        ({"renewTime": "2026-01-01T00:00:02.000000Z"}, True),
        ({"renewTime": "2025-01-01T00:00:00.000000Z"}, True),
        ({"renewTime": "nonsense"}, True),
        ({"holderIdentity": "second"}, True),
        ({"leaseTransitions": 4}, True),
    ],
    ids=str,
)
def test_a_holder_lives_if_it_wrote_something_new_whatever_others_wrote_and_however_it_is_spelt(
    change: dict[str, Any], lives: bool
) -> None:
    before = sighted()
    before.since -= 5
    after = sighted(before, **change)
    assert (after.since > before.since) is lives
    assert (after.left(15.0) > 12.0) is lives


def test_a_lease_that_nobody_holds_is_free_at_once() -> None:
    assert sighted(holderIdentity="").left(15.0) == 0.0


async def test_a_holder_that_is_asked_for_its_lease_keeps_it_and_what_was_asked() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await within(5, first)
    await second.ask_for()
    assert await first._renew()
    assert leases.stored is not None
    assert leases.stored["metadata"]["annotations"] == {"metal.rackwright.io/wanted-by": "second"}
    assert leases.spec["holderIdentity"] == "first"
    await first.release()
    assert "annotations" not in leases.stored["metadata"]


async def test_nobody_asks_for_a_lease_that_is_free() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await second.ask_for()
    await within(5, first)
    await first.release()
    writes = leases.writes
    await second.ask_for()
    assert leases.writes == writes


async def test_a_mandate_that_was_withdrawn_is_over_though_the_lease_is_held() -> None:
    leader = candidate(Leases(), "first")
    await within(5, leader)
    before = leader.mandate()
    leader.withdraw()
    assert leader.holds()
    assert not before()
    assert leader.mandate()()


async def test_a_lease_that_was_deleted_is_its_holders_all_the_same() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await within(5, first)
    assert not await second._renew()
    leases.stored = None
    assert not await second._renew()
    assert await first._renew()
    assert leases.spec["holderIdentity"] == "first"


async def test_a_lease_that_was_deleted_with_its_holder_is_taken_when_it_would_have_run_out() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await within(5, first)
    assert not await second._renew()
    leases.stored = None
    acquiring = asyncio.create_task(second.acquire())
    while not acquiring.done():
        assert not (first.holds() and second.holds())
        await asyncio.sleep(0.01)
    assert second.holds()


# --- a clock that stood still -------------------------------------------------------------------------------------


@pytest.fixture
def paused_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Lease's clock stands still, like that of a virtual machine that is paused; the loop's goes on."""
    monkeypatch.setattr("rackwright.lease.time", SimpleNamespace(monotonic=lambda: 1000.0))


async def paused(leases: Leases) -> Leadership:
    """A leader that goes on after a pause in which another took the Lease, and whose clock hasn't moved."""
    leader = candidate(leases, "first")
    assert await leader._renew()
    assert leases.stored is not None
    leases.stored["spec"] |= {"holderIdentity": "second", "leaseTransitions": 2}
    leases.writes += 1
    leases.stored["metadata"]["resourceVersion"] = str(leases.writes)
    assert leader.holds()
    return leader


@pytest.mark.usefixtures("paused_clock")
async def test_a_leader_that_was_paused_stops_when_it_hears_who_has_the_lease() -> None:
    leases = Leases()
    leader = await paused(leases)
    mandate = leader.mandate()
    assert mandate()
    assert leases.stored is not None
    leader.heard(leases.stored)
    assert not mandate()
    assert not leader.holds()
    writes = leases.writes
    await leader.release()
    assert leases.writes == writes, "it has nothing to give up"


@pytest.mark.usefixtures("paused_clock")
async def test_a_leader_that_was_paused_stops_at_the_first_renewal_that_is_refused() -> None:
    leases = Leases()
    leader = await paused(leases)
    mandate = leader.mandate()
    assert not await leader._renew()
    assert not mandate()
    assert not leader.holds()
    assert leases.spec["holderIdentity"] == "second"


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.usefixtures("paused_clock")
async def test_a_leader_that_was_paused_does_not_lead_on_though_the_other_has_gone_by_then(heard: bool) -> None:
    leases = Leases()
    leader = await paused(leases)
    async with kept(leader) as keeping:
        await asyncio.sleep(0)
        assert leases.stored is not None
        if heard:
            leader.heard(leases.stored)
        leases.spec["holderIdentity"] = ""
        async with asyncio.timeout(5):
            await keeping
    assert not leader.holds()
    assert leases.spec["holderIdentity"] == "", "of what was done meanwhile this process knows too little"


@pytest.mark.usefixtures("paused_clock")
async def test_a_lease_that_somebody_empties_by_hand_is_its_holders_all_the_same() -> None:
    leases = Leases()
    leader = candidate(leases, "first")
    assert await leader._renew()
    leases.spec["holderIdentity"] = ""
    assert leases.stored is not None
    leases.stored["metadata"]["resourceVersion"] = str(leases.writes)
    assert await leader._renew()
    assert leases.spec["holderIdentity"] == "first"


@pytest.mark.usefixtures("paused_clock")
async def test_what_a_watch_tells_late_ends_nothing() -> None:
    leases = Leases()
    former, leader = candidate(leases, "first"), candidate(leases, "second")
    await former._renew()
    late = copy.deepcopy(leases.stored)
    assert late is not None
    await former.release()
    assert await leader._renew()
    mandate = leader.mandate()
    leader.heard(late)
    assert mandate()
    assert await leader._renew()
    assert mandate()


async def test_a_leader_whose_lease_another_asks_for_goes_on() -> None:
    leases = Leases()
    first, second = candidate(leases, "first"), candidate(leases, "second")
    await within(5, first)
    mandate = first.mandate()
    await second.ask_for()
    assert leases.stored is not None
    first.heard(leases.stored)
    assert await first._renew()
    assert mandate()
