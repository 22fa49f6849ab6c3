"""The command `rackwright`: `run` is the operator, `dnsmasq` prepares the DHCP and TFTP server that leads to it."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from rackwright import __version__, app, logs
from rackwright.api import RACK_LABEL
from rackwright.api.fields import format_duration, parse_duration
from rackwright.api.machine import Phase
from rackwright.assignment import Plan
from rackwright.census import EXPECTED
from rackwright.enlist import EnlistmentSettings
from rackwright.installs import Capacity
from rackwright.kube import SILENCE_SECONDS, Unconfigured
from rackwright.lifecycle.world import Policy
from rackwright.netboot import dnsmasq, tftp
from rackwright.netboot.script import RamdiskSettings
from rackwright.power.port import DEFAULT_LIMITS
from rackwright.reconcile import PROGRESS_SECONDS
from rackwright.server import CannotListen

_LAST_PORT = 65535
_YEAR = 365 * 86400.0
"""Longer than anybody waits; a moment that is so far away can still be told."""
_EXPECTED = ", ".join(f"{phase}={format_duration(time)}" for phase, time in EXPECTED.items())


def command() -> NoReturn:
    """The command as a process, which ends at once: Python would wait for the threads in which BMCs hang."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code, which is 2 where what was given or found here doesn't let it begin."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except (ValueError, CannotListen, Unconfigured) as error:
        print(f"rackwright: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    logs.configure(options.log_level, logs.Format(options.log_format))
    host, _, port = options.http_address.rpartition(":")
    if not port.isdigit() or int(port) > _LAST_PORT:
        raise ValueError(f"--http-address must be HOST:PORT or :PORT, not {options.http_address!r}")
    folders: dict[str, tuple[Path, ...]] = {"/boot/files": (options.ramdisk, options.ipxe)}
    if options.images is not None:
        folders["/images"] = (options.images,)
    settings = app.Settings(
        base_url=options.base_url,
        http_host=host.strip("[]") or "0.0.0.0",  # noqa: S104 (machines reach it on whatever network they are in)
        http_port=int(port),
        namespace=options.namespace,
        ramdisk=RamdiskSettings(
            base_url=options.base_url,
            insecure=options.agent_insecure_skip_tls_verify,
            arguments=tuple(options.kernel_argument),
        ),
        folders=folders,
        workers=options.workers,
        bmc_concurrency=options.bmc_concurrency,
        bmc_calls_per_second=options.bmc_calls_per_second or None,
        grace=options.grace,
        capacity=Capacity(options.max_concurrent_deployments or None, options.max_deployments_per_rack or None),
        policy=Policy(
            poll=timedelta(seconds=options.power_poll),
            boot_timeout=timedelta(seconds=options.boot_timeout),
            silence=timedelta(seconds=options.agent_silence),
            retry_base=timedelta(seconds=options.retry_base),
        ),
        enlistment=EnlistmentSettings(options.enlist_namespace, options.enlist_at_most)
        if options.enlist_namespace
        else None,
        allow_simulated=options.allow_simulated,
        limits=replace(
            DEFAULT_LIMITS, read=options.bmc_timeout, exchange=2 * options.bmc_timeout, settle=options.bmc_settle
        ),
        progress=options.show_progress_after,
        silence=options.watch_silence,
        resync=options.resync,
        plan=_plan(options),
        own_url=options.own_url,
        expected={
            phase: time for phase, time in {**EXPECTED, **dict(options.expected_time)}.items() if time is not None
        },
    )
    return asyncio.run(app.run(settings))


def _plan(options: argparse.Namespace) -> Plan:
    match options.shards, options.shard:
        case None, None:
            return Plan()
        case shards, None:
            return Plan.shared(shards)
        case None, plan:
            return Plan(plan.shards, plan.mine)
        case _:
            raise ValueError("--shards shares the shards among operators, --shard gives this one its own: choose")


def _dnsmasq(options: argparse.Namespace) -> int:
    service = dnsmasq.NetbootService(
        interface=options.interface,
        addressing=_addressing(options),
        base_url=options.base_url,
        tftp_root=str(options.tftp_root),
        advertise=options.advertise,
    )
    text = dnsmasq.render(service)
    try:
        tftp.furnish(service, options.ipxe)
        if options.output is None:
            print(text, end="")
        else:
            options.output.write_text(text)
    except OSError as error:
        raise ValueError(f"can't prepare {error.filename}: {error.strerror}") from None
    return 0


def _addressing(options: argparse.Namespace) -> dnsmasq.Leases | dnsmasq.ProxyDHCP:
    match options.dhcp_range, options.proxy:
        case (first, last), None:
            return dnsmasq.Leases(
                first, last, options.network, str(options.lease_file), router=options.router, dns=tuple(options.dns)
            )
        case None, IPv4Address() as server:
            if options.router or options.dns:
                raise ValueError("with --proxy the network's own DHCP server names router and DNS: leave both out here")
            return dnsmasq.ProxyDHCP(options.network, server)
        case _:
            raise ValueError(
                "give either --dhcp-range, the addresses to give out, or --proxy, where the network has a DHCP server"
            )


def _address(text: str) -> IPv4Address | None:
    """None for an empty text: a Pod's command line is fixed, and only the values in it are the site's."""
    try:
        return IPv4Address(text) if text else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an IPv4 address, not {text!r}") from None


def _addresses(text: str) -> list[IPv4Address]:
    return [address for part in text.split(",") if (address := _address(part.strip()))]


def _range(text: str) -> tuple[IPv4Address, IPv4Address] | None:
    match _addresses(text):
        case []:
            return None
        case [first, last]:
            return first, last
        case _:
            raise argparse.ArgumentTypeError(f"must be FIRST,LAST like 10.0.0.100,10.0.0.199, not {text!r}")


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise argparse.ArgumentTypeError(
            "must be http://HOST or http://HOST:PORT, as machines reach the operator, which speaks no TLS to them"
        )
    return text.rstrip("/")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a number, 1 or more")
    return int(text)


def _count_or_none(text: str) -> int:
    """0 where there is no limit."""
    return 0 if text == "0" else _count(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _YEAR:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, more than 0 and at most {_YEAR:.0f}, a year")
    return seconds


def _seconds_or_none(text: str) -> float:
    """0 where nothing is waited for."""
    return 0.0 if text in {"0", "0.0"} else _seconds(text)


def _shard(text: str) -> Plan:
    numbers, _, shards = text.partition("/")
    try:
        return Plan(int(shards), frozenset(int(number) for number in numbers.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be NUMBER/SHARDS like 0/4, or 0,1/4 for two, not {text!r}; numbers begin with 0"
        ) from None


def _expected(text: str) -> tuple[Phase, timedelta | None]:
    """How long a phase is expected to take; None for one that may take as long as it likes."""
    name, _, written = text.partition("=")
    if name not in (phase.value for phase in Phase):
        raise argparse.ArgumentTypeError(f"must begin with a phase, {', '.join(Phase)}, not {name!r}")
    time = None if written == "never" else parse_duration(written)
    if time is not None and not (isinstance(time, timedelta) and time):
        raise argparse.ArgumentTypeError(f"must end in a duration like 45m or 1h30m, or in never, not {written!r}")
    return Phase(name), time


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rackwright", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _run_options(
        commands.add_parser("run", help="run the operator against the cluster that KUBECONFIG or the pod names")
    )
    _dnsmasq_options(
        commands.add_parser(
            "dnsmasq",
            help="prepare dnsmasq for a provisioning network: its configuration, and what it serves by TFTP",
            epilog="--dhcp-range, --proxy, --router and --dns may be empty, which is as good as left out.",
        )
    )
    return parser


def _run_options(run: argparse.ArgumentParser) -> None:
    run.set_defaults(command=_run)
    run.add_argument("--base-url", type=_base_url, required=True, help="where machines reach this operator")
    run.add_argument(
        "--http-address", default=":8080", metavar="[HOST]:PORT", help="where to listen (default %(default)s)"
    )
    run.add_argument("--ramdisk", type=_folder, required=True, metavar="FOLDER", help="holds vmlinuz and initrd")
    run.add_argument("--images", type=_folder, metavar="FOLDER", help="operating system images to serve under /images")
    run.add_argument(
        "--ipxe", type=Path, default=Path("/usr/lib/ipxe"), metavar="FOLDER",
        help="iPXE binaries, for firmware that boots over HTTP (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--namespace",
        default=os.environ.get("RACKWRIGHT_NAMESPACE", "rackwright-system"),
        help="of the Lease and the token key (default %(default)s)",
    )
    run.add_argument(
        "--shards", type=_count, metavar="N",
        help="divide the fleet into so many shards, shared among all operators that are started so "
        "(default: one operator acts, and others stand by)",
    )  # fmt: skip
    run.add_argument(
        "--shard", type=_shard, metavar="NUMBER[,NUMBER]/N",
        help="instead: take these of N shards and no others, like 0/4; a second operator with the same stands by",
    )  # fmt: skip
    run.add_argument(
        "--own-url", type=_base_url, metavar="URL",
        help="with shards: where machines reach this very operator, if --base-url leads to one of several",
    )  # fmt: skip
    run.add_argument(
        "--workers", type=_count, default=app.WORKERS, metavar="N",
        help="machines worked on at once (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--grace", type=_seconds_or_none, default=60.0, metavar="SECONDS",
        help="for an installed system to shut down before its power is cut (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--max-concurrent-deployments", type=_count_or_none, default=100, metavar="N",
        help="installations at once, each until its image is written; others wait, and say so; operators share them by "
        "their shards; commissioning, releasing and rescue boot the ramdisk without waiting "
        "(default %(default)s, 0: no limit)",
    )  # fmt: skip
    run.add_argument(
        "--max-deployments-per-rack", type=_count_or_none, default=0, metavar="N",
        help=f"the same in each rack, as the machines' label {RACK_LABEL} says (default: no limit)",
    )  # fmt: skip
    run.add_argument(
        "--bmc-concurrency", type=_count, default=app.BMC_CONCURRENCY, metavar="N",
        help="exchanges of this operator with BMCs at once; those that hang don't count (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--bmc-calls-per-second", type=_count_or_none, default=0, metavar="N",
        help="exchanges of this operator with BMCs that begin in a second (default: no limit)",
    )  # fmt: skip
    run.add_argument(
        "--retry-base", type=_seconds, default=Policy().retry_base.total_seconds(), metavar="SECONDS",
        help="between a first attempt that failed and the second; doubles with each (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--power-poll", type=_seconds, default=Policy().poll.total_seconds(), metavar="SECONDS",
        help="between two looks at the power of a machine at rest (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--boot-timeout", type=_seconds, default=Policy().boot_timeout.total_seconds(), metavar="SECONDS",
        help="from power-on until the ramdisk's agent must have reported (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--agent-silence", type=_seconds, default=Policy().silence.total_seconds(), metavar="SECONDS",
        help="after which an agent at work is given up; agents report every 18 s or sooner (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--bmc-timeout", type=_seconds, default=DEFAULT_LIMITS.read, metavar="SECONDS",
        help="for a BMC to answer, twice as long for an exchange of several answers (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--bmc-settle", type=_seconds, default=DEFAULT_LIMITS.settle, metavar="SECONDS",
        help="for a BMC to reach the power that it accepted to switch to (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--show-progress-after", type=_seconds_or_none, default=PROGRESS_SECONDS, metavar="SECONDS",
        help="for which a machine that gets on within a step is so before status tells of it (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--watch-silence", type=_seconds, default=SILENCE_SECONDS, metavar="SECONDS",
        help="after which a silent watch is begun anew; API servers send a bookmark each minute (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--resync", type=_seconds, default=app.RESYNC_SECONDS, metavar="SECONDS",
        help="between two listings of all machines and images, beside the watches (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--agent-insecure-skip-tls-verify", action="store_true",
        help="have the ramdisk accept any certificate of image servers",
    )  # fmt: skip
    run.add_argument(
        "--enlist-namespace", metavar="NAME",
        help="give machines that nobody declared and that boot from the network a record there, to be accepted "
        "(default: they are left alone)",
    )  # fmt: skip
    run.add_argument(
        "--enlist-at-most", type=_count, default=50, metavar="N",
        help="machines that may wait there for acceptance (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--allow-simulated", action="store_true",
        help="take simulated:// addresses for machines, which exist in this process alone; never where real ones are",
    )  # fmt: skip
    run.add_argument("--kernel-argument", action="append", default=[], help="one more for the ramdisk; repeatable")
    run.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"], help="(default %(default)s)"
    )
    run.add_argument(
        "--log-format", default=logs.Format.TEXT.value, choices=[form.value for form in logs.Format],
        help="text for people, or a JSON object a line (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--expected-time", type=_expected, action="append", default=[], metavar="PHASE=DURATION",
        help="after which a machine in this phase counts as overdue in the metrics, like Deploying=45m, or "
        f"Failed=never; repeatable (default {_EXPECTED})",
    )  # fmt: skip


def _dnsmasq_options(config: argparse.ArgumentParser) -> None:
    config.set_defaults(command=_dnsmasq)
    config.add_argument("--interface", required=True, help="in the provisioning network")
    config.add_argument("--network", type=IPv4Network, required=True, help="like 10.0.0.0/24")
    config.add_argument("--dhcp-range", type=_range, metavar="FIRST,LAST", help="addresses to give out")
    config.add_argument(
        "--proxy", type=_address, metavar="ADDRESS",
        help="instead: the network has a DHCP server; add boot information only, from this address of ours",
    )  # fmt: skip
    config.add_argument("--router", type=_address, metavar="ADDRESS", help="with --dhcp-range: machines' default route")
    config.add_argument(
        "--dns", type=_addresses, action="extend", default=[], metavar="ADDRESS[,ADDRESS]",
        help="with --dhcp-range: name servers for machines; repeatable",
    )  # fmt: skip
    config.add_argument("--base-url", type=_base_url, required=True, help="where machines reach the operator")
    config.add_argument(
        "--tftp-root", type=Path, required=True, metavar="FOLDER",
        help="that dnsmasq is to serve; iPXE and the script that it begins with are put there",
    )  # fmt: skip
    config.add_argument(
        "--ipxe", type=Path, default=Path("/usr/lib/ipxe"), metavar="FOLDER", help="iPXE binaries (default %(default)s)"
    )
    config.add_argument(
        "--lease-file", type=Path, default=Path("/var/lib/dnsmasq/leases"), help="(default %(default)s)"
    )
    config.add_argument(
        "--advertise", type=IPv6Network, metavar="PREFIX",
        help="a prefix of the interface to advertise, without a route: spares machines iPXE's wait for IPv6",
    )  # fmt: skip
    config.add_argument("--output", type=Path, help="write it there instead of printing it")


if __name__ == "__main__":
    command()
