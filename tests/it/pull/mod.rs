//! Consumers that pull, over both stores.

mod answers;
mod crashes;
mod crowd;
mod held;
mod refusals;
mod shared;
mod waiting;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{self, Answer, Connection};
use crate::support::gateway::{Gateway, Home};

/// How long anything that should happen may take.
const WITHIN: Duration = Duration::from_secs(30);
/// A queue for consumers, whose schedule lets a retry come soon.
const QUEUE: &str =
    "[queues.jobs]\nprocessor = 'pull'\n[queues.jobs.retry]\nschedule = ['10ms', '10ms', '10ms']\n";

/// Runs a test over each kind of store.
fn over_both(test: impl Fn(&Home)) {
    test(&Home::Sqlite);
    test(&Home::redis());
}

/// Sends JSON to `…/leases` or below it; gives the answer whatever it is.
fn post(address: &str, queue: &str, what: &str, body: &Value) -> Answer {
    let path = format!("/v1/queues/{queue}/leases{what}");
    let headers = [("Content-Type", "application/json")];
    client::request(address, "POST", &path, &headers, body.to_string().as_bytes()).expect("an answer")
}

/// The same of an answer that must be a 200, as JSON.
fn told(address: &str, what: &str, body: &Value) -> Value {
    let answer = post(address, "jobs", what, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Leases; gives the messages.
fn lease(gateway: &Gateway, order: &Value) -> Vec<Value> {
    items(&told(&gateway.address(), "", order))
}

fn items(answer: &Value) -> Vec<Value> {
    answer["items"].as_array().expect("items").clone()
}

/// Leases one message that must be there.
fn lease_one(gateway: &Gateway, order: &Value) -> Value {
    let mut found = lease(gateway, order);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// The receipt of a leased message.
fn receipt(message: &Value) -> &str {
    message["receipt"].as_str().expect("a receipt")
}

/// Settles; gives what became of each receipt.
fn settle(gateway: &Gateway, body: &Value) -> Vec<String> {
    fates(&told(&gateway.address(), "/settle", body))
}

fn fates(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|result| result["result"].as_str().expect("a word").to_owned()).collect()
}

/// Sends a lease on a connection of its own and does not wait for the answer.
fn ask(address: &str, order: &Value) -> Connection {
    let mut connection = Connection::open(address).expect("it connects");
    let headers = [("Content-Type", "application/json")];
    let body = order.to_string();
    connection.send("POST", "/v1/queues/jobs/leases", &headers, body.as_bytes()).expect("it is sent");
    connection
}

/// Waits until that many requests of consumers are with the gateway: what it has not read yet is not waited for.
fn wait_until_leased(gateway: &mut Gateway, count: u64) {
    gateway.wait_for("it is leased", WITHIN, |gateway| {
        (gateway.status()["totals"]["leased"] == json!(count)).then_some(())
    });
}
