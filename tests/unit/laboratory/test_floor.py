"""What a machine costs the operator alone: every machine goes all the way, and what is told of it is counted."""

from __future__ import annotations

import json
import re

import pytest

from lab import floor
from lab.bench_options import STAGES
from lab.errors import Unfit

MOST_BYTES = 34 * 1024
"""Of memory a machine: ten thousand are to fit where a thousand did."""


def test_all_machines_go_through_their_lives_in_batches_and_each_stage_has_its_numbers() -> None:
    said: list[str] = []
    found = floor.measure(5, batch=2, say=said.append)
    assert said == ["2/5", "4/5", "5/5"]
    assert tuple(found.stages) == STAGES
    created = found.stages["created"].requests
    assert created["patch hardwareinventories"] == 5
    assert created["patch baremetalmachines"] == 5
    assert found.stages["created"].requests.total() == 5 * 6
    assert found.stages["deployed"].requests["patch baremetalmachines"] == 5
    for name, row in found.rows().items():
        stage = found.stages[name]
        assert stage.passes >= 5
        assert row["passes a machine"] == stage.passes / 5
        assert row["processor milliseconds a machine"] == pytest.approx(1000 * stage.processor / 5)
        assert row["processor milliseconds a machine"] > 0
    assert 0 < found.held.operator_ready < found.held.operator_deployed < MOST_BYTES
    assert found.held.inventory > 0
    assert 1000 < found.held.record_ready < found.held.record_deployed


def test_a_part_of_a_life_has_no_numbers_for_the_rest() -> None:
    found = floor.measure(2, until="created")
    assert list(found.stages) == ["created"]
    assert found.stages["created"].requests.total() == 2 * 6


def test_people_and_programs_are_told_the_same_numbers() -> None:
    found = floor.measure(2)
    text, document = str(found), json.loads(json.dumps(found.described()))
    for name in STAGES:
        milliseconds = document["stages"][name]["processor milliseconds a machine"]
        assert re.search(rf"{name} +{milliseconds:.2f} ms of the processor a machine", text)
    assert f"record {document['bytes a machine']['record_ready']:.0f} bytes Ready" in text


def test_machines_that_get_stuck_are_told_of_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "ADDRESS", "simulated://fast?lost=1")
    with pytest.raises(Unfit, match=r"Of 2 machines 0 became Ready"):
        floor.measure(2)
