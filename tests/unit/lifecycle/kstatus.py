"""What kstatus makes of a custom resource, which is what Flux waits for and `kubectl wait` can't ask.

The rules are those of `status.Compute` for a kind that the library doesn't know, in its order: `checkGenericProperties`
and `checkGeneration` of `pkg/kstatus/status/generic.go`, then `checkReadyCondition`. Source:
https://github.com/kubernetes-sigs/cli-utils/tree/v0.37.2/pkg/kstatus, whose README defines the words.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What the library calls a resource."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"


def compute(resource: Mapping[str, Any]) -> Verdict:
    """The verdict on a resource as the API server returns it."""
    metadata, status = resource["metadata"], resource.get("status", {})
    if metadata.get("deletionTimestamp"):
        return Verdict.TERMINATING
    if "generation" in metadata and status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return Verdict.IN_PROGRESS
    conditions = status.get("conditions", ())
    for condition in conditions:
        match condition["type"], condition["status"]:
            case "Reconciling", "True":
                return Verdict.IN_PROGRESS
            case "Stalled", "True":
                return Verdict.FAILED
    for condition in conditions:
        match condition["type"], condition["status"]:
            case "Ready", "True":
                return Verdict.CURRENT
            case "Ready", "False" | "Unknown":
                return Verdict.IN_PROGRESS
    return Verdict.CURRENT
