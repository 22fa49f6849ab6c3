"""An IPMI BMC that lets nobody in, as the test says: silent, of another age, or with an RMCP+ status for an answer.

No more of the protocol than that takes; IPMI specification 2.0, §13. What lets people in is `ipmi_simulator`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

RMCP = bytes((0x06, 0x00, 0xFF, 0x07))
OPEN_SESSION_ANSWER, RAKP2, RAKP4 = 0x11, 0x13, 0x15
SHA256 = 3
"""The authentication algorithm of cipher suite 17."""
IPMI_2_0, IPMI_1_5 = bytes((0x01, 0x84, 0x00, 0x02, 0, 0, 0, 0)), bytes((0x01, 0x04, 0x00, 0x00, 0, 0, 0, 0))
"""What it offers by way of authentication (table 22-15); both MD5."""


class RefusingBmc(asyncio.DatagramProtocol):
    """Listens on a free port of the loopback from `start` to `stop`."""

    def __init__(
        self,
        *,
        capabilities: bytes | None = IPMI_2_0,
        completion: int = 0,
        open_session: Callable[[int], int] = lambda _: 0,
        rakp1: Callable[[int], int] = lambda _: 0,
        password: str = "",
        rakp3: int = 0,
        babbles: bool = False,
    ) -> None:
        """Without `capabilities` it is silent, unless it `babbles`: what isn't IPMI, without end.

        `completion` is the code of their answer; the functions give a status, one for the authentication algorithm
        that is proposed, the other for the role. It proves that it knows the password; its last proof, that it knows
        the session's key too, is wrong.
        """
        self._capabilities = capabilities
        self._completion = completion
        self._open_session = open_session
        self._rakp1 = rakp1
        self._password = password.encode()
        self._rakp3 = rakp3
        self._babbles = babbles
        self._transport: Any = None
        self._console = b""
        """How the caller names the session."""
        self.heard = 0
        """Packets."""
        self.callers: set[tuple[str, int]] = set()
        self.proposed: list[int] = []
        self.roles: list[int] = []

    async def start(self, host: str = "127.0.0.1") -> int:
        """Listen; the port."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, 0))
        return int(self._transport.get_extra_info("sockname")[1])

    def stop(self) -> None:
        """Listen no more."""
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard += 1
        self.callers.add(addr)
        if self._babbles:
            self._babble(addr)
        if self._capabilities is None:
            return
        if data[4] == 0:
            self._transport.sendto(_capabilities_answer(data, self._completion, self._capabilities), addr)
            return
        payload = data[16:]
        match data[5] & 0x3F:
            case 0x10:
                self.proposed.append(payload[12])
                self._console = payload[4:8]
                status = self._open_session(payload[12])
                accepted = bytes((4, 0)) + self._console + b"\x01\x00\x00\x00" + payload[8:32]
                self._answer(addr, OPEN_SESSION_ANSWER, bytes((payload[0], status)) + accepted)
            case 0x12:
                self.roles.append(payload[24] & 0x0F)
                status = self._rakp1(payload[24] & 0x0F)
                nonce, name = bytes(16 + 16), payload[24:25] + payload[27:]
                proven = self._console + payload[4:24] + nonce + name
                proof = nonce + hmac.digest(self._password, proven, hashlib.sha256)
                self._answer(addr, RAKP2, bytes((payload[0], status, 0, 0)) + self._console + proof)
            case 0x14:
                self._answer(addr, RAKP4, bytes((payload[0], self._rakp3, 0, 0)) + self._console + bytes(16))

    def _babble(self, addr: tuple[str, int]) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(b"noise", addr)
            asyncio.get_running_loop().call_soon(self._babble, addr)

    def _answer(self, addr: tuple[str, int], kind: int, payload: bytes) -> None:
        header = RMCP + bytes((0x06, kind)) + bytes(8) + len(payload).to_bytes(2, "little")
        self._transport.sendto(header + payload, addr)


def _capabilities_answer(request: bytes, completion: int, capabilities: bytes) -> bytes:
    sequence, command = request[18], request[19]
    head = bytes((0x81, 0x07 << 2))
    body = bytes((0x20, sequence, command, completion)) + (b"" if completion else capabilities)
    message = head + bytes((_checksum(head),)) + body + bytes((_checksum(body),))
    return RMCP + bytes(9) + bytes((len(message),)) + message


def _checksum(data: bytes) -> int:
    return -sum(data) & 0xFF
