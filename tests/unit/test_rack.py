"""The virtual rack's plan and descriptions: what is computed before anything is made."""

from __future__ import annotations

import ssl
import string
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import authority, bmc, chassis
from lab.domains import domain_xml, make_disks
from lab.errors import Unfit
from lab.plan import POOL, Bus, Firmware, NodeKind, Plan, Protocol, default_nodes, first_free, subnets

NAMES = st.builds(
    str.__add__,
    st.sampled_from(string.ascii_lowercase),
    st.text(string.ascii_lowercase + string.digits, max_size=7),
)


def plan(name: str = "test", *, nodes: int = 2, taken: tuple[IPv4Network, ...] = ()) -> Plan:
    run, state = Path("/run/rackwright", name), Path("/var/state", name)
    return Plan.of(name, default_nodes(nodes), subnet=first_free(name, taken), run=run, state=state)


def everything_named(rack: Plan) -> set[str]:
    shared = [rack.namespace, rack.host_interface, rack.rack_address, rack.host_address, rack.prefix, *rack.leases]
    own = [(n.mac, n.uuid, n.domain, n.serial, n.bmc_address, n.console, *n.disks) for n in rack.nodes]
    return {str(item) for item in [*shared, *(item for node in own for item in node)]}


@given(NAMES, NAMES)
def test_two_racks_share_nothing(first: str, second: str) -> None:
    one = plan(first)
    other = plan(second, taken=(one.subnet,))
    assert not one.subnet.overlaps(other.subnet)
    if first != second:
        assert not everything_named(one) & everything_named(other)


@given(NAMES)
def test_a_rack_is_the_same_every_time(name: str) -> None:
    assert everything_named(plan(name)) == everything_named(plan(name))


@given(NAMES, st.lists(st.integers(0, 511), max_size=511, unique=True))
def test_a_rack_takes_the_next_network_after_those_in_use(name: str, used: list[int]) -> None:
    every = list(POOL.subnets(new_prefix=24))
    taken = [every[i] for i in used]
    chosen = first_free(name, taken)
    assert chosen.subnet_of(POOL)
    assert chosen not in taken
    order = list(subnets(name))
    assert all(earlier in taken for earlier in order[: order.index(chosen)])


def test_a_host_that_routes_the_whole_pool_is_told_so() -> None:
    with pytest.raises(Unfit, match="routed on this host already"):
        first_free("test", [IPv4Network("198.18.0.0/15")])


@given(NAMES)
def test_names_fit_into_what_the_kernel_allows(name: str) -> None:
    rack = plan(name)
    assert len(rack.bridge) <= 15
    assert len(rack.host_interface) <= 15


def test_macs_are_unicast_and_locally_administered() -> None:
    macs = [node.mac for node in plan(nodes=90).nodes]
    assert len(set(macs)) == 90
    assert {int(mac[:2], 16) & 0b11 for mac in macs} == {0b10}


def test_firmware_alternates_so_that_both_ways_of_booting_are_there() -> None:
    assert [node.firmware for node in plan().nodes] == [Firmware.UEFI, Firmware.LEGACY]


def test_a_node_is_asked_for_by_name_and_firmware_and_perhaps_its_bmc() -> None:
    assert NodeKind.parse("db-1:uefi") == NodeKind("db-1", Firmware.UEFI, Protocol.REDFISH)
    assert NodeKind.parse("db-1:Legacy:IPMI") == NodeKind("db-1", Firmware.LEGACY, Protocol.IPMI)


@given(st.builds(NodeKind, st.just("db-1"), st.sampled_from(Firmware), st.sampled_from(Protocol)))
def test_a_nodes_kind_is_recorded_as_it_is_asked_for(kind: NodeKind) -> None:
    assert NodeKind.parse(str(kind)) == kind


@pytest.mark.parametrize(
    "text",
    ["db", "db:", ":UEFI", "db:BIOS", "d b:UEFI", "../x:UEFI", "DB:UEFI", "db:UEFI:", "db:UEFI:snmp", "db:UEFI:ipmi:"],
)
def test_a_node_that_cannot_be_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(Unfit) as refused:
        NodeKind.parse(text)
    assert "NAME:FIRMWARE" in refused.value.remedy


@pytest.mark.parametrize(
    "ask", [lambda: default_nodes(0), lambda: default_nodes(91), lambda: plan("Test"), lambda: plan("toolongname")]
)
def test_a_rack_that_cannot_be_is_refused(ask: Callable[[], object]) -> None:
    with pytest.raises(Unfit):
        ask()


def test_two_nodes_cannot_have_one_name() -> None:
    twice = [NodeKind("a", Firmware.UEFI), NodeKind("a", Firmware.LEGACY)]
    with pytest.raises(Unfit, match="same name"):
        Plan.of("test", twice, subnet=next(subnets("test")), run=Path("/run/x"), state=Path("/x"))


def test_uefi_boots_by_its_own_driver_and_bios_by_the_cards_rom() -> None:
    rack = plan()
    uefi, bios = (ET.fromstring(domain_xml(node, rack)) for node in rack.nodes)  # noqa: S314 (our own)
    assert [rom.get("enabled") for rom in uefi.findall("devices/interface/rom")] == ["no"]
    assert uefi.find("os/loader") is not None
    assert bios.find("devices/interface/rom") is None
    assert bios.find("os/loader") is None


def test_ipmi_bmcs_have_addresses_of_their_own_and_no_default_rack_has_one() -> None:
    assert [node.ipmi for node in plan().nodes] == [None, None]
    kinds = [NodeKind(f"n{i}", Firmware.UEFI, Protocol.IPMI) for i in range(90)]
    rack = Plan.of("test", kinds, subnet=next(subnets("test")), run=Path("/run/x"), state=Path("/x"))
    bmcs = [node.ipmi for node in rack.nodes if node.ipmi is not None]
    addresses = {bmc.address for bmc in bmcs}
    assert len(addresses) == len({bmc.in_band for bmc in bmcs}) == 90
    assert all(rack.host_address < address < rack.leases[0] for address in addresses)
    assert {node.bmc_address for node in rack.nodes} == {f"ipmi://{address}" for address in addresses}


def test_a_machine_with_an_ipmi_bmc_finds_it_in_band_and_keeps_its_nvme_disk() -> None:
    kinds = [NodeKind("a", Firmware.UEFI, Protocol.IPMI), NodeKind("b", Firmware.UEFI)]
    rack = Plan.of("test", kinds, subnet=next(subnets("test")), run=Path("/run/x"), state=Path("/x"))
    with_bmc, without = (domain_xml(node, rack) for node in rack.nodes)
    assert "isa-ipmi-kcs,bmc=bmc0" in with_bmc
    assert "nvme,drive=nvme0" in with_bmc
    assert with_bmc.count("<qemu:commandline>") == 1
    assert "qemu:arg" not in without


def test_a_boot_device_that_ipmi_chooses_replaces_those_before_it_and_nothing_else() -> None:
    kinds = [NodeKind("a", Firmware.UEFI, Protocol.IPMI)]
    rack = Plan.of("test", kinds, subnet=next(subnets("test")), run=Path("/run/x"), state=Path("/x"))
    before = domain_xml(rack.nodes[0], rack)
    after = chassis.booting_from(before, "hd")
    assert [boot.get("dev") for boot in ET.fromstring(after).findall("os/boot")] == ["hd"]  # noqa: S314 (our own)
    assert chassis.booting_from(after, "network") == chassis.booting_from(before, "network")
    assert "<qemu:arg" in after


def test_every_disk_is_attached_with_its_serial_and_backing_file() -> None:
    rack = plan()
    for node in rack.nodes:
        described = domain_xml(node, rack)
        for disk in node.disks:
            assert str(disk.backing) in described
            assert disk.serial in described
            assert disk.bus is Bus.NVME or f"<wwn>{disk.wwn}</wwn>" in described


def test_disks_are_sparse_and_keep_their_contents(tmp_path: Path) -> None:
    rack = Plan.of("test", default_nodes(1), subnet=next(subnets("test")), run=tmp_path / "run", state=tmp_path)
    [node] = rack.nodes
    make_disks(node)
    root = node.disks[0].backing
    assert root.stat().st_size == 4 * 2**30
    assert root.stat().st_blocks * 512 < 2**20
    with root.open("r+b") as image:
        image.write(b"installed")
    make_disks(node)
    with root.open("rb") as image:
        assert image.read(9) == b"installed"


def test_the_authority_signs_for_its_own_address_only(tmp_path: Path) -> None:
    ca, certificate, key = authority.issue("rack a", IPv4Address("198.18.1.1"))
    (tmp_path / "bmc.pem").write_text(certificate + key)
    assert handshake(tmp_path / "bmc.pem", ca, "198.18.1.1") is None
    assert "IP address mismatch" in str(handshake(tmp_path / "bmc.pem", ca, "198.18.1.2"))
    other, _, _ = authority.issue("rack b", IPv4Address("198.18.1.1"))
    assert handshake(tmp_path / "bmc.pem", other, "198.18.1.1") is not None


def handshake(chain: Path, ca: str, address: str) -> ssl.SSLError | None:
    """A TLS handshake in memory; why the client refused, if it did."""
    trust = ssl.create_default_context(cadata=ca)
    trust.verify_flags |= ssl.VERIFY_X509_STRICT
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(chain)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(back, there, server_hostname=address)
    server = serving.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as refusal:
                return refusal
    return None


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    secret = tmp_path / "rack.json"
    secret.touch(mode=0o644)
    bmc.write_secret(secret, "{}")
    assert secret.stat().st_mode & 0o777 == 0o600
