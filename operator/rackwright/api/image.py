"""OperatingSystemImage: something that can be written to a machine's disk. Cluster-scoped: every namespace's."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from rackwright.api.fields import HTTPURL, Checksum, Model, documented, rules
from rackwright.api.machine import Architecture

_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

DiskSize = Annotated[
    str,
    Field(
        json_schema_extra={
            "maxLength": 20,
            **rules(
                (
                    "self.matches('^[1-9][0-9]*(Ki|Mi|Gi|Ti)?$')",
                    "must be a size in bytes with an optional Ki, Mi, Gi or Ti, like 4Gi",
                )
            ),
        }
    ),
]


def size_in_bytes(size: str) -> int:
    """`4Gi` → 4294967296."""
    match = re.fullmatch(r"(\d+)([KMGT]i)?", size)
    if match is None:
        raise ValueError(f"{size!r} is no size")
    return int(match[1]) * _UNITS[match[2] or ""]


class OperatingSystemImageSpec(Model):
    """Where the image is and how to know that it is the right one."""

    url: HTTPURL = Field(description="Where the ramdisk downloads it from.")
    checksum: Checksum = Field(description="Of the file at url, as sha256:HEX or sha512:HEX.")
    format: Annotated[str, Field(json_schema_extra=documented(("raw", "qcow2")))] = Field(
        description="raw is streamed to the disk; qcow2 is downloaded to memory first and must fit there."
    )
    architecture: Architecture = Field(default=Architecture.AMD64, description="Processor architecture it runs on.")
    min_disk: DiskSize | None = Field(default=None, description="The smallest disk it fits on.")
