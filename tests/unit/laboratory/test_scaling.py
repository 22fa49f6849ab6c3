"""What SCALING.md says of the operator's memory follows from what the bench recorded, and the Pod has room for it."""

from __future__ import annotations

import re

import pytest
import yaml

from lab.paths import REPOSITORY
from lab.records import recorded

TEXT = (REPOSITORY / "operator/rackwright/SCALING.md").read_text()
PEAKS = {
    machines: max(figures.peak or 0 for figures in scenarios.values())
    for machines, scenarios in recorded(REPOSITORY / "hack/bench.d/results").items()
}
FEW, MANY = 1_000, 10_000
OF_EACH = (PEAKS[MANY] - PEAKS[FEW]) / (MANY - FEW)
KIB, GIB = 2**10, 2**30


def gib(machines: int) -> float:
    """The peak of an operator that knows so many, by the line through both fleets that were measured."""
    return (PEAKS[FEW] + OF_EACH * (machines - FEW)) / GIB


def said(pattern: str) -> list[float]:
    """The numbers in the one place that is written like this."""
    (found,) = re.findall(pattern, TEXT)
    return [float(number.replace(",", "")) for number in ([found] if isinstance(found, str) else found)]


def test_the_line_goes_through_what_was_measured() -> None:
    each, process, few, many = said(r"\| ([\d.]+) KiB, and ([\d.]+) GiB for the process: (\d+) MB .*?, (\d+) MB with")
    assert each == pytest.approx(OF_EACH / KIB, rel=0.1)
    assert process == pytest.approx(gib(0), rel=0.1)
    assert (few, many) == pytest.approx((PEAKS[FEW] / 10**6, PEAKS[MANY] / 10**6), rel=0.1)


def test_larger_fleets_are_on_that_line() -> None:
    columns = said(r"memory of \*each\* operator, at its peak \| ([\d.]+) GiB \(M\) \| ([\d.]+) GiB \| ([\d.]+) GiB")
    assert columns == pytest.approx([gib(MANY), gib(100_000), gib(1_000_000)], rel=0.1)
    assert said(r"operators of ([\d.]+) GiB") == pytest.approx([gib(50_000)], rel=0.1)


def test_the_pod_has_room_for_as_many_machines_as_is_said() -> None:
    deployment = yaml.safe_load((REPOSITORY / "manifests/base/deployment.yaml").read_text())
    containers = deployment["spec"]["template"]["spec"]["containers"]
    (limit,) = (each["resources"]["limits"]["memory"] for each in containers if each["name"] == "operator")
    has, full, enough, large, raised = said(
        r"limits the operator to (\d) GiB, which ([\d,]+) machines fill \(X\)\. With more than ([\d,]+) in\s+"
        r"the cluster raise it, with ([\d,]+) to (\d) GiB"
    )
    assert limit == f"{has:.0f}Gi"
    assert gib(int(full)) == pytest.approx(has, rel=0.1)
    assert gib(int(enough)) < 0.9 * has
    assert gib(int(large)) < 0.9 * raised
