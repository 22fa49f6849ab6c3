"""The ramdisk's own part in enlistment: when it may switch a machine off, and that nothing is written before."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.paths import REPOSITORY
from rackwright.netboot.script import ENLIST

ROOT = REPOSITORY / "hack/ramdisk.d/root"
COMMAND = ROOT / "usr/local/sbin/enlist"
AGENT = '''\
"""Stands for ironic-python-agent and oslo.log: what the command calls, in the order in which it does."""
import os
import sys
import types


class InspectionError(Exception):
    pass


class Failures(list):
    def __init__(self, exc_class):
        assert exc_class is InspectionError

    add = list.append


def collect_default(data, failures):
    print("collect")
    if os.environ["OUTCOME"] == "half-blind":
        raise RuntimeError("no lshw")
    data["inventory"] = {}


def call_inspector(data, failures):
    print("post", sorted(data), [str(failure) for failure in failures])
    if os.environ["OUTCOME"] == "turned away":
        raise InspectionError("error 404: It is rack-a/node-07.")
    if os.environ["OUTCOME"] == "not heard":
        raise ConnectionError("nobody answers")


def module(name, **contents):
    sys.modules[f"{__name__}.{name}"] = types.SimpleNamespace(**contents)
    globals()[name] = sys.modules[f"{__name__}.{name}"]


module("config", CONF=lambda arguments: print("configure", *arguments))
module("errors", InspectionError=InspectionError)
module("hardware", get_managers=lambda: print("look for hardware managers"))
module("inspector", collect_default=collect_default, call_inspector=call_inspector)
module("utils", AccumulatedFailures=Failures)
'''
LOG = "register_options = lambda conf: None\nsetup = lambda conf, name: None\n"


def disk(folder: Path, name: str, **facts: int) -> None:
    """A disk as /sys/block shows it."""
    (folder / "block" / name).mkdir(parents=True)
    for fact, value in facts.items():
        (folder / "block" / name / fact).write_text(f"{value}\n")


def enlist(folder: Path, outcome: str) -> subprocess.CompletedProcess[str]:
    """Run the command with an agent that experiences this."""
    (folder / "block").mkdir(exist_ok=True)
    command = folder / "enlist"
    command.write_text(COMMAND.read_text().replace("/sys/block", str(folder / "block")))
    modules = {"ironic_python_agent/__init__.py": AGENT, "oslo_log/__init__.py": "", "oslo_log/log.py": LOG}
    for name, text in modules.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    udevadm = "import subprocess; subprocess.run = lambda command, check: print(*command, flush=True)\n"
    (folder / "sitecustomize.py").write_text(udevadm)
    environment = {**os.environ, "PYTHONPATH": str(folder), "OUTCOME": outcome}
    return subprocess.run(
        [sys.executable, command], env=environment, capture_output=True, text=True, check=False, timeout=30
    )


def unit(name: str) -> configparser.ConfigParser:
    read = configparser.ConfigParser(interpolation=None)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read_string((ROOT / "etc/systemd/system" / name).read_text())
    return read


def test_it_succeeds_once_it_was_thanked(tmp_path: Path) -> None:
    disk(tmp_path, "sda", size=2**20, ro=1)
    disk(tmp_path, "nvme0n1", size=2**20, ro=1, hidden=0)
    done = enlist(tmp_path, "enlisted")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "/usr/bin/udevadm settle",
        "enlist: read-only: nvme0n1 sda",
        "configure --config-dir /etc/ironic-python-agent",
        "look for hardware managers",
        "collect",
        "post ['inventory'] []",
    ]


def test_it_looks_at_nothing_while_a_disk_could_be_written_to(tmp_path: Path) -> None:
    disk(tmp_path, "sda", size=2**20, ro=1)
    disk(tmp_path, "sdb", size=2**20, ro=0)
    done = enlist(tmp_path, "enlisted")
    assert (done.returncode, done.stderr) == (1, "enlist: not read-only, so nothing is looked at: sdb\n")
    assert "look for hardware managers" not in done.stdout


def test_what_has_no_node_to_write_to_stops_nothing(tmp_path: Path) -> None:
    disk(tmp_path, "sr0", size=0, ro=0)
    disk(tmp_path, "nvme0c0n1", size=2**20, ro=0, hidden=1)
    assert enlist(tmp_path, "enlisted").returncode == 0


def test_what_it_could_not_see_is_reported_with_what_it_saw(tmp_path: Path) -> None:
    done = enlist(tmp_path, "half-blind")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "post [] ['no lshw']"


def test_turned_away_and_not_heard_are_two_things(tmp_path: Path) -> None:
    away = enlist(tmp_path, "turned away")
    assert (away.returncode, away.stderr) == (2, "enlist: error 404: It is rack-a/node-07.\n")
    assert enlist(tmp_path, "not heard").returncode == 1


def test_only_a_machine_that_was_enlisted_is_switched_off() -> None:
    read = unit("enlist.service")
    assert read["Unit"]["SuccessAction"] == "poweroff"
    assert read["Unit"]["FailureAction"] == read["Unit"]["StartLimitAction"] == "reboot"
    assert read["Service"]["RestartPreventExitStatus"] == "2"
    assert read["Service"]["Type"] == "oneshot"
    assert "TimeoutStartSec" in read["Service"]


@pytest.mark.parametrize(
    ("name", "condition"), [("enlist.service", ENLIST), ("ironic-python-agent.service", f"!{ENLIST}")]
)
def test_the_kernel_command_line_chooses_between_agent_and_introduction(name: str, condition: str) -> None:
    assert unit(name)["Unit"]["ConditionKernelCommandLine"] == condition


def test_disks_are_read_only_while_a_machine_introduces_itself() -> None:
    importing, acting = [
        line
        for line in (ROOT / "etc/udev/rules.d/99-enlist-read-only.rules").read_text().splitlines()
        if not line.startswith("#")
    ]
    name, _, value = ENLIST.partition("=")
    assert importing.endswith(f'IMPORT{{cmdline}}="{name}"'), "and no more: within a rule udev compares first"
    assert f'ENV{{{name}}}=="{value}"' in acting
    assert acting.endswith('RUN+="/usr/sbin/blockdev --setro $devnode"')
