//! `/status`, `/ready` and the root: what they say, and that they say it whatever the store does.

use posthaste::api::Status;
use std::sync::Arc;
use std::time::Duration;

use posthaste::clock::Clock;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::queue::ParkReason::{DestinationGone, EgressRefused};
use posthaste::domain::retry::Verdict;
use posthaste::domain::timestamp::Timestamp;
use posthaste::store::Hold;
use posthaste::store::lease::{BatchId, LeaseKind, LeaseRequest};
use serde_json::{Value, json};

use super::http_gateway::{Plan, TestGateway};
use crate::support::gateway::Home;
use crate::support::stores::on_both_stores;

on_both_stores! {
    the_status_has_every_field_of_the_contract
    queues_are_shown_by_name_all_or_those_asked_for
    a_status_without_the_store_shows_what_was_known
    a_queue_that_stands_still_says_why
    a_queue_whose_processor_is_not_here_says_so
    a_queue_of_which_nobody_pulls_says_so_until_somebody_does
    with_many_queues_the_counts_may_be_a_second_old_and_no_older
    the_root_tells_a_newcomer_what_to_type
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn sorted(text: &'static str) -> Vec<&'static str> {
    let mut words: Vec<_> = text.split_whitespace().collect();
    words.sort_unstable();
    words
}

const COUNTS: &str =
    "pending scheduled leased dead bytes accepted delivered retried dead_lettered replayed cancelled
    purged discarded trimmed recovered deferred";

fn the_status_has_every_field_of_the_contract(home: &Home) {
    let gateway = TestGateway::start(home);
    gateway.publish("default", &[("Content-Type", "text/plain")], b"hello");
    gateway.publish("default", &[("Posthaste-Delay", "1h")], b"later");
    let status = gateway.look("/status").json();
    let kind = if let Home::Sqlite = home { "sqlite" } else { "redis" };
    let top = "version instance started_at uptime_s as_of consistent instances store totals queues actors lanes process";
    assert_eq!(keys(&status), sorted(top));
    assert_eq!(keys(&status["instances"][0]), ["id", "last_seen", "version"]);
    assert_eq!(keys(&status["store"]), ["durability", "kind", "latency_ms", "reachable", "warnings"]);
    assert_eq!(keys(&status["store"]["durability"]), ["configured", "now", "reasons"]);
    assert_eq!(keys(&status["totals"]), sorted(COUNTS));
    let queue = &status["queues"][0];
    for name in COUNTS.split_whitespace() {
        assert!(queue[name].is_u64(), "{name}: {queue}");
    }
    let rest =
        "name processor source paused parked signed length_max bytes_max accepted_per_s_1m accepted_per_s_5m
        delivered_per_s_1m delivered_per_s_5m oldest_pending_ms recovering_until consistent stalled";
    assert_eq!(keys(queue).len(), rest.split_whitespace().count() + COUNTS.split_whitespace().count());
    for name in rest.split_whitespace() {
        assert!(queue.get(name).is_some(), "{name}: {queue}");
    }
    assert_eq!(keys(&status["process"]), ["cpu_s", "fds_max", "fds_open", "rss_bytes"]);
    let actor = "name state restarts mailbox_depth mailbox_capacity beat_age_ms";
    assert_eq!(keys(&status["actors"][0]), sorted(actor));
    for (pointer, value) in [
        ("/instance", json!("test-instance")),
        ("/instances/0/id", json!("test-instance")),
        ("/consistent", json!(true)),
        ("/store/kind", json!(kind)),
        ("/store/reachable", json!(true)),
        ("/store/durability/configured", json!("strict")),
        ("/store/durability/now", json!("strict")),
        ("/lanes", json!([])),
        ("/queues/0/name", json!("default")),
        ("/queues/0/pending", json!(1)),
        ("/queues/0/scheduled", json!(1)),
        ("/queues/0/accepted", json!(2)),
        ("/queues/0/parked", Value::Null),
        ("/queues/0/stalled", Value::Null),
        ("/queues/0/length_max", json!(1_000_000)),
        ("/totals/accepted", json!(2)),
    ] {
        assert_eq!(status.pointer(pointer), Some(&value), "{pointer}");
    }
    assert!(queue["oldest_pending_ms"].is_u64() && queue["bytes"].as_u64() > Some(10), "{queue}");
    let _: Status = serde_json::from_value(status).expect("the client reads it");
}

fn queues_are_shown_by_name_all_or_those_asked_for(home: &Home) {
    let gateway = TestGateway::start(home);
    for name in ["b", "a", "B"] {
        assert_eq!(gateway.put(name, &json!({"processor": "log"})).status, 201);
        gateway.publish(name, &[], b"x");
    }
    let names = |path: &str| -> Vec<String> {
        let queues = gateway.look(path).json()["queues"].clone();
        let queues = queues.as_array().expect("a list");
        queues.iter().map(|queue| queue["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names("/status"), ["B", "a", "b", "default"]);
    assert_eq!(names("/status?queue=b&queue=a&queue=b"), ["a", "b"]);
    for path in ["/status?queue=nothing", "/status?queue=a&queue=nothing"] {
        let unknown = gateway.look(path);
        assert_eq!((unknown.status, unknown.code().as_str()), (404, "queue_unknown"), "{path}");
        assert_eq!(unknown.json()["parameter"], "queue", "{path}");
        assert!(
            unknown.json()["detail"].as_str().is_some_and(|detail| detail.contains("\"nothing\"")),
            "{path}"
        );
    }
    assert_eq!(names("/status?queue=d%65fault"), ["default"]);
    for (asked, shown) in [("%zzabc", "%zzabc"), ("%2531", "%31"), ("a%2Fb", "a/b")] {
        let refused = gateway.look(&format!("/status?queue={asked}"));
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_queue_name"), "{asked}");
        let problem = refused.json();
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.starts_with(&format!("{shown:?} is no queue name")), "{detail}");
        assert_eq!(problem["parameter"], "queue");
    }
    assert_eq!(gateway.look("/status").json()["totals"]["accepted"], 3);
    assert_eq!(gateway.look("/status?queue=a").json()["totals"]["accepted"], 1);
}

fn a_status_without_the_store_shows_what_was_known(home: &Home) {
    let gateway = TestGateway::start(home);
    gateway.publish("default", &[], b"x");
    let before = gateway.look("/status").json();
    assert_eq!(before["consistent"], true);
    gateway.faults.set_away(true);
    gateway.wait_for("GET /ready", 503);
    let reply = gateway.look("/status");
    assert_eq!(reply.status, 200);
    let away = reply.json();
    assert_eq!((&away["consistent"], &away["store"]["reachable"]), (&Value::Null, &json!(false)));
    assert_eq!(away["store"]["durability"]["now"], "unknown");
    let queue = &away["queues"][0];
    assert_eq!((&queue["accepted"], &queue["consistent"]), (&json!(1), &Value::Null));
    assert_eq!(queue["stalled"]["code"], "store_unavailable");
    assert!(queue["stalled"]["since"].is_string() && queue["accepted_per_s_1m"].is_null());
    assert_eq!(gateway.look("/status?queue=default").status, 200);
    let unknown = gateway.look("/status?queue=default&queue=nothing");
    assert_eq!(
        (unknown.status, unknown.json()["queues"].as_array().map(Vec::len)),
        (200, Some(1)),
        "it may be there"
    );
    let work = gateway.look("/ready?check=work").json();
    assert_eq!(work["reasons"].as_array().map(Vec::len), Some(2), "{work}");
    gateway.faults.set_away(false);
    gateway.wait_for("GET /ready", 200);
    assert_eq!(gateway.look("/status").json()["queues"][0]["stalled"], Value::Null);
}

/// Publishes a message to the only queue, which nobody drains, and lets it die.
fn publish_dead(gateway: &TestGateway) {
    gateway.publish("default", &[], b"x");
    let queue = gateway.queue("default");
    gateway.with_store(async |connection| {
        let (kind, lease) = (LeaseKind::Worker, Duration::from_secs(30));
        let (batch, max, bytes_max, suspects) = (BatchId::random(), 1, 1 << 20, false);
        let request = LeaseRequest { queue, batch, kind, max, bytes_max, lease, suspects };
        let leased = connection.lease(request).await.expect("leased");
        let verdict = Verdict::Dead { reason: DeadReason::Rejected, detail: None };
        let settled: Vec<_> =
            leased.leases.into_iter().map(|lease| lease.settle(verdict.clone(), None)).collect();
        assert_eq!(settled.len(), 1);
        connection.settle(leased.batch, Arc::new(settled)).await.expect("settled");
    });
}

fn a_queue_that_stands_still_says_why(home: &Home) {
    let declared = vec![("default", json!({"processor": "log", "dead": {"length_max": 1}}))];
    let gateway = TestGateway::start_as(home, Plan { declared, ..Default::default() });
    assert_eq!(gateway.look("/ready?check=work").status, 200);
    let queue = gateway.queue("default");
    let hold = |hold: Hold| {
        gateway.with_store(async |store| store.hold(queue.clone(), hold).await).expect("held");
    };
    let stalled = || gateway.look("/status").json()["queues"][0]["stalled"].clone();
    let parked = |reason| Hold::Park(reason);
    publish_dead(&gateway);
    assert_eq!(stalled()["code"], "dead_full");
    for (held, code) in [
        (parked(DestinationGone), "destination_gone"),
        (parked(EgressRefused), "egress_refused"),
        (Hold::Pause, "paused"),
    ] {
        hold(held);
        let first = stalled();
        assert_eq!(first["code"], code);
        assert!(first["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        assert_eq!(stalled()["since"], first["since"], "{code}: it has been so since the first look");
    }
    // Readiness looks at what the gateway knows, which the store told it within the last second or so.
    let work = gateway.wait_for("GET /ready?check=work", 503);
    assert_eq!(work.json()["reasons"][0]["code"], "queue_stalled");
    assert_eq!(gateway.look("/ready").status, 200, "stuck work does not make it unready");
    hold(Hold::Resume);
    assert_eq!(stalled(), Value::Null);
    gateway.faults.set_newer(Some("a record of version 9"));
    let ready = gateway.wait_for("GET /ready", 503);
    assert_eq!(ready.json()["reasons"][0]["code"], "store_newer");
    assert_eq!(stalled()["code"], "store_newer");
}

fn a_queue_whose_processor_is_not_here_says_so(home: &Home) {
    let declared = vec![("default", json!({"processor": "log"})), ("resize", json!({"processor": "resize"}))];
    let gateway = TestGateway::start_as(home, Plan { declared, ..Default::default() });
    let status = gateway.look("/status?queue=resize").json();
    assert_eq!(status["queues"][0]["stalled"]["code"], "no_worker");
}

fn a_queue_of_which_nobody_pulls_says_so_until_somebody_does(home: &Home) {
    let clock = Clock::manual(Timestamp::from_millis(1_790_000_000_000));
    let declared = vec![("default", json!({"processor": "log"})), ("jobs", json!({"processor": "pull"}))];
    let gateway = TestGateway::start_as(home, Plan { declared, clock: clock.clone(), ..Plan::default() });
    let stalled = || gateway.look("/status").json()["queues"][1]["stalled"].clone();
    let pass = |seconds| {
        clock.advance(Duration::from_secs(seconds));
        stalled()
    };
    assert_eq!(pass(120), Value::Null, "nothing waits");
    assert_eq!(gateway.publish("jobs", &[], b"x").status, 202);
    // From the look that first sees it pending, a minute.
    assert_eq!(pass(10), Value::Null);
    assert_eq!(pass(59), Value::Null);
    let told = pass(1);
    assert_eq!(told["code"], "no_consumer", "{told}");
    assert_eq!(pass(30)["since"], told["since"]);
    let work = gateway.look("/ready?check=work").json();
    assert_eq!(work["reasons"][0]["code"], "queue_stalled", "{work}");
    assert_eq!(gateway.look("/ready").status, 200);

    let leased = gateway.send("POST /v1/queues/jobs/leases", &[], b"").json();
    assert_eq!(leased["items"][0]["payload"], "x", "{leased}");
    assert_eq!(pass(0), Value::Null, "somebody asked");
}

fn with_many_queues_the_counts_may_be_a_second_old_and_no_older(home: &Home) {
    let names: Vec<&'static str> = (0..101).map(|number| &*format!("q{number}").leak()).collect();
    let mut declared: Vec<_> = names.iter().map(|name| (*name, json!({"processor": "log"}))).collect();
    declared.push(("default", json!({"processor": "log"})));
    let gateway = TestGateway::start_as(home, Plan { declared, ..Default::default() });
    let first = gateway.look("/status").json();
    assert_eq!(first["queues"].as_array().map(Vec::len), Some(102));
    gateway.assert_alive("a status of many queues");
    assert_eq!(gateway.look("/status?queue=default").json()["totals"]["accepted"], 1, "a named one is live");
    let started = std::time::Instant::now();
    let mut later = gateway.look("/status").json();
    while later["totals"]["accepted"] == 0 {
        assert!(started.elapsed() < super::http_gateway::PATIENCE, "it never shows: {}", later["as_of"]);
        later = gateway.look("/status").json();
    }
    assert!(later["as_of"].as_str() > first["as_of"].as_str());
}

fn the_root_tells_a_newcomer_what_to_type(home: &Home) {
    let gateway = TestGateway::start(home);
    let reply = gateway.look("/");
    let text = String::from_utf8(reply.body.clone()).expect("text");
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(text.starts_with(concat!("Posthaste ", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(text.contains("http://test/status") && text.contains("curl -i http://test/v1/queues/"), "{text}");
    let health = gateway.look("/health");
    assert_eq!(
        (health.body.as_slice(), health.header("content-type")),
        (&b"OK"[..], Some("text/plain; charset=utf-8"))
    );
    assert_eq!(gateway.look("/ready").json(), json!({"ready": true}));
    let head = gateway.send("HEAD /", &[], b"");
    assert_eq!(head.header("content-length"), reply.header("content-length"));
}
