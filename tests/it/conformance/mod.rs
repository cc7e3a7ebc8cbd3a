//! What every store must do: one list of behaviours, each run on every kind of store.
//!
//! A behaviour is an `async fn` over a [`Stand`]; it belongs into the list below, from where each backend takes it. After
//! each the harness looks at every queue: both laws hold and a recount agrees with the counters.

mod dead_letters;
mod enqueue;
pub(crate) mod fixtures;
mod idempotency;
mod lease;
mod limits;
mod lookup;
mod lookup_batches;
mod lost;
mod order;
mod promote;
mod queues;
mod replay;
mod restart;
mod settle;
pub(crate) mod stand;
mod time;
mod wakes;

use std::time::Duration;

pub(crate) use fixtures::Fixture;
use stand::Stand;

/// The longest that one behaviour may take, on a slow disk.
const BEHAVIOUR_MAX: Duration = Duration::from_mins(2);

/// Runs a behaviour on a fresh store, on a thread as a gateway has them, and then asserts what holds after every one.
fn run(fixture: Box<dyn Fixture>, behaviour: impl AsyncFnOnce(&mut Stand)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let whole = async {
        let mut stand = Stand::new(fixture);
        behaviour(&mut stand).await;
        stand.check().await;
    };
    let within =
        async { tokio::time::timeout(BEHAVIOUR_MAX, whole).await.expect("the behaviour ends in time") };
    tokio::task::LocalSet::new().block_on(&runtime, within);
}

/// Hands every behaviour to another macro, with what that one needs first.
macro_rules! every_behaviour {
    ($then:ident!($($first:tt)*)) => {
        $then! {
            $($first)*;
            enqueue:
                a_message_comes_out_byte_for_byte_as_it_went_in
                a_group_is_stored_whole
                one_groups_refusal_leaves_the_others_alone
                one_call_may_publish_to_many_queues
                a_group_for_a_queue_that_is_gone_is_refused_alone
                a_call_sent_again_stores_nothing_twice
                a_call_sent_again_on_another_connection_is_the_same_call
                a_call_repeats_its_refusals_until_it_is_forgotten
                a_clock_set_back_does_not_make_a_call_forgotten
                a_group_larger_than_any_budget_is_stored_alone
                publishes_of_many_connections_at_once_are_all_kept
                a_call_whose_answer_nobody_awaits_happens_once_or_not_at_all
            ;
            idempotency:
                a_key_used_again_for_the_same_gives_the_first_ids
                a_key_used_for_something_else_is_refused
                a_key_is_any_bytes
                a_key_is_checked_against_earlier_groups_of_the_same_call
                a_refused_group_uses_up_no_key
                a_keyed_retry_of_what_is_stored_is_a_duplicate_and_never_full
                the_window_runs_from_the_first_acceptance_and_does_not_slide
                keys_have_a_limit_of_their_own
                keys_of_two_queues_are_apart
                a_key_stands_whatever_became_of_its_message
                keys_end_with_their_queue
            ;
            limits:
                the_length_counts_what_is_pending_scheduled_and_leased
                the_bytes_count_payload_and_headers_exactly
                a_group_beyond_a_limit_is_refused_whole
                messages_that_ended_make_room
                a_full_queue_can_be_worked_on_in_every_way
                a_full_store_refuses_publishes_and_can_be_emptied
                dead_letters_that_left_leave_no_bytes
                looking_at_a_full_queue_changes_nothing
            ;
            lease:
                an_empty_queue_gives_an_empty_lease_and_no_batch
                a_lease_takes_at_most_what_was_asked_for_and_says_whether_there_is_more
                a_lease_ends_at_its_bytes_but_the_first_message_may_exceed_them_alone
                a_leased_message_is_nobody_elses
                a_lease_sent_again_finds_its_batch
                a_lease_sent_again_gives_what_is_left_of_its_batch
                a_late_lease_of_a_batch_that_ended_takes_nothing_until_its_mark_is_gone
                a_new_connection_does_not_steal_live_leases
                a_lease_names_the_moment_it_ends
                every_lease_knows_the_number_of_its_attempt
                a_held_queue_accepts_and_never_leases_and_nothing_vanishes
                what_was_leased_when_a_queue_was_held_can_be_settled
                an_expired_message_dies_when_its_turn_comes_and_is_never_handed_out
                a_lease_puts_only_so_many_expired_messages_away
                a_damaged_record_dies_alone_and_its_neighbours_stay
                a_record_of_a_newer_version_stops_the_lease_and_stays_where_it_is
                leases_of_many_connections_at_once_never_overlap
            ;
            order:
                messages_of_one_priority_come_first_in_first_out
                priorities_are_drawn_16_to_4_to_1
                the_wheel_turns_on_from_lease_to_lease
                an_empty_priority_passes_its_turns_on
                a_message_that_did_not_fit_a_batch_keeps_its_turn
                an_expired_message_uses_up_its_turn
                returned_and_fresh_messages_take_turns
                neither_fresh_nor_returned_ones_starve_the_others
                what_is_released_comes_first_again_and_in_its_order
                batches_released_the_youngest_first_come_back_in_order
                what_pulling_consumers_lost_comes_first_again_and_in_its_order
                scheduled_messages_come_in_the_order_of_their_moments_and_ties_in_the_order_given
                retried_messages_come_in_the_order_settled
                replayed_messages_come_oldest_death_first_after_what_returned_before
                a_high_message_overtakes_a_backlog
                a_replayed_or_retried_message_keeps_its_priority
            ;
            settle:
                an_acknowledged_message_is_delivered_and_gone
                a_retry_counts_an_attempt_and_waits_its_delay
                a_retry_without_delay_is_pending_at_once
                a_retry_of_the_last_attempt_is_dead
                a_death_keeps_its_reason_and_its_words_and_counts_the_attempt
                a_deferred_message_waits_and_counts_no_attempt
                a_postponed_message_waits_and_is_counted_nowhere
                a_released_message_is_as_if_never_leased
                each_settlement_of_a_call_has_its_own_result
                a_slow_message_does_not_hold_its_batch_mates
                a_settle_sent_again_holds_and_counts_once
                the_first_verdict_stands
                what_was_settled_is_so_by_the_same_verdict_and_lost_for_another
                a_batch_that_ends_in_two_calls_remembers_both
                who_gave_a_message_back_is_not_told_that_it_settled_what_another_has
                who_does_not_know_the_token_holds_nothing
                tokens_differ_from_batch_to_batch
                a_lease_is_over_when_it_is_taken_back_and_not_before
                an_expired_message_that_is_put_back_dies_at_its_next_turn
                time_to_live_is_not_judged_while_leased
                an_extension_moves_the_deadline_of_the_whole_batch
                an_extension_never_shortens
                a_batch_lives_twelve_hours_at_most
                what_ended_cannot_be_extended
                a_thousand_settlements_in_one_call
            ;
            lost:
                a_lost_lease_counts_an_attempt_and_a_loss
                a_lost_lease_is_taken_back_exactly_at_its_deadline
                what_was_lost_can_no_longer_be_settled
                a_late_settlement_does_not_touch_the_next_lease_of_the_message
                only_what_was_not_settled_is_lost
                after_one_loss_all_that_was_in_flight_is_leased_together_again
                what_has_one_attempt_left_is_tried_alone_after_one_loss
                what_workers_lost_twice_is_leased_alone_and_before_all_others
                a_request_without_suspects_finds_nothing_where_only_suspects_wait
                what_a_pulling_consumer_lost_is_no_suspect
                a_suspect_is_cleared_by_an_attempt_that_ended
                a_suspect_stays_one_while_no_attempt_was_made
                a_released_suspect_goes_before_other_suspects
                a_message_whose_last_attempt_was_lost_is_poison
                one_attempt_means_started_at_most_once
                a_lost_message_that_expired_is_dead
                one_killer_takes_no_innocent_with_it
                a_clock_that_is_set_takes_no_workers_lease_away
                a_pulling_consumers_lease_lasts_until_the_moment_it_was_told
                a_sweep_takes_only_so_many_lost_messages_back_at_once
                a_sweep_takes_only_so_many_lost_bytes_back_at_once
            ;
            time:
                a_delayed_message_is_not_leased_before_its_time
                a_moment_that_is_over_means_now
                all_that_share_a_moment_are_promoted
                a_sweep_promotes_only_so_many_bytes_at_once
                one_queues_backlog_does_not_hold_anothers_promotion
                a_message_that_expired_while_it_waited_dies_when_it_is_due
                an_expired_message_shows_the_status_of_its_last_attempt
                a_sweep_says_when_time_brings_something_next
                a_sweep_names_the_queues_with_something_to_lease
                a_sweep_that_finds_nothing_changes_nothing
                due_moments_go_by_the_wall_clock
                a_retry_far_in_the_future_is_kept
                dead_letters_leave_after_their_retention
                retention_removes_only_so_many_at_once
            ;
            promote:
                what_was_put_off_is_brought_forward_and_leased_at_once
                what_was_retried_in_between_waits_for_its_own_time
                only_what_is_scheduled_is_brought_forward
                an_expired_message_is_not_brought_forward_but_judged_when_it_is_due
                a_suspect_is_brought_forward_among_the_suspects
                what_is_brought_forward_goes_behind_what_returned_and_keeps_its_priority
                what_is_brought_forward_leaves_the_rest_of_the_schedule
                what_is_due_already_may_be_brought_forward_too
                what_is_brought_forward_in_a_held_queue_waits_there
                only_so_many_are_brought_forward_at_once_whatever_their_size
                what_cannot_be_read_is_lost_by_no_one_who_would_bring_it_forward
                what_was_brought_forward_is_pending_after_a_restart
            ;
            dead_letters:
                dead_letters_are_listed_oldest_first_and_without_payload
                pages_follow_each_other_without_gap_or_repeat
                letters_that_leave_between_two_pages_disturb_nobody
                dead_letters_can_be_chosen_by_reason_status_and_time
                a_filter_finds_its_letters_among_many_others
                a_dead_letter_knows_where_it_was_sent
                dead_letters_are_counted_in_groups_most_numerous_first
                one_dead_letter_is_shown_whole
                discarding_takes_a_bounded_step_until_nothing_is_left
                discarding_by_id_leaves_the_others_and_what_is_not_dead
                full_dead_letters_park_the_queue_and_publishing_goes_on
                full_bytes_of_dead_letters_park_the_queue_too
                what_dies_in_flight_still_goes_into_full_dead_letters
                a_lease_that_fills_the_dead_letters_ends_there
                resuming_lets_a_parked_queue_go_on_until_the_next_death
                replay_and_retention_let_a_parked_queue_go_on
                raised_limits_let_a_parked_queue_go_on
                a_file_that_raises_the_limit_lets_a_parked_queue_go_on
                a_sweep_lets_a_queue_go_on_that_is_parked_for_nothing
                a_queue_parked_for_another_reason_stays_parked
                trimming_discards_the_oldest_and_its_bytes
                trimming_keeps_to_the_bytes_but_keeps_the_last
                a_lowered_limit_is_trimmed_to_by_the_sweep
                the_dead_of_every_kind_obey_both_laws
            ;
            replay:
                a_replayed_message_starts_anew_and_keeps_its_history
                a_replayed_message_keeps_no_longer_a_log_than_others
                a_replayed_suspect_is_none_any_more
                a_replayed_message_may_die_and_be_replayed_again
                a_replay_by_ids_takes_those_that_are_dead
                a_replay_by_filter_takes_those_it_names
                a_dry_run_counts_and_changes_nothing
                a_replay_stops_at_the_limits_of_the_queue_and_can_go_on_later
                a_replay_takes_a_bounded_step
                a_damaged_letter_cannot_be_replayed_but_discarded
                a_replay_into_a_held_queue_waits_there
                a_replay_of_what_expired_gives_it_a_new_life
                a_loss_after_a_replay_counts_from_the_beginning
            ;
            lookup:
                a_message_is_found_in_every_state
                what_is_not_leased_can_be_cancelled
                what_is_leased_dead_ended_or_unknown_cannot_be_cancelled
                a_message_cancelled_amid_others_leaves_them_in_order
                a_delivered_message_is_remembered_with_what_is_known_of_it
                only_so_many_finished_messages_are_remembered
                finished_messages_are_forgotten_after_their_retention
                without_lookup_what_is_scheduled_or_dead_is_still_found
                the_attempt_that_delivered_a_message_is_shown_once
                an_attempt_says_when_the_next_one_was_due_if_one_followed
                a_queue_that_remembers_no_attempts_shows_none_of_what_it_delivered
                attempts_are_remembered_up_to_a_number_and_to_the_end
                a_purge_empties_what_waits_and_leaves_what_is_leased_or_dead
                what_was_leased_during_a_purge_comes_back_when_released_or_lost
                a_large_queue_is_purged_at_once_and_publishing_goes_on
                a_dead_letter_is_found_with_its_reason_after_many_others_died
            ;
            lookup_batches:
                what_was_in_a_batch_is_found_wherever_it_went
                every_one_of_hundreds_is_found_where_it_is
                while_batches_are_taken_back_in_steps_each_message_is_found_where_it_is
            ;
            queues:
                queues_are_listed_by_name_with_their_settings
                every_setting_of_a_queue_is_kept
                a_put_without_a_secret_leaves_the_one_there_is
                new_settings_leave_messages_generation_and_holds
                a_queue_is_paused_parked_and_resumed
                a_queue_that_is_parked_for_its_destination_goes_on_with_another_one
                a_file_declares_queues_and_the_last_one_wins
                a_declared_queue_keeps_its_messages
                the_api_does_not_change_what_a_file_declared
                settings_are_replaced_only_if_they_are_what_was_read
                a_queue_that_holds_messages_is_deleted_only_by_force
                of_several_who_delete_a_queue_one_does
                a_deleted_queue_is_gone_for_every_call
                a_deleted_queue_leaves_nothing_behind
                stats_are_of_all_queues_or_of_those_named
                the_oldest_pending_message_tells_its_age
                a_sound_store_says_so
                a_closed_store_refuses_every_call
            ;
            wakes:
                a_publish_into_an_empty_queue_wakes_every_listener
                a_publish_behind_suspects_wakes_too
                a_promotion_wakes
                bringing_messages_forward_wakes
                a_lost_lease_wakes
                what_is_put_back_at_once_wakes
                resuming_wakes
                a_replay_wakes
                a_queue_that_goes_on_by_itself_wakes
                what_becomes_due_sooner_than_known_is_told
            ;
            restart:
                what_was_accepted_is_there_after_a_restart
                old_connections_are_of_no_use_after_a_restart
                what_workers_had_is_taken_back_at_once
                what_a_worker_settled_is_not_lost
                what_pulling_consumers_have_stays_theirs_until_the_moment_told
                a_pulling_consumers_settle_sent_again_after_a_restart_holds
                in_which_way_a_consumer_settled_is_known_after_a_restart
                a_lease_that_ran_out_while_the_process_was_away_is_taken_back
                one_killer_takes_no_innocent_with_it_over_restarts
                the_lists_keep_their_order_over_a_restart
                the_wheel_starts_anew_with_the_process
                keys_attempts_and_purges_survive_a_restart
                deleted_queues_stay_deleted_over_a_restart
                dead_letters_survive_restarts_and_can_be_replayed
            ;
        }
    };
}

/// One test for each behaviour.
macro_rules! tests {
    ($fixture:ty; $($file:ident: $($behaviour:ident)+;)+) => {
        $($(
            #[test]
            fn $behaviour() {
                super::run(Box::<$fixture>::default(), async |stand| super::$file::$behaviour(stand).await);
            }
        )+)+
    };
}

mod memory {
    every_behaviour!(tests!(super::fixtures::MemoryFixture));
}

mod sqlite {
    every_behaviour!(tests!(super::fixtures::SqliteFixture));
}

mod redis {
    every_behaviour!(tests!(super::fixtures::RedisFixture));
}
