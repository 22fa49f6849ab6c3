"""Prometheus on this machine: its own checks of our rules, and a server that scrapes an operator under test."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.paths import REPOSITORY
from lab.process import Service

PACKAGES = ("prometheus",)
MONITORING = REPOSITORY / "manifests/components/monitoring"
RULES = MONITORING / "rules.yaml"
DASHBOARD = MONITORING / "dashboard.json"
SCRAPE_SECONDS = 1


def is_installed() -> bool:
    """Whether its programs are there."""
    return shutil.which("prometheus") is not None and shutil.which("promtool") is not None


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run its tool for rules; `check rules FILE`, `test rules FILE`."""
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Prometheus:
    """A server that runs."""

    address: str

    def ask(self, path: str, **query: str) -> Any:
        """What its API answers; the body's `data`. A query that it refuses is an `HTTPError`."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def series(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def alerts(self) -> set[str]:
        """Alerts whose expression holds now."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"]}

    def complaints(self) -> list[str]:
        """What is wrong with the targets and rules that it has tried; empty if all of them were."""
        targets = self.ask("targets", state="active")["activeTargets"]
        rules = [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
        return [
            *(target["lastError"] or target["health"] for target in targets if target["health"] != "up"),
            *(f"{rule['name']}: {rule.get('lastError') or rule['health']}" for rule in rules if rule["health"] != "ok"),
        ]


@contextmanager
def scraping(folder: Path, target: str, port: int) -> Iterator[Prometheus]:
    """A server on the loopback that scrapes `target`, like 127.0.0.1:8080, with our rules."""
    seconds = f"{SCRAPE_SECONDS}s"
    configuration = {
        "global": {"scrape_interval": seconds, "scrape_timeout": seconds, "evaluation_interval": seconds},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "rackwright", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    it, service = Prometheus(f"127.0.0.1:{port}"), Service("prometheus", folder)
    try:
        service.start(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={it.address}",
            ],
            ready=lambda: _answers(f"http://{it.address}/-/ready"),
        )
        yield it
    finally:
        service.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 (of the server that was just started)
            return bool(answer.status == 200)  # noqa: PLR2004 (HTTP's OK)
    except OSError:
        return False
