//! A server that stands still, and one whose clock is set: nothing that is alive is taken back.
//!
//! These go by the clock of the server.

use posthaste::clock::Clock;
use posthaste::store::lease::{Extended, LeaseRequest, Leased};

use super::{ask, run, stand_at};
use crate::conformance::stand::{Stand, request, seconds, settlements};
use crate::support::redis::RedisServer;
use posthaste::domain::retry::Verdict;
use posthaste::store::lease::Settled;

/// The key where the once-a-second look leaves its time.
const CLOCK: &[u8] = b"ph:{0}:clock";
const LEASE_S: u64 = 2;

/// Three messages in a batch, and a sweeper that looked before.
async fn three_leased(stand: &Stand) -> Leased {
    let queue = stand.queue_with("orders", |settings| settings.lease = Some(seconds(LEASE_S))).await;
    stand.publish_plain(&queue, 3).await;
    stand.sweep().await;
    stand.take(LeaseRequest { lease: seconds(LEASE_S), ..request(&queue) }).await
}

fn server_ms(server: &RedisServer) -> i64 {
    let time: Vec<i64> = ask(server, &[b"TIME"]);
    time[0] * 1_000 + time[1] / 1_000
}

/// Whatever the clock did, the grace is over now.
fn end_grace(server: &RedisServer) {
    ask::<i64>(server, &[b"HSET", CLOCK, b"grace", b"1"]);
}

/// What holds when the store was away: nothing is taken back, the owner goes on, and what nobody owns returns in the end.
async fn assert_the_owner_goes_on(server: &RedisServer, stand: &Stand, leased: Leased) {
    assert_eq!(stand.sweep().await.reaped, 0);
    let extended = stand.connection.extend(leased.batch.clone(), seconds(LEASE_S)).await;
    assert!(matches!(extended, Ok(Extended::Until(_))), "{extended:?}");
    end_grace(server);
    assert_eq!(stand.sweep().await.reaped, 0);
    let batch = leased.batch.clone();
    let mut settled = settlements(leased, &Verdict::Ack);
    settled.truncate(1);
    assert_eq!(stand.settle(&batch, settled).await, [Settled::Settled]);
    let begun = std::time::Instant::now();
    let mut reaped = 0;
    while reaped < 2 {
        assert!(begun.elapsed() < seconds(30), "what nobody owns was not taken back");
        reaped += stand.sweep().await.reaped;
        tokio::time::sleep(seconds(1) / 10).await;
    }
    let stats = stand.stats(&batch.queue).await;
    assert_eq!((stats.counters.delivered, stats.counters.recovered, stats.gauges.pending), (1, 2, 2));
    stand.check().await;
}

#[test]
fn a_freeze_longer_than_the_lease_takes_nothing_from_the_living() {
    run(async || {
        let server = RedisServer::start(&["--enable-debug-command", "yes"]);
        let stand = stand_at(server.url(), &Clock::system());
        let leased = three_leased(&stand).await;
        ask::<String>(&server, &[b"DEBUG", b"SLEEP", b"4"]);
        assert_the_owner_goes_on(&server, &stand, leased).await;
    });
}

#[test]
fn a_clock_set_ahead_takes_nothing_from_the_living() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::system());
        let leased = three_leased(&stand).await;
        // Seen from what it noted, its clock is an hour ahead.
        let before = (server_ms(&server) - 3_600_000).to_string();
        ask::<i64>(&server, &[b"HSET", CLOCK, b"tick", before.as_bytes()]);
        let batches: Vec<Vec<u8>> = ask(&server, &[b"ZRANGE", b"ph:{orders#0}:l", b"0", b"-1"]);
        ask::<i64>(&server, &[b"ZADD", b"ph:{orders#0}:l", before.as_bytes(), &batches[0]]);
        assert_the_owner_goes_on(&server, &stand, leased).await;
    });
}

#[test]
fn a_clock_set_back_takes_nothing_from_the_living() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::system());
        let leased = three_leased(&stand).await;
        // What it noted an hour ahead: also a grace that would last as long.
        let ahead = (server_ms(&server) + 3_600_000).to_string();
        ask::<i64>(&server, &[b"HSET", CLOCK, b"tick", ahead.as_bytes(), b"grace", ahead.as_bytes()]);
        assert_eq!(stand.sweep().await.reaped, 0);
        let grace: i64 = ask(&server, &[b"HGET", CLOCK, b"grace"]);
        let left_ms = grace - server_ms(&server);
        assert!((1..10_000).contains(&left_ms), "the grace lasts {left_ms} ms");
        assert_the_owner_goes_on(&server, &stand, leased).await;
    });
}
