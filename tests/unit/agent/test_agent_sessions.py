"""Sessions belong to one operation, and MAC addresses have one spelling."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.agent.world import UID, boot

from rackwright.agent.sessions import Session, Sessions, canonical_mac

PEER = ip_address("10.0.0.7")
SESSION = Session("op-1", "https://10.0.0.7:9999", "PEM", 0.0, "13.0.0")


def test_an_agent_that_was_heard_is_current_for_its_operation_only() -> None:
    sessions = Sessions()
    sessions.heard(boot(), SESSION, PEER)
    assert sessions.current(UID, "op-1") == SESSION
    assert sessions.current(UID, "op-2") is None
    assert sessions.address(UID, "op-2") is None


def test_a_report_is_known_before_the_first_heartbeat_and_after_it() -> None:
    sessions = Sessions()
    sessions.reported(boot(), {"inventory": {}})
    assert sessions.current(UID, "op-1") is None
    assert sessions.inspection(UID, "op-1") == {"inventory": {}}
    sessions.heard(boot(), SESSION, PEER)
    assert sessions.inspection(UID, "op-1") == {"inventory": {}}


def test_of_a_report_that_is_kept_elsewhere_only_is_known_that_it_came() -> None:
    sessions = Sessions()
    assert not sessions.inspected(UID, "op-1")
    sessions.reported(boot(), {"inventory": {}})
    sessions.heard(boot(), SESSION, PEER)
    sessions.inspection_kept(UID, "an earlier one")
    assert sessions.inspection(UID, "op-1") == {"inventory": {}}
    sessions.inspection_kept(UID, "op-1")
    assert sessions.inspected(UID, "op-1")
    assert sessions.inspection(UID, "op-1") is None
    assert sessions.current(UID, "op-1") == SESSION
    assert not sessions.inspected(UID, "op-2")
    sessions.inspection_kept("somebody else", "op-1")


def test_a_new_operation_starts_from_nothing() -> None:
    sessions = Sessions()
    sessions.reported(boot(), {"inventory": {}})
    sessions.heard(boot(), SESSION, PEER)
    sessions.bind(boot(operation_id="op-2"), PEER)
    assert sessions.current(UID, "op-1") is None
    assert sessions.current(UID, "op-2") is None
    assert sessions.inspection(UID, "op-2") is None


def test_a_forgotten_machine_is_gone_and_may_be_forgotten_twice() -> None:
    sessions = Sessions()
    sessions.heard(boot(), SESSION, PEER)
    sessions.forget(UID)
    sessions.forget(UID)
    assert sessions.current(UID, "op-1") is None


@given(st.binary(min_size=6, max_size=6), st.sampled_from(":-"), st.booleans())
def test_every_spelling_of_a_mac_address_becomes_one(address: bytes, separator: str, upper: bool) -> None:
    text = address.hex(separator)
    assert canonical_mac(text.upper() if upper else text) == address.hex(":")


@given(st.text(alphabet="0123456789abcdefABCDEF:-\n ", max_size=20))
def test_what_is_no_mac_address_has_no_spelling(text: str) -> None:
    canonical = canonical_mac(text)
    assert canonical is None or canonical == text.lower().replace("-", ":")
    assert canonical is None or len(text) == 17


def test_what_an_agent_sent_before_its_power_was_cut_is_not_taken_for_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions, now = Sessions(), [1000.0]
    monkeypatch.setattr("rackwright.agent.sessions.time.monotonic", lambda: now[0])
    sessions.heard(boot(), SESSION, PEER)
    assert not sessions.is_late(UID, SESSION)

    sessions.cut_off(UID)
    sessions.cut_off(UID)  # again, when it is started from its disk
    assert sessions.current(UID, "op-1") is None
    assert sessions.is_late(UID, SESSION)
    assert not sessions.is_late(UID, replace(SESSION, certificate="another boot's"))

    now[0] += 31
    assert not sessions.is_late(UID, SESSION), "its BMC has lied: the agent lives"

    sessions.heard(boot(), SESSION, PEER)
    sessions.cut_off(UID)
    sessions.bind(boot(operation_id="op-2"), PEER)
    assert not sessions.is_late(UID, SESSION), "another boot has asked who it is"
