"""The command `rackwright`: `run` is the operator, `dnsmasq` prints the configuration of the DHCP and TFTP server."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from urllib.parse import urlsplit

from rackwright import app
from rackwright.kube import Unconfigured
from rackwright.lifecycle.world import Policy
from rackwright.netboot import dnsmasq
from rackwright.netboot.script import RamdiskSettings
from rackwright.server import CannotListen

_LAST_PORT = 65535


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code, which is 2 where what was given or found here doesn't let it begin."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except (ValueError, CannotListen, Unconfigured) as error:
        print(f"rackwright: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr
    )
    for chatty in ("kopf", "aiohttp", "urllib3", "sushy", "kubernetes"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
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
        grace=options.grace,
        policy=Policy(retry_base=timedelta(seconds=options.retry_base)),
    )
    return asyncio.run(app.run(settings))


def _dnsmasq(options: argparse.Namespace) -> int:
    if options.proxy is not None:
        addressing: dnsmasq.Leases | dnsmasq.ProxyDHCP = dnsmasq.ProxyDHCP(options.network, options.proxy)
    else:
        first, _, last = options.dhcp_range.partition(",")
        addressing = dnsmasq.Leases(
            IPv4Address(first), IPv4Address(last), options.network, str(options.lease_file), router=options.router
        )
    text = dnsmasq.render(
        dnsmasq.NetbootService(
            interface=options.interface,
            addressing=addressing,
            base_url=options.base_url,
            tftp_root=str(options.tftp_root),
            advertise=options.advertise,
        )
    )
    if options.output is None:
        print(text, end="")
    else:
        try:
            options.output.write_text(text)
        except OSError as error:
            raise ValueError(f"can't write {options.output}: {error.strerror}") from None
    return 0


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise argparse.ArgumentTypeError("must be http://HOST or http://HOST:PORT, as machines reach the operator")
    return text.rstrip("/")


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rackwright", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the operator against the cluster that KUBECONFIG or the pod names")
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
    run.add_argument("--workers", type=int, default=64, help="machines worked on at once (default %(default)s)")
    run.add_argument(
        "--grace", type=float, default=60.0, metavar="SECONDS",
        help="for an installed system to shut down before its power is cut (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--retry-base", type=float, default=Policy().retry_base.total_seconds(), metavar="SECONDS",
        help="between a first attempt that failed and the second; doubles with each (default %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--agent-insecure-skip-tls-verify", action="store_true",
        help="have the ramdisk accept any certificate of this operator and of image servers",
    )  # fmt: skip
    run.add_argument("--kernel-argument", action="append", default=[], help="one more for the ramdisk; repeatable")
    run.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"], help="(default %(default)s)"
    )

    config = commands.add_parser("dnsmasq", help="print dnsmasq's configuration for a provisioning network")
    config.set_defaults(command=_dnsmasq)
    config.add_argument("--interface", required=True, help="in the provisioning network")
    config.add_argument("--network", type=IPv4Network, required=True, help="like 10.0.0.0/24")
    addressing = config.add_mutually_exclusive_group(required=True)
    addressing.add_argument("--dhcp-range", metavar="FIRST,LAST", help="addresses to give out")
    addressing.add_argument(
        "--proxy", type=IPv4Address, metavar="ADDRESS",
        help="the network has a DHCP server: add boot information only, from this address of ours",
    )  # fmt: skip
    config.add_argument("--router", type=IPv4Address, help="default route for machines")
    config.add_argument("--base-url", type=_base_url, required=True, help="where machines reach the operator")
    config.add_argument("--tftp-root", type=Path, default=Path("/usr/lib/ipxe"), help="(default %(default)s)")
    config.add_argument(
        "--lease-file", type=Path, default=Path("/var/lib/dnsmasq/leases"), help="(default %(default)s)"
    )
    config.add_argument(
        "--advertise", type=IPv6Network, metavar="PREFIX",
        help="a prefix of the interface to advertise, without a route: spares machines iPXE's wait for IPv6",
    )  # fmt: skip
    config.add_argument("--output", type=Path, help="write it there instead of printing it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
