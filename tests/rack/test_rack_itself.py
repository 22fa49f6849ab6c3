"""The virtual rack is what it claims to be: firmware, BMCs and boot services that speak as real ones do."""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import sushy
from sushy import auth
from tests.laboratories import own

from lab import hypervisor, network, survey
from lab import rack as racks
from lab.errors import Unfit
from lab.paths import STATE
from lab.plan import BMC_PORT, Node, NodeKind
from lab.process import wait_until
from lab.rack import Rack
from rackwright.power.connect import Connections
from rackwright.power.port import BootTarget, Credentials, Endpoint, PowerState

pytestmark = pytest.mark.rack

SCRIPT = b"#!ipxe\necho this-is-the-operator\nshell\n"


@contextmanager
def operator(rack: Rack) -> Iterator[queue.Queue[str]]:
    """An HTTP server where the machines expect the operator; the queue holds what they ask for."""
    asked: queue.Queue[str] = queue.Queue()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.put(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(SCRIPT)))
            self.end_headers()
            self.wfile.write(SCRIPT)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            """Say nothing: what was asked is in the queue."""

    with ThreadingHTTPServer((rack.host_address, rack.operator_port), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield asked
        finally:
            server.shutdown()


def greeted(rack: Rack, node: Node) -> bool:
    """Whether the machine ran the script and showed what it says."""
    return "this-is-the-operator" in rack.console(node)


def system_of(rack: Rack, node: Node) -> sushy.resources.system.system.System:
    """The node's BMC, through the client library that the operator uses."""
    trusted = str(rack.plan.state / "ca.pem")
    account = auth.BasicAuth(rack.username, rack.password)
    client = sushy.Sushy(rack.plan.bmc_url, auth=account, verify=trusted, server_side_retries=1)
    return client.get_system(f"/redfish/v1/Systems/{node.uuid}")


def waits_for_an_operator(rack: Rack, node: Node) -> bool:
    """Whether it found none and asks on."""
    return "the operator does not answer, asking again" in rack.console(node)


def test_both_kinds_of_firmware_wait_for_an_operator_and_fetch_its_boot_script(rack: Rack) -> None:
    for node in rack.nodes:
        bmc = system_of(rack, node)
        assert bmc.power_state == sushy.PowerState.OFF
        bmc.set_system_boot_options(target=sushy.BootSource.PXE, enabled=sushy.BootSourceOverrideEnabled.ONCE)
        bmc.reset_system(sushy.ResetType.ON)
    for node in rack.nodes:
        assert wait_until(partial(waits_for_an_operator, rack, node), 120), rack.console(node)
    with operator(rack) as asked:
        seen = {asked.get(timeout=120) for _ in rack.nodes}
        assert seen == {f"/boot/ipxe?mac={node.mac.replace(':', '-')}" for node in rack.nodes}
        for node in rack.nodes:
            assert rack.power(node) == "On"
            assert wait_until(partial(greeted, rack, node), 20)
    log = (rack.plan.run / "dnsmasq.log").read_text()
    addresses = racks.addresses_leased(rack)
    uefi, bios = rack.nodes
    tftp = rack.plan.run / "tftp"
    assert f"sent {tftp}/snponly.efi to {addresses[uefi.mac]}" in log
    assert f"sent {tftp}/undionly.kpxe to {addresses[bios.mac]}" not in log  # its card's own ROM is iPXE
    for address in addresses.values():
        assert f"sent {tftp}/boot.ipxe to {address}" in log


def test_a_pulled_plug_is_seen_by_the_bmc(rack: Rack) -> None:
    node = rack.nodes[0]
    system_of(rack, node).reset_system(sushy.ResetType.ON)
    rack.hard_off(node)
    assert system_of(rack, node).power_state == sushy.PowerState.OFF


def test_the_bmc_wants_the_right_password_and_shows_the_right_certificate(rack: Rack) -> None:
    url = rack.nodes[0].bmc_address.removeprefix("redfish+")
    trusting = ssl.create_default_context(cadata=rack.ca)
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(url, context=trusting, timeout=5)  # noqa: S310 (the rack's own BMC)
    refused.value.close()
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(url, context=ssl.create_default_context(), timeout=5)  # noqa: S310 (the same)


def test_a_client_that_says_nothing_keeps_nobody_from_the_bmcs(rack: Rack) -> None:
    with socket.create_connection((str(rack.plan.rack_address), BMC_PORT), timeout=5):
        assert system_of(rack, rack.nodes[0]).power_state == sushy.PowerState.OFF


def test_up_repairs_what_died_and_leaves_the_rest(rack: Rack) -> None:
    node = rack.nodes[1]
    system_of(rack, node).reset_system(sushy.ResetType.ON)
    rack.services["libvirtd"].kill()
    rack.services["dnsmasq"].kill()
    assert wait_until(lambda: rack.services["libvirtd"].pid is None, 5)
    redfish = rack.services["redfish"].pid
    assert racks.up(rack.name) == rack
    assert all(service.pid for service in rack.services.values())
    assert rack.services["redfish"].pid != redfish
    assert rack.power(node) == "On"
    assert system_of(rack, node).power_state == sushy.PowerState.ON


def test_a_rack_that_exists_is_not_changed_into_another(rack: Rack) -> None:
    with pytest.raises(Unfit, match="exists with port"):
        racks.up(rack.name, operator_port=rack.operator_port + 1)


def test_a_second_rack_comes_and_goes_beside_the_first(rack: Rack) -> None:
    with own("test2") as name:
        other = racks.up(name)
        assert not other.plan.subnet.overlaps(rack.plan.subnet)
        system_of(other, other.nodes[1]).reset_system(sushy.ResetType.ON)
        assert other.power(other.nodes[1]) == "On"
        racks.down(name)
    assert remains_of(other) == []
    assert all(service.pid for service in rack.services.values())


@pytest.fixture
def spoken_to_by_ipmi() -> Iterator[Rack]:
    """A rack of its own."""
    with own("test3") as name:
        yield racks.up(name, [NodeKind.parse("node-03:UEFI:ipmi")])


async def test_an_ipmi_bmc_switches_its_machine_and_goes_with_the_rack(spoken_to_by_ipmi: Rack) -> None:
    rack, connections = spoken_to_by_ipmi, Connections()
    try:
        [node] = rack.nodes
        assert rack.services["ipmi-node-03"].pid is not None
        assert survey.facts(rack)["nodes"][0]["bmcAddress"] == f"ipmi://{rack.plan.subnet[3]}"
        driver = connections.driver(Endpoint(node.bmc_address, Credentials(rack.username, rack.password)))
        await driver.set_boot(BootTarget.NETWORK, uefi=True)
        assert boot_devices(rack, node) == ["network"]
        assert await driver.power_state() is PowerState.OFF
        await driver.power_on()
        assert rack.power(node) == "On"
        rack.hard_off(node)
        assert await driver.power_state() is PowerState.OFF
        await driver.set_boot(BootTarget.DISK, uefi=True)
        assert boot_devices(rack, node) == ["hd"]
        await driver.power_on()
        assert await asyncio.to_thread(wait_until, partial(is_connected_in_band, rack, node), 30)
        rack.services["ipmi-node-03"].kill()
        assert racks.up(rack.name) == rack
        assert await driver.power_state() is PowerState.ON
        await driver.power_off(grace=0)
        assert rack.power(node) == "Off"
    finally:
        await connections.close()
    racks.down(rack.name)
    assert remains_of(rack) == []


def boot_devices(rack: Rack, node: Node) -> list[str]:
    """What the hypervisor will boot the machine from."""
    uri = f"qemu+unix:///system?socket={hypervisor.socket_of(rack.plan)}"
    done = subprocess.run(
        ["virsh", "-q", "-c", uri, "dumpxml", "--inactive", node.domain], capture_output=True, text=True, check=True
    )
    return [boot.get("dev", "") for boot in ET.fromstring(done.stdout).findall("os/boot")]  # noqa: S314 (libvirt's own)


def is_connected_in_band(rack: Rack, node: Node) -> bool:
    """Whether the machine's KCS interface and its BMC have found each other, as the rack's namespace shows it."""
    assert node.ipmi is not None
    established, port = "01", f":{node.ipmi.in_band[1]:04X}"
    lines = Path(f"/proc/{rack.services['ipmi-node-03'].pid}/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(port) and line.split()[3] == established for line in lines)


def test_down_removes_a_rack_whose_start_was_cut_off(rack: Rack) -> None:
    with own("test2") as name:
        half = racks.up(name).plan
        for file in (half.state / "rack.json", half.run / "dnsmasq.pid", half.run / "libvirtd.pid"):
            file.unlink()
        subprocess.run(["ip", "link", "del", half.host_interface], check=True)
        racks.down(name)
    assert remains_of(Rack(half, rack.username, rack.password, rack.ca)) == []


def remains_of(rack: Rack) -> list[str]:
    """What is still there of a rack."""
    processes = [
        command.read_bytes().decode(errors="replace").replace("\0", " ")
        for command in Path("/proc").glob("[0-9]*/cmdline")
        if command.exists()
    ]
    places = (str(rack.plan.run), str(rack.plan.state))
    return [
        *(command for command in processes if any(place in command for place in places)),
        *(str(folder) for folder in (rack.plan.run, rack.plan.state, STATE / rack.name) if folder.exists()),
        *([rack.plan.namespace] if network.namespace_exists(rack.name) else []),
        *([rack.plan.host_interface] if network.host_interface_exists(rack.name) else []),
    ]
