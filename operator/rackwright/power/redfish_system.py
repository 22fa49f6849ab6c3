"""What is asked of one Redfish ComputerSystem, a step at a time; each step reads what it needs and does one thing.

The systems are sushy's, just read; what fails is sushy's to raise. The vendors' quirks that Ironic's Redfish driver
learned in ten years of field reports are here, each with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from rackwright.power.port import BIOSAttributes, BootTarget, FaultClass, PowerError, PowerState

Document = Callable[[str], Any]
"""Fetches the JSON at a path of the BMC's."""


@dataclass(frozen=True, slots=True)
class BootChoice:
    """A boot source override in Redfish's words."""

    source: str
    enabled: str


BOOT_CHOICES: Mapping[BootTarget, tuple[BootChoice, ...]] = {
    BootTarget.NETWORK: (
        BootChoice("Pxe", "Once"),
        BootChoice("UefiHttp", "Once"),  # newer firmware without PXE; DHCP gives it the URL
        BootChoice("Pxe", "Continuous"),  # the disk is chosen explicitly afterwards
    ),
    BootTarget.DISK: (
        # Explicit and lasting: some BMCs keep a "Once" for ever, and would boot the network again and again.
        BootChoice("Hdd", "Continuous"),
        BootChoice("Hdd", "Once"),  # Redfish has dropped "Continuous" and some vendors did too
        BootChoice("None", "Disabled"),  # at least no override: the firmware's own boot order
    ),
}
"""First choice first; a BMC that refuses one is asked for the next."""


def power(system: Any) -> PowerState:
    """On or off; UNKNOWN on the way from one to the other."""
    return {"On": PowerState.ON, "Off": PowerState.OFF}.get(_value(system.power_state) or "", PowerState.UNKNOWN)


def switch_on(system: Any) -> bool:
    """Switch on; False if nothing needs to be waited for."""
    if power(system) is PowerState.ON:
        return False
    if _value(system.power_state) != "PoweringOn":
        _reset(system, "On", "ForceOn")
    return True


def ask_to_shut_down(system: Any) -> bool:
    """Press the power button for the operating system to see; False if nothing needs to be waited for.

    Some BMCs (iLO 4, iRMC, older iDRACs) have no word for it but the button's own, which would switch on what is off:
    so that is for a machine that is known to be on.
    """
    seen = power(system)
    if seen is PowerState.OFF:
        return False
    if _value(system.power_state) != "PoweringOff":
        _reset(system, "GracefulShutdown", *(["PushPowerButton"] if seen is PowerState.ON else []))
    return True


def cut_power(system: Any) -> bool:
    """Switch off at once; False if nothing needs to be waited for."""
    if power(system) is PowerState.OFF:
        return False
    _reset(system, "ForceOff")
    return True


def choose_mode(system: Any, *, uefi: bool) -> bool:
    """Boot by UEFI or by BIOS, where the BMC has a say in it; False if nothing had to be written.

    Written only if it differs: iDRACs refuse a write of the mode that they are in, and some BMCs show none at all.
    """
    now = _value(system.boot.mode) if system.boot else None
    wanted = "UEFI" if uefi else "Legacy"
    if now is None or now == wanted:
        return False
    system.set_system_boot_options(mode=wanted)
    return True


def choose_boot(system: Any, choice: BootChoice, document: Document) -> bool:
    """Set the override; False if the BMC does not offer this source.

    How long it lasts is written only if it differs, now or next time, because some BMCs refuse a write of what they
    have, except for Supermicro's, which forget it unless it comes with the source (both known from Ironic).
    """
    sources = {_value(source): source for source in system.get_allowed_system_boot_source_values()}
    if choice.source not in sources:
        return False
    now = _named(system, document, "BootSourceOverrideEnabled")
    differs = now != {choice.enabled} or (system.manufacturer or "").lower() == "supermicro"
    system.set_system_boot_options(target=sources[choice.source], enabled=choice.enabled if differs else None)
    return True


def boot_sources(system: Any, document: Document) -> set[str]:
    """The sources that the BMC says it will boot from, now or next time; empty where it doesn't say."""
    return _named(system, document, "BootSourceOverrideTarget")


def bios_attributes(system: Any) -> BIOSAttributes:
    """All BIOS attributes; empty for a system without any."""
    if not system.json.get("Bios"):
        return {}
    try:
        bios = system.bios
    except Exception as error:
        if getattr(error, "status_code", None) in {HTTPStatus.NOT_FOUND, HTTPStatus.NOT_IMPLEMENTED}:
            return {}  # a link that leads nowhere
        raise
    return {str(name): value for name, value in (bios.attributes or {}).items()}


def set_bios_attributes(system: Any, wanted: BIOSAttributes) -> bool:
    """Ask for those attributes that differ; False if none does.

    They count from the next boot. BMCs that offer a choice of when (iDRACs) do nothing unless they are told.
    """
    now = bios_attributes(system)
    differing = {name: value for name, value in wanted.items() if name not in now or now[name] != value}
    if not differing:
        return False
    if not now or not system.bios.json.get("@Redfish.Settings"):
        raise PowerError(FaultClass.UNSUPPORTED, "This BMC has no BIOS attributes that can be set")
    times = {_value(time): time for time in system.bios.supported_apply_times or ()}
    system.bios.set_attributes(differing, apply_time=times.get("OnReset"))
    return True


def _named(system: Any, document: Document, of_boot: str) -> set[str]:
    """What is named of the override: now, and, where the BMC keeps settings apart (AMI's), for next time."""
    settings = system.json.get("@Redfish.Settings") or {}
    path = (settings.get("SettingsObject") or {}).get("@odata.id")
    bodies = [system.json, *([document(path)] if path else [])]
    return {str(value) for body in bodies if (value := (body.get("Boot") or {}).get(of_boot))}


def _reset(system: Any, *kinds: str) -> None:
    allowed = {_value(kind): kind for kind in system.get_allowed_reset_system_values()}
    for kind in kinds:
        if kind in allowed:
            system.reset_system(allowed[kind])
            return
    offers = ", ".join(sorted(str(kind) for kind in allowed)) or "nothing"
    raise PowerError(FaultClass.UNSUPPORTED, f"This BMC offers no {' or '.join(kinds)}, only {offers}")


def _value(member: Any) -> str | None:
    return None if member is None else str(member.value)
