//! Two gateways on one Redis, and gateways that are killed while consumers hold messages.

use std::time::Duration;

use serde_json::{Value, json};

use super::{QUEUE, WITHIN, ask, items, lease, lease_one, over_both, post, receipt, settle, told};
use crate::support::gateway::Home;
use crate::support::invariants::count;

#[test]
fn what_is_published_at_one_gateway_reaches_who_waits_at_another() {
    let home = Home::redis();
    let (one, other) = (home.start(QUEUE, &[]), home.start(QUEUE, &[]));
    for number in 0..20 {
        let mut waiting = ask(&other.address(), &json!({"wait": "30s"}));
        one.publish("jobs", &[], number.to_string().as_bytes());
        let found = items(&waiting.answer(false).expect("an answer").json());
        assert_eq!(found[0]["payload"], number.to_string());
        // Settled where it was not leased.
        assert_eq!(settle(&one, &json!({"ack": [receipt(&found[0])]})), ["settled"]);
    }
}

#[test]
fn a_lost_hint_delays_and_loses_nothing() {
    let Home::Redis(redis) = Home::redis() else { unreachable!("it was just made") };
    let home = Home::Redis(redis);
    let (one, other) = (home.start(QUEUE, &[]), home.start(QUEUE, &[]));
    let mut waiting = ask(&other.address(), &json!({"wait": "60s"}));
    assert_eq!(lease(&other, &json!({})), Vec::<Value>::new());
    let Home::Redis(redis) = &home else { unreachable!("it is a Redis") };
    // Nobody hears anything now, for a while.
    redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    one.publish("jobs", &[], b"unheard");
    waiting.wait_at_most(Duration::from_mins(1)).expect("an open socket");
    let found = items(&waiting.answer(false).expect("an answer").json());
    assert_eq!(found[0]["payload"], "unheard");
}

#[test]
fn a_lease_ends_at_its_time_where_the_store_is_known_to_be_away() {
    let Home::Redis(redis) = Home::redis() else { unreachable!("it was just made") };
    let home = Home::Redis(redis);
    let mut gateway = home.start(QUEUE, &[]);
    let Home::Redis(redis) = &home else { unreachable!("it is a Redis") };
    redis.freeze();
    gateway.wait_for("it is known to be away", WITHIN, |gateway| {
        (gateway.request("GET", "/ready", &[], b"").status == 503).then_some(())
    });
    for wait in ["0s", "1s"] {
        let answer = post(&gateway.address(), "jobs", "", &json!({"wait": wait}));
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("store_unavailable")), "{wait}");
    }
    redis.thaw();
}

#[test]
fn leases_outlive_the_gateway_that_made_them() {
    over_both(|home| {
        let mut gateway = home.start(QUEUE, &[]);
        for body in [b"1", b"2", b"3"] {
            gateway.publish("jobs", &[], body);
        }
        let kept = lease_one(&gateway, &json!({"lease": "10m"}));
        let lost = lease_one(&gateway, &json!({"lease": "1s"}));
        let waiting = ask(&gateway.address(), &json!({"wait": "60s", "max": 1}));
        gateway.kill();
        drop(waiting);
        gateway.launch_until_ready();
        let status = gateway.status();
        assert!(count(&status, "leased") >= 1, "{status}");
        let extended =
            told(&gateway.address(), "/extend", &json!({"receipts": [receipt(&kept)], "lease": "20m"}));
        assert_eq!(extended["results"][0]["result"], "extended", "{extended}");
        assert_eq!(settle(&gateway, &json!({"ack": [receipt(&kept)]})), ["settled"]);
        // Its lease has run out meanwhile, or does so soon.
        gateway.wait_for("it is pending again", WITHIN, |gateway| {
            (count(&gateway.status(), "recovered") >= 1).then_some(())
        });
        assert_eq!(settle(&gateway, &json!({"ack": [receipt(&lost)]})), ["lost"]);
        let mut payloads = Vec::new();
        while payloads.len() < 2 {
            // The third one may be held by the connection that was lost, for as long as its lease is.
            let message = lease_one(&gateway, &json!({"wait": "60s"}));
            assert_eq!(settle(&gateway, &json!({"ack": [receipt(&message)]})), ["settled"]);
            payloads.push(message["payload"].as_str().expect("text").to_owned());
        }
        payloads.sort_unstable();
        assert_eq!(payloads, ["2", "3"]);
        let status = gateway.wait_until_drained(WITHIN);
        assert_eq!(count(&status, "delivered"), 3);
    });
}
