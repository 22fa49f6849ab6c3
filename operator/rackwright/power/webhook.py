"""Webhooks: whatever has an HTTP endpoint and can switch a machine, by the contract of WEBHOOK.md.

Over http.client, for what it leaves out: it follows no redirect and reads no proxy, `.netrc` or CA bundle from the
environment, so that a signed call goes to its address or nowhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from rackwright import fence
from rackwright.power import faults
from rackwright.power.address import parse
from rackwright.power.port import Credentials, Endpoint, FaultClass, Limits, PowerError
from rackwright.power.redaction import Redaction
from rackwright.power.transport import read_answer, tls_context

T = TypeVar("T")

API_VERSION = "power.rackwright.io/v1"
SIGNATURE_HEADER = "X-Rackwright-Signature"
LONGEST_ANSWER = 64 * 1024
"""Bytes; an answer is a line."""

BROKEN = (OSError, HTTPException, UnicodeError)
"""What http.client raises for a line that is broken; UnicodeError where a host's name can't be one."""


class Action(StrEnum):
    """What a webhook is asked to do."""

    POWER_STATE = "PowerState"
    POWER_ON = "PowerOn"
    POWER_OFF = "PowerOff"
    FORCE_OFF = "ForceOff"
    SET_BOOT = "SetBoot"


class Call(Protocol):
    """Makes one signed call."""

    def __call__(self, action: Action, **parameters: object) -> Mapping[str, Any]:
        """The answer's JSON, empty if it has none; whatever goes wrong is raised as `PowerError`."""


class Unimplemented(PowerError):
    """The device hasn't got this action and says so, with 501."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: HTTPMessage
    body: bytes
    """As much of it as is looked at: a byte more than may be."""


class Webhook:
    """One machine behind one URL. Blocks; for one thread at a time. Nothing is kept between calls."""

    def __init__(self, endpoint: Endpoint, limits: Limits) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._address = parse(endpoint.address)
        self._path = quote(self._address.path, safe="/%:@!$&'()*+,;=~") or "/"
        self._url = f"{self._address.transport}://{self._address.place}{self._path}"
        self._signature: str | None = None
        self._redaction = Redaction(endpoint.credentials, lambda: self._signature)

    def exchange(self, what: str, step: Callable[[Call], T]) -> T:
        """Run a step; whatever goes wrong is raised as `PowerError`. `what` completes "The BMC cannot ..."."""
        return step(partial(self._call, what))

    def close(self) -> None:
        """Nothing is held."""

    def _call(self, what: str, action: Action, **parameters: object) -> Mapping[str, Any]:
        try:
            answer = self._post(self._body(action, parameters))
        except BROKEN as error:
            fault = faults.of_broken_line(self._address.place, error)
            cause = None if self._redaction.shown_by(error) else error
        else:
            return self._content(what, answer)
        raise fault from cause  # outside the handler, so that nothing comes along that is not meant to

    def _body(self, action: Action, parameters: Mapping[str, object]) -> bytes:
        call = {
            "apiVersion": API_VERSION,
            "id": str(uuid.uuid4()),
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "machine": self._url,
            "action": action,
            **parameters,
        }
        return json.dumps(call).encode()

    def _post(self, body: bytes) -> _Answer:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "rackwright",
            "Connection": "close",
            SIGNATURE_HEADER: self._signed(body),
        }
        connection = self._connection()
        with closing(connection):
            connection.connect()
            connection.sock.settimeout(self._limits.read)
            fence.check()
            connection.request("POST", self._path, body, headers)
            with connection.getresponse() as response:
                return _Answer(response.status, response.headers, _read(response))

    def _connection(self) -> HTTPConnection:
        host, port, endpoint, patience = self._address.host, self._address.port, self._endpoint, self._limits.connect
        if self._address.transport != "https":
            return HTTPConnection(host, port, timeout=patience)
        context = tls_context(endpoint.ca, verify=not endpoint.insecure_skip_tls_verify)
        return HTTPSConnection(host, port, timeout=patience, context=context)

    def _signed(self, body: bytes) -> str:
        credentials = self._credentials()
        at = str(int(time.time()))
        self._signature = signature(credentials.password, at, body)
        return f"t={at},key={quote(credentials.username, safe='')},v1={self._signature}"

    def _credentials(self) -> Credentials:
        credentials = self._endpoint.credentials
        if credentials is None:
            raise PowerError(
                FaultClass.CREDENTIALS,
                f"Calls to the BMC at {self._address.place} cannot be signed: name a Secret in credentialsSecretRef"
                " whose password is the webhook's key",
            )
        if not credentials.password:
            raise PowerError(
                FaultClass.CREDENTIALS,
                f"Calls to the BMC at {self._address.place} cannot be signed: the password of its Secret is empty",
                of_secret=True,
            )
        return credentials

    def _content(self, what: str, answer: _Answer) -> Mapping[str, Any]:
        if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            raise self._refused(what, answer)
        if len(answer.body) > LONGEST_ANSWER:
            raise self._nonsense(what, f"longer than {LONGEST_ANSWER} bytes")
        if not answer.body.strip():
            return {}
        content = _json(answer.body)
        if not isinstance(content, dict):
            raise self._nonsense(what, "that is no JSON object")
        return content

    def _refused(self, what: str, answer: _Answer) -> PowerError:
        place = self._address.place
        location = answer.headers.get("Location")
        if location is not None and answer.status < HTTPStatus.BAD_REQUEST:
            return faults.of_redirect(place, self._redaction.hide(_target(self._url, location)))
        wait = faults.retry_after(answer.headers.get("Retry-After"), datetime.now(UTC))
        content = _json(answer.body)
        detail = content.get("error") if isinstance(content, dict) else None
        said = self._redaction.hide(detail) if isinstance(detail, str) else ""
        error = faults.of_refusal(place, what, faults.Refusal(answer.status, said, retry_after=wait))
        if answer.status == HTTPStatus.NOT_IMPLEMENTED:
            return Unimplemented(error.fault, error.message)
        return error

    def _nonsense(self, what: str, how: str) -> PowerError:
        return PowerError(
            FaultClass.PROTOCOL,
            f"The BMC at {self._address.place} gave an answer {how} when it was to {what}",
        )


def signature(key: str, at: str, body: bytes) -> str:
    """The signature of a body at an instant (Unix seconds, in decimal), as hexadecimal digits."""
    return hmac.new(key.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()


def _read(response: HTTPResponse) -> bytes:
    """The body, as far as it is looked at."""
    body = read_answer(response.read1, LONGEST_ANSWER)
    if len(body) <= LONGEST_ANSWER and response.length:
        raise IncompleteRead(b"", response.length)
    return body


def _json(body: bytes) -> object:
    try:
        content: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content


def _target(url: str, location: str) -> str:
    """Where a redirect leads, without name, password and query."""
    try:
        target = urlsplit(urljoin(url, location))
    except ValueError:
        return "nowhere that is a URL"
    return f"{target.scheme}://{target.netloc.rpartition('@')[2]}{target.path}"
