//! A message's whole way through the real binary, under load.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use posthaste::{Message, Outcome};
use serde_json::json;

use crate::support::client::Connection;
use crate::support::embedded::Embedded;
use crate::support::gateway::Home;
use crate::support::invariants::{assert_laws, count};
use crate::support::ledger::{is_refused_at_first, reconcile};
use crate::support::load::{Load, PAYLOAD_BYTES_MAX};
use crate::support::sink::{Answer, Keep, Sink};
use crate::support::wait_until;

const MESSAGES: u64 = 10_000;
const SAMPLES: u64 = 100;
/// How long the next sign of progress may take on a busy machine.
const PROGRESS_WITHIN: Duration = Duration::from_mins(1);

#[test]
fn ten_thousand_messages_arrive_byte_for_byte_and_the_laws_hold_throughout() {
    ten_thousand_messages(&Home::Sqlite);
}

#[test]
fn ten_thousand_messages_arrive_byte_for_byte_over_redis_and_the_laws_hold_throughout() {
    ten_thousand_messages(&Home::redis());
}

#[expect(
    clippy::print_stdout,
    reason = "a test that is repeated needs its seed, and who reads it the figures"
)]
fn ten_thousand_messages(home: &Home) {
    let sink = Sink::keeping(Keep::Digests, |received| {
        Answer::status(if is_refused_at_first(received) { 503 } else { 200 })
    });
    let settings = format!(
        "[queues.orders]\nprocessor = 'http'\ndestination = '{}'\n\
         retry.schedule = ['200ms', '400ms', '800ms', '1s', '2s']\n",
        sink.url("/orders")
    );
    let mut gateway = home.start(&settings, &["--dev"]);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let load =
        Load { queue: "orders", messages: MESSAGES, clients: 16, payload_bytes_max: PAYLOAD_BYTES_MAX, seed };
    let publishing = load.start(&gateway.whereabouts());
    // Each message is accepted once and comes to the sink at least once: that is how far the run is.
    let done = || publishing.progress().accepted() + sink.count() as u64;
    let mut unfinished = 0;
    for sample in 0..SAMPLES {
        let place = sample * 2 * MESSAGES / SAMPLES;
        wait_until(&format!("{place} steps are done"), PROGRESS_WITHIN, || (done() >= place).then_some(()));
        let status = gateway.status();
        assert_laws(&status);
        unfinished += u64::from(count(&status, "delivered") < MESSAGES);
    }
    assert!(unfinished >= SAMPLES * 9 / 10, "{unfinished} samples were taken during the run");
    let progress = publishing.progress().clone();
    let sent = publishing.join();
    let status = gateway.wait_until_drained(PROGRESS_WITHIN);
    let reconciled = reconcile(&sent, &sink.received(), is_refused_at_first);
    println!("{reconciled:?}");
    assert_eq!((progress.accepted(), progress.refused(), progress.unknown()), (MESSAGES, 0, 0));
    assert_eq!((reconciled.messages, reconciled.duplicates), (MESSAGES, 0));
    assert!(reconciled.refusals > 0, "the sink refused some");
    assert_eq!(["accepted", "delivered", "dead"].map(|key| count(&status, key)), [MESSAGES, MESSAGES, 0]);
    assert_eq!(count(&status, "retried"), reconciled.refusals);
    gateway.stop();
}

#[test]
fn a_panic_is_that_messages_outcome() {
    const EACH: usize = 10;
    const ATTEMPTS: usize = 3;
    let tried = Arc::<Mutex<BTreeMap<String, usize>>>::default();
    let noted = tried.clone();
    let boom = move |message: Message| {
        *noted.lock().expect("no panic while it is held").entry(message.id.to_string()).or_default() += 1;
        async move {
            // Without the panic hook, which would print a page for each.
            if message.payload.as_ref() == b"boom" {
                std::panic::resume_unwind(Box::new("a panic of the test's own making"));
            }
            Outcome::Done
        }
    };
    let gateway = Embedded::start(
        |settings| {
            let queue = settings.declare("risky", "boom").expect("a name");
            queue.retry.schedule = vec![Duration::from_millis(50); ATTEMPTS - 1];
        },
        |app| app.processor("boom", boom),
    );
    let mut connection = Connection::open(&gateway.address()).expect("it listens");
    let mut publish = |payload: &[u8]| {
        let answer =
            connection.request("POST", "/v1/queues/risky/messages", &[], payload).expect("an answer");
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    };
    // Each that panics has others before it and behind it in its batch.
    let mut panicking = Vec::new();
    let mut healthy = Vec::new();
    for _ in 0..EACH {
        healthy.extend((0..EACH).map(|_| publish(b"fine")));
        panicking.push(publish(b"boom"));
    }
    let status = gateway.wait_until_drained(PROGRESS_WITHIN);
    let tried = tried.lock().expect("no panic while it was held").clone();
    for id in &healthy {
        assert_eq!(tried[id], 1, "{id} is processed once");
    }
    for id in &panicking {
        assert_eq!(tried[id], ATTEMPTS, "{id} is tried as often as it may be");
        let message = gateway.request("GET", &format!("/v1/queues/risky/messages/{id}"), &[], b"").json();
        assert_eq!([&message["state"], &message["reason"]], ["dead", "exhausted"], "{message}");
        assert_eq!(message["attempt_count"], ATTEMPTS, "{message}");
    }
    let counts = ["delivered", "dead", "recovered"].map(|key| count(&status, key));
    assert_eq!(counts, [healthy.len() as u64, panicking.len() as u64, 0], "no lease was lost");
    let actors = status["actors"].as_array().expect("actors");
    assert!(!actors.is_empty());
    for actor in actors {
        assert_eq!([&actor["restarts"], &actor["state"]], [&json!(0), &json!("running")], "{actor}");
    }
    gateway.stop();
}
