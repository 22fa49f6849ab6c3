"""The alerts by Prometheus's own tool: each fires in a situation that it is for, and none when all is well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import dashboard, generated, pod, prometheus, system
from rackwright.metrics import PATH
from rackwright.metrics.families import FAMILIES, Kind

TESTS = Path(__file__).with_name("alerts_test.yaml")
RULES: list[dict[str, Any]] = yaml.safe_load(prometheus.RULES.read_text())["groups"][0]["rules"]
README = (pod.MANIFESTS / "README.md").read_text()
SERIES = {
    series
    for family in FAMILIES
    for series in (
        [f"{family.name}{suffix}" for suffix in ("_bucket", "_count", "_sum")]
        if family.kind is Kind.HISTOGRAM
        else [family.name]
    )
}


@pytest.fixture(scope="module", autouse=True)
def promtool() -> None:
    if not prometheus.is_installed():
        system.ensure_packages(prometheus.PACKAGES)


def situations() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(TESTS.read_text())
    return loaded


def tried(folder: Path, rules: Any = None) -> tuple[int, str]:
    """Exit code and words of promtool's tests, on these rules instead of ours."""
    (folder / "rules.yaml").write_text(prometheus.RULES.read_text() if rules is None else yaml.safe_dump(rules))
    (folder / "tests.yaml").write_text(yaml.safe_dump({**situations(), "rule_files": ["rules.yaml"]}))
    done = prometheus.promtool("test", "rules", folder / "tests.yaml")
    return done.returncode, done.stdout + done.stderr


def test_prometheus_takes_the_rules() -> None:
    done = prometheus.promtool("check", "rules", "--lint-fatal", prometheus.RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in done.stdout


def test_each_alert_fires_in_a_situation_that_it_is_for_and_not_in_others(tmp_path: Path) -> None:
    code, said = tried(tmp_path)
    assert code == 0, said


def test_each_alert_has_a_situation_in_which_it_fires_and_is_quiet_when_all_is_well() -> None:
    names = {rule["alert"] for rule in RULES}
    well, *others = situations()["tests"]
    assert {case["alertname"] for case in well["alert_rule_test"] if not case.get("exp_alerts")} == names
    assert {case["alertname"] for test in others for case in test["alert_rule_test"] if case.get("exp_alerts")} == names


@pytest.mark.parametrize("alert", [rule["alert"] for rule in RULES])
def test_an_alert_that_never_fires_is_noticed(alert: str, tmp_path: Path) -> None:
    mute = [
        {**rule, "expr": f"({rule['expr']}) and vector(1) == 2"} if rule["alert"] == alert else rule for rule in RULES
    ]
    code, said = tried(tmp_path, {"groups": [{"name": "rackwright", "rules": mute}]})
    assert code == 1
    assert f"alertname: {alert}," in said


def test_each_alert_says_what_is_so_and_what_to_do_and_is_in_the_readme() -> None:
    for rule in RULES:
        assert {"summary", "description"} == rule["annotations"].keys(), rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert f"`{rule['alert']}`" in README


@pytest.mark.parametrize("expression", [*(rule["expr"] for rule in RULES), *dashboard.queries()])
def test_what_is_asked_for_is_what_the_operator_serves(expression: str) -> None:
    asked = set(re.findall(r"rackwright_\w+", expression))
    assert asked
    assert asked <= SERIES


def test_every_series_is_shown_or_watched() -> None:
    everything = "".join((*(rule["expr"] for rule in RULES), *dashboard.queries()))
    assert [family.name for family in FAMILIES if family.name not in everything] == []


# --- what is scraped ----------------------------------------------------------------------------------------------


def manifest(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((prometheus.MONITORING / name).read_text())
    return loaded


def test_the_service_leads_to_the_operators_pods_and_the_monitor_to_the_service() -> None:
    service, monitor = manifest("service.yaml"), manifest("servicemonitor.yaml")
    labels = pod.deployment()["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {port["name"]: port["containerPort"] for port in pod.container("operator")["ports"]}
    (port,) = service["spec"]["ports"]
    assert port["port"] == ports[port["targetPort"]]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], PATH)
    assert len({each["metadata"]["namespace"] for each in (service, monitor, generated.prometheus_rule())}) == 1


def test_the_prometheus_operator_gets_the_same_rules() -> None:
    assert manifest("prometheusrule.yaml")["spec"] == yaml.safe_load(prometheus.RULES.read_text())
