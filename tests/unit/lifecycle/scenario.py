"""Scenario files: what happens to a machine, in the words of a person, and beneath it what the operator did and showed.

A file is YAML: `story`, a sentence; `about`, more words if it needs them; `timeline`, a list of steps. A step is one
of `given`, `apply`, `happens`, `condition` and `wait`, with what came of it in `then`, which nobody writes by hand:
`hack/generate` tells the story again and writes what came of it. tests/README.md says how to change one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from tests.property.admission import Refused, admitted
from tests.property.metal import Running
from tests.property.rig import SILENT
from tests.unit.lifecycle.story import Story
from tests.unit.lifecycle.worlds import ADDRESSES

from rackwright.api.fields import parse_duration
from rackwright.api.machine import BareMetalMachineSpec
from rackwright.lifecycle.world import Blame, Fault

FOLDER = Path(__file__).parent / "timelines"

_WIDTH = 112

_STR, _MAP = "tag:yaml.org,2002:str", "tag:yaml.org,2002:map"

_WORDS = ("given", "apply", "happens", "condition", "wait")

Word = Literal["given", "apply", "happens", "condition", "wait"]


class Unreadable(ValueError):
    """A scenario file isn't one, in a sentence that says where."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens, and what came of it."""

    word: Word
    what: Any
    """Specs that are applied before the operator looks, a sentence of `HAPPENINGS`, conditions, or a duration."""
    until: str | None = None
    """What a line has to say for the story to go on from there; without it, until nothing is left to do."""
    about: str = ""
    then: str = ""

    @classmethod
    def read(cls, step: Any) -> Step:
        """From YAML."""
        words = [word for word in _WORDS if isinstance(step, Mapping) and word in step]
        if len(words) != 1 or set(step) - {*_WORDS, "until", "about", "then"}:
            raise Unreadable(f"a step has one of {', '.join(_WORDS)}, and perhaps until, about and then: {step}")
        word: Any = words[0]
        if word == "happens" and step[word] not in HAPPENINGS:
            raise Unreadable(f"nobody knows how this happens: {step[word]!r}; there are {', '.join(HAPPENINGS)}")
        return cls(word, step[word], step.get("until"), step.get("about", ""), step.get("then", ""))

    def written(self) -> dict[str, Any]:
        """As YAML has it."""
        found: dict[str, Any] = {self.word: _flow(self.what)}
        found |= {"until": self.until} if self.until else {}
        found |= {"about": self.about} if self.about else {}
        return found | ({"then": self.then} if self.then else {})


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story with its golden timeline."""

    story: str
    timeline: tuple[Step, ...]
    about: str = ""

    @classmethod
    def read(cls, text: str) -> Scenario:
        """From a file's text."""
        if any(line.lstrip().startswith("#") for line in text.splitlines()):
            raise Unreadable("comments are lost when it is told again: say it in about")
        match yaml.safe_load(text):
            case {"story": str(story), "timeline": list(steps), **more} if more.keys() <= {"about"}:
                return cls(story, tuple(Step.read(step) for step in steps), str(more.get("about", "")))
            case _:
                raise Unreadable("a scenario has story, timeline and perhaps about")

    def __str__(self) -> str:
        """As its file has it."""
        found: dict[str, Any] = {"story": self.story} | ({"about": self.about} if self.about else {})
        found["timeline"] = [step.written() for step in self.timeline]
        text: str = yaml.dump(found, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)
        return text.replace("\n- ", "\n\n- ")

    def told(self) -> Scenario:
        """What comes of it now."""
        with Story() as story:
            return replace(self, timeline=tuple(replace(step, then=_happens(story, step)) for step in self.timeline))


class _Flow(dict[str, Any]):
    """What is written on one line, in braces."""


def _flow(what: Any) -> Any:
    """A spec on one line if it fits, else each of its parts on one."""
    if isinstance(what, list):
        return [_flow(each) for each in what]
    if not isinstance(what, Mapping):
        return what
    if len(str(what)) <= _WIDTH:
        return _Flow(what)
    return {name: _Flow(part) if isinstance(part, Mapping) else part for name, part in what.items()}


class _Dumper(yaml.SafeDumper):
    """Writes what came of a step as a block of lines, and what occurs twice twice."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


_Dumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar(_STR, text, style="|" if "\n" in text else None)
)
_Dumper.add_representer(_Flow, lambda dumper, flow: dumper.represent_mapping(_MAP, flow, flow_style=True))


def golden(file: Path) -> str:
    """What a scenario file should hold: its story, with what comes of it now."""
    try:
        return str(Scenario.read(file.read_text()).told())
    except (Unreadable, Refused, AssertionError) as error:
        raise Unreadable(f"{file.name}: {error}") from error


def difference(present: str, should: str, name: str) -> str:
    """A unified diff; empty if they are the same."""
    lines = difflib.unified_diff(present.splitlines(), should.splitlines(), name, f"{name} (told now)", lineterm="")
    return "\n".join(lines)


# --- what happens -------------------------------------------------------------------------------------------------


def _happens(story: Story, step: Step) -> str:
    """Have it happen, and the operator run; what came of it."""
    match step.word:
        case "given" | "apply":
            for words in step.what if isinstance(step.what, list) else [step.what]:
                story.apply(_spec(words))
        case "happens":
            HAPPENINGS[step.what](story)
        case "condition":
            for kind, verdict in step.what.items():
                story.rig.write_condition(kind, verdict)
        case "wait":
            story.waits(parse_duration(step.what))
            return _block(story.told())
    story.settles(until=step.until)
    told = story.told()
    return _block(story.now() if step.word == "given" else told)


def _block(lines: list[str]) -> str:
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _spec(words: Mapping[str, Any]) -> BareMetalMachineSpec:
    """What is applied, with a network card and a BMC unless it says otherwise."""
    spec = {name: value for name, value in {**ADDRESSES, **words}.items() if value is not None}
    return admitted(BareMetalMachineSpec.model_validate(spec))


def _of_metal(**facts: Any) -> Callable[[Story], None]:
    def happens(story: Story) -> None:
        for name, value in facts.items():
            setattr(story.rig.metal, name, value)

    return happens


def _of_rig(**facts: Any) -> Callable[[Story], None]:
    def happens(story: Story) -> None:
        for name, value in facts.items():
            setattr(story.rig, name, value)

    return happens


def _mended(**facts: Any) -> Callable[[Story], None]:
    """Something that an attempt waits for has changed, and the operator is told."""

    def happens(story: Story) -> None:
        _of_metal(**facts)(story)
        story.hurry = True

    return happens


def _bmc(fault: Fault) -> Callable[[Story], None]:
    def happens(story: Story) -> None:
        story.rig.metal.bmc_silent, story.rig.says_bmc = True, fault

    return happens


def _agent_falls_silent(story: Story) -> None:
    assert story.rig.metal.ramdisk is not None, "no agent is there to fall silent"
    story.rig.metal.ramdisk.beating = story.rig.ramdisk_comes_up = False


def _live(story: Story) -> None:
    metal = story.rig.metal
    metal.on, metal.running, metal.image = True, Running.SYSTEM, "existing"


def _status_lost(story: Story) -> None:
    story.rig.lose_status()
    story.rig.restart()


def _declaration_lost(story: Story) -> None:
    story.apply(_spec({}))
    _status_lost(story)


def _record_lost(story: Story) -> None:
    _status_lost(story)
    story.rig.evidence = None


CREDENTIALS = Fault(
    Blame.BMC,
    "BMCCredentialsRejected",
    "The BMC at 10.0.0.7 refuses the credentials (HTTP 401). "
    "Correct the Secret node-07-bmc: it is tried again at once.",
)

HAPPENINGS: Mapping[str, Callable[[Story], None]] = {
    # people
    "somebody deletes the machine": lambda story: story.rig.delete(),
    "somebody annotates the machine with force-delete": _of_rig(force_delete=True),
    "somebody presses the power button": lambda story: (
        story.rig.metal.switch_off() if story.rig.metal.on else story.rig.metal.switch_on(attempt=None)
    ),
    "somebody declares its twin, which is older": _of_rig(twin="machines/node-01"),
    "somebody deletes its twin": _of_rig(twin=None),
    # the machine
    "it runs a system that nobody of us installed": _live,
    "the plug is pulled": lambda story: story.rig.metal.switch_off(),
    "it doesn't boot from the network any more": _of_rig(ramdisk_comes_up=False),
    "it boots from the network again": _of_rig(ramdisk_comes_up=True),
    "nobody starts it": _of_rig(ramdisk_comes_up=False),
    "the agent falls silent": _agent_falls_silent,
    "the agent reports and answers nothing": _of_rig(agent_answers=False),
    "the agent answers again": _of_rig(agent_answers=True),
    "the disk does not take what is written": _of_metal(commands_fail=True),
    "the disk takes what is written": _of_metal(commands_fail=False),
    "the installed system can't call home": _of_metal(calls_home=False),
    "the installed system can call home": _of_metal(calls_home=True),
    "a disk dies": _of_metal(stubborn_disk=True),
    "the dead disk is replaced": _of_metal(stubborn_disk=False),
    # its BMC
    "the BMC falls silent": _bmc(SILENT),
    "the BMC refuses the credentials": _bmc(CREDENTIALS),
    "the BMC answers again": _of_metal(bmc_silent=False),
    "the Secret is corrected": _mended(bmc_silent=False),
    "the BMC refuses the next power action": _of_metal(refusals=1),
    "the BMC refuses every power action": _of_metal(refusals=99),
    "the BMC does what it is asked again": _of_metal(refusals=0),
    # the cluster
    "the BMC's Secret is deleted": _of_metal(secret_missing=True),
    "the BMC's Secret appears": _mended(secret_missing=False),
    "the image is deleted": _of_rig(image_missing=True),
    "the image appears": _of_rig(image_missing=False),
    "a backup is restored without status": _status_lost,
    "a backup is restored without status and without what was declared": _declaration_lost,
    "a backup of before it was deployed is restored": _record_lost,
    "somebody removes the annotation that tells of another record": _of_rig(restored=False, held=False),
    # the operator
    "the operator restarts": lambda story: story.rig.restart(),
    "time passes": lambda _: None,
}
"""All that `happens` may say."""
