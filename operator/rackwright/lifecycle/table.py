"""The life-cycle: every transition is a row here, read from the top; the first row whose guard holds applies.

A row says: in these phases, when this holds, do this, and be in that phase then, because of this. A *record* step
changes status and the reading goes on from the new status; an *action* is announced in status before it is carried
out; a *pause* ends the reading. Deletion, a silent BMC, lost status and a machine marked broken are rows like any
other. `hack/generate` draws the README's table and diagram from this module.

On a machine that is locked, `LOCKED` stands in for every row that would do something to it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from rackwright.api.machine import OperationName, Phase
from rackwright.lifecycle.guards import (
    Guard,
    accepted,
    adopted,
    agent_heard,
    agent_lost,
    agent_takes_commands,
    allocation_declared,
    always,
    at_stage,
    bmc_misconfigured,
    bmc_silent,
    by_hand,
    came_from,
    came_up,
    command,
    deletion_forced,
    deletion_requested,
    deployment_declared,
    deployment_differs,
    deployment_obstructed,
    deployment_wanted,
    disks_busy,
    doing,
    erase_unwanted,
    erased,
    every_disk_erased,
    evidence_lost,
    evidence_recorded,
    evidence_stale,
    fault_reported,
    first_boot_reported,
    gates_closed,
    gave_up,
    hardware_unknown,
    holds_data,
    inspection_arrived,
    inventory_kept,
    leaves_a_system,
    let_go,
    live_machine,
    locked,
    marked_broken,
    no_bmc,
    no_install_slot,
    off_wanted,
    on_wanted,
    overdue,
    past_unknown,
    power_undeclared,
    powered_off,
    powered_on,
    recommission_triggered,
    record_unheld,
    reinstall_triggered,
    rescue_wanted,
    restart_triggered,
    retry_not_due,
    seen_off,
    stage_overdue,
    still_allocated,
    twin_of_older,
    under_way,
    was_held_up,
)
from rackwright.lifecycle.reasons import QUEUED, STATUS_LOST, THE_BMC_FAULT, THE_FAULT, THE_OBSTACLE, fault
from rackwright.lifecycle.steps import (
    Abandon,
    Acknowledge,
    Adopt,
    Advance,
    Allocate,
    Begin,
    Bookkeeping,
    BootDisk,
    BootRamdisk,
    EraseDisks,
    Fail,
    Finish,
    Hold,
    KeepInventory,
    LetGo,
    Move,
    NoteMark,
    OpenRescue,
    Pause,
    PowerOff,
    PowerOn,
    RecordErasure,
    RecordEvidence,
    Renew,
    Rest,
    Restore,
    Stage,
    Step,
    TakeHold,
    Wait,
    WriteImage,
)
from rackwright.lifecycle.world import CommandState, World


class Then(Enum):
    """Where a row leads, when it isn't to one phase."""

    STAY = auto()
    """The phase it is in."""
    RETURN = auto()
    """The phase that the rescue was entered from."""


STAY, RETURN = Then.STAY, Then.RETURN


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    at: Collection[Phase | None]
    when: Guard
    do: Step
    then: Phase | Then
    because: str


UNDECIDED = None
"""The phase of a record that has no status yet."""
NEW, COMMISSIONING, READY, ALLOCATED, DEPLOYING, DEPLOYED, RELEASING, RESCUE, BROKEN, FAILED = Phase

ANY = (UNDECIDED, *Phase)
WORKING = (COMMISSIONING, DEPLOYING, RELEASING)
TRANSIENT = (*WORKING, RESCUE)
"""Phases in which an operation is under way; Rescue only while it is entered or left."""
RESTING = (NEW, READY, ALLOCATED, DEPLOYED, BROKEN, FAILED)
IDLE = (READY, ALLOCATED)
SETTLED = (*IDLE, DEPLOYED)
"""Phases in which power is as spec wishes."""

Op, S = OperationName, Stage
at_work = at_stage(S.WRITE_IMAGE, S.ERASE_DISKS, S.OPEN_RESCUE)
"""The attempt needs an agent that was heard already."""
in_ramdisk = at_stage(S.BOOT_RAMDISK) | at_work
untouched = at_stage(S.START, S.POWER_OFF)
shut_down = at_stage(S.SHUT_DOWN) & powered_off
rests = ~under_way
unclaimed = ~holds_data
unwanted = holds_data & ~deployment_wanted
read_back = Guard("read back", (at_stage(S.SHUT_DOWN) & erased).holds)
left_as_it_is = erase_unwanted & ~read_back
nothing_to_erase = Guard("nothing to erase", (untouched & unclaimed | left_as_it_is).holds)
restarting = doing(Op.RESTART)
kept_broken = marked_broken | fault_reported
for_the_pool = Guard("for the pool", (~unwanted & ~came_up & ~still_allocated).holds)
release_failed, rescue_failed = gave_up(Op.RELEASE), gave_up(Op.RESCUE)
running, succeeded = command(CommandState.RUNNING), command(CommandState.SUCCEEDED)
broke, unclear = command(CommandState.FAILED), command(CommandState.UNKNOWN)

# fmt: off
TABLE: tuple[Row, ...] = (
    # --- the record itself ------------------------------------------------------------------------------------
    Row(ANY,            let_go,                                         Rest(settled=False),      STAY,          "LetGo"),
    Row(ANY,            deletion_forced,                                LetGo(),                  STAY,          "DeletionForced"),
    Row((UNDECIDED,),   deletion_requested & ~evidence_lost & ~past_unknown, LetGo(),             STAY,          "Deleted"),
    Row(RESTING,        deletion_requested & unclaimed,                 LetGo(),                  STAY,          "Deleted"),
    Row((DEPLOYED, BROKEN, FAILED), deletion_requested & live_machine & adopted, LetGo(),         STAY,          "Deleted"),
    Row(TRANSIENT,      deletion_requested & unclaimed & twin_of_older, LetGo(),                  STAY,          "Deleted"),
    Row(ANY,            twin_of_older,                                  Hold(),                   STAY,          "DuplicateMachine"),
    Row(ANY,            record_unheld,                                  TakeHold(),               STAY,          "RecordHeld"),

    # --- no status yet ----------------------------------------------------------------------------------------
    Row((UNDECIDED,),   evidence_lost & deployment_declared,            Restore(),                DEPLOYED,      "StatusRestored"),
    Row((UNDECIDED,),   evidence_lost,                                  Hold(),                   STAY,          "DeclarationLost"),
    Row((UNDECIDED, NEW, COMMISSIONING), live_machine & unclaimed,      Adopt(),                  DEPLOYED,      "Adopted"),
    Row((UNDECIDED,),   past_unknown,                                   Hold(),                   STAY,          STATUS_LOST),
    Row((UNDECIDED,),   ~accepted,                                      Move(),                   NEW,           "Enlisted"),
    Row((UNDECIDED,),   marked_broken,                                  Move(),                   BROKEN,        "MarkedBroken"),
    Row((UNDECIDED,),   always,                                         Begin(Op.COMMISSION),     COMMISSIONING, "Declared"),
    Row(RESTING,        evidence_stale,                                 RecordEvidence(),         STAY,          "EvidenceRecorded"),

    # --- marked broken: stopped safely, then left alone -------------------------------------------------------
    Row((NEW, READY, ALLOCATED, DEPLOYED, FAILED), marked_broken,       Abandon(),                BROKEN,        "MarkedBroken"),
    Row(WORKING,        marked_broken & agent_heard & disks_busy & ~overdue, Wait(),                   STAY,          "FinishingDiskWrite"),
    Row(WORKING,        marked_broken & powered_on & ~overdue,          PowerOff(),               STAY,          "StoppingSafely"),
    Row(WORKING,        marked_broken,                                  Abandon(),                BROKEN,        "MarkedBroken"),
    Row((RESCUE,),      marked_broken & ~came_from(BROKEN),             NoteMark(),               STAY,          "MarkedBroken"),
    Row((RESCUE,),      doing(Op.END_RESCUE) & at_stage(S.BOOT_DISK) & ~came_from(DEPLOYED),
                                                                        Begin(Op.END_RESCUE),     STAY,          "RescueWithdrawn"),

    # --- no longer wanted while under way ---------------------------------------------------------------------
    Row((COMMISSIONING,), unclaimed & (deletion_requested | ~accepted) & powered_on,
                                                                        PowerOff(),               STAY,          "Withdrawn"),
    Row((COMMISSIONING,), unclaimed & deletion_requested,               LetGo(),                  STAY,          "Deleted"),
    Row((COMMISSIONING,), unclaimed & ~accepted,                        Abandon(),                NEW,           "Withdrawn"),
    Row((DEPLOYING,),   ~deployment_wanted | live_machine,              Begin(Op.RELEASE),        RELEASING,     "DeploymentWithdrawn"),
    Row((COMMISSIONING,), ~doing(Op.COMMISSION),                        Begin(Op.COMMISSION),     STAY,          "OperationLost"),
    Row((DEPLOYING,),   ~doing(Op.DEPLOY),                              Begin(Op.DEPLOY),         STAY,          "OperationLost"),
    Row((RELEASING,),   ~doing(Op.RELEASE),                             Begin(Op.RELEASE),        STAY,          "OperationLost"),
    Row((RESCUE,),      ~rescue_wanted & rests,                         Begin(Op.END_RESCUE),     STAY,          "RescueWithdrawn"),
    Row((RESCUE,),      ~rescue_wanted & doing(Op.RESCUE),              Begin(Op.END_RESCUE),     STAY,          "RescueWithdrawn"),
    Row((RESCUE,),      rescue_wanted & doing(Op.END_RESCUE),           Begin(Op.RESCUE),         STAY,          "RescueRequested"),

    # --- every attempt: its next try, its end -----------------------------------------------------------------
    Row((COMMISSIONING,), recommission_triggered & retry_not_due,       Begin(Op.COMMISSION),     STAY,          "RecommissionRequested"),
    Row((DEPLOYING,),   reinstall_triggered & retry_not_due,            Begin(Op.DEPLOY),         STAY,          "ReinstallRequested"),
    Row(TRANSIENT,      retry_not_due,                                  Wait(soon=False),         STAY,          THE_FAULT),
    Row((DEPLOYING,),   first_boot_reported & at_stage(S.WRITE_IMAGE, S.BOOT_DISK),
                                                                        Finish(),                 DEPLOYED,      "FirstBootReported"),
    Row(TRANSIENT,      under_way & no_bmc,                             Hold(),                   STAY,          "BMCMissing"),
    Row(TRANSIENT,      bmc_misconfigured & untouched,                  Hold(),                   STAY,          THE_BMC_FAULT),
    Row((DEPLOYING,),   untouched & leaves_a_system,                    Hold(),                   STAY,          "SystemOnOtherDisk"),
    Row((DEPLOYING,),   at_stage(S.START) & no_install_slot,            Wait(soon=False),         STAY,          QUEUED),
    Row(TRANSIENT,      was_held_up & untouched,                        Renew(),                  STAY,          "HeldUpNoMore"),
    Row((DEPLOYING,),   overdue & at_stage(S.BOOT_DISK) & ~agent_heard, Fail(fault("FirstBootMissing")), STAY,   THE_FAULT),
    Row((COMMISSIONING,), overdue & shut_down & for_the_pool & gates_closed,
                                                                        Fail(fault("ReadinessGatesClosed"), final=True), STAY, THE_FAULT),
    Row(TRANSIENT,      overdue & bmc_silent,                           Fail(),                   STAY,          THE_FAULT),
    Row(TRANSIENT,      overdue,                                        Fail(fault("DeadlineExceeded")), STAY,   THE_FAULT),

    # --- into the ramdisk, for every operation that works there -----------------------------------------------
    Row(TRANSIENT,      bmc_silent & untouched,                         Fail(),                   STAY,          THE_FAULT),
    Row(TRANSIENT,      under_way & untouched & powered_on,             PowerOff(),               STAY,          "StartingFromOff"),
    Row((RELEASING,),   powered_off & nothing_to_erase & fault_reported,
                                                                        Finish(),                 BROKEN,        "FaultReported"),
    Row((RELEASING,),   untouched & powered_off & unclaimed & still_allocated,
                                                                        Finish(),                 ALLOCATED,     "NothingToErase"),
    Row((RELEASING,),   untouched & powered_off & unclaimed,            Finish(),                 READY,         "NothingToErase"),
    Row((RELEASING,),   powered_off & left_as_it_is & still_allocated,
                                                                        Finish(),                 ALLOCATED,     "EraseNotWanted"),
    Row((RELEASING,),   powered_off & left_as_it_is,                    Finish(),                 READY,         "EraseNotWanted"),
    Row((RESCUE,),      doing(Op.END_RESCUE) & untouched & powered_off & came_from(DEPLOYED),
                                                                        BootDisk(),               STAY,          "BootingDisk"),
    Row((RESCUE,),      doing(Op.END_RESCUE) & untouched & powered_off, Finish(),                 RETURN,        "RescueEnded"),
    Row((RESCUE,),      doing(Op.END_RESCUE) & at_stage(S.BOOT_DISK) & powered_on,
                                                                        Finish(),                 RETURN,        "RescueEnded"),
    Row((RESCUE,),      doing(Op.END_RESCUE) & at_stage(S.BOOT_DISK) & powered_off,
                                                                        BootDisk(),               STAY,          "BootingDisk"),
    Row((COMMISSIONING,), in_ramdisk & inventory_kept & by_hand,        Advance(S.SHUT_DOWN),     STAY,          "InventoryKept"),
    Row((COMMISSIONING,), in_ramdisk & inventory_kept,                  Advance(S.SHUT_DOWN, with_the_next=True), STAY, "InventoryKept"),
    Row(TRANSIENT,      (untouched | in_ramdisk) & powered_off,         BootRamdisk(),            STAY,          "BootingRamdisk"),
    Row(TRANSIENT,      at_stage(S.BOOT_RAMDISK) & ~agent_heard & stage_overdue & bmc_silent,
                                                                        Fail(),                   STAY,          THE_FAULT),
    Row(TRANSIENT,      at_stage(S.BOOT_RAMDISK) & ~agent_heard & stage_overdue,
                                                                        Fail(fault("AgentMissing")), STAY,       THE_FAULT),
    Row(TRANSIENT,      at_stage(S.BOOT_RAMDISK) & ~agent_heard & by_hand, Wait(),                STAY,          "AwaitingStartFromNetwork"),
    Row(TRANSIENT,      at_stage(S.BOOT_RAMDISK) & ~agent_heard,        Wait(),                   STAY,          "AwaitingAgent"),
    Row(TRANSIENT,      at_work & agent_lost,                           Fail(fault("AgentLost")), STAY,          THE_FAULT),
    Row(TRANSIENT,      at_work & ~agent_heard,                         Wait(),                   STAY,          "AwaitingAgent"),
    Row(TRANSIENT,      in_ramdisk & unclear,                           Wait(),                   STAY,          "AgentUnclear"),
    Row(TRANSIENT,      at_work & broke,                                Fail(),                   STAY,          THE_FAULT),

    # --- commissioning ----------------------------------------------------------------------------------------
    Row((COMMISSIONING,), in_ramdisk & inspection_arrived,              KeepInventory(),          STAY,          "KeepingInventory"),
    Row((COMMISSIONING,), in_ramdisk,                                   Fail(fault("InspectionLost")), STAY,     THE_FAULT),
    Row((COMMISSIONING,), at_stage(S.SHUT_DOWN) & powered_on,           PowerOff(stage=None),     STAY,          "ShuttingDown"),
    Row((COMMISSIONING,), at_stage(S.SHUT_DOWN, S.BOOT_DISK) & powered_off & unwanted,
                                                                        Begin(Op.RELEASE),        RELEASING,     "DeploymentWithdrawn"),
    Row((COMMISSIONING,), shut_down & came_up,                          BootDisk(),               STAY,          "BootingDisk"),
    Row((COMMISSIONING,), shut_down & still_allocated,                  Finish(),                 ALLOCATED,     "Commissioned"),
    Row((COMMISSIONING,), shut_down & gates_closed,                     Wait(),                   STAY,          "ReadinessGatesClosed"),
    Row((COMMISSIONING,), shut_down,                                    Finish(),                 READY,         "Commissioned"),
    Row((COMMISSIONING,), at_stage(S.BOOT_DISK) & powered_off,          BootDisk(),               STAY,          "BootingDisk"),
    Row((COMMISSIONING,), at_stage(S.BOOT_DISK) & powered_on,           Finish(),                 DEPLOYED,      "Commissioned"),

    # --- deploying --------------------------------------------------------------------------------------------
    Row((DEPLOYING,),   in_ramdisk & succeeded,                         Advance(S.BOOT_DISK),     STAY,          "ImageWritten"),
    Row((DEPLOYING,),   in_ramdisk & running,                           Wait(),                   STAY,          "WritingImage"),
    Row((DEPLOYING,),   in_ramdisk & leaves_a_system,                   Hold(),                   STAY,          "SystemOnOtherDisk"),
    Row((DEPLOYING,),   in_ramdisk,                                     WriteImage(),             STAY,          "WritingImage"),
    Row((DEPLOYING,),   at_stage(S.BOOT_DISK) & agent_heard & powered_on, PowerOff(stage=None),   STAY,          "LeavingRamdisk"),
    Row((DEPLOYING,),   at_stage(S.BOOT_DISK) & powered_off,            BootDisk(),               STAY,          "BootingDisk"),
    Row((DEPLOYING,),   at_stage(S.BOOT_DISK) & ~agent_heard & by_hand, Wait(),                   STAY,          "AwaitingStartFromDisk"),
    Row((DEPLOYING,),   at_stage(S.BOOT_DISK) & ~agent_heard,           Wait(),                   STAY,          "AwaitingFirstBoot"),

    # --- releasing: a machine that was never inspected is inspected first, so that it is known what to erase ----
    Row((RELEASING,),   in_ramdisk & hardware_unknown & inventory_kept, Advance(S.BOOT_RAMDISK),  STAY,          "InventoryKept"),
    Row((RELEASING,),   in_ramdisk & hardware_unknown & inspection_arrived, KeepInventory(),      STAY,          "KeepingInventory"),
    Row((RELEASING,),   in_ramdisk & hardware_unknown & ~erase_unwanted, Fail(fault("InspectionLost")), STAY,    THE_FAULT),
    Row((RELEASING,),   in_ramdisk & ~agent_takes_commands & stage_overdue, Fail(fault("AgentMissing")), STAY,   THE_FAULT),
    Row((RELEASING,),   in_ramdisk & ~agent_takes_commands,             Wait(),                   STAY,          "AwaitingAgent"),
    Row((RELEASING,),   in_ramdisk & succeeded & ~evidence_recorded,    RecordErasure(),          STAY,          "EvidenceReturned"),
    Row((RELEASING,),   in_ramdisk & succeeded & every_disk_erased,     Advance(S.SHUT_DOWN),     STAY,          "DisksErased"),
    Row((RELEASING,),   in_ramdisk & succeeded,                         Fail(fault("EraseNotVerified")), STAY,   THE_FAULT),
    Row((RELEASING,),   in_ramdisk & running,                           Wait(),                   STAY,          "ErasingDisks"),
    Row((RELEASING,),   in_ramdisk & erase_unwanted,                    Advance(S.SHUT_DOWN),     STAY,          "EraseNotWanted"),
    Row((RELEASING,),   in_ramdisk,                                     EraseDisks(),             STAY,          "ErasingDisks"),
    Row((RELEASING,),   at_stage(S.SHUT_DOWN) & holds_data & ~erased & ~erase_unwanted,
                                                                        Begin(Op.RELEASE),        STAY,          "ErasingDisks"),
    Row((RELEASING,),   at_stage(S.SHUT_DOWN) & powered_on,             PowerOff(stage=None),     STAY,          "ShuttingDown"),
    Row((RELEASING,),   shut_down & fault_reported,                     Finish(),                 BROKEN,        "FaultReported"),
    Row((RELEASING,),   shut_down & still_allocated,                    Finish(),                 ALLOCATED,     "DisksErased"),
    Row((RELEASING,),   shut_down,                                      Finish(),                 READY,         "DisksErased"),

    # --- rescue -----------------------------------------------------------------------------------------------
    Row((RESCUE,),      doing(Op.RESCUE) & in_ramdisk & succeeded,      Finish(),                 STAY,          "RescueOpen"),
    Row((RESCUE,),      doing(Op.RESCUE) & in_ramdisk & running,        Wait(),                   STAY,          "OpeningRescue"),
    Row((RESCUE,),      doing(Op.RESCUE) & in_ramdisk,                  OpenRescue(),             STAY,          "OpeningRescue"),
    Row((RESCUE,),      rests & powered_off,                            Begin(Op.RESCUE),         STAY,          "RescueLost"),
    Row((RESCUE,),      rests,                                          Rest(),                   STAY,          "RescueOpen"),

    # --- whatever is left of an operation: the BMC doesn't say how the power is --------------------------------
    Row(TRANSIENT,      bmc_silent & at_stage(S.SHUT_DOWN) & stage_overdue, Fail(),               STAY,          THE_FAULT),
    Row(TRANSIENT,      bmc_silent & under_way,                         Wait(),                   STAY,          THE_BMC_FAULT),
    Row(TRANSIENT,      under_way,                                      Wait(),                   STAY,          "AwaitingPowerState"),

    # --- at rest ----------------------------------------------------------------------------------------------
    Row((NEW,),         accepted,                                       Begin(Op.COMMISSION),     COMMISSIONING, "Accepted"),
    Row((NEW,),         always,                                         Rest(settled=False),      STAY,          "AwaitingAcceptance"),

    Row((BROKEN,),      deletion_requested & kept_broken,               Hold(),                   STAY,          "DeletionBlocked"),
    Row(SETTLED,        rescue_wanted & no_bmc,                         Hold(),                   STAY,          "BMCMissing"),
    Row(SETTLED,        rescue_wanted,                                  Begin(Op.RESCUE),         RESCUE,        "RescueRequested"),
    Row((BROKEN, FAILED), rescue_wanted & ~rescue_failed & no_bmc,      Hold(),                   STAY,          "BMCMissing"),
    Row((BROKEN, FAILED), rescue_wanted & ~rescue_failed,               Begin(Op.RESCUE),         RESCUE,        "RescueRequested"),
    Row((BROKEN,),      kept_broken & rescue_wanted,                    Hold(),                   STAY,          "RescueGaveUp"),
    Row((BROKEN,),      marked_broken,                                  Hold(),                   STAY,          "MarkedBroken"),
    Row((BROKEN,),      fault_reported,                                 Hold(),                   STAY,          "FaultReported"),
    Row((BROKEN,),      live_machine & unclaimed,                       Adopt(),                  DEPLOYED,      "Adopted"),
    Row((BROKEN,),      live_machine & came_up,                         Move(),                   DEPLOYED,      "MarkWithdrawn"),
    Row((BROKEN,),      always,                                         Begin(Op.COMMISSION),     COMMISSIONING, "MarkWithdrawn"),

    Row((FAILED,),      recommission_triggered,                         Begin(Op.COMMISSION),     COMMISSIONING, "RecommissionRequested"),
    Row((FAILED,),      unwanted & ~release_failed,                     Begin(Op.RELEASE),        RELEASING,     "DeploymentWithdrawn"),
    Row((FAILED,),      powered_on,                                     PowerOff(),               STAY,          THE_FAULT),
    Row((FAILED,),      always,                                         Hold(),                   STAY,          THE_FAULT),

    Row((DEPLOYED,),    (~deployment_wanted | reinstall_triggered) & no_bmc, Hold(),                   STAY,          "BMCMissing"),
    Row((DEPLOYED,),    ~deployment_wanted,                             Begin(Op.RELEASE),        RELEASING,     "DeploymentWithdrawn"),
    Row((DEPLOYED,),    reinstall_triggered & deployment_obstructed,    Hold(),                   STAY,          THE_OBSTACLE),
    Row((DEPLOYED,),    reinstall_triggered & leaves_a_system,          Hold(),                   STAY,          "SystemOnOtherDisk"),
    Row((DEPLOYED,),    reinstall_triggered,                            Begin(Op.DEPLOY),         DEPLOYING,     "ReinstallRequested"),

    Row((READY,),       ~accepted,                                      Abandon(),                NEW,           "Withdrawn"),
    Row((READY,),       recommission_triggered,                         Begin(Op.COMMISSION),     COMMISSIONING, "RecommissionRequested"),
    Row((READY,),       allocation_declared & ~gates_closed,            Allocate(),               ALLOCATED,     "AllocationDeclared"),
    Row((ALLOCATED,),   unwanted,                                       Begin(Op.RELEASE),        RELEASING,     "DeploymentWithdrawn"),
    Row((ALLOCATED,),   ~still_allocated,                               Move(),                   READY,         "AllocationWithdrawn"),
    Row((ALLOCATED,),   deployment_wanted & live_machine & seen_off, Hold(),                      STAY,          "NothingToAdopt"),
    Row((ALLOCATED,),   deployment_wanted & live_machine,               Adopt(),                  DEPLOYED,      "Adopted"),
    Row((ALLOCATED,),   deployment_wanted & no_bmc,                     Hold(),                   STAY,          "BMCMissing"),
    Row((ALLOCATED,),   deployment_wanted & deployment_obstructed,      Hold(),                   STAY,          THE_OBSTACLE),
    Row((ALLOCATED,),   deployment_wanted & leaves_a_system,            Hold(),                   STAY,          "SystemOnOtherDisk"),
    Row((ALLOCATED,),   deployment_wanted,                              Begin(Op.DEPLOY),         DEPLOYING,     "DeploymentDeclared"),

    # --- a restart that was asked for, and power as spec wishes it -----------------------------------------------
    Row(SETTLED,        restarting & retry_not_due,                     Wait(soon=False),         STAY,          THE_FAULT),
    Row(SETTLED,        restarting & no_bmc,                            Hold(),                   STAY,          "BMCMissing"),
    Row(SETTLED,        restarting & overdue & bmc_silent,              Fail(),                   STAY,          THE_FAULT),
    Row(SETTLED,        restarting & overdue,                           Fail(fault("DeadlineExceeded")), STAY,   THE_FAULT),
    Row(SETTLED,        restarting & untouched & powered_on,            PowerOff(),               STAY,          "Restarting"),
    Row(SETTLED,        restarting & powered_off,                       PowerOn(stage=S.POWER_ON), STAY,         "Restarting"),
    Row(SETTLED,        restarting & powered_on,                        Finish(),                 STAY,          "Restarted"),
    Row(SETTLED,        restarting & bmc_silent,                        Wait(),                   STAY,          THE_BMC_FAULT),
    Row(SETTLED,        restarting,                                     Wait(),                   STAY,          "AwaitingPowerState"),
    Row(SETTLED,        (~power_undeclared | restart_triggered) & no_bmc, Hold(),                 STAY,          "BMCMissing"),
    Row(SETTLED,        off_wanted & powered_on,                        PowerOff(),               STAY,          "PowerOffWanted"),
    Row((READY,),       power_undeclared & powered_on,                  PowerOff(),               STAY,          "IdleIsOff"),
    Row(SETTLED,        restart_triggered & powered_on,                 Begin(Op.RESTART),        STAY,          "RestartRequested"),
    Row(SETTLED,        restart_triggered & powered_off,                Acknowledge(),            STAY,          "NothingToRestart"),
    Row(SETTLED,        on_wanted & powered_off,                        PowerOn(),                STAY,          "PowerOnWanted"),
    Row((READY,),       bmc_silent,                                     Rest(settled=False),      STAY,          THE_BMC_FAULT),
    Row((ALLOCATED, DEPLOYED), (~power_undeclared | restart_triggered) & bmc_silent, Rest(settled=False), STAY,  THE_BMC_FAULT),
    Row((READY,),       gates_closed,                                   Rest(settled=False),      STAY,          "ReadinessGatesClosed"),
    Row((READY,),       always,                                         Rest(),                   STAY,          "Available"),
    Row((ALLOCATED,),   always,                                         Rest(),                   STAY,          "AwaitingDeployment"),
    Row((DEPLOYED,),    deployment_differs,                              Rest(settled=False),      STAY,          "ReinstallNeeded"),
    Row((DEPLOYED,),    seen_off,                                       Rest(),                   STAY,          "SwitchedOff"),
    Row((DEPLOYED,),    always,                                         Rest(),                   STAY,          "Running"),
)

LOCKED = Row(ANY, locked, Hold(), STAY, "Locked")
"""Stands in, on a machine that is locked, for every row that would do something to it."""
# fmt: on


def applies(row: Row, world: World) -> Row:
    """The row that applies where this one matches."""
    harmless = isinstance(row.do, Pause | Bookkeeping)
    return LOCKED if not harmless and locked(world) else row
