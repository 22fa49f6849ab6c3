"""What the agent wants to know with every step: the machine as ironic-python-agent expects an Ironic node to look.

The agent takes the root device hints from the node that it was told of last when it writes an image. So it is told of
the node right before that, with the disk that was chosen (`TELL_NODE`), and of no disk when it looks itself up: hints
may be corrected while the ramdisk waits. Without hints it would look itself up once more before it writes, and refuse
disks of less than 4 GiB (`get_os_install_device`, hardware.py of ironic-python-agent 13.0.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

TELL_NODE = "deploy.get_deploy_steps"
"""The command that has the agent keep another node: `{"node": node(...), "ports": []}`; its answer is of no use."""
EXECUTE_CLEAN_STEP = "clean.execute_clean_step"
"""The command that `clean_step` makes the parameters of."""

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"
"""What a command's parameters are made of."""


def node(
    uid: str,
    *,
    root_device: Mapping[str, str | bool] | None = None,
    driver_internal_info: Mapping[str, JSON] | None = None,
) -> dict[str, JSON]:
    """The node for a lookup's answer or a step.

    Args:
        uid: the machine's; the agent puts it into its log and asks for it in its next lookup.
        root_device: the disk that an image goes to (`image.RootDisk`), or `image.root_device`; without it the agent
            chooses one if it is told to write.
        driver_internal_info: settings of the agent's own steps, like `agent_erase_devices_iterations`.
    """
    return {
        "uuid": uid,
        "properties": {"root_device": dict(root_device)} if root_device else {},
        "instance_info": {},
        "driver_internal_info": dict(driver_internal_info or {}),
    }


def clean_step(
    name: str,
    arguments: Mapping[str, JSON],
    *,
    node: Mapping[str, JSON],
    mac_addresses: Iterable[str],
    clean_version: Mapping[str, JSON] | None,
) -> dict[str, JSON]:
    """Parameters of `EXECUTE_CLEAN_STEP` for a step of the ramdisk's plug-in.

    Args:
        name: of the step.
        arguments: passed to the step by name.
        node: from `node`.
        mac_addresses: the machine's network cards as far as they are known.
        clean_version: `hardware_manager_version` of the agent's answer to `clean.get_clean_steps`; the agent
            refuses the step if it changed since. None doesn't ask it to look.
    """
    return {
        "step": {"step": name, "interface": "deploy", "priority": 0, "args": dict(arguments)},
        "node": dict(node),
        "ports": [{"address": address.lower()} for address in mac_addresses],
        "clean_version": None if clean_version is None else dict(clean_version),
    }
