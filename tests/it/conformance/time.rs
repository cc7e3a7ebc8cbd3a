//! What time brings: delays, expiry, retention, and what a sweep says.

use posthaste::domain::message::State;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::queue::ParkReason;
use posthaste::domain::retry::Verdict;
use posthaste::domain::timestamp::Timestamp;
use posthaste::store::enqueue::{Due, GroupResult};
use posthaste::store::lease::LeaseRequest;
use posthaste::store::stats::Swept;
use posthaste::store::{Hold, SWEEP_MESSAGES_MAX};

use super::stand::{Draft, START, Stand, attempt, draft, ids, pull_request, request, retry_after, seconds};

fn after(count: u64) -> Draft {
    Draft { due: Due::After(seconds(count)), ..draft() }
}

fn at(moment: Timestamp) -> Draft {
    Draft { due: Due::At(moment), ..draft() }
}

pub(super) async fn a_delayed_message_is_not_leased_before_its_time(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish(&queue, &[after(10), at(START.saturating_add(seconds(10)))]).await;
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.scheduled, stats.gauges.pending, stats.gauges.bytes_waiting), (2, 0, 20));
    let found = stand.find(&queue, published[0]).await.expect("it is there");
    assert_eq!((found.state, found.due_at), (State::Scheduled, Some(START.saturating_add(seconds(10)))));
    let almost = stand.pass(std::time::Duration::from_millis(9_999)).await;
    assert_eq!((almost.promoted, stand.lease(&queue, 2).await.leases.len()), (0, 0));
    assert_eq!(stand.pass(std::time::Duration::from_millis(1)).await.promoted, 2);
    assert_eq!(ids(&stand.lease(&queue, 2).await), published);
}

pub(super) async fn a_moment_that_is_over_means_now(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let past = [at(Timestamp::default()), at(START), after(0)];
    let published = stand.publish(&queue, &past).await;
    assert_eq!(ids(&stand.lease(&queue, 3).await), published, "in the order of what is fresh");
}

pub(super) async fn all_that_share_a_moment_are_promoted(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let mut published = Vec::new();
    for _ in 0..3 {
        published.extend(stand.publish(&queue, &vec![after(10); 900]).await);
    }
    stand.clock.advance(seconds(10));
    let (mut promoted, mut rounds) = (0, 0);
    loop {
        let swept = stand.connection.sweep().await.expect("the store answers");
        assert!(swept.promoted <= SWEEP_MESSAGES_MAX as u64, "{swept:?}");
        (promoted, rounds) = (promoted + swept.promoted, rounds + 1);
        assert!(rounds < 100, "it never ends");
        if !swept.more {
            break;
        }
    }
    assert_eq!(promoted, 2_700);
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend(ids(&stand.lease(&queue, 900).await));
    }
    assert_eq!(taken, published, "none is left behind, ties in the order given");
}

pub(super) async fn a_sweep_promotes_only_so_many_bytes_at_once(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let large = Draft { payload: vec![7; 3 << 20], ..after(10) };
    let group = stand.group(&queue, &vec![large; 4]);
    assert_eq!(stand.offer(group).await, GroupResult::Accepted);
    stand.clock.advance(seconds(10));
    let first = stand.connection.sweep().await.expect("the store answers");
    assert_eq!((first.promoted, first.more), (1, true), "one may exceed the bytes alone, two may not");
    assert_eq!(stand.sweep().await.promoted, 3);
}

pub(super) async fn one_queues_backlog_does_not_hold_anothers_promotion(stand: &mut Stand) {
    let (busy, calm) = (stand.queue("busy").await, stand.queue("calm").await);
    for _ in 0..2 {
        stand.publish(&busy, &vec![after(10); 1_000]).await;
    }
    stand.publish(&calm, &[after(10)]).await;
    stand.clock.advance(seconds(10));
    let first = stand.connection.sweep().await.expect("the store answers");
    assert!(first.more);
    assert_eq!(stand.stats(&calm).await.gauges.pending, 1, "each queue has a budget of its own");
}

pub(super) async fn a_message_that_expired_while_it_waited_dies_when_it_is_due(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_one(&queue, Draft { ttl: Some(seconds(5)), ..after(10) }).await;
    let lasting = stand.publish_one(&queue, Draft { ttl: Some(seconds(11)), ..after(10) }).await;
    assert_eq!(stand.pass(seconds(7)).await.expired, 0, "its turn is when it is due");
    let swept = stand.pass(seconds(3)).await;
    assert_eq!((swept.promoted, swept.expired), (1, 1));
    let letter = stand.connection.dead(queue.clone(), id).await.expect("it answers").expect("it is dead");
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Expired, 0));
    assert_eq!(stand.drain(&queue).await, [lasting]);
}

pub(super) async fn an_expired_message_shows_the_status_of_its_last_attempt(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_one(&queue, Draft { ttl: Some(seconds(10)), ..draft() }).await;
    let leased = stand.lease(&queue, 1).await;
    let batch = leased.batch.clone();
    let failed =
        leased.leases.into_iter().map(|lease| lease.settle(retry_after(seconds(20)), Some(attempt(1, 503))));
    stand.settle(&batch, failed.collect()).await;
    assert_eq!(stand.pass(seconds(20)).await.expired, 1);
    let letter = stand.connection.dead(queue.clone(), id).await.expect("it answers").expect("it is dead");
    assert_eq!((letter.reason, letter.status, letter.attempts), (DeadReason::Expired, Some(503), 1));

    let id = stand.publish_one(&queue, Draft { ttl: Some(seconds(10)), ..draft() }).await;
    let leased = stand.lease(&queue, 1).await;
    let batch = leased.batch.clone();
    let failed =
        leased.leases.into_iter().map(|lease| lease.settle(retry_after(seconds(0)), Some(attempt(1, 502))));
    stand.settle(&batch, failed.collect()).await;
    stand.clock.advance(seconds(10));
    assert!(stand.lease(&queue, 1).await.leases.is_empty());
    let letter = stand.connection.dead(queue.clone(), id).await.expect("it answers").expect("it is dead");
    assert_eq!(
        (letter.reason, letter.status),
        (DeadReason::Expired, Some(502)),
        "also when a lease found it"
    );
}

pub(super) async fn a_sweep_says_when_time_brings_something_next(stand: &mut Stand) {
    let (queue, other) = (stand.queue("orders").await, stand.queue("mails").await);
    assert_eq!(stand.sweep().await.next_at, None);
    stand.publish_plain(&queue, 1).await;
    assert_eq!(stand.sweep().await.next_at, None, "what is pending waits for no moment");
    let moment = |count: u64| Some(START.saturating_add(seconds(count)));
    stand.publish(&queue, &[after(100)]).await;
    assert_eq!(stand.sweep().await.next_at, moment(100));
    stand.publish(&other, &[after(50)]).await;
    assert_eq!(stand.sweep().await.next_at, moment(50));
    let pulled = stand.take(pull_request(&queue)).await;
    assert_eq!(stand.sweep().await.next_at, moment(30));
    stand.settle_all(pulled, Verdict::Ack).await;
    assert_eq!(stand.sweep().await.next_at, moment(50));
    stand.publish_plain(&queue, 1).await;
    let leased = stand.take(LeaseRequest { lease: seconds(40), ..request(&queue) }).await;
    stand.clock.advance(seconds(10));
    assert_eq!(stand.sweep().await.next_at, moment(40));
    stand.connection.extend(leased.batch, seconds(300)).await.expect("the store answers");
    assert_eq!(stand.sweep().await.next_at, moment(50));
    stand.pass(seconds(40)).await;
    assert_eq!(stand.sweep().await.next_at, moment(100));
}

pub(super) async fn a_sweep_names_the_queues_with_something_to_lease(stand: &mut Stand) {
    let names = ["a", "b", "c", "d", "e"];
    let mut queues = Vec::new();
    for name in names {
        queues.push(stand.queue(name).await);
    }
    stand.publish_plain(&queues[0], 1).await;
    stand.publish(&queues[1], &[after(10)]).await;
    stand.publish_plain(&queues[2], 1).await;
    stand.hold(&queues[2], Hold::Pause).await;
    stand.publish_plain(&queues[3], 1).await;
    stand.hold(&queues[3], Hold::Park(ParkReason::EgressRefused)).await;
    let ready = |swept: Swept| swept.ready.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ready(stand.sweep().await), ["a"]);
    assert_eq!(ready(stand.pass(seconds(10)).await), ["a", "b"]);
    stand.drain(&queues[0]).await;
    stand.hold(&queues[2], Hold::Resume).await;
    assert_eq!(ready(stand.sweep().await), ["b", "c"]);
}

pub(super) async fn a_sweep_that_finds_nothing_changes_nothing(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 2).await;
    stand.publish(&queue, &[after(900)]).await;
    stand.lease(&queue, 1).await;
    let before = stand.stats(&queue).await;
    for _ in 0..3 {
        let swept = stand.pass(seconds(1)).await;
        assert_eq!((swept.promoted, swept.reaped, swept.expired, swept.discarded), (0, 0, 0, 0));
    }
    assert_eq!(stand.stats(&queue).await, before);
}

pub(super) async fn due_moments_go_by_the_wall_clock(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish(&queue, &[after(100), after(200)]).await;
    stand.clock.set_wall(START.saturating_sub(seconds(3_600)));
    assert_eq!(stand.pass(seconds(200)).await.promoted, 0);
    stand.clock.set_wall(START.saturating_add(seconds(100)));
    assert_eq!(stand.sweep().await.promoted, 1);
    stand.clock.set_wall(START);
    assert_eq!(stand.sweep().await.promoted, 0);
    assert_eq!(stand.stats(&queue).await.gauges.pending, 1, "what is pending stays so");
    stand.clock.set_wall(START.saturating_add(seconds(86_400)));
    assert_eq!(stand.sweep().await.promoted, 1);
}

pub(super) async fn a_retry_far_in_the_future_is_kept(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_plain(&queue, 1).await[0];
    stand.run(&queue, 1, retry_after(seconds(30 * 86_400))).await;
    stand.pass(seconds(29 * 86_400)).await;
    assert_eq!(stand.find(&queue, id).await.expect("it is there").state, State::Scheduled);
    assert_eq!(stand.pass(seconds(86_400)).await.promoted, 1);
}

pub(super) async fn dead_letters_leave_after_their_retention(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.dead.retention = seconds(100)).await;
    let first = stand.publish_dead(&queue, 2).await;
    stand.clock.advance(seconds(50));
    let second = stand.publish_dead(&queue, 1).await;
    assert_eq!(stand.pass(seconds(49)).await.discarded, 0);
    assert_eq!(stand.pass(seconds(1)).await.discarded, 2);
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.discarded, stats.counters.trimmed, stats.gauges.dead), (2, 2, 1));
    assert_eq!(stats.gauges.bytes_dead, 10);
    assert_eq!(stand.find(&queue, first[0]).await, None);
    assert_eq!(stand.find(&queue, second[0]).await.expect("it is there").state, State::Dead);
}

pub(super) async fn retention_removes_only_so_many_at_once(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.dead.retention = seconds(100)).await;
    for _ in 0..3 {
        stand.publish_dead(&queue, 700).await;
    }
    stand.clock.advance(seconds(100));
    let first = stand.connection.sweep().await.expect("the store answers");
    assert!(first.more && first.discarded <= SWEEP_MESSAGES_MAX as u64, "{first:?}");
    stand.sweep().await;
    assert_eq!(stand.stats(&queue).await.counters.trimmed, 2_100);
}
