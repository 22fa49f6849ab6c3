"""What keeps a system from phoning home is found before it is installed, and never quoted."""

from __future__ import annotations

import base64
import gzip
import time
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rackwright.install.user_data import MOST_BYTES, problem_with

HOME = b"phone_home: {url: http://elsewhere.example, tries: 3}\n"


def mime(*parts: tuple[str, str]) -> bytes:
    message = MIMEMultipart()
    for subtype, text in parts:
        message.attach(MIMEText(text, subtype))
    return message.as_bytes()


@pytest.mark.parametrize(
    "user_data",
    [
        b"",
        b"#cloud-config\n",
        b"#cloud-config\n{}\n",
        b"\n  #Cloud-Config\npackages: [vim]\n",
        b"#cloud-config\n# phone_home: is not used\nwrite_files: [{path: /a, content: 'phone_home: no'}]\n",
        b"#cloud-config\nruncmd:\n- [sh, -c, 'echo phone_home']\n",
        b"#cloud-config\nvendor_data: {enabled: true}\n",
        b"#cloud-config\nvendor_data: {enabled: 'yes', prefix: []}\n",
        b"#cloud-config\ncloud_config_modules: [ntp]\n",
        b"#cloud-config\ncloud_final_modules: [[scripts-user, always], phone-home]\n",
        b"#cloud-config\ncloud_final_modules: [scripts_user]\ncloud_config_modules: [cc_phone_home]\n",
        b"#!/bin/sh\nphone_home: no\n",
        b"#!/usr/bin/env python3\nprint('h\xc3\xa9')\n",
        b"## template: jinja\n#cloud-config\n{% if v1.distro == 'debian' %}\npackages: [vim]\n{% endif %}\n",
        b"#cloud-boothook\necho\n",
        b"#include http://config.example/user-data\n",
        b"#include-once\nhttp://config.example/user-data\n",
        b"#part-handler\n",
        b"#cloud-config-archive\n- '#!/bin/sh\n\n  true'\n- {type: text/cloud-config, content: '#cloud-config'}\n",
        b'#cloud-config-jsonp\n[{"op": "add", "path": "/packages", "value": ["vim"]}]\n',
        mime(
            ("x-shellscript", "#!/bin/sh\n"), ("cloud-config", "#cloud-config\npackages: [vim]\n"), ("plain", "hello")
        ),
        gzip.compress(b"#cloud-config\npackages: [vim]\n", mtime=0),
    ],
)
def test_what_cloud_init_understands_and_lets_the_system_phone_home_is_fine(user_data: bytes) -> None:
    assert problem_with(user_data) is None


@pytest.mark.parametrize(
    "user_data",
    [
        b"#cloud-config\n" + HOME,
        b"#cloud-config\npackages: [vim]\n'phone_home': null\n",
        b"#cloud-config\nx: &x {phone_home: {}}\n<<: *x\n",
        b"#cloud-config\nx: &x {phone_home: {}}\n<<: [{}, *x]\n",
        b'#cloud-config-archive\n- {type: text/cloud-config, content: "#cloud-config\\nphone_home: {}"}\n',
        b'#cloud-config-archive\n- "#cloud-config\\nphone_home: {}"\n',
        b'#cloud-config-jsonp\n[{"op": "add", "path": "/phone_home", "value": {}}]\n',
        b'#cloud-config-jsonp\n[{"op": "add", "path": "/phone_home/url", "value": "x"}]\n',
        b"## template: jinja\n#cloud-config\n" + HOME,
        mime(("x-shellscript", "#!/bin/sh\n"), ("cloud-config", HOME.decode())),
        mime(("plain", "#cloud-config\n" + HOME.decode())),
        b"MIME-Version: 1.0\nContent-Type: application/octet-stream\n\n#cloud-config\n" + HOME,
        gzip.compress(b"#cloud-config\n" + HOME, mtime=0),
        gzip.compress(mime(("cloud-config", HOME.decode())), mtime=0),
    ],
)
def test_phone_home_is_refused_wherever_it_hides(user_data: bytes) -> None:
    problem = problem_with(user_data)
    assert problem is not None
    assert "holds phone_home" in problem
    assert "elsewhere" not in problem


@pytest.mark.parametrize(
    ("user_data", "says"),
    [
        (b"#cloud-config\nvendor_data: {enabled: false}\n", "switches vendor_data off"),
        (b"#cloud-config\nvendor_data: {enabled: 'off'}\n", "switches vendor_data off"),
        (b"#cloud-config\nvendor_data: false\n", "switches vendor_data off"),
        (b"#cloud-config\nvendor_data: {disabled_handlers: [text/cloud-config]}\n", "switches vendor_data off"),
        (b"#cloud-config\ncloud_final_modules: [scripts-user]\n", "without phone_home"),
        (b"#cloud-config\ncloud_final_modules: null\n", "without phone_home"),
        (b"#cloud-config\nusers:\n- name: a\n passwd: hunter2\n", "not valid YAML at line 4, column 2"),
        (b'#cloud-config\npasswd: "hunter2\n', "not valid YAML at line 3, column 1"),
        (b"#cloud-config\npasswd: hunter2\x00\n", "characters that YAML doesn't allow"),
        (b"#cloud-config\npasswd: *hunter2\n", "not valid YAML at line 2, column 9"),
        (b"#cloud-config\npasswd: hunter2\n---\nx: y\n", "more than one YAML document"),
        (b"#cloud-config\n- hunter2\n", "no mapping"),
        (b"#cloud-config\nhunter2\n", "no mapping"),
        (b"#cloud-config-archive\nhunter2: 1\n", "no list"),
        (b"#cloud-config-jsonp\nhunter2\n", "no JSON"),
        (b"packages: [hunter2]\n", "begins with nothing that cloud-init knows"),
        (b"# cloud-config\npasswd: hunter2\n", "begins with nothing that cloud-init knows"),
        (b"\xef\xbb\xbf#cloud-config\n{}\n", "begins with nothing that cloud-init knows"),
        (b"#cloud-config\nname: J\xfcrg\n", "not UTF-8 text at byte 22"),
        (b"\x7fELF\xff", "not UTF-8"),
        (b"\x1f\x8bhunter2", "can't be unpacked"),
        (gzip.compress(b"#cloud-config\npasswd: hunter2\n" * 100, mtime=0)[:-20], "ends early"),
        (gzip.compress(b"#" * (5 * 2**20)), "larger than 4 MiB when unpacked"),
        (b"#cloud-config\n" + b"[" * 100_000, "too deeply"),
        (b"#cloud-config\n" + b"{a: " * 5_000 + b"}" * 5_000, "too deeply"),
        (b"#!" + b"x" * MOST_BYTES, "larger than the 60 MiB"),
    ],
)
def test_what_would_be_lost_on_the_machine_is_said_here_without_quoting_it(user_data: bytes, says: str) -> None:
    problem = problem_with(user_data)
    assert problem is not None
    assert says in problem
    assert "hunter2" not in problem
    assert problem.startswith("The user data ")
    assert problem.endswith(".")


@pytest.mark.parametrize("nest", ["[", "{a: ", "- ", "&a [*a,", "a: &a {<<: *a}, "])
def test_a_stranger_can_not_make_the_operator_work_without_end(nest: str) -> None:
    problem = problem_with(b"#cloud-config\n" + (nest * (2**20 // len(nest))).encode())
    assert problem is not None
    assert "nests too deeply" in problem or "not valid YAML" in problem


def test_a_template_of_empty_lines_is_read_once() -> None:
    started = time.process_time()
    assert problem_with(b"## template: jinja\n" + b"\n" * 20_000) is None
    assert time.process_time() - started < 0.2


def packed(layers: int) -> bytes:
    """Eight times what is in it, layer by layer."""
    inner = b"#!/bin/sh\n"
    for _ in range(layers):
        part = b"\n--b\nContent-Transfer-Encoding: base64\n\n" + base64.b64encode(inner)
        inner = gzip.compress(b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n" + part * 200)
    return inner


def nested_archive(layers: int) -> bytes:
    inner = "#cloud-config\n"
    for _ in range(layers):
        inner = "#cloud-config-archive\n" + yaml.safe_dump([inner] * 30)
    return inner.encode()


@pytest.mark.parametrize(
    "user_data",
    [
        packed(3),
        nested_archive(3),
        b"#cloud-config-archive\n- &a '#!" + b" " * 100_000 + b"'\n" + b"- *a\n" * 900,
        b"#cloud-config-archive\n- &a {" + b", ".join(b"k%d: v" % n for n in range(20_000)) + b"}\n" + b"- *a\n" * 900,
        b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n" + b"\n--b\n" * 100_000,
        b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b" + b";a" * 300_000 + b"\n\n--b\n",
        b"MIME-Version: 1.0\n"
        + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(200))
        + b"\n" * 300_000,
    ],
    ids=["mime-in-gzip", "archives", "aliases", "merges", "parts", "header", "nested"],
)
def test_what_unpacks_without_end_is_refused_soon(user_data: bytes) -> None:
    started = time.process_time()
    problem = problem_with(user_data)
    assert time.process_time() - started < 5
    assert problem is not None
    assert any(says in problem for says in ("more than 1000 parts or 8 MiB", "longer than 8192", "too deeply"))


def test_merge_keys_that_grow_exponentially_are_read_once_each() -> None:
    lines = [b"a0: &a0 {x: 1}"]
    lines += [b"a%d: &a%d {<<: [%s]}" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 30)]
    lines.append(b"<<: *a29")
    assert problem_with(b"#cloud-config\n" + b"\n".join(lines)) is None


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"#cloud-config\n", b"MIME-Version: 1.0\n", b"\x1f\x8b", b"#cloud-config-archive\n- "]),
)
def test_no_bytes_make_it_raise(tail: bytes, head: bytes) -> None:
    problem = problem_with(head + tail)
    assert problem is None or "\n" not in problem


@given(
    st.dictionaries(
        st.text(max_size=20), st.recursive(st.text(max_size=20) | st.integers(), st.lists, max_leaves=5), max_size=5
    )
)
def test_a_cloud_config_of_other_keys_is_fine(document: dict[str, object]) -> None:
    user_data = b"#cloud-config\n" + yaml.safe_dump(document, allow_unicode=False).encode()
    taken = {"phone_home", "vendor_data", "cloud_final_modules"} & set(document)
    assert bool(taken) or problem_with(user_data) is None
