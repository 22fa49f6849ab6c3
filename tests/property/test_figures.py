"""The README's figures that come from tables: how much there is to look through, and how much is promised of it."""

from __future__ import annotations

import re
from collections.abc import Collection

import pytest
from tests.property.alphabet import FAMILIES
from tests.property.manners import MANNERS
from tests.property.mutations import ROWS, SWAPPED, UNGUARDED

from lab.paths import REPOSITORY

README = " ".join((REPOSITORY / "README.md").read_text().split())


@pytest.mark.parametrize(
    ("words", "table"),
    [
        (r"(\d+) of manners\]", MANNERS),
        (r"all that (\d+) families of specs get to", FAMILIES),
        (r"table's rows and the lock, (\d+), none can be taken away", ROWS),
        (r"of the (\d+) guards in the rows", UNGUARDED),
        (r"of the (\d+) pairs of neighbours", SWAPPED),
    ],
)
def test_a_figure_of_the_readme_is_how_many_there_are(words: str, table: Collection[object]) -> None:
    assert [int(figure) for figure in re.findall(words, README)] == [len(table)]
