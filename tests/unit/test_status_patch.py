"""What a write of status sends."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.simulated.rack import merged

from rackwright.api.machine import BareMetalMachineStatus, Power
from rackwright.status_patch import merge_patch, status_patch

VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)
"""JSON objects without null, as status is stored."""


@given(OBJECTS, OBJECTS)
def test_the_patch_turns_what_was_into_what_is(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merged(before, merge_patch(before, after)) == after


@given(OBJECTS)
def test_what_stayed_the_same_is_no_patch(value: dict[str, Any]) -> None:
    assert merge_patch(value, copy.deepcopy(value)) == {}


@given(OBJECTS, OBJECTS)
def test_the_patch_names_nothing_that_stayed_the_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed = merge_patch(before, after)
    assert not [name for name in changed if name in before and before.get(name) == after.get(name)]


def test_a_default_is_written_that_the_record_does_not_say() -> None:
    read = BareMetalMachineStatus.model_validate({"observedGeneration": 3})
    on = read.model_copy(update={"power": Power.ON})

    patch = status_patch(read, on)
    assert patch["power"] == "On"
    assert "observedGeneration" not in patch
    assert "history" in status_patch(read, read), "a record that lacks its list is written with it"


def test_what_is_withdrawn_is_taken_out() -> None:
    read = BareMetalMachineStatus.model_validate({"owner": "team-search"})
    assert status_patch(read, read.model_copy(update={"owner": None}))["owner"] is None
