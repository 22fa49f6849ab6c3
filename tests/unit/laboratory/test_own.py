"""A laboratory that several sessions of the tests know by one name."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests import laboratories
from tests.laboratories import own


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laboratories, "CACHE", tmp_path / "caches")
    monkeypatch.delenv("RACKWRIGHT_KEEP_RACK", raising=False)


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """What is there of the laboratory: the session before was killed in it."""
    folder = tmp_path / "lab"
    folder.mkdir()
    return folder


def test_what_a_killed_session_left_is_gone_at_first_and_what_this_one_makes_afterwards(left: Path) -> None:
    with own("lab", lambda _: left.rmdir()) as name:
        assert name == "lab"
        assert not left.exists()
        left.mkdir()
    assert not left.exists()


def test_what_a_test_that_fails_made_goes_too(left: Path) -> None:
    laboratory = own("lab", lambda _: left.rmdir())
    laboratory.__enter__()
    left.mkdir()
    assert not laboratory.__exit__(RuntimeError, RuntimeError("it failed"), None)
    assert not left.exists()


def test_it_stays_for_who_wants_to_look_at_it(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKWRIGHT_KEEP_RACK", "1")
    with own("lab", lambda _: left.rmdir()):
        left.mkdir()
    assert left.exists()


def test_a_second_session_waits_until_the_first_has_removed_all() -> None:
    happened: list[str] = []

    def second() -> None:
        with own("lab", lambda _: happened.append("removed")):
            happened.append("second")

    with own("lab", lambda _: happened.append("removed")):
        other = threading.Thread(target=second)
        other.start()
        other.join(0.1)
        with own("other", lambda _: happened.append("other removed")):
            happened.append("first")
    other.join(10)
    assert happened == ["removed", "other removed", "first", "other removed", "removed", "removed", "second", "removed"]
