"""SSH host keys as an installed system or a rescue environment reports them.

They end up in status, from where people copy them into a known_hosts file, so that nothing but a well-formed key
may pass: no second line, no comment, no options.
"""

from __future__ import annotations

import base64
import binascii
import re

MAX_KEYS = 8
MAX_KEY_LENGTH = 4096
"""Characters; an RSA key of 16,384 bits has about 2,800."""

_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) ([A-Za-z0-9+/]+={0,2})(?: [^\r\n]*)?\n?")


def host_key(text: str) -> str | None:
    """`TYPE BASE64` of one line of an OpenSSH public key file, its comment left out; None if it isn't one.

    The type is also the first field of the encoded key (RFC 4253, section 6.6), and both must agree.
    """
    match = _KEY.fullmatch(text) if len(text) <= MAX_KEY_LENGTH else None
    if match is None:
        return None
    try:
        blob = base64.b64decode(match[2], validate=True)
    except binascii.Error:
        return None
    name = match[1].encode()
    header = len(name).to_bytes(4, "big") + name
    return f"{match[1]} {match[2]}" if blob.startswith(header) and len(blob) > len(header) else None
