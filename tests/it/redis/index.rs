//! Where pending messages are looked up: what lies there at which time, and that it is right whatever moves.

use std::sync::Arc;
use std::time::Duration;

use posthaste::clock::Clock;
use posthaste::domain::id::MessageId;
use posthaste::domain::message::State;
use posthaste::domain::retry::Verdict;
use posthaste::domain::timestamp::Timestamp;
use posthaste::store::QueueRef;
use posthaste::store::enqueue::{CallId, Group, GroupResult};
use posthaste::store::stats::Cancelled;

use super::{ask, key, lasting_keys, run, stand_at};
use crate::conformance::stand::{Draft, START, Stand, draft, ids, retry_after, seconds};
use crate::support::redis::RedisServer;

/// How much is in the index: ids by themselves, runs, moments, batches.
fn sizes(server: &RedisServer) -> [i64; 4] {
    ["m", "mr", "mt", "bi"].map(|name| ask(server, &[b"HLEN", key("orders", name).as_bytes()]))
}

/// Publishes messages whose ids say that they were made at these moments in turn, as a gateway with another clock does.
async fn publish_of(stand: &Stand, queue: &QueueRef, drafts: &[Draft], made: &[Timestamp]) -> Vec<MessageId> {
    let messages: Vec<_> =
        drafts.iter().zip(made.iter().cycle()).map(|(draft, at)| draft.build(*at)).collect();
    let ids = messages.iter().map(|message| message.id).collect();
    let group = Group { messages: messages.into(), ..stand.group(queue, &[]) };
    let results = stand.connection.enqueue(CallId::random(), Arc::new(vec![group])).await;
    assert_eq!(results, Ok(vec![GroupResult::Accepted]));
    ids
}

async fn assert_found(stand: &Stand, queue: &QueueRef, all: &[MessageId], state: State) {
    for (place, id) in all.iter().enumerate() {
        let found = stand.find(queue, *id).await.map(|found| found.state);
        assert_eq!(found, Some(state), "message {place}");
    }
}

#[test]
fn a_lease_leaves_what_is_fresh_to_its_runs_and_they_go_when_it_passed_them() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let all = stand.publish_plain(&queue, 1_000).await;
        assert_eq!(sizes(&server), [0, 8, 1, 0]);
        let leased = stand.lease(&queue, 300).await;
        assert_eq!(sizes(&server), [0, 6, 1, 1]);
        assert_found(&stand, &queue, &all[..300], State::Leased).await;
        assert_found(&stand, &queue, &all[300..], State::Pending).await;
        stand.settle_all(leased, Verdict::Release).await;
        assert_eq!(sizes(&server), [300, 6, 1, 0]);
        assert_found(&stand, &queue, &all, State::Pending).await;
        stand.check().await;
        assert_eq!(stand.run(&queue, 1_000, retry_after(seconds(0))).await, all);
        assert_eq!(sizes(&server), [1_000, 0, 0, 0]);
        assert_found(&stand, &queue, &all, State::Pending).await;
        assert_eq!(stand.run(&queue, 1_000, Verdict::Ack).await, all);
        assert_eq!(sizes(&server), [0; 4]);
    });
}

#[test]
fn the_last_fresh_message_leaves_no_run_whether_leased_or_cancelled_and_the_next_one_begins_another() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        for count in [1, 2, 125, 3, 130, 254, 1, 1] {
            let all = stand.publish_plain(&queue, count).await;
            assert_found(&stand, &queue, &all, State::Pending).await;
            stand.check().await;
            if count % 2 == 0 {
                stand.run(&queue, 1_000, Verdict::Ack).await;
            } else {
                for id in all {
                    assert_eq!(stand.connection.cancel(queue.clone(), id).await, Ok(Cancelled::Cancelled));
                }
            }
            assert_eq!(sizes(&server), [0; 4], "after {count}");
        }
    });
}

#[test]
fn gateways_whose_clocks_differ_are_looked_up_alike() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let skews = [seconds(0), seconds(3_600), seconds(7)];
        let mut all = Vec::new();
        for round in 0..60 {
            // In one call all of them, or one call of each; and one whose clock stands still.
            let clocks = skews.map(|skew| stand.now().saturating_add(skew));
            let made = if round % 4 == 0 { &clocks[..] } else { &clocks[round % 3..][..1] };
            all.extend(publish_of(&stand, &queue, &vec![draft(); 40], made).await);
            all.extend(publish_of(&stand, &queue, &[draft()], &[START]).await);
            stand.clock.advance(Duration::from_millis(900));
        }
        assert_found(&stand, &queue, &all, State::Pending).await;
        stand.check().await;
        let mut left = &all[..];
        while !left.is_empty() {
            let leased = ids(&stand.lease(&queue, 500).await);
            assert_eq!(leased, left[..leased.len()]);
            assert_found(&stand, &queue, &leased, State::Leased).await;
            left = &left[leased.len()..];
            assert_found(&stand, &queue, &left[..left.len().min(200)], State::Pending).await;
            stand.check().await;
        }
        assert_eq!(sizes(&server)[..3], [0; 3]);
    });
}

#[test]
fn messages_that_junk_moves_are_found_and_leave_nothing_behind() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let list = key("orders", "p1");
        let mut all = Vec::new();
        for _ in 0..4 {
            all.extend(stand.publish_plain(&queue, 100).await);
            ask::<i64>(&server, &[b"RPUSH", list.as_bytes(), b"junk"]);
            ask::<i64>(&server, &[b"LPUSH", list.as_bytes(), b"junk"]);
        }
        assert_found(&stand, &queue, &all, State::Pending).await;
        for id in all.iter().skip(50).step_by(90) {
            assert_eq!(stand.connection.cancel(queue.clone(), *id).await, Ok(Cancelled::Cancelled));
        }
        let first = ids(&stand.lease(&queue, 150).await);
        assert_found(&stand, &queue, &first, State::Leased).await;
        stand.pass(seconds(30)).await;
        assert_found(&stand, &queue, &first, State::Pending).await;
        assert_eq!(stand.drain(&queue).await.len(), 396);
        assert_eq!(stand.stats(&queue).await.foreign, 8);
        assert_eq!(sizes(&server), [0; 4]);
    });
}

#[test]
fn what_was_published_while_lookup_was_off_is_in_nobodys_way() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 30).await;
        let early = stand.lease(&queue, 5).await;
        stand.change(&queue, |settings| settings.lookup = false).await;
        assert_eq!(sizes(&server), [0; 4]);
        stand.publish_plain(&queue, 30).await;
        let silent = stand.lease(&queue, 5).await;
        stand.settle_all(early, Verdict::Release).await;
        stand.change(&queue, |settings| settings.lookup = true).await;
        let known = stand.publish_plain(&queue, 30).await;
        assert_found(&stand, &queue, &known, State::Pending).await;
        stand.settle_all(silent, retry_after(seconds(0))).await;
        stand.check().await;
        let mut came = stand.drain(&queue).await;
        came.retain(|id| known.contains(id));
        assert_eq!(came, known);
        assert_eq!(sizes(&server), [0; 4]);
        stand.check().await;
        let mut lasting = lasting_keys(&server);
        lasting.retain(|name| !name.starts_with("ph:{0}:") && *name != key("orders", "f"));
        assert_eq!(lasting, ["ph:changes", "ph:epoch", "ph:queues", "ph:{orders#0}:c"]);
    });
}

#[test]
fn an_index_that_is_somebody_elses_costs_only_the_looking_up() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let all = stand.publish_plain(&queue, 200).await;
        for name in ["m", "mr", "mt", "bi"] {
            ask::<String>(&server, &[b"SET", key("orders", name).as_bytes(), b"mine"]);
        }
        assert_eq!(stand.find(&queue, all[0]).await, None);
        assert_eq!(stand.connection.cancel(queue.clone(), all[0]).await, Ok(Cancelled::Unknown));
        stand.run(&queue, 50, Verdict::Release).await;
        assert_eq!(stand.drain(&queue).await, all);
    });
}

#[test]
fn messages_published_seconds_apart_take_no_more_memory_to_look_up_than_the_limit() {
    const MESSAGES: u64 = 50_000;
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 1_000_000).await;
        stand.publish_plain(&queue, 1).await;
        let publish_thousand = async || {
            let drafts = vec![Draft { payload: vec![b'x'; 200], ..draft() }; 1_000];
            let apart: Vec<_> = (0..1_000).map(|step| stand.now().saturating_add(seconds(step))).collect();
            publish_of(&stand, &queue, &drafts, &apart).await;
            stand.clock.advance(seconds(1_000));
        };
        // What the server sets aside for calls of that size stays the same from then on.
        for _ in 0..10 {
            publish_thousand().await;
        }
        let before = server.info("used_memory");
        for _ in 0..MESSAGES / 1_000 {
            publish_thousand().await;
        }
        let beside = (server.info("used_memory") - before) / MESSAGES - 200;
        assert!(beside <= 150, "{beside} B beside each payload");
    });
}
