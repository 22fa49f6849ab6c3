"""What a person reads when the operator can't begin: one sentence, and never a traceback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from lab.paths import REPOSITORY
from rackwright import __version__, app, logs, server
from rackwright.__main__ import main
from rackwright.api.machine import Phase
from rackwright.assignment import Plan
from rackwright.census import EXPECTED
from rackwright.netboot.dnsmasq import LOADERS

TOKEN = "hunter2-the-token"
NO_CONTEXT = f"users: [{{name: me, user: {{token: {TOKEN}}}}}]\nclusters: []\ncontexts: []\n"


def run(folder: Path, *more: str, kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    """The operator as a process, on a machine without a cluster."""
    return subprocess.run(
        [sys.executable, "-m", "rackwright", "run", "--base-url", "http://10.0.0.1", "--ramdisk", str(folder), *more],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "operator"), "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def settings(*options: str, folder: Path) -> app.Settings:
    """How an operator is started that is given these options."""
    told: list[app.Settings] = []

    async def take(settings: app.Settings) -> int:
        told.append(settings)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "run", take)
        patch.setattr(logs, "configure", lambda *_: None)
        assert main(["run", "--base-url", "http://10.0.0.1", "--ramdisk", str(folder), *options]) == 0
    return told[0]


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What it said last, having said it in one line."""
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("rackwright: ")]
    assert len(said) == 1, done.stderr
    return said[0]


def test_an_operator_without_a_kubeconfig_says_so(tmp_path: Path) -> None:
    said = sentence(run(tmp_path, kubeconfig=tmp_path / "missing"))
    assert f"{tmp_path}/missing isn't there; set KUBECONFIG" in said


@pytest.mark.parametrize("content", [None, "", "[]", "{", "clusters: 7", NO_CONTEXT])
def test_a_kubeconfig_that_is_none_is_named_and_not_quoted(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "config"
    if content is None:
        file.mkdir()
    else:
        file.write_text(content)
    done = run(tmp_path, kubeconfig=file)
    assert str(file) in sentence(done)
    assert TOKEN not in done.stderr


async def test_a_port_that_somebody_has_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(server.CannotListen, match=rf"can't listen on 127\.0\.0\.1:{port}: Address already in use"):
            async with server.listening(web.Application(), "127.0.0.1", port):
                pass


async def test_a_host_that_is_nowhere_is_named() -> None:
    with pytest.raises(server.CannotListen, match=r"can't listen on host\.invalid:0: no such address"):
        async with server.listening(web.Application(), "host.invalid", 0):
            pass


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--http-address", ":http"], "--http-address must be HOST:PORT"),
        (["--http-address", ":65536"], "--http-address must be HOST:PORT"),
        ([], "can't listen on 0.0.0.0:8080: Address already in use"),
    ],
)
def test_what_keeps_it_from_beginning_is_one_sentence_and_exit_code_2(
    arguments: Sequence[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def taken(settings: app.Settings) -> int:
        raise server.CannotListen(f"can't listen on {settings.http_host}:{settings.http_port}: Address already in use")

    monkeypatch.setattr(app, "run", taken)
    assert main(["run", "--base-url", "http://10.0.0.1", "--ramdisk", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"rackwright: {says}")


def test_a_configuration_that_cant_be_written_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--interface", "eth1", "--network", "10.0.0.0/24", "--dhcp-range", "10.0.0.10,10.0.0.20"]
    arguments += ["--base-url", "http://10.0.0.1:8080", "--tftp-root", str(tmp_path / "tftp")]
    for loader in LOADERS:
        (tmp_path / loader.file).touch()
    output = tmp_path / "no such folder" / "dnsmasq.conf"
    code = main(["dnsmasq", *arguments, "--ipxe", str(tmp_path), "--output", str(output)])
    assert code == 2
    assert f"can't prepare {output}: No such file or directory" in capsys.readouterr().err


def test_ipxe_that_isnt_there_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--interface", "eth1", "--network", "10.0.0.0/24", "--dhcp-range", "10.0.0.10,10.0.0.20"]
    arguments += ["--base-url", "http://10.0.0.1:8080", "--tftp-root", str(tmp_path / "tftp")]
    assert main(["dnsmasq", *arguments, "--ipxe", str(tmp_path / "none")]) == 2
    assert "can't prepare" in (said := capsys.readouterr().err)
    assert f"{tmp_path / 'none'}" in said


@pytest.mark.parametrize(
    ("arguments", "plan"),
    [
        ([], Plan()),
        (["--shards", "4"], Plan(4, frozenset({0, 1, 2, 3}))),
        (["--shard", "1/4"], Plan(4, frozenset({1}))),
        (["--shard", "0,3/4"], Plan(4, frozenset({0, 3}))),
    ],
)
def test_the_fleet_is_divided_as_it_was_asked_for(arguments: Sequence[str], plan: Plan, tmp_path: Path) -> None:
    assert settings(*arguments, folder=tmp_path).plan == plan


@pytest.mark.parametrize("option", ["--base-url", "--own-url"])
@pytest.mark.parametrize("url", ["https://10.0.0.1", "10.0.0.1:8080", "http://10.0.0.1/rackwright", "http://"])
def test_where_machines_are_to_call_and_cannot_is_refused(
    option: str, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        settings(option, url, folder=tmp_path)
    assert f"argument {option}: must be http://HOST" in capsys.readouterr().err


def test_it_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("option", ["--workers", "--bmc-concurrency"])
def test_how_much_goes_on_at_once_is_at_least_one(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = option.removeprefix("--").replace("-", "_")
    assert getattr(settings(folder=tmp_path), name) > 1
    assert getattr(settings(option, "1", folder=tmp_path), name) == 1
    with pytest.raises(SystemExit):
        settings(option, "0", folder=tmp_path)
    assert f"argument {option}: must be a number, 1 or more" in capsys.readouterr().err


TIMES = [
    *("--retry-base", "--power-poll", "--boot-timeout", "--agent-silence", "--bmc-timeout", "--bmc-settle"),
    *("--watch-silence", "--resync"),
]
AT_ONCE = ["--grace", "--show-progress-after"]


@pytest.mark.parametrize("option", [*TIMES, *AT_ONCE])
def test_a_time_that_none_can_be_is_refused_by_its_option(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(option, "0.5", folder=tmp_path)
    for time in ("-1", "nan", "inf", "1e300", "soon", *(["0"] if option in TIMES else [])):
        with pytest.raises(SystemExit):
            settings(f"{option}={time}", folder=tmp_path)
        assert f"argument {option}: must be a number of seconds" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("option", AT_ONCE)
def test_a_time_that_may_be_none_is_taken(option: str, tmp_path: Path) -> None:
    settings(option, "0", folder=tmp_path)


def test_every_time_is_refused_in_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    timed = re.findall(r"^  (--[a-z-]+) SECONDS", capsys.readouterr().out, re.MULTILINE)
    assert sorted(timed) == sorted([*TIMES, *AT_ONCE])


@pytest.mark.parametrize("shard", ["", "1", "4/4", "-1/4", "1/0", "a/4", "1/b", "1,/4"])
def test_a_shard_that_there_is_not_is_refused(shard: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--base-url", "http://10.0.0.1", "--ramdisk", str(tmp_path), f"--shard={shard}"])
    assert "must be NUMBER/SHARDS like 0/4" in capsys.readouterr().err


def test_shards_are_shared_or_given_and_not_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--shards", "4", "--shard", "0/4"]
    assert main(["run", "--base-url", "http://10.0.0.1", "--ramdisk", str(tmp_path), *both]) == 2
    assert "choose" in capsys.readouterr().err


def test_an_expected_time_replaces_that_phases_default_and_never_takes_it_away(tmp_path: Path) -> None:
    assert settings(folder=tmp_path).expected == EXPECTED
    given = settings("--expected-time", "Deploying=1h30m", "--expected-time", "Failed=never", folder=tmp_path)
    assert given.expected == {
        **{phase: time for phase, time in EXPECTED.items() if phase is not Phase.FAILED},
        Phase.DEPLOYING: timedelta(minutes=90),
    }


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("Flying=1h", "must begin with a phase, New, Commissioning"),
        ("Deploying", "must end in a duration like 45m or 1h30m, or in never, not ''"),
        ("Deploying=soon", "or in never, not 'soon'"),
        ("Deploying=0s", "or in never, not '0s'"),
    ],
)
def test_an_expected_time_that_is_none_is_refused_with_a_sentence(
    option: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        settings("--expected-time", option, folder=tmp_path)
    assert says in " ".join(capsys.readouterr().err.split())
