"""Why: one CamelCase fact per row, which is at once the condition's reason, the Event's, the log's and the table's.

Each reason has one sentence for a person. A fault brings its own reason and sentence; a row whose reason stands for
a fault passes them on.
"""

from __future__ import annotations

from rackwright.lifecycle.world import Blame, Fault

THE_FAULT = "(the failure's)"
"""Stands in the table for the reason of the failure that is recorded."""
THE_BMC_FAULT = "(the BMC fault's)"
"""Stands in the table for the reason why the BMC can't be talked to."""
THE_OBSTACLE = "(the obstacle's)"
"""Stands in the table for the reason why the deployment can't begin."""

QUEUED = "AwaitingInstallSlot"
"""Why a machine waits for its turn; its attempt's time begins with that."""
STATUS_LOST = "StatusLost"
"""Why a record without status is left alone until somebody says what is on its machine's disks."""

LEAVE_FAILED = "Set spec.commissioning.trigger to a new value to try again."
"""What a person does about a machine that has Failed, whatever failed."""

ERASE_INSTEAD = "Or withdraw spec.deployment to have what is on its disks erased."
"""The other way out, where a release may be tried."""

FORCE_DELETION = 'To let go of the record without a release, annotate it with metal.rackwright.io/force-delete: "true".'
LET_GO_AS_IT_RUNS = "Deleted; it was adopted, and is let go of as it runs."
BROKEN_AFTER_RESCUE = "It is Broken as soon as the rescue is withdrawn."
CUTTING_OFF = "An image or an erase was under way on its disks, and may be cut off by that."
MAYBE_CUT_OFF = "No system has come up since an image or an erase was begun on its disks: that may have been cut off."
RELEASED_FIRST = "Deleted: the machine is released before its record goes."

PASSING = frozenset({"BMCUnreachable", "BMCBusy"})
"""Faults of a BMC that tell nothing of the machine, and may be over at the next look."""

FOR_SOMEBODY = frozenset(
    {"AwaitingStartFromNetwork", "AwaitingStartFromDisk", "ReadinessGatesClosed", "ReinstallNeeded"}
)
"""Reasons that wait for somebody though nothing is wrong and nothing has stalled."""

SENTENCES = {
    "LetGo": "Deleted and let go of; a finalizer of somebody else still keeps the record.",
    "DeletionForced": "Deleted by force: nothing was released, what is on its disks stays there.",
    "Deleted": "Deleted; nothing is installed that would have to be released first.",
    "DeletionBlocked": (
        "Deleted while broken with something installed: withdraw spec.broken or spec.release.fault so that it can be "
        "released."
    ),
    "DuplicateMachine": (
        "Another machine has the same boot MAC address or BMC and comes first: one that holds data, one that is "
        "accepted, or an older one."
    ),
    "RecordHeld": "The record is held until the machine is released.",
    "StatusRestored": "Its status was lost; the annotation says what is installed, and it was left alone.",
    "DeclarationLost": (
        "Its status was lost, its annotation says that something is installed, and no deployment is declared. "
        "Declare the deployment again; or, if nothing is installed, remove the annotations "
        "metal.rackwright.io/installed and metal.rackwright.io/record."
    ),
    STATUS_LOST: (
        "Its record comes from a backup, and nothing there says whether a system runs on it. If one does, adopt it: "
        "say deployment.existing: true in place of an image. If nothing on its disks is needed, remove the annotation "
        "metal.rackwright.io/record."
    ),
    "OperationLost": "The record of what was being done to it was lost; it is begun anew.",
    "NothingToAdopt": (
        "spec.deployment.existing says that a system runs on it, and it is off. Switch it on by hand if one is "
        "installed; else say in spec.deployment.image what to install instead."
    ),
    "Adopted": "Taken over as it runs: never commissioned, never rebooted.",
    "Enlisted": "Enlisted itself; an admin has to accept it.",
    "Declared": "Declared by somebody who is trusted.",
    "Accepted": "Accepted by an admin.",
    "AwaitingAcceptance": "Set spec.accepted to true, with spec.bmc and spec.bootMACAddress, to take it in.",
    "EvidenceRecorded": "What is installed is noted in an annotation, which a backup keeps.",
    "MarkedBroken": "Marked as broken in spec.broken; withdraw the mark to have it checked again.",
    "MarkWithdrawn": "No longer marked as broken.",
    "FaultReported": (
        "Its last owner reported a fault. Remove spec.release.fault when it is repaired, and it is checked again."
    ),
    "Locked": "Locked: nothing is done to it. Set spec.locked to false to have what is declared take effect.",
    "FinishingDiskWrite": "Marked broken while the agent works on a disk; it is stopped when that ends.",
    "StoppingSafely": "Marked broken: being switched off.",
    "Withdrawn": "Acceptance or the record itself was withdrawn.",
    "DeploymentWithdrawn": "The deployment was withdrawn: the machine is released.",
    "AllocationDeclared": "Reserved for its owner.",
    "AllocationWithdrawn": "The allocation was withdrawn.",
    "RescueRequested": "A rescue environment was asked for.",
    "RescueWithdrawn": "The rescue environment was withdrawn.",
    "RescueEnded": "Back from the rescue environment.",
    "RescueOpen": "The rescue environment is open: log in by SSH as rescue.",
    "RescueLost": "The rescue environment lost its power, and with it what was in memory: it is opened again.",
    "RescueGaveUp": (
        "The rescue environment could not be opened, see status.lastFailure. Withdraw spec.broken to have the machine "
        "checked; a rescue is possible again after that."
    ),
    "OpeningRescue": "The agent lets the SSH keys in.",
    "RecommissionRequested": "spec.commissioning.trigger has a new value.",
    "ReinstallRequested": "spec.deployment.trigger has a new value.",
    "FirstBootReported": "The installed system has started and reported.",
    "HeldUpNoMore": "What it waited for is there: its time begins now.",
    QUEUED: "As many machines install as may at once: it waits for its turn, and its attempt's time begins with that.",
    "StartingFromOff": "Switched off, so that the next boot is the one that was asked for.",
    "NothingToErase": "Nothing was written to its disks.",
    "EraseNotWanted": "release.erase is None: nothing was erased.",
    "BootingRamdisk": "Being started from the network, into the ramdisk.",
    "BootingDisk": "Being started from its disk.",
    "AwaitingAgent": "Started; the ramdisk's agent has not reported yet.",
    "AwaitingStartFromNetwork": (
        "Start {name} from the network by hand, switching it off first if it runs: spec.bmc has no way to do it. "
        "It goes on as soon as the ramdisk's agent reports."
    ),
    "AwaitingStartFromDisk": (
        "Start {name} from its disk by hand: spec.bmc has no way to do it. "
        "It is Deployed as soon as the installed system reports."
    ),
    "AgentUnclear": "The agent reports, and takes no command now or does not say how far its command is.",
    "AwaitingPowerState": "The BMC does not say how the power is.",
    "KeepingInventory": "The agent has reported the hardware.",
    "InventoryKept": "The hardware is known; the machine can be switched off.",
    "ShuttingDown": "Being switched off.",
    "Commissioned": "Checked; its hardware is known.",
    "ImageWritten": "The image is written and its checksum was right.",
    "WritingImage": "The agent writes the image.",
    "LeavingRamdisk": "Being switched off, to start from its disk.",
    "AwaitingFirstBoot": "Started from its disk; the installed system has not reported yet.",
    "EvidenceReturned": "The agent has returned what it found after erasing.",
    "DisksErased": "Every disk was erased and read back.",
    "ErasingDisks": "The agent erases the disks and reads them back.",
    "BMCMissing": (
        "spec.bmc is missing, and what is declared can't be done without a BMC. Add it, or take back what asks for it."
    ),
    "DeploymentDeclared": "A deployment is declared.",
    "SystemOnOtherDisk": (
        "The image would go to another disk than what was written before, which could then start instead of it."
    ),
    "RestartRequested": "spec.powerCycle.trigger has a new value.",
    "Restarting": "Being restarted, as spec.powerCycle.trigger asked.",
    "Restarted": "Restarted, as spec.powerCycle.trigger asked.",
    "NothingToRestart": "spec.powerCycle.trigger has a new value, and the machine is off: nothing to restart.",
    "ReadinessGatesClosed": "A condition that spec.readinessGates names, and that others write, is not True.",
    "PowerOffWanted": "spec.power is Off.",
    "PowerOnWanted": "spec.power is On.",
    "IdleIsOff": "In the pool, a machine is off.",
    "Available": "In the pool, checked and switched off.",
    "AwaitingDeployment": "Reserved; no deployment is declared.",
    "ReinstallNeeded": (
        "What is declared is not what is installed. Nothing is wiped by itself: "
        "set spec.deployment.trigger to a new value to re-install."
    ),
    "SwitchedOff": "The machine is off, and is left so: set spec.power to On to have it switched on.",
    "Running": "The installed system runs.",
}

FAULTS = {
    "AgentMissing": Fault(
        Blame.AGENT,
        "AgentMissing",
        "The machine was started from the network and no agent reported in time. "
        "Look at its console: does it boot from the network card with spec.bootMACAddress, with Secure Boot off, "
        "and reach the operator?",
    ),
    "AgentLost": Fault(
        Blame.AGENT,
        "AgentLost",
        "The agent stopped reporting while it worked; the machine may have lost power or network.",
    ),
    "AgentError": Fault(Blame.AGENT, "AgentError", "The agent's command failed and it did not say why."),
    "InspectionLost": Fault(
        Blame.AGENT, "InspectionLost", "The agent is there but its hardware report did not arrive; it is started again."
    ),
    "FirstBootMissing": Fault(
        Blame.OPERATING_SYSTEM,
        "FirstBootMissing",
        "The image was written, but the installed system has not reported before the deadline. Look at its console: "
        "does it boot, does cloud-init run, does it reach the operator?",
    ),
    "ReadinessGatesClosed": Fault(
        Blame.CONFIGURATION,
        "ReadinessGatesClosed",
        "It is checked, and a condition that spec.readinessGates names was not True within spec.commissioning.timeout.",
    ),
    "DeadlineExceeded": Fault(Blame.TIMEOUT, "DeadlineExceeded", "The attempt took longer than its timeout in spec."),
    "EraseNotVerified": Fault(
        Blame.DISK,
        "EraseNotVerified",
        "A disk still holds data after its erase, or could not be erased: status.erasure names it.",
    ),
}


def fault(reason: str) -> Fault:
    """A fault that the table itself finds."""
    return FAULTS[reason]


def closed(text: str) -> str:
    """The text as a sentence that another one can follow."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def sentence(reason: str) -> str:
    """What a reason means, for a person."""
    return SENTENCES.get(reason) or FAULTS[reason].message
