"""What runs on a simulated machine that started from its disk: a system that phones home once, as cloud-init does."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

from rackwright.install import phone_home

if TYPE_CHECKING:
    from rackwright.simulated.machine import Machine

REPEAT_SECONDS = 3.0
"""Between two calls, where one isn't taken."""
OWNED = "an owner's data"
"""What is on a disk that a system uses."""
CALLS = 100
"""As many as the seed asks of cloud-init."""


class RunningSystem:
    """An installed system."""

    __slots__ = ("_task",)

    def __init__(self, machine: Machine) -> None:
        self._task: asyncio.Task[None] | None = None
        if machine.seed:
            self._task = asyncio.get_running_loop().create_task(self._first_boot(machine))

    def stop(self) -> None:
        """The power is gone."""
        if self._task is not None:
            self._task.cancel()

    async def _first_boot(self, machine: Machine) -> None:
        """Use the other disks too, as owners do, and call until the call is taken."""
        for number, content in enumerate(machine.disks):
            if not content:
                machine.write(number, OWNED)
        called = urlsplit(machine.seed)
        uid, token = called.path.rpartition("/")[2], parse_qs(called.query)["token"][0]
        form = urlencode({"pub_key_ed25519": host_key_of(machine.mac), "hostname": "simulated"}).encode()
        for _ in range(CALLS):
            told = await phone_home.answer(
                machine.network.first_boots, uid, token, _at_once(form), str(machine.address)
            )
            if told.status < HTTPStatus.BAD_REQUEST:
                machine.seed = ""
                break
            await asyncio.sleep(REPEAT_SECONDS)
        self._task = None


def host_key_of(whose: str) -> str:
    """An SSH host key in its public half's form, which nobody has the other half of."""
    fields = (b"ssh-ed25519", hashlib.sha256(whose.encode()).digest())
    blob = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


async def _at_once(body: bytes) -> AsyncIterator[bytes]:
    yield body
