"""What a line of the log looks like, for grep and for whatever reads JSON."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from rackwright.logs import JSONLines, Line
from rackwright.record import Key

KEY = Key("rack-a", "node-07")
STEP = Line("so it goes", machine=KEY, step="PowerOff", reason="Restarting", was=None)


def record(message: object, *arguments: object, level: int = logging.INFO, trouble: Any = None) -> logging.LogRecord:
    return logging.LogRecord("rackwright.reconcile", level, __file__, 1, message, arguments, trouble)


def fields(message: object, *arguments: object, **more: Any) -> dict[str, Any]:
    """What is read of it."""
    line = JSONLines().format(record(message, *arguments, **more))
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_as_text_the_facts_come_first_and_grep_finds_them() -> None:
    assert record(STEP).getMessage() == "machine=rack-a/node-07 step=PowerOff reason=Restarting so it goes"
    assert str(Line(machine=KEY, step="PowerOff")) == "machine=rack-a/node-07 step=PowerOff"


def test_as_json_each_fact_is_a_field() -> None:
    found = fields(STEP)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", found.pop("time"))
    assert found == {
        "level": "info",
        "logger": "rackwright.reconcile",
        "machine": "rack-a/node-07",
        "step": "PowerOff",
        "reason": "Restarting",
        "message": "so it goes",
    }


def test_a_number_stays_one() -> None:
    assert fields(Line(attempt=2))["attempt"] == 2


def test_other_peoples_lines_are_json_too() -> None:
    assert fields("%s of %d", "one", 7)["message"] == "one of 7"


def test_what_somebody_else_wrote_begins_no_line_of_its_own() -> None:
    forged = Line("13\n2026-01-01 INFO all is well", machine=KEY)
    assert "\n" not in str(forged)
    assert "\n" not in fields(forged)["message"]


def test_a_traceback_is_within_its_line() -> None:
    with pytest.raises(ValueError, match="nonsense") as caught:
        int("nonsense")
    assert "in test_a_traceback" in fields("oh", trouble=(caught.type, caught.value, caught.tb))["error"]


SCRIPT = """
import logging
from rackwright import logs
logs.configure({level!r}, logs.Format({form!r}))
log = logging.getLogger("rackwright.reconcile")
log.info(logs.Line("so it goes", machine="a/b"))
log.debug("closely")
logging.getLogger("kopf.clients").info("chat")
try:
    raise ValueError
except ValueError:
    logging.getLogger("kopf.clients").warning("a watch has ended", exc_info=True)
"""


def said(**how: str) -> list[str]:
    """The lines of a process whose log is set up like this."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(**how)],
        env={"PYTHONPATH": "operator"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not done.stdout
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("level", "expected"), [("info", ["so it goes", "a watch has ended"]), ("warning", ["a watch has ended"])]
)
def test_one_line_each_at_the_level_that_was_asked_for(level: str, expected: list[str]) -> None:
    lines: list[Mapping[str, Any]] = [json.loads(line) for line in said(level=level, form="json")]
    assert [line["message"] for line in lines] == expected
    assert not [line for line in lines if "error" in line]
    assert [
        " ".join(line.split()[3:]).removeprefix("machine=a/b ") for line in said(level=level, form="text")
    ] == expected


def test_debugging_shows_what_else_there_is() -> None:
    text = "\n".join(said(level="debug", form="text"))
    assert "closely" in text
    assert "Traceback" in text
    assert "chat" not in text
