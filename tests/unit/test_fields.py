"""What the API's types have in common."""

from __future__ import annotations

from rackwright.api.machine import BareMetalMachineStatus, ObservedTriggers, Phase, Power


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
