//! A full store: an operator can still hold, empty and delete, and so make room.

use std::time::Duration;

use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::invariants::{assert_laws, count};
use crate::support::redis::{RedisServer, STRICT};
use crate::support::sink::{Answer, Sink};
use crate::support::{small_disk, wait_until};

const DISK_BYTES: u64 = 24 << 20;
const PAYLOAD: [u8; 16 << 10] = [b'x'; 16 << 10];
const WITHIN: Duration = Duration::from_mins(1);
const DEAD: u64 = 40;

fn settings(sink: &Sink) -> String {
    format!(
        "[queues.dying]\nprocessor = 'http'\ndestination = '{}'\nretry.schedule = []\n[queues.waiting]\nprocessor = 'pull'\n",
        sink.url("/")
    )
}

#[test]
fn a_full_disk_can_be_emptied() {
    let sink = Sink::start(|_| Answer::status(400));
    let mut gateway = Gateway::prepare(&settings(&sink), &["--dev"])
        .wrapped(small_disk::wrapper(DISK_BYTES), small_disk::STORE);
    gateway.launch_until_ready();
    empty(&mut gateway);
}

#[test]
fn a_full_redis_can_be_emptied() {
    let redis = RedisServer::start(&[&STRICT[..], &["--maxmemory", "24mb"]].concat());
    let sink = Sink::start(|_| Answer::status(400));
    let mut gateway = Gateway::prepare(&settings(&sink), &["--dev"]).over(&redis);
    gateway.launch_until_ready();
    empty(&mut gateway);
}

/// Fills the store to its limit, and then does all that makes room.
fn empty(gateway: &mut Gateway) {
    for _ in 0..DEAD {
        gateway.publish("dying", &[], &PAYLOAD);
    }
    let json = [("Content-Type", "application/json")];
    let made = gateway.request("PUT", "/v1/queues/extra", &json, br#"{"processor":"pull"}"#);
    assert_eq!(made.status, 201, "{}", made.text());
    gateway.publish("extra", &[], &PAYLOAD);
    let dead = |gateway: &Gateway| {
        let status = gateway.status();
        assert_laws(&status);
        count(&status, "dead")
    };
    wait_until("they are dead", WITHIN, || (dead(gateway) == DEAD).then_some(()));
    let publish = |gateway: &Gateway| gateway.request("POST", "/v1/queues/waiting/messages", &[], &PAYLOAD);
    let refused =
        wait_until("it is full", WITHIN, || Some(publish(gateway)).filter(|answer| answer.status != 202));
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("store_full")), "{}", refused.text());

    let order = |gateway: &Gateway, line: &str, body: &[u8]| {
        let (method, path) = line.split_once(' ').expect("a method");
        let headers = if body.is_empty() { &[][..] } else { &json };
        let answer = gateway.request(method, path, headers, body);
        assert!(matches!(answer.status, 200 | 204), "{line}: {}", answer.text());
        answer
    };
    let letters = order(gateway, "GET /v1/queues/dying/dead", b"").json()["items"].clone();
    let id = letters[0]["id"].as_str().expect("an id");
    order(gateway, "POST /v1/queues/dying/pause", b"");
    order(gateway, &format!("DELETE /v1/queues/dying/dead/{id}"), b"");
    let replay = json!({"ids": [letters[1]["id"], letters[2]["id"]]}).to_string();
    let replayed = order(gateway, "POST /v1/queues/dying/dead/replay", replay.as_bytes()).json();
    assert_eq!(replayed, json!({"matched": 2, "replayed": 2}));
    order(gateway, "POST /v1/queues/dying/resume", b"");
    wait_until("they died again", WITHIN, || (dead(gateway) == DEAD - 1).then_some(()));
    let discarded = order(gateway, "DELETE /v1/queues/dying/dead", b"").json();
    assert_eq!(discarded, json!({"discarded": DEAD - 1}));
    order(gateway, "DELETE /v1/queues/extra?force=true", b"");
    let purged = order(gateway, "POST /v1/queues/waiting/purge", b"").json()["purged"].clone();
    assert!(purged.as_u64() > Some(100), "{purged} were there");
    wait_until("it takes messages again", WITHIN, || (publish(gateway).status == 202).then_some(()));
    assert_laws(&gateway.status());
    gateway.stop();
}
