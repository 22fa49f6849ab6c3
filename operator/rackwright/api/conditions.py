"""Conditions, as the Kubernetes API conventions define them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
)
from pydantic.dataclasses import dataclass
from pydantic_core import CoreSchema, core_schema

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


@dataclasses.dataclass(frozen=True, slots=True)
class OtherCondition:
    """Another writer's condition, word for word.

    The list is written as a whole: whatever were spelt differently would be ours from then on, by server-side apply,
    and its writer's next apply a conflict.
    """

    given: Mapping[str, Any]

    @property
    def type(self) -> str:
        """What is observed."""
        return str(self.given.get("type", ""))

    @property
    def status(self) -> str:
        """Whether it holds."""
        return str(self.given.get("status", ""))


_OURS = frozenset(ConditionType)


def _read(given: Any, ours: ValidatorFunctionWrapHandler) -> Condition | OtherCondition:
    if isinstance(given, OtherCondition):
        return given
    if isinstance(given, Mapping) and given.get("type") not in _OURS:
        return OtherCondition(dict(given))
    condition: Condition = ours(given)
    return condition


def _written(condition: Condition | OtherCondition, ours: SerializerFunctionWrapHandler) -> Any:
    return dict(condition.given) if isinstance(condition, OtherCondition) else ours(condition)


def _by_writer(_source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    ours = handler.generate_schema(Condition)
    as_written = core_schema.wrap_serializer_function_ser_schema(_written, schema=ours)
    return core_schema.no_info_wrap_validator_function(_read, ours, serialization=as_written)


AnyCondition: TypeAlias = Annotated[Condition | OtherCondition, GetPydanticSchema(_by_writer)]
"""On the wire, a `Condition`."""
