"""IPMI 2.0 over the network (RMCP+), through pyghmi: the protocol of server BMCs from before Redfish, and after.

pyghmi is the library that xCAT and OpenStack drive IPMI with. Its usual session shares sockets, a thread that never
ends and a cache of log-ins among all BMCs, and keeps every session alive for ever; so what is used here is the simple
one that it has as well, which is a socket and the protocol, and lacks only patience: sending again what was lost, and
giving up. That is what `_Link` adds.

A session lasts for one exchange. BMCs have few places for sessions (often four) and forget them when they restart; a
log-in is five packets. So nothing is kept that could be stale: no socket, no thread, no old password.

The cipher suites are 17 (SHA-256, AES-128), then 3 (SHA-1, AES-128) for a BMC that refuses that. What a machine is
asked, and when, is in `ipmi_chassis` and `ipmi_driver`, which know nothing of pyghmi.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from pyghmi.exceptions import IpmiException
from pyghmi.ipmi.private import simplesession

from rackwright import fence
from rackwright.power import faults, ipmi_faults
from rackwright.power.address import parse
from rackwright.power.ipmi_chassis import Ask
from rackwright.power.port import Credentials, Endpoint, FaultClass, Limits, PowerError
from rackwright.power.redaction import Redaction

T = TypeVar("T")

LONGEST_USERNAME = 16
LONGEST_PASSWORD = 20
"""Bytes (IPMI 2.0 §13.28, §22.30)."""
LONGEST_PACKET = 3000
INVALID_ROLE, UNAUTHORIZED_ROLE = 0x09, 0x0A
"""RMCP+ status codes."""
INVALID_FIELD = 0xCC
"""Completion code: what a BMC from before IPMI 2.0 says to a question about it."""


class Service:
    """One BMC as pyghmi sees it. Blocks; for one thread at a time, of which it leaves nothing behind."""

    def __init__(self, endpoint: Endpoint, limits: Limits) -> None:
        self._address = parse(endpoint.address)
        if self._address.path:
            raise PowerError(
                FaultClass.UNSUPPORTED,
                f"An IPMI address has no path, because there is one machine behind each BMC:"
                f" write it like ipmi://{self._address.place}",
            )
        self._credentials = endpoint.credentials
        self._limits = limits
        self._redaction = Redaction(endpoint.credentials)

    def exchange(self, what: str, step: Callable[[Ask], T]) -> T:
        """Log in, run a step, log out; whatever goes wrong is raised as `PowerError`.

        `what` completes "The BMC cannot ...".
        """
        try:
            link = self._log_in(_account(self._credentials))
            try:
                return step(partial(self._ask, link, what))
            finally:
                link.close()
        except Exception as error:  # noqa: BLE001 (pyghmi raises IndexError and worse for what it didn't expect)
            fault, cause = self._fault(what, error)
        raise fault from cause  # outside the handler, so that nothing comes along that is not meant to

    def close(self) -> None:
        """Nothing is kept between exchanges."""

    def _log_in(self, account: Credentials) -> _Link:
        """Log in at the first of the name's addresses that answers."""
        found = socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_DGRAM)
        end = time.monotonic() + self._limits.exchange
        silence: OSError = TimeoutError()
        for family, *_, peer in found:
            try:
                return _Link(family, peer, account, self._limits, end=end, place=self._address.place)
            except OSError as error:
                silence = error
        raise silence

    def _ask(self, link: _Link, what: str, function: int, command: int, data: bytes) -> bytes:
        response = link.raw_command(netfn=function, command=command, data=data)
        if response["code"]:
            raise ipmi_faults.of_completion(self._address.place, what, response["code"])
        return bytes(response["data"])

    def _fault(self, what: str, error: Exception) -> tuple[PowerError, BaseException | None]:
        """The error for the caller, and its cause unless that shows a secret."""
        fault = error if isinstance(error, PowerError) else self._sorted(what, error)
        cause = error.__cause__ if isinstance(error, PowerError) else error
        return fault, None if cause is None or self._redaction.shown_by(cause) else cause

    def _sorted(self, what: str, error: Exception) -> PowerError:
        if isinstance(error, OSError):
            return faults.of_broken_line(self._address.place, error)
        said = faults.first_sentence(self._redaction.hide(str(error)))
        return PowerError(
            FaultClass.PROTOCOL,
            f"The BMC at {self._address.place} gave an answer that is not IPMI when it was to {what}"
            f" ({type(error).__name__}: {said})",
        )


class _Link(simplesession.Session):  # type: ignore[misc]  # pyghmi has no types
    """pyghmi's session on a socket of its own, which is deaf to all but the BMC and told when nothing listens there.

    Made, it is logged in. Raises OSError when the BMC is silent, `PowerError` when it refuses.
    """

    # pyghmi's, of no type
    timeout: float
    sessioncontext: str | None

    def __init__(
        self, family: int, peer: tuple[Any, ...], account: Credentials, limits: Limits, *, end: float, place: str
    ) -> None:
        self._family = family
        self._peer = peer
        self._patience = limits.read
        self._end = end
        """Of the exchange; this and what follows by the monotonic clock."""
        self._give_up_at = time.monotonic() + limits.connect
        self._send_again_at = self._give_up_at
        self._status = 0
        """The RMCP+ status of the last step of the log-in."""
        self._code = 0
        """The last command's completion code."""
        self.sessioncontext = None
        try:
            super().__init__(peer[0], account.username, account.password, port=peer[1])
        except IpmiException as error:
            self.close()
            raise self._refusal(place) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Log out, without waiting to hear of it, and close the socket. Silent: a BMC ends a session by itself."""
        self.incommand = False  # else pyghmi would wait for the answer that didn't come
        self.lastpayload = None
        self.logged = int(self.sessioncontext == "ESTABLISHED")  # also if it was refused its rights afterwards
        try:
            self.logout()
        except (OSError, IpmiException):
            pass
        finally:
            simplesession.Session.keepalive_sessions.pop(self, None)
            if self.socket is not None:
                self.socket.close()

    # What pyghmi calls

    def _assignsocket(self) -> socket.socket:
        made = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            made.connect(self._peer)
        except BaseException:
            made.close()
            raise
        return made

    def _xmit_packet(self, retry: bool = True, delay_xmit: object = None, timeout: object = None) -> None:  # noqa: ARG002 (pyghmi's own)
        fence.check()
        if self.sequencenumber:
            self.sequencenumber += 1
        self.socket.send(self.netpacket)
        self._send_again_at = time.monotonic() + self.timeout

    def wait_for_rsp(self, timeout: object = None, callout: object = True) -> None:  # noqa: ARG002 (pyghmi's own)
        """Deal with one packet, or send again what wasn't answered; TimeoutError at the end of all patience."""
        now, last = time.monotonic(), min(self._give_up_at, self._end)
        if now >= last:
            raise TimeoutError
        self.socket.settimeout(max(min(self._send_again_at, last) - now, 0.001))
        try:
            packet = bytearray(self.socket.recv(LONGEST_PACKET))
        except TimeoutError:
            if time.monotonic() >= self._send_again_at:
                self._timedout()
            return
        if packet[:1] == b"\x06" and packet[2:4] == b"\xff\x07":  # RMCP, class IPMI (table 13-1)
            self._give_up_at = time.monotonic() + self._patience
            self._handle_ipmi_packet(packet)

    def awaitresponse(self, retry: bool) -> None:
        """Wait for the answer to a command, if one is wanted."""
        while retry and self.lastresponse is None and self.logged:
            self.wait_for_rsp()

    def _timedout(self) -> None:
        # A second more each time, but never so much that pyghmi gives up: `wait_for_rsp` says when.
        self.timeout = min(self.timeout, self.maxtimeout - 1)
        self._send_again_at = time.monotonic() + self.timeout
        super()._timedout()

    def _got_channel_auth_cap(self, response: dict[str, Any]) -> None:
        self.ipmi15only = None  # else pyghmi asks a BMC that knows no IPMI 2.0 again, and doesn't hear its answer
        super()._got_channel_auth_cap(response)

    def _get_session_challenge(self) -> None:
        self.onlogon({"error": "IPMI 1.5"})  # pyghmi would try, and fail in Python 3

    def _got_rmcp_response(self, data: bytearray) -> None:
        self._status = data[1]
        super()._got_rmcp_response(data)

    def _got_rakp2(self, data: bytearray) -> None:
        self._status = data[1]
        if data[1] == UNAUTHORIZED_ROLE:  # pyghmi tries again as an operator only for the other
            data[1] = INVALID_ROLE
        super()._got_rakp2(data)

    def _got_rakp4(self, data: bytearray) -> None:
        self._status = data[1]
        self.logontries = 0  # else pyghmi takes some refusals for those of an earlier packet, and goes on waiting
        super()._got_rakp4(data)

    def _parse_payload(self, payload: bytearray) -> None:
        self._code = payload[6]
        super()._parse_payload(payload)

    def _refusal(self, place: str) -> PowerError:
        """Why there is no session, from where the log-in ended."""
        if self.ipmiversion < 2 and self._code in {0, INVALID_FIELD}:  # noqa: PLR2004 (IPMI 2.0)
            return ipmi_faults.of_old_protocol(place)
        if self.sessioncontext == "FAILED":
            return ipmi_faults.of_wrong_password(place)
        if self._status:
            return ipmi_faults.of_login(place, self._status)
        if self.sessioncontext == "EXPECTINGRAKP4":
            return ipmi_faults.of_session_key(place)
        if self._code in ipmi_faults.NO_RIGHTS:
            return ipmi_faults.of_no_rights(place, self._code)
        return ipmi_faults.of_completion(place, "open a session", self._code)


def _account(credentials: Credentials | None) -> Credentials:
    """The account, if IPMI can carry it."""
    if credentials is None:
        raise PowerError(
            FaultClass.CREDENTIALS, "IPMI takes an account: name the Secret that holds it in credentialsSecretRef"
        )
    for what, text, most in (
        ("user name", credentials.username, LONGEST_USERNAME),
        ("password", credentials.password, LONGEST_PASSWORD),
    ):
        if len(text.encode()) > most:
            raise PowerError(
                FaultClass.CREDENTIALS,
                f"IPMI takes a {what} of at most {most} bytes, and the one in the Secret has {len(text.encode())}",
                of_secret=True,
            )
    return credentials
