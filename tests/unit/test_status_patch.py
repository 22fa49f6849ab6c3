"""What a write of status sends."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.simulated.rack import merged

from rackwright.api.conditions import Condition
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


OTHERS: list[dict[str, Any]] = [
    {"lastTransitionTime": "2026-01-01T02:00:00.123456+02:00"},
    {"lastTransitionTime": "0001-01-01T00:00:00+14:00", "message": ""},
    {"lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 3, "newer": {"a": 1}},
]


@pytest.mark.parametrize("other", OTHERS)
def test_other_writers_conditions_are_sent_as_they_were_read(other: dict[str, Any]) -> None:
    burnt_in = {"type": "example.org/BurnIn", "status": "True", "reason": "Passed", **other}
    available = {"type": "Ready", "status": "True", "reason": "Available", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    read = BareMetalMachineStatus.model_validate({"phase": "Ready", "conditions": [available, burnt_in]})
    ready, kept = read.conditions
    assert isinstance(ready, Condition)
    assert (kept.type, kept.status) == ("example.org/BurnIn", "True")

    moved = read.model_copy(update={"conditions": [replace(ready, status="False"), kept]})
    assert status_patch(read, moved)["conditions"] == [{**available, "status": "False", "message": ""}, burnt_in]
    assert BareMetalMachineStatus.model_validate(moved.model_dump(by_alias=True, exclude_none=True)) == moved
    differently = {**burnt_in, "lastTransitionTime": "2026-01-01T00:00:00.0Z"}
    assert read != BareMetalMachineStatus.model_validate({"phase": "Ready", "conditions": [available, differently]})


def test_a_year_has_four_digits() -> None:
    at = "0001-01-01T00:00:00Z"
    read = BareMetalMachineStatus.model_validate({"poweredAt": at})
    assert read.model_dump(by_alias=True, exclude_unset=True) == {"poweredAt": at}
