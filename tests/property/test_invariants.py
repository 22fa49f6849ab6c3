"""The invariants, against random histories of one machine."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from tests.property.admission import OF_DEPLOYMENT, OF_SPEC, unknown_rules
from tests.property.histories import Event, histories, told

from rackwright.api.machine import BareMetalMachineSpec, Deployment

HISTORIES = int(os.environ.get("RACKWRIGHT_HISTORIES", "1500"))
"""The same ones in every run; `hack/test --nightly` tells more."""


@settings(max_examples=HISTORIES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(histories())
def test_every_history_keeps_the_invariants_and_settles(history: tuple[str, Sequence[Event]]) -> None:
    told(*history)


def test_the_histories_know_every_rule_of_the_api_server() -> None:
    assert unknown_rules(BareMetalMachineSpec, OF_SPEC) == []
    assert unknown_rules(Deployment, OF_DEPLOYMENT) == []
