//! Every error there is, provoked: the table of codes against a table of requests.

use std::collections::BTreeSet;
use std::time::Duration;

use posthaste::api::Problem;
use posthaste::api::code::{CODES, Code};
use posthaste::http::ServerSettings;
use posthaste::store::settings::RequiredDurability;
use serde_json::json;

use super::http_gateway::{Plan, Reply, TestGateway};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const PUBLISH: &str = "POST /v1/queues/default/messages";

/// Codes of parts that are not in this version, or that are provoked by the tests of their own part.
const ELSEWHERE: [&str; 8] = [
    "unauthenticated",
    "forbidden",
    "rate_limited",
    "job_unknown",
    // http_batch.rs
    "batch_too_large",
    // http_pull.rs
    "queue_not_pull",
    // http_cancel.rs
    "message_leased",
    "message_finished",
];

/// What a request is sent to.
type Provoke = fn() -> Reply;

/// One way to each code. Add a row with a code.
const ROWS: &[(&str, Provoke)] = &[
    ("malformed", || put("{", &[JSON])),
    ("invalid_value", || publish(&[("Posthaste-Delay", "soon")])),
    ("unknown_field", || put(r#"{"procesor":"log"}"#, &[JSON])),
    ("unknown_parameter", || TestGateway::start().look("/status?queues=default")),
    ("unknown_header", || publish(&[("Posthaste-Dealy", "1s")])),
    ("contradictory_options", || {
        publish(&[("Posthaste-Delay", "1s"), ("Posthaste-Deliver-At", "2020-01-01T00:00:00Z")])
    }),
    ("invalid_queue_name", || TestGateway::start().look("/v1/queues/-")),
    ("route_unknown", || TestGateway::start().look("/v2")),
    ("queue_unknown", || TestGateway::start().look("/v1/queues/nothing")),
    ("message_unknown", || TestGateway::start().look("/v1/queues/default/dead/x")),
    ("method_not_allowed", || TestGateway::start().send("DELETE /status", &[], b"")),
    ("request_timeout", || {
        let gateway = limited(|server| server.limits.body_timeout = Duration::from_millis(200));
        gateway.send(PUBLISH, &[("Content-Length", "5")], b"x")
    }),
    ("lookup_off", || {
        let gateway = with_queue(&json!({"processor": "log", "lookup": false}));
        gateway.look("/v1/queues/orders/messages/0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400")
    }),
    ("queue_declared_in_file", || TestGateway::start().send("DELETE /v1/queues/default", &[], b"")),
    ("queue_not_empty", || {
        let gateway = with_queue(&json!({"processor": "pull"}));
        assert_eq!(gateway.publish("orders", &[], b"x").status, 202);
        gateway.send("DELETE /v1/queues/orders", &[], b"")
    }),
    ("payload_too_large", || {
        with_queue(&json!({"processor": "log", "limits": {"payload_max": 1}})).publish("orders", &[], b"xx")
    }),
    ("uri_too_long", || TestGateway::start().look(&format!("/health?{}", "x".repeat(9 << 10)))),
    ("unsupported_media_type", || put("{}", &[])),
    ("unsupported_content_encoding", || publish(&[("Content-Encoding", "gzip")])),
    ("idempotency_key_reused", || {
        let gateway = TestGateway::start();
        assert_eq!(gateway.publish("default", &[("Idempotency-Key", "k")], b"x").status, 202);
        gateway.publish("default", &[("Idempotency-Key", "k")], b"y")
    }),
    ("destination_refused", || put(r#"{"processor":"http","destination":"http://127.0.0.1/"}"#, &[JSON])),
    ("destination_not_allowed", || publish(&[("Posthaste-Destination", "https://a.example/")])),
    ("header_not_forwardable", || publish(&[("Posthaste-Forward-Host", "x")])),
    ("setting_out_of_range", || put(r#"{"processor":"log","timeout":"1ms"}"#, &[JSON])),
    ("secret_needs_file", || put(r#"{"processor":"log","secret":"whsec_x"}"#, &[JSON])),
    ("head_too_large", || publish(&[("X", &"x".repeat(40 << 10))])),
    ("queue_full", || {
        let gateway = with_queue(&json!({"processor": "pull", "limits": {"length_max": 1}}));
        assert_eq!(gateway.publish("orders", &[], b"x").status, 202);
        gateway.publish("orders", &[], b"x")
    }),
    ("internal", || {
        let gateway = TestGateway::start();
        gateway.faults.set_panics(true);
        gateway.look("/v1/queues/nothing")
    }),
    ("loop_detected", || {
        let gateway = TestGateway::start();
        let via = gateway.store.id();
        gateway.publish("default", &[("Posthaste-Via", &via)], b"x")
    }),
    ("store_unavailable", || {
        let gateway = TestGateway::start();
        gateway.faults.set_away(true);
        gateway.send("POST /v1/queues/default/pause", &[], b"")
    }),
    ("store_full", || {
        let gateway = TestGateway::start();
        gateway.faults.set_full(Some("81 % of 1GiB"));
        refused(&gateway)
    }),
    ("not_durable", || {
        let plan = Plan { durability: RequiredDurability::Strict, ..Plan::default() };
        let gateway = TestGateway::start_unready(plan);
        let mut reply = refused(&gateway);
        // Before the store was looked at, nothing is known of it.
        while reply.code() == "store_unavailable" {
            reply = refused(&gateway);
        }
        reply
    }),
    ("overloaded", || {
        let gateway = limited(|server| server.limits.bodies_bytes_max = 1);
        gateway.publish("default", &[], b"xx")
    }),
    ("shutting_down", || {
        let gateway = TestGateway::start();
        gateway.edge.drain();
        gateway.publish("default", &[], b"x")
    }),
    ("store_timeout", || {
        let gateway = TestGateway::start();
        gateway.faults.set_enqueue_late(true);
        gateway.publish("default", &[], b"x")
    }),
];

fn publish(headers: &[(&str, &str)]) -> Reply {
    TestGateway::start().publish("default", headers, b"x")
}

fn put(body: &str, headers: &[(&str, &str)]) -> Reply {
    TestGateway::start().send("PUT /v1/queues/orders", headers, body.as_bytes())
}

fn with_queue(settings: &serde_json::Value) -> TestGateway {
    let gateway = TestGateway::start();
    assert_eq!(gateway.put("orders", settings).status, 201);
    gateway
}

fn limited(limit: impl FnOnce(&mut ServerSettings)) -> TestGateway {
    let mut plan = Plan::default();
    limit(&mut plan.server);
    TestGateway::start_as(plan)
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
fn every_code_has_a_row_or_is_known_to_be_provoked_elsewhere() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|(code, _)| *code).collect();
    assert_eq!(rows.len(), ROWS.len(), "a code has one row");
    let codes: BTreeSet<&str> = CODES.iter().map(|row| row.word).collect();
    let missing: Vec<_> =
        codes.iter().filter(|code| !rows.contains(*code) && !ELSEWHERE.contains(code)).collect();
    assert_eq!(missing, Vec::<&&str>::new(), "give them a row");
    assert!(rows.is_subset(&codes), "rows without a code: {:?}", rows.difference(&codes));
}

#[test]
fn every_code_comes_as_the_table_says() {
    std::thread::scope(|scope| {
        for (word, provoke) in ROWS {
            scope.spawn(move || {
                let reply = provoke();
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
            });
        }
    });
}
