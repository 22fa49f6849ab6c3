"""Whether what is promised was kept, told from outside: from every version of a record, and what metal was told.

Each of the README's eight is a function of one `Life` that raises AssertionError with the promise, the machine and the
versions that break it. None of them asks the life-cycle's table: they know what `spec`, `status` and the wire mean.
Which spec something was decided on is known from `status.observedGeneration`; whether it was recorded before it
arrived, from the store's revision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

JSON = Mapping[str, Any]
GROUP = "metal.rackwright.io"
SLACK = timedelta(seconds=30)
"""How long after its deadline an attempt may be noticed to be over, on a busy host."""


class Told(Enum):
    """What a machine can be told."""

    BOOT_NETWORK = "to boot the network next"
    BOOT_DISK = "to boot its disk next"
    SWITCH_ON = "to switch on"
    SWITCH_OFF = "to switch off"
    LEAVE = "to leave the ramdisk"
    NODE = "which disk to write to"
    WRITE = "to write an image"
    ERASE = "to erase its disks"
    OPEN_RESCUE = "to open the rescue environment"
    TOKEN = "its agent's token"


POWER = {Told.BOOT_NETWORK, Told.BOOT_DISK, Told.SWITCH_ON, Told.SWITCH_OFF}
STARTED = {Told.BOOT_NETWORK, Told.BOOT_DISK, Told.SWITCH_ON}
ENDED = {Told.SWITCH_OFF, Told.LEAVE}
ANNOUNCED = {
    "PowerOff": ENDED,
    "PowerOn": STARTED,
    "BootRamdisk": {Told.BOOT_NETWORK, Told.SWITCH_ON} | ENDED,
    "WriteImage": {Told.NODE, Told.WRITE},
    "EraseDisks": {Told.ERASE},
    "OpenRescue": {Told.OPEN_RESCUE},
    "BootDisk": ENDED | {Told.BOOT_DISK, Told.SWITCH_ON},
    "ShutDown": ENDED,
}
"""What a machine may be told at each `status.operation.step`.

One that has told what it is made of is switched off, and that is recorded with what comes of it.
"""


@dataclass(frozen=True, slots=True)
class Message:
    """Something that a machine was told, as it arrived, whether or not it was carried out."""

    told: Told
    at: int
    """The store's revision by then."""
    port: int = 0
    """Where the BMC listens that it was told by; 0 for an agent."""
    uid: str = ""
    """Of the record that the agent looked up; empty for a BMC."""
    proof: str = field(default="", repr=False)
    """The agent's token that it came with."""
    seed: str = field(default="", repr=False)
    """The token for the first boot that an image is written with."""


class Version:
    """One version of a record."""

    def __init__(self, record: JSON) -> None:
        self.metadata: JSON = record["metadata"]
        self.spec: JSON = record.get("spec", {})
        self.status: JSON = record.get("status") or {}

    def __repr__(self) -> str:
        said = ("phase", "owner", "operation", "installed", "erasure", "observedGeneration")
        status = {name: self.status[name] for name in said if name in self.status}
        return f"version {self.revision} (generation {self.generation}): {status}"

    @property
    def revision(self) -> int:
        return int(self.metadata["resourceVersion"])

    @property
    def generation(self) -> int:
        return int(self.metadata["generation"])

    @property
    def answers(self) -> int:
        """The generation that status answers."""
        return int(self.status.get("observedGeneration", 0))

    @property
    def phase(self) -> str:
        """Empty for none yet."""
        return str(self.status.get("phase") or "")

    @property
    def owner(self) -> str | None:
        return self.status.get("owner")

    @property
    def operation(self) -> JSON:
        """Empty for none."""
        return self.status.get("operation") or {}

    @property
    def installed(self) -> JSON | None:
        return self.status.get("installed")

    @property
    def deployment(self) -> JSON:
        """As declared; empty for none."""
        return self.spec.get("deployment") or {}

    @property
    def bmc_port(self) -> int | None:
        return urlsplit(str((self.spec.get("bmc") or {}).get("address"))).port

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.metadata

    @property
    def declared_owner(self) -> str | None:
        return (self.spec.get("allocation") or {}).get("owner")

    @property
    def erase(self) -> str | None:
        return (self.spec.get("release") or {}).get("erase")

    def annotation(self, name: str) -> str | None:
        return (self.metadata.get("annotations") or {}).get(f"{GROUP}/{name}")

    def condition(self, kind: str) -> str | None:
        """Its status."""
        return next((c["status"] for c in self.status.get("conditions", ()) if c["type"] == kind), None)

    def withdraws(self, owner: str | None) -> bool:
        """Whether this owner's deployment is not declared any more."""
        return self.deleting or not self.deployment or self.declared_owner != owner


@dataclass(frozen=True)
class Life:
    """One record from its creation, and what the machine behind it was told meanwhile."""

    name: str
    uid: str
    versions: Sequence[Version]
    deleted: bool = False
    """Whether the last version is the one that was deleted."""
    told: list[Message] = field(default_factory=list)
    disks: frozenset[str] | None = None
    """The serial numbers of the machine's disks; None where nobody but the operator knows them."""

    def concerns(self, message: Message) -> bool:
        """Whether it is the machine that was told, by what was known of it then."""
        if message.uid:
            return message.uid == self.uid
        version = self.at(message.at)
        return version is not None and any(seen.bmc_port == message.port for seen in self.seen(version))

    def passes(self) -> Iterator[tuple[Version, Version]]:
        """Each two versions that follow each other, beginning with none."""
        return pairwise([Version({"metadata": {"resourceVersion": 0, "generation": 0}}), *self.versions])

    def at(self, revision: int) -> Version | None:
        """Its version by then; None before it was created and after it was deleted."""
        before = [version for version in self.versions if version.revision <= revision]
        if not before or (self.deleted and before[-1] is self.versions[-1]):
            return None
        return before[-1]

    def decided_on(self, version: Version) -> Version:
        """What was declared when that status was decided on."""
        return next((v for v in self.versions if v.generation >= version.answers), version)

    def seen(self, version: Version) -> list[Version]:
        """What may have been declared when somebody acted upon this version, which is the last that they know."""
        return [v for v in self.versions if v.generation >= version.answers and v.revision <= version.revision]


class Broken(AssertionError):
    """A promise that was broken."""


def _broken(promise: int, life: Life, what: str, *about: object) -> Broken:
    told = "".join(f"\n  {each}" for each in about)
    return Broken(f"promise {promise}: {life.name}: {what}{told}")


def _told(life: Life) -> Iterator[tuple[Message, Version]]:
    """What it was told while there was a record."""
    for message in life.told:
        version = life.at(message.at)
        if version is not None:
            yield message, version


def lives(
    records: Iterable[JSON], deleted: Iterable[str], told: Iterable[Message], disks: Mapping[str, Iterable[str]]
) -> list[Life]:
    """Every record's life, from all versions in order, the uids of those that are gone, and what came to machines.

    `disks` are the serial numbers by MAC address. Whoever a BMC is told by is the record that names its port: the
    oldest, where there are several.
    """
    versions: dict[str, list[Version]] = {}
    for record in records:
        versions.setdefault(record["metadata"]["uid"], []).append(Version(record))
    gone = set(deleted)
    found = [_life(uid, own, disks, deleted=uid in gone) for uid, own in versions.items()]
    for message in told:
        mine = [life for life in found if life.concerns(message)]
        if not mine:
            raise _broken(5, Life("a machine", "", ()), f"told {message.told.value} without a record", message)
        min(mine, key=lambda life: life.versions[0].revision).told.append(message)
    return found


def _life(uid: str, versions: list[Version], disks: Mapping[str, Iterable[str]], *, deleted: bool) -> Life:
    first = versions[0]
    simulated = str((first.spec.get("bmc") or {}).get("address")).startswith("simulated:")
    own = None if simulated else disks.get(str(first.spec.get("bootMACAddress")))
    name = f"{first.metadata['namespace']}/{first.metadata['name']}"
    return Life(name, uid, versions, deleted=deleted, disks=None if own is None else frozenset(own))


# --- the eight ---------------------------------------------------------------------------------------------------


def disks_are_written_only_where_that_was_declared(life: Life) -> None:
    """A disk is written only in Deploying (allocated, deployment declared) and in Releasing."""
    for message, version in _told(life):
        if message.told is Told.WRITE:
            wanted = any(s.deployment.get("image") and not s.withdraws(version.owner) for s in life.seen(version))
            if version.phase != "Deploying" or version.owner is None or not wanted:
                raise _broken(1, life, "an image is written, and no deployment is under way", message, version)
        elif message.told is Told.ERASE:
            wanted = any(s.erase != "None" for s in life.seen(version))
            if version.phase != "Releasing" or not wanted:
                raise _broken(1, life, "disks are erased, and nothing is released", message, version)


def deployed_machines_are_left_running(life: Life) -> None:
    """A Deployed machine is power-cycled only if its spec asks for it; what is Broken or New isn't at all."""
    for message, version in _told(life):
        if message.told not in POWER or version.phase not in ("Deployed", "Broken", "New", ""):
            continue
        wish = "Off" if message.told is Told.SWITCH_OFF else "On"
        wished = any(seen.spec.get("power") == wish for seen in life.seen(version))
        restarted = version.operation.get("name") == "Restart"
        if version.phase != "Deployed" or not (wished or restarted):
            raise _broken(2, life, f"told {message.told.value}, and nobody asked for that", message, version)
    for before, after in life.passes():
        spec = life.decided_on(after)
        if _begins(before, after, "Restart") and before.operation.get("name") != "Restart":
            trigger = (spec.spec.get("powerCycle") or {}).get("trigger", "")
            if trigger == (before.status.get("observedTriggers") or {}).get("powerCycle", ""):
                raise _broken(2, life, "a restart that nobody asked for", before, after)
        if before.phase == "Deployed" != after.phase and not _leaves_deployed(before, after, spec):
            raise _broken(2, life, f"Deployed became {after.phase}, and nobody asked for that", before, after)


def _leaves_deployed(before: Version, after: Version, spec: Version) -> bool:
    match after.phase:
        case "Broken":
            return bool(spec.spec.get("broken"))
        case "Rescue":
            return bool(spec.spec.get("rescue"))
        case "Releasing":
            return spec.withdraws(before.owner)
        case "Deploying":
            return _retriggered(before, spec)
        case _:
            return False


def _retriggered(before: Version, spec: Version) -> bool:
    acted_on = (before.status.get("observedTriggers") or {}).get("deployment", "")
    return str(spec.deployment.get("trigger", "")) not in ("", acted_on)


def what_is_installed_is_forgotten_only_by_a_release(life: Life) -> None:
    """What is installed is forgotten only by a successful erase, or where the policy is None.

    Nothing begins an erase or another installation but what its owner declares.
    """
    for before, after in life.passes():
        spec = life.decided_on(after)
        found = _forgotten(life, before, after, spec) | _wiped(before, after, spec)
        for what, so in found.items():
            if so:
                raise _broken(3, life, what, before, after)
    last = life.versions[-1]
    if life.deleted and last.installed is not None:
        forced = last.annotation("force-delete") == "true"
        if not (forced or last.deployment.get("existing")):
            raise _broken(3, life, "let go with something installed", last)


def _forgotten(life: Life, before: Version, after: Version, spec: Version) -> dict[str, bool]:
    """What is not known any more, each as a sentence and whether it is so."""
    released = before.phase == "Releasing" and (_erased(before, after, life.disks) or _left(before, after, spec))
    forgets = before.installed is not None and after.installed is None
    doubted = _came_up(before) and not _came_up(after)
    working = before.phase == "Releasing" or after.phase in ("Deploying", "Releasing")
    return {
        "what is installed is forgotten, and nothing was erased": forgets and not released,
        "a system that came up is not known any more": doubted and not working,
    }


def _wiped(before: Version, after: Version, spec: Version) -> dict[str, bool]:
    """What begins that ends in a wipe, or could on a machine whose status was lost; each as a sentence."""
    releases = after.phase == "Releasing" != before.phase
    wanted = not spec.withdraws(before.owner) and not spec.deployment.get("existing")
    installs = after.phase == "Deploying" and before.phase not in ("Deploying", "Releasing") and _came_up(before)
    restored = before.phase == "" != after.phase and after.annotation("installed") is not None
    return {
        "a release that nobody asked for": releases and wanted,
        "another installation that nobody asked for": installs and not _retriggered(before, spec),
        f"a restored record of what is installed became {after.phase}": restored and after.phase != "Deployed",
    }


def _came_up(version: Version) -> bool:
    return version.installed is not None and "at" in version.installed


def _erased(before: Version, after: Version, disks: Iterable[str] | None) -> bool:
    """Whether there is evidence for every disk that the record counts, and for every one that there is."""
    for version in (after, before):
        verified = {disk["serial"] or disk["device"] for disk in version.status.get("erasure", ()) if disk["verified"]}
        counted = (version.status.get("hardware") or {}).get("disks", 0)
        if counted and len(verified) == counted and (disks is None or verified >= set(disks)):
            return True
    return False


def _left(before: Version, after: Version, spec: Version) -> bool:
    """Whether it is recorded that nothing was to be erased."""
    kept = any(disk["method"] == "None" for version in (before, after) for disk in version.status.get("erasure", ()))
    return kept and spec.erase == "None"


def a_machine_has_one_owner_and_gets_one_only_when_ready(life: Life) -> None:
    """At most one owner; only a Ready machine becomes Allocated; Failed and Broken ones never do."""
    for before, after in life.passes():
        spec = life.decided_on(after)
        if before.phase in ("Failed", "Broken") and after.phase in ("Allocated", "Deploying"):
            raise _broken(4, life, f"{before.phase} became {after.phase}", before, after)
        if after.phase in ("Allocated", "Deploying", "Deployed") and after.owner is None:
            raise _broken(4, life, f"{after.phase} without an owner", before, after)
        if after.owner == before.owner:
            continue
        if after.owner is None:
            if after.installed is not None:
                raise _broken(4, life, "nobody's, with something installed", before, after)
        elif after.owner != spec.declared_owner:
            raise _broken(4, life, "whose it is was not declared", before, after)
        elif after.phase == "Deployed":
            adopted = bool(spec.deployment.get("existing"))
            restored = before.phase == "" and after.annotation("installed") is not None
            if not (adopted or restored):
                raise _broken(4, life, "Deployed with another owner", before, after)
        elif before.phase != "Ready" and not _came_to_be_ready(before, after):
            raise _broken(4, life, f"{before.phase} got an owner", before, after)


def _came_to_be_ready(before: Version, after: Version) -> bool:
    """Whether what the machine needs to be Ready ended well, and was recorded along with what came then."""
    needed = {"Commissioning": "Commission", "Releasing": "Release"}.get(before.phase)
    ended = [(entry["name"], entry["outcome"]) for entry in _ended(before, after)]
    return (needed, "Succeeded") in ended


def _ended(before: Version, after: Version) -> list[JSON]:
    """The operations that ended in between."""
    known = list(before.status.get("history", ()))
    return [entry for entry in after.status.get("history", ()) if entry not in known]


def intent_is_recorded_before_the_action(life: Life) -> None:
    """Intent is in status before the action."""
    for message in life.told:
        version = life.at(message.at)
        if version is None:
            raise _broken(5, life, f"told {message.told.value} while there was no record", message)
        if message.told is Told.TOKEN:
            continue
        step = version.operation.get("step", "")
        if version.operation:
            announced = message.told in ANNOUNCED.get(step, ()) and "nextRetryAt" not in version.operation
        else:
            announced = message.told in POWER and any(_rests_with(message.told, version, s) for s in life.seen(version))
        if not announced:
            raise _broken(5, life, f"told {message.told.value}, and status doesn't announce it", message, version)
    attempts: dict[str, tuple[str, int]] = {}
    for before, after in life.passes():
        if after.operation:
            this = (after.operation["name"], after.operation["attempt"])
            if attempts.setdefault(after.operation["id"], this) != this:
                raise _broken(5, life, "one id for two attempts", before, after)


def _rests_with(told: Told, version: Version, spec: Version) -> bool:
    """Whether a machine with nothing under way is kept like this."""
    wish = spec.spec.get("power")
    if told is Told.SWITCH_OFF:
        idle = version.phase == "Failed" or (version.phase == "Ready" and wish is None)
        return idle or wish == "Off"
    return wish == "On" and version.phase in ("Ready", "Allocated", "Deployed")


def tokens_are_those_of_recorded_attempts(life: Life, token_of: Callable[[str, str, str], str]) -> None:
    """What agents and installed systems prove themselves with belongs to an attempt that was recorded before.

    `token_of` derives it from the purpose, `agent` or `first-boot`, the record's uid and the attempt's id.
    """
    for message, version in _told(life):
        ids = {v.operation["id"] for v in life.versions if v.revision <= message.at and v.operation}
        if message.told is Told.TOKEN and message.proof not in {token_of("agent", life.uid, each) for each in ids}:
            raise _broken(5, life, "a ramdisk was let in that belongs to no recorded attempt", message, version)
        this = version.operation.get("id", "")
        commanded = message.uid and message.told is not Told.TOKEN
        if commanded and message.proof != token_of("agent", life.uid, this):
            raise _broken(5, life, "an agent of another attempt is commanded", message, version)
        if message.told is Told.WRITE and message.seed != token_of("first-boot", life.uid, this):
            raise _broken(5, life, "a system is written that can't report for this attempt", message, version)


def every_transient_phase_ends(life: Life) -> None:
    """Every transient phase has an operation, and that has a deadline and a bounded number of attempts."""
    for before, after in life.passes():
        operation = after.operation
        if after.phase in ("Commissioning", "Deploying", "Releasing") and not operation:
            raise _broken(6, life, f"{after.phase}, and nothing is under way", before, after)
        if after.phase == "Rescue" and not (operation or after.status.get("rescue")):
            raise _broken(6, life, "Rescue, neither open nor under way", before, after)
        if operation:
            lasts = datetime.fromisoformat(operation["deadline"]) - datetime.fromisoformat(operation["startedAt"])
            if not timedelta() < lasts <= timedelta(hours=25) or operation["attempt"] > 10:
                raise _broken(6, life, "an attempt without an end", before, after)


def nothing_is_overdue(life: Life, now: datetime) -> None:
    """In the end no attempt is beyond its deadline, but where it is held up and says so, or its turn has not come."""
    last = life.versions[-1]
    if life.deleted or not last.operation or last.condition("Stalled") == "True":
        return
    queued = last.operation.get("message", "").startswith("Waiting: ")
    if not queued and now > datetime.fromisoformat(last.operation["deadline"]) + SLACK:
        raise _broken(6, life, f"it is {now}, and the attempt goes on", last)


def is_settled(life: Life) -> bool:
    """Whether status answers spec, or the record is gone."""
    return life.deleted or life.versions[-1].answers == life.versions[-1].generation


def what_is_declared_is_answered(life: Life) -> None:
    """In the end status is about the spec that there is."""
    if not is_settled(life):
        raise _broken(7, life, "nobody answers what is declared", life.versions[-1])


def status_reaches_what_spec_declares(life: Life) -> None:
    """A machine that says that it is Ready is what its spec declares, and nothing is under way."""
    for before, after in life.passes():
        if after.condition("Ready") != "True" or after.answers != after.generation:
            continue
        wanted = "Ready"
        if after.spec.get("rescue"):
            wanted = "Rescue"
        elif after.deployment:
            wanted = "Deployed"
        elif after.declared_owner:
            wanted = "Allocated"
        if after.operation or (after.phase, after.owner) != (wanted, after.declared_owner):
            raise _broken(7, life, f"it says Ready, and {wanted} is declared", before, after)


def released_means_erased(life: Life) -> None:
    """Ready after Deployed implies evidence for every disk, or a policy of None that is recorded as such."""
    for before, after in life.passes():
        if after.phase == "Ready" and after.installed is not None:
            raise _broken(8, life, "Ready with something installed", before, after)
        released = before.phase == "Releasing" and after.phase in ("Ready", "Allocated", "Deploying")
        if not released or before.installed is None or _left(before, after, life.decided_on(after)):
            continue
        if not _erased(before, after, life.disks):
            raise _broken(8, life, "released without evidence for each disk", before, after)
        since = next(a.revision for b, a in reversed(list(life.passes())) if b.phase != "Releasing" == a.phase
                     and a.revision <= before.revision)  # fmt: skip
        erases = [m for m in life.told if m.told is Told.ERASE and since <= m.at <= after.revision]
        if life.disks is not None and not erases:
            raise _broken(8, life, "there is evidence, and the machine was not told to erase anything", before, after)


PROMISES: tuple[Callable[[Life], None], ...] = (
    disks_are_written_only_where_that_was_declared,
    deployed_machines_are_left_running,
    what_is_installed_is_forgotten_only_by_a_release,
    a_machine_has_one_owner_and_gets_one_only_when_ready,
    intent_is_recorded_before_the_action,
    every_transient_phase_ends,
    status_reaches_what_spec_declares,
    released_means_erased,
)


def _begins(before: Version, after: Version, name: str) -> bool:
    return after.operation.get("name") == name and after.operation["id"] != before.operation.get("id")
