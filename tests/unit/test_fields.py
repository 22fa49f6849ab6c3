"""What the API's types have in common."""

from __future__ import annotations

import re

import pytest
from pydantic import TypeAdapter

from rackwright.api.fields import SSHKey
from rackwright.api.machine import BareMetalMachineStatus, ObservedTriggers, Phase, Power
from rackwright_ipa.rescue import authorized_keys


def given(status: BareMetalMachineStatus) -> dict[str, object]:
    return status.model_dump(exclude_unset=True)


def test_which_fields_were_given_is_in_memory_once_and_a_copy_changes_only_itself() -> None:
    ready, broken = (BareMetalMachineStatus.model_validate({"phase": phase}) for phase in (Phase.READY, Phase.BROKEN))
    switched_on = ready.model_copy(update={"power": Power.ON})

    assert ready.model_fields_set is broken.model_fields_set
    assert given(switched_on) == {"phase": Phase.READY, "power": Power.ON}
    assert given(ready) == {"phase": Phase.READY}
    assert given(broken) == {"phase": Phase.BROKEN}


def test_what_was_given_is_told_apart_from_a_default_within_an_object_too() -> None:
    told = BareMetalMachineStatus.model_validate({"observedTriggers": {"deployment": "", "powerCycle": "again"}})

    assert given(told) == {"observed_triggers": {"deployment": "", "power_cycle": "again"}}
    assert ObservedTriggers().model_fields_set == set()


KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIKeal2O2a9S01EvFueySP5gXnfZiKNw6JD3vzT3Guh4v"


@pytest.mark.parametrize(
    ("key", "is_taken"),
    [
        (f"ssh-ed25519 {KEY}", True),
        (f"ssh-ed25519 {KEY} ", True),
        (f"ssh-ed25519 {KEY} Jörg's, with spaces", True),
        (f"ssh-rsa {KEY}==", True),
        (f"ecdsa-sha2-nistp256 {KEY}=", True),
        (f"sk-ssh-ed25519@openssh.com {KEY}", True),
        (f"sk-ecdsa-sha2-nistp256@openssh.com {KEY} me", True),
        (f"ssh-ed25519-cert-v01@openssh.com {KEY} me", False),
        (f"sk-ssh-ed25519-cert-v01@openssh.com {KEY}", False),
        (f"sk-ssh-ed25519@opensshxcom {KEY}", False),
        (f"ssh-ed25519 {KEY} a\ttab", False),
        (f"ssh-ed25519\t{KEY}", False),
        (f"ssh-ed25519 {KEY} a\x1b[31m", False),
        (f"ssh-ed25519 {KEY} a\x7f", False),
        (f"ssh-ed25519 {KEY} a\nssh-rsa {KEY}", False),
        (f"ssh-ed25519 {KEY}====", False),
        (f"ssh-ed25519 =A{KEY}", False),
        (f'command="reboot" ssh-ed25519 {KEY}', False),
        ("ssh-ed25519", False),
    ],
)
def test_an_ssh_key_that_may_be_declared_is_one_that_the_ramdisk_takes(key: str, is_taken: bool) -> None:
    (rule,) = TypeAdapter(SSHKey).json_schema()["x-kubernetes-validations"]
    pattern = rule["rule"].removeprefix("self.matches('^").removesuffix("$')").replace(r"\\", "\\")
    assert bool(re.fullmatch(pattern, key)) is is_taken
    try:
        authorized_keys([key])
    except ValueError:
        assert not is_taken
    else:
        assert is_taken
