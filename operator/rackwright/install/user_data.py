"""Whether a user's data would keep the installed system from phoning home.

The system is known to be up because vendor data makes it phone home. cloud-init lets user data override vendor data
and passes over what it can't read with a line in a log on the machine, so that a slip here is an hour's wait for a
deployment that can't succeed. It is found before the machine is booted instead.

What cloud-init fetches or makes up while it runs (`#include`, scripts, part handlers) can't be looked into.

User data is a secret, and a tenant's: sentences never quote it, and however it is made it is read in bounded time.

Sources: cloud-init's `handlers/__init__.py`, `user_data.py`, `stages.py` and `config/cc_phone_home.py`.
"""

from __future__ import annotations

import email
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any

from rackwright.install.yaml_outline import NotYAMLError, Outline, entries, outline

MOST_BYTES = 60 * 2**20
"""The drive has 64 MiB for everything."""
MOST_READ = 4 * 2**20
"""Bytes of what is read to the end to be checked, compressed data unpacked."""

_MOST_UNPACKED = 8 * 2**20
"""Bytes of all parts together, of parts of parts as well."""
_MOST_PARTS = 1000
_LONGEST_HEADER = 8192
"""Characters: reading a MIME header takes the square of its length."""
_DEEPEST = 8
_GZIP = b"\x1f\x8b"
_MIME = b"mime-version:"
_MULTIPART = re.compile(rb"content-type:\s*multipart/", re.IGNORECASE)
_OPAQUE = ("#!", "#include", "#part-handler", "#cloud-boothook")
_CLOUD_CONFIG = "text/cloud-config"
_BY_HEADER = {
    "#cloud-config-archive": "text/cloud-config-archive",
    "#cloud-config-jsonp": "text/cloud-config-jsonp",
    "#cloud-config": _CLOUD_CONFIG,
    "## template: jinja": "text/jinja2",
}
"""Longer ones first: the first that the text begins with counts."""
_TOLD_BY_HEADER = ("text/plain", "text/x-not-multipart", "text/x-shellscript", "application/octet-stream")
_MODULE_LISTS = ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules")
_TRUE = frozenset({"true", "1", "on", "yes"})

_PHONE_HOME = "holds phone_home, by which the operator learns that the system is up; remove it"
_TEMPLATED = re.compile(r"^[^\S\n]*['\"]?phone_home['\"]?\s*:", re.MULTILINE)


class _Unfit(Exception):
    """User data can't be used; `args[0]` completes a sentence that begins with what it is about."""


@dataclass(slots=True)
class _Budget:
    """What may still be unpacked in one check, however it nests."""

    parts: int = _MOST_PARTS
    size: int = _MOST_UNPACKED

    def take(self, *, parts: int = 0, size: int = 0) -> None:
        self.parts -= parts
        self.size -= size
        if self.parts < 0 or self.size < 0:
            raise _Unfit(f"unpacks to more than {_MOST_PARTS} parts or {_MOST_UNPACKED // 2**20} MiB")


class _Part(Message):
    """A part of a MIME message, with headers of bearable length."""

    def set_raw(self, name: str, value: Any) -> None:
        if len(value) > _LONGEST_HEADER:
            raise _Unfit(f"has a MIME header longer than {_LONGEST_HEADER} characters")
        super().set_raw(name, value)


def problem_with(user_data: bytes) -> str | None:
    """One sentence on why this user data can't be used, None if it can.

    Takes a good part of a second for the megabyte that a Secret can hold, and some seconds for what was made to take
    long: not for the event loop's own thread, nor for one that others wait for.
    """
    if len(user_data) > MOST_BYTES:
        return f"The user data is larger than the {MOST_BYTES // 2**20} MiB that fit into the cloud-init seed."
    try:
        _check(user_data, None, 0, _Budget())
    except _Unfit as unfit:
        return f"The user data {unfit}."
    except RecursionError:
        return "The user data nests too deeply to be read."
    return None


def _check(data: bytes, kind: str | None, depth: int, budget: _Budget) -> None:
    """Look into user data or a part of it; `kind` is its MIME type where one was declared."""
    if depth > _DEEPEST:
        raise _Unfit("nests too deeply to be read")
    if data.startswith(_GZIP):
        return _check(_unpacked(data, budget), None, depth + 1, budget)
    if kind is None and _MIME in data[:4096].lower():
        return _check_parts(data, depth, budget)
    text = _text(data)
    match kind or _kind(text):
        case "text/cloud-config":
            _check_cloud_config(text)
        case "text/cloud-config-archive":
            for part in _archived(text, budget):
                _check(part, None, depth + 1, budget)
        case "text/cloud-config-jsonp":
            _check_patch(text)
        case "text/jinja2" if _TEMPLATED.search(text):
            raise _Unfit(_PHONE_HOME)
    return None


def _check_parts(data: bytes, depth: int, budget: _Budget) -> None:
    if len(_MULTIPART.findall(data)) > _DEEPEST:  # each line is compared with the boundaries of all around it
        raise _Unfit("nests too deeply to be read")

    def begun(**settings: Any) -> _Part:
        budget.take(parts=1)
        return _Part(**settings)

    for part in email.message_from_bytes(data, begun).walk():
        if part.is_multipart():
            continue
        payload = part.get_payload(decode=True)
        kind = part.get_content_type()
        if not isinstance(payload, bytes):
            continue
        budget.take(size=len(payload))
        told = kind in _TOLD_BY_HEADER
        if told or kind.startswith("text/") or payload.startswith(_GZIP):
            header = _header(payload.decode("utf-8", "replace")) if told else None
            if not told or header or payload.startswith(_GZIP):
                _check(payload, header or kind, depth + 1, budget)


def _header(text: str) -> str | None:
    start = text.lstrip()[:40].lower()
    return next((kind for header, kind in _BY_HEADER.items() if start.startswith(header)), None)


def _kind(text: str) -> str:
    """What cloud-init takes a text for by its first line."""
    if kind := _header(text):
        return kind
    start = text.lstrip()[:40].lower()
    if start and not start.startswith(_OPAQUE):
        raise _Unfit(
            "begins with nothing that cloud-init knows; its first line must be #cloud-config, a #! of a script, "
            "a MIME-Version header, ## template: jinja, #cloud-boothook, #include or #part-handler"
        )
    return "text/plain"


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Unfit(f"is not UTF-8 text at byte {error.start + 1}") from None


def _unpacked(data: bytes, budget: _Budget) -> bytes:
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        text = reader.decompress(data, MOST_READ + 1)
    except zlib.error:
        raise _Unfit("begins like gzip but can't be unpacked") from None
    if len(text) > MOST_READ:
        raise _Unfit(f"is larger than {MOST_READ // 2**20} MiB when unpacked")
    if not reader.eof:
        raise _Unfit("begins like gzip but ends early")
    budget.take(parts=1, size=len(text))
    return text


def _outline(text: str) -> Outline | None:
    if len(text) > MOST_READ:
        raise _Unfit(f"holds a cloud-config larger than {MOST_READ // 2**20} MiB")
    try:
        return outline(text)
    except NotYAMLError as error:
        raise _Unfit(str(error)) from None


def _check_cloud_config(text: str) -> None:
    document = _outline(text)
    if document is None:
        return
    if not isinstance(document, dict):
        raise _Unfit("is a #cloud-config whose content is no mapping of keys to values")
    keys = entries(document)
    if "phone_home" in keys:
        raise _Unfit(_PHONE_HOME)
    if "vendor_data" in keys:
        _check_vendor_data(keys["vendor_data"])
    if "cloud_final_modules" in keys:
        modules = {name for key in _MODULE_LISTS if key in keys for name in _modules(keys[key])}
        if "phone_home" not in modules:
            raise _Unfit("sets cloud_final_modules without phone_home; add it to the list")


def _check_vendor_data(setting: Outline) -> None:
    keys = entries(setting)
    on = isinstance(setting, dict) and str(keys.get("enabled", "true")).lower() in _TRUE
    if not on or "disabled_handlers" in keys:
        raise _Unfit(
            "switches vendor_data off, by which the system is told to report that it is up; remove vendor_data"
        )


def _modules(setting: Outline) -> Iterator[str]:
    """Names in a list of modules, each of which may be a list that begins with its name."""
    for item in setting if isinstance(setting, list) else ():
        name = item[0] if isinstance(item, list) and item else item
        if isinstance(name, str):
            yield name.replace("-", "_").removeprefix("cc_")


def _archived(text: str, budget: _Budget) -> Iterator[bytes]:
    document = _outline(text)
    if not isinstance(document, list):
        raise _Unfit("is a #cloud-config-archive whose content is no list")
    for item in document:
        keys = {"content": item} if isinstance(item, str) else entries(item)
        content = keys.get("content")
        budget.take(parts=1, size=len(keys) + len(content or ""))  # aliases make much of little
        if isinstance(content, str) and _header(content):
            yield content.encode("utf-8", "replace")


def _check_patch(text: str) -> None:
    try:
        patch = json.loads(text.lstrip()[len("#cloud-config-jsonp") :])
    except ValueError:
        raise _Unfit("is a #cloud-config-jsonp whose content is no JSON") from None
    for change in patch if isinstance(patch, list) else ():
        path = change.get("path") if isinstance(change, dict) else None
        if isinstance(path, str) and path.split("/")[1:2] in (["phone_home"], []):
            raise _Unfit(_PHONE_HOME)
