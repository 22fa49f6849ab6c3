"""The demonstration for people without hardware, as they type it: from nothing, again, and gone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from tests.kube.operators import free_port

from lab import controlplane, installation
from lab.paths import REPOSITORY

pytestmark = [pytest.mark.kube, pytest.mark.nightly]

NAME = f"sim{os.getpid() % 10000:04}"


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [REPOSITORY / "hack/demo", *arguments, "--name", NAME], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def port() -> Iterator[str]:
    try:
        yield str(free_port())
    finally:
        installation.stop(NAME)


def test_machines_that_do_not_exist_are_shown_once_more_from_where_they_are_and_taken_away(port: str) -> None:
    shown = demo("--simulated", "--machines", "4", "--port", port).stdout
    assert "sim-00001   Deployed   team-search" in shown
    assert "sim-00004   Ready" in shown
    plane = controlplane.find(NAME)
    assert plane is not None
    assert installation.Operated(plane).operator.pid is not None

    again = demo("--simulated", "--machines", "4", "--port", port)
    assert "1 or more machines have owners already" in again.stderr
    records = json.loads(plane.ctl("get", "bmm", "-n", "machines", "-o", "json").stdout)["items"]
    assert [r["status"]["phase"] for r in records] == ["Deployed", "Ready", "Ready", "Ready"]
    assert [r["metadata"]["generation"] for r in records] == [2, 1, 1, 1]  # nothing was declared anew

    installation.stop(NAME)
    assert controlplane.find(NAME) is None
    assert not installation.is_there(NAME)
