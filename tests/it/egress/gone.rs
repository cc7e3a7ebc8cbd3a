//! A receiver that answers 410: what it means for the message, and for the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{JSON, http};
use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::count;
use crate::support::sink::{Answer, Sink};
use crate::support::stores::on_both_stores;
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_mins(1);
const QUEUE: &str = "/v1/queues/orders";

on_both_stores! {
    a_queue_whose_destination_is_gone_is_parked_until_it_has_another_one_or_is_resumed
    a_destination_that_came_with_a_message_parks_nothing
}

fn call(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Value {
    let answer = gateway.request(method, path, &[JSON], body.to_string().as_bytes());
    assert!(answer.status < 300, "{method} {path}: {}", answer.text());
    answer.json()
}

fn resume(gateway: &Gateway) {
    assert_eq!(gateway.request("POST", &format!("{QUEUE}/resume"), &[], b"").status, 200);
}

/// The queue as `/status` shows it.
fn shown(gateway: &Gateway) -> Value {
    let status = gateway.request("GET", "/status?queue=orders", &[], b"").json();
    status["queues"][0].clone()
}

/// Waits until `/status` says that the queue is parked for its destination.
fn wait_until_parked(gateway: &Gateway) {
    wait_until("the queue is parked", WITHIN, || {
        let queue = shown(gateway);
        (queue["parked"] == "destination_gone" && queue["stalled"]["code"] == "destination_gone")
            .then_some(())
    });
}

fn a_queue_whose_destination_is_gone_is_parked_until_it_has_another_one_or_is_resumed(home: &Home) {
    let status = Arc::new(AtomicU16::new(410));
    let answers = status.clone();
    let first = Sink::start(move |_| Answer::status(answers.load(Ordering::SeqCst)));
    let second = Sink::start(|_| Answer::status(200));
    let mut gateway = home.start("[queues]\n", &["--dev"]);
    call(&gateway, "PUT", QUEUE, &http(&first.url("/")));
    let gone = gateway.publish("orders", &[], b"first");
    let message = gateway.wait_until_message_is("dead", &gone, WITHIN);
    assert_eq!((&message["reason"], &message["attempts"][0]["status"]), (&json!("rejected"), &json!(410)));
    wait_until_parked(&gateway);
    let detail = shown(&gateway)["stalled"]["detail"].to_string();
    assert!(detail.starts_with(&format!("\"410 from http://{}:", first.address())), "{detail}");

    // It takes messages and sends none, across a restart too.
    gateway.publish("orders", &[], b"second");
    gateway.restart();
    wait_until_parked(&gateway);
    let third = gateway.publish("orders", &[], b"third");
    assert_eq!(gateway.request("GET", &third, &[], b"").json()["state"], "pending");
    assert_eq!(first.count(), 1);

    // Settings that leave the destination leave it parked; another one does not.
    let queue = call(&gateway, "PATCH", QUEUE, &json!({"ttl": "1d"}));
    assert_eq!(queue["parked"], "destination_gone");
    let queue = call(&gateway, "PATCH", QUEUE, &json!({"destination": second.url("/")}));
    assert!(queue.get("parked").is_none(), "{queue}");
    second.wait_for(2, WITHIN);

    // And so does whoever resumes it, for the receiver may be back.
    call(&gateway, "PATCH", QUEUE, &json!({"destination": first.url("/")}));
    gateway.publish("orders", &[], b"fourth");
    wait_until_parked(&gateway);
    status.store(200, Ordering::SeqCst);
    let fifth = gateway.publish("orders", &[], b"fifth");
    resume(&gateway);
    gateway.wait_until_message_is("delivered", &fifth, WITHIN);
    let status = gateway.wait_until_drained(WITHIN);
    assert_eq!((count(&status, "delivered"), count(&status, "dead")), (3, 2));
    gateway.stop();
}

fn a_destination_that_came_with_a_message_parks_nothing(home: &Home) {
    let sink = Sink::start(|received| Answer::status(if received.target == "/gone" { 410 } else { 200 }));
    let mut gateway = home.start("[queues]\n", &["--dev"]);
    let mut settings = http(&sink.url("/"));
    settings["destination_override"] = json!("any");
    call(&gateway, "PUT", QUEUE, &settings);
    for brought in [sink.url("/gone"), sink.url("/gone")] {
        let path = gateway.publish("orders", &[("Posthaste-Destination", &brought)], b"x");
        let message = gateway.wait_until_message_is("dead", &path, WITHIN);
        assert_eq!((&message["reason"], &message["destination"]), (&json!("rejected"), &json!(brought)));
    }
    let path = gateway.publish("orders", &[], b"x");
    gateway.wait_until_message_is("delivered", &path, WITHIN);
    assert_eq!((&shown(&gateway)["name"], &shown(&gateway)["parked"]), (&json!("orders"), &Value::Null));
    gateway.stop();
}
