//! A COMMIT that fails: nobody knows what is in the file, until it is opened again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use posthaste::store::sqlite::fault::{CommitFault, fail_commit};
use serde_json::json;

use crate::support::embedded::Embedded;
use crate::support::gateway::Whereabouts;
use crate::support::invariants::count;
use crate::support::ledger::{is_refused_at_first, reconcile};
use crate::support::load::Load;
use crate::support::sink::{Answer, Keep, Sink};

const WITHIN: Duration = Duration::from_mins(1);
const MESSAGES: u64 = 2_000;
const PATH: &str = "/v1/queues/kept/messages";

/// A gateway with a queue that nobody leases from: nothing but publishes is committed.
fn keeping() -> Embedded {
    let declare = |settings: &mut posthaste::Settings| {
        settings.declare("kept", "pull").expect("a name");
    };
    Embedded::start(declare, |app| app)
}

#[test]
fn a_commit_that_fails_once_is_asked_for_again_and_stores_once() {
    for fault in [CommitFault::Before, CommitFault::After] {
        let gateway = keeping();
        fail_commit(&gateway.store(), 0, fault);
        let answer = gateway.request("POST", PATH, &[], b"once");
        assert_eq!(answer.status, 202, "{fault:?}: {}", answer.text());
        let status = gateway.status();
        assert_eq!(["accepted", "pending"].map(|key| count(&status, key)), [1, 1], "{fault:?}: {status}");
        let path = answer.header("location").expect("a Location");
        let message = gateway.request("GET", &format!("{path}?payload=true"), &[], b"").json();
        assert_eq!([&message["state"], &message["payload"]], ["pending", "once"], "{fault:?}: {message}");
        gateway.stop();
    }
}

#[test]
fn an_injected_commit_error_is_unknown_and_recovered_from() {
    let gateway = keeping();
    let first = gateway.request("POST", PATH, &[], b"before");
    assert_eq!(first.status, 202, "{}", first.text());
    // From now on every COMMIT fails, for longer than a publish waits.
    let is_failing = Arc::new(AtomicBool::new(true));
    let (armed, store) = (is_failing.clone(), gateway.store());
    fail_commit(&store, 0, CommitFault::Before);
    let faults = thread::spawn(move || {
        while armed.load(Ordering::SeqCst) {
            fail_commit(&store, 0, CommitFault::Before);
            thread::sleep(Duration::from_micros(100));
        }
        // What was armed last may be left: it must not befall what comes later.
        fail_commit(&store, u32::MAX, CommitFault::Before);
    });
    let key = [("Idempotency-Key", "order-17")];
    let answer = gateway.request("POST", PATH, &key, b"during");
    assert_eq!(
        (answer.status, answer.header("posthaste-stored")),
        (503, Some("unknown")),
        "{}",
        answer.text()
    );
    assert_eq!(answer.json()["code"], "store_timeout", "{}", answer.text());
    assert_eq!(answer.json()["retryable"], true, "{}", answer.text());
    is_failing.store(false, Ordering::SeqCst);
    faults.join().expect("no panic");
    // The same again, with the same key: accepted, and there once.
    let answer = gateway.request("POST", PATH, &key, b"during");
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    let again = gateway.request("POST", PATH, &key, b"during");
    assert_eq!((again.status, &again.json()["id"]), (200, &answer.json()["id"]), "{}", again.text());
    let status = gateway.status();
    assert_eq!(["accepted", "pending"].map(|key| count(&status, key)), [2, 2], "{status}");
    assert_eq!(status["store"]["reachable"], json!(true), "{status}");
    gateway.stop();
}

#[test]
fn commits_that_fail_under_load_lose_nothing() {
    let sink = Sink::keeping(Keep::Digests, |received| {
        Answer::status(if is_refused_at_first(received) { 503 } else { 200 })
    });
    let destination = sink.url("/orders").parse().expect("a URL");
    let declare = |settings: &mut posthaste::Settings| {
        settings.dev = true;
        let queue = settings.declare("orders", "http").expect("a name");
        queue.destination = Some(destination);
        queue.retry.schedule = vec![Duration::from_millis(200); 11];
    };
    let gateway = Embedded::start(declare, |app| app);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let load = Load { queue: "orders", messages: MESSAGES, clients: 16, payload_bytes_max: 16 << 10, seed };
    let publishing = load.start(&Arc::new(Whereabouts::of(&gateway.address())));
    let progress = publishing.progress().clone();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut faults = 0;
    while !publishing.is_finished() {
        let fault = if random.bool() { CommitFault::Before } else { CommitFault::After };
        fail_commit(&gateway.store(), random.u32(0..20), fault);
        faults += 1;
        thread::sleep(Duration::from_millis(random.u64(20..60)));
    }
    fail_commit(&gateway.store(), u32::MAX, CommitFault::Before);
    let sent = publishing.join();
    let status = gateway.wait_until_drained(WITHIN);
    let reconciled = reconcile(&sent, &sink.received(), is_refused_at_first);
    println!("{faults} faults, {reconciled:?}, {} of unknown fate", progress.unknown());
    assert_eq!(progress.accepted(), MESSAGES, "every publish is answered 202 in the end");
    let came = reconciled.messages;
    assert_eq!(["accepted", "delivered", "dead"].map(|key| count(&status, key)), [came, came, 0], "{status}");
    gateway.stop();
}
