//! Batches, by the real binary over real sockets, over both kinds of store.

mod accepted;
mod alone;
mod kills;
mod large;
mod refused;
mod store;

use serde_json::Value;

use crate::support::client::Answer;
use crate::support::gateway::{Gateway, Home};

/// Publishes lines.
const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");
/// Publishes an array of items.
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Runs a test over a file and over a Redis of its own.
fn over_both(test: impl Fn(&Home)) {
    test(&Home::Sqlite);
    test(&Home::redis());
}

/// Posts a batch to a queue; `query` begins with `?` or is empty.
fn post(gateway: &Gateway, queue: &str, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    gateway.request("POST", &format!("/v1/queues/{queue}/messages/batch{query}"), headers, body)
}

/// The ids that a batch was accepted with.
fn ids(answer: &Answer) -> Vec<String> {
    let answer = answer.json();
    let ids = answer["ids"].as_array().unwrap_or_else(|| panic!("no ids: {answer}"));
    ids.iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
}

/// A message with its payload.
fn look(gateway: &Gateway, queue: &str, id: &str) -> Value {
    let answer = gateway.request("GET", &format!("/v1/queues/{queue}/messages/{id}?payload=true"), &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}
