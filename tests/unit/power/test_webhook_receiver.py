"""The receiver in WEBHOOK.md, run as it is printed there: it works with the driver and believes nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.unit.power.scripted_webhook import webhook

import rackwright.power
from rackwright.power.connect import Connections
from rackwright.power.port import DEFAULT_LIMITS, BootTarget, Credentials, FaultClass, PowerError, PowerState
from rackwright.power.webhook import API_VERSION, LONGEST_ANSWER, SIGNATURE_HEADER, Action

PAGE = Path(rackwright.power.__file__).with_name("WEBHOOK.md")
KEY = "7c0f9bd4"
ACCOUNT = Credentials("rack-a", KEY)


def program() -> str:
    """The only Python on the page."""
    (found,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The receiver's, running."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", program(), "0"),
        env={**os.environ, "WEBHOOK_KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), timeout=20)
    try:
        yield int(line.removeprefix(b"Listening on port "))
    finally:
        process.terminate()
        await process.wait()


@dataclass(frozen=True)
class Attempt:
    """A call by somebody else's code, right but for what is changed."""

    port: int
    action: str = "PowerOn"
    key: str = KEY
    age: int = 0
    id: str = ""
    outlet: str = "7"
    tampered: bool = False
    header: str | None = None

    def made(self) -> tuple[int, dict[str, Any]]:
        """The status and the answer."""
        machine = f"http://127.0.0.1:{self.port}/outlets/{self.outlet}"
        content = {"id": self.id or str(uuid.uuid4()), "machine": machine, "action": self.action}
        body, at = json.dumps(content).encode(), int(time.time()) - self.age
        signed = hmac.new(self.key.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
        if self.tampered:
            body = body.replace(b"PowerOn", b"ForceOff")
        header = self.header if self.header is not None else f"t={at},key=rack-a,v1={signed}"
        headers = {"X-Rackwright-Signature": header} if header else {}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("POST", "/outlets/7", body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())


async def made(attempt: Attempt) -> tuple[int, dict[str, Any]]:
    return await asyncio.to_thread(attempt.made)


async def test_it_switches_a_machine_for_the_driver(port: int, connections: Connections) -> None:
    driver = connections.driver(webhook(port, credentials=ACCOUNT))
    assert await driver.power_state() is PowerState.OFF
    await driver.set_boot(BootTarget.NETWORK, uefi=True)
    await driver.power_on()
    assert await driver.power_state() is PowerState.ON
    await driver.cycle(grace=1)
    assert await driver.power_state() is PowerState.ON
    await driver.power_off(grace=1)
    assert await driver.power_state() is PowerState.OFF


async def test_the_driver_is_told_why_it_is_refused(port: int, connections: Connections) -> None:
    stranger = connections.driver(webhook(port, credentials=Credentials("rack-a", "another")))
    with pytest.raises(PowerError, match=r"refuses the credentials .* The signature is wrong$") as caught:
        await stranger.power_state()
    assert caught.value.fault is FaultClass.CREDENTIALS
    elsewhere = connections.driver(webhook(port, "/outlets/8", credentials=ACCOUNT))
    with pytest.raises(PowerError, match=r"No socket is called http://127.0.0.1:\d+/outlets/8$") as caught:
        await elsewhere.power_state()
    assert caught.value.fault is FaultClass.UNSUPPORTED


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "another key": ({"key": "another"}, 401, "The signature is wrong."),
    "no signature": ({"header": ""}, 401, "The signature is wrong."),
    "a signature of nothing": ({"header": "t=,key=,v1="}, 401, "The signature is wrong."),
    "a signature that is no text": ({"header": "t=1,v1=\xff"}, 401, "The signature is wrong."),
    "a body that was changed on the way": ({"tampered": True}, 401, "The signature is wrong."),
    "an old call": ({"age": 310}, 401, "too old"),
    "a call from the future": ({"age": -310}, 401, "one of our clocks"),
    "another machine": ({"outlet": "8"}, 404, "No socket is called"),
    "an action that it hasn't got": ({"action": "SetBoot"}, 501, "A socket has no SetBoot."),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_it_refuses(why: str, port: int) -> None:
    changes, status, said = REFUSED[why]
    answered, content = await made(Attempt(port, **changes))
    assert (answered, said in content["error"]) == (status, True)
    assert await made(Attempt(port, "PowerState")) == (200, {"power": "Off"})


async def test_it_takes_a_call_once(port: int) -> None:
    call = Attempt(port, id="one")
    assert await made(call) == (200, {"power": "On"})
    assert await made(Attempt(port, "ForceOff")) == (200, {"power": "Off"})
    assert await made(call) == (401, {"error": "This call came before."})
    assert await made(Attempt(port, "PowerState")) == (200, {"power": "Off"})


@pytest.mark.parametrize("age", [290, -290])
async def test_it_takes_a_call_whose_clock_is_a_little_off(port: int, age: int) -> None:
    assert (await made(Attempt(port, age=age)))[0] == 200


def test_the_page_says_what_the_code_does() -> None:
    page = PAGE.read_text()
    assert set(re.findall(r"^\| `([A-Z]\w+)` \|", page, re.MULTILINE)) == set(Action)
    assert f'"apiVersion": "{API_VERSION}"' in page
    assert f"{SIGNATURE_HEADER}: t=" in page
    assert f"at most {LONGEST_ANSWER // 1024} KiB" in page
    limits = DEFAULT_LIMITS
    assert f"within {limits.connect:g} s" in page
    assert f"no more than {limits.read:g} s" in page
    assert f"done within {limits.exchange:g} s" in page
    assert f"until it is so: {limits.settle / 60:g} minutes" in page
