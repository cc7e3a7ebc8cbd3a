//! Every error there is, provoked: the table of codes against a table of requests.

use std::collections::BTreeSet;
use std::time::Duration;

use posthaste::api::Problem;
use posthaste::api::code::{CODES, Code};
use posthaste::http::ServerSettings;
use posthaste::store::settings::RequiredDurability;
use serde_json::json;

use super::http_gateway::{Plan, Reply, TestGateway};
use crate::support::gateway::Home;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const PUBLISH: &str = "POST /v1/queues/default/messages";

/// The words of the contract's table, in its order.
const CONTRACT: &str = "malformed invalid_value unknown_field unknown_parameter unknown_header contradictory_options
    invalid_queue_name unauthenticated forbidden route_unknown queue_unknown message_unknown job_unknown
    method_not_allowed request_timeout length_required uri_too_long head_too_large queue_declared_in_file
    queue_not_empty queue_not_pull message_leased message_finished lookup_off payload_too_large batch_too_large
    unsupported_media_type unsupported_content_encoding idempotency_key_reused destination_refused
    destination_not_allowed header_not_forwardable setting_out_of_range secret_needs_file queue_full rate_limited
    internal loop_detected store_unavailable store_full not_durable overloaded shutting_down store_timeout";

/// Those that no request can meet: keys, rates of clients and jobs are not in this version.
const NEVER: [&str; 4] = ["unauthenticated", "forbidden", "rate_limited", "job_unknown"];

/// What a request is sent to.
type Provoke = fn(&Home) -> Reply;

/// One way to each code. Add a row with a code.
const ROWS: &[(&str, Provoke)] = &[
    ("malformed", |home| put(home, "{", &[JSON])),
    ("invalid_value", |home| publish(home, &[("Posthaste-Delay", "soon")])),
    ("unknown_field", |home| put(home, r#"{"procesor":"log"}"#, &[JSON])),
    ("unknown_parameter", |home| TestGateway::start(home).look("/status?queues=default")),
    ("unknown_header", |home| publish(home, &[("Posthaste-Dealy", "1s")])),
    ("contradictory_options", |home| {
        publish(home, &[("Posthaste-Delay", "1s"), ("Posthaste-Deliver-At", "2020-01-01T00:00:00Z")])
    }),
    ("invalid_queue_name", |home| TestGateway::start(home).look("/v1/queues/-")),
    ("route_unknown", |home| TestGateway::start(home).look("/v2")),
    ("queue_unknown", |home| TestGateway::start(home).look("/v1/queues/nothing")),
    ("message_unknown", |home| TestGateway::start(home).look("/v1/queues/default/dead/x")),
    ("method_not_allowed", |home| TestGateway::start(home).send("DELETE /status", &[], b"")),
    ("request_timeout", |home| {
        let gateway = limited(home, |server| server.limits.body_timeout = Duration::from_millis(200));
        gateway.send(PUBLISH, &[("Content-Length", "5")], b"x")
    }),
    ("length_required", |home| {
        let gateway = TestGateway::start(home);
        let mut client = gateway.connect();
        client.send(format!("{PUBLISH} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        client.reply_to(PUBLISH)
    }),
    ("lookup_off", |home| {
        let gateway = with_queue(home, &json!({"processor": "log", "lookup": false}));
        gateway.look("/v1/queues/orders/messages/0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400")
    }),
    ("queue_declared_in_file", |home| TestGateway::start(home).send("DELETE /v1/queues/default", &[], b"")),
    ("queue_not_empty", |home| {
        let gateway = with_queue(home, &json!({"processor": "pull"}));
        assert_eq!(gateway.publish("orders", &[], b"x").status, 202);
        gateway.send("DELETE /v1/queues/orders", &[], b"")
    }),
    ("queue_not_pull", |home| TestGateway::start(home).send("POST /v1/queues/default/leases", &[], b"")),
    ("message_leased", |home| {
        let (gateway, path) = with_message(home);
        let leased = gateway.send("POST /v1/queues/orders/leases", &[], b"").json();
        assert_eq!(leased["items"].as_array().map(Vec::len), Some(1), "{leased}");
        gateway.send(&format!("DELETE {path}"), &[], b"")
    }),
    ("message_finished", |home| {
        let (gateway, path) = with_message(home);
        assert_eq!(gateway.send(&format!("DELETE {path}"), &[], b"").status, 204);
        gateway.send(&format!("DELETE {path}"), &[], b"")
    }),
    ("batch_too_large", |home| {
        let gateway = limited(home, |server| server.limits.batch_messages_max = 1);
        let batch = "POST /v1/queues/default/messages/batch";
        gateway.send(batch, &[("Content-Type", "application/x-ndjson")], b"1\n2\n")
    }),
    ("payload_too_large", |home| {
        with_queue(home, &json!({"processor": "log", "limits": {"payload_max": 1}})).publish(
            "orders",
            &[],
            b"xx",
        )
    }),
    ("uri_too_long", |home| TestGateway::start(home).look(&format!("/health?{}", "x".repeat(9 << 10)))),
    ("unsupported_media_type", |home| put(home, "{}", &[])),
    ("unsupported_content_encoding", |home| publish(home, &[("Content-Encoding", "gzip")])),
    ("idempotency_key_reused", |home| {
        let gateway = TestGateway::start(home);
        assert_eq!(gateway.publish("default", &[("Idempotency-Key", "k")], b"x").status, 202);
        gateway.publish("default", &[("Idempotency-Key", "k")], b"y")
    }),
    ("destination_refused", |home| {
        put(home, r#"{"processor":"http","destination":"http://127.0.0.1/"}"#, &[JSON])
    }),
    ("destination_not_allowed", |home| publish(home, &[("Posthaste-Destination", "https://a.example/")])),
    ("header_not_forwardable", |home| publish(home, &[("Posthaste-Forward-Host", "x")])),
    ("setting_out_of_range", |home| put(home, r#"{"processor":"log","timeout":"1ms"}"#, &[JSON])),
    ("secret_needs_file", |home| put(home, r#"{"processor":"log","secret":"whsec_x"}"#, &[JSON])),
    ("head_too_large", |home| publish(home, &[("X", &"x".repeat(40 << 10))])),
    ("queue_full", |home| {
        let gateway = with_queue(home, &json!({"processor": "pull", "limits": {"length_max": 1}}));
        assert_eq!(gateway.publish("orders", &[], b"x").status, 202);
        gateway.publish("orders", &[], b"x")
    }),
    ("internal", |home| {
        let gateway = TestGateway::start(home);
        gateway.faults.set_panics(true);
        gateway.look("/v1/queues/nothing")
    }),
    ("loop_detected", |home| {
        let gateway = TestGateway::start(home);
        let via = gateway.store.id();
        gateway.publish("default", &[("Posthaste-Via", &via)], b"x")
    }),
    ("store_unavailable", |home| {
        let gateway = TestGateway::start(home);
        gateway.faults.set_away(true);
        gateway.send("POST /v1/queues/default/pause", &[], b"")
    }),
    ("store_full", |home| {
        let gateway = TestGateway::start(home);
        gateway.faults.set_full(Some("81 % of 1GiB"));
        refused(&gateway)
    }),
    ("not_durable", |_| {
        // The store in memory says of itself what it is; the gateway was told to promise more.
        let plan = Plan { durability: Some(RequiredDurability::Strict), ..Plan::default() };
        let gateway = TestGateway::start_unready(None, plan);
        let mut reply = refused(&gateway);
        // Before the store was looked at, nothing is known of it.
        while reply.code() == "store_unavailable" {
            reply = refused(&gateway);
        }
        reply
    }),
    ("overloaded", |home| {
        let gateway = limited(home, |server| server.limits.bodies_bytes_max = 1);
        gateway.publish("default", &[], b"xx")
    }),
    ("shutting_down", |home| {
        let gateway = TestGateway::start(home);
        gateway.edge.drain();
        gateway.publish("default", &[], b"x")
    }),
    ("store_timeout", |home| {
        let gateway = TestGateway::start(home);
        gateway.faults.set_enqueue_late(true);
        gateway.publish("default", &[], b"x")
    }),
];

fn publish(home: &Home, headers: &[(&str, &str)]) -> Reply {
    TestGateway::start(home).publish("default", headers, b"x")
}

fn put(home: &Home, body: &str, headers: &[(&str, &str)]) -> Reply {
    TestGateway::start(home).send("PUT /v1/queues/orders", headers, body.as_bytes())
}

fn with_queue(home: &Home, settings: &serde_json::Value) -> TestGateway {
    let gateway = TestGateway::start(home);
    assert_eq!(gateway.put("orders", settings).status, 201);
    gateway
}

/// A queue for consumers with one message, and the message's path.
fn with_message(home: &Home) -> (TestGateway, String) {
    let gateway = with_queue(home, &json!({"processor": "pull"}));
    let published = gateway.publish("orders", &[], b"x");
    let path = published.header("location").expect("a Location").to_owned();
    (gateway, path)
}

fn limited(home: &Home, limit: impl FnOnce(&mut ServerSettings)) -> TestGateway {
    let mut plan = Plan::default();
    limit(&mut plan.server);
    TestGateway::start_as(home, plan)
}

/// Publishes until it is refused: the gateway looks at its store about once a second.
fn refused(gateway: &TestGateway) -> Reply {
    let began = std::time::Instant::now();
    loop {
        let reply = gateway.publish("default", &[], b"x");
        if reply.status != 202 {
            return reply;
        }
        assert!(began.elapsed() < super::http_gateway::PATIENCE, "it is never refused");
    }
}

#[test]
fn every_code_of_the_contract_has_a_row_unless_no_request_can_meet_it() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|(code, _)| *code).collect();
    assert_eq!(rows.len(), ROWS.len(), "a code has one row");
    let codes: BTreeSet<&str> = CODES.iter().map(|row| row.word).collect();
    assert_eq!(rows, codes, "every code there is has a row, and no other");
    let never: BTreeSet<&str> = NEVER.into_iter().collect();
    let contract: BTreeSet<&str> = CONTRACT.split_whitespace().collect();
    let provoked: BTreeSet<&str> = contract.difference(&never).copied().collect();
    assert_eq!(rows, provoked, "what the contract names is provoked");
    assert!(never.is_subset(&contract) && never.is_disjoint(&codes), "{never:?}");
}

#[test]
fn every_code_comes_as_the_table_says_on_both_stores() {
    // At once, since one of them is the deadline of a publish.
    let homes = [Home::Sqlite, Home::redis()];
    std::thread::scope(|scope| {
        for home in &homes {
            for (word, provoke) in ROWS {
                scope.spawn(move || check_row(word, &provoke(home)));
            }
        }
    });
}

fn check_row(word: &str, reply: &Reply) {
    let code = Code::from_word(word).expect("a code");
    let row = code.row();
    let problem: Problem = serde_json::from_slice(&reply.body)
        .unwrap_or_else(|error| panic!("{word}: no problem ({error}): {reply:?}"));
    assert_eq!(problem.known_code(), Some(code), "{reply:?}");
    assert_eq!((reply.status, problem.status), (row.status, row.status), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{word}");
    assert_eq!((&*problem.title, problem.r#type), (row.title, format!("/docs/errors#{word}")));
    assert!(!problem.detail.is_empty(), "{word} says what is wrong");
    let retryable = row.retryable && code != Code::StoreTimeout;
    assert_eq!(problem.retryable, retryable, "{word}: a publish without a key");
    assert_eq!(reply.header("retry-after").is_some(), row.retry_after_s > 0, "{word}");
}
