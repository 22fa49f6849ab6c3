"""The operator as a process: what it asks of the system, and how it begins."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from rackwright import app


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """As most systems give a process; the number that it may raise that to."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1]), before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_operator_may_open_as_many_files_as_the_system_allows(few_descriptors: int) -> None:
    app.have_all_descriptors()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few_descriptors, few_descriptors)


@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize("error", [ValueError("not allowed to raise maximum limit"), PermissionError()])
def test_where_it_may_not_it_goes_on(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    app.have_all_descriptors()
    assert not caplog.records
    monkeypatch.undo()
