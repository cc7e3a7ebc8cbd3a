//! One field of a queue's hash is overwritten: that queue stands still and is told of, all others go on, and put back it goes on.

use std::time::Duration;

use serde_json::Value;

use super::{ask, key};
use crate::support::gateway::Gateway;
use crate::support::redis::RedisServer;

const WITHIN: Duration = Duration::from_secs(30);
const SETTINGS: &str = "[server]\nthreads = 1\n[workers]\nthreads = 1\n[queues.broken]\nprocessor = 'pull'\n\
    [queues.worked]\nprocessor = 'log'\n[queues.sound]\nprocessor = 'log'\n";

fn gateway(server: &RedisServer) -> Gateway {
    let mut gateway = Gateway::prepare(SETTINGS, &["--log", "info"]).wrapped(vec![], &server.url());
    gateway.launch_until_ready();
    gateway
}

fn set(server: &RedisServer, queue: &str, field: &str, value: &[u8]) -> Vec<u8> {
    let key = key(queue, "c");
    let before: Vec<u8> = ask(server, &[b"HGET", key.as_bytes(), field.as_bytes()]);
    ask::<i64>(server, &[b"HSET", key.as_bytes(), field.as_bytes(), value]);
    before
}

fn of_queue(gateway: &Gateway, name: &str, number: &str) -> u64 {
    let status = gateway.status();
    let queues = status["queues"].as_array().expect("a list");
    let queue = queues.iter().find(|queue| queue["name"] == name).expect("it is listed");
    queue[number].as_u64().expect("a number")
}

fn warning(gateway: &mut Gateway, said: &str) {
    warning_of(gateway, "foreign_type", said);
}

fn warning_of(gateway: &mut Gateway, code: &str, said: &str) {
    gateway.wait_for("it is warned of", WITHIN, |gateway| {
        let status: Value = gateway.request("GET", "/status", &[], b"").json();
        let warnings = status["store"]["warnings"].as_array().expect("a list").clone();
        let is_told = |warning: &Value| {
            warning["code"] == code && warning["detail"].as_str().is_some_and(|detail| detail.contains(said))
        };
        warnings.iter().any(is_told).then_some(())
    });
}

/// What a queue takes, in the end.
fn publish_when_sound(gateway: &mut Gateway, queue: &str) {
    gateway.wait_for("it takes publishes again", WITHIN, |gateway| {
        let answer = gateway.request("POST", &format!("/v1/queues/{queue}/messages"), &[], b"x");
        (answer.status == 202).then_some(())
    });
}

#[test]
fn junk_in_the_settings_of_a_queue_stops_that_one_alone_and_is_told() {
    let server = RedisServer::start_durable();
    let mut gateway = gateway(&server);
    gateway.publish("worked", &[], b"x");
    gateway.wait_for("it is delivered", WITHIN, |gateway| {
        (of_queue(gateway, "worked", "delivered") == 1).then_some(())
    });
    // Whatever it is, also what is as long as what was there.
    let (length, before) =
        (59, [set(&server, "broken", "settings", b"junk"), set(&server, "worked", "settings", b"")]);
    assert_eq!(before[0].len(), length);
    for round in 1..=30 {
        for queue in ["broken", "worked"] {
            let refused = gateway.request("POST", &format!("/v1/queues/{queue}/messages"), &[], b"x");
            assert_eq!(
                (refused.status, refused.header("posthaste-stored")),
                (503, Some("no")),
                "{}",
                refused.text()
            );
            assert!(refused.text().contains("settings of the key"), "{}", refused.text());
        }
        gateway.publish("sound", &[], b"x");
        gateway.wait_for("the others go on", WITHIN, |gateway| {
            (of_queue(gateway, "sound", "delivered") == round).then_some(())
        });
    }
    warning(&mut gateway, "the field settings of the key ph:{broken#0}:c");
    set(&server, "broken", "settings", &before[0]);
    set(&server, "worked", "settings", &before[1]);
    publish_when_sound(&mut gateway, "broken");
    publish_when_sound(&mut gateway, "worked");
    gateway.stop();
}

#[test]
fn settings_that_were_overwritten_are_written_anew_by_the_next_start() {
    let server = RedisServer::start_durable();
    let mut first = gateway(&server);
    first.publish("broken", &[], b"kept");
    set(&server, "broken", "settings", &[b'7'; 59]);
    set(&server, "broken", "settings", b"7");
    first.stop();
    let mut second = gateway(&server);
    assert_eq!(of_queue(&second, "broken", "pending"), 1);
    publish_when_sound(&mut second, "broken");
    second.stop();
}

#[test]
fn a_generation_that_was_overwritten_costs_no_message_and_is_told() {
    let server = RedisServer::start_durable();
    let mut first = gateway(&server);
    for _ in 0..5 {
        first.publish("broken", &[], b"kept");
    }
    set(&server, "broken", "gen", b"7");
    warning(&mut first, "the field gen of the key ph:{broken#0}:c");
    let refused = first.request("POST", "/v1/queues/broken/messages", &[], b"x");
    assert_eq!((refused.status, refused.header("posthaste-stored")), (503, Some("no")), "{}", refused.text());
    first.stop();
    // A start that declares the queue goes on with what is there.
    let mut second = gateway(&server);
    assert_eq!(server.ask(&["LLEN", &key("broken", "p1")]), ":5\r\n");
    publish_when_sound(&mut second, "broken");
    assert_eq!(of_queue(&second, "broken", "pending"), 6);
    let entry: Vec<u8> = ask(&server, &[b"HGET", b"ph:queues", b"broken"]);
    let entry: Value = serde_json::from_slice(&entry).expect("an entry");
    assert_eq!(entry["generation"], 7);
    second.stop();
}

#[test]
fn settings_that_look_like_ours_and_are_not_discard_nothing_and_are_told() {
    let server = RedisServer::start_durable();
    let mut gateway = gateway(&server);
    gateway.publish("broken", &[], b"x");
    let json = [("content-type", "application/json")];
    let leased = gateway.request("POST", "/v1/queues/broken/leases", &json, b"{\"max\":1}").json();
    let ended = serde_json::json!({"reject": [{"receipt": leased["items"][0]["receipt"]}]});
    let path = "/v1/queues/broken/leases/settle";
    let ended = gateway.request("POST", path, &json, ended.to_string().as_bytes());
    assert_eq!((ended.status, of_queue(&gateway, "broken", "dead")), (200, 1), "{}", ended.text());
    // No limits, no retention: as long as what was there.
    let before = set(&server, "broken", "settings", &[0; 59]);
    let refused = gateway.request("POST", "/v1/queues/broken/messages", &[], b"x");
    assert_eq!(refused.status, 429, "{}", refused.text());
    warning_of(&mut gateway, "foreign_beside", "the field settings of the key ph:{broken#0}:c");
    assert_eq!(of_queue(&gateway, "broken", "dead"), 1, "it was not kept");
    set(&server, "broken", "settings", &before);
    publish_when_sound(&mut gateway, "broken");
    gateway.wait_for("the warning goes", WITHIN, |gateway| {
        let status = gateway.status();
        let warnings = status["store"]["warnings"].as_array().expect("a list");
        warnings.iter().all(|warning| warning["code"] != "foreign_beside").then_some(())
    });
    gateway.stop();
}
