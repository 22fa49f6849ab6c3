"""Promises of manners: what breaks no promise of safety, and what a user would miss all the same.

Each is a function of one pass that raises AssertionError, and its docstring begins with what the documentation lets
people rely on. They speak of what was declared, recorded and observed before the pass, and of what was done, shown
and recorded by it, in the words of `guards`; like the invariants they never look at the table.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.property.manners import attempts, power, record, rescue, standing, wishes, words
from tests.property.rig import Moment

Manner = Callable[[Moment], None]

MANNERS: tuple[Manner, ...] = (
    record.nothing_is_done_before_the_record_is_held,
    record.a_twin_is_never_touched,
    record.what_is_done_with_its_ramdisk_is_switched_off_at_once,
    record.a_deleted_record_is_let_go_of,
    record.what_is_installed_is_noted,
    standing.who_is_not_accepted_is_new,
    standing.a_live_machine_is_taken_over_as_it_runs,
    standing.what_is_off_is_not_said_to_run,
    standing.it_comes_back_to_its_owner_or_to_the_pool,
    standing.a_gate_is_waited_for_until_the_timeout,
    standing.what_is_withdrawn_is_released,
    standing.a_mark_stops_safely,
    standing.a_broken_machine_stays_so_until_it_is_repaired,
    wishes.who_rests_has_no_wish_left,
    wishes.what_can_not_be_done_is_not_begun,
    wishes.a_new_trigger_tries_at_once,
    wishes.a_machine_in_use_is_not_recommissioned,
    power.power_is_moved_only_as_wished,
    power.a_disk_write_is_not_cut_off,
    power.a_restart_goes_through_off,
    power.what_is_off_is_not_restarted,
    power.no_ramdisk_is_booted_for_nothing,
    rescue.a_rescue_lasts_as_long_as_it_is_wished,
    rescue.it_returns_to_where_it_came_from,
    rescue.a_mark_is_noted_during_a_rescue,
    attempts.what_spec_or_a_secret_lacks_spends_no_attempt,
    attempts.a_deadline_stays,
    attempts.a_machine_waits_for_its_turn,
    attempts.a_failure_has_a_visible_next_try,
    attempts.an_attempt_ends_when_its_time_is_up,
    attempts.an_attempt_ends_when_it_has_failed,
    attempts.an_erase_that_is_not_verified_has_failed,
    attempts.what_succeeded_goes_on,
    attempts.commands_go_to_an_agent_that_is_free,
    words.a_wait_says_what_is_waited_for,
    words.a_hold_says_what_to_change,
    words.what_is_held_is_stalled,
    words.what_runs_is_not_stalled_by_hints_alone,
    words.a_mark_says_what_it_may_have_cut_off,
    words.ready_is_what_is_as_declared,
    words.a_failure_names_its_cause,
    words.the_end_of_a_release_says_what_was_erased,
    words.letting_go_says_whether_something_was_skipped,
)
"""Checked after every pass, beside the invariants."""
