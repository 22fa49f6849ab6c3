"""The architecture's import contracts find what breaks them: a contract that can't be broken guards nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.paths import REPOSITORY


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The operator's sources and the contracts, to be spoilt."""
    shutil.copytree(
        REPOSITORY / "operator/rackwright", tmp_path / "rackwright", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def verdict(copy: Path) -> tuple[int, str]:
    """What `hack/check imports` runs says of it."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), str(REPOSITORY / "hack")]), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def spoil(copy: Path, module: str, line: str) -> None:
    """Add an import to a module."""
    file = copy / "rackwright" / module
    file.write_text(file.read_text() + f"\n{line}\n")


def test_the_contracts_are_kept(copy: Path) -> None:
    code, said = verdict(copy)
    assert code == 0, said


@pytest.mark.parametrize(
    ("module", "line", "imported"),
    [
        ("lifecycle/guards.py", "from rackwright import kube", "rackwright.kube"),
        ("lifecycle/guards.py", "import rackwright.cache as known", "rackwright.cache"),
        ("lifecycle/decide.py", "from rackwright.install.sentences import presentable", "rackwright.install"),
        ("lifecycle/guards.py", "import requests", "requests"),
        ("lifecycle/steps.py", "def late():\n    from pydantic import BaseModel", "pydantic"),
        ("lifecycle/decide.py", "import random", "random"),
        ("lifecycle/new_module.py", "from rackwright.power.port import PowerError", "rackwright.power"),
        ("events.py", "import kubernetes", "kubernetes"),
        ("power/connect.py", "from rackwright.simulated.bmc import SimulatedBMC", "rackwright.simulated"),
    ],
)
def test_an_import_that_breaks_a_contract_is_found(copy: Path, module: str, line: str, imported: str) -> None:
    (copy / "rackwright" / module).touch()
    spoil(copy, module, line)
    code, said = verdict(copy)
    assert code == 1, said
    assert "BROKEN" in said
    name = f"rackwright.{module.removesuffix('.py').replace('/', '.')}"
    assert any(name in text and imported in text for text in said.splitlines()), said
