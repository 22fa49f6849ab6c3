"""The fence: whoever lost the right to act sends nothing more, wherever in the middle of something it is.

A process may be stopped between any two of its steps, for longer than its Lease lasts, and go on as if nothing had
been; by then another operator acts. So it isn't enough to ask before an action: the fence that stands around a pass is
looked at again at every place where bytes leave for a BMC, an agent or the API server, as late as the library below
lets us, after connecting and shaking hands. It goes along into the threads that BMCs are spoken to from.

What is left is a stop of the process between looking and sending, which nothing on this side can exclude. What was
sent by then is what a crash would have sent: each step may be repeated, and a status write names the version that it
was decided upon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

Mandate: TypeAlias = Callable[[], bool]
"""Whether acting is safe right now. Where another operator may have acted since it was given, it never is again."""

_MANDATE: ContextVar[Mandate | None] = ContextVar("mandate", default=None)


class Fenced(BaseException):
    """Nothing may be sent any more.

    No `Exception`, like `asyncio.CancelledError`: nothing that deals with what a BMC or an agent does wrong may take it
    for that, try another way, or try again.
    """


@contextmanager
def fenced(mandate: Mandate) -> Iterator[None]:
    """What is done in this context, in its tasks and in its exchanges with BMCs, is done as long as it may be."""
    before = _MANDATE.set(mandate)
    try:
        yield
    finally:
        _MANDATE.reset(before)


@contextmanager
def narrowed(mandate: Mandate) -> Iterator[None]:
    """What is done in this context is done as long as it might be outside of it, and this holds besides."""
    outside = _MANDATE.get()
    with fenced(mandate if outside is None else lambda: outside() and mandate()):
        yield


def open_now() -> bool:
    """Whether anything may be sent right now; without a fence, everything may."""
    mandate = _MANDATE.get()
    return mandate is None or mandate()


def check() -> None:
    """Raise `Fenced` if nothing may be sent any more."""
    if not open_now():
        raise Fenced
