"""The check of what is promised, on a history that somebody made up: it lets a good one pass, and no bad one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest
from tests.kube import promises
from tests.kube.promises import Life, Message, Told

JSON = dict[str, Any]

PORT = 8000
UID = "0af1"
MAC = "52:54:00:00:00:01"
DISKS = {MAC: ["DISK1"]}
BEGUN = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
ENDS, LATER = BEGUN + timedelta(hours=1), BEGUN + timedelta(hours=2)
ALLOCATED: JSON = {"allocation": {"owner": "search"}, "deployment": {"image": "debian-12"}}
WRITTEN: JSON = {"image": "debian-12", "checksum": "sha256:ab"}
RUNS: JSON = {**WRITTEN, "at": BEGUN.isoformat()}
ERASED = [{"device": "/dev/sda", "serial": "DISK1", "method": "Overwrite", "verified": True}]
LEFT = [{"device": "*", "serial": "", "method": "None", "verified": False}]


def operation(id_: str, name: str, step: str, **more: Any) -> JSON:
    times = {"startedAt": BEGUN.isoformat(), "deadline": ENDS.isoformat()}
    return {"operation": {"id": id_, "name": name, "attempt": 1, "step": step, **times, **more}}


def condition(kind: str) -> JSON:
    return {"conditions": [{"type": kind, "status": "True"}]}


def succeeded(*names: str) -> JSON:
    return {"history": [{"name": name, "outcome": "Succeeded", "startedAt": name} for name in names]}


def token_of(purpose: str, uid: str, attempt: str) -> str:
    return f"{purpose} {uid} {attempt}"


class History:
    """A machine's life from its declaration to its release, by revision; a test makes one thing of it wrong."""

    def __init__(self) -> None:
        self.records: dict[int, JSON] = {}
        self.told: list[Message] = []
        self.deleted: set[str] = set()
        known: JSON = {"hardware": {"disks": 1}}
        owned: JSON = {**known, "owner": "search"}
        runs: JSON = {**owned, "installed": RUNS}
        self.spec: JSON = {"bootMACAddress": MAC, "bmc": {"address": f"redfish+http://127.0.0.1:{PORT}/one"}}
        self.record(1, 1)
        self.record(2, 1, "Commissioning", **operation("c", "Commission", ""))
        self.record(3, 1, "Commissioning", **operation("c", "Commission", "BootRamdisk"))
        self.boots(3, "c")
        self.record(4, 1, "Commissioning", **known, **operation("c", "Commission", "ShutDown"))
        self.tells(4, Told.SWITCH_OFF)
        self.record(5, 1, "Ready", **known, **succeeded("Commission"), **condition("Ready"))
        self.spec = {**self.spec, **ALLOCATED}
        self.record(6, 2, "Ready", answers=1, **known, **succeeded("Commission"), **condition("Ready"))
        self.record(7, 2, "Deploying", **owned, **operation("d", "Deploy", "BootRamdisk"))
        self.boots(7, "d")
        self.record(8, 2, "Deploying", **owned, installed=WRITTEN, **operation("d", "Deploy", "WriteImage"))
        self.commands(8, Told.WRITE, "d")
        self.record(9, 2, "Deploying", **owned, installed=WRITTEN, **operation("d", "Deploy", "BootDisk"))
        self.tells(9, Told.SWITCH_OFF, Told.BOOT_DISK, Told.SWITCH_ON)
        self.record(10, 2, "Deployed", **runs, **condition("Ready"))
        self.spec = {**self.spec, "allocation": None, "deployment": None}
        self.record(11, 3, "Deployed", answers=2, **runs, **condition("Ready"))
        self.record(12, 3, "Releasing", **runs, **operation("r", "Release", "PowerOff"))
        self.tells(12, Told.SWITCH_OFF)
        self.record(13, 3, "Releasing", **runs, **operation("r", "Release", "BootRamdisk"))
        self.boots(13, "r")
        wiped: JSON = {**owned, "installed": WRITTEN}
        self.record(14, 3, "Releasing", **wiped, **operation("r", "Release", "EraseDisks"))
        self.commands(14, Told.ERASE, "r")
        self.record(15, 3, "Releasing", **wiped, erasure=ERASED, **operation("r", "Release", "ShutDown"))
        self.tells(15, Told.SWITCH_OFF)
        self.record(16, 3, "Ready", **known, erasure=ERASED, **succeeded("Release", "Commission"), **condition("Ready"))

    def record(
        self, revision: int, generation: int, phase: str = "", answers: int | None = None, **status: Any
    ) -> None:
        metadata = {
            "namespace": "machines", "name": "node", "uid": UID,
            "resourceVersion": str(revision), "generation": generation,
        }  # fmt: skip
        shown = {"phase": phase, "observedGeneration": generation if answers is None else answers, **status}
        self.records[revision] = {"metadata": metadata, "spec": self.spec, "status": shown if phase else {}}

    def boots(self, revision: int, attempt: str) -> None:
        self.tells(revision, Told.BOOT_NETWORK, Told.SWITCH_ON)
        self.commands(revision, Told.TOKEN, attempt)

    def tells(self, revision: int, *told: Told) -> Self:
        self.told += [Message(each, revision, port=PORT) for each in told]
        return self

    def commands(self, revision: int, told: Told, attempt: str) -> Self:
        seed = token_of("first-boot", UID, attempt) if told is Told.WRITE else ""
        self.told.append(Message(told, revision, uid=UID, proof=token_of("agent", UID, attempt), seed=seed))
        return self

    def status(self, revision: int, **changes: Any) -> Self:
        """Say something else in one version's status; None removes."""
        it = self.records[revision] = copy.deepcopy(self.records[revision])
        it["status"] = {k: v for k, v in (it["status"] | changes).items() if v is not None}
        return self

    def declares(self, revision: int, **changes: Any) -> Self:
        """Have one version's spec say something else."""
        it = self.records[revision] = copy.deepcopy(self.records[revision])
        it["spec"] |= changes
        return self

    def copied(self, revision: int, later: int, **changes: Any) -> Self:
        """Have another version follow that differs in this."""
        self.records[later] = copy.deepcopy(self.records[revision])
        self.records[later]["metadata"]["resourceVersion"] = str(later)
        self.status(later, **changes)
        return self

    def forgets(self, told: Told) -> Self:
        """Have it never been told this."""
        self.told = [message for message in self.told if message.told is not told]
        return self

    def without(self, *revisions: int) -> Self:
        """Have versions never been written."""
        for revision in revisions:
            del self.records[revision]
        return self

    def until(self, revision: int) -> Self:
        """Let it end there."""
        self.without(*(later for later in list(self.records) if later > revision))
        self.told = [message for message in self.told if message.at <= revision]
        return self

    def life(self) -> Life:
        records = [self.records[revision] for revision in sorted(self.records)]
        (life,) = promises.lives(records, self.deleted, self.told, DISKS)
        return life


def tokens(life: Life) -> None:
    promises.tokens_are_those_of_recorded_attempts(life, token_of)


def in_time(life: Life) -> None:
    promises.nothing_is_overdue(life, ENDS + timedelta(minutes=5))


CHECKS = (*promises.PROMISES, tokens, in_time, promises.what_is_declared_is_answered)


def test_a_good_life_keeps_every_promise() -> None:
    assert broken(History()) == []


def restarted(it: History, trigger: str) -> None:
    it.until(11)
    it.declares(11, **ALLOCATED, powerCycle={"trigger": trigger})
    it.status(
        11, observedGeneration=3, conditions=None, **operation("p", "Restart", "PowerOff", deadline=LATER.isoformat())
    )
    it.tells(11, Told.SWITCH_OFF)


def left_unerased(it: History, erase: str) -> None:
    it.without(13, 14)
    it.told = [message for message in it.told if message.at not in (13, 14)]
    for revision in (11, 12, 15, 16):
        it.declares(revision, release={"erase": erase})
    for revision in (15, 16):
        it.status(revision, erasure=LEFT)


def switched(it: History, at: int, told: Told, power: str | None) -> None:
    it.declares(10, power=power)
    it.tells(at, told)


def adopted(it: History, **deployment: Any) -> None:
    it.until(1)
    it.declares(1, **ALLOCATED | {"deployment": deployment})
    it.copied(1, 2, phase="Deployed", owner="search", installed={"at": BEGUN.isoformat()}, observedGeneration=1)


def restored(it: History, phase: str) -> None:
    it.until(1)
    it.declares(1, **ALLOCATED)
    it.records[1]["metadata"]["annotations"] = {"metal.rackwright.io/installed": "{}"}
    held = operation("c", "Commission", "") if phase == "Commissioning" else {"installed": RUNS, "owner": "search"}
    it.copied(1, 2, phase=phase, observedGeneration=1, **held)


def let_go(it: History, **annotations: str) -> None:
    it.until(10)
    it.copied(10, 11)
    it.records[11]["metadata"]["annotations"] = {f"metal.rackwright.io/{k}": v for k, v in annotations.items()}
    it.deleted = {UID}


def ended_at(it: History, **status: Any) -> None:
    it.until(8)
    it.status(8, **status)


GOOD: Mapping[str, Callable[[History], object]] = {
    "a restart that a trigger asks for": lambda it: restarted(it, "now"),
    "a release that erases nothing, as declared": lambda it: left_unerased(it, "None"),
    "power that spec asks for": lambda it: switched(it, 10, Told.SWITCH_ON, "On"),
    "power that spec asked for a moment ago": lambda it: switched(it, 11, Told.SWITCH_OFF, "Off"),
    "a live machine is adopted": lambda it: adopted(it, existing=True),
    "a record from a backup is believed": lambda it: restored(it, "Deployed"),
    "a record is let go by force": lambda it: let_go(it, **{"force-delete": "true"}),
    "an attempt is held up beyond its deadline": lambda it: ended_at(it, **condition("Stalled")),
    "an attempt waits for its turn": lambda it: it.until(2).status(
        2, operation={**it.records[2]["status"]["operation"], "message": "Waiting: 2nd of 3 for an install slot."}
    ),
}


@pytest.mark.parametrize("story", GOOD)
def test_what_is_allowed_breaks_no_promise(story: str) -> None:
    history = History()
    GOOD[story](history)
    assert broken(history) == []


BAD: Mapping[str, tuple[int, str, Callable[[History], object]]] = {
    "an image is written in the pool": (1, "an image is written, and", lambda it: it.commands(5, Told.WRITE, "c")),
    "an image is written that nobody declared": (
        1, "an image is written, and", lambda it: [it.declares(n, deployment=None) for n in range(6, 11)]),
    "an image is written for somebody else": (
        1, "an image is written, and", lambda it: [it.declares(n, allocation={"owner": "ads"}) for n in range(6, 11)]),
    "disks are erased while a system runs": (1, "disks are erased, and", lambda it: it.commands(10, Told.ERASE, "d")),
    "disks are erased although they were not to be": (
        1, "disks are erased, and", lambda it: [it.declares(n, release={"erase": "None"}) for n in range(11, 17)]),
    "a system is switched off": (2, "told to switch off", lambda it: it.tells(10, Told.SWITCH_OFF)),
    "a system is switched on where it is to be off": (
        2, "told to switch on", lambda it: switched(it, 10, Told.SWITCH_ON, "Off")),
    "a machine that nobody trusts is switched on": (
        2, "told to switch on", lambda it: it.until(2).status(2, phase="New", operation=None).tells(2, Told.SWITCH_ON)),
    "a machine is restarted without a trigger": (2, "a restart that", lambda it: restarted(it, "")),
    "a system is stopped for a rescue that nobody wants": (
        2, "Deployed became Rescue", lambda it: it.until(12).status(12, phase="Rescue")),
    "what is installed is forgotten by a check": (3, "nothing was erased", lambda it: it.status(10, installed=None)),
    "what is installed is forgotten without an erase": (
        3, "nothing was erased", lambda it: [it.status(n, erasure=None) for n in (15, 16)]),
    "a system is released that is still declared": (
        3, "a release that nobody", lambda it: [it.declares(n, **ALLOCATED) for n in range(11, 17)]),
    "a system is installed again without a trigger": (
        3, "another installation",
        lambda it: it.until(12).declares(11, **ALLOCATED).declares(12, **ALLOCATED).status(12, phase="Deploying")),
    "a system is not known any more": (3, "not known any more", lambda it: it.until(11).status(11, installed=WRITTEN)),
    "a record from a backup is commissioned": (3, "became Commissioning", lambda it: restored(it, "Commissioning")),
    "a record is let go with a system": (3, "let go", let_go),
    "one of two disks has no evidence": (
        3, "nothing was erased", lambda it: [it.status(n, hardware={"disks": 2}) for n in (15, 16)]),
    "nothing is erased, and that was not declared": (3, "nothing was erased", lambda it: left_unerased(it, "Full")),
    "a broken machine is deployed": (4, "Broken became Deploying", lambda it: it.status(6, phase="Broken")),
    "a machine is deployed for nobody": (4, "without an owner", lambda it: it.status(9, owner=None)),
    "a machine is deployed for another than declared": (
        4, "was not declared", lambda it: [it.status(n, owner="ads") for n in range(7, 10)]),
    "a system gets another owner": (
        4, "with another owner",
        lambda it: it.until(11).declares(11, allocation={"owner": "b"}).status(11, owner="b", observedGeneration=3)),
    "a machine gets an owner before it is checked": (
        4, "Commissioning got an owner", lambda it: it.without(5, 6).status(7, history=None)),
    "a machine is adopted that was not declared to run": (
        4, "with another owner", lambda it: adopted(it, image="debian-12")),
    "a machine is switched on before that is recorded": (5, "doesn't announce", lambda it: it.tells(2, Told.SWITCH_ON)),
    "an image is written before that is recorded": (5, "doesn't announce", lambda it: it.commands(7, Told.WRITE, "d")),
    "a machine is told something before its next attempt": (
        5, "doesn't announce", lambda it: it.status(
            3, **operation("c", "Commission", "BootRamdisk", nextRetryAt=ENDS.isoformat()))),
    "a machine is told something without a record": (5, "without a record", lambda it: it.tells(0, Told.SWITCH_OFF)),
    "a machine in the pool is switched on": (5, "doesn't announce", lambda it: it.tells(5, Told.SWITCH_ON)),
    "two attempts have one id": (
        5, "one id for two", lambda it: it.status(4, operation={**it.records[4]["status"]["operation"], "attempt": 2})),
    "a ramdisk is let in by a token of no attempt": (5, "let in", lambda it: it.commands(7, Told.TOKEN, "x")),
    "the agent of another attempt is told to erase": (
        5, "another attempt is commanded", lambda it: it.commands(14, Told.ERASE, "d")),
    "a system is written that reports for another attempt": (
        5, "can't report", lambda it: it.told.append(
            Message(Told.WRITE, 8, uid=UID, proof=token_of("agent", UID, "d"), seed=token_of("first-boot", UID, "c")))),
    "a phase has nothing under way": (6, "nothing is under way", lambda it: it.status(4, operation=None)),
    "a rescue is neither open nor under way": (
        6, "neither open", lambda it: it.until(4).status(4, phase="Rescue", operation=None)),
    "an attempt has no end": (
        6, "without an end", lambda it: it.status(
        2, **operation("c", "Commission", "", deadline=(BEGUN + timedelta(days=9)).isoformat()))),
    "an attempt is left beyond its deadline": (6, "goes on", lambda it: it.until(8)),
    "it says Ready, and is not what is declared": (
        7, "it says Ready, and Deployed", lambda it: it.status(6, observedGeneration=2)),
    "it says Ready, and something is under way": (7, "it says Ready", lambda it: it.status(9, **condition("Ready"))),
    "nobody answers what is declared": (7, "nobody answers", lambda it: it.until(11)),
    "it is in the pool with a system": (8, "with something installed", lambda it: it.status(16, installed=WRITTEN)),
    "there is evidence, and nothing was erased": (8, "was not told to erase", lambda it: it.forgets(Told.ERASE)),
}  # fmt: skip


@pytest.mark.parametrize("story", BAD)
def test_a_broken_promise_is_found(story: str) -> None:
    number, says, happens = BAD[story]
    history = History()
    happens(history)
    (found,) = [each for each in broken(history) if each.startswith(f"promise {number}: ") and says in each]
    assert "Message(" in found or "version " in found


def broken(history: History) -> list[str]:
    """What every check says of it that finds a promise broken."""
    try:
        life = history.life()
    except promises.Broken as error:
        return [str(error)]
    said = []
    for check in CHECKS:
        try:
            check(life)
        except promises.Broken as error:
            said.append(str(error))
    return said


def test_what_one_bmc_is_told_is_told_to_the_older_of_two_records() -> None:
    history = History()
    records = [history.records[revision] for revision in sorted(history.records)]
    younger = copy.deepcopy(records[0])
    younger["metadata"] |= {"uid": "another", "resourceVersion": "6", "name": "twin"}
    first, second = promises.lives([*records, younger], (), history.told, DISKS)
    assert len(first.told) == len(history.told)
    assert second.told == []
