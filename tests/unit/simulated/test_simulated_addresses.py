"""What a simulated address may say, and what is said about one that may not be."""

from __future__ import annotations

import re

import pytest

from rackwright.api.fields import SIMULATED_PARAMETERS
from rackwright.power.address import bmc_key, parse, stake
from rackwright.power.port import FaultClass, PowerError
from rackwright.simulated.behaviour import PROFILES, Behaviour, behaviour


def test_a_fast_machine_takes_no_time_and_has_no_faults() -> None:
    assert behaviour("simulated://fast") == Behaviour() == PROFILES["fast"]


def test_parameters_override_the_profile_one_by_one() -> None:
    asked = behaviour("simulated://slow?boot=90s&write=2m&answer=250ms&fail=0.02&hang=0.01&disks=4&seed=7")
    assert (asked.boot, asked.write, asked.answer) == (90.0, 120.0, 0.25)
    assert (asked.fail, asked.hang, asked.disks, asked.seed) == (0.02, 0.01, 4, 7)
    assert asked.erase == PROFILES["slow"].erase


def test_machines_with_one_address_share_what_it_says() -> None:
    assert behaviour("simulated://slow?seed=7") is behaviour("simulated://slow?seed=7")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("simulated://brisk", "There is no simulated://brisk: write simulated://fast or simulated://slow"),
        ("simulated://fast/node-7", "There is no simulated://fast/node-7"),
        ("simulated://fast?bot=90s", "'bot' .* is unknown: there are answer, power, boot"),
        ("simulated://fast?boot=90", "'boot' .* must be a duration like 500ms, 90s or 5m"),
        ("simulated://fast?boot", "'boot' .* must be a duration"),
        ("simulated://fast?boot=90s&boot=91s", "'boot' .* is given twice"),
        ("simulated://fast?fail=2", r"'fail' .* must be a number from 0 to 1, like 0\.02"),
        ("simulated://fast?disks=0", "'disks' .* must be a number from 1 to 99"),
        ("simulated://fast?seed=x", "'seed' .* must be a whole number"),
    ],
)
def test_what_cannot_be_is_named(address: str, said: str) -> None:
    with pytest.raises(PowerError, match=said) as caught:
        behaviour(address)
    assert caught.value.fault is FaultClass.UNSUPPORTED


def test_the_api_server_lets_through_what_is_read_here_and_nothing_else() -> None:
    values = {"answer": "5ms", "spread": "0.5", "fail": "1", "hang": "0", "disks": "12", "seed": "123456789"}
    for name in Behaviour.__dataclass_fields__:
        text = values.get(name, "0.25" if name in ("lost", "broken") else "90s")
        admitted = any(re.fullmatch(pattern, f"{name}={text}") for pattern in SIMULATED_PARAMETERS)
        assert admitted, name
        behaviour(f"simulated://fast?{name}={text}")
    for wrong in ("boot=90", "fail=1.5", "fail=.5", "disks=0", "disks=100", "seed=-1", "bot=1s", "seed=1234567890"):
        assert not any(re.fullmatch(pattern, wrong) for pattern in SIMULATED_PARAMETERS), wrong
        with pytest.raises(PowerError):
            behaviour(f"simulated://fast?{wrong}")


def test_an_address_with_parameters_has_one_spelling() -> None:
    assert bmc_key("simulated://Slow?boot=90s") == "simulated://slow?boot=90s"
    assert str(parse(bmc_key("simulated://slow?boot=90s"))) == "simulated://slow?boot=90s"


def test_two_machines_with_one_simulated_address_are_no_twins() -> None:
    one = stake("simulated://fast")
    assert not one.holds & one.rivals
