//! A gateway that is started before its Redis.

use std::time::Duration;

use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::invariants::count;
use crate::support::redis::{RedisServer, STRICT};

const WITHIN: Duration = Duration::from_secs(30);
const PUBLISH: &str = "/v1/queues/orders/messages";

#[test]
fn a_gateway_that_is_started_without_redis_refuses_until_it_is_there() {
    let mut redis = RedisServer::prepare(&STRICT);
    let mut gateway =
        Gateway::prepare("[queues.orders]\nprocessor = 'log'\n", &["--log", "info"]).over(&redis);
    gateway.launch();
    assert_eq!(gateway.request("GET", "/health", &[], b"").status, 200);
    let ready = gateway.request("GET", "/ready", &[], b"");
    assert_eq!((ready.status, &ready.json()["reasons"][0]["code"]), (503, &json!("store_unavailable")));
    let refused = gateway.request("POST", PUBLISH, &[], b"too early");
    assert_eq!((refused.status, refused.header("posthaste-stored")), (503, Some("no")), "{}", refused.text());
    assert_eq!(refused.json()["code"], "store_unavailable", "{}", refused.text());
    let status = gateway.status();
    assert_eq!(
        [&status["consistent"], &status["store"]["reachable"]],
        [&json!(null), &json!(false)],
        "{status}"
    );
    redis.launch();
    gateway.wait_until_ready(WITHIN);
    gateway.publish("orders", &[], b"in time");
    let status = gateway.wait_until_drained(WITHIN);
    assert_eq!(["accepted", "delivered"].map(|key| count(&status, key)), [1, 1], "{status}");
    assert_eq!(status["queues"][0]["source"], "file", "{status}");
    gateway.stop();
}

#[test]
fn a_gateway_that_is_stopped_before_its_redis_was_there_ends_in_order() {
    let redis = RedisServer::prepare(&STRICT);
    let mut gateway = Gateway::prepare("", &["--log", "info"]).over(&redis);
    gateway.launch();
    gateway.stop();
}
