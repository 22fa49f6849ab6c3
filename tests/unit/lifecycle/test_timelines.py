"""The life of a machine as golden timelines: what its record tells, pass by pass, against a metal that obliges."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.property.metal import Metal, Running
from tests.unit.lifecycle.story import Story
from tests.unit.lifecycle.worlds import declared

from rackwright.api.machine import Phase, Power

IMAGE: dict[str, Any] = {"owner": "search", "image": "debian-12"}
MINUTES = timedelta(minutes=1)

COMMISSIONED = [
    "None: RecordHeld",
    "Commissioning: BootingRamdisk",
    "Commissioning: AwaitingAgent",
    "Commissioning: KeepingInventory",
    "Commissioning: ShuttingDown",
]
DEPLOYED = [
    "Deploying: BootingRamdisk",
    "Deploying: AwaitingAgent",
    "Deploying: WritingImage",
    "Deploying: LeavingRamdisk",
    "Deploying: BootingDisk",
    "Deploying: AwaitingFirstBoot",
    "Deployed: Running",
]
RELEASED = [
    "Releasing: StartingFromOff",
    "Releasing: BootingRamdisk",
    "Releasing: AwaitingAgent",
    "Releasing: ErasingDisks",
    "Releasing: ShuttingDown",
]
RECOMMISSIONED = [
    "Commissioning: StartingFromOff",
    "Commissioning: BootingRamdisk",
    "Commissioning: AwaitingAgent",
    "Commissioning: KeepingInventory",
    "Commissioning: ShuttingDown",
]


def deployed() -> Story:
    story = Story(declared(**IMAGE))
    story.settles()
    return story


# --- a whole life ------------------------------------------------------------------------------------------------


def test_a_machine_is_commissioned_allocated_deployed_and_released() -> None:
    story = Story()

    assert story.settles() == [*COMMISSIONED, "Ready: Available"]
    assert story.declare(owner="search") == ["Allocated: AwaitingDeployment"]
    assert story.declare(**IMAGE) == DEPLOYED
    assert story.declare(owner="search") == [*RELEASED, "Allocated: AwaitingDeployment"]
    assert story.declare() == ["Ready: Available"]

    assert story.rig.metal.blank
    assert (story.rig.metal.on, story.rig.metal.starts) == (False, 4)


def test_a_machine_that_is_declared_with_everything_gets_there_in_one_go() -> None:
    assert Story(declared(**IMAGE)).settles() == [*COMMISSIONED, *DEPLOYED]


def test_a_machine_that_enlisted_itself_waits_for_somebody_who_trusts_it() -> None:
    story = Story(declared(accepted=False))

    assert story.settles() == ["None: RecordHeld", "New: AwaitingAcceptance"]
    assert story.declare() == ["Commissioning: AwaitingPowerState", *COMMISSIONED[1:], "Ready: Available"]
    assert story.declare(accepted=False) == ["New: AwaitingAcceptance"]


def test_deployed_means_that_the_installed_system_has_reported() -> None:
    story = Story(declared(owner="search"))
    story.settles()
    story.rig.metal.calls_home = False
    story.rig.declare(declared(**IMAGE))
    story.reaches("BootDisk")

    assert story.waits(for_=10 * MINUTES)[-1] == "Deploying: AwaitingFirstBoot"
    assert story.running() is Running.SYSTEM

    story.rig.metal.calls_home = True

    assert story.settles()[-1:] == DEPLOYED[-1:]
    installed = story.rig.status.installed
    assert installed is not None
    assert (installed.image, installed.hostname, installed.ssh_host_keys) == ("debian-12", "node-07", ["k"])
    assert installed.at is not None


# --- broken, rescue, live machines -------------------------------------------------------------------------------


def test_a_deployed_machine_that_was_broken_is_recommissioned_and_runs_what_it_ran() -> None:
    story = deployed()

    assert story.declare(**IMAGE, broken="DIMM A3") == ["Broken: MarkedBroken"]
    assert story.running() is Running.SYSTEM
    assert story.declare(**IMAGE) == [*RECOMMISSIONED, "Commissioning: BootingDisk", "Deployed: Running"]

    assert len(story.rig.metal.writes) == 1
    assert story.running() is Running.SYSTEM


def test_a_broken_machine_whose_owner_left_is_checked_and_then_released() -> None:
    story = deployed()
    story.declare(**IMAGE, broken="DIMM A3")
    story.declare(broken="DIMM A3")

    assert story.declare() == [*RECOMMISSIONED, *RELEASED[1:], "Ready: Available"]
    assert story.rig.metal.blank


@pytest.mark.parametrize("phase", [Phase.READY, Phase.ALLOCATED, Phase.DEPLOYED, Phase.BROKEN, Phase.FAILED])
def test_a_rescue_is_entered_from_every_phase_at_rest_and_leads_back_there(phase: Phase) -> None:
    phases: dict[Phase, dict[str, Any]] = {
        Phase.READY: {},
        Phase.ALLOCATED: {"owner": "search"},
        Phase.DEPLOYED: IMAGE,
        Phase.BROKEN: {"broken": "DIMM A3"},
        Phase.FAILED: {"commissioning": {"maxAttempts": 1}},
    }
    words = phases[phase]
    story = Story(declared(**words))
    story.rig.metal.refusals = 1 if phase is Phase.FAILED else 0
    story.settles()
    assert story.rig.status.phase is phase
    rested, on = story.rig.status, story.rig.metal.on

    entered = story.declare(**words, rescue=True)

    assert entered == [
        *(["Rescue: StartingFromOff"] if on else []),
        "Rescue: BootingRamdisk",
        "Rescue: AwaitingAgent",
        "Rescue: OpeningRescue",
        "Rescue: RescueOpen",
    ]
    assert story.running() is Running.RAMDISK

    left = story.declare(**words)

    assert left[0] == "Rescue: StartingFromOff"
    status = story.rig.status
    assert (status.phase, status.owner, status.installed) == (phase, rested.owner, rested.installed)
    assert status.last_failure == rested.last_failure
    assert story.running() is (Running.SYSTEM if phase is Phase.DEPLOYED else Running.NOTHING)
    assert len(story.rig.metal.writes) == (phase is Phase.DEPLOYED)


def test_a_rescue_that_is_withdrawn_before_it_is_open_is_left_from_there() -> None:
    story = deployed()
    story.rig.declare(declared(**IMAGE, rescue=True))
    story.reaches("BootRamdisk")

    assert story.declare(**IMAGE) == ["Rescue: BootingDisk", "Deployed: Running"]


def test_a_live_machine_is_taken_over_as_it_runs_and_let_go_as_it_runs() -> None:
    running = Metal(on=True, running=Running.SYSTEM, image="existing")
    story = Story(declared(owner="search", existing=True, bmc=False), running)

    assert story.settles() == ["None: RecordHeld", "Deployed: Running"]

    story.rig.delete()

    assert story.settles() == ["Deployed: Deleted"]
    assert not story.rig.exists
    assert (running.on, running.starts) == (True, 0)


# --- deletion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "timeline"),
    [
        ({"accepted": False}, ["New: Deleted"]),
        ({}, ["Ready: Deleted"]),
        ({"owner": "search"}, ["Allocated: Deleted"]),
        (IMAGE, [*RELEASED, "Ready: Deleted"]),
        ({"broken": "DIMM A3"}, ["Broken: Deleted"]),
        (
            {"rescue": True},
            ["Rescue: StartingFromOff", "Ready: Deleted"],
        ),
    ],
    ids=["New", "Ready", "Allocated", "Deployed", "Broken", "Rescue"],
)
def test_a_machine_at_rest_that_is_deleted_is_released_first(words: dict[str, Any], timeline: list[str]) -> None:
    story = Story(declared(**words))
    story.settles()
    story.rig.delete()

    assert story.settles() == timeline
    assert not story.rig.exists
    assert story.rig.metal.blank


@pytest.mark.parametrize(
    ("words", "stage", "timeline"),
    [
        ({}, "BootRamdisk", ["Commissioning: Deleted"]),
        ({}, "ShutDown", ["Commissioning: Withdrawn", "Commissioning: Deleted"]),
        (IMAGE, "WriteImage", [*RELEASED, "Ready: Deleted"]),
        (IMAGE, "BootDisk", [*RELEASED, "Ready: Deleted"]),
    ],
)
def test_a_machine_at_work_that_is_deleted_is_stopped_and_what_was_begun_is_erased(
    words: dict[str, Any], stage: str, timeline: list[str]
) -> None:
    story = Story(declared(**words))
    story.reaches(stage)
    story.rig.delete()

    assert story.settles() == timeline
    assert not story.rig.exists
    assert story.rig.metal.blank


def test_a_release_that_is_under_way_goes_on_when_the_machine_is_deleted() -> None:
    story = deployed()
    story.rig.declare(declared(owner="search"))
    story.reaches("EraseDisks")
    story.rig.delete()

    assert story.settles() == [*RELEASED[3:], "Ready: Deleted"]
    assert story.rig.metal.erasures == 1


def test_a_machine_that_is_deleted_by_force_is_gone_with_its_system_running() -> None:
    story = deployed()
    story.rig.force_delete = True
    story.rig.delete()

    assert story.settles() == ["Deployed: DeletionForced"]
    assert story.running() is Running.SYSTEM


def test_a_deleted_machine_whose_release_failed_waits_for_a_person_who_has_it_tried_again() -> None:
    story = deployed()
    story.rig.metal.stubborn_disk = True
    story.rig.delete()

    assert story.settles()[-1] == "Failed: EraseNotVerified"

    story.rig.metal.stubborn_disk = False
    story.rig.declare(declared(**IMAGE, recommission="again"))

    assert story.settles()[-1] == "Ready: Deleted"
    assert story.rig.metal.blank


# --- twins and lost status ---------------------------------------------------------------------------------------


def test_a_twin_of_an_older_machine_is_not_touched_until_that_is_gone() -> None:
    story = Story()
    story.rig.twin = "rack/node-01"

    assert story.settles() == ["None: DuplicateMachine"]
    assert story.rig.metal.starts == 0

    story.rig.twin = None

    assert story.settles() == [*COMMISSIONED, "Ready: Available"]


def test_a_deployed_machine_whose_status_is_lost_goes_on_running() -> None:
    story = deployed()
    installed, starts = story.rig.status.installed, story.rig.metal.starts
    story.rig.lose_status()
    story.rig.restart()

    assert story.settles() == ["Deployed: Running"]
    assert (story.rig.status.installed, story.rig.status.owner) == (installed, "search")
    assert story.rig.metal.starts == starts


def test_a_machine_whose_status_and_declaration_are_lost_is_left_alone_until_somebody_says_whose_it_is() -> None:
    story = deployed()
    starts = story.rig.metal.starts
    story.rig.declare(declared())
    story.rig.lose_status()

    assert story.settles() == ["None: StatusLost"]
    assert (story.running(), story.rig.metal.starts) == (Running.SYSTEM, starts)
    assert story.declare(**IMAGE) == ["Deployed: Running"]


def test_a_trigger_that_was_pulled_before_the_status_was_lost_is_not_pulled_again_by_that() -> None:
    story = Story(declared(**IMAGE, reinstall="once", recommission="twice"))
    story.settles()
    story.rig.lose_status()

    assert story.settles() == ["Deployed: Running"]


# --- withdrawal --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "timeline"),
    [
        ("BootRamdisk", ["Allocated: AwaitingDeployment"]),
        ("WriteImage", [*RELEASED, "Allocated: AwaitingDeployment"]),
        ("BootDisk", [*RELEASED, "Allocated: AwaitingDeployment"]),
    ],
)
def test_a_deployment_that_is_withdrawn_while_it_is_under_way_leaves_nothing(stage: str, timeline: list[str]) -> None:
    story = Story(declared(owner="search"))
    story.settles()
    story.rig.declare(declared(**IMAGE))
    story.reaches(stage)

    assert story.declare(owner="search") == timeline
    assert story.rig.metal.blank


def test_an_allocation_that_is_withdrawn_while_the_machine_is_commissioned_never_was() -> None:
    story = Story(declared(owner="search"))
    story.reaches("BootRamdisk")

    assert story.declare()[-1] == "Ready: Available"
    assert story.rig.status.owner is None


def test_trust_that_is_withdrawn_while_the_machine_is_commissioned_stops_it() -> None:
    story = Story()
    story.reaches("ShutDown")

    assert story.declare(accepted=False) == ["Commissioning: Withdrawn", "New: AwaitingAcceptance"]
    assert not story.rig.metal.on


def test_a_deployment_that_is_declared_again_while_the_machine_is_released_waits_for_the_erase() -> None:
    story = deployed()
    story.rig.declare(declared(owner="search"))
    story.reaches("EraseDisks")

    timeline = story.declare(**IMAGE)

    assert timeline == [*RELEASED[3:], *DEPLOYED]
    assert story.rig.metal.erasures == 1


def test_a_machine_whose_owner_changes_between_two_looks_is_released_before_the_next_gets_it() -> None:
    story = deployed()
    story.rig.declare(declared())
    story.rig.declare(declared(owner="maps", image="fedora-42"))

    timeline = story.settles()

    assert timeline == [*RELEASED, *DEPLOYED]
    assert story.rig.status.owner == "maps"


def test_an_allocation_that_changes_hands_between_two_looks_passes_through_the_pool() -> None:
    story = Story(declared(owner="search"))
    story.settles()
    story.rig.declare(declared())
    story.rig.declare(declared(owner="maps"))
    decision = story.rig.once()

    assert [t.after for t in decision.transitions] == [Phase.READY, Phase.ALLOCATED]
    assert story.rig.status.owner == "maps"


# --- re-installation ---------------------------------------------------------------------------------------------


def test_another_image_alone_installs_nothing() -> None:
    story = deployed()

    assert story.declare(owner="search", image="fedora-42") == ["Deployed: ReinstallNeeded"]
    assert len(story.rig.metal.writes) == 1


def test_a_trigger_installs_what_is_declared_once() -> None:
    story = deployed()

    timeline = story.declare(owner="search", image="fedora-42", reinstall="2026-03")

    assert timeline == ["Deploying: StartingFromOff", *DEPLOYED]
    assert story.settles() == ["Deployed: Running"]
    assert len(story.rig.metal.writes) == 2


# --- faults ------------------------------------------------------------------------------------------------------


def test_a_bmc_that_keeps_refusing_fails_the_machine_after_the_last_attempt_and_further_and_further_apart() -> None:
    story = Story()
    story.rig.metal.refusals = 99
    begins: list[timedelta] = []
    began = story.rig.now
    while story.rig.status.phase is not Phase.FAILED:
        refusals = story.rig.metal.refusals
        decision = story.rig.once()
        if story.rig.metal.refusals < refusals:
            begins.append(story.rig.now - began)
            story.rig.advance(decision.look_again)

    assert begins == [timedelta(seconds=seconds) for seconds in (0, 120, 360)]
    assert story.told()[-1] == "Failed: BMCProtocolError"
    assert story.rig.status.history[0].attempts == 3


def test_a_failed_machine_is_recommissioned_by_a_trigger_and_by_nothing_else() -> None:
    story = Story(declared(commissioning={"maxAttempts": 1}))
    story.rig.metal.refusals = 1

    assert story.settles()[-1] == "Failed: BMCProtocolError"
    assert story.declare(**IMAGE) == ["Failed: BMCProtocolError"]
    assert story.declare(**IMAGE, recommission="again") == [*COMMISSIONED[1:], *DEPLOYED]
    assert story.rig.status.last_failure is None


def test_a_missing_secret_is_waited_for_and_used_as_soon_as_it_is_there() -> None:
    story = Story()
    story.rig.metal.secret_missing = True

    assert story.waits(for_=10 * MINUTES) == ["None: RecordHeld", "Commissioning: SecretMissing"]

    story.rig.metal.secret_missing = False

    assert story.settles() == [*COMMISSIONED[1:], "Ready: Available"]
    assert story.rig.status.history[0].attempts == 1


def test_an_agent_that_never_reports_costs_an_attempt_each_time() -> None:
    story = Story()

    assert story.waits(for_=60 * MINUTES) == [
        "None: RecordHeld",
        "Commissioning: BootingRamdisk",
        "Commissioning: AwaitingAgent",
        "Commissioning: AgentMissing",
        "Commissioning: StartingFromOff",
        "Commissioning: BootingRamdisk",
        "Commissioning: AwaitingAgent",
        "Commissioning: AgentMissing",
        "Commissioning: StartingFromOff",
        "Commissioning: BootingRamdisk",
        "Commissioning: AwaitingAgent",
        "Failed: AgentMissing",
    ]
    assert not story.rig.metal.on


def test_a_system_that_never_reports_is_failed_at_its_deadline() -> None:
    spec = declared(owner="search")
    story = Story(spec)
    story.settles()
    story.rig.metal.calls_home = False
    deployment = {"image": "debian-12", "maxAttempts": 1, "timeout": "20m"}
    story.rig.declare(declared(owner="search", deployment=deployment))
    story.reaches("BootDisk")

    assert story.waits(for_=30 * MINUTES)[-2:] == ["Deploying: AwaitingFirstBoot", "Failed: FirstBootMissing"]


def test_an_agent_that_falls_silent_over_its_work_is_lost_and_the_attempt_with_it() -> None:
    story = Story(declared(**IMAGE))
    story.reaches("WriteImage")
    story.rig.once()
    assert story.rig.metal.ramdisk is not None
    story.rig.metal.ramdisk.beating = False

    assert story.waits(for_=3.25 * MINUTES) == ["Deploying: WritingImage", "Deploying: AgentLost"]


def test_a_power_blip_during_the_write_starts_the_write_again_in_the_same_attempt() -> None:
    story = Story(declared(**IMAGE))
    story.reaches("WriteImage")
    story.rig.once()
    story.rig.metal.switch_off()
    story.told()

    assert story.settles() == DEPLOYED
    assert len(set(story.rig.metal.writes)) == 1
    assert len(story.rig.metal.writes) == 2


@pytest.mark.parametrize("stage", ["PowerOff", "BootRamdisk", "WriteImage", "BootDisk"])
@pytest.mark.parametrize("later", [0, 1, 2])
def test_an_operator_that_restarts_goes_on_where_it_was_without_a_second_write(stage: str, later: int) -> None:
    story = deployed()
    story.rig.declare(declared(**IMAGE, reinstall="again"))
    story.reaches(stage)
    for _ in range(later):
        story.rig.once()
        story.rig.oblige()
    story.rig.restart()

    assert story.settles()[-1] == "Deployed: Running"
    assert len(story.rig.metal.writes) == 2
    assert story.rig.status.history[0].attempts == 1


# --- erasing -----------------------------------------------------------------------------------------------------


def test_a_disk_that_is_not_seen_to_be_erased_keeps_the_machine_out_of_the_pool() -> None:
    story = deployed()
    story.rig.metal.stubborn_disk = True

    timeline = story.declare()

    assert timeline[-1] == "Failed: EraseNotVerified"
    assert [(e.device, e.verified) for e in story.rig.status.erasure] == [("/dev/sda", True), ("/dev/sdb", False)]
    assert story.rig.status.installed is not None
    assert story.rig.evidence is not None


def test_a_release_without_an_erase_is_recorded_as_one() -> None:
    story = deployed()

    timeline = story.declare(release={"erase": "None"})

    assert timeline == ["Releasing: StartingFromOff", "Ready: Available"]
    assert [(e.device, e.method, e.verified) for e in story.rig.status.erasure] == [("*", "None", False)]
    assert story.rig.metal.erasures == 0


# --- power -------------------------------------------------------------------------------------------------------


def test_power_is_switched_as_declared_where_the_owner_has_the_machine() -> None:
    story = deployed()

    assert story.declare(**IMAGE, power="Off") == ["Deployed: PowerOffWanted", "Deployed: Running"]
    assert story.rig.status.power is Power.OFF
    assert story.declare(**IMAGE, power="On") == ["Deployed: PowerOnWanted", "Deployed: Running"]
    assert story.running() is Running.SYSTEM
