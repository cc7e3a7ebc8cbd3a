//! What consumers that wait are told when their queue is held, deleted or given to others meanwhile, at their gateway or another.

use std::time::Duration;

use serde_json::{Value, json};

use super::{WITHIN, ask, items, over_both, post};
use crate::support::client::{self, Answer, Connection};
use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::count;
use crate::support::wait_until;

/// Consumers that wait for the queue.
const CONSUMERS: usize = 5;
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A gateway with room for these consumers, one of another queue, and no more.
fn start(home: &Home) -> Gateway {
    let room = CONSUMERS + 1;
    let settings = format!("[server.limits]\nconsumers_max = {room}\n[queues.other]\nprocessor = 'pull'\n");
    home.start(&settings, &[])
}

/// Asks a gateway for something that it does.
fn told(address: &str, request: &str, body: &str, status: u16) -> Answer {
    let (method, path) = request.split_once(' ').expect("a method and a path");
    let answer = client::request(address, method, path, &[JSON], body.as_bytes()).expect("an answer");
    assert_eq!(answer.status, status, "{request}: {}", answer.text());
    answer
}

/// Who waits for `jobs`, and one for `other`.
struct Waiting {
    jobs: Vec<Connection>,
    other: Connection,
}

impl Waiting {
    /// Makes `jobs` at one gateway, and lets consumers wait at another, or the same; all of them have their place.
    fn at(waits: &str, made: &str) -> Self {
        told(made, "PUT /v1/queues/jobs", r#"{"processor":"pull"}"#, 201);
        let order = json!({"wait": "60s"});
        // Before a 404 the store is asked, so the queue need not be known there yet.
        let jobs = (0..CONSUMERS).map(|_| ask(waits, &order)).collect();
        let mut other = Connection::open(waits).expect("it connects");
        let body = order.to_string();
        other.send("POST", "/v1/queues/other/leases", &[JSON], body.as_bytes()).expect("it is sent");
        wait_until("all of them wait", WITHIN, || {
            (post(waits, "jobs", "", &json!({})).status == 503).then_some(())
        });
        Self { jobs, other }
    }

    /// A message to the other queue is with its consumer: what was published before it woke whom it had to wake.
    fn pass(&mut self, gateway: &str) {
        told(gateway, "POST /v1/queues/other/messages", "\"a mark\"", 202);
        let answer = self.other.answer(false).expect("an answer").json();
        assert_eq!(items(&answer)[0]["payload"], "\"a mark\"");
    }

    fn answered(&self) -> usize {
        let is_answered = |connection: &&Connection| {
            connection.wait_at_most(Duration::from_millis(1)).expect("an open socket");
            connection.peek().is_ok_and(|count| count > 0)
        };
        self.jobs.iter().filter(is_answered).count()
    }

    /// What each of them is told.
    fn answers(self) -> Vec<(u16, Value)> {
        let answer = |mut connection: Connection| {
            connection.wait_at_most(WITHIN).expect("an open socket");
            let answer = connection.answer(false).expect("an answer");
            (answer.status, answer.json())
        };
        self.jobs.into_iter().map(answer).collect()
    }
}

/// Consumers wait at one gateway; their queue is paused and resumed at another, or the same.
fn they_wait_through_a_pause(waits: &str, held: &str) {
    let mut waiting = Waiting::at(waits, held);
    told(held, "POST /v1/queues/jobs/pause", "", 200);
    for number in 0..CONSUMERS {
        told(held, "POST /v1/queues/jobs/messages", &number.to_string(), 202);
    }
    waiting.pass(held);
    assert_eq!(waiting.answered(), 0, "they wait on");
    let status = told(held, "GET /status?queue=jobs", "", 200).json();
    assert_eq!((count(&status, "pending"), count(&status, "leased")), (5, 0), "{status}");
    assert_eq!(status["queues"][0]["stalled"]["code"], "paused", "{status}");

    told(held, "POST /v1/queues/jobs/resume", "", 200);
    let mut payloads = Vec::new();
    for (status, answer) in waiting.answers() {
        let found = items(&answer);
        assert_eq!((status, found.len()), (200, 1), "{answer}");
        payloads.push(found[0]["payload"].as_str().expect("a text").to_owned());
    }
    payloads.sort_unstable();
    assert_eq!(payloads, ["0", "1", "2", "3", "4"], "each has one");
}

fn they_are_told_that_it_was_deleted(waits: &str, deleted: &str) {
    let waiting = Waiting::at(waits, deleted);
    told(deleted, "DELETE /v1/queues/jobs", "", 204);
    for (status, problem) in waiting.answers() {
        assert_eq!((status, &problem["code"]), (404, &json!("queue_unknown")), "{problem}");
    }
}

fn they_are_told_that_nobody_can_pull(waits: &str, changed: &str) {
    let waiting = Waiting::at(waits, changed);
    told(changed, "PUT /v1/queues/jobs", r#"{"processor":"log"}"#, 200);
    for (status, problem) in waiting.answers() {
        assert_eq!((status, &problem["code"]), (409, &json!("queue_not_pull")), "{problem}");
    }
}

/// Runs a scenario at one gateway, over each kind of store.
fn at_one(scenario: fn(&str, &str)) {
    over_both(|home| {
        let mut gateway = start(home);
        scenario(&gateway.address(), &gateway.address());
        gateway.stop();
    });
}

/// Runs it with the consumers at one gateway, and everything else at another.
fn at_two(scenario: fn(&str, &str)) {
    let home = Home::redis();
    let (mut one, mut other) = (start(&home), start(&home));
    scenario(&one.address(), &other.address());
    one.stop();
    other.stop();
}

#[test]
fn who_waits_when_the_queue_is_paused_waits_on_and_is_served_when_it_goes_on() {
    at_one(they_wait_through_a_pause);
}

#[test]
fn who_waits_at_another_gateway_when_the_queue_is_paused_waits_on_too() {
    at_two(they_wait_through_a_pause);
}

#[test]
fn who_waits_when_the_queue_is_deleted_is_told_so() {
    at_one(they_are_told_that_it_was_deleted);
}

#[test]
fn who_waits_at_another_gateway_when_the_queue_is_deleted_is_told_so() {
    at_two(they_are_told_that_it_was_deleted);
}

#[test]
fn who_waits_when_the_queue_gets_another_processor_is_told_so() {
    at_one(they_are_told_that_nobody_can_pull);
}

#[test]
fn who_waits_at_another_gateway_when_the_queue_gets_another_processor_is_told_so() {
    at_two(they_are_told_that_nobody_can_pull);
}
