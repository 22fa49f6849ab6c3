"""Giving commands to a ramdisk's agent, over HTTPS pinned to the very certificate that its heartbeat carried.

The agent runs one command at a time. `start` sets one going and `commands` tells how far each is; when one ends the
agent beats at once, so nobody needs to poll. `run` waits for a short command's end.

IPA's certificate is self-signed for its address, and dated by a clock that nobody has set yet: a machine with an
empty CMOS battery lives in another year. The heartbeat that brought the certificate proved itself by the boot's
token, so the certificate is compared byte for byte, and neither its dates nor its name could add to that.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import aiohttp

from rackwright import fence
from rackwright.agent.intake import MOST_VALUES, Overloaded, parsed
from rackwright.agent.sessions import Session
from rackwright.install.sentences import presentable, whole_words

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
ANSWER_BYTES = 2 * 2**20
"""The most that an answer may measure: evidence for a thousand disks is half of it, and config drives aren't echoed."""
_SENTENCE = 400


class CommandStatus(StrEnum):
    """How far a command is, by IPA's words."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CLEAN_VERSION_MISMATCH = "CLEAN_VERSION_MISMATCH"
    """The hardware managers are other ones than those that the steps were listed by: list the steps again."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that the agent was given."""

    id: str
    name: str
    """Without its extension, because IPA leaves it out of most answers: `execute_clean_step`."""
    status: CommandStatus
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What a command that succeeded returned; empty otherwise. May echo parameters, secrets among them."""
    error: str | None = None
    """What went wrong, in the agent's own words, if it failed: `install.faults.explain` makes them fit to be shown."""
    error_type: str = ""
    """IPA's class of that error: `ImageChecksumError`; empty where it didn't say."""


class AgentFault(StrEnum):
    """Whose fault it is, and so what helps."""

    UNREACHABLE = "Unreachable"
    """No answer, or not in time: try again; a command that was being started may run."""
    BUSY = "Busy"
    """Another command runs: wait for its end."""
    REJECTED = "Rejected"
    """The agent doesn't know our token, or it isn't the agent that we know: only a new boot helps."""
    PROTOCOL = "Protocol"
    """The agent answered, but not what IPA answers to a sound request."""


class AgentError(Exception):
    """An agent did not do what it was asked; `args[0]` is one sentence for a person, free of secrets.

    aiohttp's own errors are not chained: they hold the URL, and that holds the token.
    """

    def __init__(self, fault: AgentFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message


class Agent(Protocol):
    """One ramdisk's agent; each call raises `AgentError`."""

    async def commands(self) -> tuple[Command, ...]:
        """Every command since the agent started, the latest last."""

    async def start(self, name: str, params: Mapping[str, Any]) -> Command:
        """Set a command going, `clean.execute_clean_step`, and return as soon as the agent accepted it."""

    async def run(self, name: str, params: Mapping[str, Any], limit: float) -> Command:
        """Carry a command out and return when it ended, `limit` seconds at the most."""


class AgentClient:
    """An agent that was heard. Holds nothing open: each call makes a connection of its own."""

    def __init__(self, session: Session, token: str) -> None:
        """Talk to the agent of `session`; ValueError if its certificate is none."""
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(session.certificate)).digest()
        self._fingerprint = aiohttp.Fingerprint(digest)
        self._url = session.callback_url
        self._token = token

    def __repr__(self) -> str:
        return f"AgentClient({self._url!r})"

    async def commands(self) -> tuple[Command, ...]:
        """Every command since the agent started, the latest last.

        IPA can't list a command that failed with an error that isn't its own, and answers 500 (Protocol) from then on.
        """
        answer = await self._ask("GET", {}, b"", ANSWER_SECONDS)
        listed = answer.get("commands") if isinstance(answer, dict) else None
        if not isinstance(listed, list):
            raise self._protocol("lists no commands")
        return tuple(self._command(entry) for entry in listed)

    async def start(self, name: str, params: Mapping[str, Any]) -> Command:
        """Set a command going and return as soon as the agent accepted it.

        IPA carries its synchronous commands out before it answers: those have ended then.
        """
        return await self._post(name, params, wait=False, limit=ANSWER_SECONDS)

    async def run(self, name: str, params: Mapping[str, Any], limit: float) -> Command:
        """Carry a command out and return when it ended, `limit` seconds at the most (then Unreachable)."""
        return await self._post(name, params, wait=True, limit=limit)

    async def _post(self, name: str, params: Mapping[str, Any], *, wait: bool, limit: float) -> Command:
        query = {"wait": "true" if wait else "false"}
        body = json.dumps({"name": name, "params": dict(params)}).encode()
        return self._command(await self._ask("POST", query, body, limit))

    async def _ask(self, method: str, query: Mapping[str, str], body: bytes, limit: float) -> Any:
        fence.check()
        try:
            status, payload = await self._exchange(method, query, body, limit)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            failure = self._failure(error, limit)
        else:
            return self._read(status, payload)
        raise failure  # outside of the handler, so that the URL doesn't come along as its context

    async def _exchange(self, method: str, query: Mapping[str, str], body: bytes, limit: float) -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=limit, sock_connect=CONNECT_SECONDS),
                trace_configs=[_fenced()],
            ) as http,
            http.request(
                method,
                f"{self._url}/v1/commands/",
                params={**query, "agent_token": self._token},
                data=io.BytesIO(body) if body else None,  # a stream: aiohttp warns of a config drive in one piece
                headers={"Content-Type": "application/json"} if body else {},
                ssl=self._fingerprint,
                allow_redirects=False,
            ) as response,
        ):
            payload = bytearray()
            async for chunk in response.content.iter_any():
                payload += chunk
                if len(payload) > ANSWER_BYTES:
                    raise self._protocol(f"answers more than {ANSWER_BYTES} bytes")
            return response.status, bytes(payload)

    def _failure(self, error: Exception, limit: float) -> AgentError:
        if isinstance(error, aiohttp.ServerFingerprintMismatch):
            return AgentError(
                AgentFault.REJECTED,
                f"{self._url} is answered by another agent: its certificate isn't the one that the heartbeat brought.",
            )
        if isinstance(error, TimeoutError):
            return AgentError(AgentFault.UNREACHABLE, f"The agent at {self._url} did not answer within {limit:g} s.")
        if isinstance(error, aiohttp.ClientResponseError):
            return self._protocol("answers something that isn't HTTP")
        if isinstance(error, aiohttp.ClientPayloadError):
            return AgentError(AgentFault.UNREACHABLE, f"The agent at {self._url} broke off its answer.")
        number = error.os_error.errno if isinstance(error, aiohttp.ClientConnectorError) else None
        reason = os.strerror(number) if number and number > 0 else ""
        return AgentError(
            AgentFault.UNREACHABLE,
            f"The agent at {self._url} can't be reached: {reason or type(error).__name__}.",
        )

    def _read(self, status: int, payload: bytes) -> Any:
        nonsense = "something that isn't JSON"
        try:
            answer = parsed(payload)
        except Overloaded:
            answer, nonsense = None, f"more than {MOST_VALUES} values"
        except (ValueError, RecursionError):
            answer = None
        if status == 200 and answer is not None:  # noqa: PLR2004 (HTTP's OK)
            return answer
        said = presentable(self._sentence(answer.get("faultstring"))).rstrip(".") if isinstance(answer, dict) else ""
        match status:
            case 401:
                raise AgentError(
                    AgentFault.REJECTED, f"The agent at {self._url} doesn't accept the token of this boot."
                )
            case 409:
                raise AgentError(
                    AgentFault.BUSY, f"The agent at {self._url} takes no other command now: {said or 'it is busy'}."
                )
            case 200:
                raise self._protocol(f"answers {nonsense}")
            case _:
                raise self._protocol(f"answers {status}" + (f": {said}" if said else ""))

    def _command(self, answer: object) -> Command:
        if not isinstance(answer, dict):
            raise self._protocol("answers no command")
        identity, name, status = (answer.get(key) for key in ("id", "command_name", "command_status"))
        if not isinstance(identity, str) or not isinstance(name, str) or status not in list(CommandStatus):
            raise self._protocol("answers a command without an id, a name or a known status")
        result, error = answer.get("command_result"), answer.get("command_error")
        text, kind = self._error(error)
        return Command(
            id=identity,
            name=name.rpartition(".")[2],
            status=CommandStatus(status),
            result=result if isinstance(result, dict) else {} if result is None else {"result": result},
            error=text,
            error_type=kind,
        )

    def _error(self, error: object) -> tuple[str | None, str]:
        """The sentence and the class of a `command_error`: {type, code, message, details}, {error}, or text."""
        if not error:
            return None, ""
        if not isinstance(error, dict):
            return self._sentence(error), ""
        parts = [self._sentence(error.get(key)) for key in ("message", "details", "error")]
        return ": ".join(part for part in parts if part) or "The agent doesn't say why.", self._sentence(
            error.get("type")
        )

    def _sentence(self, text: object) -> str:
        """An agent's words on one line, cut to a sentence's length, without the token; not fit to be shown yet."""
        words = " ".join(str(text or "").replace(self._token, "******").split())
        return words if len(words) <= _SENTENCE else f"{whole_words(words, _SENTENCE - 1)}…"

    def _protocol(self, what: str) -> AgentError:
        return AgentError(AgentFault.PROTOCOL, f"The agent at {self._url} {what}.")


def _fenced() -> aiohttp.TraceConfig:
    """Looks at the fence once more when the connection stands, right before the request goes out on it."""

    async def connected(*_: object) -> None:
        fence.check()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    return trace
