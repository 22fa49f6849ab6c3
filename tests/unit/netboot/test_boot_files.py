"""Files by name: all of a file or one range of it, and nothing outside of its folder."""

from __future__ import annotations

import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from rackwright.netboot.files import Files, find

CONTENT = bytes(range(256)) * 4
Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    folder = tmp_path / "boot"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "vmlinuz").write_bytes(CONTENT)
    (folder / "vmlinuz.gz").write_bytes(gzip.compress(b"something else"))
    (folder / "empty").touch()
    (folder / "initrd").symlink_to("vmlinuz")
    (folder / "out").symlink_to("../secret")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "folder").mkdir()
    (folder / "folder" / "inner").touch()
    os.mkfifo(folder / "fifo")
    app = web.Application()
    app.add_routes(Files({"/boot/files": [folder], "/images": [tmp_path / "not-there"]}).routes())
    async with TestClient(TestServer(app), auto_decompress=False) as it:
        yield it


async def test_a_file_is_served_whole(client: Client) -> None:
    response = await client.get("/boot/files/vmlinuz")
    assert response.status == 200
    assert await response.read() == CONTENT
    assert response.headers["Content-Length"] == "1024"
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["ETag"]


async def test_head_tells_the_size_and_ignores_ranges(client: Client) -> None:
    response = await client.head("/boot/files/vmlinuz", headers={"Range": "bytes=0-1"})
    assert response.status == 200
    assert response.headers["Content-Length"] == "1024"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("0-0", 0, 1),
        ("10-19", 10, 20),
        ("1000-", 1000, 1024),
        ("1000-9999", 1000, 1024),
        ("-4", 1020, 1024),
        ("-4000", 0, 1024),
    ],
)
async def test_one_range_of_a_file(client: Client, asked: str, start: int, stop: int) -> None:
    response = await client.get("/boot/files/vmlinuz", headers={"Range": f"bytes={asked}"})
    assert response.status == 206
    assert await response.read() == CONTENT[start:stop]
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/1024"


@pytest.mark.parametrize(("name", "asked"), [("vmlinuz", "1024-"), ("vmlinuz", "5000-6000"), ("empty", "0-")])
async def test_a_range_beyond_the_end_is_refused_with_the_size(client: Client, name: str, asked: str) -> None:
    response = await client.get(f"/boot/files/{name}", headers={"Range": f"bytes={asked}"})
    assert response.status == 416
    assert response.headers["Content-Range"] == f"bytes */{0 if name == 'empty' else 1024}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=-0", "bytes=a-b", "bytes"])
async def test_ranges_that_we_do_not_serve_are_ignored(client: Client, asked: str) -> None:
    response = await client.get("/boot/files/vmlinuz", headers={"Range": asked})
    assert response.status == 200
    assert await response.read() == CONTENT


async def test_two_versions_of_a_file_are_never_spliced(client: Client) -> None:
    response = await client.get("/boot/files/vmlinuz", headers={"Range": "bytes=5-", "If-Range": '"another"'})
    assert response.status == 200
    assert await response.read() == CONTENT


async def test_a_client_that_has_the_file_is_told_so(client: Client) -> None:
    etag = (await client.get("/boot/files/vmlinuz")).headers["ETag"]
    response = await client.get("/boot/files/vmlinuz", headers={"If-None-Match": etag})
    assert response.status == 304
    assert await response.read() == b""


async def test_a_compressed_neighbour_never_takes_a_files_place(client: Client) -> None:
    response = await client.get("/boot/files/vmlinuz", headers={"Accept-Encoding": "gzip"})
    assert await response.read() == CONTENT
    assert "Content-Encoding" not in response.headers


async def test_a_link_within_the_folder_is_followed(client: Client) -> None:
    assert await (await client.get("/boot/files/initrd")).read() == CONTENT


async def test_the_first_folder_that_has_a_name_wins(tmp_path: Path) -> None:
    for folder, names in (("one", "a"), ("two", "ab")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text(folder)
    app = web.Application()
    app.add_routes(Files({"/boot/files": [tmp_path / "none", tmp_path / "one", tmp_path / "two"]}).routes())
    async with TestClient(TestServer(app)) as it:
        assert await (await it.get("/boot/files/a")).text() == "one"
        assert await (await it.get("/boot/files/b")).text() == "two"


@pytest.mark.parametrize(
    "path",
    [
        "/boot/files/unknown",
        "/boot/files/out",
        "/boot/files/loop",
        "/boot/files/dangling",
        "/boot/files/fifo",
        "/boot/files/folder",
        "/boot/files/folder/inner",
        "/boot/files/folder%2Finner",
        "/boot/files/",
        "/boot/files/..",
        "/boot/files/../secret",
        "/boot/files/..%2Fsecret",
        "/boot/files/%2E%2E%2Fsecret",
        "/boot/files/%2Fetc%2Fpasswd",
        "/boot/files//etc/passwd",
        "/boot/files/vmlinuz%00",
        "/boot/files/" + "a" * 300,
        "/images/anything",
    ],
)
async def test_nothing_else_is_found(client: Client, path: str) -> None:
    response = await client.get(URL(path, encoded=True))
    assert response.status == 404
    assert b"secret" not in await response.read()


@given(st.text(alphabet="./\\ab\0%~", max_size=12))
def test_no_name_leads_out_of_a_folder(name: str) -> None:
    here = Path(__file__).parent
    found = find(here, name)
    assert found is None or found.parent == here
