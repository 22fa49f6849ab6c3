"""Whose fault it is: HTTP answers and broken connections sorted into `FaultClass`, each with one sentence.

BMCs of one model answer one mistake with different codes from one firmware to the next, so the class rests on the
status first and on the message ids of the Redfish Base registry (DSP0268, and two vendors' own) where they say more.
Pure: what arrives here is already taken out of whichever library met it.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from rackwright.power.port import FaultClass, PowerError, WrongState

LONGEST_DETAIL = 160
LONGEST_RETRY_AFTER = 3600.0
"""Seconds: a BMC with a wrong clock may name a date years ahead."""

BUSY_STATUS = frozenset(
    {
        HTTPStatus.CONFLICT,
        HTTPStatus.LOCKED,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,  # these two: from the BMC's web server, while what is behind it restarts
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
UNSUPPORTED_STATUS = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})

BUSY_MESSAGE = re.compile(
    r"ResourceInUse|ServiceTemporarilyUnavailable|SessionLimitExceeded"
    r"|SYS518|SWC0700"  # iDRAC: still at work on the previous operation; not ready
    r"|ResourceNotReadyRetry|UnableToModifyDuringSystemPOST"  # iLO
)
STATE_MESSAGE = re.compile(r"InvalidOperationForSystemState")
UNSUPPORTED_MESSAGE = re.compile(
    r"(Action|Parameter|Value|Operation)Not(Supported|InList)|PropertyUnknown|PropertyNotWritable|QueryNotSupported"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that says no."""

    status: int
    detail: str = ""
    """The BMC's own words, credentials already taken out."""
    message_ids: Sequence[str] = ()
    retry_after: float | None = None


def of_refusal(place: str, what: str, refusal: Refusal) -> PowerError:
    """The fault in a refusal; `what` was being done ("cut the power") at the BMC at `place`."""
    end = f" (HTTP {refusal.status})" + (f": {first_sentence(refusal.detail)}" if refusal.detail.strip() else "")
    ids = " ".join(refusal.message_ids)
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        return PowerError(FaultClass.CREDENTIALS, f"The BMC at {place} refuses the credentials{end}", of_secret=True)
    if refusal.status == HTTPStatus.FORBIDDEN:
        return PowerError(FaultClass.CREDENTIALS, f"The account at the BMC at {place} may not {what}{end}")
    wrong_state = _is_of_state(refusal, ids)
    if wrong_state or refusal.status in BUSY_STATUS or BUSY_MESSAGE.search(ids):
        wait = "" if refusal.retry_after is None else f" and asks for {refusal.retry_after:g} s of peace"
        message = f"The BMC at {place} is too busy to {what}{wait}{end}"
        return (WrongState if wrong_state else PowerError)(FaultClass.BUSY, message, retry_after=refusal.retry_after)
    if refusal.status in UNSUPPORTED_STATUS or (
        refusal.status < HTTPStatus.INTERNAL_SERVER_ERROR and UNSUPPORTED_MESSAGE.search(ids)
    ):
        return PowerError(FaultClass.UNSUPPORTED, f"The BMC at {place} cannot {what}{end}")
    return PowerError(FaultClass.PROTOCOL, f"The BMC at {place} failed to {what}{end}")


def _is_of_state(refusal: Refusal, ids: str) -> bool:
    """Whether it is the machine's state that rules it out; a BMC that is at something else itself says so, or when."""
    if BUSY_MESSAGE.search(ids) or refusal.retry_after is not None:
        return False
    return refusal.status == HTTPStatus.CONFLICT or STATE_MESSAGE.search(ids) is not None


def read_refusal(
    status: int, body: object, retry_after: float | None = None, *, hide: Callable[[str], str] = str
) -> Refusal:
    """Take a refusal out of an answer's JSON (DSP0266 §8.6, or whatever it is); `hide` takes out credentials."""
    if not isinstance(body, dict) or not is_redfish_error(body):
        return Refusal(status, retry_after=retry_after)
    error = body["error"]
    messages = _extended(error)
    details = [str(one["Message"]) for one in messages if one.get("Message")] or [str(error.get("message") or "")]
    ids = [str(one) for one in (error.get("code"), *(one.get("MessageId") for one in messages)) if one]
    return Refusal(status, hide(details[0]), tuple(ids), retry_after)


def is_redfish_error(body: object) -> bool:
    """Has an answer's JSON the shape of a Redfish error?"""
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and all(isinstance(one, dict) for one in _extended(error))


def _extended(error: dict[str, Any]) -> list[Any]:
    info = error.get("@Message.ExtendedInfo") or []
    return info if isinstance(info, list) else [info]


def of_redirect(place: str, where: str) -> PowerError:
    """The fault in being sent elsewhere, where nothing goes: neither account nor signature is meant for others."""
    return PowerError(
        FaultClass.PROTOCOL,
        f"The BMC at {place} sends its callers to {first_sentence(where)}: if that is right, make it the address",
    )


def of_broken_line(place: str, error: BaseException) -> PowerError:
    """The fault in a connection that failed, found in the error's chain of causes."""
    chain = list(causes(error))
    for kind, fault, why in _BROKEN:
        for cause in chain:
            if isinstance(cause, kind):
                return PowerError(fault, f"The BMC at {place} {why}")
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(place, cause)
        if isinstance(cause, ssl.SSLError):
            return PowerError(FaultClass.TLS, _no_handshake(place, cause))
    for cause in chain:
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            return PowerError(FaultClass.UNREACHABLE, f"The BMC at {place} cannot be reached: {cause.strerror.lower()}")
    return PowerError(FaultClass.UNREACHABLE, f"The BMC at {place} cannot be reached")


_BROKEN: tuple[tuple[type[BaseException], FaultClass, str], ...] = (
    (socket.gaierror, FaultClass.UNREACHABLE, "cannot be found: its name does not resolve"),
    (ConnectionRefusedError, FaultClass.UNREACHABLE, "refuses connections: nothing listens on that port"),
    (TimeoutError, FaultClass.UNREACHABLE, "does not answer in time"),
    (ssl.SSLEOFError, FaultClass.UNREACHABLE, "broke the connection off"),
    (ConnectionError, FaultClass.UNREACHABLE, "broke the connection off"),
    (http.client.IncompleteRead, FaultClass.UNREACHABLE, "broke the connection off"),
    (http.client.HTTPException, FaultClass.PROTOCOL, "does not speak HTTP on that port"),
)
"""First hit wins; a name that doesn't resolve is also an OSError, and a broken connection an HTTPException."""


def _untrusted(place: str, error: ssl.SSLCertVerificationError) -> PowerError:
    why = first_sentence(error.verify_message or "it cannot be verified")
    if "mismatch" in why.lower() or "not valid for" in why.lower():
        return PowerError(
            FaultClass.TLS,
            f"The certificate of the BMC at {place} is for another name: use a name that it holds as the address, "
            "or give the BMC a certificate for this one",
        )
    if "expired" in why.lower() or "not yet valid" in why.lower():
        return PowerError(FaultClass.TLS, f"The certificate of the BMC at {place} is out of date: {why}")
    return PowerError(
        FaultClass.TLS,
        f"The certificate of the BMC at {place} is not trusted ({why}): "
        "name the Secret with its CA in caSecretRef, or set insecureSkipTLSVerify",
        of_secret=True,
    )


def _no_handshake(place: str, error: ssl.SSLError) -> str:
    why: str | None = getattr(error, "reason", None)  # not on every SSLError
    if why in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
        return f"The BMC at {place} does not speak TLS on that port: is it +http:// instead of +https://?"
    return f"The BMC at {place} and the operator agree on no TLS: {(why or 'handshake failed').lower()}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that led to it, each once; libraries also keep them as `reason` or among their arguments."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def first_sentence(text: str) -> str:
    """The first sentence of someone else's text, on one line, cut to a length that fits a condition's message."""
    line = " ".join(text.split())
    sentence = re.split(r"(?<=[a-z\d)])\.(?:\s|$)", line, maxsplit=1)[0].rstrip(".")
    return sentence if len(sentence) <= LONGEST_DETAIL else sentence[: LONGEST_DETAIL - 1].rstrip() + "…"


def retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds in a `Retry-After` header (RFC 9110 §10.2.3: seconds or a date), None if it holds neither."""
    if header is None:
        return None
    try:
        seconds = float(header) if header.strip().isdigit() else (parsedate_to_datetime(header) - now).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
