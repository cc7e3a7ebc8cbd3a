//! Replaying dead letters.

use std::sync::Arc;

use posthaste::domain::message::State;
use posthaste::domain::outcome::{AttemptOutcome, DeadReason};
use posthaste::domain::retry::Verdict;
use posthaste::store::dead::{DeadFilter, Replayed, Selection};
use posthaste::store::enqueue::GroupResult;

use super::stand::{Draft, START, Stand, attempt, dead, draft, ids, request, retry_after, seconds};

fn all() -> Selection {
    Selection::Filter(DeadFilter::default())
}

async fn replay(stand: &Stand, queue: &posthaste::store::QueueRef, selection: Selection) -> Replayed {
    stand.connection.replay(queue.clone(), selection, false).await.expect("the store answers")
}

pub(super) async fn a_replayed_message_starts_anew_and_keeps_its_history(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_one(&queue, Draft { attempts_max: 2, ttl: Some(seconds(50)), ..draft() }).await;
    for number in 1..=2 {
        let leased = stand.lease(&queue, 1).await;
        let batch = leased.batch.clone();
        let failed = leased
            .leases
            .into_iter()
            .map(|lease| lease.settle(retry_after(seconds(0)), Some(attempt(number, 500))));
        stand.settle(&batch, failed.collect()).await;
    }
    stand.clock.advance(seconds(100));
    let done = replay(stand, &queue, all()).await;
    assert_eq!(done, Replayed { matched: 1, replayed: 1, full: false, more: false });
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.replayed, stats.gauges.pending, stats.gauges.dead), (1, 1, 0));
    assert_eq!((stats.gauges.bytes_waiting, stats.gauges.bytes_dead), (10, 0));
    let leased = stand.lease(&queue, 1).await;
    let record = &leased.leases[0].record;
    assert_eq!((record.id(), record.attempts(), record.losses(), record.is_replayed()), (id, 0, 0, true));
    assert_eq!(record.expires_at(), Some(START.saturating_add(seconds(150))), "its time to live began anew");
    stand.settle_all(leased, retry_after(seconds(0))).await;
    assert_eq!(stand.stats(&queue).await.gauges.pending, 1, "its attempts began anew");
    let found = stand.find(&queue, id).await.expect("it is there");
    let history = vec![attempt(1, 500).followed_at(Some(START)), attempt(2, 500)];
    assert_eq!((found.state, found.history), (State::Pending, history));
}

pub(super) async fn a_replayed_message_keeps_no_longer_a_log_than_others(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.history.attempts = 1).await;
    let id = stand.publish_one(&queue, draft()).await;
    let settle = async |verdict: Verdict, status: u16| {
        let leased = stand.lease(&queue, 1).await;
        let batch = leased.batch.clone();
        let settled =
            leased.leases.into_iter().map(|lease| lease.settle(verdict.clone(), Some(attempt(1, status))));
        stand.settle(&batch, settled.collect()).await;
    };
    settle(dead(DeadReason::Rejected), 404).await;
    assert_eq!(replay(stand, &queue, all()).await.replayed, 1);
    settle(Verdict::Ack, 200).await;
    let found = stand.find(&queue, id).await.expect("it is there");
    assert_eq!((found.state, found.history), (State::Delivered, vec![attempt(1, 200)]));
}

pub(super) async fn a_replayed_suspect_is_none_any_more(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish(&queue, &vec![Draft { attempts_max: 1, ..draft() }; 3]).await;
    stand.lease(&queue, 3).await;
    stand.pass(seconds(30)).await;
    assert_eq!(replay(stand, &queue, all()).await.replayed, 3);
    let mut together = ids(&stand.lease(&queue, 3).await);
    together.sort_unstable();
    let mut expected = published;
    expected.sort_unstable();
    assert_eq!(together, expected);
}

pub(super) async fn a_replayed_message_may_die_and_be_replayed_again(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_dead(&queue, 1).await[0];
    for round in 1..=3 {
        assert_eq!(replay(stand, &queue, Selection::Ids(vec![id])).await.replayed, 1);
        assert_eq!(stand.run(&queue, 1, dead(DeadReason::Rejected)).await, [id]);
        let counters = stand.stats(&queue).await.counters;
        assert_eq!((counters.replayed, counters.dead_lettered), (round, round + 1));
    }
    assert_eq!(replay(stand, &queue, all()).await.replayed, 1);
    assert_eq!(stand.drain(&queue).await, [id]);
}

pub(super) async fn a_replay_by_ids_takes_those_that_are_dead(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let died = stand.publish_dead(&queue, 3).await;
    let pending = stand.publish_plain(&queue, 1).await[0];
    let chosen = vec![died[2], draft().build(START).id, pending, died[0], died[2]];
    let done = replay(stand, &queue, Selection::Ids(chosen)).await;
    assert_eq!(done, Replayed { matched: 2, replayed: 2, full: false, more: false });
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.pending, stats.gauges.dead), (3, 1));
}

pub(super) async fn a_replay_by_filter_takes_those_it_names(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_dead(&queue, 3).await;
    stand.publish_plain(&queue, 2).await;
    stand.run(&queue, 2, dead(DeadReason::Undeliverable)).await;
    let filter = DeadFilter { reason: Some(DeadReason::Undeliverable), ..DeadFilter::default() };
    assert_eq!(replay(stand, &queue, Selection::Filter(filter.clone())).await.replayed, 2);
    assert_eq!(replay(stand, &queue, Selection::Filter(filter)).await, Replayed::default());
    assert_eq!(stand.stats(&queue).await.gauges.dead, 3);
}

pub(super) async fn a_dry_run_counts_and_changes_nothing(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let died = stand.publish_dead(&queue, 5).await;
    let before = stand.stats(&queue).await;
    for (selection, matched) in [(all(), 5), (Selection::Ids(died[1..3].to_vec()), 2)] {
        let done = stand.connection.replay(queue.clone(), selection, true).await.expect("the store answers");
        assert_eq!(done, Replayed { matched, ..Replayed::default() });
    }
    assert_eq!(stand.stats(&queue).await, before);
}

pub(super) async fn a_replay_stops_at_the_limits_of_the_queue_and_can_go_on_later(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_dead(&queue, 6).await;
    stand.change(&queue, |settings| settings.limits.length_max = 4).await;
    let leased = {
        stand.publish_plain(&queue, 1).await;
        stand.lease(&queue, 1).await
    };
    let done = replay(stand, &queue, all()).await;
    assert_eq!((done.replayed, done.full, done.more), (3, true, false), "what is leased counts");
    assert_eq!(stand.stats(&queue).await.gauges.dead, 3);
    stand.settle_all(leased, Verdict::Ack).await;
    assert_eq!((replay(stand, &queue, all()).await.replayed, stand.drain(&queue).await.len()), (1, 4));
    stand
        .change(&queue, |settings| (settings.limits.length_max, settings.limits.bytes_max) = (100, 15))
        .await;
    let done = replay(stand, &queue, all()).await;
    assert_eq!((done.replayed, done.full), (1, true), "its bytes as well");
    stand.drain(&queue).await;
    let done = replay(stand, &queue, all()).await;
    assert_eq!((done.replayed, done.full, done.more), (1, false, false));
}

pub(super) async fn a_replay_takes_a_bounded_step(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    for _ in 0..3 {
        stand.publish_dead(&queue, 800).await;
    }
    let (mut replayed, mut rounds) = (0, 0);
    loop {
        let done = replay(stand, &queue, all()).await;
        assert!(done.replayed <= 1_000, "{done:?}");
        (replayed, rounds) = (replayed + done.replayed, rounds + 1);
        stand.check().await;
        if !done.more {
            break;
        }
        assert!(rounds < 100, "it never ends");
    }
    let stats = stand.stats(&queue).await;
    assert_eq!((replayed, stats.counters.replayed, stats.gauges.pending), (2_400, 2_400, 2_400));
}

pub(super) async fn a_damaged_letter_cannot_be_replayed_but_discarded(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let mut group = stand.group(&queue, &[draft(), draft()]);
    Arc::make_mut(&mut group.messages)[0].record[50] ^= 1;
    let damaged = group.messages[0].id;
    assert_eq!(stand.offer(group).await, GroupResult::Accepted);
    stand.run(&queue, 2, dead(DeadReason::Rejected)).await;
    let done = replay(stand, &queue, all()).await;
    assert_eq!(done, Replayed { matched: 2, replayed: 1, full: false, more: false });
    assert_eq!(replay(stand, &queue, Selection::Ids(vec![damaged])).await.replayed, 0);
    assert_eq!(stand.connection.discard(queue.clone(), all()).await, Ok(1));
}

pub(super) async fn a_replay_into_a_held_queue_waits_there(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let died = stand.publish_dead(&queue, 2).await;
    stand.hold(&queue, posthaste::store::Hold::Pause).await;
    assert_eq!(replay(stand, &queue, all()).await.replayed, 2);
    assert!(stand.take(request(&queue)).await.leases.is_empty());
    stand.hold(&queue, posthaste::store::Hold::Resume).await;
    assert_eq!(stand.drain(&queue).await, died);
}

pub(super) async fn a_replay_of_what_expired_gives_it_a_new_life(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_one(&queue, Draft { ttl: Some(seconds(10)), ..draft() }).await;
    stand.clock.advance(seconds(10));
    assert!(stand.lease(&queue, 1).await.leases.is_empty());
    stand.clock.advance(seconds(100));
    assert_eq!(replay(stand, &queue, all()).await.replayed, 1);
    stand.clock.advance(seconds(9));
    assert_eq!(stand.run(&queue, 1, Verdict::Release).await, [id]);
    stand.clock.advance(seconds(1));
    assert!(stand.lease(&queue, 1).await.leases.is_empty(), "as long as the first one");
}

pub(super) async fn a_loss_after_a_replay_counts_from_the_beginning(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_one(&queue, Draft { attempts_max: 2, ..draft() }).await;
    for _ in 0..2 {
        stand.lease(&queue, 1).await;
        stand.pass(seconds(30)).await;
    }
    replay(stand, &queue, all()).await;
    stand.lease(&queue, 1).await;
    stand.pass(seconds(30)).await;
    let found = stand.find(&queue, id).await.expect("it is there");
    assert_eq!(found.state, State::Pending);
    let numbers: Vec<_> = found.history.iter().map(|attempt| (attempt.number, attempt.outcome)).collect();
    assert_eq!(numbers, [1, 2, 1].map(|number| (number, AttemptOutcome::Lost)));
}
