"""Ask DHCP for an address as UEFI firmware does that boots from the network, and print each answer as a line of JSON.

A program of its own, for another network namespace than the test's:

    nsenter --target PID --net python dhcp_client.py INTERFACE [--take]

It sends and receives whole frames: firmware has no address yet, and hears what is sent to the one that it is offered.
RFC 2131 has the messages, RFC 4578 what tells that a machine boots.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from ipaddress import IPv4Address
from typing import Any

SECONDS = 10.0
_IPV4 = 0x0800
_DISCOVER, _REQUEST = 1, 3
_COOKIE = bytes((99, 130, 83, 99))
_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_ASKED = bytes((1, 3, 6, 60, 66, 67))
"""Netmask, router, name servers, class, next server, boot file."""


def message(mac: bytes, kind: int, **wanted: IPv4Address) -> bytes:
    """The frame of a DHCP message to all."""
    said = {53: bytes([kind]), 55: _ASKED, 60: b"PXEClient:Arch:00007:UNDI:003016", 93: b"\0\7", 94: b"\1\3\x10"}
    if wanted:
        said |= {50: wanted["address"].packed, 54: wanted["server"].packed}
    nobody = bytes(4)
    fixed = _FIXED.pack(1, 1, 6, 0, 0x5EED, 0, 0, nobody, nobody, nobody, nobody, mac, b"", b"")
    options = b"".join(bytes([code, len(value)]) + value for code, value in said.items()) + b"\xff"
    payload = (fixed + _COOKIE + options).ljust(300, b"\0")
    udp = struct.pack("!HHHH", 68, 67, 8 + len(payload), 0)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, nobody, b"\xff" * 4)
    total = sum(struct.unpack("!10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ethernet = b"\xff" * 6 + mac + struct.pack("!H", _IPV4)
    return ethernet + header[:10] + struct.pack("!H", checksum) + header[12:] + udp + payload


def answer(mac: bytes, frame: bytes) -> dict[str, Any] | None:
    """What a frame says, if it is a DHCP server's answer to this MAC."""
    packet = frame[14:]
    if packet[9:10] != b"\x11" or packet[22:24] != b"\0\x44":
        return None
    payload = packet[28:]
    fixed = _FIXED.unpack(payload[: _FIXED.size])
    if fixed[0] != 2 or fixed[11][:6] != mac:
        return None
    options: dict[int, bytes] = {}
    rest = payload[_FIXED.size + 4 :]
    while rest and rest[0] != 255:
        code, length = rest[0], rest[1]
        options[code] = rest[2 : 2 + length]
        rest = rest[2 + length :] if code else rest[1:]

    def addresses(code: int) -> list[str]:
        packed = options.get(code, b"")
        return [str(IPv4Address(packed[i : i + 4])) for i in range(0, len(packed), 4)]

    return {
        "address": str(IPv4Address(fixed[8])),
        "server": str(IPv4Address(options[54])),
        "class": options.get(60, b"").decode(),
        "file": (options.get(67) or fixed[13]).rstrip(b"\0").decode(),
        "router": addresses(3),
        "dns": addresses(6),
    }


def main() -> int:
    """Discover; with --take, request what was offered."""
    interface, *take = sys.argv[1:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_IPV4)) as wire:
        wire.bind((interface, _IPV4))
        wire.settimeout(SECONDS)
        mac: bytes = wire.getsockname()[4]

        def exchange(sent: bytes) -> dict[str, Any]:
            wire.send(sent)
            while (heard := answer(mac, wire.recv(2048))) is None:
                pass
            print(json.dumps(heard), flush=True)
            return heard

        offer = exchange(message(mac, _DISCOVER))
        if take:
            wanted = {name: IPv4Address(offer[name]) for name in ("address", "server")}
            exchange(message(mac, _REQUEST, **wanted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
