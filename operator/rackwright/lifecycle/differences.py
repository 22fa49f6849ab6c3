"""What of a deployment isn't as it was installed: compared by what the installation took, not by the words of spec."""

from __future__ import annotations

import hashlib
import json

from rackwright.api.machine import BareMetalMachineSpec
from rackwright.lifecycle.world import World


def differences(world: World) -> list[str]:
    """What of the declared deployment isn't as it was installed, by the names of spec; what isn't known is left out."""
    deployment, installed = world.spec.deployment, world.status.installed
    if deployment is None or deployment.existing or installed is None or installed.image is None:
        return []
    image = world.seen.image_checksum
    pairs = {
        "image": deployment.image != installed.image or image not in (None, installed.checksum),
        "user data": _other_content(installed.user_data, world.seen.user_data),
        "hostname, SSH keys or root device hints": (
            installed.configuration not in (None, configuration(world.spec, world.name))
        ),
    }
    return [name for name, differs in pairs.items() if differs]


def _other_content(one: str | None, other: str | None) -> bool:
    """Whether two fingerprints, `KEY:DIGEST`, of one key tell of different contents."""
    if one is None or other is None:
        return False
    return one != other and one.partition(":")[0] == other.partition(":")[0]


def configuration(spec: BareMetalMachineSpec, name: str) -> str:
    """Digest of what an installation takes from spec itself: hostname, SSH keys, root device hints."""
    deployment, hints = spec.deployment, spec.storage.root_device_hints
    parts = [
        (deployment.hostname if deployment else None) or name,
        list(deployment.ssh_authorized_keys) if deployment else [],
        hints.model_dump(mode="json", exclude_none=True) if hints else {},
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
