"""The demonstration, as a newcomer runs it: from nothing to a machine that was deployed and erased, and to nothing."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.laboratories import own

from lab import installation, network
from lab.paths import CACHE, REPOSITORY, STATE
from lab.process import Service

pytestmark = pytest.mark.rack

NAME = "newcomer"
COMMAND = f"hack/demo --name {NAME}"
STAGES = [
    "control plane",
    "ramdisk",
    "operating system image",
    "rack",
    "CRDs and rights",
    "operator",
    "node-01: kubectl apply -f node-01.yaml → Ready",
    "node-01: kubectl apply -f node-01-allocated.yaml → Allocated",
    "node-01: kubectl apply -f node-01-deployed.yaml → Deployed",
    "node-01: log in over SSH, host key from status",
]


@dataclass(frozen=True)
class Run:
    """One command, as a shell ran it."""

    code: int
    text: str
    """Both outputs, in the order in which they came."""

    @property
    def stages(self) -> list[str]:
        """The outermost stages that ended well, in order."""
        return re.findall(r"^  ✓ (.+) \d+ s$", self.text, re.MULTILINE)

    def offered(self, title: str) -> str:
        """A command that it prints as something to try."""
        return str(re.findall(rf"^    {title}: +(.+)$", self.text, re.MULTILINE)[0])


def shell(command: str) -> Run:
    """Run a line as it is printed."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1800,
    )
    return Run(done.returncode, done.stdout)


@pytest.fixture(scope="module")
def deployed() -> Iterator[Run]:
    """The first run; whatever it leaves is removed."""
    with own(NAME):
        yield shell(COMMAND)


def test_it_says_what_it_will_do_and_ends_with_a_shell_on_a_deployed_machine(deployed: Run) -> None:
    assert deployed.code == 0, deployed.text
    plan, _, rest = deployed.text.partition("…")
    assert f"removed again by `{COMMAND} down`" in plan
    assert "9  node-01: allocated, deployed, logged in to" in plan
    assert deployed.stages == STAGES
    assert "node-01$ node-01\n" in rest
    assert "node-01$ Debian GNU/Linux 12" in rest
    assert re.search(r"machines +node-01 +Deployed +team-search", rest)
    recorded = json.loads(installation.times_file(NAME).read_text())
    assert list(recorded["seconds"]) == STAGES


def test_run_again_with_release_it_goes_on_from_there_and_shows_what_was_erased(deployed: Run) -> None:
    again = shell(f"{deployed.offered('release it')}")
    assert again.code == 0, again.text
    assert "node-01 is Deployed\n" in again.text
    released = "node-01: kubectl apply -f node-01.yaml → Releasing, erased, Ready"
    assert again.stages == [*STAGES[:6], STAGES[-1], released]
    evidence = re.findall(r"^    /dev/\S+ (\S+): \S+, verified\.", again.text, re.MULTILINE)
    assert sorted(evidence) == ["NEWCOMER01A", "NEWCOMER01B"]
    assert re.search(r"machines +node-01 +Ready", again.text)


def test_after_its_own_break_it_the_demo_says_what_mends_it_and_touches_nothing(deployed: Run) -> None:
    environment = f'eval "$(hack/control-plane env --name {NAME})"'
    broken = shell(
        f"{environment}; {deployed.offered('break it')} && kubectl wait bmm/node-01 -n machines "
        "--for=jsonpath={.status.phase}=Broken --timeout=60s"
    )
    assert broken.code == 0, broken.text
    again = shell(COMMAND)
    assert again.code == 2, again.text
    assert "node-01 is Broken: somebody marked it (DIMM A3)" in again.text
    assert deployed.offered("and mend it") in again.text
    assert again.stages == STAGES[:6]


def test_down_leaves_the_caches_and_nothing_else(deployed: Run) -> None:
    assert deployed.code == 0
    assert Service("operator", Path("/run/rackwright") / NAME / "operator").pid is not None
    built = {folder for folder in CACHE.iterdir() if (folder / ".complete").exists()}
    down = shell(f"{COMMAND} down")
    assert down.code == 0, down.text
    processes = [
        command.read_bytes().decode(errors="replace").replace("\0", " ")
        for command in Path("/proc").glob("[0-9]*/cmdline")
        if command.exists()
    ]
    assert not [process for process in processes if f"rackwright/{NAME}/" in process]
    assert not network.namespace_exists(NAME)  # with it went the bridge and the machines' taps
    assert not network.host_interface_exists(NAME)
    assert not [folder for folder in (Path("/run/rackwright") / NAME, STATE / NAME) if folder.exists()]
    assert {folder for folder in CACHE.iterdir() if (folder / ".complete").exists()} >= built
