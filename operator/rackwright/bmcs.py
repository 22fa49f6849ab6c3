"""Machines' BMCs: from `spec.bmc` and its Secrets to a driver, and from a driver's errors to faults for a person."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

from rackwright.api.machine import BMC, Power
from rackwright.kube import ClusterError
from rackwright.lanes import Rank, ranked
from rackwright.lifecycle.world import Blame, Fault
from rackwright.power.address import SIMULATED
from rackwright.power.connect import Connections
from rackwright.power.port import Credentials, Endpoint, FaultClass, PowerDriver, PowerError, PowerState
from rackwright.record import Machine
from rackwright.secrets import Name, Obstructed, Secrets

_REASONS = {
    FaultClass.CREDENTIALS: "BMCCredentialsRejected",
    FaultClass.UNREACHABLE: "BMCUnreachable",
    FaultClass.TLS: "BMCCertificateUntrusted",
    FaultClass.UNSUPPORTED: "BMCUnsupported",
    FaultClass.BUSY: "BMCBusy",
    FaultClass.NOT_ALLOWED: "SimulationNotAllowed",
    FaultClass.PROTOCOL: "BMCProtocolError",
}
_OF_SECRETS = frozenset({FaultClass.CREDENTIALS, FaultClass.TLS})
"""Faults that another content of a Secret may end, if it is to blame."""
_LASTING = _OF_SECRETS | {FaultClass.UNREACHABLE}
"""Faults that are found again and again until somebody does something about them."""
_LONGER = 4
"""How many times as long a BMC that is asked in vain is left alone, at most."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a BMC answered when it was asked for the power state."""

    power: Power
    fault: Fault | None
    at: float
    """By the monotonic clock, seconds."""
    bmc: BMC | None
    """Whom was asked: what another BMC said tells nothing."""
    in_vain: int = 0
    """How often in a row it was asked in vain: it could not be reached, or rejected what it was asked with."""
    spared: timedelta = timedelta()
    """For how long it is left alone at least, unless whoever asks must know."""

    def is_fresh(self, within: timedelta) -> bool:
        """Whether it needn't be asked again; who must know asks for what is not older than nothing.

        One that is asked in vain is asked half as often each time, to a limit.
        """
        longer = min(1 << max(self.in_vain - 1, 0), _LONGER)
        return bool(within) and time.monotonic() - self.at < max(within, self.spared).total_seconds() * longer


def at_rarest(poll: timedelta) -> timedelta:
    """How long a BMC is left alone at most where idle ones are asked that often, whatever it answered."""
    return _LONGER * poll


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a machine's BMC is asked with."""

    bmc: BMC
    endpoint: Endpoint | None
    """None once the BMC has rejected it: then its Secrets are read again."""


class BMCs:
    """The BMCs of all machines, by machine uid."""

    def __init__(self, connections: Connections, secrets: Secrets) -> None:
        self._connections = connections
        self._secrets = secrets
        self._readings: dict[str, Reading] = {}
        self._doubted: set[str] = set()
        """Machines, by uid, whose last reading says nothing any more."""
        self._kept: dict[str, _Kept] = {}
        """By machine uid, with what its Secrets held. Whoever is in it may have a session, which ends with it."""
        self._tried: dict[str, dict[str, str]] = {}
        """By machine uid and name, the version of each Secret that its BMC was last tried with."""

    def turn_to(self, machine: Machine) -> None:
        """From now on this is the machine's BMC: a session with one that its spec named before is ended."""
        kept = self._kept.get(machine.uid)
        if kept is not None and (machine.spec.bmc is None or machine.spec.bmc.address != kept.bmc.address):
            self._leave(machine.uid)

    async def driver(self, machine: Machine) -> PowerDriver:
        """The driver for a machine's BMC; Obstructed where spec doesn't lead to one."""
        bmc = machine.spec.bmc
        if bmc is None:
            raise Obstructed(Fault(Blame.CONFIGURATION, "BMCMissing", "spec.bmc is not set."))
        kept = self._kept.get(machine.uid)
        endpoint = kept.endpoint if kept is not None and kept.bmc == bmc else None
        if endpoint is None:
            endpoint = await self._endpoint(machine, bmc)
        try:
            driver = self._connections.driver(endpoint)
        except PowerError as error:
            raise Obstructed(self.explained(machine, error)) from None
        self._kept[machine.uid] = _Kept(bmc, endpoint)
        return driver

    async def _endpoint(self, machine: Machine, bmc: BMC) -> Endpoint:
        """What its Secrets hold now."""
        credentials = ca = None
        self._tried.pop(machine.uid, None)  # with Secrets that spec may not name any more
        if bmc.credentials_secret_ref is not None:
            name = bmc.credentials_secret_ref.name
            username = await self._value(machine, name, "username")
            credentials = Credentials(username, await self._value(machine, name, "password"))
        if bmc.ca_secret_ref is not None:
            ca = await self._value(machine, bmc.ca_secret_ref.name, "ca.crt")
        which = _which(machine.uid, bmc.address)
        return Endpoint(bmc.address, credentials, ca, bmc.insecure_skip_tls_verify, which)

    async def renewed(self, machine: Machine, error: PowerError) -> bool:
        """Whether the BMC rejected what its Secrets don't hold any more: then it is worth asking once again."""
        bmc, kept = machine.spec.bmc, self._kept.get(machine.uid)
        if error.fault not in _OF_SECRETS or bmc is None or kept is None:
            return False
        tried = dict(self._tried.get(machine.uid, {}))
        try:
            for name in tried:
                await self._secrets.read(Name(machine.key.namespace, name), fresh=True)
        except ClusterError:
            return False  # it is left alone as one whose Secrets are known not to have changed: BMCs lock accounts
        self._reject(machine.uid)
        await self.driver(machine)
        return self._tried.get(machine.uid, {}) != tried

    async def power(self, machine: Machine, *, fresh: timedelta, poll: timedelta) -> Reading:
        """The power state, asked for unless it was within `fresh`; idle machines' are within `poll`.

        A BMC that rejects the account or isn't trusted is asked no more often than that by anybody, for BMCs lock
        accounts. A look at an idle machine can wait until others were spoken to, unless its spec has something new or
        something was done to it.
        """
        kept = self.known(machine)
        if kept is not None and kept.is_fresh(fresh):
            return kept
        quiet = machine.generation == machine.status.observed_generation and machine.uid not in self._doubted
        try:
            with ranked(Rank.IDLE if fresh >= poll and quiet else Rank.AT_WORK):
                power = Power((await self._state(machine)).value)
            reading = Reading(power, None, time.monotonic(), machine.spec.bmc)
        except PowerError as error:
            reading = _in_vain(machine, error, self.explained(machine, error), kept, poll)
        except Obstructed as error:
            reading = Reading(Power.UNKNOWN, error.fault, time.monotonic(), machine.spec.bmc)
        self._readings[machine.uid] = reading
        self._doubted.discard(machine.uid)
        return reading

    async def _state(self, machine: Machine) -> PowerState:
        try:
            return await (await self.driver(machine)).power_state()
        except PowerError as error:
            if not await self.renewed(machine, error):
                raise
        return await (await self.driver(machine)).power_state()

    def known(self, machine: Machine) -> Reading | None:
        """The last reading, however old."""
        kept = self._readings.get(machine.uid)
        return kept if kept is not None and kept.bmc == machine.spec.bmc else None

    def stale(self, uid: str) -> None:
        """Something was done to the machine, or for it: what was read before says nothing now."""
        self._readings.pop(uid, None)
        self._doubted.add(uid)

    def forget(self, machine: Machine) -> None:
        """The machine is gone."""
        self._leave(machine.uid)

    def busy(self, machines: Iterable[Machine]) -> set[str]:
        """The BMCs of these machines with which an exchange goes on (`Connections.busy`)."""
        kept = ((machine.uid, self._kept.get(machine.uid)) for machine in machines)
        return self._connections.busy((it.bmc.address, _which(uid, it.bmc.address)) for uid, it in kept if it)

    def failed(self, machine: Machine, error: PowerError) -> Fault:
        """What was asked of it came to nothing, as a fault; an idle machine isn't asked again before its next look.

        Its record says so at once, and that write alone has it looked at again: a BMC that puts each refusal in other
        words would be asked without end.
        """
        fault = self.explained(machine, error)
        if machine.status.operation is None:
            self._readings[machine.uid] = _in_vain(machine, error, fault, self.known(machine), timedelta())
        return fault

    def explained(self, machine: Machine, error: PowerError) -> Fault:
        """A driver's error as a fault; rejected credentials are tried again as soon as their Secret changes.

        That may help also where the Secret isn't to blame: another account may have the rights that this one lacks.
        """
        bmc = machine.spec.bmc
        message = error.message if error.message.endswith((".", "?")) else f"{error.message}."
        ref = {
            FaultClass.CREDENTIALS: bmc.credentials_secret_ref if bmc else None,
            FaultClass.TLS: bmc.ca_secret_ref if bmc else None,
        }.get(error.fault)
        if ref is not None:
            version = self._tried.get(machine.uid, {}).get(ref.name)
            self._secrets.awaiting(Name(machine.key.namespace, ref.name), machine.uid, version)
            self._reject(machine.uid)
            if error.of_secret:
                message += f" Correct the Secret {ref.name}: it is tried again at once."
        delay = timedelta(seconds=error.retry_after) if error.retry_after else None
        blame = Blame.CONFIGURATION if error.fault is FaultClass.NOT_ALLOWED else Blame.BMC
        return Fault(blame, _REASONS[error.fault], message, delay)

    def _reject(self, uid: str) -> None:
        """The BMC is asked with what its Secrets hold by then: BMCs lock accounts that are tried too often."""
        if (kept := self._kept.get(uid)) is not None:
            self._kept[uid] = replace(kept, endpoint=None)

    def _leave(self, uid: str) -> None:
        self._readings.pop(uid, None)
        self._doubted.discard(uid)
        self._tried.pop(uid, None)
        kept = self._kept.pop(uid, None)
        if kept is not None:
            self._connections.forget(kept.bmc.address, _which(uid, kept.bmc.address))

    async def _value(self, machine: Machine, secret: str, key: str) -> str:
        name = Name(machine.key.namespace, secret)
        found = await self._secrets.read(name)
        value = found.data.get(key) if found is not None else None
        if found is not None and value is not None:
            try:
                self._tried.setdefault(machine.uid, {})[secret] = found.version
                return value.decode().strip("\r\n")
            except UnicodeDecodeError:
                problem, reason = f"The key {key} of the Secret {secret} is not text.", "SecretInvalid"
        elif found is None:
            problem, reason = f"The Secret {secret}, which spec.bmc names, does not exist.", "SecretMissing"
        else:
            problem, reason = f"The Secret {secret} has no key {key}.", "SecretInvalid"
        self._secrets.awaiting(name, machine.uid, found.version if found is not None else None)
        raise Obstructed(Fault(Blame.CONFIGURATION, reason, f"{problem} It is used as soon as it is there."))


def _in_vain(machine: Machine, error: PowerError, fault: Fault, before: Reading | None, poll: timedelta) -> Reading:
    """What is known of a BMC that answered like this."""
    times = (before.in_vain if before is not None else 0) + 1 if error.fault in _LASTING else 0
    spared = poll if error.fault in _OF_SECRETS else timedelta(seconds=error.retry_after or 0.0)
    return Reading(Power.UNKNOWN, fault, time.monotonic(), machine.spec.bmc, times, spared)


def _which(uid: str, address: str) -> str:
    """`Endpoint.machine`: addresses of simulated machines say how they behave, and not which one it is."""
    return uid if address.startswith(f"{SIMULATED}://") else ""
