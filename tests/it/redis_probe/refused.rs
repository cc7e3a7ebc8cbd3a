//! A Redis that answers whoever only looks, and refuses every write or does not answer it.

use posthaste::store::error::StoreError;

use super::{Durability, RedisServer, Rig, WITHIN, not_durable, refusal, relaxed, run, strict, until};
use crate::conformance::stand::draft;
use crate::support::gateway::Gateway;
use crate::support::redis::STRICT;

#[test]
fn a_gateway_whose_redis_refuses_every_write_is_not_ready_until_it_takes_them() {
    // Where the settings cannot be seen the refusals alone tell of it.
    for (is_hidden, assumes) in [(false, "false"), (true, "true")] {
        let server = RedisServer::start(&STRICT);
        if is_hidden {
            server.order("ACL SETUSER default -config|get");
        }
        let arguments = ["--set", &format!("store.durability_assume={assumes}")];
        let settings = "[queues.orders]\nprocessor = 'pull'\n";
        let mut gateway = Gateway::prepare(settings, &arguments).wrapped(vec![], &server.url());
        gateway.launch_until_ready();
        gateway.publish("orders", &[], b"first");
        // Nobody publishes: the gateway finds it out by itself.
        server.order("CONFIG SET min-replicas-to-write 1");
        let cure = format!("redis-cli -s {} CONFIG SET min-replicas-to-write 0", server.socket().display());
        let why = gateway.wait_for("it is not ready", WITHIN, |gateway| {
            let answer = gateway.request("GET", "/ready", &[], b"");
            (answer.status == 503 && answer.text().contains("not_swept")).then(|| answer.text())
        });
        assert!(why.contains("not_durable") && why.contains("NOREPLICAS") && why.contains(&cure), "{why}");
        let status = gateway.status();
        assert_eq!(status["store"]["durability"]["now"], "unknown", "{status}");
        let reasons = status["store"]["durability"]["reasons"].to_string();
        assert_eq!(reasons.matches("NOREPLICAS").count(), 1, "it is told once: {reasons}");
        assert!(status["store"]["warnings"].to_string().contains("not_swept"), "{status}");
        let refused = gateway.request("POST", "/v1/queues/orders/messages", &[], b"second");
        assert_eq!((refused.status, refused.header("posthaste-stored")), (503, Some("no")));
        server.order("CONFIG SET min-replicas-to-write 0");
        gateway.wait_for("it is ready again", WITHIN, |gateway| {
            (gateway.request("GET", "/ready", &[], b"").status == 200).then_some(())
        });
        gateway.publish("orders", &[], b"third");
        gateway.stop();
    }
}

#[test]
fn a_redis_that_cannot_write_its_files_takes_no_publishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let gone = folder.path().join("gone");
    std::fs::create_dir(&gone).expect("a folder");
    let server = RedisServer::start(&["--enable-protected-configs", "yes"]);
    run(async {
        let rig = Rig::open(&relaxed(&server)).await;
        rig.publish().await;
        server.order(&format!("CONFIG SET dir {}", gone.display()));
        std::fs::remove_dir(&gone).expect("it was empty");
        assert_eq!(server.ask(&["CONFIG", "SET", "save", "3600 1"]), "+OK\r\n");
        server.ask(&["BGSAVE"]);
        let why = until("the snapshot failed", async || match rig.offer(&[draft()]).await {
            Err(StoreError::NotDurable(why)) => Some(why),
            Ok(()) => None,
            other => panic!("{other:?}"),
        });
        assert!(why.await.contains("MISCONF"));
        // That one refusal is reason enough to look.
        let health = rig.health().await;
        assert_eq!(health.durability, Durability::Unknown, "{health:?}");
        let cure = "CONFIG SET stop-writes-on-bgsave-error no";
        let reasons = health.durability_reasons.iter().filter(|reason| reason.contains("MISCONF"));
        let reasons: Vec<_> = reasons.collect();
        assert!(reasons.len() == 1 && reasons[0].ends_with(cure), "{health:?}");
        assert!(not_durable(rig.offer(&[draft()]).await).contains(cure));
        assert!(refusal(&relaxed(&server)).contains(cure), "nor does another gateway start");
        server.order(cure);
        until("it is seen", async || rig.offer(&[draft()]).await.ok()).await;
        until("it has snapshots", async || {
            (rig.health().await.durability == Durability::Relaxed).then_some(())
        })
        .await;
    });
}

#[test]
fn writes_that_are_left_without_an_answer_are_told_while_looks_are_answered() {
    let server = RedisServer::start(&STRICT);
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        rig.publish().await;
        server.order("CLIENT PAUSE 60000 WRITE");
        let swept = rig.connection.sweep().await;
        assert!(matches!(swept, Err(StoreError::Timeout(_))), "{swept:?}");
        let health = rig.health().await;
        assert_eq!(health.durability, Durability::Unknown);
        let reason = health.durability_reasons.last().expect("there is one");
        assert!(reason.contains("no write") && reason.contains("CLIENT UNPAUSE"), "{health:?}");
        server.order("CLIENT UNPAUSE");
        rig.connection.sweep().await.expect("it is swept");
        assert_eq!(rig.health().await.durability, Durability::Strict);
    });
}

#[test]
fn a_redis_that_answers_nobody_is_away_and_refuses_no_writes() {
    let server = RedisServer::start(&STRICT);
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        rig.publish().await;
        server.freeze();
        let swept = rig.connection.sweep().await;
        assert!(matches!(swept, Err(StoreError::Timeout(_))), "{swept:?}");
        server.thaw();
        let health = until("it is back", async || rig.connection.health().await.ok()).await;
        assert_eq!((health.durability, health.unswept), (Durability::Strict, None));
    });
}
