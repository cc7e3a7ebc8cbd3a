//! What a publisher hears when the store or the gateway cannot: the code, whether to try again, and what may be stored.

use std::time::Duration;

use posthaste::http::ServerSettings;
use posthaste::store::error::StoreError;
use posthaste::store::settings::RequiredDurability;
use serde_json::json;

use super::http_gateway::{Plan, Reply, TestGateway};
use crate::support::gateway::Home;
use crate::support::stores::on_both_stores;

on_both_stores! {
    a_store_that_is_away_is_not_asked
    a_full_store_takes_nothing_and_stays_ready
    a_full_queue_answers_429_with_the_limit
    a_panic_of_a_handler_is_answered_and_the_next_request_is_served
    every_refusal_of_a_publish_names_the_request_and_says_what_is_stored
    what_this_store_delivered_to_itself_is_refused
}

/// A publish without and one with a key are refused so.
fn check(gateway: &TestGateway, status: u16, code: &str, stored: [&str; 2], retryable: [bool; 2]) {
    let headers = [&[][..], &[("Idempotency-Key", "k")]];
    for ((headers, stored), retryable) in headers.into_iter().zip(stored).zip(retryable) {
        let reply = gateway.publish("default", headers, b"x");
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{reply:?}");
        assert_eq!(reply.header("posthaste-stored"), Some(stored), "{code} {headers:?}");
        assert_eq!(reply.json()["retryable"], retryable, "{code} {headers:?}");
        assert_eq!(reply.header("retry-after").is_some(), matches!(status, 429 | 503), "{code}");
    }
}

#[test]
fn what_the_store_says_is_passed_on() {
    let gateway = TestGateway::in_memory();
    let why = || "why".to_owned();
    for (error, status, code, stored, retryable) in [
        (StoreError::Unavailable(why()), 503, "store_unavailable", ["no", "unknown"], [true, true]),
        (StoreError::Full(why()), 503, "store_full", ["no", "no"], [true, true]),
        (StoreError::NotDurable(why()), 503, "not_durable", ["no", "unknown"], [true, true]),
        (StoreError::Internal(why()), 500, "internal", ["unknown", "unknown"], [false, false]),
    ] {
        gateway.faults.set_enqueue(Some(error));
        check(&gateway, status, code, stored, retryable);
        gateway.faults.set_enqueue(None);
        gateway.assert_alive(code);
    }
}

#[test]
fn a_store_that_never_answers_leaves_it_unknown() {
    std::thread::scope(|scope| {
        for (headers, retryable) in [(&[][..], false), (&[("Idempotency-Key", "k")], true)] {
            scope.spawn(move || {
                let gateway = TestGateway::in_memory();
                gateway.faults.set_enqueue_late(true);
                let reply = gateway.publish("default", headers, b"x");
                assert_eq!((reply.status, reply.code().as_str()), (503, "store_timeout"), "{reply:?}");
                assert_eq!(reply.header("posthaste-stored"), Some("unknown"));
                assert_eq!(reply.json()["retryable"], retryable);
            });
        }
    });
}

fn a_store_that_is_away_is_not_asked(home: &Home) {
    let gateway = TestGateway::start(home);
    let known = gateway.publish("default", &[], b"x");
    gateway.faults.set_away(true);
    let ready = gateway.wait_for("GET /ready", 503);
    assert_eq!(ready.json()["reasons"][0]["code"], "store_unavailable");
    assert_eq!(ready.json()["ready"], false);
    check(&gateway, 503, "store_unavailable", ["no", "unknown"], [true, true]);
    let found = gateway.look(known.header("location").expect("a location"));
    assert_eq!((found.status, found.code().as_str()), (503, "store_unavailable"));
    assert_eq!(found.header("posthaste-stored"), None);
    let unknown = gateway.look("/v1/queues/nothing");
    assert_eq!((unknown.status, unknown.code().as_str()), (503, "store_unavailable"), "it may be there");
    assert_eq!(gateway.put("new", &json!({"processor": "log"})).status, 503);
    assert_eq!(gateway.look("/v1/queues/default").status, 200, "what is known is shown");
    assert_eq!(gateway.look("/health").status, 200);
    gateway.faults.set_away(false);
    gateway.wait_for("GET /ready", 200);
    gateway.assert_alive("the store was away");
}

fn a_full_store_takes_nothing_and_stays_ready(home: &Home) {
    let gateway = TestGateway::start(home);
    gateway.faults.set_full(Some("81 % of 1GiB"));
    let mut reply = gateway.publish("default", &[], b"x");
    // The gateway looks at the store once a second.
    while reply.status == 202 {
        reply = gateway.publish("default", &[], b"x");
    }
    check(&gateway, 503, "store_full", ["no", "unknown"], [true, true]);
    assert_eq!(gateway.look("/ready").status, 200);
    let warnings = gateway.look("/status").json()["store"]["warnings"].clone();
    // A store may warn of more than this.
    let told = warnings.as_array().into_iter().flatten();
    let told: Vec<_> = told.filter(|warning| warning["code"] == "store_full").collect();
    assert_eq!(told, [&json!({"code": "store_full", "detail": "81 % of 1GiB"})], "{warnings}");
    gateway.faults.set_full(None);
    while gateway.publish("default", &[], b"x").status != 202 {}
}

#[test]
fn a_store_that_is_not_durable_as_configured_takes_nothing() {
    // The store in memory says of itself what it is; the gateway was told to promise more.
    let declared = vec![("default", json!({"processor": "log"}))];
    let plan = Plan { durability: Some(RequiredDurability::Strict), declared, ..Plan::default() };
    let gateway = TestGateway::start_unready(None, plan);
    let ready = gateway.wait_for("GET /ready", 503);
    let mut codes = ready.json()["reasons"][0]["code"].clone();
    while codes != "not_durable" {
        codes = gateway.look("/ready").json()["reasons"][0]["code"].clone();
    }
    check(&gateway, 503, "not_durable", ["no", "unknown"], [true, true]);
    let durability = gateway.look("/status").json()["store"]["durability"].clone();
    assert_eq!((&durability["configured"], &durability["now"]), (&json!("strict"), &json!("none")));
}

fn a_full_queue_answers_429_with_the_limit(home: &Home) {
    let gateway = TestGateway::start(home);
    assert_eq!(gateway.put("small", &json!({"processor": "log", "limits": {"length_max": 1}})).status, 201);
    assert_eq!(gateway.publish("small", &[("Idempotency-Key", "first")], b"x").status, 202);
    let full: Reply = gateway.publish("small", &[("Idempotency-Key", "second")], b"x");
    assert_eq!((full.status, full.code().as_str()), (429, "queue_full"));
    assert_eq!((&full.json()["setting"], &full.json()["limit"]), (&json!("limits.length_max"), &json!(1)));
    assert_eq!(full.header("posthaste-stored"), Some("no"));
    assert!(full.header("retry-after").is_some());
    // A keyed retry of what is stored is never told "full".
    assert_eq!(gateway.publish("small", &[("Idempotency-Key", "first")], b"x").status, 200);
    gateway.assert_alive("a full queue");
}

#[test]
fn more_publishes_than_may_wait_are_refused_before_their_body_is_read() {
    let mut server = ServerSettings::default();
    server.listen.0.set_port(0);
    server.threads = 1;
    server.limits.publishes_in_flight_max = 1;
    let gateway = TestGateway::in_memory_as(Plan { server, ..Plan::default() });
    gateway.faults.set_enqueue_late(true);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| gateway.publish("default", &[], b"x"));
        let refused = loop {
            let reply = gateway.publish("nothing", &[], b"x");
            if reply.status == 503 {
                break reply;
            }
        };
        assert_eq!(refused.code(), "overloaded");
        assert_eq!(refused.json()["setting"], "server.limits.publishes_in_flight_max");
        assert_eq!(refused.json()["limit"], 1);
        gateway.faults.set_enqueue_late(false);
        assert_eq!(waiting.join().expect("answered").status, 202);
    });
    gateway.assert_alive("an overload");
}

fn a_panic_of_a_handler_is_answered_and_the_next_request_is_served(home: &Home) {
    let gateway = TestGateway::start(home);
    let known = gateway.publish("default", &[], b"x");
    gateway.faults.set_panics(true);
    let lookup = gateway.look(known.header("location").expect("a location"));
    assert_eq!((lookup.status, lookup.code().as_str()), (500, "internal"), "{lookup:?}");
    assert_eq!(lookup.header("posthaste-stored"), None);
    assert_eq!(lookup.json()["request_id"], lookup.header("posthaste-request-id").expect("an id"));
    assert!(!String::from_utf8_lossy(&lookup.body).contains("planted"), "the cause is for the log alone");
    let publish = gateway.publish("nothing", &[], b"x");
    assert_eq!((publish.status, publish.code().as_str()), (500, "internal"));
    assert_eq!(publish.header("posthaste-stored"), Some("unknown"));
    let mut client = gateway.connect();
    for _ in 0..3 {
        client.send(&super::http_gateway::request("GET /v1/queues/nothing", &[], b""));
        assert_eq!(client.reply_to("GET").status, 500);
    }
    gateway.assert_alive("panics");
    gateway.faults.set_panics(false);
    assert_eq!(gateway.look("/v1/queues/nothing").status, 404);
    assert!(gateway.stop(Duration::from_secs(10)));
}

/// What each kind of refusal looks like from outside: status, code, what is stored, and the request's name as a header and in
/// the problem, the same in both.
fn every_refusal_of_a_publish_names_the_request_and_says_what_is_stored(home: &Home) {
    let mut server = ServerSettings::default();
    server.listen.0.set_port(0);
    server.threads = 1;
    server.limits.body_timeout = Duration::from_millis(200);
    let declared = [
        ("default", json!({"processor": "log"})),
        ("full", json!({"processor": "log", "limits": {"length_max": 1}})),
    ];
    let gateway =
        TestGateway::start_as(home, Plan { server, declared: declared.to_vec(), ..Plan::default() });
    assert_eq!(gateway.publish("full", &[], b"x").status, 202);
    assert_eq!(gateway.publish("default", &[("Idempotency-Key", "k")], b"x").status, 202);
    let (long, queue) = ("x".repeat(9 << 10), "/v1/queues/default/messages");
    let many: Vec<(String, String)> = (0..80).map(|number| (format!("X-{number}"), "v".to_owned())).collect();
    let via = gateway.store.id().to_string();
    let no_headers = Vec::new;
    let one = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let mut ids = std::collections::HashSet::new();
    for (path, headers, status, code) in [
        (queue.to_owned(), one("Posthaste-Delay", "soon"), 400, "invalid_value"),
        (queue.to_owned(), one("Posthaste-Dealy", "1s"), 400, "unknown_header"),
        (format!("{queue}?x=1"), no_headers(), 400, "unknown_parameter"),
        ("/v1/queues/-/messages".to_owned(), no_headers(), 400, "invalid_queue_name"),
        ("/v1/queues/nothing/messages".to_owned(), no_headers(), 404, "queue_unknown"),
        (format!("{queue}/batch"), no_headers(), 415, "unsupported_media_type"),
        (format!("{queue}/x/y"), no_headers(), 404, "route_unknown"),
        (format!("{queue}/x"), no_headers(), 405, "method_not_allowed"),
        (queue.to_owned(), one("Content-Length", "5"), 408, "request_timeout"),
        (queue.to_owned(), one("Content-Length", "2000000"), 413, "payload_too_large"),
        (format!("{queue}?{long}"), no_headers(), 414, "uri_too_long"),
        (queue.to_owned(), one("Content-Encoding", "gzip"), 415, "unsupported_content_encoding"),
        (queue.to_owned(), one("Idempotency-Key", "k"), 422, "idempotency_key_reused"),
        (queue.to_owned(), one("Posthaste-Forward-Host", "x"), 422, "header_not_forwardable"),
        ("/v1/queues/full/messages".to_owned(), no_headers(), 429, "queue_full"),
        (queue.to_owned(), many, 431, "head_too_large"),
        (queue.to_owned(), one("Posthaste-Via", &via), 508, "loop_detected"),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let reply = gateway.send(&format!("POST {path}"), &headers, b"y");
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{reply:?}");
        assert_eq!(reply.header("posthaste-stored"), Some("no"), "{code}");
        let id = reply.header("posthaste-request-id").expect(code);
        assert_eq!(reply.json()["request_id"], id, "{code}");
        assert!(ids.insert(id.to_owned()), "{code}: a name of its own");
    }
}

fn what_this_store_delivered_to_itself_is_refused(home: &Home) {
    let gateway = TestGateway::start(home);
    let id = gateway.store.id();
    for (via, status) in [(id.to_string(), 508), (format!("another, {id}"), 508), ("another".to_owned(), 202)]
    {
        let headers =
            [("Posthaste-Via", via.as_str()), ("Posthaste-Attempt", "1"), ("Posthaste-Queue", "default")];
        let reply = gateway.publish("default", &headers, b"x");
        assert_eq!(reply.status, status, "{reply:?}");
        if status == 508 {
            assert_eq!(
                (reply.code().as_str(), reply.header("posthaste-stored")),
                ("loop_detected", Some("no"))
            );
        }
    }
}
