"""Following a machine ends when there is nothing left to wait for: with a kubectl and an operator that tests script."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import follow as following
from lab import installation
from lab.controlplane import ControlPlane
from lab.controlplane_choice import Kind
from lab.errors import Unfit
from lab.follow import follow
from lab.installation import Installation
from lab.plan import Plan, default_nodes, subnets
from lab.process import Service, wait_until
from lab.rack import Rack


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """An operator that does nothing, and a kubectl that prints the file `told` and keeps the watch open."""
    monkeypatch.setattr(installation, "run_dir", lambda _: tmp_path)
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"#!/bin/sh\ncat {tmp_path}/told\nexec sleep 60\n")
    kubectl.chmod(0o755)
    plane = ControlPlane("x", tmp_path / "kubeconfig", kubectl, Kind.BUILT, "https://127.0.0.1", controllers=True)
    plan = Plan.of("x", default_nodes(1), subnet=next(subnets("x")), run=tmp_path, state=tmp_path)
    found = Installation(plane, Rack(plan, "admin", "made up", ""))
    log = found.operator.log

    def has_spoken() -> bool:
        return log.exists() and bool(log.read_text())

    found.operator.start(["sh", "-c", "echo last words; exec sleep 60"], ready=has_spoken)
    yield found
    found.operator.stop()


def tell(here: Installation, *sights: str) -> None:
    """Have the watch tell this: phase, step, attempt, generation, observed, stalled, reason, message."""
    here.plane.kubectl.with_name("told").write_text("".join(f"{sight}\n" for sight in sights))


def test_it_ends_at_a_phase_once_the_machine_rests_there(here: Installation) -> None:
    tell(
        here,
        "Ready||||||",
        "Ready|PowerOff|1|2|2|False|Stopping|Powering off | gently",
        "and a second line",
        "Ready|||2|2|False|Available|Available.",
    )
    said: list[str] = []
    seen = follow(here, "node-01", until=["Ready"], seconds=20, say=said.append)
    assert (seen.phase, seen.message) == ("Ready", "Available.")
    assert said == ["Ready, PowerOff: Powering off | gently", "Ready: Available."]


def test_a_machine_that_stays_stalled_is_given_up_with_its_reason(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE", 0.3)
    tell(here, "Broken|||3|3|True|MarkedBroken|Marked broken: DIMM A3.")
    with pytest.raises(
        Unfit, match=r"node-01 is Broken and waits for a person: MarkedBroken: Marked broken: DIMM A3\."
    ):
        follow(here, "node-01", until=["Ready"], seconds=20)


@pytest.mark.parametrize(
    "recovered", ["Ready|BootRamdisk|1|3|3|False||On.", "Broken|||4|3|True|MarkedBroken|Of an earlier spec."]
)
def test_a_stall_that_passed_or_was_answered_is_waited_for(
    here: Installation, recovered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE", 0.2)
    tell(here, "Ready|||3|3|True|BMCMissing|There is no Secret yet.", recovered)
    with pytest.raises(Unfit, match=r"not Deployed after 1 s; last seen"):
        follow(here, "node-01", until=["Deployed"], seconds=0.8)


def test_a_failed_machine_ends_it_at_once(here: Installation) -> None:
    tell(here, "Failed|||2|2|True|AgentMissing|The agent was not heard.")
    with pytest.raises(Unfit, match=r"node-01 has Failed: The agent was not heard\."):
        follow(here, "node-01", until=["Ready"], seconds=20)


def test_a_dead_operator_ends_it_with_its_last_words(here: Installation) -> None:
    tell(here, "Commissioning|BootRamdisk|1|2|2|False||Booting.")

    def shoot(_: str) -> None:
        here.operator.kill()

    with pytest.raises(Unfit, match=r"operator doesn't run\. The end of .*operator\.log:\nlast words") as ended:
        follow(here, "node-01", until=["Ready"], seconds=20, say=shoot)
    assert ended.value.remedy == f"read {here.operator.log}"


def test_without_an_operator_nothing_is_waited_for(here: Installation) -> None:
    here.operator.kill()
    assert wait_until(lambda: here.operator.pid is None, 10)
    with pytest.raises(Unfit, match="operator doesn't run"):
        follow(here, "node-01", until=["Ready"], seconds=20)


def test_a_watch_that_ends_is_not_mistaken_for_time_that_is_up(here: Installation) -> None:
    here.plane.kubectl.write_text("#!/bin/sh\necho connection refused >&2\nexit 1\n")
    with pytest.raises(Unfit, match="watch has ended; it says: connection refused"):
        follow(here, "node-01", until=["Ready"], seconds=20)


def test_an_operator_that_never_started_is_signalled_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pid of 0 would stop this process and its whole group (kill(2))."""
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, _: sent.append(pid))
    service = Service("operator", tmp_path)
    with pytest.raises(Unfit, match="never started"):
        service.require()
    service.kill(signal.SIGSTOP)
    assert sent == []
