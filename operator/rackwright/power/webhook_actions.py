"""What is asked of a webhook, a step at a time; each looks first, so that nothing is asked for that is so already.

`call` makes one signed call and gives back its answer.
"""

from __future__ import annotations

from rackwright.power.port import BootTarget, FaultClass, PowerError, PowerState
from rackwright.power.webhook import Action, Call


def power(call: Call) -> PowerState:
    """On or off; UNKNOWN on the way from one to the other."""
    said = call(Action.POWER_STATE).get("power")
    for state in PowerState:
        if said == state.value:
            return state
    raise PowerError(FaultClass.PROTOCOL, 'This BMC gave an answer whose "power" is none of On, Off and Unknown')


def switch_on(call: Call) -> bool:
    """Switch on; False if it is on."""
    return _unless(PowerState.ON, call, Action.POWER_ON)


def ask_to_shut_down(call: Call) -> bool:
    """Press the power button for the operating system to see; False if it is off."""
    return _unless(PowerState.OFF, call, Action.POWER_OFF)


def cut_power(call: Call) -> bool:
    """Switch off at once; False if it is off."""
    return _unless(PowerState.OFF, call, Action.FORCE_OFF)


def choose_boot(call: Call, target: BootTarget, *, uefi: bool) -> None:
    """Choose the boot device: the network once, the disk from then on."""
    mode = "UEFI" if uefi else "Legacy"
    call(Action.SET_BOOT, boot={"target": target.value, "once": target is BootTarget.NETWORK, "mode": mode})


def _unless(already: PowerState, call: Call, action: Action) -> bool:
    if power(call) is already:
        return False
    call(action)
    return True
