"""A deployment's user data: read from its Secret, found fit or not, and told apart from what was installed.

Nothing of them is kept but whether they are fit and a keyed fingerprint, which tells whether they are other ones.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rackwright.agent.tokens import Tokens
from rackwright.api.machine import Deployment, UserDataSecretRef
from rackwright.install.user_data import problem_with
from rackwright.lifecycle.world import Blame, Fault
from rackwright.record import Machine
from rackwright.secrets import Name, Obstructed, Secrets

NONE = b""
"""Stands for the user data of a deployment that has none."""
LOOK_SECONDS = 3600.0
"""How old the fingerprint of a deployed machine's user data may be: by then a Secret edited in place is noticed."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The user data that a deployment names, as last read."""

    ref: UserDataSecretRef | None
    fingerprint: str | None
    """None where they can't be read."""
    at: float
    """By the monotonic clock, seconds."""


class UserData:
    """The user data of all machines, by machine uid."""

    def __init__(self, secrets: Secrets, tokens: Tokens) -> None:
        self._secrets = secrets
        self._tokens = tokens
        self._known: dict[str, _Known] = {}
        self._checks = ThreadPoolExecutor(1, "user-data")
        """Of its own: what was made to take long holds up other user data, and nothing else."""
        self._fit: dict[str, tuple[str, str]] = {}
        """The Secret's version and the key whose content was found fit."""

    async def read(self, machine: Machine, deployment: Deployment) -> bytes | None:
        """The deployment's user data, None for none; Obstructed where they are missing or unfit."""
        ref = deployment.user_data_secret_ref
        if ref is None:
            self._remember(machine, ref, NONE)
            return None
        name = Name(machine.key.namespace, ref.name)
        secret = await self._secrets.read(name, fresh=True)  # what was corrected a moment ago is what is meant
        value = secret.data.get(ref.key) if secret is not None else None
        if secret is not None and value is not None:
            self._remember(machine, ref, value)
            checked = (secret.version, ref.key)
            if self._fit.get(machine.uid) == checked:
                return value
            problem = await asyncio.get_running_loop().run_in_executor(self._checks, problem_with, value)
            if problem is None:
                self._fit[machine.uid] = checked
                return value
            reason, message = "UserDataInvalid", f"In the Secret {ref.name}: {problem}"
        elif secret is not None:
            reason, message = "SecretInvalid", f"The Secret {ref.name} has no key {ref.key}."
        else:
            reason = "SecretMissing"
            message = f"The Secret {ref.name}, which spec.deployment.userDataSecretRef names, does not exist."
        self._secrets.awaiting(name, machine.uid, secret.version if secret is not None else None)
        raise Obstructed(Fault(Blame.CONFIGURATION, reason, f"{message} It is used as soon as it is right."))

    async def looked_at(self, machine: Machine) -> str | None:
        """The fingerprint of the declared user data, however old within limits; None where they can't be read."""
        deployment, known = machine.spec.deployment, self._known.get(machine.uid)
        if deployment is None or deployment.existing:
            return None
        ref = deployment.user_data_secret_ref
        if known is None or known.ref != ref or time.monotonic() - known.at >= LOOK_SECONDS:
            self._remember(machine, ref, NONE if ref is None else await self._content(machine, ref))
        return self.known(machine)

    def known(self, machine: Machine) -> str | None:
        """The fingerprint of what was last read for this machine."""
        known = self._known.get(machine.uid)
        return known.fingerprint if known is not None else None

    def forget(self, uid: str) -> None:
        """The machine is gone."""
        self._known.pop(uid, None)
        self._fit.pop(uid, None)

    async def _content(self, machine: Machine, ref: UserDataSecretRef) -> bytes | None:
        try:
            secret = await self._secrets.read(Name(machine.key.namespace, ref.name))
        except Obstructed:
            return None
        return secret.data.get(ref.key) if secret is not None else None

    def _remember(self, machine: Machine, ref: UserDataSecretRef | None, content: bytes | None) -> None:
        fingerprint = None if content is None else self._tokens.fingerprint(machine.uid, content)
        self._known[machine.uid] = _Known(ref, fingerprint, time.monotonic())
