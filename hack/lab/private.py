"""Files with credentials."""

from __future__ import annotations

from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write what only its owner may read, at no moment readable by others."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)
