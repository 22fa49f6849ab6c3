"""What machines that call wait for: that the cluster has what they told, so that they needn't tell it again.

Status remembers it, so an operator that was restarted meanwhile answers the same.
"""

from __future__ import annotations

from collections.abc import Callable

from rackwright.agent.tokens import Tokens, matches
from rackwright.api.machine import BareMetalMachineStatus, OperationName
from rackwright.cache import Cache
from rackwright.install.phone_home import PhoneHome
from rackwright.lifecycle.steps import Stage
from rackwright.record import wants_inspection


class Recorded:
    """Waits for records to say what they are to say."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def inspection(self, uid: str) -> bool:
        """Return True when the machine's inspection is in the cluster, False when the machine is gone."""
        return await self._until(uid, _past_inspection) is not None

    async def first_boot(self, uid: str, operation_id: str) -> bool:
        """Return True when the installed system's report is in the cluster, False when its attempt was given up."""
        status = await self._until(uid, lambda now: _reported(now) == operation_id or not _doing(now, operation_id))
        return status is not None and _reported(status) == operation_id

    async def _until(self, uid: str, holds: Callable[[BareMetalMachineStatus], bool]) -> BareMetalMachineStatus | None:
        """The first status that is so; None if the machine vanishes before."""
        while (machine := self._cache.with_uid(uid)) is not None:
            if holds(machine.status):
                return machine.status
            await self._cache.changed(uid)
        return None


class FirstBoots:
    """What the phone-home route asks and tells (`install.phone_home.FirstBoots`)."""

    def __init__(self, cache: Cache, tokens: Tokens, tell: Callable[[str, PhoneHome], None]) -> None:
        """`tell` is how the loop hears of a machine's report."""
        self._cache = cache
        self._recorded = Recorded(cache)
        self._tokens = tokens
        self._tell = tell

    def expected(self, uid: str) -> str | None:
        """The operation whose system may call: the present one, or the one whose system is recorded."""
        machine = self._cache.with_uid(uid)
        if machine is None:
            return None
        operation = machine.status.operation
        if operation is not None and operation.name is OperationName.DEPLOY:
            return operation.id
        return _reported(machine.status)

    def admits(self, uid: str, operation_id: str, token: str) -> bool:
        """Whether this is the token of this operation's first boot."""
        return matches(self._tokens.for_first_boot(uid, operation_id), token)

    async def received(self, uid: str, report: PhoneHome) -> bool:
        """Have it recorded; True once it is."""
        self._tell(uid, report)
        return await self._recorded.first_boot(uid, report.operation_id)


def _past_inspection(status: BareMetalMachineStatus) -> bool:
    operation = status.operation
    return (
        operation is None
        or not wants_inspection(status)
        or operation.step not in (Stage.START, Stage.POWER_OFF, Stage.BOOT_RAMDISK)
    )


def _reported(status: BareMetalMachineStatus) -> str | None:
    """The attempt whose system has reported, if what is installed is one of ours and has come up."""
    return status.installed.operation if status.installed is not None else None


def _doing(status: BareMetalMachineStatus, operation_id: str) -> bool:
    return status.operation is not None and status.operation.id == operation_id
