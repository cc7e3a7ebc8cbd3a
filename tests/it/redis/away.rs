//! A server that stands still, and one whose clock is set: nothing that is alive is taken back.
//!
//! These go by the clock of the server.

use posthaste::clock::Clock;
use posthaste::store::lease::{Extended, LeaseRequest, Leased};

use super::{ask, run, stand_at};
use crate::conformance::stand::{Stand, request, seconds, settlements};
use crate::support::gateway::Gateway;
use crate::support::redis::RedisServer;
use posthaste::domain::retry::Verdict;
use posthaste::store::lease::Settled;

/// The key where the once-a-second look leaves its time.
const CLOCK: &[u8] = b"ph:{0}:clock";
/// The deadlines of a queue's batches.
const DEADLINES: &[u8] = b"ph:{orders#0}:l";
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

/// Whatever the clock did, it was long ago.
fn end_grace(server: &RedisServer) {
    ask::<i64>(server, &[b"HSET", CLOCK, b"from", b"1", b"gap", b"1"]);
}

/// Makes it so long ago that anybody looked at the store.
fn last_look_was(server: &RedisServer, ago_ms: i64) -> i64 {
    let tick = server_ms(server) - ago_ms;
    ask::<i64>(server, &[b"HSET", CLOCK, b"tick", tick.to_string().as_bytes()]);
    tick
}

/// Moves what is noted in the store so far back, as if that time had passed.
fn pass(server: &RedisServer, span_ms: i64) {
    let back = (-span_ms).to_string();
    for field in [b"from".as_slice(), b"gap"] {
        ask::<i64>(server, &[b"HINCRBY", CLOCK, field, back.as_bytes()]);
    }
    for batch in batches(server) {
        ask::<String>(server, &[b"ZINCRBY", DEADLINES, back.as_bytes(), &batch]);
    }
}

fn batches(server: &RedisServer) -> Vec<Vec<u8>> {
    ask(server, &[b"ZRANGE", DEADLINES, b"0", b"-1"])
}

fn set_deadline(server: &RedisServer, batch: &[u8], at_ms: i64) {
    ask::<i64>(server, &[b"ZADD", DEADLINES, at_ms.to_string().as_bytes(), batch]);
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
        let batch = &batches(&server)[0];
        ask::<i64>(&server, &[b"ZADD", DEADLINES, before.as_bytes(), batch]);
        assert_the_owner_goes_on(&server, &stand, leased).await;
    });
}

#[test]
fn a_clock_set_back_takes_nothing_from_the_living() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::system());
        let leased = three_leased(&stand).await;
        // What it noted an hour ahead: also a gap, which would hold everything up for as long.
        let ahead = (server_ms(&server) + 3_600_000).to_string();
        let noted = [b"tick".as_slice(), b"from", b"gap"].map(|field| [field, ahead.as_bytes()]).concat();
        ask::<i64>(&server, &[[b"HSET".as_slice(), CLOCK].as_slice(), &noted].concat());
        assert_eq!(stand.sweep().await.reaped, 0);
        let gap: i64 = ask(&server, &[b"HGET", CLOCK, b"gap"]);
        let ago_ms = server_ms(&server) - gap;
        assert!((0..60_000).contains(&ago_ms), "it was found {ago_ms} ms ago");
        assert_the_owner_goes_on(&server, &stand, leased).await;
    });
}

#[test]
fn a_queue_with_a_long_lease_holds_up_no_lost_lease_of_another() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::system());
        stand.queue_with("slow", |settings| settings.lease = Some(seconds(12 * 3_600))).await;
        let leased = three_leased(&stand).await;
        let from = last_look_was(&server, 10_000);
        set_deadline(&server, &batches(&server)[0], from + 1_000);
        assert_eq!(stand.sweep().await.reaped, 0, "its owner may live");
        let until = stand.stats(&leased.batch.queue).await.recovering_until.expect("it is shown");
        let left = until.since(stand.now());
        assert!(left <= seconds(LEASE_S) / 3 + seconds(5), "{left:?}");
        pass(&server, 7_000);
        assert_eq!(stand.sweep().await.reaped, 3);
        assert_eq!(stand.stats(&leased.batch.queue).await.recovering_until, None);
        stand.check().await;
    });
}

#[test]
fn what_ran_out_while_the_store_was_away_keeps_what_it_had_left() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::system());
        let queue = three_leased(&stand).await.batch.queue;
        let first = batches(&server).remove(0);
        stand.publish_plain(&queue, 2).await;
        stand.take(request(&queue)).await;
        let second = batches(&server).into_iter().find(|batch| *batch != first).expect("another batch");
        let from = last_look_was(&server, 1_000_000);
        set_deadline(&server, &first, from + 500_000);
        assert_eq!(stand.sweep().await.reaped, 0);
        // The second was extended since, and lost; the first had 500 s left.
        set_deadline(&server, &second, server_ms(&server) + 2_000);
        pass(&server, 60_000);
        assert_eq!(stand.sweep().await.reaped, 2);
        let until = stand.stats(&queue).await.recovering_until.expect("the first is kept");
        let left = until.since(stand.now());
        assert!((seconds(400)..=seconds(440)).contains(&left), "{left:?}");
        pass(&server, 440_000);
        assert_eq!(stand.sweep().await.reaped, 3);
        stand.check().await;
    });
}

#[test]
fn a_second_gap_soon_after_a_short_one_takes_nothing_from_what_was_left() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::system());
        three_leased(&stand).await;
        let from = last_look_was(&server, 40_000);
        set_deadline(&server, &batches(&server)[0], from + 30_000);
        assert_eq!(stand.sweep().await.reaped, 0);
        // Ten seconds later it is away again, for as long: of the thirty twenty are left.
        pass(&server, 20_000);
        last_look_was(&server, 10_000);
        assert_eq!(stand.sweep().await.reaped, 0);
        pass(&server, 10_000);
        assert_eq!(stand.sweep().await.reaped, 0);
        pass(&server, 11_000);
        assert_eq!(stand.sweep().await.reaped, 3);
        stand.check().await;
    });
}

#[test]
fn a_gateway_that_was_killed_takes_lost_leases_back_soon_after_its_start() {
    const SETTINGS: &str = "[queues.orders]\nprocessor = 'pull'\nlease = '3s'\n[queues.slow]\nprocessor = 'log'\nlease = '12h'\n";
    let server = RedisServer::start_durable();
    let mut gateway = Gateway::prepare(SETTINGS, &[]).wrapped(vec![], &server.url());
    gateway.launch_until_ready();
    gateway.publish("orders", &[], b"x");
    let json = [("content-type", "application/json")];
    let leased = gateway.request("POST", "/v1/queues/orders/leases", &json, b"{\"max\":1,\"lease\":\"1s\"}");
    assert_eq!(leased.status, 200, "{}", leased.text());
    gateway.kill();
    last_look_was(&server, 20_000);
    set_deadline(&server, &batches(&server)[0], server_ms(&server) - 19_000);
    gateway.launch_until_ready();
    let of_orders = |gateway: &Gateway, field: &str| {
        let status = gateway.status();
        let queues = status["queues"].as_array().expect("a list");
        queues.iter().find(|queue| queue["name"] == "orders").expect("it is listed")[field].clone()
    };
    gateway.wait_for("it is shown", seconds(10), |gateway| {
        of_orders(gateway, "recovering_until").is_string().then_some(())
    });
    gateway.wait_for("it is taken back", seconds(15), |gateway| {
        (of_orders(gateway, "pending") == 1).then_some(())
    });
    assert!(of_orders(&gateway, "recovering_until").is_null());
    gateway.stop();
}
