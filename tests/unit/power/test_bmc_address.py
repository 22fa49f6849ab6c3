"""One BMC, one spelling."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright.power.address import bmc_key, parse, stake
from rackwright.power.port import FaultClass, PowerError

SCHEMES = st.sampled_from(["redfish+https", "redfish+http", "ipmi", "webhook+https"])
LABELS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
HOSTS = st.one_of(NAMES, st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"))
PORTS = st.integers(1, 65535)
PATHS = st.lists(st.text("abcXYZ019._-", min_size=1, max_size=6), max_size=4).map(lambda parts: "/".join(["", *parts]))


@given(SCHEMES, HOSTS, PORTS, PATHS)
def test_a_key_is_an_address_with_itself_as_its_key(scheme: str, host: str, port: int, path: str) -> None:
    key = bmc_key(f"{scheme}://{host}:{port}{path}")
    assert bmc_key(key) == key


@given(SCHEMES, HOSTS, PATHS, st.data())
def test_spellings_of_one_place_have_one_key(scheme: str, host: str, path: str, data: st.DataObject) -> None:
    port = parse(f"{scheme}://{host}").port
    base = f"{scheme}://{host}"
    shouted = data.draw(st.sampled_from([base, base.upper(), base.title()]))
    explicit = data.draw(st.sampled_from(["", f":{port}"]))
    slash = "" if scheme.startswith("webhook") else data.draw(st.sampled_from(["", "/", "//"]))
    assert bmc_key(f" {shouted}{explicit}{path}{slash}\n") == bmc_key(base + path)


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_has_one_spelling(ip: ipaddress.IPv6Address) -> None:
    assert bmc_key(f"redfish+https://[{ip.exploded}]") == bmc_key(f"redfish+https://[{ip.compressed}]")


@given(st.tuples(SCHEMES, HOSTS, PORTS, PATHS), st.tuples(SCHEMES, HOSTS, PORTS, PATHS))
def test_different_places_have_different_keys(one: tuple[str, str, int, str], other: tuple[str, str, int, str]) -> None:
    keys = [bmc_key(f"{scheme}://{host}:{port}{path}") for scheme, host, port, path in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        (
            "redfish+https://BMC-7.example/redfish/v1/Systems/A/",
            "redfish+https://bmc-7.example:443/redfish/v1/Systems/A",
        ),
        ("redfish+https://bmc-7/redfish/v1/", "redfish+https://bmc-7:443"),
        ("redfish+https://bmc-7/redfish/v1/Systems/", "redfish+https://bmc-7:443"),
        ("redfish+http://[2001:DB8:0::7]", "redfish+http://[2001:db8::7]:80"),
        ("redfish+https://[fe80::1%25eth0]", "redfish+https://[fe80::1%25eth0]:443"),
        ("ipmi://10.0.0.7", "ipmi://10.0.0.7:623"),
        ("webhook+https://Power.example:443/outlets/7", "webhook+https://power.example:443/outlets/7"),
        ("webhook+https://power.example/outlets/7/", "webhook+https://power.example:443/outlets/7/"),
        ("webhook+http://power.example/", "webhook+http://power.example:80"),
        ("manual://node-7", "manual://node-7"),
        ("manual://", "manual://"),
    ],
)
def test_the_key_is_the_address_in_full(address: str, key: str) -> None:
    assert bmc_key(address) == key


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("10.0.0.7", "has no scheme"),
        ("redfish+https:10.0.0.7", "has no scheme"),
        ("redfish+https://", "names no host"),
        ("redfish+https:///redfish/v1/Systems/1", "names no host"),
        ("redfish+https://admin:secret@10.0.0.7", "belong in credentialsSecretRef"),
        ("redfish+https://10.0.0.7?x=1", "a query"),
        ("redfish+https://10.0.0.7:99999", "is not a URL"),
        ("redfish+https://[::1", "is not a URL"),
        ("redfish+https://[1:2]", "The BMC address"),
        ("", "has no scheme"),
    ],
)
def test_what_is_no_address_is_said_to_be_none(address: str, said: str) -> None:
    with pytest.raises(PowerError, match=said) as caught:
        bmc_key(address)
    assert caught.value.fault is FaultClass.UNSUPPORTED
    assert "secret" not in str(caught.value).replace("credentialsSecretRef", "")


def test_a_place_is_named_with_its_port_where_that_says_something() -> None:
    assert parse("redfish+https://10.0.0.7:443/x").place == "10.0.0.7"
    assert parse("redfish+https://10.0.0.7:8443/x").place == "10.0.0.7:8443"
    assert parse("redfish+http://[::1]:8000").place == "[::1]:8000"


# --- two addresses of one machine ---------------------------------------------------------------------------------

SYSTEM_1, SYSTEM_2 = "redfish+https://10.0.0.7/redfish/v1/Systems/1", "redfish+https://10.0.0.7/redfish/v1/Systems/2"


def clash(one: str, other: str) -> bool:
    """Whether both mean one machine; whoever says so of one says so of the other."""
    verdicts = {bool(stake(a).holds & stake(b).rivals) for a, b in ((one, other), (other, one))}
    assert len(verdicts) == 1
    return verdicts.pop()


@pytest.mark.parametrize(
    "other",
    [
        SYSTEM_1,
        "redfish+https://10.0.0.7:443/redfish/v1/Systems/1/",
        "redfish+http://10.0.0.7/redfish/v1/Systems/1",
        "redfish+https://10.0.0.7",
        "redfish+https://10.0.0.7/",
        "redfish+http://10.0.0.7/redfish/v1",
        "ipmi://10.0.0.7",
    ],
)
def test_one_machine_written_in_two_ways_is_one(other: str) -> None:
    assert clash(SYSTEM_1, other)


@pytest.mark.parametrize(
    "other",
    [
        SYSTEM_2,
        "redfish+http://10.0.0.7/redfish/v1/Systems/2",
        "redfish+https://10.0.0.8",
        "redfish+https://10.0.0.8/redfish/v1/Systems/1",
        "redfish+https://10.0.0.7:8443/redfish/v1/Systems/1",
        "ipmi://10.0.0.7:6230",
    ],
)
def test_other_systems_hosts_and_forwarded_ports_are_other_machines(other: str) -> None:
    assert not clash(SYSTEM_1, other)


def test_an_address_that_names_no_system_means_all_of_the_bmc_whatever_it_speaks() -> None:
    assert clash("redfish+https://10.0.0.7", "redfish+http://10.0.0.7/")
    assert clash("redfish+https://10.0.0.7", "ipmi://10.0.0.7:623")
    assert clash("redfish+https://[2001:db8::7]/", "redfish+https://[2001:DB8:0::7]/redfish/v1/Systems/1")


@given(st.tuples(SCHEMES, HOSTS, PORTS, PATHS), st.tuples(SCHEMES, HOSTS, PORTS, PATHS))
def test_a_clash_is_seen_from_both_sides(one: tuple[str, str, int, str], other: tuple[str, str, int, str]) -> None:
    clash(*(f"{scheme}://{host}:{port}{path}" for scheme, host, port, path in (one, other)))


@given(SCHEMES, HOSTS, PORTS, PATHS)
def test_an_address_always_clashes_with_itself(scheme: str, host: str, port: int, path: str) -> None:
    address = f"{scheme}://{host}:{port}{path}"
    assert clash(address, address)
