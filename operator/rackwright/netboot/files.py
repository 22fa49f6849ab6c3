"""Serves the ramdisk, iPXE's binaries and, in demonstrations and tests, operating system images.

Each folder is flat and read-only: a URL names one file in it and can't name anything else. aiohttp's `FileResponse`
does the sending. What it would do beyond that is held back here: it answers with `NAME.gz` where there is one, splices
two versions of a file when `If-Range` holds an ETag, and refuses ranges that HTTP wants ignored.
"""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

_ONE_RANGE = re.compile(r"bytes=([0-9]+-[0-9]*|-0*[1-9][0-9]*)", re.IGNORECASE)


class Files:
    """Files by name: `Files({"/boot/files": [Path("/srv/boot"), Path("/usr/lib/ipxe")]})`."""

    def __init__(self, folders: Mapping[str, Sequence[Path]]) -> None:
        """Serve folders under a path, the first that has a name wins; one that doesn't exist yet has no files."""
        self._folders = dict(folders)

    def routes(self) -> list[web.RouteDef]:
        """What the application serves, for GET and HEAD."""
        return [web.get(f"{path}/{{name}}", self._served_from(folders)) for path, folders in self._folders.items()]

    @staticmethod
    def _served_from(folders: Sequence[Path]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            found = (find(folder, request.match_info["name"]) for folder in folders)
            path = await asyncio.to_thread(next, filter(None, found), None)
            if path is None:
                raise web.HTTPNotFound
            return _WholeFile(path, headers={hdrs.CONTENT_TYPE: "application/octet-stream"})

        return serve


def find(folder: Path, name: str) -> Path | None:
    """The regular file of this name in the folder, links followed; None if there is none or it lies elsewhere."""
    if "/" in name or "\0" in name or name in {"", ".", ".."}:
        return None
    try:
        path = (folder / name).resolve(strict=True)
        inside = path.is_relative_to(folder.resolve(strict=True))
        return path if inside and stat.S_ISREG(path.stat().st_mode) else None
    except (OSError, RuntimeError):  # RuntimeError: a loop of links
        return None


class _WholeFile(web.FileResponse):
    """A `FileResponse` of exactly the file, with ranges as RFC 9110, sections 13.1.5 and 14, has them."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        headers = request.headers.copy()
        headers.popall(hdrs.ACCEPT_ENCODING, None)
        single = _ONE_RANGE.fullmatch(headers.get(hdrs.RANGE, ""))
        if request.method != hdrs.METH_GET or hdrs.IF_RANGE in headers or not single:
            headers.popall(hdrs.RANGE, None)
        headers.popall(hdrs.IF_RANGE, None)
        return await super().prepare(request.clone(headers=headers))
