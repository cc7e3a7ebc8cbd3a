//! `store.replicas_ack`: a publish is acknowledged when replicas have it.

use posthaste::store::error::{StoreError, Stored};

use super::{RedisServer, Rig, StoreSettings, run, strict, until};
use crate::conformance::stand::draft;
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
        let error = two.offer(&[draft()]).await.expect_err("there is one replica");
        assert!(matches!(&error, StoreError::Unknown(why) if why.contains("1 of 2 replicas")), "{error:?}");

        replica.kill();
        let error = rig.offer(&[draft()]).await.expect_err("there is none any more");
        assert_eq!(error.stored(), Stored::Unknown, "{error:?}");
        replica.launch();
        until("publishing goes on", async || rig.offer(&[draft()]).await.ok()).await;
    });
}

#[test]
fn what_is_waited_for_holds_up_nobody_else() {
    let master = RedisServer::start(&STRICT);
    run(async {
        let rig = Rig::open(&StoreSettings { replicas_ack: 1, ..strict(&master) }).await;
        let drafts = [draft()];
        let publish = rig.offer(&drafts);
        let others = async {
            // One after the other while the publish waits its two seconds.
            for _ in 0..20 {
                rig.health().await;
                rig.stats().await;
            }
        };
        let first = futures_util::future::select(Box::pin(publish), Box::pin(others)).await;
        let futures_util::future::Either::Right(((), publish)) = first else { panic!("they were held up") };
        assert!(publish.await.is_err());
    });
}
