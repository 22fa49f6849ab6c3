"""Conditions, as the Kubernetes API conventions define them."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rackwright.api.fields import CONFIG, Repeated, Time


class ConditionType(StrEnum):
    """The conditions that the operator owns; all are always set."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    BMC_REACHABLE = "BMCReachable"
    COMMISSIONED = "Commissioned"
    TESTS_PASSED = "TestsPassed"
    ALLOCATED = "Allocated"
    DEPLOYED = "Deployed"
    LAYOUT_COMPATIBLE = "LayoutCompatible"
    LOCKED = "Locked"


@dataclass(config=CONFIG, frozen=True, slots=True, kw_only=True)
class Condition:
    """One observation about an object."""

    type: Repeated = Field(description="What is observed.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    observed_generation: int | None = Field(default=None, description="The generation of spec it was observed for.")
    last_transition_time: Time = Field(description="When status last changed.")
    reason: Repeated = Field(description="Why, as one CamelCase word.")
    message: Repeated = Field(default="", description="Why, in a sentence.")
