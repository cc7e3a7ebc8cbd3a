//! Finding and cancelling one message, what is remembered, purging.

use posthaste::domain::message::{Headers, Priority, State};
use posthaste::domain::outcome::{Attempt, AttemptOutcome, DeadReason};
use posthaste::domain::retry::Verdict;
use posthaste::domain::timestamp::Timestamp;
use posthaste::store::QueueRef;
use posthaste::store::enqueue::Due;
use posthaste::store::lease::{Lease, LeaseRequest, Settled};
use posthaste::store::stats::{Cancelled, Finished};

use super::stand::{
    Draft, START, Stand, attempt, dead, draft, ids, pull_request, request, retry_after, seconds, settlement,
};

async fn cancel(stand: &Stand, queue: &QueueRef, id: posthaste::domain::id::MessageId) -> Cancelled {
    stand.connection.cancel(queue.clone(), id).await.expect("the store answers")
}

fn later() -> Draft {
    Draft { due: Due::After(seconds(60)), ..draft() }
}

pub(super) async fn a_message_is_found_in_every_state(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let [scheduled, leased, died, delivered, cancelled, pending] = {
        let scheduled = stand.publish_one(&queue, later()).await;
        let died = stand.publish_dead(&queue, 1).await[0];
        let delivered = stand.publish_plain(&queue, 1).await[0];
        stand.drain(&queue).await;
        let cancelled = stand.publish_plain(&queue, 1).await[0];
        assert_eq!(cancel(stand, &queue, cancelled).await, Cancelled::Cancelled);
        let leased = stand.publish_plain(&queue, 1).await[0];
        stand.lease(&queue, 1).await;
        let pending = stand.publish_plain(&queue, 1).await[0];
        [scheduled, leased, died, delivered, cancelled, pending]
    };
    let expected = [
        (scheduled, State::Scheduled, true),
        (leased, State::Leased, true),
        (died, State::Dead, true),
        (delivered, State::Delivered, false),
        (cancelled, State::Cancelled, false),
        (pending, State::Pending, true),
    ];
    for (id, state, kept) in expected {
        let found = stand.find(&queue, id).await.expect("it is there");
        assert_eq!((found.state, found.record.is_some(), found.finished.is_some()), (state, kept, !kept));
        assert_eq!(found.record.map_or(id, |record| record.id()), id);
        assert_eq!(found.due_at.is_some(), state == State::Scheduled);
        assert_eq!(found.reason, (state == State::Dead).then_some(DeadReason::Rejected));
        let ended = matches!(state, State::Dead | State::Delivered | State::Cancelled);
        assert_eq!(found.ended_at, ended.then_some(START));
    }
    assert_eq!(stand.find(&queue, draft().build(START).id).await, None);
    let other = stand.queue("mails").await;
    assert_eq!(stand.find(&other, pending).await, None, "a message is of one queue");
}

pub(super) async fn what_is_not_leased_can_be_cancelled(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 4).await;
    let scheduled = stand.publish_one(&queue, later()).await;
    let suspect = stand.publish_one(&queue, Draft { attempts_max: 2, ..draft() }).await;
    stand.lease(&queue, 1).await;
    stand.pass(seconds(30)).await;
    let released = stand.publish_plain(&queue, 1).await[0];
    let released_lease = stand.take(LeaseRequest { suspects: false, ..request(&queue) }).await;
    stand.settle_all(released_lease, Verdict::Release).await;
    let pending = stand.publish_plain(&queue, 1).await[0];
    for id in [pending, scheduled, released, suspect] {
        assert_eq!(cancel(stand, &queue, id).await, Cancelled::Cancelled);
        assert_eq!(cancel(stand, &queue, id).await, Cancelled::Finished, "it had ended");
    }
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.cancelled, stats.gauges.bytes_waiting), (4, 0));
    assert_eq!(stand.pass(seconds(60)).await.promoted, 0);
    assert!(stand.lease(&queue, 10).await.leases.is_empty(), "it will not be delivered");
    stand.publish_plain(&queue, 4).await;
}

pub(super) async fn what_is_leased_dead_ended_or_unknown_cannot_be_cancelled(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let died = stand.publish_dead(&queue, 1).await[0];
    let delivered = stand.publish_plain(&queue, 1).await[0];
    stand.drain(&queue).await;
    let leased = stand.publish_plain(&queue, 1).await[0];
    stand.lease(&queue, 1).await;
    let before = stand.stats(&queue).await;
    let expected = [
        (leased, Cancelled::Leased),
        (died, Cancelled::Finished),
        (delivered, Cancelled::Finished),
        (draft().build(START).id, Cancelled::Unknown),
    ];
    for (id, answer) in expected {
        assert_eq!(cancel(stand, &queue, id).await, answer);
    }
    assert_eq!(stand.stats(&queue).await, before);
}

pub(super) async fn a_message_cancelled_amid_others_leaves_them_in_order(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 9).await;
    for place in [4, 0, 8] {
        cancel(stand, &queue, published[place]).await;
    }
    assert_eq!(stand.drain(&queue).await, [1, 2, 3, 5, 6, 7].map(|place: usize| published[place]));
}

pub(super) async fn a_delivered_message_is_remembered_with_what_is_known_of_it(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let headers = Headers { content_type: "text/plain".to_owned(), ..Headers::default() };
    let id = stand.publish_one(&queue, Draft { headers, priority: Priority::Low, ..draft() }).await;
    stand.run(&queue, 1, retry_after(seconds(0))).await;
    stand.clock.advance(seconds(7));
    stand.drain(&queue).await;
    let found = stand.find(&queue, id).await.expect("it is there");
    let finished = Finished {
        accepted_at: START,
        attempts: 2,
        attempts_max: 5,
        priority: Priority::Low,
        payload_bytes: 10,
        content_type: "text/plain".to_owned(),
    };
    assert_eq!((found.finished, found.ended_at), (Some(finished), Some(START.saturating_add(seconds(7)))));
    let cancelled = stand.publish_one(&queue, draft()).await;
    cancel(stand, &queue, cancelled).await;
    let finished = stand.find(&queue, cancelled).await.expect("it is there").finished.expect("it ended");
    assert_eq!((finished.attempts, finished.content_type), (0, String::new()));
}

pub(super) async fn only_so_many_finished_messages_are_remembered(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.history.finished_max = 10).await;
    let mut delivered = Vec::new();
    for _ in 0..5 {
        delivered.extend(stand.publish_plain(&queue, 10).await);
        stand.run(&queue, 10, Verdict::Ack).await;
        stand.pass(seconds(1)).await;
    }
    for id in &delivered[..40] {
        assert_eq!(stand.find(&queue, *id).await, None);
    }
    for id in &delivered[40..] {
        assert_eq!(stand.find(&queue, *id).await.expect("it is remembered").state, State::Delivered);
    }
    assert_eq!(stand.stats(&queue).await.counters.delivered, 50, "the counters do not forget");
}

pub(super) async fn finished_messages_are_forgotten_after_their_retention(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.history.retention = seconds(100)).await;
    let id = stand.publish_plain(&queue, 1).await[0];
    stand.drain(&queue).await;
    stand.pass(seconds(99)).await;
    assert!(stand.find(&queue, id).await.is_some());
    stand.pass(seconds(1)).await;
    assert_eq!(stand.find(&queue, id).await, None);
    assert_eq!(cancel(stand, &queue, id).await, Cancelled::Unknown);
}

pub(super) async fn without_lookup_what_is_scheduled_or_dead_is_still_found(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.lookup = false).await;
    let died = stand.publish_dead(&queue, 1).await[0];
    let scheduled = stand.publish_one(&queue, later()).await;
    assert_eq!(stand.find(&queue, died).await.expect("it is there").state, State::Dead);
    assert_eq!(stand.find(&queue, scheduled).await.expect("it is there").state, State::Scheduled);
    assert_eq!(cancel(stand, &queue, scheduled).await, Cancelled::Cancelled);
    assert_eq!(cancel(stand, &queue, died).await, Cancelled::Finished);
    // What is pending may be found or not; what is said must be so.
    let pending = stand.publish_plain(&queue, 1).await[0];
    let found = stand.find(&queue, pending).await;
    assert!(found.is_none_or(|found| found.state == State::Pending));
    let left = usize::from(cancel(stand, &queue, pending).await == Cancelled::Unknown);
    assert_eq!(stand.lease(&queue, 1).await.leases.len(), left);
}

/// Settles the one message that is leased, twice with the same words, as after a lost answer.
async fn settle_twice(stand: &Stand, queue: &QueueRef, verdict: Verdict, attempt: Attempt) {
    let leased = stand.lease(queue, 1).await;
    let batch = leased.batch.clone();
    let settle = |lease: Lease| lease.settle(verdict.clone(), Some(attempt.clone()));
    let settled: Vec<_> = leased.leases.into_iter().map(settle).collect();
    for _ in 0..2 {
        assert_eq!(stand.settle(&batch, settled.clone()).await, [Settled::Settled]);
    }
}

pub(super) async fn the_attempt_that_delivered_a_message_is_shown_once(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let words = |words: &str| Some(words.to_owned());
    let failed = Attempt { error: words("busy"), excerpt: words("later"), ..attempt(1, 503) };
    let delivered = |number| Attempt {
        outcome: AttemptOutcome::Delivered,
        status: Some(201),
        error: words("cut off"),
        excerpt: words("thank you"),
        ..attempt(number, 201)
    };
    let shown = |number| Attempt { error: None, excerpt: None, ..delivered(number) };

    let followed = failed.followed_at(Some(START));
    let first = stand.publish_plain(&queue, 1).await[0];
    settle_twice(stand, &queue, Verdict::Ack, delivered(1)).await;
    let second = stand.publish_plain(&queue, 1).await[0];
    settle_twice(stand, &queue, retry_after(seconds(0)), failed.clone()).await;
    settle_twice(stand, &queue, Verdict::Ack, delivered(2)).await;
    let silent = stand.publish_plain(&queue, 1).await[0];
    stand.run(&queue, 1, Verdict::Ack).await;
    let batch = stand.publish_plain(&queue, 3).await;
    let leased = stand.lease(&queue, 3).await;
    let (name, leases) = (leased.batch.clone(), leased.leases.into_iter());
    let settled = leases.map(|lease| lease.settle(Verdict::Ack, Some(delivered(1)))).collect();
    stand.settle(&name, settled).await;
    for look in 0..2 {
        let mut expected =
            vec![(first, vec![shown(1)]), (second, vec![followed.clone(), shown(2)]), (silent, vec![])];
        expected.extend(batch.iter().map(|id| (*id, vec![shown(1)])));
        for (id, history) in expected {
            let found = stand.find(&queue, id).await.expect("it is remembered");
            assert_eq!((found.state, found.history), (State::Delivered, history), "look {look}");
        }
        if !stand.restart().await {
            break;
        }
    }
}

pub(super) async fn an_attempt_says_when_the_next_one_was_due_if_one_followed(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    // What the caller says of the next attempt is not looked at: another clock may be wrong.
    let failed = |number| attempt(number, 503).followed_at(Some(Timestamp::from_millis(7)));
    let settle = async |stand: &Stand, verdict, attempt| settle_twice(stand, &queue, verdict, attempt).await;
    let id = stand.publish_one(&queue, Draft { attempts_max: 2, ..draft() }).await;
    settle(stand, retry_after(seconds(60)), failed(1)).await;
    let found = stand.find(&queue, id).await.expect("it is scheduled");
    let due = START.saturating_add(seconds(60));
    assert_eq!((found.due_at, found.history), (Some(due), vec![attempt(1, 503).followed_at(Some(due))]));

    stand.pass(seconds(60)).await;
    let put_off = Verdict::Defer { delay: seconds(5) };
    settle(stand, put_off, failed(2)).await;
    stand.pass(seconds(5)).await;
    // A consumer asks for another attempt where none is left.
    settle(stand, retry_after(seconds(60)), failed(2)).await;
    for look in 0..2 {
        let found = stand.find(&queue, id).await.expect("it is dead");
        let history = vec![attempt(1, 503).followed_at(Some(due)), attempt(2, 503), attempt(2, 503)];
        assert_eq!((found.state, found.history), (State::Dead, history), "look {look}");
        if !stand.restart().await {
            break;
        }
    }
}

pub(super) async fn a_queue_that_remembers_no_attempts_shows_none_of_what_it_delivered(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.history.attempts = 0).await;
    let id = stand.publish_plain(&queue, 1).await[0];
    settle_twice(stand, &queue, Verdict::Ack, attempt(1, 200)).await;
    let found = stand.find(&queue, id).await.expect("it is remembered");
    assert_eq!((found.history, found.finished.map(|finished| finished.attempts)), (vec![], Some(1)));
}

pub(super) async fn attempts_are_remembered_up_to_a_number_and_to_the_end(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.history.attempts = 3).await;
    let id = stand.publish_one(&queue, Draft { attempts_max: 9, ..draft() }).await;
    for number in 1..=6 {
        let leased = stand.lease(&queue, 1).await;
        let batch = leased.batch.clone();
        let verdict = if number == 6 { Verdict::Ack } else { retry_after(seconds(0)) };
        let settled =
            leased.leases.into_iter().map(|lease| lease.settle(verdict.clone(), Some(attempt(number, 500))));
        stand.settle(&batch, settled.collect()).await;
        let history = stand.find(&queue, id).await.expect("it is there").history;
        let numbers: Vec<u8> = history.iter().map(|attempt| attempt.number).collect();
        let expected: Vec<u8> = (number.saturating_sub(2).max(1)..=number).collect();
        assert_eq!(numbers, expected);
        assert_eq!(history.last(), Some(&attempt(number, 500).followed_at((number < 6).then_some(START))));
    }
}

pub(super) async fn a_purge_empties_what_waits_and_leaves_what_is_leased_or_dead(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let died = stand.publish_dead(&queue, 1).await[0];
    let lost = stand.publish_one(&queue, Draft { attempts_max: 2, ..draft() }).await;
    stand.lease(&queue, 1).await;
    stand.pass(seconds(30)).await;
    let released = stand.publish_plain(&queue, 2).await;
    let leased = stand.take(LeaseRequest { suspects: false, ..request(&queue) }).await;
    stand.settle(&leased.batch, vec![settlement(0, Verdict::Release)]).await;
    let waiting = stand.publish(&queue, &[draft(), later(), draft(), later()]).await;
    assert_eq!(stand.connection.purge(queue.clone()).await, Ok(6));
    let stats = stand.stats(&queue).await;
    assert_eq!(
        (stats.counters.purged, stats.gauges.pending, stats.gauges.scheduled, stats.gauges.bytes_waiting),
        (6, 0, 0, 0)
    );
    assert_eq!((stats.gauges.leased, stats.gauges.dead), (1, 1));
    assert_eq!(stats.oldest_pending_at, None);
    for id in waiting.iter().chain([&lost, &released[0]]) {
        assert_eq!(stand.find(&queue, *id).await, None);
        assert_eq!(cancel(stand, &queue, *id).await, Cancelled::Unknown);
    }
    assert!(stand.lease(&queue, 10).await.leases.is_empty());
    assert_eq!(stand.pass(seconds(60)).await.promoted, 0);
    assert_eq!(stand.find(&queue, died).await.expect("it is there").state, State::Dead);
    assert_eq!(stand.connection.purge(queue.clone()).await, Ok(1), "what was lost since");
    assert_eq!(stand.connection.purge(queue.clone()).await, Ok(0));
}

pub(super) async fn what_was_leased_during_a_purge_comes_back_when_released_or_lost(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 4).await;
    let leased = stand.take(pull_request(&queue)).await;
    assert_eq!(stand.connection.purge(queue.clone()).await, Ok(0));
    let fresh = stand.publish_plain(&queue, 1).await;
    let sent = vec![
        settlement(0, Verdict::Release),
        settlement(1, retry_after(seconds(5))),
        settlement(2, Verdict::Ack),
    ];
    stand.settle(&leased.batch, sent).await;
    let swept = stand.pass(seconds(30)).await;
    assert_eq!((swept.promoted, swept.reaped), (1, 1));
    let mut delivered = stand.drain(&queue).await;
    delivered.sort_unstable();
    let mut expected = [&published[..2], &published[3..], &fresh[..]].concat();
    expected.sort_unstable();
    assert_eq!(delivered, expected);
}

pub(super) async fn a_large_queue_is_purged_at_once_and_publishing_goes_on(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 6_000).await;
    for _ in 0..6 {
        stand.publish_plain(&queue, 1_000).await;
    }
    assert_eq!(stand.connection.purge(queue.clone()).await, Ok(6_000));
    stand.check().await;
    assert!(stand.lease(&queue, 1).await.leases.is_empty());
    let mut published = Vec::new();
    for _ in 0..6 {
        published.extend(stand.publish_plain(&queue, 1_000).await);
        stand.connection.sweep().await.expect("the store answers");
        stand.check().await;
    }
    stand.sweep().await;
    let mut delivered = Vec::new();
    for _ in 0..6 {
        delivered.extend(stand.run(&queue, 1_000, Verdict::Ack).await);
    }
    assert_eq!(delivered, published);
    assert_eq!(stand.stats(&queue).await.counters.purged, 6_000);
}

pub(super) async fn a_dead_letter_is_found_with_its_reason_after_many_others_died(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let first = stand.publish_plain(&queue, 1).await;
    assert_eq!(stand.run(&queue, 1, dead(DeadReason::Undeliverable)).await, first);
    stand.publish_dead(&queue, 500).await;
    let found = stand.find(&queue, first[0]).await.expect("it is there");
    assert_eq!((found.state, found.reason), (State::Dead, Some(DeadReason::Undeliverable)));
    assert!(ids(&stand.lease(&queue, 1).await).is_empty());
}
