"""What the API server lets a person declare: the CEL rules of `spec`, as Python.

The random specs of the property tests have to be worlds that can exist. The rules are found by the sentence that a
refused apply prints, so that a rule that is added, dropped or reworded breaks a test here instead of being forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rackwright.api.fields import Model
from rackwright.api.machine import BareMetalMachineSpec, Deployment
from rackwright.lifecycle.by_hand import moved_by_hand

Rule = Callable[[BareMetalMachineSpec, BareMetalMachineSpec | None], bool]


class Refused(ValueError):
    """The API server would not have taken this spec."""


def _owner(spec: BareMetalMachineSpec | None) -> str | None:
    return spec.allocation.owner if spec is not None and spec.allocation is not None else None


def _needs_address(spec: BareMetalMachineSpec) -> bool:
    return spec.accepted and not (spec.deployment is not None and spec.deployment.existing)


OF_SPEC: Mapping[str, Rule] = {
    "spec.deployment needs": lambda new, _: new.deployment is None or new.allocation is not None,
    "spec.allocation.owner can't change": lambda new, old: (
        _owner(new) is None or _owner(old) is None or _owner(new) == _owner(old)
    ),
    "spec.bmc is missing": lambda new, _: not _needs_address(new) or new.bmc is not None,
    "spec.power and spec.powerCycle need": lambda new, _: (
        not moved_by_hand(new) or (new.power is None and not new.power_cycle.trigger)
    ),
    "spec.rescue needs a BMC": lambda new, _: not moved_by_hand(new) or new.rescue is None,
    "spec.rescue needs spec.bootMACAddress": lambda new, _: new.rescue is None or new.boot_mac_address is not None,
    "spec.bmc.credentialsSecretRef is missing": lambda new, _: (
        not new.accepted
        or new.bmc is None
        or new.bmc.credentials_secret_ref is not None
        or not new.bmc.address.startswith(("ipmi:", "webhook+"))
    ),
    "spec.bootMACAddress is missing": lambda new, _: not _needs_address(new) or new.boot_mac_address is not None,
}
"""By how their sentence begins."""

OF_DEPLOYMENT: Mapping[str, Callable[[Deployment], bool]] = {
    "existing and image exclude": lambda deployment: not (deployment.existing and deployment.image is not None),
    "image is missing": lambda deployment: deployment.existing or deployment.image is not None,
}


def unknown_rules(model: type[Model], known: Iterable[str]) -> list[str]:
    """Sentences of the model's rules that are not known here."""
    return [s for s in sentences(model) if not any(s.startswith(beginning) for beginning in known)]


def sentences(model: type[Model]) -> list[str]:
    """What a refused apply prints, for each of a model's own rules."""
    schema: Any = model.model_config.get("json_schema_extra") or {}
    return [rule["message"] for rule in schema.get("x-kubernetes-validations", ())]


def admitted(new: BareMetalMachineSpec, old: BareMetalMachineSpec | None = None) -> BareMetalMachineSpec:
    """The spec as the API server takes it; Refused with the beginning of the sentence it would print."""
    broken = [beginning for beginning, holds in OF_SPEC.items() if not holds(new, old)]
    if new.deployment is not None:
        broken += [beginning for beginning, holds in OF_DEPLOYMENT.items() if not holds(new.deployment)]
    if broken:
        raise Refused("; ".join(broken))
    return new
