//! `store.replicas_ack` from 7.2 on: a publish is acknowledged when replicas have fsynced it.

use super::{RedisServer, WITHIN};
use crate::support::client::Answer;
use crate::support::gateway::Gateway;
use crate::support::invariants::count;
use crate::support::redis::{STRICT, free_port};

const PENDING: [&str; 2] = ["LLEN", "ph:{orders#0}:p1"];

/// A master of 7.2 or newer, its replica with these options, and a gateway that wants publishes on both.
fn stand(replica: &[&str]) -> (RedisServer, RedisServer, Gateway) {
    let port = free_port();
    let mut master = RedisServer::prepare_newer(&[&STRICT[..], &["--port", &port]].concat());
    master.launch();
    let mut replica = RedisServer::prepare_newer(&[replica, &["--replicaof", "127.0.0.1", &port]].concat());
    replica.launch();
    let settings = "[store]\nreplicas_ack = 1\n[queues.orders]\nprocessor = 'pull'\n";
    let mut gateway = Gateway::prepare(settings, &[]).over(&master);
    gateway.launch_until_ready();
    (master, replica, gateway)
}

fn publish(gateway: &Gateway) -> Answer {
    gateway.request("POST", "/v1/queues/orders/messages", &[], b"x")
}

/// Publishes until it is taken: from that on all is well.
fn publish_until_taken(gateway: &mut Gateway) {
    gateway.wait_for("publishes are taken", WITHIN, |gateway| (publish(gateway).status == 202).then_some(()));
}

/// It says that the message may be there, why, and it is there.
fn assert_unknown(gateway: &Gateway, answer: &Answer, before: u64) {
    assert_eq!(
        (answer.status, answer.header("posthaste-stored")),
        (503, Some("unknown")),
        "{}",
        answer.text()
    );
    let why = "0 of 1 replicas (store.replicas_ack) fsynced it";
    assert!(answer.text().contains("\"store_timeout\"") && answer.text().contains(why), "{}", answer.text());
    assert_eq!(count(&gateway.status(), "accepted"), before + 1, "it was stored once");
}

#[test]
fn a_publish_that_a_replica_has_fsynced_is_taken_and_one_that_none_did_is_unknown() {
    let (master, replica, mut gateway) = stand(&STRICT);
    publish_until_taken(&mut gateway);
    let used = master.ask(&["INFO", "commandstats"]);
    assert!(used.contains("cmdstat_waitaof:") && !used.contains("cmdstat_wait:"), "{used}");
    let taken = master.ask(&PENDING);
    assert_eq!(replica.ask(&PENDING), taken, "it was there before the answer");

    replica.freeze();
    let before = count(&gateway.status(), "accepted");
    let unknown = publish(&gateway);
    assert_unknown(&gateway, &unknown, before);
    replica.thaw();
    publish_until_taken(&mut gateway);
    assert_eq!(replica.ask(&PENDING), master.ask(&PENDING), "what was unknown is there as well");
    gateway.stop();
}

#[test]
fn a_replica_that_writes_no_append_only_file_acknowledges_nothing() {
    let (master, replica, mut gateway) = stand(&["--appendonly", "no"]);
    gateway.wait_for("the replica is in step", WITHIN, |_| {
        replica.ask(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
    });
    let before = count(&gateway.status(), "accepted");
    let unknown = publish(&gateway);
    assert_unknown(&gateway, &unknown, before);
    assert!(unknown.text().contains("each needs appendonly yes"), "{}", unknown.text());
    assert_eq!(replica.ask(&PENDING), master.ask(&PENDING), "it has it, in its memory alone");

    replica.order("CONFIG SET appendonly yes");
    publish_until_taken(&mut gateway);
    gateway.stop();
}
