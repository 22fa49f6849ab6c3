"""pydantic's JSON schema → the structural schema that the Kubernetes API server accepts.

The two disagree: pydantic writes `$ref`, `anyOf` with null, `title`, exclusive bounds; a CustomResourceDefinition wants
every type in place, an optional field simply absent, and nothing else. Whatever has no counterpart is an
error here, at generation, rather than a schema that the API server reads differently.

Shape: a schema is a plain dict; each pass is a function from one node to one node, its children already done.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]
Pass = Callable[[Schema], Schema]

_KEYWORDS = frozenset(
    {
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
    }
)
"""What pydantic may have written and Kubernetes understands in the same way; `x-kubernetes-*` besides."""

_INT32 = 2**31 - 1


class NotStructuralError(TypeError):
    """A model says something that a structural schema can't."""


def structural(model: type[BaseModel], *, observed: bool = False) -> Schema:
    """The structural schema of a model as it is on the wire.

    `observed` is for what the operator writes, status and reports: it gets neither defaults, for absent means not
    observed, nor CEL rules, for they could only keep the operator from saying what it saw.
    """
    raw = model.model_json_schema(mode="serialization")
    inlined = inline(raw, raw.get("$defs", {}))
    return walk(inlined, *PASSES, *((without_intent,) if observed else ()))


def inline(schema: Schema, definitions: Schema, inside: tuple[str, ...] = ()) -> Schema:
    """Put every referenced type in the reference's place; what stands beside the reference wins."""
    schema = {key: value for key, value in schema.items() if key != "$defs"}
    if reference := schema.pop("$ref", None):
        name = reference.removeprefix("#/$defs/")
        if name in inside:
            raise NotStructuralError(f"{name} holds itself: a structural schema has no recursion")
        return {**inline(definitions[name], definitions, (*inside, name)), **schema}
    return _children(schema, lambda child: inline(child, definitions, inside))


def walk(schema: Schema, *passes: Pass) -> Schema:
    """Apply passes to every node, the innermost first."""
    return reduce(lambda node, apply: apply(node), passes, _children(schema, lambda child: walk(child, *passes)))


def _children(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """A node with its child nodes changed; a property that is called like a keyword stays a property."""
    changed = dict(schema)
    if "properties" in schema:
        changed["properties"] = {name: change(child) for name, child in schema["properties"].items()}
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            changed[keyword] = change(schema[keyword])
    if "anyOf" in schema:
        changed["anyOf"] = [change(child) for child in schema["anyOf"]]
    return changed


def optional_by_absence(node: Schema) -> Schema:
    """`T | None` → T: on the wire a value that isn't there is left out, never null."""
    node = dict(node)
    if (alternatives := node.pop("anyOf", None)) is not None:
        present = [alternative for alternative in alternatives if alternative.get("type") != "null"]
        if len(present) != 1:
            raise NotStructuralError(f"a union of {len(present)} types has no structural schema: {alternatives}")
        node = {**present[0], **node}
    if "default" in node and node["default"] is None:
        del node["default"]
    return node


def constants_as_enums(node: Schema) -> Schema:
    """`const`, which structural schemas lack, → an enum of one."""
    node = dict(node)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    return node


def sized_integers(node: Schema) -> Schema:
    """Integers with their width, which typed clients are generated from: 64 bits unless a maximum fits 32."""
    if node.get("type") != "integer":
        return node
    return {**node, "format": "int32" if node.get("maximum", _INT32 + 1) <= _INT32 else "int64"}


def without_noise(node: Schema) -> Schema:
    """Drop what pydantic says for other readers: titles, closed objects (unknown fields are pruned anyway)."""
    node = {key: value for key, value in node.items() if key not in {"title", "readOnly"}}
    if node.get("additionalProperties") is False:
        del node["additionalProperties"]
    if node.get("format") == "duration":
        del node["format"]  # ISO 8601 to pydantic, something else to Kubernetes
    return node


def defaults_in_place(node: Schema) -> Schema:
    """One place per default: `{}` for an object whose own fields have theirs; none for an empty string, list or map."""
    if "default" not in node:
        return node
    node = dict(node)
    if "properties" in node:
        inner = {name: child["default"] for name, child in node["properties"].items() if "default" in child}
        given = {name: value for name, value in node["default"].items() if value not in (None, "", [])}
        node["default"] = {name: value for name, value in given.items() if inner.get(name) != value}
    elif node["default"] in ("", [], {}):
        del node["default"]
    return node


def whole_lists(node: Schema) -> Schema:
    """Lists are owned as a whole, unless the model says which of its items' fields is a key."""
    return {"x-kubernetes-list-type": "atomic", **node} if node.get("type") == "array" else node


def only_structural(node: Schema) -> Schema:
    """Refuse what is left that Kubernetes would refuse, ignore or read differently."""
    if unknown := sorted(key for key in node if key not in _KEYWORDS and not key.startswith("x-kubernetes-")):
        raise NotStructuralError(f"no structural schema has {', '.join(unknown)}: {node}")
    if "type" not in node and not any(key.startswith("x-kubernetes-") for key in node):
        raise NotStructuralError(f"a structural schema names every type: {node}")
    return node


def without_intent(node: Schema) -> Schema:
    """Drop defaults and CEL rules."""
    return {key: value for key, value in node.items() if key not in {"default", "x-kubernetes-validations"}}


PASSES: tuple[Pass, ...] = (
    optional_by_absence,
    constants_as_enums,
    sized_integers,
    without_noise,
    defaults_in_place,
    whole_lists,
    only_structural,
)
