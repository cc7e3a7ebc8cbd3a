//! The short ways that scripts have for what is usual: that they are taken, and that they leave what the long ones leave.

use std::sync::Arc;
use std::time::Duration;

use posthaste::clock::Clock;
use posthaste::domain::id::MessageId;
use posthaste::domain::message::{Headers, Priority};
use posthaste::domain::retry::Verdict;
use posthaste::store::QueueRef;
use posthaste::store::lease::{Leased, Settled, Settlement};
use posthaste::store::stats::Found;

use super::{run, stand_at};
use crate::conformance::stand::{Draft, START, Stand, attempt, draft, ids};
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
