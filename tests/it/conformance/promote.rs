//! Bringing scheduled messages forward: what is pending before its time, and what stays where it is.

use std::collections::HashSet;
use std::sync::Arc;

use posthaste::domain::id::MessageId;
use posthaste::domain::message::{Priority, State};
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::domain::timestamp::Timestamp;
use posthaste::store::enqueue::{Due, GroupResult};
use posthaste::store::lease::LeaseRequest;
use posthaste::store::{Hold, PROMOTED_MAX, QueueRef, Scheduled};

use super::stand::{Draft, START, Stand, dead, draft, ids, request, retry_after, seconds};

/// How long messages are put off.
const DEFER: Verdict = Verdict::Defer { delay: seconds(60) };

fn later() -> Draft {
    Draft { due: Due::After(seconds(60)), ..draft() }
}

fn moment(count: u64) -> Timestamp {
    START.saturating_add(seconds(count))
}

/// Brings messages forward that have so many attempts.
async fn promote(stand: &Stand, queue: &QueueRef, all: &[MessageId], attempts: u8) -> Vec<bool> {
    let named: Arc<[Scheduled]> = all.iter().map(|id| Scheduled { id: *id, attempts }).collect();
    let promoted = stand.connection.promote(queue.clone(), named).await.expect("the store answers");
    assert_eq!(promoted.len(), all.len(), "one result for each");
    promoted
}

pub(super) async fn what_was_put_off_is_brought_forward_and_leased_at_once(stand: &mut Stand) {
    for (name, lookup) in [("orders", true), ("mails", false)] {
        let queue = stand.queue_with(name, |settings| settings.lookup = lookup).await;
        let all = stand.publish_plain(&queue, 4).await;
        assert_eq!(stand.run(&queue, 4, DEFER).await, all);
        let before = stand.stats(&queue).await;
        assert_eq!((before.gauges.scheduled, before.counters.deferred), (4, 4));
        let named = [all[2], all[0], all[1]];
        assert_eq!(promote(stand, &queue, &named, 0).await, [true; 3]);
        let after = stand.stats(&queue).await;
        assert_eq!(after.counters, before.counters, "it is counted nowhere");
        assert_eq!((after.gauges.pending, after.gauges.scheduled), (3, 1));
        assert_eq!(after.gauges.bytes_waiting, before.gauges.bytes_waiting);
        assert_eq!(after.oldest_pending_at, Some(START));
        if lookup {
            assert_eq!(stand.find(&queue, all[2]).await.expect("it is there").state, State::Pending);
        }
        assert_eq!(stand.find(&queue, all[3]).await.expect("it is there").state, State::Scheduled);
        assert_eq!(promote(stand, &queue, &named, 0).await, [false; 3], "sent again");
        let leased = stand.lease(&queue, 10).await;
        assert_eq!(ids(&leased), named, "in the order given");
        assert!(leased.leases.iter().all(|lease| lease.attempt_number() == 1), "none was counted");
        stand.settle_all(leased, Verdict::Ack).await;
        assert_eq!(promote(stand, &queue, &all[3..], 0).await, [true]);
        assert_eq!(stand.drain(&queue).await, all[3..]);
    }
    assert_eq!(stand.pass(seconds(60)).await.promoted, 0, "none comes twice");
}

pub(super) async fn what_was_retried_in_between_waits_for_its_own_time(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let all = stand.publish_plain(&queue, 2).await;
    stand.run(&queue, 1, retry_after(seconds(90))).await;
    stand.run(&queue, 1, DEFER).await;
    assert_eq!(promote(stand, &queue, &all, 0).await, [false, true]);
    let found = stand.find(&queue, all[0]).await.expect("it is there");
    assert_eq!((found.state, found.due_at), (State::Scheduled, Some(moment(90))));
    let before = stand.stats(&queue).await;
    for attempts in [0, 2, 255] {
        assert_eq!(promote(stand, &queue, &all[..1], attempts).await, [false]);
    }
    assert_eq!(stand.stats(&queue).await, before);
    assert_eq!(promote(stand, &queue, &all[..1], 1).await, [true], "by the count that it has");
    assert_eq!(stand.drain(&queue).await, [all[1], all[0]]);
}

pub(super) async fn only_what_is_scheduled_is_brought_forward(stand: &mut Stand) {
    for (name, lookup) in [("orders", true), ("mails", false)] {
        let queue = stand.queue_with(name, |settings| settings.lookup = lookup).await;
        let purged = [stand.publish_one(&queue, later()).await, stand.publish_plain(&queue, 1).await[0]];
        stand.connection.purge(queue.clone()).await.expect("the store answers");
        let died = stand.publish_dead(&queue, 1).await[0];
        let delivered = stand.publish_plain(&queue, 1).await[0];
        stand.drain(&queue).await;
        let cancelled = stand.publish_one(&queue, later()).await;
        stand.connection.cancel(queue.clone(), cancelled).await.expect("the store answers");
        let leased = stand.publish_plain(&queue, 1).await[0];
        stand.lease(&queue, 1).await;
        let pending = stand.publish_plain(&queue, 1).await[0];
        let unknown = draft().build(START).id;
        let all = [purged[0], purged[1], died, delivered, cancelled, leased, pending, unknown];
        let before = stand.stats(&queue).await;
        assert_eq!(promote(stand, &queue, &all, 0).await, [false; 8]);
        assert_eq!(promote(stand, &queue, &[], 0).await, [false; 0]);
        assert_eq!(stand.stats(&queue).await, before);
        let scheduled = stand.publish_one(&queue, later()).await;
        let named = [pending, scheduled, unknown, scheduled, leased];
        let once = [false, true, false, false, false];
        assert_eq!(
            promote(stand, &queue, &named, 0).await,
            once,
            "each by itself, and one that is named twice once"
        );
        let came: HashSet<MessageId> = stand.drain(&queue).await.into_iter().collect();
        assert_eq!(came, HashSet::from([pending, scheduled]));
    }
    let (queue, other) = (stand.queue("first").await, stand.queue("second").await);
    let id = stand.publish_one(&queue, later()).await;
    assert_eq!(promote(stand, &other, &[id], 0).await, [false], "a message is of one queue");
}

pub(super) async fn an_expired_message_is_not_brought_forward_but_judged_when_it_is_due(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let short = Draft { ttl: Some(seconds(10)), ..later() };
    let lasting = Draft { ttl: Some(seconds(11)), ..later() };
    let all = stand.publish(&queue, &[short, lasting]).await;
    stand.clock.advance(seconds(10));
    assert_eq!(promote(stand, &queue, &all, 0).await, [false, true]);
    assert_eq!(stand.find(&queue, all[0]).await.expect("it is there").due_at, Some(moment(60)));
    assert_eq!(stand.drain(&queue).await, all[1..]);
    assert_eq!(stand.pass(seconds(50)).await.expired, 1);
    let letter = stand.connection.dead(queue, all[0]).await.expect("it answers").expect("it is dead");
    assert_eq!(letter.reason, DeadReason::Expired);
}

pub(super) async fn a_suspect_is_brought_forward_among_the_suspects(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let suspect = stand.publish_suspects(&queue, 1).await;
    assert_eq!(stand.run(&queue, 1, DEFER).await, suspect);
    let plain = stand.publish_one(&queue, later()).await;
    assert_eq!(promote(stand, &queue, &suspect, 2).await, [true]);
    assert_eq!(promote(stand, &queue, &[plain], 0).await, [true]);
    let sound = stand.take(LeaseRequest { suspects: false, ..request(&queue) }).await;
    assert_eq!(ids(&sound), [plain]);
    assert_eq!(ids(&stand.lease(&queue, 10).await), suspect);
}

pub(super) async fn what_is_brought_forward_goes_behind_what_returned_and_keeps_its_priority(
    stand: &mut Stand,
) {
    let queue = stand.queue("orders").await;
    let returned = stand.publish_plain(&queue, 1).await[0];
    stand.run(&queue, 1, retry_after(seconds(0))).await;
    let of = |priority| Draft { priority, ..later() };
    let drafts = [of(Priority::Low), of(Priority::Normal), of(Priority::High), of(Priority::Normal)];
    let all = stand.publish(&queue, &drafts).await;
    assert_eq!(promote(stand, &queue, &all, 0).await, [true; 4]);
    let came = stand.drain(&queue).await;
    assert_eq!(came, [all[2], returned, all[1], all[3], all[0]]);
}

pub(super) async fn what_is_brought_forward_leaves_the_rest_of_the_schedule(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let after = |count| Draft { due: Due::After(seconds(count)), ..draft() };
    let all = stand.publish(&queue, &[after(50), after(100), after(50), after(200)]).await;
    for (place, next) in [(2, Some(moment(50))), (0, Some(moment(100))), (3, Some(moment(100))), (1, None)] {
        assert_eq!(promote(stand, &queue, &all[place..=place], 0).await, [true]);
        assert_eq!(stand.sweep().await.next_at, next, "after message {place}");
    }
    assert_eq!(stand.pass(seconds(200)).await.promoted, 0);
    assert_eq!(stand.drain(&queue).await, [2, 0, 3, 1].map(|place: usize| all[place]));
}

pub(super) async fn what_is_due_already_may_be_brought_forward_too(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let all = stand.publish(&queue, &[later(), later()]).await;
    stand.clock.advance(seconds(61));
    assert_eq!(promote(stand, &queue, &all[1..], 0).await, [true]);
    assert_eq!(stand.sweep().await.promoted, 1);
    assert_eq!(stand.drain(&queue).await, [all[1], all[0]]);
}

pub(super) async fn what_is_brought_forward_in_a_held_queue_waits_there(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_one(&queue, later()).await;
    stand.hold(&queue, Hold::Pause).await;
    assert_eq!(promote(stand, &queue, &[id], 0).await, [true]);
    assert!(stand.lease(&queue, 1).await.leases.is_empty());
    stand.hold(&queue, Hold::Resume).await;
    assert_eq!(stand.drain(&queue).await, [id]);
}

pub(super) async fn only_so_many_are_brought_forward_at_once_whatever_their_size(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let all = stand.publish(&queue, &vec![later(); 1_000]).await;
    let beyond = stand.publish(&queue, &[later(), later()]).await;
    let named: Vec<MessageId> = all.iter().chain(&beyond).copied().collect();
    let promoted = promote(stand, &queue, &named, 0).await;
    assert_eq!(all.len(), PROMOTED_MAX);
    assert!(promoted[..PROMOTED_MAX].iter().all(|promoted| *promoted));
    assert_eq!(promoted[PROMOTED_MAX..], [false; 2]);
    assert_eq!(stand.stats(&queue).await.gauges.scheduled, 2);
    assert_eq!(ids(&stand.lease(&queue, 1_000).await), all);
    let large = stand.queue("large").await;
    let group = stand.group(&large, &vec![Draft { payload: vec![7; 3 << 20], ..later() }; 4]);
    let all: Vec<MessageId> = group.messages.iter().map(|message| message.id).collect();
    assert_eq!(stand.offer(group).await, GroupResult::Accepted);
    assert_eq!(promote(stand, &large, &all, 0).await, [true; 4], "large ones in steps");
    assert_eq!(stand.drain(&large).await, all);
}

pub(super) async fn what_cannot_be_read_is_lost_by_no_one_who_would_bring_it_forward(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let mut group = stand.group(&queue, &[later(), later(), later()]);
    let all: Vec<MessageId> = group.messages.iter().map(|message| message.id).collect();
    let messages = Arc::make_mut(&mut group.messages);
    let last = messages[0].record.len() - 5;
    messages[0].record[last] ^= 1;
    messages[1].record[0] = 2;
    assert_eq!(stand.offer(group).await, GroupResult::Accepted);
    let promoted = promote(stand, &queue, &all, 0).await;
    assert_eq!(promoted[1..], [false, true], "what is of a newer version waits");
    assert_eq!(stand.drain(&queue).await, all[2..]);
    assert_eq!(stand.find(&queue, all[1]).await.expect("it is there").state, State::Scheduled);
    stand.connection.cancel(queue.clone(), all[1]).await.expect("the store answers");
    stand.pass(seconds(60)).await;
    assert_eq!(stand.drain(&queue).await, []);
    let letter = stand.connection.dead(queue, all[0]).await.expect("it answers").expect("it is dead");
    assert_eq!(letter.reason, DeadReason::Damaged);
}

pub(super) async fn what_was_brought_forward_is_pending_after_a_restart(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let all = stand.publish_plain(&queue, 3).await;
    stand.run(&queue, 3, DEFER).await;
    assert_eq!(promote(stand, &queue, &all[1..], 0).await, [true; 2]);
    if !stand.restart().await {
        return;
    }
    assert_eq!(promote(stand, &queue, &all[1..], 0).await, [false; 2]);
    assert_eq!(stand.run(&queue, 3, dead(DeadReason::Rejected)).await, all[1..]);
    assert_eq!(promote(stand, &queue, &all[..1], 0).await, [true], "and what was not is so no more");
    assert_eq!(stand.drain(&queue).await, all[..1]);
}
