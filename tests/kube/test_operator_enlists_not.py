"""Operators that enlist nobody: one that was not asked to, and one that may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kube.metal import IPXE, NO_SYSTEM, SWITCHED_OFF
from tests.kube.operators import PATIENCE, allow_enlistment, site
from tests.kube.test_operator_enlists import answer_to, enlistments, introduction

from lab.controlplane import ControlPlane
from lab.process import wait_until

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crds")]


def test_it_is_off_unless_it_was_asked_for(control_plane: ControlPlane, tmp_path: Path) -> None:
    with site(control_plane, tmp_path, "not-asked-for") as it:
        stranger = it.undeclared()
        stranger.metal.press_power()
        stranger.metal.arrived(NO_SYSTEM)
        assert stranger.metal.journal == [IPXE, NO_SYSTEM]
        assert answer_to(it, introduction(1)) == 404
        assert it.records() == set()
        assert enlistments(it, "enlisted") == enlistments(it, "full") == 0
        it.assert_discreet()


def test_without_the_right_to_create_machines_it_says_what_is_missing_and_goes_on_once_it_has_it(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    with site(control_plane, tmp_path, "no-rights", arguments=("--enlist-namespace", "no-rights")) as it:
        control_plane.ctl("delete", "rolebinding", "rackwright-enlistment", "-n", "no-rights")
        stranger = it.undeclared()
        stranger.metal.press_power()
        assert wait_until(lambda: "the rights of manifests/overlays/enlistment" in it.operator.text(), PATIENCE)
        assert enlistments(it, "failed") >= 1
        assert it.records() == set()
        allow_enlistment(control_plane, "no-rights")
        stranger.metal.arrived(SWITCHED_OFF)
        assert it.records() == {stranger.name}
        assert "Traceback" not in it.operator.text()
