"""The CRDs: each pass of the generator on small models, then what must hold of every schema that we publish."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from lab import generated
from lab.errors import Unfit
from rackwright.api.conditions import Condition
from rackwright.api.crd import KINDS, Kind, crd, schema
from rackwright.api.fields import Duration, Model, Time, format_duration, parse_duration, rules
from rackwright.api.inventory import DiskInventory, HardwareInventoryReport
from rackwright.api.machine import BareMetalMachineSpec, BareMetalMachineStatus, HistoryEntry, OperationName
from rackwright.api.structural import NotStructuralError, Schema, structural

# --- passes -------------------------------------------------------------------------------------------------------


class Colour(StrEnum):
    """A colour."""

    RED = "Red"
    BLUE = "Blue"


class Inner(Model):
    """An inner object."""

    colour: Colour = Field(default=Colour.RED, description="Its colour.")
    wait: Duration = Field(default=timedelta(minutes=90), description="How long.")
    words: list[str] = Field(default=[], description="Its words.")


def field_of(model: type[BaseModel], name: str = "field", *, observed: bool = False) -> Schema:
    """The schema of one field."""
    found: Schema = structural(model, observed=observed)["properties"][name]
    return found


def test_a_referenced_type_stands_in_place_under_the_fields_own_description() -> None:
    class Outer(Model):
        field: Inner = Field(description="The inner one.")

    found = field_of(Outer)
    assert found["description"] == "The inner one."
    assert found["properties"]["colour"] == {
        "description": "Its colour.",
        "enum": ["Red", "Blue"],
        "type": "string",
        "default": "Red",
    }


def test_an_optional_field_has_its_type_alone_and_no_default() -> None:
    class Outer(Model):
        field: Inner | None = Field(default=None, description="Perhaps.")

    found = field_of(Outer)
    assert found["type"] == "object"
    assert "default" not in found
    assert "required" not in structural(Outer)


def test_an_optional_fields_rules_survive() -> None:
    class Outer(Model):
        field: Annotated[str, Field(json_schema_extra=rules(("self != ''", "say something")))] | None = Field(
            default=None, description="Perhaps."
        )

    assert field_of(Outer)["x-kubernetes-validations"] == [{"rule": "self != ''", "message": "say something"}]


def test_a_union_of_two_types_is_refused() -> None:
    class Outer(Model):
        field: int | str = Field(description="Either.")

    with pytest.raises(NotStructuralError, match="union of 2 types"):
        structural(Outer)


def test_a_literal_is_an_enum_even_with_one_value() -> None:
    class Outer(Model):
        field: Literal["Only"] = Field(description="One.")

    assert field_of(Outer) == {"description": "One.", "type": "string", "enum": ["Only"]}


def test_integers_are_as_wide_as_their_maximum_needs() -> None:
    class Outer(Model):
        field: Annotated[int, Field(ge=1, le=10)] = Field(description="Few.")
        bytes: int = Field(description="Many.")

    assert field_of(Outer)["format"] == "int32"
    assert field_of(Outer, "bytes")["format"] == "int64"


def test_an_exclusive_bound_is_refused_because_kubernetes_reads_it_differently() -> None:
    class Outer(Model):
        field: Annotated[int, Field(gt=0)] = Field(description="More than nothing.")

    with pytest.raises(NotStructuralError, match="exclusiveMinimum"):
        structural(Outer)


def test_a_duration_and_its_default_are_strings_as_they_are_written() -> None:
    found = field_of(Inner, "wait")
    assert found["default"] == "1h30m"
    assert found["type"] == "string"
    assert "format" not in found


def test_a_time_is_a_date_time() -> None:
    class Outer(Model):
        field: Time | None = Field(default=None, description="When.")

    assert field_of(Outer) == {"description": "When.", "type": "string", "format": "date-time"}


def test_an_object_whose_fields_have_defaults_defaults_to_nothing() -> None:
    class Outer(Model):
        field: Inner = Field(default=Inner(), description="The inner one.")

    assert field_of(Outer)["default"] == {}


def test_an_objects_default_says_only_what_its_fields_defaults_do_not() -> None:
    class Outer(Model):
        field: Inner = Field(default=Inner(colour=Colour.BLUE), description="The inner one.")

    assert field_of(Outer)["default"] == {"colour": "Blue"}


def test_empty_strings_lists_and_maps_are_no_defaults() -> None:
    class Outer(Model):
        field: str = Field(default="", description="Text.")
        words: list[str] = Field(default=[], description="Words.")
        labels: dict[str, str] = Field(default={}, description="Labels.")

    assert not [name for name, found in structural(Outer)["properties"].items() if "default" in found]


def test_false_and_zero_are_defaults() -> None:
    class Outer(Model):
        field: bool = Field(default=False, description="Whether.")
        count: int = Field(default=0, description="How many.")

    assert field_of(Outer)["default"] is False
    assert field_of(Outer, "count")["default"] == 0


def test_a_map_of_strings_says_so() -> None:
    class Outer(Model):
        field: dict[str, str] = Field(default={}, description="Labels.")

    assert field_of(Outer) == {"description": "Labels.", "type": "object", "additionalProperties": {"type": "string"}}


def test_a_list_is_whole_unless_it_names_its_key() -> None:
    class Outer(Model):
        field: list[str] = Field(default=[], description="Words.")
        conditions: list[Condition] = Field(
            default=[],
            description="Conditions.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        )

    assert field_of(Outer)["x-kubernetes-list-type"] == "atomic"
    assert field_of(Outer, "conditions")["x-kubernetes-list-type"] == "map"


def test_a_field_called_like_a_keyword_stays() -> None:
    class Outer(Model):
        title: str = Field(description="A title.")
        default: str = Field(default="x", description="A default.")
        properties: list[str] = Field(default=[], description="Properties.")

    assert set(structural(Outer)["properties"]) == {"title", "default", "properties"}


def test_a_type_that_holds_itself_is_refused() -> None:
    with pytest.raises(NotStructuralError, match="Tree holds itself"):
        structural(Tree)


class Tree(Model):
    """A type without a structural schema."""

    children: list[Tree] = Field(default=[], description="Smaller trees.")


def test_a_field_of_any_type_is_refused() -> None:
    class Outer(Model):
        field: Any = Field(description="Anything.")

    with pytest.raises(NotStructuralError, match="names every type"):
        structural(Outer)


def test_what_is_observed_has_neither_defaults_nor_rules() -> None:
    class Outer(Model):
        field: Inner = Field(default=Inner(), description="The inner one.")

    words = list(keywords(field_of(Outer, observed=True)))
    assert "default" not in words
    assert "x-kubernetes-validations" not in words


# --- every published schema ---------------------------------------------------------------------------------------


def nodes(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema within a schema, by path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


def keywords(node: Schema) -> Iterator[str]:
    """Every keyword that a schema uses."""
    for _, child in nodes(node):
        yield from child


every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@every_kind
def test_no_schema_holds_what_a_structural_schema_may_not(kind: Kind) -> None:
    foreign = {"$ref", "$defs", "anyOf", "allOf", "oneOf", "title", "const", "nullable", "readOnly"}
    assert not foreign & set(keywords(schema(kind)))


@every_kind
def test_every_node_has_one_type_and_it_is_not_null(kind: Kind) -> None:
    types = {path: node.get("type") for path, node in nodes(schema(kind))}
    known = {"object", "array", "string", "integer", "boolean"}
    assert not {path: found for path, found in types.items() if found not in known}


@every_kind
def test_neither_flux_nor_argo_cd_takes_a_definition_away_with_all_its_records(kind: Kind) -> None:
    annotations = crd(kind)["metadata"]["annotations"]
    assert annotations["kustomize.toolkit.fluxcd.io/prune"] == "disabled"
    assert set(annotations["argocd.argoproj.io/sync-options"].split(",")) == {"Prune=false", "Delete=false"}


@every_kind
def test_every_property_is_documented(kind: Kind) -> None:
    undocumented = [
        path
        for path, node in nodes(schema(kind))
        if not node.get("description") and not path.endswith(("[]", "{}")) and path != ".metadata"
    ]
    assert not undocumented


@every_kind
def test_every_list_says_how_it_merges(kind: Kind) -> None:
    assert not [
        path for path, node in nodes(schema(kind)) if node["type"] == "array" and "x-kubernetes-list-type" not in node
    ]


@every_kind
def test_what_a_rule_reads_is_bounded(kind: Kind) -> None:
    """The API server refuses a rule whose cost it can't bound."""
    unbounded = [
        path
        for path, node in nodes(schema(kind))
        if "x-kubernetes-validations" in node and node["type"] == "string" and "maxLength" not in node
    ] + [
        path
        for path, node in nodes(schema(kind))
        if node["type"] == "array" and "x-kubernetes-validations" in keywords(node) and "maxItems" not in node
    ]
    assert not unbounded


@every_kind
def test_every_rule_says_what_to_do(kind: Kind) -> None:
    messages = [rule["message"] for _, node in nodes(schema(kind)) for rule in node.get("x-kubernetes-validations", [])]
    assert all(40 < len(message) < 300 for message in messages), messages


@every_kind
def test_every_column_and_selectable_field_reads_a_field_that_exists(kind: Kind) -> None:
    known = {path for path, _ in nodes(schema(kind))} | {".metadata.creationTimestamp"}
    paths = [column.path for column in kind.columns] + list(kind.selectable)
    assert {re.sub(r"\[\?\(.*\)\]", "[]", path) for path in paths} <= known


def test_every_default_of_the_schema_is_the_models_own() -> None:
    """An object that the API server filled in and one that it did not are the same to the operator."""
    bmc = {"address": "redfish+https://bmc/redfish/v1/Systems/1"}
    bare = BareMetalMachineSpec.model_validate({"bmc": bmc, "bootMACAddress": "52:54:00:00:00:07"})
    filled = bare.model_dump(mode="json", by_alias=True, exclude_none=True)
    of_spec = structural(BareMetalMachineSpec)["properties"]
    for name, node in of_spec.items():
        if node.get("default") == {}:
            inner = {key: child["default"] for key, child in node["properties"].items() if "default" in child}
            assert inner.items() <= filled[name].items()
        elif "default" in node:
            assert filled[name] == node["default"]


def test_the_status_that_the_operator_writes_is_within_the_schema() -> None:
    """A status field that the schema lacks would be pruned without a word."""
    now = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    entry = HistoryEntry(name=OperationName.DEPLOY, outcome="Succeeded", started_at=now, duration=timedelta(seconds=0))
    status = BareMetalMachineStatus(history=[entry]).model_dump(mode="json", by_alias=True, exclude_none=True)
    known = structural(BareMetalMachineStatus, observed=True)["properties"]
    assert set(status) <= set(known)
    assert status["history"][0].keys() <= known["history"]["items"]["properties"].keys()
    assert status["history"][0]["duration"] == "0s"
    assert status["history"][0]["startedAt"] == "2026-01-02T03:04:05Z"


def test_an_inventory_counts_its_disks_for_the_column() -> None:
    report = HardwareInventoryReport(disks=[DiskInventory(name="/dev/sda"), DiskInventory(name="/dev/sdb")])
    assert report.model_dump(by_alias=True)["diskCount"] == 2
    assert HardwareInventoryReport.model_validate(report.model_dump(by_alias=True)) == report


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_a_duration_reads_back_as_it_was_written(duration: timedelta) -> None:
    whole = timedelta(seconds=int(duration.total_seconds()))
    assert parse_duration(format_duration(whole)) == whole


# --- files --------------------------------------------------------------------------------------------------------


@every_kind
def test_a_crd_reads_back_from_yaml_as_it_was_generated(kind: Kind) -> None:
    """`On`, `None` and times are where YAML would read something else."""
    assert yaml.safe_load(generated.to_yaml(crd(kind))) == json.loads(json.dumps(crd(kind)))


def test_a_generated_part_replaces_what_stood_between_its_marks() -> None:
    text = "before\n<!-- generated: lifecycle -->\nold\n<!-- /generated -->\nafter\n"
    replaced = generated.between(text, "lifecycle", "new\n", Path("README.md"))
    assert replaced == "before\n<!-- generated: lifecycle -->\nnew\n<!-- /generated -->\nafter\n"
    assert generated.between(replaced, "lifecycle", "new\n", Path("README.md")) == replaced


def test_a_file_that_lost_its_marks_is_an_error_not_a_stale_file() -> None:
    with pytest.raises(Unfit, match="lacks the marks"):
        generated.between("no marks here", "lifecycle", "new", Path("README.md"))
