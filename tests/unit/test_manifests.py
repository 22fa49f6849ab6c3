"""What people deploy with agrees with the code: the image's files, the Pod's command lines, the samples' YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.paths import REPOSITORY
from rackwright import __main__ as command

BASE = REPOSITORY / "manifests/base"


def arguments(container: str, replaced: dict[str, str]) -> list[str]:
    """A container's command line with the site's values in it, and paths that exist here instead of the Pod's."""
    site: dict[str, str] = yaml.safe_load((BASE / "site.yaml").read_text())["data"]
    pod: dict[str, Any] = yaml.safe_load((BASE / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    (found,) = [c for c in pod["initContainers"] + pod["containers"] if c["name"] == container]
    filled = [re.sub(r"\$\((\w+)\)", lambda match: site[match[1]], argument) for argument in found["args"]]
    return [next((value for key, value in replaced.items() if key in argument), argument) for argument in filled]


def test_the_init_container_writes_what_dnsmasq_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "dnsmasq.conf"
    line = arguments("dnsmasq-configuration", {"--output": f"--output={output}"})
    monkeypatch.setattr("sys.argv", ["rackwright", *line])
    assert not command.main()
    assert "interface=provisioning\n" in output.read_text()
    assert "dhcp-range=10.10.0.100,10.10.0.199," in output.read_text()


def test_the_operator_understands_its_command_line(tmp_path: Path) -> None:
    folders = {"--ramdisk": f"--ramdisk={tmp_path}", "--ipxe": f"--ipxe={tmp_path}"}
    options = command._parser().parse_args(arguments("operator", folders))
    assert options.base_url == "http://10.10.0.1:8080"
    assert options.http_address == "0.0.0.0:8080"


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "manifests/samples").glob("node*.yaml")), ids=lambda file: file.name
)
def test_a_sample_reads_the_same_with_every_yaml(file: Path) -> None:
    """YAML 1.1, which some tools still read, takes a bare MAC address for a number."""
    documents = list(yaml.safe_load_all(file.read_text()))
    macs = [d["spec"]["bootMACAddress"] for d in documents if d["kind"] == "BareMetalMachine"]
    assert all(isinstance(mac, str) for mac in macs)


def test_the_image_copies_files_that_exist() -> None:
    lines = (REPOSITORY / "operator/Containerfile").read_text().splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY") and "--from=" not in line]
    sources = [source for copy in copies for source in copy]
    assert sources
    assert not [source for source in sources if not (REPOSITORY / source).exists()]
