"""How requests reach a BMC, and how much of its answers comes back: whom to trust, and nowhere else than to the BMC.

requests takes a CA as a file only and adds its own bundle to a context of ours, so the adapter here holds the
context itself; nothing is left on disk. It also refuses to send a request to another host, because requests would
carry the session token along on a redirect, and sushy on a link in an answer. And it reads the answer itself, because
requests would read one without end until the operator's memory is full.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as BrokenLine
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from rackwright import fence
from rackwright.power.address import DEFAULT_PORTS, Address
from rackwright.power.faults import of_redirect
from rackwright.power.port import FaultClass, PowerError

LONGEST_ANSWER = 16 * 1024 * 1024
"""Bytes, unpacked; a system with its BIOS attributes has some 300 KB."""
_AT_ONCE = 64 * 1024


@lru_cache(maxsize=256)
def tls_context(ca: str | None, *, verify: bool) -> ssl.SSLContext:
    """Trust for these PEM certificates, or for the system's, or (`verify=False`) for anyone.

    Cached, for a context can hold a megabyte of certificates and a fleet has few CAs; it follows that a change of the
    system's store counts from the next start. Raises `PowerError` (TLS) for a CA that isn't PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    # Newer Pythons refuse certificates with formal flaws, which BMCs' own CAs are full of, and accept an
    # intermediate as an anchor. The same rules on every Python: flaws pass, any given certificate is an anchor.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ca is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError, TypeError):
        raise PowerError(
            FaultClass.TLS,
            "The Secret in caSecretRef holds no usable certificate: it must be in PEM form",
            of_secret=True,
        ) from None
    return context


class _Connection(HTTPConnection):
    """Looks at the fence when there is a connection, right before bytes go out on it."""

    def send(self, data: Any) -> None:
        """Send, if anything may be sent."""
        if self.sock is None:
            self.connect()
        fence.check()
        super().send(data)


class _SecureConnection(_Connection, HTTPSConnection):
    """The same after the handshake."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Adapter(HTTPAdapter):
    """Sends requests to one BMC, verified by one context."""

    def __init__(self, address: Address, context: ssl.SSLContext) -> None:
        self._address = address
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool, with our context for every connection in it."""
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave verification to the context; the inherited method would add requests' own CAs to it."""

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        """Send, if it goes to the BMC; else raise `PowerError` (PROTOCOL)."""
        url = urlsplit(str(request.url))
        there = (url.scheme, (url.hostname or "").lower(), url.port or DEFAULT_PORTS.get(url.scheme))
        base = urlsplit(base_url(self._address))
        if there != (base.scheme, (base.hostname or "").lower(), self._address.port):
            raise of_redirect(self._address.place, f"{url.scheme}://{url.netloc.rpartition('@')[2]}")
        response = super().send(request, *args, **kwargs)
        try:
            body = read_answer(lambda most: response.raw.read1(most, decode_content=True), LONGEST_ANSWER)
        except (HTTPError, OSError) as error:
            raise BrokenLine(error, request=request) from error
        finally:
            response.raw.close()
        if len(body) > LONGEST_ANSWER:
            raise PowerError(
                FaultClass.PROTOCOL,
                f"The BMC at {self._address.place} gave an answer longer than {LONGEST_ANSWER} bytes",
            )
        response._content = body  # noqa: SLF001 (where requests looks before it reads any more)
        return response


def read_answer(read: Callable[[int], bytes], most: int) -> bytes:
    """An answer's body; a byte more than `most` of one that is longer. `read` gives what has come, so many at most.

    Raises `fence.Fenced` as soon as nobody waits for it any more, however slowly it goes on coming.
    """
    body = bytearray()
    while len(body) <= most and (part := read(min(most + 1 - len(body), _AT_ONCE))):
        fence.check()
        body += part
    return bytes(body)


def base_url(address: Address) -> str:
    """What the paths in a BMC's answers are relative to: `https://10.0.0.7:443`."""
    return f"{address.transport}://{address.authority}"
