"""What the agent needs to find in a node, it finds."""

from __future__ import annotations

from rackwright.install.steps import clean_step, node


def test_a_node_holds_the_three_mappings_that_the_agent_reads_without_asking() -> None:
    assert node(
        "6b1c", root_device={"serial": "s== S1"}, driver_internal_info={"agent_erase_devices_iterations": 1}
    ) == {
        "uuid": "6b1c",
        "properties": {"root_device": {"serial": "s== S1"}},
        "instance_info": {},
        "driver_internal_info": {"agent_erase_devices_iterations": 1},
    }


def test_a_node_without_hints_leaves_the_choice_to_the_agent() -> None:
    assert node("6b1c", root_device={})["properties"] == {}


def test_a_step_says_which_of_the_plug_ins_it_is_and_for_which_machine() -> None:
    it = node("6b1c", root_device={})
    assert clean_step(
        "erase_disks", {"mode": "Full"}, node=it, mac_addresses=["52:54:00:AA:00:07"], clean_version=None
    ) == {
        "step": {"step": "erase_disks", "interface": "deploy", "priority": 0, "args": {"mode": "Full"}},
        "node": it,
        "ports": [{"address": "52:54:00:aa:00:07"}],
        "clean_version": None,
    }
