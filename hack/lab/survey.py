"""What there is of a rack and whether it runs: as facts for programs, as a table for people."""

from __future__ import annotations

from typing import Any

from lab.rack import Rack, addresses_leased


def facts(rack: Rack) -> dict[str, Any]:
    """All that is to be known of a rack but its secrets, for JSON."""
    addresses = addresses_leased(rack)
    return {
        "name": rack.name,
        "subnet": str(rack.plan.subnet),
        "namespace": rack.plan.namespace,
        "hostInterface": rack.plan.host_interface,
        "hostAddress": rack.host_address,
        "operatorURL": rack.base_url,
        "bmcURL": rack.plan.bmc_url,
        "bmcUsername": rack.username,
        "bmcPasswordFile": str(rack.plan.state / "rack.json"),
        "caFile": str(rack.plan.state / "ca.pem"),
        "services": {name: service.pid is not None for name, service in rack.services.items()},
        "nodes": [
            {
                "name": node.name,
                "macAddress": node.mac,
                "firmware": node.firmware.value,
                "bmcAddress": node.bmc_address,
                "power": rack.power(node),
                "address": str(addresses[node.mac]) if node.mac in addresses else None,
                "consoleLog": str(node.console),
                "disks": [
                    {
                        "bus": disk.bus.value,
                        "gib": disk.gib,
                        "serial": disk.serial,
                        "wwn": disk.wwn,
                        "backingFile": str(disk.backing),
                    }
                    for disk in node.disks
                ],
            }
            for node in rack.nodes
        ],
    }


def table(seen: dict[str, Any]) -> str:
    """The facts, for people."""
    rows = [("NODE", "FIRMWARE", "POWER", "MAC", "LEASE", "CONSOLE LOG")]
    rows += [
        (n["name"], n["firmware"], n["power"], n["macAddress"], n["address"] or "-", n["consoleLog"])
        for n in seen["nodes"]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    dead = [name for name, runs in seen["services"].items() if not runs]
    health = f"{', '.join(dead)} not running; `up` repairs it" if dead else "all running"
    return "\n".join(
        [
            *("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows),
            "",
            *(f"{node['name']}  {node['bmcAddress']}" for node in seen["nodes"]),
            "",
            f"BMC account   {seen['bmcUsername']}, password in {seen['bmcPasswordFile']}",
            f"BMC's CA      {seen['caFile']}",
            f"network       {seen['subnet']} in namespace {seen['namespace']}",
            f"host          {seen['hostAddress']} on {seen['hostInterface']}",
            f"boot scripts  the machines ask {seen['operatorURL']}/boot/ipxe",
            f"services      {', '.join(seen['services'])}: {health}",
        ]
    )
