//! What a single call may take of Redis has an end, and what must be known is written whatever the memory.

use posthaste::clock::Clock;
use posthaste::domain::id::MessageId;
use posthaste::domain::message::State;
use posthaste::domain::outcome::Attempt;
use posthaste::domain::retry::Verdict;
use posthaste::store::Hold;
use posthaste::store::dead::{DeadFilter, DeadGrouping};
use posthaste::store::health::COUNTERS_DIFFER;
use posthaste::store::stats::Cancelled;

use super::{ask, key, run, stand_at};
use crate::conformance::stand::{START, attempt, retry_after, seconds};
use crate::support::redis::RedisServer;

/// Runs a script on one key.
fn script(server: &RedisServer, text: &str, key: &str) {
    ask::<redis::Value>(server, &[b"EVAL", text.as_bytes(), b"1", key.as_bytes()]);
}

#[test]
fn a_long_history_is_looked_through_in_many_small_calls() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let known = stand.publish_plain(&queue, 1).await[0];
        stand.drain(&queue).await;
        // Elements without messages: they count for nothing but the looking.
        let fill = "for _ = 1, 20000 do redis.call('RPUSH', KEYS[1], struct.pack('>I6I2', 1, 0)) end";
        script(&server, fill, &key("orders", "f"));
        let before = server.calls("evalsha_ro");
        let found = stand.find(&queue, known).await.expect("it is remembered");
        assert_eq!(found.state, State::Delivered);
        assert!(server.calls("evalsha_ro") - before >= 30, "one call looked at too much");
        assert_eq!(stand.find(&queue, MessageId::from_bytes([1; 16])).await, None);
    });
}

#[test]
fn many_leases_are_looked_through_in_many_small_calls() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let known = stand.publish_plain(&queue, 1).await[0];
        stand.lease(&queue, 1).await;
        // Batches of others, as very many consumers have them.
        let fill = "for number = 1, 20000 do redis.call('HSET', KEYS[1], 'batch' .. number, string.rep('x', 16)) end";
        script(&server, fill, &key("orders", "bi"));
        let before = server.calls("evalsha_ro");
        assert_eq!(stand.find(&queue, MessageId::from_bytes([1; 16])).await, None);
        assert!(server.calls("evalsha_ro") - before >= 15, "one call looked at too much");
        let found = stand.find(&queue, known).await.expect("it is there");
        assert_eq!(found.state, State::Leased);
        assert_eq!(stand.connection.cancel(queue.clone(), known).await, Ok(Cancelled::Leased));
        let unknown = stand.connection.cancel(queue.clone(), MessageId::from_bytes([1; 16])).await;
        assert_eq!(unknown, Ok(Cancelled::Unknown));
    });
}

#[test]
fn what_was_cancelled_is_passed_in_bounded_steps() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue_with("orders", |settings| settings.lookup = false).await;
        let first = stand.publish_plain(&queue, 1).await;
        // As so many calls of `cancel` leave it.
        script(&server, "for _ = 1, 70000 do redis.call('RPUSH', KEYS[1], '') end", &key("orders", "p1"));
        let last = stand.publish_plain(&queue, 1).await;
        assert_eq!(stand.run(&queue, 1, Verdict::Ack).await, first);
        assert!(
            ask::<i64>(&server, &[b"LLEN", key("orders", "p1").as_bytes()]) > 10_000,
            "one call passed them all"
        );
        let mut came = Vec::new();
        for _ in 0..10 {
            came.extend(stand.run(&queue, 1, Verdict::Ack).await);
        }
        assert_eq!(came, last);
        stand.check().await;
    });
}

#[test]
fn letters_that_are_damaged_hold_up_no_page() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let fill = "for number = 1, 2500 do redis.call('ZADD', KEYS[1], 1, 'junk' .. number) end";
        script(&server, fill, &key("orders", "d"));
        let died = stand.publish_dead(&queue, 3).await;
        let groups = stand.connection.dead_groups(queue.clone(), DeadGrouping::Reason).await;
        assert_eq!(groups.expect("the store answers")[0].count, 3);
        let (mut seen, mut cursor) = (Vec::new(), None);
        for _ in 0..10 {
            let page = stand.connection.list_dead(queue.clone(), DeadFilter::default(), cursor, 2).await;
            let page = page.expect("the store answers");
            seen.extend(page.letters.into_iter().map(|letter| letter.id));
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!((seen, cursor), (died, None));
    });
}

#[test]
fn a_change_and_work_to_do_are_told_when_memory_is_full() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 1).await;
        let leased = stand.lease(&queue, 1).await;
        ask::<i64>(&server, &[b"DEL", b"ph:{0}:due"]);
        ask::<String>(&server, &[b"CONFIG", b"SET", b"maxmemory", b"1"]);
        let before: u64 = ask(&server, &[b"GET", b"ph:changes"]);
        stand.hold(&queue, Hold::Pause).await;
        assert_eq!(ask::<u64>(&server, &[b"GET", b"ph:changes"]), before + 1);
        stand.settle_all(leased, retry_after(seconds(7))).await;
        let due: u64 = ask(&server, &[b"ZSCORE", b"ph:{0}:due", b"orders"]);
        assert_eq!(due, START.as_millis() + 7_000);
    });
}

#[test]
fn gauges_that_say_something_else_than_the_keys_are_told_and_set_right() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 3).await;
        stand.lease(&queue, 1).await;
        let told = async || {
            stand.pass(seconds(3)).await;
            let health = stand.connection.health().await.expect("the store answers");
            health.troubles.iter().map(|trouble| trouble.code).collect::<Vec<_>>()
        };
        let counters = key("orders", "c");
        for (gauge, was) in [("pending", 2), ("leased", 1), ("scheduled", 0), ("dead", 0)] {
            for value in ["7", "-4"] {
                ask::<i64>(&server, &[b"HSET", counters.as_bytes(), gauge.as_bytes(), value.as_bytes()]);
                assert_eq!(told().await, [COUNTERS_DIFFER], "{gauge} {value}");
                assert_eq!(ask::<i64>(&server, &[b"HGET", counters.as_bytes(), gauge.as_bytes()]), was);
                assert_eq!(told().await, [""; 0], "{gauge} {value}");
            }
        }
        let counted = stand.stats(&queue).await.counters;
        assert_eq!((counted.accepted, counted.purged, counted.dead_lettered), (3, 0, 0));
        stand.check().await;
    });
}

#[test]
fn attempts_that_are_remembered_take_no_more_than_their_bound() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let all = stand.publish_plain(&queue, 3).await;
        let tries = async |max: u16, number: u8| {
            let leased = stand.lease(&queue, max).await;
            let batch = leased.batch.clone();
            let tried = |lease: posthaste::store::lease::Lease| {
                let attempt = Attempt { error: Some("e".repeat(200)), ..attempt(number, 503) };
                lease.settle(retry_after(seconds(0)), Some(attempt))
            };
            stand.settle(&batch, leased.leases.into_iter().map(tried).collect()).await;
        };
        tries(1, 1).await;
        let counters = key("orders", "c");
        let counted = || -> u64 { ask(&server, &[b"HGET", counters.as_bytes(), b"bytes_log"]) };
        let one = counted();
        assert!((300..400).contains(&one), "{one}");
        stand.check().await;
        // As many others would bring it there: one has room, the other not.
        let full = (64_u64 << 20) - one - one / 2;
        ask::<i64>(&server, &[b"HINCRBY", counters.as_bytes(), b"bytes_log", full.to_string().as_bytes()]);
        tries(2, 1).await;
        assert!(counted() <= 64 << 20, "{}", counted());
        let mut remembered = 0;
        for id in &all {
            remembered += stand.find(&queue, *id).await.expect("it is there").history.len();
        }
        assert_eq!(remembered, 1);
        // The last attempt of one that is remembered takes the place of the one before.
        let before = counted();
        tries(3, 2).await;
        let found = stand.find(&queue, all[0]).await.expect("it is there");
        assert_eq!(found.history.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [2]);
        assert_eq!(counted(), before);
        assert_eq!(stand.drain(&queue).await.len(), 3);
        // Their end gives it back.
        ask::<i64>(&server, &[b"DEL", key("orders", "a").as_bytes()]);
        stand.pass(seconds(1)).await;
        assert_eq!(ask::<i64>(&server, &[b"HEXISTS", counters.as_bytes(), b"bytes_log"]), 0);
        stand.check().await;
    });
}
