"""A rescue environment: SSH into the ramdisk for the keys that the machine's spec names.

The stock agent can only set a password. The ramdisk's plug-in lets keys in instead, and tells the environment's
host keys, so that the person who logs in can know that it is their machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rackwright.install.host_keys import MAX_KEYS, host_key
from rackwright.install.sentences import presentable
from rackwright.install.steps import JSON, clean_step
from rackwright.lifecycle.world import Blame, Fault

STEP = "open_rescue"
"""The plug-in's step."""


@dataclass(frozen=True, slots=True)
class OpenRescue:
    """A rescue environment that waits for its users."""

    user: str
    ssh_host_keys: tuple[str, ...]


def parameters(
    ssh_authorized_keys: Iterable[str],
    *,
    node: Mapping[str, JSON],
    mac_addresses: Iterable[str],
    clean_version: Mapping[str, JSON] | None,
) -> dict[str, JSON]:
    """Parameters of `clean.execute_clean_step` that let these keys in; see `steps.clean_step`."""
    arguments: dict[str, JSON] = {"ssh_authorized_keys": list(ssh_authorized_keys)}
    return clean_step(STEP, arguments, node=node, mac_addresses=mac_addresses, clean_version=clean_version)


def opened(command_result: object) -> OpenRescue | Fault:
    """What the step reports: `{"clean_result": {"user", "hostKeys"}}`."""
    result = command_result.get("clean_result") if isinstance(command_result, Mapping) else None
    match result:
        case {"user": str(user), "hostKeys": list(keys)} if user:
            texts = [key for key in keys[:MAX_KEYS] if isinstance(key, str)]
            found = tuple(key for text in texts if (key := host_key(text)) is not None)
            return OpenRescue(presentable(user, 64), found)
        case _:
            return Fault(
                Blame.AGENT,
                "RescueResultUnreadable",
                "The ramdisk doesn't say who may log in to the rescue environment; "
                "boot the ramdisk that was built for this operator",
            )
