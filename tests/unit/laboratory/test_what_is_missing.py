"""What a machine lacks is said at once and together, each with its remedy; a step that fails spares no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import cache, controlplane, installation, system
from lab import controlplane_build as build
from lab import rack as racks
from lab.console import CONTINUED
from lab.controlplane_choice import Kind
from lab.errors import Several, Unfit, run, together
from lab.paths import REPOSITORY
from lab.system import Room, require_room


def refuse(problem: str) -> None:
    raise Unfit(problem, f"mend {problem}")


def test_every_problem_is_told_with_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    def all_of_them() -> None:
        together(lambda: refuse("a"), lambda: together(lambda: refuse("b"), lambda: refuse("c")), lambda: None)

    assert run(all_of_them) == 2
    assert capsys.readouterr().err == "a\n  remedy: mend a\nb\n  remedy: mend b\nc\n  remedy: mend c\n"


def test_a_step_that_fails_leaves_the_others_their_turn() -> None:
    done: list[str] = []
    with pytest.raises(Unfit, match="a") as alone:
        together(lambda: refuse("a"), lambda: done.append("b"))
    assert done == ["b"]
    assert not isinstance(alone.value, Several)


def test_what_is_no_sentence_stays_an_error_of_its_own() -> None:
    def crash() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        together(crash, lambda: None)
    with pytest.raises(ExceptionGroup) as both:
        together(crash, lambda: refuse("a"))
    assert [type(error) for error in both.value.exceptions] == [ZeroDivisionError, Unfit]


# --- room ---------------------------------------------------------------------------------------------------------


def test_what_shares_a_file_system_is_added_up(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / 2**30
    one, other = Room("image", tmp_path / "not" / "there", free * 0.6), Room("rack", tmp_path, free * 0.6, "move it")
    require_room(one)
    require_room(other)
    with pytest.raises(Unfit, match=r"GiB are needed: image .*, rack ") as refused:
        require_room(one, other)
    assert refused.value.remedy == "free some space there, or move it"


def test_file_systems_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(Several) as refused:
        require_room(Room("a", tmp_path, 1e9), Room("b", Path("/proc/self"), 1e9))
    assert [each.problem.rpartition(": ")[2] for each in refused.value.every] == ["a 1e+09.", "b 1e+09."]


def test_what_is_cached_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", tmp_path)
    assert [room.gib for room in cache.room_for("thing", "key", 5)] == [5]
    cache.built("thing", "key", lambda folder: (folder / "it").touch())
    assert cache.room_for("thing", "key", 5) == []
    assert cache.BUILT[-1] == "thing"


def test_a_build_that_somebody_used_lately_is_not_swept_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another checkout's operator may run from it."""
    monkeypatch.setattr(cache, "CACHE", tmp_path)
    for key in ("1", "2", "3", "4"):
        cache.built("thing", key, lambda _: None)
    for key in ("3", "4"):
        os.utime(cache.path_of("thing", key), (0, 0))
    (tmp_path / "thing-interrupted").mkdir()
    cache.built("thing", "5", lambda _: None)
    assert sorted(folder.name for folder in tmp_path.glob("thing-*")) == ["thing-1", "thing-2", "thing-5"]


def test_a_new_rack_needs_room_for_each_of_its_machines() -> None:
    (disks,) = [room for room in racks.room("nosuch") if room.what == "rack nosuch"]
    assert disks.gib == 8


# --- programs -----------------------------------------------------------------------------------------------------


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_host_without_dpkg_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unfit, match="has no dpkg") as refused:
        system.missing_packages(["ipxe"])
    assert refused.value.remedy == "run it on Debian 12"


def test_a_go_that_is_too_old_is_refused_before_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With GOTOOLCHAIN=local, `go version` succeeds in a module that asks for a newer one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    put(tmp_path, "go", "echo go version go1.19.8 linux/amd64")
    old = rf"`go version` says go1\.19\.8 linux/amd64, older than the {build.needed_go()} that is needed"
    for refused_by in (lambda: controlplane.check("nosuch"), build.programs):
        with pytest.raises(Unfit, match=old) as refused:
            refused_by()
        assert f"install Go {build.needed_go()} or newer" in refused.value.remedy


@pytest.mark.parametrize(
    ("go", "fits"),
    [
        ("go version go1.26.0 linux/amd64", True),
        ("go version go1.26.8 linux/amd64", True),
        ("go version go1.30 linux/amd64", True),
        ("go version go2.0.1 linux/amd64", True),
        ("go version devel go1.27-8f7a3b linux/amd64", True),
        ("go version go1.26rc1 linux/amd64", False),
        ("go version go1.25.9 linux/amd64", False),
        ("go version go1.9 linux/amd64", False),
        ("go version unknown", False),
        (None, False),
    ],
)
def test_releases_are_compared_as_go_compares_them(go: str | None, *, fits: bool) -> None:
    assert (build.why_not(go) is None) == fits


def test_the_readme_names_the_go_that_is_needed() -> None:
    major, minor, _ = build.needed_go().split(".")
    assert f"Go {major}.{minor} or newer" in (REPOSITORY / "README.md").read_text()


# --- going on, and going away -------------------------------------------------------------------------------------


def test_the_demo_speaks_before_anything_is_installed() -> None:
    """It says what it will do, and what is missing, with the standard library alone (-S: no site-packages)."""
    path = os.pathsep.join([str(REPOSITORY / "hack"), str(REPOSITORY / "operator")])
    command = [sys.executable, "-S", "-c", "import lab.demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr


def test_stages_of_the_program_that_was_replaced_are_counted() -> None:
    code = "from lab.console import CONTINUED, TIMES; print(CONTINUED, TIMES)"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "hack"), "RACKWRIGHT_STAGE_TIMES": '{"a": 1.5}'}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "True {'a': 1.5}\n"
    assert "RACKWRIGHT_STAGE_TIMES" not in os.environ
    assert isinstance(CONTINUED, bool)


def test_down_removes_the_rack_though_the_control_plane_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster of kind's, and no kind any more."""
    run, state = tmp_path / "run/nosuch", tmp_path / "state/nosuch"
    record = state / "control-plane/record.json"
    for folder in (run, record.parent):
        folder.mkdir(parents=True)
    monkeypatch.setattr("lab.controlplane_record.STATE", state.parent)
    monkeypatch.setattr("lab.controlplane_record.run_dir", lambda _: run)
    monkeypatch.setattr(installation, "run_dir", lambda _: run)
    monkeypatch.setattr(installation, "state_dir", lambda _: state)
    monkeypatch.setenv("PATH", "/nonexistent")
    record.write_text(json.dumps({"kind": Kind.KIND, "kubectl": "/k", "engine": "docker", "ports": []}))
    removed: list[str] = []
    monkeypatch.setattr(racks, "down", removed.append)
    with pytest.raises(Unfit, match="kind isn't on the PATH"):
        installation.down("nosuch")
    assert removed == ["nosuch"]
    assert not [folder for folder in (run / "operator", state / "operator") if folder.exists()]
    assert record.exists()  # so that it can be tried again


def test_skipped_tests_are_said_to_be_left_out(tmp_path: Path) -> None:
    command = [sys.executable, "hack/test", "--no-rack", "tests/unit/test_dnsmasq.py", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, env=environment)
    assert told.stdout.splitlines()[-2:] == [
        "LEFT OUT: the tests on real virtual machines in tests/rack (--no-rack).",
        "LEFT OUT: tests/unit/test_dnsmasq.py::test_dnsmasq_accepts_it (dnsmasq is not installed).",
    ]
