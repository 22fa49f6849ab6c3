"""What a write of status sends: only what has changed, so that other writers' conditions and newer fields stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rackwright.api.machine import BareMetalMachineStatus


def status_patch(before: BareMetalMachineStatus, after: BareMetalMachineStatus) -> dict[str, Any]:
    """The JSON merge patch that turns the status that was read into another; empty if the record says that already.

    What was read is taken without what is merely the default, for the record doesn't say that.
    """
    stored = before.model_dump(by_alias=True, mode="json", exclude_none=True, exclude_unset=True)
    return merge_patch(stored, after.model_dump(by_alias=True, mode="json", exclude_none=True))


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7396) that turns one into the other; empty if they are the same."""
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        was = before.get(name)
        if isinstance(was, Mapping) and isinstance(value, Mapping):
            if nested := merge_patch(was, value):
                patch[name] = nested
        elif was != value:
            patch[name] = value
    return patch
