"""The golden timelines: every story in timelines/, told again by the real table, conditions and Events."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.lifecycle.scenario import FOLDER, HAPPENINGS, Scenario, Unreadable, difference, golden

from rackwright.api.machine import Phase
from rackwright.lifecycle import reasons, table

FILES = sorted(FOLDER.glob("*.yaml"))
SHORT = """\
story: A machine is declared.
timeline:
- apply: {}
"""


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_story_goes_as_its_timeline_says(file: Path) -> None:
    if changed := difference(file.read_text(), golden(file), str(file.relative_to(FOLDER.parents[3]))):
        pytest.fail(f"{changed}\n\nIf that is meant: hack/generate, and have the diff reviewed.", pytrace=False)


def test_a_reason_that_reads_differently_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    before = str(Scenario.read(SHORT).told())
    monkeypatch.setitem(reasons.SENTENCES, "Declared", "Declared by somebody.")

    changed = difference(before, str(Scenario.read(before).told()), "short.yaml").splitlines()

    declared = "             Event Normal Declared  Commissioning: Declared by somebody"
    assert [line.removesuffix(" who is trusted.") for line in changed if line.startswith(("-  ", "+  "))] == [
        f"-{declared}",
        f"+{declared}.",
    ]


def test_a_row_that_is_missing_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    file = FOLDER / "plug-pulled-while-writing.yaml"
    rows = [row for row in table.TABLE if row.because != "LeavingRamdisk"]
    monkeypatch.setattr("rackwright.lifecycle.decide.TABLE", tuple(rows))

    changed = difference(file.read_text(), golden(file), file.name)

    assert "-    0:01:00  Deploying / BootDisk / LeavingRamdisk" in changed


def test_a_story_that_is_told_twice_is_the_same_story() -> None:
    once = str(Scenario.read(SHORT).told())

    assert str(Scenario.read(once).told()) == once
    assert "Ready / Available  Ready=True" in once


def test_the_stories_know_every_phase_and_everything_that_can_happen() -> None:
    scenarios = [Scenario.read(file.read_text()) for file in FILES]
    happened = {step.what for scenario in scenarios for step in scenario.timeline if step.word == "happens"}
    told = " ".join(step.then for scenario in scenarios for step in scenario.timeline)

    assert happened == set(HAPPENINGS)
    assert [phase for phase in Phase if f"  {phase} / " not in told] == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("story: One.\n", "a scenario has story, timeline"),
        ("story: One.\ntimeline: [{happens: the sky falls}]\n", "nobody knows how this happens: 'the sky falls'"),
        ("story: One.\ntimeline: [{apply: {}, wait: 1h}]\n", "a step has one of"),
        ("story: One.\ntimeline: [{apply: {}, unless: it rains}]\n", "a step has one of"),
        ("story: One.\n# Two.\ntimeline: []\n", "say it in about"),
    ],
)
def test_what_is_no_story_is_refused_with_a_sentence(text: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        Scenario.read(text)


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ("[{apply: {deployment: {image: debian-12}}}]", "spec.deployment needs"),
        ("[{apply: {}, until: Running}]", "it settles, and nothing said 'Running'"),
    ],
)
def test_a_story_that_can_not_be_told_names_its_file(tmp_path: Path, steps: str, why: str) -> None:
    file = tmp_path / "short.yaml"
    file.write_text(f"story: One.\ntimeline: {steps}\n")

    with pytest.raises(Unreadable, match=f"short.yaml: {why}"):
        golden(file)
