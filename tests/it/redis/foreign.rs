//! What others write under our keys, and real damage: both stay where they are, and the neighbours go on.

use std::collections::HashSet;
use std::sync::Arc;

use posthaste::clock::Clock;
use posthaste::domain::id::MessageId;
use posthaste::domain::message::State;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::QueueRef;
use posthaste::store::enqueue::{CallId, Group, GroupResult, IdempotencyKey};
use posthaste::store::stats::Cancelled;

use super::{ask, key, run, stand_at};
use crate::conformance::stand::{Draft, START, Stand, draft, ids, request, retry_after, seconds, settlement};
use crate::support::redis::RedisServer;

#[test]
fn junk_in_a_list_is_put_aside_and_counted_and_its_neighbours_are_untouched() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let first = stand.publish_plain(&queue, 2).await;
        let list = key("orders", "p1");
        for junk in [
            &b"junk"[..],
            &[b'x'; 100],
            &[0; 80],
            b"{\"text\": \"long enough to be taken for a record of some kind\"}",
        ] {
            ask::<i64>(&server, &[b"RPUSH", list.as_bytes(), junk]);
        }
        let last = stand.publish_plain(&queue, 2).await;
        for id in first.iter().chain(&last) {
            assert_eq!(stand.find(&queue, *id).await.map(|found| found.state), Some(State::Pending));
        }
        assert_eq!(stand.connection.cancel(queue.clone(), last[1]).await, Ok(Cancelled::Cancelled));
        assert_eq!(stand.drain(&queue).await, [first[0], first[1], last[0]]);
        assert_eq!(stand.stats(&queue).await.foreign, 4);
        assert_eq!(ask::<i64>(&server, &[b"LLEN", key("orders", "j").as_bytes()]), 4);
        assert_eq!(ask::<i64>(&server, &[b"EXISTS", list.as_bytes()]), 0);
        stand.check().await;
    });
}

#[test]
fn the_pile_of_junk_has_an_end() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        for _ in 0..250 {
            ask::<i64>(&server, &[b"RPUSH", key("orders", "p1").as_bytes(), b"junk"]);
        }
        let published = stand.publish_plain(&queue, 1).await;
        assert_eq!(stand.drain(&queue).await, published);
        assert_eq!(stand.stats(&queue).await.foreign, 250);
        assert_eq!(ask::<i64>(&server, &[b"LLEN", key("orders", "j").as_bytes()]), 100);
        stand.check().await;
    });
}

#[test]
fn what_counts_as_pending_and_lies_nowhere_is_not_asked_for_again_at_once() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 5).await;
        ask::<i64>(&server, &[b"DEL", key("orders", "p1").as_bytes()]);
        let leased = stand.lease(&queue, 1_000).await;
        assert!(leased.leases.is_empty() && !leased.more, "{leased:?}");
        let published = stand.publish_plain(&queue, 1).await;
        assert_eq!(ids(&stand.lease(&queue, 1_000).await), published);
    });
}

#[test]
fn a_byte_that_flips_inside_a_list_kills_its_own_message_alone() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let published = stand.publish_plain(&queue, 5).await;
        let list = key("orders", "p1");
        // In the payload, and in the version, which then is one that never was.
        for (index, byte, bit) in [("1", 50, 1), ("3", 0, 64)] {
            let mut element: Vec<u8> = ask(&server, &[b"LINDEX", list.as_bytes(), index.as_bytes()]);
            element[byte] ^= bit;
            ask::<String>(&server, &[b"LSET", list.as_bytes(), index.as_bytes(), &element]);
        }
        let leased = stand.lease(&queue, 1_000).await;
        assert_eq!(ids(&leased), [published[0], published[2], published[4]]);
        stand.settle_all(leased, Verdict::Ack).await;
        for id in [published[1], published[3]] {
            let letter = stand.connection.dead(queue.clone(), id).await.expect("the store answers");
            assert_eq!(letter.expect("it is dead").reason, DeadReason::Damaged);
        }
        let stats = stand.stats(&queue).await;
        assert_eq!((stats.counters.delivered, stats.gauges.dead, stats.foreign), (3, 2, 0));
        stand.check().await;
    });
}

/// Three messages, one of them large, go every way there is, as far as that goes; gives those that were delivered.
async fn suffer(stand: &Stand, queue: &QueueRef, call: CallId, groups: &Arc<Vec<Group>>) -> Vec<MessageId> {
    let _published = stand.connection.enqueue(call, Arc::clone(groups)).await;
    let Ok(leased) = stand.connection.lease(request(queue)).await else { return Vec::new() };
    let ids = ids(&leased);
    let verdicts =
        [Verdict::Ack, retry_after(seconds(1)), Verdict::Dead { reason: DeadReason::Rejected, detail: None }];
    let all = (0..).zip(verdicts).map(|(index, verdict)| settlement(index, verdict)).collect();
    let _settled = stand.connection.settle(leased.batch, Arc::new(all)).await;
    drop(stand.connection.sweep().await);
    drop(stand.connection.stats(Some(vec![queue.name.clone()])).await);
    ids.into_iter().take(1).collect()
}

#[test]
fn a_key_of_another_type_costs_its_own_queue_nothing_that_was_kept_and_its_neighbours_nothing_at_all() {
    let names = "ps ph p0 p1 p2 r0 r1 r2 s sb m mr mt o d dm db a f b bi l y0 y1 y2 j z i0 i1";
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let good = stand.queue("good").await;
        for name in names.split(' ') {
            let queue = stand.queue(&format!("bad-{name}")).await;
            let broken = key(queue.name.as_str(), name);
            ask::<String>(&server, &[b"SET", broken.as_bytes(), b"mine"]);
            let large = Draft { payload: vec![7; 50_000], ..draft() };
            let key = IdempotencyKey { key: name.as_bytes().to_vec(), fingerprint: [1; 16] };
            let group = Group { key: Some(key), ..stand.group(&queue, &[draft(), draft(), large]) };
            let (call, groups) = (CallId::random(), Arc::new(vec![group]));
            let mut ended: HashSet<_> = suffer(&stand, &queue, call, &groups).await.into_iter().collect();
            // The neighbour: every way works, and nothing hides it.
            let published = stand.publish_plain(&good, 1).await;
            assert!(stand.sweep().await.ready.contains(&good.name), "{name}");
            assert_eq!(stand.drain(&good).await, published, "{name}");
            let all = stand.connection.stats(None).await.expect("the store answers");
            assert!(all.iter().any(|stats| stats.name == good.name), "{name}");
            // What was broken is mended: a call sent again is known, and whatever was not ended comes.
            ask::<i64>(&server, &[b"DEL", broken.as_bytes()]);
            assert_eq!(
                stand.connection.enqueue(call, Arc::clone(&groups)).await,
                Ok(vec![GroupResult::Accepted]),
                "{name}"
            );
            for _ in 0..4 {
                stand.pass(seconds(40)).await;
                ended.extend(stand.drain(&queue).await);
            }
            for message in groups[0].messages.iter() {
                let dead = stand.connection.dead(queue.clone(), message.id).await.expect("the store answers");
                assert!(ended.contains(&message.id) || dead.is_some(), "{name}: a message was lost");
            }
        }
    });
}

#[test]
fn counters_that_are_somebody_elses_hide_no_other_queue() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let good = stand.queue("good").await;
        let bad = stand.queue("bad").await;
        ask::<String>(&server, &[b"SET", key("bad", "c").as_bytes(), b"mine"]);
        assert!(
            stand
                .connection
                .enqueue(CallId::random(), Arc::new(vec![stand.group(&bad, &[draft()])]))
                .await
                .is_err()
        );
        let published = stand.publish_plain(&good, 1).await;
        assert_eq!(stand.sweep().await.ready, std::slice::from_ref(&good.name));
        assert_eq!(stand.connection.stats(None).await.expect("the store answers").len(), 1);
        let other = stand_at(server.url(), &Clock::manual(START));
        assert_eq!(other.connection.queues().await.expect("the store answers").len(), 2);
        assert_eq!(stand.drain(&good).await, published);
    });
}
