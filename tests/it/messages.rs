//! What publish options do to a message in the real binary, and what its lookup shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::invariants::{assert_laws, count};
use crate::support::sink::{Answer, Sink};
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_secs(30);

/// A gateway with one queue, `orders`, that pushes to this sink.
fn pushing_to(sink: &Sink, settings: &str) -> Gateway {
    let destination = sink.url("/orders");
    let queue = format!("[queues.orders]\nprocessor = 'http'\ndestination = '{destination}'\n{settings}");
    Gateway::start(&queue, &["--dev"])
}

fn outcomes(message: &Value) -> Vec<(u64, &str, Option<u64>)> {
    let attempts = message["attempts"].as_array().expect("attempts");
    attempts
        .iter()
        .map(|attempt| {
            let number = attempt["number"].as_u64().expect("a number");
            (number, attempt["outcome"].as_str().expect("an outcome"), attempt["status"].as_u64())
        })
        .collect()
}

#[test]
fn a_posted_message_is_logged_and_can_be_looked_up() {
    let mut gateway = Gateway::start("", &[]);
    let answer = gateway.request(
        "POST",
        "/v1/queues/default/messages",
        &[("Content-Type", "application/json")],
        br#"{"hello":"world"}"#,
    );
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/queues/default/messages/{id}");
    assert_eq!(answer.json(), json!({"id": id, "queue": "default"}));
    assert_eq!(answer.header("location"), Some(path.as_str()));
    let message = gateway.wait_until_message_is("delivered", &path, WITHIN);
    assert_eq!(message["id"], id);
    assert_eq!([&message["payload_bytes"], &message["attempt_count"]], [17, 1], "{message}");
    assert_eq!(message["content_type"], "application/json");
    gateway.wait_for("it is in the log", WITHIN, |gateway| gateway.log().contains(&id).then_some(()));
    assert!(!gateway.log().contains("hello"), "payloads are never logged");
    let status = gateway.wait_until_drained(WITHIN);
    assert_eq!(["accepted", "delivered"].map(|key| count(&status, key)), [1, 1]);
    gateway.stop();
}

#[test]
fn a_delayed_message_is_scheduled_until_its_time() {
    let sink = Sink::start(|_| Answer::status(200));
    let mut gateway = pushing_to(&sink, "");
    let posted = Instant::now();
    let path = gateway.publish("orders", &[("Posthaste-Delay", "1500ms")], b"later");
    let message = gateway.request("GET", &path, &[], b"").json();
    assert_eq!(message["state"], "scheduled", "{message}");
    assert!(message["deliver_at"].is_string(), "{message}");
    let received = sink.wait_for(1, WITHIN);
    // Times are kept in whole milliseconds.
    let waited = received[0].at.duration_since(posted);
    assert!(waited >= Duration::from_millis(1_499), "delivered early, after {waited:?}");
    gateway.wait_until_message_is("delivered", &path, WITHIN);
    gateway.stop();
}

#[test]
fn high_priority_goes_first_and_low_is_not_starved() {
    const EACH: usize = 40;
    let is_open = Arc::<AtomicBool>::default();
    let open = is_open.clone();
    let sink = Sink::start(move |received| {
        if received.header("x-class") == Some("plug") {
            wait_until("the plug is pulled", WITHIN, || open.load(Ordering::SeqCst).then_some(()));
        }
        Answer::status(200)
    });
    let workers = "[workers]\nthreads = 1\nconcurrency = 1\nprefetch = 0\n";
    let mut gateway = pushing_to(&sink, workers);
    let publish = |class: &str, priority: &str| {
        let headers = [("Posthaste-Priority", priority), ("Posthaste-Forward-X-Class", class)];
        gateway.publish("orders", &headers, class.as_bytes());
    };
    publish("plug", "normal");
    sink.wait_for(1, WITHIN);
    (0..EACH).for_each(|_| publish("low", "low"));
    (0..EACH).for_each(|_| publish("high", "high"));
    is_open.store(true, Ordering::SeqCst);
    gateway.wait_until_drained(WITHIN);
    let received = sink.received();
    let is_high = |received: &Arc<_>| -> bool {
        let received: &crate::support::sink::Received = received;
        received.header("x-class") == Some("high")
    };
    let order: Vec<bool> = received[1..].iter().map(is_high).collect();
    assert_eq!(order.len(), 2 * EACH);
    // Drawn 16 to 1: at least fourteen of the first seventeen, wherever the wheel stood.
    let high_first = order[..17].iter().filter(|&&high| high).count();
    assert!(high_first >= 14, "{order:?}");
    let last_high = order.iter().rposition(|&high| high).expect("there are some");
    assert!(order[..last_high].iter().any(|&high| !high), "low waits for all of high: {order:?}");
    gateway.stop();
}

#[test]
fn a_message_that_is_too_old_when_its_turn_comes_is_dead() {
    let sink = Sink::start(|_| Answer::status(503));
    let mut gateway = pushing_to(&sink, "retry.schedule = ['1s', '1s', '1s']\n");
    let path = gateway.publish("orders", &[("Posthaste-TTL", "500ms")], b"fresh for a moment");
    let message = gateway.wait_until_message_is("dead", &path, WITHIN);
    assert_eq!([&message["reason"], &message["attempt_count"]], [&json!("expired"), &json!(1)], "{message}");
    assert!(message["expires_at"].is_string() && message["died_at"].is_string(), "{message}");
    assert_eq!(sink.count(), 1, "what expired is never handed out");
    let status = gateway.status();
    assert_laws(&status);
    assert_eq!(["dead", "dead_lettered", "delivered"].map(|key| count(&status, key)), [1, 1, 0]);
    gateway.stop();
}

#[test]
fn a_lookup_shows_each_state_and_each_attempt() {
    let is_up = Arc::<AtomicBool>::default();
    let up = is_up.clone();
    let sink = Sink::start(move |received| match received.body.as_deref() {
        Some(b"never") => Answer::body(422, "no such customer"),
        _ if up.load(Ordering::SeqCst) => Answer::status(200),
        _ => Answer::body(503, "closed"),
    });
    let mut gateway =
        pushing_to(&sink, "retry.schedule = ['2s', '500ms', '500ms', '500ms']\nretry.jitter = 0.0\n");
    let path = gateway.publish("orders", &[], b"soon");
    let message = gateway.wait_until_message_is("scheduled", &path, WITHIN);
    assert!(message["next_attempt_at"].is_string(), "{message}");
    assert_eq!(outcomes(&message), [(1, "retry", Some(503))], "{message}");
    assert_eq!(message["attempts"][0]["excerpt"], "closed", "{message}");
    is_up.store(true, Ordering::SeqCst);
    gateway.wait_until_message_is("delivered", &path, WITHIN);
    let expected = [(1, "retry", Some(503)), (2, "delivered", Some(200))];
    let message = gateway.wait_for("both attempts are shown", WITHIN, |gateway| {
        let later = gateway.request("GET", &path, &[], b"").json();
        (outcomes(&later) == expected).then_some(later)
    });
    assert_eq!(message["attempt_count"], 2, "{message}");
    let never = gateway.publish("orders", &[], b"never");
    let message = gateway.wait_until_message_is("dead", &never, WITHIN);
    assert_eq!([&message["reason"], &message["attempt_count"]], [&json!("rejected"), &json!(1)], "{message}");
    let message = gateway.request("GET", &format!("{never}?payload=true"), &[], b"").json();
    assert_eq!(message["payload"], "never", "{message}");
    let unknown =
        gateway.request("GET", "/v1/queues/orders/messages/0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400", &[], b"");
    assert_eq!((unknown.status, &unknown.json()["code"]), (404, &json!("message_unknown")));
    gateway.stop();
}

#[test]
fn attempts_that_are_used_up_make_a_dead_letter() {
    let sink = Sink::start(|_| Answer::status(500));
    let mut gateway = pushing_to(&sink, "retry.schedule = ['50ms', '50ms']\n");
    let path = gateway.publish("orders", &[], b"three times");
    let message = gateway.wait_until_message_is("dead", &path, WITHIN);
    assert_eq!(
        [&message["reason"], &message["attempt_count"]],
        [&json!("exhausted"), &json!(3)],
        "{message}"
    );
    assert_eq!(sink.count(), 3);
    let attempts: Vec<_> = sink
        .received()
        .iter()
        .map(|received| received.header("posthaste-attempt").expect("its number").to_owned())
        .collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    gateway.stop();
}
