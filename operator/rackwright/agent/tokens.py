"""Shared secrets with agents and installed systems, derived and never stored.

A token is an HMAC of one key over the machine's uid and the operation's id. An operator that was restarted therefore
still knows the token of every boot, no status or Secret holds one, and with a new operation the old boot's is
worthless. Each purpose has tokens of its own: what a ramdisk was given doesn't open the phone-home of what it installs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

KEY_BYTES = 32
"""The least length of the key, in bytes."""


class Tokens:
    """Derives and checks tokens; its repr says nothing."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Derive from `key`; ValueError if it has fewer than 32 bytes."""
        if len(key) < KEY_BYTES:
            raise ValueError(f"the token key has {len(key)} bytes: give at least {KEY_BYTES} random ones")
        self._key = key

    def for_agent(self, machine_uid: str, operation_id: str) -> str:
        """What the agent of this boot proves itself with, and we to it: 43 characters that a URL can hold."""
        return self._derive("agent", machine_uid, operation_id)

    def for_first_boot(self, machine_uid: str, operation_id: str) -> str:
        """What the installed system proves itself with when it phones home: 43 characters that a URL can hold."""
        return self._derive("first-boot", machine_uid, operation_id)

    def fingerprint(self, machine_uid: str, content: bytes) -> str:
        """What tells whether content is the same as before, and nothing else of it: `KEY:DIGEST`.

        Two that were made with different keys, by their first part, can't be compared.
        """
        key = self._derive("key", "", "")[:6]
        return f"{key}:{self._derive('content', machine_uid, hashlib.sha256(content).hexdigest())[:22]}"

    def _derive(self, purpose: str, machine_uid: str, operation_id: str) -> str:
        # A JSON list: no two different triples read the same.
        message = json.dumps(["rackwright", 1, purpose, machine_uid, operation_id]).encode()
        return base64.urlsafe_b64encode(hmac.digest(self._key, message, "sha256")).rstrip(b"=").decode()


def matches(token: str, candidate: object) -> bool:
    """Whether a stranger's candidate, of any type, is the token; takes equally long wherever it differs."""
    if not isinstance(candidate, str):
        return False
    return hmac.compare_digest(token.encode(), candidate.encode(errors="surrogatepass"))
