"""The pages on phases: one for each, which lead to one another, and whose commands the API server would take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import rackwright
from rackwright.api.crd import KINDS, schema
from rackwright.api.machine import BareMetalMachineSpec, Phase
from rackwright.lifecycle import document
from rackwright.lifecycle.steps import Record
from rackwright.lifecycle.table import ANY, LOCKED, TABLE

PAGES = Path(rackwright.__file__).parent / "lifecycle/phases"
FILES = sorted(PAGES.glob("*.md"))
PATCH = re.compile(r"kubectl patch bmm node-01 -n machines --type merge -p '(.*?)'$", re.DOTALL | re.MULTILINE)

every_page = pytest.mark.parametrize("page", FILES, ids=[file.name for file in FILES])


def merged(spec: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON merge patch (RFC 7396) applied."""
    found = dict(spec)
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, Mapping):
            found[name] = merged(found.get(name, {}), value)
        else:
            found[name] = value
    return found


def unknown(value: Any, node: Mapping[str, Any], path: str = "spec") -> Iterator[str]:
    """Fields that the schema hasn't got."""
    if isinstance(value, Mapping):
        known = node.get("properties", {})
        for name, inner in value.items():
            if name not in known:
                yield f"{path}.{name}"
            else:
                yield from unknown(inner, known[name], f"{path}.{name}")


def patches() -> Iterator[tuple[str, str]]:
    """Every patch that a page recommends, with the phase it is for."""
    for file in FILES:
        for match in PATCH.finditer(file.read_text()):
            yield file.stem, match[1]


def test_every_phase_has_a_page_and_nothing_else_has() -> None:
    assert {file.stem for file in FILES} == {*Phase, "README", "TROUBLESHOOTING"}


def test_every_phase_says_what_it_means_what_can_be_done_and_what_can_go_wrong() -> None:
    for phase in Phase:
        text = (PAGES / f"{phase}.md").read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert headings == [phase, "What you can do", "What can go wrong", "What the rows say"]
        assert PATCH.search(text), phase
        assert text.count("kubectl patch bmm") == len(PATCH.findall(text)), phase


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(("phase", "patch"), list(patches()))
def test_a_patch_is_one_that_the_schema_has_and_the_operator_understands(phase: str, patch: str) -> None:
    (machine,) = (kind for kind in KINDS if kind.name == "BareMetalMachine")
    change = json.loads(patch)
    spec: dict[str, Any] = {
        "bootMACAddress": "52:54:00:00:00:07",
        "bmc": {"address": "redfish+https://10.0.0.7/redfish/v1/Systems/1"},
    }
    if phase not in ("New", "Ready"):
        spec["allocation"] = {"owner": "team-search"}
    if phase in ("Deploying", "Deployed", "Rescue", "Failed"):
        spec["deployment"] = {"image": "debian-12"}

    assert set(change) == {"spec"}
    assert list(unknown(change["spec"], schema(machine)["properties"]["spec"])) == []
    BareMetalMachineSpec.model_validate(merged(spec, change["spec"]))


@pytest.mark.parametrize("phase", Phase)
def test_a_page_shows_each_reason_of_its_rows_and_each_way_there(phase: Phase) -> None:
    facts, everywhere = document.facts(phase), document.anywhere()
    for row in (*TABLE, LOCKED):
        if phase in row.at and not isinstance(row.do, Record):
            place = everywhere if tuple(row.at) == ANY else facts
            assert f"| {row.because} |" in place or "see [troubleshooting]" in place, row.because
    ways_in, ways_out, _ = facts.split("\n\n")
    for other in set(Phase) - {phase}:
        there, back = f"[{phase}]({phase}.md)", f"[{other}]({other}.md)"
        assert (back in ways_out) == (there in document.facts(other).split("\n\n")[0])
    assert "(gone)" in ways_out
    assert ways_in.count("\n") >= 2, "no way leads there"
