//! What is seen of a Redis that changes while the gateway runs.

use std::time::{Duration, Instant};

use posthaste::domain::retry::Verdict;

use super::{Durability, RedisServer, Rig, not_durable, open, run, strict, until};
use crate::conformance::stand::draft;
use crate::support::gateway::Gateway;
use crate::support::redis::STRICT;

#[test]
fn a_redis_that_becomes_unfit_takes_no_publishes_and_delivering_goes_on() {
    let server = RedisServer::start(&STRICT);
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        for _ in 0..3 {
            rig.publish().await;
        }
        let changes = [
            ("appendfsync", "everysec", "always"),
            ("no-appendfsync-on-rewrite", "yes", "no"),
            ("maxmemory-policy", "allkeys-lru", "noeviction"),
        ];
        for (name, unfit, fit) in changes {
            server.order(&format!("CONFIG SET {name} {unfit}"));
            server.hang_up();
            let why = not_durable(rig.offer_when_connected().await);
            assert!(why.contains(&format!(" CONFIG SET {name} {fit}")), "{why}");
            let health = rig.health().await;
            assert_ne!(health.durability, Durability::Strict);
            assert!(health.durability_reasons[0].contains(name), "{health:?}");
            assert_eq!(rig.work(1, Verdict::Ack).await.len(), 1);
            server.order(&format!("CONFIG SET {name} {fit}"));
            until("it is fit again", async || rig.offer(&[draft()]).await.ok()).await;
            assert_eq!(rig.health().await.durability, Durability::Strict);
        }
    });
}

#[test]
fn an_aof_that_is_turned_on_again_counts_when_its_first_file_is_complete() {
    let server = RedisServer::start(&STRICT);
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        server.ask(&["EVAL", "for i = 1, 3000 do redis.call('SET', 'k' .. i, i) end", "0"]);
        server.order("CONFIG SET appendonly no");
        server.hang_up();
        assert!(not_durable(rig.offer_when_connected().await).contains("appendonly is no"));
        // A thousandth of a second for each key.
        server.order("CONFIG SET rdb-key-save-delay 1000");
        server.order("CONFIG SET appendonly yes");
        until("it is seen", async || {
            let why = not_durable(rig.offer(&[draft()]).await);
            why.contains("first file is not complete").then_some(())
        })
        .await;
        assert_eq!(server.info("aof_rewrite_in_progress"), 1);
        until("it is complete", async || rig.offer(&[draft()]).await.ok()).await;
        assert_eq!(server.info("aof_rewrite_in_progress"), 0);
    });
}

#[test]
fn an_idle_look_costs_two_commands_and_a_change_is_seen_within_half_a_minute() {
    let server = RedisServer::start(&STRICT);
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        rig.publish().await;
        rig.health().await;
        server.order("CONFIG SET appendfsync everysec");
        let (before, begun, mut looks) = (server.info("total_commands_processed"), Instant::now(), 0);
        // Faster than the prober looks: what counts is the number of looks, and the time.
        while rig.health().await.durability == Durability::Strict {
            looks += 1;
            assert!(begun.elapsed() < Duration::from_secs(40), "it is not looked at again");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        looks += 1;
        let sent = server.info("total_commands_processed") - before;
        assert!(begun.elapsed() >= Duration::from_secs(25), "that was not the look every 30 s");
        // One of them was the count itself.
        assert!(sent <= looks * 2 + 2, "{sent} commands for {looks} looks");
        assert!(not_durable(rig.offer(&[draft()]).await).contains("everysec"));
    });
}

#[test]
fn an_emptied_or_swapped_redis_takes_no_publishes_until_a_restart_adopts_it() {
    let server = RedisServer::start(&STRICT);
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        rig.publish().await;
        let second = open(&strict(&server)).expect("it is fit");
        assert_eq!(rig.store.id(), second.id(), "who shares a Redis shares its mark");
        let kept = server.ask(&["GET", "ph:epoch"]);
        let kept = kept.lines().nth(1).expect("there is one").to_owned();
        assert!(kept.ends_with(&*rig.store.id()), "{kept}");

        for change in ["DEL ph:epoch", "SET ph:epoch 1:other"] {
            server.ask(&change.split(' ').collect::<Vec<_>>());
            let health = rig.health().await;
            assert_eq!(health.durability, Durability::Unknown);
            assert!(health.durability_reasons[0].contains(&format!("was {kept}")), "{health:?}");
            let why = not_durable(rig.offer(&[draft()]).await);
            assert!(why.contains("restart"), "{why}");
        }
        assert_eq!(rig.work(1, Verdict::Ack).await.len(), 1, "delivering goes on");
        let adopted = Rig::open(&strict(&server)).await;
        assert_eq!(&*adopted.store.id(), "other");
        adopted.publish().await;
        assert!(rig.offer(&[draft()]).await.is_err(), "but not for the one that runs on");
    });
}

#[test]
fn a_publish_right_after_redis_was_emptied_is_not_told_that_its_queue_is_gone() {
    let server = RedisServer::start(&STRICT);
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        rig.publish().await;
        server.order("FLUSHALL");
        let why = not_durable(rig.offer(&[draft()]).await);
        assert!(why.contains("its epoch is gone"), "{why}");
    });
}

#[test]
fn a_redis_that_becomes_a_replica_takes_no_publishes() {
    let (_other, port) = RedisServer::start_on_port(&STRICT);
    let server = RedisServer::start(&STRICT);
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        rig.publish().await;
        server.order(&format!("REPLICAOF 127.0.0.1 {port}"));
        let why = not_durable(rig.offer_when_connected().await);
        assert!(why.contains(&format!("a replica of 127.0.0.1:{port}")), "{why}");
    });
}

#[test]
fn counters_that_fell_and_junk_are_warned_of() {
    let server = RedisServer::start(&STRICT);
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        rig.publish().await;
        rig.publish().await;
        rig.stats().await;
        let before = rig.warnings().await;
        assert!(before.contains(&"maxmemory_none") && before.contains(&"replica_none"), "{before:?}");
        server.ask(&["HINCRBY", "ph:{orders#0}:c", "accepted", "-1"]);
        rig.stats().await;
        assert!(rig.warnings().await.contains(&"accepted_fell"));
        server.ask(&["LPUSH", "ph:{orders#0}:p1", "junk"]);
        server.ask(&["HINCRBY", "ph:{orders#0}:c", "pending", "1"]);
        rig.lease(10).await;
        assert_eq!(rig.stats().await.foreign, 1);
        assert!(rig.warnings().await.contains(&"foreign_keys"));
        server.order("CONFIG SET maxmemory 1gb");
        server.hang_up();
        until("it is seen on the new connection", async || {
            let codes = rig.warnings().await;
            (!codes.contains(&"maxmemory_none")).then_some(())
        })
        .await;
    });
}

#[test]
fn a_gateway_says_once_that_it_takes_no_publishes_and_once_that_it_does_again() {
    let server = RedisServer::start(&STRICT);
    let mut gateway =
        Gateway::prepare("[queues.orders]\nprocessor = 'pull'\n", &[]).wrapped(vec![], &server.url());
    gateway.launch_until_ready();
    gateway.publish("orders", &[], b"first");
    let within = super::WITHIN;
    let ready = |gateway: &Gateway| gateway.request("GET", "/ready", &[], b"");
    server.order("CONFIG SET appendfsync everysec");
    server.hang_up();
    let answer = gateway.wait_for("it is not ready", within, |gateway| {
        Some(ready(gateway)).filter(|answer| answer.status == 503 && answer.text().contains("not_durable"))
    });
    assert!(answer.text().contains(" CONFIG SET appendfsync always"), "{}", answer.text());
    let refused = gateway.request("POST", "/v1/queues/orders/messages", &[], b"second");
    assert_eq!((refused.status, refused.header("posthaste-stored")), (503, Some("no")), "{}", refused.text());
    assert!(refused.text().contains("\"not_durable\""), "{}", refused.text());
    let now = &gateway.status()["store"]["durability"];
    assert_eq!((now["configured"].as_str(), now["now"].as_str()), (Some("strict"), Some("relaxed")), "{now}");
    server.order("CONFIG SET appendfsync always");
    server.hang_up();
    gateway.wait_for("it is ready again", within, |gateway| (ready(gateway).status == 200).then_some(()));
    gateway.publish("orders", &[], b"third");
    let log = gateway.log();
    assert_eq!(log.matches("publishes are refused, delivering goes on").count(), 1, "{log}");
    assert_eq!(log.matches("publishes are taken").count(), 1, "{log}");
    gateway.stop();
}

#[test]
fn a_gateway_that_takes_redis_as_it_is_still_wants_it_to_be_the_same() {
    let server = RedisServer::start(&[]);
    let arguments = ["--durability", "relaxed"];
    let mut gateway =
        Gateway::prepare("[queues.orders]\nprocessor = 'pull'\n", &arguments).wrapped(vec![], &server.url());
    gateway.launch_until_ready();
    gateway.publish("orders", &[], b"first");
    server.order("SET ph:epoch 1:other");
    gateway.wait_for("it is not ready", super::WITHIN, |gateway| {
        let answer = gateway.request("GET", "/ready", &[], b"");
        (answer.status == 503 && answer.text().contains("its epoch is 1:other and was 1:")).then_some(())
    });
    let refused = gateway.request("POST", "/v1/queues/orders/messages", &[], b"second");
    assert_eq!((refused.status, refused.header("posthaste-stored")), (503, Some("no")), "{}", refused.text());
    let log = gateway.log();
    assert_eq!(log.matches("its epoch is 1:other and was 1:").count(), 1, "{log}");
    gateway.restart();
    gateway.publish("orders", &[], b"third");
    gateway.stop();
}

#[test]
fn an_emptied_redis_takes_no_queues_and_hides_none() {
    let server = RedisServer::start(&STRICT);
    let settings = "[queues.orders]\nprocessor = 'pull'\n";
    let mut gateway = Gateway::prepare(settings, &["--log", "info"]).wrapped(vec![], &server.url());
    gateway.launch_until_ready();
    let put = |name: &str| {
        let headers = [("content-type", "application/json")];
        gateway.request("PUT", &format!("/v1/queues/{name}"), &headers, b"{\"processor\":\"pull\"}")
    };
    assert_eq!(put("api").status, 201);
    server.order("FLUSHALL");
    // At once, and when it is known: nothing is told to be kept there.
    for round in 0..20 {
        let made = put(&format!("new{round}"));
        assert_eq!(made.status, 503, "{}", made.text());
        let published = gateway.request("POST", &format!("/v1/queues/new{round}/messages"), &[], b"x");
        assert!([404, 503].contains(&published.status), "{}", published.text());
        for (method, path) in [
            ("POST", "/v1/queues/orders/pause"),
            ("DELETE", "/v1/queues/api?force=true"),
            ("POST", "/v1/queues/orders/messages"),
        ] {
            let answer = gateway.request(method, path, &[], b"");
            assert_eq!(answer.status, 503, "{method} {path}: {}", answer.text());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(gateway.request("GET", "/v1/queues/orders", &[], b"").status, 200);
    assert_eq!(server.ask(&["EXISTS", "ph:queues"]), ":0\r\n");
    gateway.stop();
}
