"""The outline of a YAML document that a stranger wrote: its keys, lists and text, and no more.

Loading somebody's YAML is work that they choose: merge keys and aliases grow exponentially, nesting exhausts the
stack, and of libyaml's composer it ends the process. Here the document is read event by event, down to a depth that
no configuration reaches, and nothing is expanded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

DEEPEST = 64

Outline: TypeAlias = "str | list[Outline] | dict[str, Outline]"
"""Scalars as they are written, lists, and mappings by those keys that are text; what is merged in is under `<<`."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class NotYAMLError(ValueError):
    """A text has no outline; `args[0]` says why in words that follow "it" and quotes nothing."""


@dataclass(slots=True)
class _Level:
    into: list[Outline] | dict[str, Outline]
    key: Outline | None = None
    """Of a mapping, once it was read and its value wasn't."""

    def put(self, value: Outline) -> None:
        if isinstance(self.into, list):
            self.into.append(value)
        elif self.key is None:
            self.key = value
        else:
            key, self.key = self.key, None
            if key == "<<":
                merged = self.into.setdefault(key, [])
                if isinstance(merged, list):
                    merged.append(value)
            elif isinstance(key, str):
                self.into[key] = value


def outline(text: str) -> Outline | None:
    """The outline of the one document in a text, None for no document.

    Raises:
        NotYAMLError: it isn't one document of valid YAML, or it nests deeper than `DEEPEST`.
    """
    documents: list[Outline] = []
    levels = [_Level(documents)]
    anchors: dict[str, Outline] = {}
    try:
        for event in yaml.parse(text, _LOADER):
            match event:
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    levels.pop()
                    continue
                case yaml.AliasEvent():
                    if event.anchor not in anchors:
                        raise NotYAMLError(f"is not valid YAML{_place(event.start_mark)}")
                    levels[-1].put(anchors[event.anchor])
                    continue
                case yaml.ScalarEvent():
                    value: Outline = event.value
                case yaml.SequenceStartEvent():
                    value = []
                case yaml.MappingStartEvent():
                    value = {}
                case _:
                    continue
            levels[-1].put(value)
            if event.anchor:
                anchors[event.anchor] = value
            if not isinstance(value, str):
                levels.append(_Level(value))
            if len(levels) > DEEPEST:
                raise NotYAMLError("nests too deeply to be read")
    except yaml.MarkedYAMLError as error:
        raise NotYAMLError(f"is not valid YAML{_place(error.problem_mark or error.context_mark)}") from None
    except yaml.YAMLError:
        raise NotYAMLError("holds characters that YAML doesn't allow") from None
    if len(documents) > 1:
        raise NotYAMLError("holds more than one YAML document")
    return documents[0] if documents else None


def entries(mapping: Outline) -> dict[str, Outline]:
    """A mapping's entries, those that it merges in included; empty for anything but a mapping."""
    found: dict[str, Outline] = {}
    pending: deque[Outline] = deque([mapping] if isinstance(mapping, dict) else [])
    seen: set[int] = set()
    while pending:
        item = pending.popleft()
        if id(item) in seen:
            continue
        seen.add(id(item))
        for key, value in item.items() if isinstance(item, dict) else ():
            if key == "<<":
                pending.append(value)
            else:
                found.setdefault(key, value)
        pending.extend(item if isinstance(item, list) else ())
    return found


def _place(mark: Any) -> str:
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
