//! A number that is none, or another than it was: what Lua takes for a number and Redis does not, counters that somebody wrote over,
//! places that lead nowhere. The queue mends itself within a sweep, and nothing is said to be gone that is not.

use std::collections::BTreeMap;

use posthaste::clock::Clock;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::queue::QueueSettings;
use posthaste::store::enqueue::{Due, GroupResult};
use posthaste::store::health::{COUNTERS_DIFFER, Instance};
use posthaste::store::{Deleted, QueueRef};

use super::{ask, key, run, stand_at};
use crate::conformance::stand::{Draft, START, Stand, dead, draft, pull_request, seconds, settlement};
use crate::support::redis::RedisServer;

/// None of them is a number of ours; Lua takes the first eight for one.
const JUNK: [&str; 12] =
    ["nan", "-nan", "inf", "-inf", "1e999", "0x10", "1e3", "99999999999999999999", "", "x", "5-", "\u{7f}"];

/// The same for each place where a message can be: three pending, two scheduled, one leased, one dead, one delivered.
async fn live(stand: &Stand, queue: &QueueRef) {
    stand.publish_plain(queue, 6).await;
    stand.take(pull_request(queue)).await;
    stand.pass(seconds(100)).await;
    let taken = stand.lease(queue, 2).await;
    let batch = taken.batch.clone();
    let verdicts = [dead(DeadReason::Rejected), posthaste::domain::retry::Verdict::Ack];
    let ends = (0..).zip(verdicts).map(|(index, verdict)| settlement(index, verdict)).collect();
    stand.settle(&batch, ends).await;
    stand.publish(queue, &vec![Draft { due: Due::After(seconds(7_200)), ..draft() }; 2]).await;
    stand.lease(queue, 1).await;
}

fn set(server: &RedisServer, field: &str, value: &str) {
    ask::<i64>(server, &[b"HSET", key("orders", "c").as_bytes(), field.as_bytes(), value.as_bytes()]);
}

fn fields(server: &RedisServer) -> BTreeMap<String, Vec<u8>> {
    let mut all: BTreeMap<String, Vec<u8>> = ask(server, &[b"HGETALL", key("orders", "c").as_bytes()]);
    all.retain(|field, _| !["number", "turn", "settings", "h3"].contains(&field.as_str()));
    all
}

/// What is told now, and whether messages are said to be gone.
async fn told(stand: &Stand) -> (Vec<&'static str>, bool) {
    let health = stand.connection.health().await.expect("the store answers");
    let is_gone = health.warnings.iter().any(|warning| warning.code == "messages_gone");
    (health.troubles.iter().map(|trouble| trouble.code).collect(), is_gone)
}

/// One sweep finds and mends it, the next one finds nothing.
async fn is_mended(stand: &Stand, what: &str) {
    stand.connection.sweep().await.expect("the store answers");
    assert_eq!(told(stand).await, (vec![COUNTERS_DIFFER], false), "{what}");
    stand.connection.sweep().await.expect("the store answers");
    assert_eq!(told(stand).await, (vec![], false), "{what}");
    stand.check().await;
}

#[test]
fn a_gauge_that_only_lua_takes_for_a_number_is_set_to_what_is_there() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        live(&stand, &queue).await;
        let before = fields(&server);
        for gauge in ["pending", "scheduled", "leased", "dead", "bytes_waiting", "bytes_leased", "bytes_dead"]
        {
            for junk in JUNK {
                set(&server, gauge, junk);
                is_mended(&stand, &format!("{gauge} {junk}")).await;
            }
            set(&server, gauge, "-7");
            is_mended(&stand, gauge).await;
        }
        assert_eq!(fields(&server), before);
    });
}

#[test]
fn while_a_gauge_is_no_number_a_queue_takes_no_more_than_its_limit_and_gives_what_it_has() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let limited = |settings: &mut QueueSettings| settings.limits.length_max = 5;
        let queue = stand.queue_with("orders", limited).await;
        stand.publish_plain(&queue, 4).await;
        for gauge in ["pending", "bytes_waiting"] {
            set(&server, gauge, "nan");
        }
        for result in
            [GroupResult::Accepted, GroupResult::QueueFull { setting: "limits.length_max", limit: 5 }]
        {
            assert_eq!(stand.offer(stand.group(&queue, &[draft()])).await, result);
        }
        assert_eq!(stand.lease(&queue, 2).await.leases.len(), 2);
        is_mended(&stand, "after a lease").await;
        assert_eq!(stand.stats(&queue).await.gauges.pending, 3);
        set(&server, "pending", "inf");
        let purged = stand.connection.purge(queue.clone()).await.expect("the store answers");
        assert_eq!(purged, 3);
        set(&server, "leased", "nan");
        let deleted = stand.connection.delete_queue(queue.clone(), false).await;
        assert_eq!(deleted, Ok(Deleted::NotEmpty));
        is_mended(&stand, "after a purge").await;
        assert_eq!(stand.stats(&queue).await.gauges.leased, 2);
    });
}

#[test]
fn counters_that_were_overwritten_are_set_to_what_the_laws_want() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        live(&stand, &queue).await;
        stand.pass(seconds(1)).await;
        let before = fields(&server);
        for counter in
            ["accepted", "delivered", "dead_lettered", "replayed", "cancelled", "purged", "discarded"]
        {
            for junk in JUNK {
                set(&server, counter, junk);
                is_mended(&stand, &format!("{counter} {junk}")).await;
            }
        }
        let mut after = fields(&server);
        after.retain(|field, value| before.contains_key(field) || value != b"0");
        assert_eq!(after, before);
        for (counter, value) in
            [("accepted", "1"), ("accepted", "900"), ("delivered", "99"), ("dead_lettered", "0")]
        {
            set(&server, counter, value);
            is_mended(&stand, &format!("{counter} {value}")).await;
        }
        for counter in ["retried", "trimmed", "recovered", "deferred", "foreign", "bytes_log"] {
            set(&server, counter, "nan");
            is_mended(&stand, counter).await;
        }
        stand.publish_plain(&queue, 2).await;
        let (accepted, was) = (stand.stats(&queue).await.counters.accepted, &before["accepted"]);
        assert!(accepted > String::from_utf8_lossy(was).parse().expect("a number"));
    });
}

#[test]
fn a_counter_of_a_queue_where_nothing_happens_is_found_in_turn() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 3).await;
        assert_eq!(stand.drain(&queue).await.len(), 3);
        for (field, value) in
            [("accepted", "abc"), ("delivered", "2"), ("pending", "nan"), ("cancelled", "inf")]
        {
            ask::<i64>(&server, &[b"DEL", b"ph:{0}:due"]);
            set(&server, field, value);
            is_mended(&stand, field).await;
        }
        assert_eq!(stand.stats(&queue).await.gauges.pending, 0);
    });
}

#[test]
fn a_long_queue_whose_gauge_is_no_number_has_the_one_that_the_counters_want() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        for _ in 0..3 {
            stand.publish_plain(&queue, 1_000).await;
        }
        for value in ["nan", "1", "0", "5000"] {
            set(&server, "pending", value);
            is_mended(&stand, value).await;
            assert_eq!(stand.stats(&queue).await.gauges.pending, 3_000, "{value}");
        }
        set(&server, "bytes_waiting", "inf");
        is_mended(&stand, "bytes_waiting").await;
    });
}

#[test]
fn places_and_counts_that_lead_nowhere_stop_neither_a_queue_nor_redis() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 4).await;
        assert_eq!(stand.drain(&queue).await.len(), 4);
        for mending in ["0 5", "9 99999999999999999999", "7 999999999999999999", "3 ", "x", "nan", "1 12345"]
        {
            stand.publish(&queue, &[Draft { due: Due::After(seconds(7_200)), ..draft() }]).await;
            set(&server, "mending", mending);
            set(&server, "scheduled", "700");
            is_mended(&stand, mending).await;
        }
        for junk in JUNK {
            for field in ["h2", "h3", "h4", "h6", "number", "finished", "orphans", "mending", "sifted0"] {
                set(&server, field, junk);
            }
            stand.publish_plain(&queue, 3).await;
            for field in ["h2", "h3", "h4"] {
                set(&server, field, junk);
            }
            assert_eq!(stand.drain(&queue).await.len(), 3, "{junk}");
            stand.connection.sweep().await.expect("the store answers");
            assert_eq!(told(&stand).await, (vec![], false), "{junk}");
        }
        // As great as they come: no sum can be made of it.
        for field in ["number", "h3", "retried", "recovered", "finished"] {
            set(&server, field, "9223372036854775807");
        }
        let again = stand.publish_plain(&queue, 1).await;
        stand.run(&queue, 1, crate::conformance::stand::retry_after(seconds(0))).await;
        assert_eq!(stand.drain(&queue).await, again);
    });
}

#[test]
fn junk_in_the_due_index_and_among_the_gateways_goes() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        stand.queue("orders").await;
        for name in [&b"bad name!"[..], b"", b"\xff\xfe", b"nobody"] {
            ask::<i64>(&server, &[b"ZADD", b"ph:{0}:due", b"0", name]);
        }
        stand.connection.sweep().await.expect("the store answers");
        let left: Vec<Vec<u8>> = ask(&server, &[b"ZRANGE", b"ph:{0}:due", b"0", b"-1"]);
        assert!(left.is_empty() || left == [b"orders"], "{left:?}");
        for heard in ["99999999999999999999999 1.0", "nan 1.0", "1 1.0", "", "9e99 1.0"] {
            ask::<i64>(&server, &[b"HSET", b"ph:instances", heard.as_bytes(), heard.as_bytes()]);
        }
        let own = Instance { id: "own".into(), version: "1".into(), last_seen: START };
        let all = stand.connection.announce(own).await.expect("the store answers");
        assert_eq!(all.iter().map(|instance| &*instance.id).collect::<Vec<_>>(), ["own"]);
    });
}
