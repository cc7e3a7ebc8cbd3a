//! One queue whose messages bring their destinations: three bad ones beside seventeen good ones, in the real binary.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::{assert_laws, count};
use crate::support::sink::{Answer, Sink};
use crate::support::stores::on_both_stores;

const WITHIN: Duration = Duration::from_mins(1);
/// Messages for each destination.
const EACH: usize = 200;

on_both_stores! {
    in_one_queue_seventeen_destinations_get_all_they_should_while_three_hold_theirs_back
    a_queue_all_of_whose_destinations_are_down_says_so_until_one_is_delivered_to
}

/// Publishes that many messages for one destination.
fn publish(gateway: &Gateway, destination: &str) {
    let lines = (0..EACH).map(|number| number.to_string()).collect::<Vec<_>>().join("\n");
    let headers = [("content-type", "application/x-ndjson"), ("posthaste-destination", destination)];
    let answer = gateway.request("POST", "/v1/queues/mixed/messages/batch", &headers, lines.as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text());
}

fn of_mixed(status: &Value, key: &str) -> u64 {
    let all = status["queues"].as_array().expect("a list");
    let queue = all.iter().find(|queue| queue["name"] == "mixed").expect("it is there");
    queue[key].as_u64().expect("a number")
}

/// What does not listen any more, at an address of its own, where nobody else begins to.
fn refusing(address: &str) -> String {
    let refusing = TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr());
    format!("http://{}", refusing.expect("a free port"))
}

fn a_queue_all_of_whose_destinations_are_down_says_so_until_one_is_delivered_to(home: &Home) {
    let healthy = Sink::start(|_| Answer::status(200));
    let down = ["127.0.0.2", "127.0.0.3"].map(refusing);
    let mut gateway =
        home.start("[queues.mixed]\nprocessor = 'http'\ndestination_override = 'any'\n", &["--dev"]);
    let stalled = |gateway: &Gateway| {
        let status = gateway.status();
        let queues = status["queues"].as_array().expect("a list");
        queues.iter().find(|queue| queue["name"] == "mixed").expect("it is there")["stalled"].clone()
    };
    assert_eq!(stalled(&gateway), Value::Null);
    for destination in &down {
        publish(&gateway, destination);
    }
    let said = gateway.wait_for("it says that both are down", WITHIN, |gateway| {
        let said = stalled(gateway);
        let detail = said["detail"].as_str()?;
        let is_whole = detail.starts_with("breaker open until ")
            && detail.ends_with("; one other destination of its messages is shut as well");
        is_whole.then_some(said)
    });
    let detail = said["detail"].as_str().expect("a text");
    assert_eq!(said["code"], "breaker_open", "{said}");
    assert!(down.iter().any(|down| detail.contains(&format!(": {down} fails (connect"))), "{said}");
    let path = "/ready?check=work";
    gateway.wait_for("it is not ready for work", WITHIN, |gateway| {
        (gateway.request("GET", path, &[], b"").status == 503).then_some(())
    });
    gateway.publish("mixed", &[("posthaste-destination", &healthy.url("/"))], b"x");
    let status = gateway.wait_for("it moves", WITHIN, |gateway| {
        let status = gateway.status();
        (of_mixed(&status, "delivered") == 1).then_some(status)
    });
    assert_eq!((stalled(&gateway), healthy.count()), (Value::Null, 1), "{status}");
    assert_laws(&status);
    gateway.kill();
}

fn in_one_queue_seventeen_destinations_get_all_they_should_while_three_hold_theirs_back(home: &Home) {
    let healthy: Vec<_> = (0..17).map(|_| Sink::start(|_| Answer::status(200))).collect();
    let hanging = Sink::start(|_| Answer::HangBeforeHead);
    let trickling =
        Sink::start(|_| Answer::Trickle { status: 200, bytes: 10_000, every: Duration::from_secs(1) });
    let refusing = refusing("127.0.0.2");
    let mut gateway = home.start(
        "[workers]\nthreads = 2\n[queues.mixed]\nprocessor = 'http'\ndestination_override = 'any'\ntimeout = '15m'\n",
        &["--dev"],
    );
    let bad = [hanging.url("/"), trickling.url("/"), refusing];
    for destination in &bad {
        publish(&gateway, destination);
    }
    gateway.wait_for("the bad ones have what they can take", WITHIN, |_| {
        (hanging.count() > 0 && trickling.count() > 0).then_some(())
    });
    for sink in &healthy {
        publish(&gateway, &sink.url("/"));
    }
    let good = (17 * EACH) as u64;
    let status = gateway.wait_for("the healthy ones have all they should", WITHIN, |gateway| {
        let status = gateway.status();
        (of_mixed(&status, "delivered") == good).then_some(status)
    });
    assert_laws(&status);
    assert_eq!((hanging.answers_ended(), trickling.answers_ended()), (0, 0), "those are under way still");
    assert!(of_mixed(&status, "deferred") > 0, "{status}");
    assert_eq!(count(&status, "dead"), 0);
    let held_back =
        of_mixed(&status, "pending") + of_mixed(&status, "scheduled") + of_mixed(&status, "leased");
    assert_eq!(held_back, (3 * EACH) as u64, "no message is lost");
    for sink in &healthy {
        let mut bodies: Vec<_> = sink.received().iter().map(|received| received.body.clone()).collect();
        bodies.sort_unstable();
        bodies.dedup();
        assert_eq!((sink.count(), bodies.len()), (EACH, EACH), "each message, once");
    }
    gateway.kill();
}
