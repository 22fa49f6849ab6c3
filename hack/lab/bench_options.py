"""What hack/bench can be asked, and what it refuses before anything is made.

Standard library only, like whatever a command needs before it has an environment.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence

SCENARIOS = ("created", "changed", "wished", "idle", "restarted", "deployed", "released", "storm", "bare")
"""What happens to a fleet, in this order."""
STAGES = ("created", "deployed", "released")
"""What `--floor` goes through."""
IDLE_SECONDS = 300.0
"""One listing of all machines, which comes as often, falls into it."""
_OF_A_FLEET: Mapping[str, object] = {
    "scenario": SCENARIOS,
    "idle_seconds": IDLE_SECONDS,
    "operator_argument": (),
    "name": "bench",
    "record": False,
}
"""Options that mean nothing without an API server, and what they are where they aren't given."""
_OF_THE_FLOOR: Mapping[str, object] = {"batch": 1_000, "until": STAGES[-1]}
"""Options that mean nothing with one."""


def read(description: str, kept_in: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for; it ends the program with a sentence where that can't be."""
    parser = _parser(description, kept_in)
    asked = parser.parse_args(arguments)
    if asked.floor is None:
        if given := _given(asked, _OF_THE_FLOOR):
            parser.error(f"only --floor takes {given}")
    elif given := _given(asked, _OF_A_FLEET):
        parser.error(f"--floor takes --batch, --until and --json, and has no use for {given}")
    for option, default in {**_OF_A_FLEET, **_OF_THE_FLOOR}.items():
        if getattr(asked, option) is None:
            setattr(asked, option, default)
    return asked


def _given(asked: argparse.Namespace, options: Iterable[str]) -> str:
    return ", ".join(f"--{option.replace('_', '-')}" for option in options if getattr(asked, option) is not None)


def _parser(description: str, kept_in: str) -> argparse.ArgumentParser:
    """None is the value of an option that wasn't given."""
    parser = argparse.ArgumentParser(
        prog="hack/bench", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = parser.add_mutually_exclusive_group(required=True)
    sizes.add_argument("--machines", type=_count, metavar="N", action="append", help="size of a fleet; repeatable")
    sizes.add_argument("--floor", type=_count, metavar="N", help="instead: N machines without an API server")
    parser.add_argument("--json", action="store_true", help="for programs")
    fleet = parser.add_argument_group("of a fleet, with --machines")
    fleet.add_argument(
        "--scenario", choices=SCENARIOS, metavar="SCENARIO", action="append",
        help=f"only this one, and what it needs; repeatable. There are {', '.join(SCENARIOS)} (default: all)",
    )  # fmt: skip
    fleet.add_argument(
        "--idle-seconds", type=_seconds, metavar="SECONDS",
        help=f"for which the operator is left alone (default: {IDLE_SECONDS:g})",
    )  # fmt: skip
    fleet.add_argument(
        "--operator-argument", metavar="ARGUMENT", action="append", help="one more for the operator; repeatable"
    )
    fleet.add_argument("--name", help="of the control plane (default: bench)")
    fleet.add_argument("--record", action="store_true", default=None, help=f"keep it in {kept_in}")
    floor = parser.add_argument_group("of the floor, with --floor")
    floor.add_argument("--batch", type=_count, metavar="N", help="machines that are held at once (default: 1000)")
    floor.add_argument(
        "--until", choices=STAGES, help="the stage after which machines are left alone (default: released)"
    )
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a number, 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (seconds > 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError("must be a number of seconds, more than 0")
    return seconds
