"""Requests are counted from a log, and never from one that has lost some."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab import audit
from lab.audit import Audit
from lab.controlplane import ControlPlane
from lab.controlplane_choice import Kind
from lab.errors import Unfit


def audited(folder: Path, lines: int) -> Audit:
    (folder / audit.LOG).write_bytes(entry() * lines)
    plane = ControlPlane("bench", folder / "kubeconfig", folder / "kubectl", Kind.BUILT, "https://127.0.0.1", True)
    return Audit(plane, "system", "operator")


def entry() -> bytes:
    user, what = {"username": "system:serviceaccount:system:operator"}, {"resource": "machines"}
    return json.dumps({"user": user, "verb": "patch", "objectRef": what}).encode() + b"\n"


def test_an_audit_log_that_was_begun_anew_is_not_counted_from(tmp_path: Path) -> None:
    counting = audited(tmp_path, 3)
    log = tmp_path / audit.LOG
    with log.open("ab") as more:
        more.write(entry())
    assert counting.so_far() == {"patch machines": 1}
    log.write_bytes(entry())
    with pytest.raises(Unfit, match="begun anew"):
        counting.so_far()


def test_a_new_audit_log_is_told_from_the_old_one_though_it_is_longer(tmp_path: Path) -> None:
    counting = audited(tmp_path, 3)
    (tmp_path / audit.LOG).rename(tmp_path / "audit-2026.log")
    (tmp_path / audit.LOG).write_bytes(entry() * 9)
    with pytest.raises(Unfit, match="begun anew"):
        counting.so_far()
