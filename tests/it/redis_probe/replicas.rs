//! `store.replicas_ack`: a publish is acknowledged when replicas have it.

use posthaste::store::error::{StoreError, Stored};

use super::{RedisServer, Rig, StoreSettings, WITHIN, not_durable, run, strict, until};
use crate::conformance::stand::draft;
use crate::support::gateway::Gateway;
use crate::support::redis::STRICT;

#[test]
fn a_publish_that_too_few_replicas_have_is_unknown() {
    let (master, port) = RedisServer::start_on_port(&STRICT);
    let mut replica = RedisServer::start(&[&STRICT[..], &["--replicaof", "127.0.0.1", &port]].concat());
    run(async {
        until("the replica follows", async || (master.info("connected_slaves") == 1).then_some(())).await;
        until("it is in step", async || {
            replica.ask(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        })
        .await;
        let rig = Rig::open(&StoreSettings { replicas_ack: 1, ..strict(&master) }).await;
        rig.publish().await;
        assert_eq!(replica.ask(&["LLEN", "ph:{orders#0}:p1"]), ":1\r\n", "it was there before the answer");
        assert!(!rig.warnings().await.contains(&"replicas_missing"));

        let two = Rig::open(&StoreSettings { replicas_ack: 2, ..strict(&master) }).await;
        assert!(two.warnings().await.contains(&"replicas_missing"));
        let length = master.ask(&["LLEN", "ph:{orders#0}:p1"]);
        let why = not_durable(two.offer(&[draft()]).await);
        assert!(why.contains("1 of 2 replicas"), "{why}");
        assert_eq!(master.ask(&["LLEN", "ph:{orders#0}:p1"]), length, "nothing was written");

        replica.kill();
        let error = rig.offer(&[draft()]).await.expect_err("there is none any more");
        assert!(matches!(&error, StoreError::Unacknowledged(why) if why.contains("0 of 1")), "{error:?}");
        assert_eq!(error.stored(), Stored::Unknown, "{error:?}");
        // From then on it is known.
        assert!(not_durable(rig.offer(&[draft()]).await).contains("0 of 1 replicas"));
        replica.launch();
        until("publishing goes on", async || rig.offer(&[draft()]).await.ok()).await;
    });
}

#[test]
fn what_is_waited_for_holds_up_nobody_else() {
    let (master, port) = RedisServer::start_on_port(&STRICT);
    let mut replica = RedisServer::start(&[&STRICT[..], &["--replicaof", "127.0.0.1", &port]].concat());
    run(async {
        let rig = Rig::open(&StoreSettings { replicas_ack: 1, ..strict(&master) }).await;
        until("the replica is in step", async || rig.offer(&[draft()]).await.ok()).await;
        replica.kill();
        let drafts = [draft()];
        let publish = rig.offer(&drafts);
        let others = async {
            // One after the other while the publish waits its two seconds.
            for _ in 0..20 {
                rig.stats().await;
            }
        };
        let first = futures_util::future::select(Box::pin(publish), Box::pin(others)).await;
        let futures_util::future::Either::Right(((), publish)) = first else { panic!("they were held up") };
        assert!(publish.await.is_err());
    });
}

#[test]
fn a_gateway_without_the_replicas_it_must_have_takes_nothing_and_says_why() {
    let (master, port) = RedisServer::start_on_port(&STRICT);
    let settings = "[store]\nreplicas_ack = 1\n[queues.orders]\nprocessor = 'pull'\n";
    let mut gateway = Gateway::prepare(settings, &[]).over(&master);
    gateway.launch();
    let why = "0 of 1 replicas (store.replicas_ack) are connected";
    let wait_until_it_says_so = |gateway: &mut Gateway| {
        gateway.wait_for("it says what is missing", WITHIN, |gateway| {
            let ready = gateway.request("GET", "/ready", &[], b"");
            (ready.status == 503 && ready.text().contains(why)).then_some(())
        });
    };
    wait_until_it_says_so(&mut gateway);
    let publish = |gateway: &Gateway| gateway.request("POST", "/v1/queues/orders/messages", &[], b"x");
    let refused = publish(&gateway);
    assert_eq!((refused.status, refused.header("posthaste-stored")), (503, Some("no")), "{}", refused.text());
    assert!(refused.text().contains("\"not_durable\"") && refused.text().contains(why), "{}", refused.text());
    assert_eq!(gateway.status()["totals"]["accepted"], 0);

    let mut replica = RedisServer::start(&[&STRICT[..], &["--replicaof", "127.0.0.1", &port]].concat());
    gateway.wait_until_ready(WITHIN);
    gateway.publish("orders", &[], b"kept");
    replica.kill();
    // Those that were on their way when it went may have been stored; soon each is refused for certain.
    let unknown = publish(&gateway);
    if unknown.header("posthaste-stored") == Some("unknown") {
        assert!(unknown.text().contains("0 of 1 replicas"), "{}", unknown.text());
    }
    gateway.wait_for("it is known", WITHIN, |gateway| {
        let refused = publish(gateway);
        assert_eq!(refused.status, 503, "{}", refused.text());
        (refused.header("posthaste-stored") == Some("no")).then_some(())
    });
    wait_until_it_says_so(&mut gateway);
    replica.launch();
    gateway.wait_until_ready(WITHIN);
    gateway.publish("orders", &[], b"again");
    gateway.stop();
}
