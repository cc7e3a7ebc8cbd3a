//! The short ways that scripts have for what is usual: that they are taken, and that they leave what the long ones leave.

use std::sync::Arc;
use std::time::Duration;

use posthaste::clock::Clock;
use posthaste::domain::id::MessageId;
use posthaste::domain::message::{Headers, Priority};
use posthaste::domain::retry::Verdict;
use posthaste::store::QueueRef;
use posthaste::store::lease::{BatchId, LeaseRequest, Leased, Settled, Settlement};
use posthaste::store::stats::{Cancelled, Found};

use super::{run, stand_at};
use crate::conformance::stand::{Draft, START, Stand, attempt, draft, ids, request};
use crate::support::redis::RedisServer;

fn drafts() -> Vec<Draft> {
    let text = Headers { content_type: "text/plain".to_owned(), ..Headers::default() };
    let more = Headers { method: Some("PUT".to_owned()), ..text.clone() };
    let small = Draft { headers: text, payload: Vec::new(), ..draft() };
    vec![draft(), small, Draft { headers: more, priority: Priority::Low, attempts_max: 1, ..draft() }]
}

/// Leases all of a queue, and gives for each its id, and the settlement of one that was delivered; every second one with an attempt.
async fn delivered(stand: &Stand, queue: &QueueRef) -> (Leased, Vec<MessageId>, Vec<Settlement>) {
    let mut leased = stand.lease(queue, 100).await;
    let ids = ids(&leased);
    let leases = std::mem::take(&mut leased.leases);
    let attempts = (0..).map(|place| (place % 2 == 0).then(|| attempt(1, 200)));
    let settlements = leases.into_iter().zip(attempts);
    let settlements = settlements.map(|(lease, attempt)| lease.settle(Verdict::Ack, attempt)).collect();
    (leased, ids, settlements)
}

#[test]
fn a_publish_without_options_counts_all_with_one_command() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let before = server.calls("hincrby");
        stand.publish_plain(&queue, 1).await;
        stand.publish_plain(&queue, 300).await;
        assert_eq!(server.calls("hincrby"), before);
        let low = Draft { priority: Priority::Low, ..draft() };
        stand.publish(&queue, &[low.clone(), low.clone()]).await;
        assert_eq!(server.calls("hincrby"), before);
        // What the two ways count is one sum.
        let later = Draft { due: posthaste::store::enqueue::Due::After(Duration::from_mins(1)), ..low };
        stand.publish(&queue, &[draft(), later]).await;
        assert!(server.calls("hincrby") > before);
        stand.publish_plain(&queue, 1).await;
        let stats = stand.stats(&queue).await;
        assert_eq!((stats.counters.accepted, stats.gauges.pending, stats.gauges.scheduled), (306, 305, 1));
        stand.check().await;
    });
}

#[test]
fn a_batch_that_was_all_delivered_is_settled_without_being_read_and_remembered_as_if_it_were() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let (short, long) = (stand.queue("short").await, stand.queue("long").await);
        let mut found: Vec<Vec<Found>> = Vec::new();
        for (queue, is_short) in [(&short, true), (&long, false)] {
            stand.publish(queue, &drafts()).await;
            let (leased, ids, mut settlements) = delivered(&stand, queue).await;
            assert!(settlements.iter().all(|settlement| settlement.gist.is_some()));
            if !is_short {
                for settlement in &mut settlements {
                    settlement.gist = None;
                }
            }
            let read = server.calls("lrange");
            let settlements = Arc::new(settlements);
            for _ in 0..2 {
                // The second one is told by the mark of the first.
                let settled = stand.connection.settle(leased.batch.clone(), settlements.clone()).await;
                assert_eq!(settled, Ok(vec![Settled::Settled; drafts().len()]));
            }
            assert_eq!(server.calls("lrange") > read, !is_short);
            let stats = stand.stats(queue).await;
            assert_eq!((stats.counters.delivered, stats.gauges.leased, stats.gauges.bytes_leased), (3, 0, 0));
            let mut ends = Vec::new();
            for id in ids {
                ends.push(stand.find(queue, id).await.expect("it is remembered"));
            }
            found.push(ends);
        }
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0][1].finished.as_ref().map(|end| &*end.content_type), Some("text/plain"));
        stand.check().await;
    });
}

#[test]
fn what_a_batch_holds_no_more_is_not_settled_by_the_short_way() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 3).await;
        let (leased, _, settlements) = delivered(&stand, &queue).await;
        // One was given back before: what is sent for all three holds for two.
        let back = Settlement { verdict: Verdict::Release, gist: None, ..settlements[1].clone() };
        stand.settle(&leased.batch, vec![back]).await;
        let settled = stand.connection.settle(leased.batch.clone(), Arc::new(settlements.clone())).await;
        assert_eq!(settled, Ok(vec![Settled::Settled, Settled::Lost, Settled::Settled]));
        let stats = stand.stats(&queue).await;
        assert_eq!((stats.counters.delivered, stats.gauges.pending, stats.gauges.leased), (2, 1, 0));
        // One that was tried before has a log of attempts, which is cut: it is looked at, and so are its mates.
        let again = stand.lease(&queue, 1).await;
        assert_eq!(ids(&again).len(), 1);
        stand.settle_all(again, Verdict::Retry { delay: Duration::ZERO }).await;
        let (.., tried) = delivered(&stand, &queue).await;
        assert_eq!(tried[0].gist, None);
    });
}

#[test]
fn a_lease_of_what_lies_in_one_list_asks_for_no_other_and_leaves_what_the_long_way_leaves() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        for lookup in [true, false] {
            let name = if lookup { "found" } else { "unfound" };
            let queue = stand.queue_with(name, |settings| settings.lookup = lookup).await;
            let published = stand.publish_plain(&queue, 300).await;
            let numbered = server.calls("hincrby");
            let mut leased = ids(&stand.lease(&queue, 1).await);
            leased.extend(ids(&stand.lease(&queue, 200).await));
            assert_eq!(server.calls("hincrby"), numbered, "both counted all with one command");
            let gauges = stand.stats(&queue).await.gauges;
            assert_eq!((gauges.pending, gauges.leased), (99, 201));
            stand.check().await;
            // One of another priority lies in another list.
            let low = stand.publish(&queue, &[Draft { priority: Priority::Low, ..draft() }]).await;
            leased.extend(ids(&stand.lease(&queue, 90).await));
            assert!(server.calls("hincrby") > numbered);
            leased.extend(ids(&stand.lease(&queue, 100).await));
            leased.retain(|id| !low.contains(id));
            assert_eq!(leased, published);
            let gauges = stand.stats(&queue).await.gauges;
            assert_eq!((gauges.pending, gauges.leased), (0, 301));
            stand.check().await;
        }
    });
}

#[test]
fn a_lease_that_meets_what_is_to_be_looked_at_takes_what_lies_behind_it() {
    run(async || {
        let clock = Clock::manual(START);
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &clock);
        let queue = stand.queue("orders").await;
        let short = Draft { ttl: Some(Duration::from_secs(1)), ..draft() };
        let published = stand.publish(&queue, &[draft(), short, draft()]).await;
        clock.advance(Duration::from_secs(2));
        assert_eq!(ids(&stand.lease(&queue, 10).await), [published[0], published[2]]);
        assert_eq!(stand.stats(&queue).await.gauges.dead, 1);
        stand.check().await;
    });
}

#[test]
fn a_lease_takes_no_more_bytes_than_it_may_however_they_are_spread() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let of = |bytes| Draft { payload: vec![b'm'; bytes], ..draft() };
        // What comes first is far from the mean: a guess by it reads too little, or too much.
        let mut drafts = vec![of(10); 200];
        drafts.extend(vec![of(4_000); 20]);
        drafts.extend(vec![of(10); 20]);
        let published = stand.publish(&queue, &drafts).await;
        let mut leased = Vec::new();
        for expected in [201, 2, 2] {
            let request =
                LeaseRequest { max: 1_000, bytes_max: 8_500, batch: BatchId::random(), ..request(&queue) };
            let batch = stand.connection.lease(request).await.expect("it is leased");
            assert_eq!(batch.leases.len(), expected);
            leased.extend(ids(&batch));
        }
        assert_eq!(leased, published[..leased.len()]);
        stand.check().await;
    });
}

#[test]
fn what_is_delivered_of_a_batch_is_settled_without_the_rest_of_it() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 10).await;
        let (leased, ids, settlements) = delivered(&stand, &queue).await;
        let counted = server.calls("hincrby");
        for some in [3..5, 0..3, 8..9] {
            let some = Arc::new(settlements[some].to_vec());
            let count = some.len();
            let settled = stand.connection.settle(leased.batch.clone(), some).await;
            assert_eq!(settled, Ok(vec![Settled::Settled; count]));
        }
        assert_eq!(server.calls("hincrby"), counted, "each counted all with one command");
        let stats = stand.stats(&queue).await;
        assert_eq!((stats.counters.delivered, stats.gauges.leased), (6, 4));
        stand.check().await;
        // Some of these were settled before, and count once.
        let settled = stand.connection.settle(leased.batch.clone(), Arc::new(settlements.clone())).await;
        assert_eq!(settled, Ok(vec![Settled::Settled; 10]));
        let stats = stand.stats(&queue).await;
        assert_eq!((stats.counters.delivered, stats.gauges.leased, stats.gauges.bytes_leased), (10, 0, 0));
        for id in ids {
            assert!(stand.find(&queue, id).await.expect("it is remembered").finished.is_some());
        }
        stand.check().await;
    });
}

#[test]
fn a_history_that_is_full_forgets_the_oldest_by_the_short_way_as_well() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        for (max, kept) in [(0, 0), (1, 1), (4, 4)] {
            let queue = stand
                .queue_with(&format!("keeps-{max}"), |settings| settings.history.finished_max = max)
                .await;
            let mut all = Vec::new();
            for _ in 0..5 {
                stand.publish_plain(&queue, 2).await;
                let (leased, ids, mut settlements) = delivered(&stand, &queue).await;
                for settlement in &mut settlements {
                    settlement.attempt = None;
                }
                let settled = stand.connection.settle(leased.batch, Arc::new(settlements)).await;
                assert_eq!(settled, Ok(vec![Settled::Settled; 2]));
                all.extend(ids);
            }
            let mut known = Vec::new();
            for id in &all {
                known.extend(stand.find(&queue, *id).await.is_some().then_some(*id));
            }
            assert_eq!(known, all[10 - kept..], "{max}");
            stand.check().await;
        }
    });
}

#[test]
fn what_was_cancelled_hides_no_other_list_from_a_lease() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let low = stand.publish(&queue, &[Draft { priority: Priority::Low, ..draft() }]).await;
        let normal = stand.publish_plain(&queue, 30).await;
        // As many lie in the longest list as are pending, which are not the same.
        let cancelled = stand.connection.cancel(queue.clone(), normal[28]).await;
        assert_eq!(cancelled, Ok(Cancelled::Cancelled));
        assert_eq!(stand.stats(&queue).await.gauges.pending, 30);
        let leased = ids(&stand.lease(&queue, 25).await);
        assert_eq!(leased.iter().filter(|id| low.contains(id)).count(), 1);
        assert_eq!(stand.drain(&queue).await.len(), 5);
        stand.check().await;
    });
}

#[test]
fn what_was_released_goes_first_though_as_many_lie_behind_it_as_are_pending() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let published = stand.publish_plain(&queue, 4).await;
        let first = stand.lease(&queue, 1).await;
        stand.settle_all(first, Verdict::Release).await;
        let cancelled = stand.connection.cancel(queue.clone(), published[3]).await;
        assert_eq!(cancelled, Ok(Cancelled::Cancelled));
        assert_eq!(ids(&stand.lease(&queue, 1).await), published[..1]);
        assert_eq!(ids(&stand.lease(&queue, 4).await), published[1..3]);
        stand.check().await;
    });
}

#[test]
fn a_settlement_of_nothing_leaves_nothing() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 1).await;
        let leased = stand.lease(&queue, 1).await;
        let kept = server.calls("rpush");
        assert_eq!(stand.connection.settle(leased.batch, Arc::new(Vec::new())).await, Ok(Vec::new()));
        assert_eq!(server.calls("rpush"), kept);
        stand.check().await;
    });
}
