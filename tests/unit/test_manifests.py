"""What people deploy with agrees with the code: the image's files, the Pod's command lines, the samples' YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from lab import generated, pod, samples
from lab.errors import Unfit
from lab.paths import REPOSITORY
from lab.pod import Site
from rackwright import __main__ as command
from rackwright.netboot.dnsmasq import LOADERS

SITES = pod.sites()
CONTAINERFILE = (REPOSITORY / "operator/Containerfile").read_text()


def instructions(name: str) -> Iterator[str]:
    """What follows each instruction of that name in the Containerfile."""
    for line in CONTAINERFILE.splitlines():
        if line.startswith(f"{name} "):
            yield line.removeprefix(f"{name} ")


def configure(site: Site, output: Path, *changes: str) -> int:
    """Run the init container; its exit code. `changes` stand for arguments of the same name."""
    here = (f"--output={output}", f"--tftp-root={output.parent / 'tftp'}")
    changed = {change.split("=")[0]: change for change in (*changes, *here)}
    line = pod.arguments("dnsmasq-configuration", site)
    return command.main(
        [*(changed.get(argument.split("=")[0], argument) for argument in line), *loaders(output.parent)]
    )


def loaders(folder: Path) -> list[str]:
    """The argument that names iPXE's folder, whether or not this machine has iPXE."""
    for loader in LOADERS:
        (folder / loader.file).touch()
    return [f"--ipxe={folder}"]


def configuration(site: Site, folder: Path) -> list[str]:
    """The lines that the init container writes for dnsmasq."""
    output = folder / "dnsmasq.conf"
    assert configure(site, output) == 0
    return output.read_text().splitlines()


# --- the site's values --------------------------------------------------------------------------------------------


def test_the_readme_shows_two_more_kinds_of_site() -> None:
    assert len(SITES) == 3


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_a_site_has_every_value_that_a_container_asks_for_and_no_other(site: Site) -> None:
    assert site.keys() == pod.variables()
    assert all(isinstance(value, str) for value in site.values())  # a ConfigMap holds nothing else


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_the_init_container_writes_what_dnsmasq_reads_and_serves(site: Site, tmp_path: Path) -> None:
    assert "interface=provisioning" in configuration(site, tmp_path)
    assert f"chain --replace {site['BASE_URL']}/boot/ipxe" in (tmp_path / "tftp/boot.ipxe").read_text()
    (served,) = [each for each in pod.arguments("dnsmasq-configuration", site) if each.startswith("--tftp-root=")]
    shared = [mount["mountPath"] for mount in pod.container("dnsmasq")["volumeMounts"] if mount.get("readOnly")]
    assert any(served.startswith(f"--tftp-root={folder}/") for folder in shared)


def test_machines_are_told_addresses_a_router_and_name_servers(tmp_path: Path) -> None:
    written = configuration(SITES["as it is"], tmp_path)
    assert "dhcp-range=10.10.0.100,10.10.0.199,255.255.255.0,1h" in written
    assert "dhcp-option=option:router,10.10.0.254" in written
    assert "dhcp-option=option:dns-server,10.10.0.254" in written


def test_a_site_without_router_and_name_servers_tells_none(tmp_path: Path) -> None:
    (isolated,) = [site for title, site in SITES.items() if "leads nowhere" in title]
    written = configuration(isolated, tmp_path)
    assert "dhcp-option=option:router" in written
    assert "dhcp-option=option:dns-server" in written


def test_a_site_with_its_own_dhcp_server_gets_a_proxy(tmp_path: Path) -> None:
    (proxied,) = [site for title, site in SITES.items() if "own DHCP server" in title]
    assert "dhcp-range=10.10.0.0,proxy,255.255.255.0" in configuration(proxied, tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--dhcp-range="], "give either --dhcp-range"),
        (["--proxy=10.10.0.1"], "give either --dhcp-range"),
        (["--dhcp-range=", "--proxy=10.10.0.1"], "leave both out"),
        (["--router=10.10.1.1"], "couldn't reach it"),
        (["--dns=10.10.0.150"], "shrink the range"),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_a_sentence(
    changes: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert configure(SITES["as it is"], tmp_path / "dnsmasq.conf", *changes) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("--dhcp-range=10.10.0.100", "must be FIRST,LAST"),
        ("--router=$(ROUTER)", "must be an IPv4 address, not '$(ROUTER)'"),  # the key is missing from the ConfigMap
        ("--dns=10.10.0.2;10.10.0.3", "must be an IPv4 address"),
    ],
)
def test_a_value_that_is_none_is_refused_with_a_sentence(
    change: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        configure(SITES["as it is"], tmp_path / "dnsmasq.conf", change)
    assert sentence in capsys.readouterr().err


def test_name_servers_may_be_given_one_by_one_too(tmp_path: Path) -> None:
    line = ["--interface=eth1", "--network=10.0.0.0/24", "--base-url=http://10.0.0.1", "--dhcp-range=10.0.0.8,10.0.0.9"]
    output = tmp_path / "dnsmasq.conf"
    line += [f"--output={output}", f"--tftp-root={tmp_path / 'tftp'}", *loaders(tmp_path)]
    assert not command.main(["dnsmasq", *line, "--dns=10.0.0.2,10.0.0.3", "--dns=10.1.0.2"])
    assert "dhcp-option=option:dns-server,10.0.0.2,10.0.0.3,10.1.0.2\n" in output.read_text()


# --- the operator's container -------------------------------------------------------------------------------------


def test_the_operator_understands_its_command_line(tmp_path: Path) -> None:
    line = pod.arguments("operator", SITES["as it is"])
    options = command._parser().parse_args(
        [re.sub("^--(ramdisk|ipxe)=.*", rf"--\1={tmp_path}", argument) for argument in line]
    )
    assert options.base_url == "http://10.10.0.1:8080"


def test_the_operator_listens_where_its_probes_and_machines_ask() -> None:
    operator = pod.container("operator")
    (address,) = [a.partition("=")[2] for a in operator["args"] if a.startswith("--http-address=")]
    host, _, port = address.rpartition(":")
    assert not host  # the kubelet asks the node's first address, machines the one in the provisioning network
    assert operator["ports"] == [{"name": "http", "containerPort": int(port)}]
    assert {urlsplit(site["BASE_URL"]).port for site in SITES.values()} == {int(port)}
    probes = [operator[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert [(probe["port"], "host" in probe) for probe in probes] == [("http", False)] * 3


# --- one Pod at a time --------------------------------------------------------------------------------------------


def test_an_operator_never_runs_beside_another() -> None:
    wanted = pod.deployment()["spec"]
    assert wanted["replicas"] == 1
    assert wanted["strategy"] == {"type": "Recreate"}
    (rule,) = pod.spec()["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["labelSelector"]["matchLabels"].items() <= wanted["template"]["metadata"]["labels"].items()
    # Every node that it can run on has this label with the same value: to the scheduler they are one place.
    assert rule["topologyKey"] in pod.spec()["nodeSelector"]


# --- the samples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted((pod.MANIFESTS / "samples").glob("*-01*.yaml")), ids=lambda file: file.name)
def test_a_sample_reads_the_same_with_every_yaml(file: Path) -> None:
    """YAML 1.1, which some tools still read, takes a bare MAC address for a number."""
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(file.read_text()))
    macs = [d["spec"]["bootMACAddress"] for d in documents if d["kind"] == "BareMetalMachine"]
    assert all(isinstance(mac, str) for mac in macs)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (samples.DECLARED, samples.ALLOCATED),
        (samples.ALLOCATED, samples.DEPLOYED),
        (samples.DECLARED, samples.DEPLOYED),
    ],
)
def test_a_stage_is_the_one_before_and_what_it_adds(earlier: str, later: str) -> None:
    added = generated.addition(later, earlier)
    assert added
    assert all(line.startswith("  ") for line in added.splitlines())  # to the spec, so the README may show it alone


def test_a_stage_that_changes_what_another_said_is_noticed() -> None:
    with pytest.raises(Unfit, match=r"node-01\.yaml differs"):
        generated.addition(samples.DECLARED, samples.DEPLOYED)


# --- the image ----------------------------------------------------------------------------------------------------


def test_the_image_copies_files_that_exist() -> None:
    copies = [copy.split()[:-1] for copy in instructions("COPY") if not copy.startswith("--from=")]
    sources = [source for copy in copies for source in copy]
    assert sources
    assert not [source for source in sources if not (REPOSITORY / source).exists()]


def test_the_image_runs_the_python_that_its_requirements_are_locked_for() -> None:
    locked = re.search(r"--python-version (\S+) .*-o operator\.txt", (REPOSITORY / "hack/README.md").read_text())
    (base,) = [argument for argument in instructions("ARG") if argument.startswith("PYTHON=")]
    assert locked
    assert base.startswith(f"PYTHON=python:{locked[1]}-")
    assert [image.split()[0] for image in instructions("FROM")] == ["${PYTHON}", "${PYTHON}"]


def test_the_image_installs_only_what_is_locked() -> None:
    installs = [line for line in CONTAINERFILE.splitlines() if "pip install" in line]
    assert ["--require-hashes" in line or line.endswith(" .") for line in installs] == [True, True]
    assert all("--no-deps" in line for line in installs)


def test_the_image_starts_what_the_pod_expects() -> None:
    context = pod.spec()["securityContext"]
    assert list(instructions("USER")) == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert list(instructions("ENTRYPOINT")) == ['["rackwright"]']
    assert 'rackwright = "rackwright.__main__:command"' in (REPOSITORY / "pyproject.toml").read_text()
    assert not [each["name"] for each in pod.containers() if "command" in each and each["command"] != ["dnsmasq"]]
    assert "dnsmasq-base ipxe" in CONTAINERFILE
