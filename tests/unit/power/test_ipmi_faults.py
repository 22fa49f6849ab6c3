"""What a caller of the IPMI driver is told, from the codes that a BMC answers with, or when it answers nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.power.ipmi_simulator import ACCOUNT, endpoint, free_port
from tests.unit.power.refusing_bmc import IPMI_1_5, SHA256, RefusingBmc
from tests.unit.power.scripted_bmc import IMPATIENT

from rackwright.power import ipmi_chassis
from rackwright.power.connect import Connections
from rackwright.power.ipmi_chassis import Ask
from rackwright.power.ipmi_driver import IPMIDriver
from rackwright.power.ipmi_faults import of_completion, of_login
from rackwright.power.port import BootTarget, Credentials, Endpoint, FaultClass, PowerDriver, PowerError

NETWORK, DISK = BootTarget.NETWORK, BootTarget.DISK
ADMINISTRATOR, OPERATOR = 4, 3


async def fault_of(driver: PowerDriver) -> PowerError:
    with pytest.raises(PowerError) as caught:
        await driver.power_state()
    return caught.value


# --- codes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "fault", "said"),
    [
        (0xC0, FaultClass.BUSY, "is too busy to cut the power"),
        (0xC1, FaultClass.UNSUPPORTED, "cannot cut the power"),
        (0xC3, FaultClass.BUSY, "is too busy to cut the power"),
        (0xC9, FaultClass.UNSUPPORTED, "cannot cut the power"),
        (0xCC, FaultClass.UNSUPPORTED, "cannot cut the power"),
        (0xD1, FaultClass.BUSY, "is too busy to cut the power"),
        (0xD2, FaultClass.BUSY, "is too busy to cut the power"),
        (0xD4, FaultClass.CREDENTIALS, "may not cut the power"),
        (0xD5, FaultClass.BUSY, "is too busy to cut the power"),
        (0xD6, FaultClass.UNSUPPORTED, "cannot cut the power"),
        (0xFF, FaultClass.PROTOCOL, "failed to cut the power"),
        (0x80, FaultClass.UNSUPPORTED, "cannot cut the power"),
        (0x81, FaultClass.BUSY, "is too busy to cut the power"),
    ],
)
def test_a_completion_code_is_sorted(code: int, fault: FaultClass, said: str) -> None:
    error = of_completion("10.0.0.7", "cut the power", code)
    assert error.fault is fault
    assert error.message.endswith(f"BMC at 10.0.0.7 {said} (IPMI completion code 0x{code:02X})")
    assert not error.of_secret


@given(st.integers(0, 255))
def test_every_status_of_a_log_in_is_a_sentence(status: int) -> None:
    error = of_login("10.0.0.7", status)
    assert error.message.startswith("The BMC at 10.0.0.7 ")
    assert error.message.endswith(f" (RMCP+ status 0x{status:02X})")


@pytest.mark.parametrize(
    ("status", "fault", "said"),
    [
        (0x01, FaultClass.BUSY, "no place for another session"),
        (0x0B, FaultClass.BUSY, "no place for another session with these rights"),
        (0x09, FaultClass.CREDENTIALS, "neither administrator nor operator"),
        (0x0A, FaultClass.CREDENTIALS, "neither administrator nor operator"),
        (0x0D, FaultClass.CREDENTIALS, "no such user may log in over the network"),
        (0x12, FaultClass.PROTOCOL, "broke the log-in off"),
    ],
)
async def test_a_refusal_of_the_account_is_sorted(
    connections: Connections, status: int, fault: FaultClass, said: str
) -> None:
    bmc = RefusingBmc(rakp1=lambda _: status)
    try:
        error = await fault_of(connections.driver(endpoint(await bmc.start())))
        assert error.fault is fault
        assert said in error.message
        assert error.of_secret is ("no such user" in said)
        assert error.__cause__ is not None
    finally:
        bmc.stop()


@pytest.mark.parametrize("status", [0x09, 0x0A])
async def test_an_account_that_is_no_administrator_logs_in_as_an_operator(
    connections: Connections, status: int
) -> None:
    bmc = RefusingBmc(rakp1=lambda role: status if role == ADMINISTRATOR else 0)
    try:
        error = await fault_of(connections.driver(endpoint(await bmc.start())))
        assert bmc.roles == [ADMINISTRATOR, OPERATOR]
        assert error.message.endswith("the password is wrong")  # for the rest this BMC knows none
    finally:
        bmc.stop()


@pytest.mark.parametrize(
    ("status", "fault", "said"),
    [
        (0x00, FaultClass.UNSUPPORTED, "has a key for sessions (K_g) besides the accounts' passwords: clear it"),
        (0x0F, FaultClass.CREDENTIALS, "the password is wrong (RMCP+ status 0x0F)"),
        (0x01, FaultClass.BUSY, "no place for another session"),
    ],
)
async def test_a_refusal_of_the_last_step_is_sorted_at_once(
    connections: Connections, status: int, fault: FaultClass, said: str
) -> None:
    bmc = RefusingBmc(password=ACCOUNT.password, rakp3=status)
    try:
        error = await fault_of(connections.driver(endpoint(await bmc.start())))
        assert error.fault is fault
        assert said in error.message
        assert len(bmc.roles) == 1
    finally:
        bmc.stop()


@pytest.mark.parametrize("status", [0x04, 0x05, 0x10, 0x11])
async def test_cipher_suite_3_is_proposed_after_17(connections: Connections, status: int) -> None:
    bmc = RefusingBmc(open_session=lambda algorithm: status if algorithm == SHA256 else 0)
    neither = RefusingBmc(open_session=lambda _: status)
    try:
        error = await fault_of(connections.driver(endpoint(await bmc.start())))
        assert bmc.proposed == [3, 1]
        assert error.fault is FaultClass.CREDENTIALS
        error = await fault_of(connections.driver(endpoint(await neither.start())))
        assert error.fault is FaultClass.UNSUPPORTED
        assert "offers neither cipher suite 17 nor 3: allow one of them on its LAN channel" in error.message
    finally:
        bmc.stop()
        neither.stop()


@pytest.mark.parametrize(
    ("bmc", "fault", "said"),
    [
        (RefusingBmc(capabilities=IPMI_1_5), FaultClass.UNSUPPORTED, "speaks IPMI 1.5 only"),
        (RefusingBmc(completion=0xC0), FaultClass.BUSY, "is too busy to open a session"),
        (RefusingBmc(completion=0xCC), FaultClass.UNSUPPORTED, "speaks IPMI 1.5 only"),
    ],
    ids=["IPMI 1.5", "busy", "IPMI 1.5 to the letter"],
)
async def test_a_bmc_that_offers_no_session_is_sorted(
    connections: Connections, bmc: RefusingBmc, fault: FaultClass, said: str
) -> None:
    try:
        error = await fault_of(connections.driver(endpoint(await bmc.start())))
        assert error.fault is fault
        assert said in error.message
        assert bmc.heard == 1
    finally:
        bmc.stop()


# --- no answer -----------------------------------------------------------------------------------------------------


async def test_where_nothing_listens_is_known_at_once(connections: Connections) -> None:
    port = free_port()
    clock = asyncio.get_running_loop().time
    started = clock()
    error = await fault_of(connections.driver(endpoint(port)))
    assert error.fault is FaultClass.UNREACHABLE
    assert error.message == f"The BMC at 127.0.0.1:{port} refuses connections: nothing listens on that port"
    assert clock() - started < 1


async def test_a_silent_bmc_is_asked_again_from_one_socket_and_then_given_up(connections: Connections) -> None:
    bmc = RefusingBmc(capabilities=None)
    try:
        port = await bmc.start()
        error = await fault_of(connections.driver(endpoint(port)))
        assert error.fault is FaultClass.UNREACHABLE
        assert error.message == f"The BMC at 127.0.0.1:{port} does not answer in time"
        assert bmc.heard >= 2
        assert len(bmc.callers) == 1
    finally:
        bmc.stop()


async def test_a_bmc_is_reached_by_ipv6(connections: Connections) -> None:
    bmc = RefusingBmc()
    try:
        driver = connections.driver(Endpoint(f"ipmi://[0::1]:{await bmc.start('::1')}", ACCOUNT))
        assert (await fault_of(driver)).fault is FaultClass.CREDENTIALS
    finally:
        bmc.stop()


async def test_a_name_that_does_not_resolve_is_unreachable(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unresolved(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    error = await fault_of(connections.driver(Endpoint("ipmi://bmc-7.example", ACCOUNT)))
    assert (error.fault, error.message) == (
        FaultClass.UNREACHABLE,
        "The BMC at bmc-7.example cannot be found: its name does not resolve",
    )


async def test_a_name_with_two_addresses_is_tried_at_both(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    bmc = RefusingBmc(rakp1=lambda _: 0x0D)
    try:
        port = await bmc.start()
        datagrams = (socket.AF_INET, socket.SOCK_DGRAM, 17, "")
        both = [(*datagrams, ("127.0.0.2", port)), (*datagrams, ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        error = await fault_of(connections.driver(Endpoint(f"ipmi://bmc-7.example:{port}", ACCOUNT)))
        assert error.fault is FaultClass.CREDENTIALS
    finally:
        bmc.stop()


async def test_noise_instead_of_ipmi_is_said_to_be_that(connections: Connections) -> None:
    bmc = RefusingBmc(capabilities=b"")
    try:
        error = await fault_of(connections.driver(endpoint(await bmc.start())))
        assert error.fault is FaultClass.PROTOCOL
        assert "gave an answer that is not IPMI when it was to report its power state" in error.message
    finally:
        bmc.stop()


# --- accounts and addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "said"),
    [
        (None, "takes an account: name the Secret that holds it in credentialsSecretRef"),
        (Credentials("a" * 17, "p"), "takes a user name of at most 16 bytes, and the one in the Secret has 17"),
        (Credentials("a", "ü" * 11), "takes a password of at most 20 bytes, and the one in the Secret has 22"),
    ],
)
async def test_an_account_that_ipmi_cannot_carry_is_not_tried(
    connections: Connections, account: Credentials | None, said: str
) -> None:
    bmc = RefusingBmc()
    try:
        error = await fault_of(connections.driver(endpoint(await bmc.start(), account)))
        assert error.fault is FaultClass.CREDENTIALS
        assert said in error.message
        assert bmc.heard == 0
    finally:
        bmc.stop()


async def test_an_address_with_a_path_is_answered_with_one_without(connections: Connections) -> None:
    with pytest.raises(PowerError, match=r"has no path, .*: write it like ipmi://10\.0\.0\.7$") as caught:
        connections.driver(Endpoint("ipmi://10.0.0.7/redfish/v1/Systems/1", ACCOUNT))
    assert caught.value.fault is FaultClass.UNSUPPORTED


# --- a shutdown, as BMCs refuse it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "cut"), [(0xC0, False), (0xC3, False), (0xD2, False), (0xD5, True), (0xCC, True), (0xFF, True)]
)
async def test_the_power_of_a_system_that_may_be_asked_later_is_not_cut(
    connections: Connections, monkeypatch: pytest.MonkeyPatch, code: int, cut: bool
) -> None:
    asked = []

    def ask(_: int, command: int, data: bytes) -> bytes:
        if command == ipmi_chassis.GET_CHASSIS_STATUS:
            return bytes((ipmi_chassis.Control.POWER_DOWN not in asked,))
        asked.append(ipmi_chassis.Control(data[0]))
        if asked[-1] is ipmi_chassis.Control.SOFT_SHUTDOWN:
            raise of_completion("10.0.0.7", "shut the machine down", code)
        return b""

    driver = connections.driver(endpoint(free_port()))
    assert isinstance(driver, IPMIDriver)
    monkeypatch.setattr(driver._service, "exchange", lambda _, step: step(ask))
    if cut:
        await driver.power_off(grace=5)
    else:
        with pytest.raises(PowerError, match="too busy to shut the machine down"):
            await driver.power_off(grace=5)
    assert (ipmi_chassis.Control.POWER_DOWN in asked) is cut


# --- the boot device, as BMCs tell it ------------------------------------------------------------------------------


def chassis(answers: Callable[[bytes], bytes]) -> Ask:
    """A machine that has boot options only."""

    def ask(function: int, command: int, data: bytes) -> bytes:
        assert function == ipmi_chassis.CHASSIS
        assert command in {ipmi_chassis.SET_BOOT_OPTIONS, ipmi_chassis.GET_BOOT_OPTIONS}
        return answers(data)

    return ask


@pytest.mark.parametrize(
    ("answer", "device"),
    [
        ("01 05 80 04 00 00 00", 1),
        ("01 05 e0 08 00 00 00", 2),
        ("01 05 00 08 00 00 00", None),  # not valid: ipmi_sim's, and others'
        ("01 85 80 04 00 00 00", None),  # locked
    ],
)
def test_a_boot_device_is_read_where_the_bmc_says_it_is_valid(answer: str, device: int | None) -> None:
    assert ipmi_chassis.boot_device(chassis(lambda _: bytes.fromhex(answer))) == device


def test_a_bmc_that_shows_no_boot_device_is_believed() -> None:
    def refuse(_: bytes) -> bytes:
        raise PowerError(FaultClass.UNSUPPORTED, "no")

    assert ipmi_chassis.boot_device(chassis(refuse)) is None


def test_a_bmc_that_never_forgets_need_not_be_told_to_remember() -> None:
    asked = []

    def answer(data: bytes) -> bytes:
        asked.append(data.hex(" "))
        if data == ipmi_chassis.KEPT:
            raise PowerError(FaultClass.UNSUPPORTED, "no such option")
        return b""

    ipmi_chassis.choose_boot(chassis(answer), NETWORK, uefi=True)
    assert asked == ["03 08", "05 a0 04 00 00 00"]


async def test_a_boot_device_that_the_bmc_contradicts_is_an_error(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = connections.driver(endpoint(free_port()))
    assert isinstance(driver, IPMIDriver)
    stubborn = chassis(lambda data: bytes.fromhex("01 05 c0 08 00 00 00") if data[1:] == b"\0\0" else b"")
    monkeypatch.setattr(driver._service, "exchange", lambda _, step: step(stubborn))
    await driver.set_boot(DISK, uefi=False)
    with pytest.raises(
        PowerError, match=r"accepted the network as the boot device, .* still names the disk$"
    ) as caught:
        await driver.set_boot(NETWORK, uefi=False)
    assert caught.value.fault is FaultClass.PROTOCOL


@pytest.mark.parametrize(
    "bmc",
    [RefusingBmc(rakp1=lambda _: 0x02), RefusingBmc(capabilities=None, babbles=True)],
    ids=["invalid session", "noise"],  # the first is tried again from the start
)
async def test_an_exchange_ends_with_its_time_whatever_the_bmc_goes_on_saying(bmc: RefusingBmc) -> None:
    connections = Connections(limits=replace(IMPATIENT, connect=1.0, exchange=1.5, turn=0.5))
    try:
        driver = connections.driver(endpoint(await bmc.start()))
        assert (await fault_of(driver)).fault is FaultClass.UNREACHABLE
        assert (await fault_of(driver)).fault is FaultClass.UNREACHABLE  # its turn was given back
    finally:
        await connections.close()
        bmc.stop()
