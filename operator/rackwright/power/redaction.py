"""Keeping a BMC account out of every text: BMCs repeat what they were sent, and libraries log what they hear."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from urllib.parse import quote

from rackwright.power.port import Credentials

HIDDEN = "***"


class Redaction:
    """Knows the forms in which one account's password, or its session's token, may turn up in a text."""

    def __init__(self, credentials: Credentials | None, token: Callable[[], str | None] = lambda: None) -> None:
        self._token = token
        """Asked each time: a session may have been renewed meanwhile."""
        self._password_forms: tuple[str, ...] = ()
        if credentials is not None and credentials.password:
            password = credentials.password
            pair = f"{credentials.username}:{password}".encode()
            forms = {
                base64.b64encode(pair).decode(),  # as basic authentication sends it
                password,
                repr(password)[1:-1],
                json.dumps(password)[1:-1],
                quote(password, safe=""),
                password.encode().decode("latin-1"),  # as a header of an answer is read
            }
            self._password_forms = tuple(sorted(forms, key=len, reverse=True))

    def hide(self, text: str) -> str:
        """The text with stars for what is secret in it."""
        for form in self._forms():
            text = text.replace(form, HIDDEN)
        return text

    def shown_by(self, error: BaseException) -> bool:
        """Would logging this error with its causes and traceback show a secret?"""
        text = "".join(traceback.format_exception(error))
        return any(form in text for form in self._forms())

    def _forms(self) -> tuple[str, ...]:
        token = self._token()
        return (*self._password_forms, token) if token else self._password_forms


SPOKEN: ContextVar[Redaction | None] = ContextVar("SPOKEN", default=None)
"""What must not be shown while the current thread speaks to a BMC."""


class Relay(logging.Handler):
    """Passes a library's records on at DEBUG, redacted: what went wrong reaches people as a `PowerError`, once.

    Records from outside an exchange are dropped, because it isn't known what they must not show.
    """

    def __init__(self, onto: logging.Logger) -> None:
        super().__init__()
        self._onto = onto

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record's text on our logger."""
        redaction = SPOKEN.get()
        if redaction is not None and self._onto.isEnabledFor(logging.DEBUG):
            self._onto.debug("%s: %s", record.name, redaction.hide(record.getMessage()))


def relay(library: str, onto: logging.Logger) -> None:
    """From now on, what `library` logs goes through a `Relay` and nowhere else. Repeating it changes nothing."""
    source = logging.getLogger(library)
    source.propagate = False
    if not any(isinstance(handler, Relay) for handler in source.handlers):
        source.addHandler(Relay(onto))
