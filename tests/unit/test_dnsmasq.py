"""dnsmasq's configuration: what each kind of firmware is told, and that dnsmasq itself accepts it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest

from rackwright.netboot.dnsmasq import Leases, NetbootService, ProxyDHCP, render
from rackwright.netboot.script import entry_script
from rackwright.netboot.tftp import furnish

NETWORK = IPv4Network("10.0.0.0/24")
OURS = NetbootService(
    interface="eth1",
    addressing=Leases(IPv4Address("10.0.0.100"), IPv4Address("10.0.0.199"), NETWORK, lease_file="/run/leases"),
    base_url="http://10.0.0.2:8080",
    tftp_root="/usr/lib/ipxe",
)
THEIRS = replace(OURS, addressing=ProxyDHCP(NETWORK, server=NETWORK[1]))


def lines(service: NetbootService) -> list[str]:
    return render(service).splitlines()


def test_ipxe_begins_with_a_script_that_does_not_depend_on_the_operators_being_there() -> None:
    assert "dhcp-boot=tag:ipxe,boot.ipxe" in lines(OURS)


def test_ipxe_takes_a_proxys_word_because_it_names_a_next_server() -> None:
    assert "dhcp-boot=tag:ipxe,boot.ipxe,,10.0.0.1" in lines(THEIRS)


def test_the_folder_that_is_served_has_all_that_dnsmasq_sends_machines_to(tmp_path: Path) -> None:
    ipxe = tmp_path / "ipxe"
    ipxe.mkdir()
    for loader in OURS.loaders:
        (ipxe / loader.file).write_text(loader.file)
    service = replace(OURS, tftp_root=str(tmp_path / "tftp"))
    furnish(service, ipxe)
    sent = {line.rpartition(",")[2] for line in lines(service) if line.startswith("dhcp-boot=")}
    assert {file for file in sent if "://" not in file} == {path.name for path in (tmp_path / "tftp").iterdir()}


def test_the_first_script_asks_the_operator_again_and_leaves_the_machine_to_its_disk_in_the_end() -> None:
    first = entry_script(OURS.base_url).splitlines()
    assert first[0] == "#!ipxe"
    assert "chain --replace http://10.0.0.2:8080/boot/ipxe?mac=${netX/mac:hexhyp} ||" in first
    assert first[-1] == "exit 1"


def test_bare_firmware_is_given_ipxe_by_its_architecture() -> None:
    assert "dhcp-match=set:bios,option:client-arch,0" in lines(OURS)
    assert "dhcp-boot=tag:!ipxe,tag:bios,undionly.kpxe" in lines(OURS)
    assert "dhcp-match=set:efi-x64,option:client-arch,7" in lines(OURS)
    assert "dhcp-boot=tag:!ipxe,tag:efi-x64,snponly.efi" in lines(OURS)


def test_firmware_that_boots_over_http_is_given_a_url_and_the_class_it_insists_on() -> None:
    assert "dhcp-match=set:efi-x64-http,option:client-arch,16" in lines(OURS)
    assert "dhcp-boot=tag:!ipxe,tag:efi-x64-http,http://10.0.0.2:8080/boot/files/snponly.efi" in lines(OURS)
    assert "dhcp-option-force=tag:!ipxe,tag:efi-x64-http,60,HTTPClient" in lines(OURS)


def test_as_many_leases_may_be_given_out_as_there_are_addresses() -> None:
    assert "dhcp-lease-max=100" in lines(OURS)
    wide = IPv4Network("10.0.0.0/16")
    leases = Leases(IPv4Address("10.0.1.0"), IPv4Address("10.0.20.255"), wide, "/run/leases")
    assert f"dhcp-lease-max={20 * 256}" in lines(replace(OURS, addressing=leases))
    assert not any(line.startswith("dhcp-lease-max") for line in lines(THEIRS))


def test_a_network_that_leads_nowhere_has_no_router_and_no_dns() -> None:
    assert "dhcp-option=option:router" in lines(OURS)
    assert "dhcp-option=option:dns-server" in lines(OURS)


def test_a_router_and_name_servers_are_passed_on() -> None:
    leases = Leases(
        *(NETWORK[100], NETWORK[199], NETWORK, "/run/leases"), router=NETWORK[1], dns=(NETWORK[3], NETWORK[4])
    )
    routed = lines(replace(OURS, addressing=leases))
    assert "dhcp-option=option:router,10.0.0.1" in routed
    assert "dhcp-option=option:dns-server,10.0.0.3,10.0.0.4" in routed


def test_a_proxy_gives_out_no_address() -> None:
    assert "dhcp-range=10.0.0.0,proxy,255.255.255.0" in lines(THEIRS)
    assert not any(line.startswith(("dhcp-leasefile", "dhcp-authoritative")) for line in lines(THEIRS))


def test_a_proxy_asks_for_no_file_to_keep_leases_in() -> None:
    assert "leasefile-ro" in lines(THEIRS)


def test_a_proxy_offers_ipxe_to_bare_firmware_only() -> None:
    services = [line for line in lines(THEIRS) if line.startswith("pxe-service=")]
    assert services
    assert all(line.startswith("pxe-service=tag:!ipxe,") for line in services)


@pytest.mark.parametrize(
    "base_url", ["http://10.0.0.2:8080/", "ftp://10.0.0.2", "http://a,b", "http://a\nuser=root", ""]
)
def test_a_url_that_would_say_something_else_to_dnsmasq_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|dnsmasq"):
        replace(OURS, base_url=base_url)


def test_a_proxy_outside_its_network_is_refused() -> None:
    with pytest.raises(ValueError, match="no address in"):
        ProxyDHCP(NETWORK, server=IPv4Address("10.0.1.1"))


def test_a_range_outside_its_network_is_refused() -> None:
    with pytest.raises(ValueError, match="no range"):
        Leases(IPv4Address("10.0.1.1"), IPv4Address("10.0.1.9"), NETWORK, "/run/leases")


def test_a_router_outside_the_network_is_refused() -> None:
    with pytest.raises(ValueError, match="couldn't reach it"):
        Leases(NETWORK[100], NETWORK[199], NETWORK, "/run/leases", router=IPv4Address("10.0.1.1"))


def test_a_range_with_the_router_or_a_name_server_in_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.100 .* shrink the range"):
        Leases(NETWORK[100], NETWORK[199], NETWORK, "/run/leases", router=NETWORK[100])
    with pytest.raises(ValueError, match=r"10\.0\.0\.199 .* shrink the range"):
        Leases(NETWORK[100], NETWORK[199], NETWORK, "/run/leases", dns=(NETWORK[3], NETWORK[199]))


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed")
@pytest.mark.parametrize("service", [OURS, THEIRS], ids=["leases", "proxy"])
@pytest.mark.parametrize("advertise", [None, IPv6Network("fd00:1::/64")], ids=["silent", "advertising"])
def test_dnsmasq_accepts_it(service: NetbootService, advertise: IPv6Network | None, tmp_path: Path) -> None:
    configuration = tmp_path / "dnsmasq.conf"
    whole = replace(service, advertise=advertise, log_exchanges=True)
    configuration.write_text(render(whole))
    checked = subprocess.run(
        ["dnsmasq", "--test", f"--conf-file={configuration}"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
