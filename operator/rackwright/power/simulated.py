"""What an operator says of simulated machines that may not simulate any, which is every one that runs real servers.

A record with such an address in the wrong cluster would look like a server, take deployments and claim that it erased
disks. So the operator refuses them unless whoever started it said otherwise, and the driver isn't even here: it is in
`rackwright.simulated`, and `app` brings it.
"""

from __future__ import annotations

from rackwright.power.line import Line
from rackwright.power.port import Endpoint, FaultClass, Limits, PowerDriver, PowerError


def simulation_not_allowed(endpoint: Endpoint, line: Line, limits: Limits) -> PowerDriver:
    """In a driver's place: raises `PowerError` (NOT_ALLOWED)."""
    del endpoint, line, limits
    raise PowerError(
        FaultClass.NOT_ALLOWED,
        "spec.bmc.address is simulated://, a machine that doesn't exist, and this operator speaks to real ones alone: "
        "give the BMC's own address, or start the operator with --allow-simulated",
    )
