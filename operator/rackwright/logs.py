"""What the operator says of itself: one line for each decision that changed something, for people or for machines.

A line is a sentence and facts by name. As text the facts come first, `machine=NS/NAME step=PowerOff reason=Restarting`,
and grep finds them; as JSON each is a field. A machine at rest has no line.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

CHATTY = ("kopf", "aiohttp", "urllib3", "sushy", "kubernetes")
"""Libraries whose news are ours to tell."""
OWN_FIELDS = ("time", "level", "logger", "message", "error")
"""Of a JSON line, beside its facts."""


class Format(StrEnum):
    """What a line looks like."""

    TEXT = "text"
    JSON = "json"


class Line:
    """A sentence and facts by name, of which those without a value are left out: `_log.info(Line("on", machine=key))`.

    It takes the place of logging's format string, so that every handler has the text and ours has the facts.
    """

    __slots__ = ("_sentence", "facts")

    def __init__(self, sentence: str = "", **facts: object) -> None:
        self._sentence = sentence
        self.facts = {name: value for name, value in facts.items() if value is not None and value != ""}

    @property
    def sentence(self) -> str:
        """Without the facts; on one line, whatever somebody else's words in it hold."""
        return " ".join(self._sentence.split()) if not self._sentence.isprintable() else self._sentence

    def __str__(self) -> str:
        return " ".join([*(f"{name}={value}" for name, value in self.facts.items()), self.sentence]).rstrip()


class JSONLines(logging.Formatter):
    """A JSON object a line, its time in UTC as RFC 3339 has it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line = record.msg if isinstance(record.msg, Line) else None
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **({name: _plain(value) for name, value in line.facts.items()} if line is not None else {}),
            "message": line.sentence if line is not None else record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def _plain(value: object) -> object:
    """Numbers stay numbers, whatever else a fact is becomes its text."""
    return value if isinstance(value, int | float) else str(value)


def configure(level: str, form: Format) -> None:
    """Have everything logged on standard error; what libraries say of themselves only where it is a warning."""
    handler = logging.StreamHandler(sys.stderr)
    match form:
        case Format.JSON:
            handler.setFormatter(JSONLines())
        case Format.TEXT:
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    if level != "debug":
        handler.addFilter(_in_a_sentence)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _in_a_sentence(record: logging.LogRecord) -> bool:
    """Log it, but leave kopf's traceback out: it shows kopf's code, and the sentence says that a watch has ended."""
    if record.name.startswith("kopf"):
        record.exc_info = record.exc_text = None
    return True
