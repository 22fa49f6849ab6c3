"""What people who operate it read is so: options with their defaults, reasons, and links that lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from lab import pod
from lab.paths import REPOSITORY
from rackwright import __main__ as command
from rackwright.netboot.decision import Why

PAGES = [REPOSITORY / "README.md", REPOSITORY / "operator/README.md", *sorted(pod.MANIFESTS.glob("*.md"))]
OPERATING = (pod.MANIFESTS / "OPERATING.md").read_text()


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """Of all headings of a page."""
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def options() -> Iterator[tuple[str, str]]:
    """The options that a site may want to change, with what is said to be their default."""
    (section,) = re.findall(r"^## Options that a site.*?^## ", OPERATING, re.MULTILINE | re.DOTALL)
    yield from re.findall(r"^\| `(--[\w-]+)` \| (.*?) \|", section, re.MULTILINE)


def defaults() -> dict[str, Any]:
    """Every option's default, by both commands; what they share has the same."""
    choices = [action.choices for action in command._parser()._actions if isinstance(action.choices, dict)]
    actions = [action for commands in choices for parser in commands.values() for action in parser._actions]
    return {name: action.default for action in actions for name in action.option_strings}


def test_options_have_the_defaults_that_are_said() -> None:
    told = dict(options())
    assert "--grace" in told
    for name, said in told.items():
        default = defaults()[name]
        assert said == (
            "none" if default in (None, []) else f"{default:g} s" if isinstance(default, float) else str(default)
        )


def test_every_reason_for_the_local_disk_is_explained() -> None:
    (section,) = re.findall(r"^\| `local disk.*?\n\n", OPERATING, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(Why)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_of_a_page_lead_somewhere(page: Any) -> None:
    for path, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.read_text()), f"{path}#{anchor}"
