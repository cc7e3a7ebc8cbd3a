//! Where messages lie, what is left of them when they are gone, and how much memory they take.

use std::sync::Arc;

use posthaste::clock::Clock;
use posthaste::domain::message::Priority;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::QueueRef;
use posthaste::store::dead::{DeadFilter, Selection};
use posthaste::store::enqueue::{CallId, Due, GroupResult};

use super::{ask, key, lasting_keys, run, stand_at};
use crate::conformance::stand::{Draft, START, Stand, attempt, dead, draft, ids, retry_after, seconds};
use crate::support::redis::RedisServer;

/// Elements of all lists in which messages wait.
fn in_lists(server: &RedisServer, queue: &str) -> i64 {
    let lists = ["ps", "ph", "p0", "p1", "p2", "r0", "r1", "r2"];
    lists.iter().map(|list| ask::<i64>(server, &[b"LLEN", key(queue, list).as_bytes()])).sum()
}

/// Some of everything that can become of a message.
async fn live_through_it_all(server: &RedisServer, stand: &Stand, queue: &QueueRef) {
    for priority in [Priority::High, Priority::Normal, Priority::Low] {
        stand.publish(queue, &vec![Draft { priority, ..draft() }; 40]).await;
    }
    for number in 0..20 {
        assert_eq!(stand.offer(stand.keyed(queue, &format!("key-{number}"), 1)).await, GroupResult::Accepted);
    }
    stand.publish(queue, &vec![Draft { due: Due::After(seconds(30)), ..draft() }; 15]).await;
    let cancelled = stand.publish(queue, &vec![Draft { payload: vec![1; 40_000], ..draft() }; 3]).await;
    stand.publish(queue, &vec![Draft { ttl: Some(seconds(50)), ..draft() }; 5]).await;
    let name = queue.name.as_str();
    assert_eq!(in_lists(server, name), 148);
    assert_eq!(ask::<i64>(server, &[b"ZCARD", key(name, "s").as_bytes()]), 15);
    stand.connection.cancel(queue.clone(), cancelled[0]).await.expect("the store answers");
    let leased = stand.lease(queue, 60).await;
    let batch = leased.batch.clone();
    let verdict = |index: usize| match index % 5 {
        0 => retry_after(seconds(10)),
        1 => dead(DeadReason::Rejected),
        2 => Verdict::Defer { delay: seconds(20) },
        3 => Verdict::Release,
        _ => Verdict::Ack,
    };
    let settle = |(index, lease): (usize, posthaste::store::lease::Lease)| {
        lease.settle(verdict(index), Some(attempt(1, 503)))
    };
    let half = leased.leases.into_iter().enumerate().take(50).map(settle).collect();
    stand.settle(&batch, half).await;
    // Ten are lost.
    stand.pass(seconds(31)).await;
    stand.check().await;
    stand.pass(seconds(31)).await;
    let all = Selection::Filter(DeadFilter::default());
    let replayed =
        stand.connection.replay(queue.clone(), all.clone(), false).await.expect("the store answers");
    assert!(replayed.replayed > 0);
    while !ids(&stand.lease(queue, 7).await).is_empty() {
        stand.pass(seconds(30)).await;
        stand.run(queue, 30, Verdict::Ack).await;
    }
    stand.connection.discard(queue.clone(), all).await.expect("the store answers");
    stand.publish_plain(queue, 30).await;
    let leased = stand.lease(queue, 3).await;
    assert_eq!(stand.connection.purge(queue.clone()).await, Ok(27));
    stand.settle_all(leased, Verdict::Ack).await;
    stand.sweep().await;
}

#[test]
fn at_rest_only_counters_settings_and_bounded_history_are_left() {
    run(async || {
        for lookup in [false, true] {
            let server = RedisServer::start(&[]);
            let stand = stand_at(server.url(), &Clock::manual(START));
            let queue = stand.queue_with("orders", |settings| {
                settings.lookup = lookup;
                settings.history.finished_max = 50;
            });
            let queue = queue.await;
            live_through_it_all(&server, &stand, &queue).await;
            let stats = stand.stats(&queue).await;
            let gauges = stats.gauges;
            assert_eq!((gauges.pending, gauges.scheduled, gauges.leased, gauges.dead), (0, 0, 0, 0));
            assert_eq!((gauges.bytes_waiting, gauges.bytes_leased, gauges.bytes_dead), (0, 0, 0));
            let mut lasting = lasting_keys(&server);
            let of_history = [key("orders", "a"), key("orders", "f")];
            let remembered: i64 = ask(&server, &[b"HGET", key("orders", "c").as_bytes(), b"finished"]);
            // Elements go whole.
            assert!((0..50 + 30).contains(&remembered), "{remembered}");
            assert!(ask::<i64>(&server, &[b"HLEN", of_history[0].as_bytes()]) <= remembered);
            lasting.retain(|name| !of_history.contains(name) && !name.starts_with("ph:{0}:"));
            assert_eq!(lasting, ["ph:changes", "ph:epoch", "ph:queues", "ph:{orders#0}:c"]);
            stand.check().await;
            // The history ends as well.
            stand.pass(seconds(8 * 86_400)).await;
            assert_eq!(
                ask::<i64>(&server, &[b"EXISTS", of_history[0].as_bytes(), of_history[1].as_bytes()]),
                0
            );
        }
    });
}

#[test]
fn a_hundred_thousand_purged_messages_give_their_space_up_by_themselves_step_by_step() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 1_000_000).await;
        // A payload apart must outlive the purge that its message is not in.
        let kept = stand.publish(&queue, &[Draft { payload: vec![1; 40_000], ..draft() }]).await;
        let leased = stand.lease(&queue, 1).await;
        for _ in 0..90 {
            stand.publish_plain(&queue, 1_000).await;
        }
        for _ in 0..10 {
            stand.publish(&queue, &vec![Draft { due: Due::After(seconds(60)), ..draft() }; 1_000]).await;
        }
        assert_eq!(stand.connection.purge(queue.clone()).await, Ok(100_000));
        let gauges = stand.stats(&queue).await.gauges;
        assert_eq!((gauges.pending, gauges.scheduled, gauges.bytes_waiting), (0, 0, 0));
        for index in ["m", "mr", "mt"] {
            assert_eq!(ask::<i64>(&server, &[b"EXISTS", key("orders", index).as_bytes()]), 0, "{index}");
        }
        let mut rounds = 0;
        while stand.connection.sweep().await.expect("the store answers").more {
            rounds += 1;
        }
        assert!((50..200).contains(&rounds), "{rounds} rounds");
        assert_eq!(ask::<i64>(&server, &[b"HLEN", key("orders", "o").as_bytes()]), 1);
        assert_eq!(ids(&leased), kept);
        stand.settle_all(leased, Verdict::Ack).await;
        let mut lasting = lasting_keys(&server);
        lasting.retain(|name| !name.starts_with("ph:{0}:") && *name != key("orders", "f"));
        assert_eq!(lasting, ["ph:changes", "ph:epoch", "ph:queues", "ph:{orders#0}:c"]);
        stand.check().await;
        // With nothing beside them they go at once.
        stand.publish_plain(&queue, 1_000).await;
        assert_eq!(stand.connection.purge(queue.clone()).await, Ok(1_000));
        assert_eq!(
            ask::<i64>(&server, &[b"EXISTS", key("orders", "mr").as_bytes(), key("orders", "z").as_bytes()]),
            0
        );
    });
}

#[test]
fn a_pending_message_takes_little_memory_beyond_its_own_bytes() {
    const MESSAGES: u64 = 100_000;
    const PAYLOAD_BYTES: u64 = 200;
    let used = |server: &RedisServer| {
        let info: String = ask(server, &[b"INFO", b"memory"]);
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:").map(str::to_owned));
        used.expect("it says so").trim().parse::<u64>().expect("a number")
    };
    run(async || {
        for (lookup, bytes_max) in [(false, 60), (true, 150)] {
            let server = RedisServer::start(&[]);
            let stand = stand_at(server.url(), &Clock::manual(START));
            let queue = stand.queue_with("orders", |settings| {
                settings.lookup = lookup;
                settings.limits.length_max = 1_000_000;
            });
            let queue = queue.await;
            let publish_thousand = async || {
                let large = Draft { payload: vec![b'x'; 200], ..draft() };
                let group = stand.group(&queue, &vec![large; 1_000]);
                let results = stand.connection.enqueue(CallId::random(), Arc::new(vec![group])).await;
                assert_eq!(results, Ok(vec![GroupResult::Accepted]));
            };
            // What the server sets aside for calls of that size stays the same from then on.
            for _ in 0..10 {
                publish_thousand().await;
            }
            let before = used(&server);
            for _ in 0..MESSAGES / 1_000 {
                publish_thousand().await;
            }
            let beside = used(&server) - before - MESSAGES * PAYLOAD_BYTES;
            assert!(beside <= MESSAGES * bytes_max, "{beside} B beside {MESSAGES} payloads, lookup {lookup}");
        }
    });
}
