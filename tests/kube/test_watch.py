"""The tests' own eyes: a watch that an API server ends is taken up where it ended, and nobody waits for it in vain."""

from __future__ import annotations

import pytest
from tests.kube.operators import Watch

from lab.controlplane import ControlPlane

pytestmark = pytest.mark.kube


def test_a_watch_that_is_ended_goes_on_where_it_ended_and_tells_nothing_twice(
    control_plane: ControlPlane, namespace: str
) -> None:
    def create(name: str) -> None:
        assert control_plane.ctl("-n", namespace, "create", "configmap", name).returncode == 0

    with Watch(control_plane, f"/api/v1/namespaces/{namespace}/configmaps") as watch:
        create("first")
        assert watch.until(lambda: watch.about(namespace, "first") or None)
        watch._process.kill()
        create("second")
        assert watch.until(lambda: watch.about(namespace, "second") or None)
        assert len(watch.about(namespace, "first")) == 1
