"""The lines of a timeline: what people can see of a status, and of how it differs from the one before."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from tests.property.metal import Metal, Running
from tests.property.rig import START

from rackwright.api.conditions import ConditionType
from rackwright.api.machine import BareMetalMachineSpec, BareMetalMachineStatus, Failure, Installed, Operation
from rackwright.lifecycle.operations import limits

WIDTH = 100

_SUMMARY = (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)
"""The conditions that stand behind the phase in a line of their own."""


def facts(spec: BareMetalMachineSpec, before: BareMetalMachineStatus, after: BareMetalMachineStatus) -> Iterator[str]:
    """What else of status has changed, each in a few words."""
    operation = after.operation
    if operation is not None and (before.operation is None or _dates(before.operation) != _dates(operation)):
        yield _attempt(spec, operation)
    views: Mapping[str, Callable[[BareMetalMachineStatus], str]] = {
        "power": lambda s: s.power,
        "owner": lambda s: s.owner or "nobody",
        "hardware": lambda s: "known" if s.hardware is not None else "unknown",
        "installed": lambda s: _installed(s.installed),
        "rescue": lambda s: f"open at {', '.join(s.rescue.addresses)}" if s.rescue is not None else "closed",
        "rescuedFrom": lambda s: s.rescued_from or "nowhere",
    }
    for name, view in views.items():
        if view(before) != view(after):
            yield f"{name} {view(after)}"
    if before.erasure != after.erasure:
        yield from (
            f"erased {e.device}{e.serial and f' {e.serial}'}: {e.method}, {'' if e.verified else 'not '}verified"
            for e in after.erasure
        )
        if not after.erasure:
            yield "erased nothing yet"
    if before.last_failure != after.last_failure:
        yield f"lastFailure {_failure(after.last_failure)}"
    if before.history != after.history and after.history:
        entry = after.history[0]
        attempts = f"in {entry.attempts} attempt{'s' if entry.attempts > 1 else ''}"
        yield f"history: {entry.name} {entry.outcome} {attempts}"
    was = {c.type: c.status for c in before.conditions}
    changed = [
        f"{c.type}={c.status}"
        for c in after.conditions
        if c.type not in _SUMMARY and c.type in {str(t) for t in ConditionType} and was.get(c.type) != c.status
    ]
    if changed:
        yield " ".join(changed)
    if (sentence := _sentence(after)) and sentence != _sentence(before):
        yield f'"{sentence}"'


def _attempt(spec: BareMetalMachineSpec, operation: Operation) -> str:
    line = f"{operation.name}, attempt {operation.attempt} of {limits(spec, operation.name)[1]}"
    if operation.next_retry_at is not None:
        line += f", from {clock(operation.next_retry_at)}"
    return f"{line}, until {clock(operation.deadline)}"


def _dates(operation: Operation) -> tuple[object, ...]:
    return operation.id, operation.next_retry_at, operation.deadline


def clock(moment: datetime) -> str:
    """How long after the beginning of the story."""
    minutes, seconds = divmod(int((moment - START).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def wrapped(line: str) -> list[str]:
    """A long line as several."""
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _condition(status: BareMetalMachineStatus, kind: ConditionType) -> tuple[str, str, str]:
    return next(((c.status, c.reason, c.message) for c in status.own_conditions if c.type == kind), ("", "", ""))


def reason(status: BareMetalMachineStatus) -> str:
    """Why the machine is where it is."""
    return _condition(status, ConditionType.READY)[1]


def summary(status: BareMetalMachineStatus) -> str:
    """Phase, step and reason, as `kubectl get` has them, with the one of kstatus' conditions that is True."""
    step = status.operation.step if status.operation is not None else ""
    words = " / ".join(word for word in (status.phase, step, reason(status)) if word)
    true = [kind for kind in _SUMMARY if _condition(status, kind)[0] == "True"]
    match true:
        case [ConditionType.RECONCILING]:
            return words
        case [kind]:
            return f"{words}  {kind}=True"
        case _:
            return f"{words}  Ready=False"


def _sentence(status: BareMetalMachineStatus) -> str:
    """What a person is told who has to do something, or who has something to know."""
    ready, _, message = _condition(status, ConditionType.READY)
    reconciling = _condition(status, ConditionType.RECONCILING)[0]
    return message if ready == "False" and reconciling == "False" else ""


def _installed(installed: Installed | None) -> str:
    if installed is None:
        return "nothing"
    what = installed.image or "what was there"
    if installed.at is None:
        return f"{what}, not complete"
    called = f" at {', '.join(installed.addresses)}, host keys known" if installed.ssh_host_keys else ""
    return f"{what} as {installed.hostname}{called}"


def _failure(failure: Failure | None) -> str:
    if failure is None:
        return "forgotten"
    where = f" at {failure.step}" if failure.step else ""
    return f"{failure.operation}{where}: {failure.reason} ({failure.failure_class})"


def of_metal(metal: Metal) -> str:
    """What is really so."""
    doing = {
        Running.NOTHING: "is off",
        Running.RAMDISK: "runs the ramdisk",
        Running.SYSTEM: "runs its system",
        Running.UNBOOTABLE: "is on and finds nothing to start",
    }[metal.running]
    disks = "are half written" if metal.scribbled else "are blank" if metal.image is None else "hold a system"
    return f"the machine {doing}; its disks {disks}"
