"""Counts requests to the API server where they are made: in our own HTTP sessions. kopf's watches have their own."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import aiohttp
from yarl import URL

from rackwright.metrics.families import CODES, ELSEWHERE, NO_ANSWER, RESOURCES

Counted = Callable[[str, str, str, float], None]
"""Told of each request: verb, resource, code, seconds until the answer began."""

_PATH = re.compile(
    r"(?:/.+?)??/(?:api|apis/[^/]+)/[^/]+(?:/namespaces/[^/]+)?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[a-z]+))?)?"
)
"""Behind whatever a gateway to several clusters puts before it."""
_CHANGES = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_APPLY = "application/apply-patch"


def traced(counted: Counted) -> aiohttp.TraceConfig:
    """For an HTTP session; a watch is counted when it begins."""

    async def began(_session: aiohttp.ClientSession, it: SimpleNamespace, _: aiohttp.TraceRequestStartParams) -> None:
        it.began = time.monotonic()

    async def ended(_session: aiohttp.ClientSession, it: SimpleNamespace, end: aiohttp.TraceRequestEndParams) -> None:
        code = str(end.response.status)
        counted(*request(end.method, end.url, end.headers), code if code in CODES else ELSEWHERE, _since(it))

    async def broke(
        _session: aiohttp.ClientSession, it: SimpleNamespace, end: aiohttp.TraceRequestExceptionParams
    ) -> None:
        counted(*request(end.method, end.url, end.headers), NO_ANSWER, _since(it))

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(began)
    trace.on_request_end.append(ended)
    trace.on_request_exception.append(broke)
    return trace


def request(method: str, url: URL, headers: Mapping[str, str]) -> tuple[str, str]:
    """Verb and resource of a request, as the API server's audit log would name them."""
    found = _PATH.fullmatch(url.path)
    resource, name, part = found.group("resource", "name", "part") if found else (ELSEWHERE, None, None)
    whole = f"{resource}/{part}" if part else resource
    verb = _CHANGES.get(method.upper(), "get" if name or not found else "list")
    if verb == "list" and url.query.get("watch") in ("true", "True", "1"):
        verb = "watch"
    if verb == "patch" and headers.get("Content-Type", "").startswith(_APPLY):
        verb = "apply"
    return verb, whole if whole in RESOURCES else ELSEWHERE


def _since(it: SimpleNamespace) -> float:
    return time.monotonic() - float(it.began)
