//! What the publisher of a batch hears when the store cannot, or the queue is another one meanwhile.

use std::time::Duration;

use posthaste::domain::queue::QueueSettings;
use posthaste::http::ServerSettings;
use posthaste::store::error::StoreError;
use serde_json::{Value, json};

use crate::http_gateway::{Plan, Reply, TestGateway, request};
use crate::support::gateway::Home;
use crate::support::stores::on_both_stores;

on_both_stores! {
    a_queue_that_was_made_again_meanwhile_takes_the_batch_by_its_new_settings
    what_a_queue_that_was_made_again_does_not_take_is_refused_by_its_place
    a_delivery_of_this_store_does_not_come_back_as_a_batch
}

const PATH: &str = "POST /v1/queues/default/messages/batch";
const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const KEYED: &[u8] = br#"[{"payload":"1","idempotency_key":"a"},{"payload":"2","idempotency_key":"b"}]"#;

/// A batch as one unit without and with a key, and items for themselves without and with keys.
fn all_ways(gateway: &TestGateway) -> [Reply; 4] {
    let alone = format!("{PATH}?atomic=false");
    [
        gateway.send(PATH, &[NDJSON], b"1\n2"),
        gateway.send(PATH, &[NDJSON, ("Idempotency-Key", "k")], b"1\n2"),
        gateway.send(&alone, &[NDJSON], b"1\n2"),
        gateway.send(&alone, &[JSON], KEYED),
    ]
}

fn check(replies: &[Reply; 4], status: u16, code: &str, stored: [&str; 4], retryable: [bool; 4]) {
    for ((reply, stored), retryable) in replies.iter().zip(stored).zip(retryable) {
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{reply:?}");
        assert_eq!(reply.header("posthaste-stored"), Some(stored), "{reply:?}");
        assert_eq!(reply.json()["retryable"], retryable, "{reply:?}");
        assert_eq!(reply.header("retry-after").is_some(), matches!(status, 429 | 503), "{reply:?}");
        assert_eq!(reply.json().get("index"), None, "it is nobody's fault: {reply:?}");
    }
}

#[test]
fn what_the_store_says_is_said_of_the_whole_batch() {
    let gateway = TestGateway::in_memory();
    let why = || "why".to_owned();
    let (no, unknown) = ("no", "unknown");
    for (error, status, code, stored, retryable) in [
        (StoreError::Unavailable(why()), 503, "store_unavailable", [no, unknown, no, unknown], [true; 4]),
        (StoreError::Full(why()), 503, "store_full", [no; 4], [true; 4]),
        (StoreError::Internal(why()), 500, "internal", [unknown; 4], [false; 4]),
    ] {
        gateway.faults.set_enqueue(Some(error));
        check(&all_ways(&gateway), status, code, stored, retryable);
        gateway.faults.set_enqueue(None);
        gateway.assert_alive(code);
    }
}

#[test]
fn a_store_that_is_away_is_not_asked() {
    let gateway = TestGateway::in_memory();
    gateway.faults.set_away(true);
    gateway.wait_for("GET /ready", 503);
    // Whether the items have keys is in the body, which nobody read.
    let stored = ["no", "unknown", "unknown", "unknown"];
    check(&all_ways(&gateway), 503, "store_unavailable", stored, [true; 4]);
}

#[test]
fn a_store_that_never_answers_leaves_it_unknown_and_a_retry_with_the_keys_stores_once() {
    let ways = [
        (PATH.to_owned(), &[NDJSON, ("Idempotency-Key", "k")][..], &b"1\n2"[..], true),
        (format!("{PATH}?atomic=false"), &[JSON], KEYED, true),
        (PATH.to_owned(), &[NDJSON], b"1\n2", false),
        (format!("{PATH}?atomic=false"), &[NDJSON], b"1\n2", false),
    ];
    // At once, since each waits for the deadline of a publish.
    let homes = [Home::Sqlite, Home::redis()];
    std::thread::scope(|scope| {
        for (home, (line, headers, body, is_keyed)) in
            homes.iter().flat_map(|home| ways.iter().map(move |way| (home, way)))
        {
            scope.spawn(move || {
                let gateway = TestGateway::start(home);
                gateway.faults.set_enqueue_late(true);
                let reply = gateway.send(line, headers, body);
                assert_eq!((reply.status, reply.code().as_str()), (503, "store_timeout"), "{reply:?}");
                assert_eq!(reply.header("posthaste-stored"), Some("unknown"), "{reply:?}");
                assert_eq!(reply.json()["retryable"], *is_keyed, "{reply:?}");
                gateway.faults.set_enqueue_late(false);
                for _ in 0..2 {
                    let again = gateway.send(line, headers, body);
                    assert!(matches!(again.status, 200 | 202), "{again:?}");
                }
                assert!(!is_keyed || gateway.accepted() == 2, "{}", gateway.accepted());
            });
        }
    });
}

/// A gateway that does not know yet what becomes of its queue `again`.
struct Again(TestGateway);

impl Again {
    fn start(home: &Home) -> Self {
        let gateway = TestGateway::start(home);
        assert_eq!(gateway.put("again", &json!({"processor": "log"})).status, 201);
        Self(gateway)
    }

    /// As another gateway does it.
    fn delete(&self) {
        let known = self.0.queue("again");
        self.0.with_store(async |store| store.delete_queue(known, true).await).expect("it is deleted");
    }

    fn make(&self, settings: Value) {
        self.delete();
        let settings: QueueSettings = serde_json::from_value(settings).expect("settings");
        let name = "again".parse().expect("a name");
        self.0.with_store(async |store| store.put_queue(name, settings.into()).await).expect("it is made");
    }

    fn send(&self, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.0.send(&format!("POST /v1/queues/again/messages/batch{query}"), headers, body)
    }
}

fn a_queue_that_was_made_again_meanwhile_takes_the_batch_by_its_new_settings(home: &Home) {
    let again = Again::start(home);
    let items = br#"[{"payload":"1"},{"payload":"2","priority":"low","content_type":"text/own"}]"#;
    for (query, path) in [("", "/ids"), ("?atomic=false", "/items")] {
        for (form, body, second) in [(NDJSON, &b"1\n2"[..], "high"), (JSON, items, "low")] {
            again.make(json!({"processor": "pull", "priority": "high"}));
            let reply = again.send(query, &[form], body);
            assert_eq!((reply.status, &reply.json()["accepted"]), (202, &json!(2)), "{reply:?}");
            for (place, payload, priority) in [(0, "1", "high"), (1, "2", second)] {
                let item = reply.json().pointer(&format!("{path}/{place}")).expect("an item").clone();
                let id = item.as_str().or_else(|| item["id"].as_str()).expect("an id").to_owned();
                let found = again.0.look(&format!("/v1/queues/again/messages/{id}?payload=true")).json();
                let expected = (&json!(priority), &json!(payload));
                assert_eq!((&found["priority"], &found["payload"]), expected, "{found}");
                assert_eq!(found["content_type"] == "text/own", priority == "low", "{found}");
            }
        }
    }
    again.make(json!({"processor": "pull"}));
    let [first, second] = [(); 2].map(|()| again.send("", &[NDJSON, ("Idempotency-Key", "k")], b"1\n2"));
    assert_eq!((first.status, second.status), (202, 200), "{second:?}");
    assert_eq!(first.json()["ids"], second.json()["ids"]);
    again.delete();
    for query in ["", "?atomic=false"] {
        let gone = again.send(query, &[NDJSON], b"1\n2");
        assert_eq!((gone.status, gone.code().as_str()), (404, "queue_unknown"), "{gone:?}");
        assert_eq!(gone.header("posthaste-stored"), Some("no"));
    }
}

fn what_a_queue_that_was_made_again_does_not_take_is_refused_by_its_place(home: &Home) {
    let again = Again::start(home);
    let items = &br#"[{"payload":"1"},{"payload":"22"}]"#[..];
    for (form, body, line, pointer) in
        [(NDJSON, &b"1\n22"[..], Some(2), None), (JSON, items, None, Some("/1/payload"))]
    {
        for (query, problem, stored) in [("", "", 0), ("?atomic=false", "/items/1/error", 1)] {
            again.make(json!({"processor": "pull", "limits": {"payload_max": 1}}));
            let reply = again.send(query, &[form], body);
            let told = reply.json().pointer(problem).cloned().unwrap_or_default();
            assert_eq!(
                (&told["code"], &told["index"]),
                (&json!("payload_too_large"), &json!(1)),
                "{reply:?}"
            );
            assert_eq!((told["line"].as_u64(), told["pointer"].as_str()), (line, pointer), "{reply:?}");
            assert_eq!(again.0.accepted_by("again"), stored, "{reply:?}");
        }
    }
}

#[test]
fn what_is_wrong_with_the_body_is_told_before_what_is_wrong_with_an_item() {
    let mut server = ServerSettings::default();
    server.listen.0.set_port(0);
    server.threads = 1;
    server.limits.body_timeout = Duration::from_millis(200);
    server.limits.batch_bytes_max = 1 << 20;
    server.limits.batch_messages_max = 2;
    let gateway = TestGateway::in_memory_as(Plan { server, ..Plan::default() });
    let lines = |count: usize| [b"{\n".to_vec(), b"1\n".repeat(count)].concat();
    let chunked = |body: &[u8]| crate::http_gateway::chunked(body, 1 << 14);
    let streamed = [NDJSON, ("Transfer-Encoding", "chunked")];
    for query in ["", "?atomic=false"] {
        let path = format!("{PATH}{query}");
        let large = gateway.send(&path, &streamed, &chunked(&lines(1 << 20)));
        assert_eq!((large.status, large.code().as_str()), (413, "batch_too_large"), "{large:?}");
        assert_eq!(large.json()["setting"], "server.limits.batch_bytes_max", "{large:?}");
        let slow = gateway.send(&path, &[NDJSON, ("Content-Length", "50")], &lines(5));
        assert_eq!((slow.status, slow.code().as_str()), (408, "request_timeout"), "{slow:?}");
        // All of it came: the answer is read by a client that sends it whole first, and the connection goes on.
        let mut client = gateway.connect();
        client.send(&request(&path, &streamed, &chunked(&lines(1 << 18))));
        let wrong = client.reply(false).expect("an answer");
        let (code, setting) = match query {
            "" => ("malformed", Value::Null),
            _ => ("batch_too_large", json!("server.limits.batch_messages_max")),
        };
        assert_eq!((wrong.code().as_str(), &wrong.json()["setting"]), (code, &setting), "{wrong:?}");
        client.send(&request(&path, &[NDJSON], b"1"));
        assert_eq!(client.reply(false).expect("an answer").status, 202);
    }
    assert_eq!(gateway.accepted(), 2);
}

#[test]
fn a_body_that_ends_early_stops_or_is_beyond_the_memory_of_bodies_stores_nothing() {
    let mut server = ServerSettings::default();
    server.listen.0.set_port(0);
    server.threads = 1;
    server.limits.body_timeout = Duration::from_millis(200);
    server.limits.bodies_bytes_max = 1 << 20;
    server.limits.batch_bytes_max = 4 << 20;
    let gateway = TestGateway::in_memory_as(Plan { server, ..Plan::default() });
    let slow = gateway.send(PATH, &[NDJSON, ("Content-Length", "5")], b"1\n");
    assert_eq!((slow.status, slow.header("posthaste-stored")), (408, Some("no")), "{slow:?}");
    let mut client = gateway.connect();
    client.send(&request(PATH, &[NDJSON, ("Content-Length", "500")], b"1\n2\n"));
    client.end();
    drop(client.replies());
    let large = gateway.send(PATH, &[NDJSON], &b"\n".repeat(2 << 20));
    assert_eq!((large.status, large.code().as_str()), (503, "overloaded"), "{large:?}");
    assert_eq!(large.json()["setting"], "server.limits.bodies_bytes_max");
    assert_eq!(gateway.accepted(), 0);
    let chunks = crate::http_gateway::chunked(b"1\n2\n\"\xc3\xa4\"", 1);
    let whole = gateway.send(PATH, &[NDJSON, ("Transfer-Encoding", "chunked")], &chunks);
    assert_eq!((whole.status, &whole.json()["accepted"]), (202, &Value::from(3)), "{whole:?}");
    gateway.assert_alive("bodies");
}

fn a_delivery_of_this_store_does_not_come_back_as_a_batch(home: &Home) {
    let gateway = TestGateway::start(home);
    let id = gateway.store.id();
    let reply = gateway.send(PATH, &[NDJSON, ("Posthaste-Via", &id)], b"1");
    assert_eq!((reply.status, reply.code().as_str()), (508, "loop_detected"), "{reply:?}");
    assert_eq!(reply.header("posthaste-stored"), Some("no"));
}
