"""A rescue environment lets keys in and says how to recognise it."""

from __future__ import annotations

import pytest

from rackwright.install import rescue
from rackwright.install.steps import node
from rackwright.lifecycle.world import Fault

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tr"


def test_the_plug_in_is_told_whom_to_let_in() -> None:
    it = node("6b1c", root_device={})
    params = rescue.parameters([f"{KEY} me"], node=it, mac_addresses=[], clean_version=None)
    assert params["step"] == {
        "step": "open_rescue",
        "interface": "deploy",
        "priority": 0,
        "args": {"ssh_authorized_keys": [f"{KEY} me"]},
    }


def test_an_open_rescue_tells_its_user_and_its_host_keys() -> None:
    result = {"clean_result": {"user": "rescue", "hostKeys": [f"{KEY} root@ramdisk\n", "garbage", None]}}
    assert rescue.opened(result) == rescue.OpenRescue("rescue", (KEY,))


@pytest.mark.parametrize(
    "result", [None, {}, {"clean_result": None}, {"clean_result": {"user": ""}}, {"clean_result": {"user": "rescue"}}]
)
def test_an_answer_that_makes_no_sense_is_a_fault(result: object) -> None:
    fault = rescue.opened(result)
    assert isinstance(fault, Fault)
    assert fault.reason == "RescueResultUnreadable"
