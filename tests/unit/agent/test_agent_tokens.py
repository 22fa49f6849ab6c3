"""Tokens: derived, separate by purpose, machine and operation, and checked in constant time."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright.agent.tokens import Tokens, matches

KEY = bytes(range(32))
TEXT = st.text(max_size=40)
OWNERS = st.tuples(st.sampled_from(["for_agent", "for_first_boot"]), TEXT, TEXT)


def derive(tokens: Tokens, owner: tuple[str, str, str]) -> str:
    purpose, uid, operation = owner
    return str(getattr(tokens, purpose)(uid, operation))


@given(OWNERS)
def test_a_token_is_the_same_after_a_restart_and_fits_ipa_and_urls(owner: tuple[str, str, str]) -> None:
    token = derive(Tokens(KEY), owner)
    assert token == derive(Tokens(KEY), owner)
    assert len(token) >= 32
    assert set(token) <= set(string.ascii_letters + string.digits + "-_")


@given(OWNERS, OWNERS)
def test_tokens_differ_wherever_purpose_machine_or_operation_do(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    tokens = Tokens(KEY)
    assert (derive(tokens, one) == derive(tokens, other)) == (one == other)


@given(OWNERS, st.binary(min_size=32, max_size=64).filter(lambda key: key.rstrip(b"\0") != KEY))
def test_another_key_makes_other_tokens(owner: tuple[str, str, str], key: bytes) -> None:
    assert derive(Tokens(key), owner) != derive(Tokens(KEY), owner)


@given(st.one_of(st.none(), st.integers(), st.lists(TEXT), TEXT, st.just(json.loads('"\\ud800"'))))
def test_nothing_else_matches_whatever_a_stranger_sends(candidate: object) -> None:
    token = Tokens(KEY).for_agent("uid", "operation")
    assert matches(token, token)
    assert matches(token, candidate) == (candidate == token)


def test_a_short_key_is_refused_and_no_repr_shows_the_key() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        Tokens(KEY[:31])
    assert str(KEY) not in repr(Tokens(KEY))


def test_a_fingerprint_tells_other_content_and_other_keys_apart_and_holds_nothing_of_either() -> None:
    one, other = Tokens(b"a" * 32), Tokens(b"b" * 32)
    assert one.fingerprint("uid", b"hunter2") == Tokens(b"a" * 32).fingerprint("uid", b"hunter2")
    assert one.fingerprint("uid", b"hunter2") != one.fingerprint("uid", b"hunter3")
    assert one.fingerprint("uid", b"hunter2") != one.fingerprint("other", b"hunter2"), "no table of guesses fits all"
    assert one.fingerprint("uid", b"").partition(":")[0] != other.fingerprint("uid", b"").partition(":")[0]
