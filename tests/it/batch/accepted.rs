//! Batches that are taken: every byte and every option arrives, and a repeated key stores nothing.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{JSON, NDJSON, ids, look, over_both, post};
use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::count;
use crate::support::sink::{Answer, Received, Sink};

const WITHIN: Duration = Duration::from_secs(30);
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn kept(home: &Home) -> Gateway {
    home.start("[queues.kept]\nprocessor = 'pull'\n", &["--dev"])
}

/// A sink with a gateway that pushes to it.
fn pushed(home: &Home) -> (Sink, Gateway) {
    let sink = Sink::start(|_| Answer::status(200));
    let settings = format!("[queues.pushed]\nprocessor = 'http'\ndestination = '{}'\n", sink.url("/"));
    let gateway = home.start(&settings, &["--dev"]);
    (sink, gateway)
}

/// What came, by the id of its message.
fn by_id(sink: &Sink, count: usize) -> HashMap<String, std::sync::Arc<Received>> {
    let received = sink.wait_for(count, WITHIN);
    let id = |received: &Received| received.header("webhook-id").expect("an id").to_owned();
    received.into_iter().map(|received| (id(&received), received)).collect()
}

#[test]
fn every_line_is_delivered_byte_for_byte_in_its_place() {
    over_both(|home| {
        let (sink, mut gateway) = pushed(home);
        let lines: [&[u8]; 6] = [
            b"{\"order\" : 7}",
            b"  [1 , 2]\t",
            "\"grüß \\ud83d\\ude00\"".as_bytes(),
            b"1e999",
            b"{\"a\":1,\"a\":2}",
            b"null",
        ];
        let body = [b"\n \t\r\n".as_slice(), &lines.join(&b"\r\n\n"[..])].concat();
        let headers =
            [NDJSON, ("Posthaste-Forward-X-All", "yes"), ("traceparent", PARENT), ("tracestate", "a=1")];
        let answer = post(&gateway, "pushed", "", &headers, &body);
        assert_eq!((answer.status, answer.header("posthaste-stored")), (202, None), "{}", answer.text());
        assert_eq!(
            (answer.header("location"), answer.header("content-type")),
            (None, Some("application/json"))
        );
        assert!(answer.header("posthaste-request-id").is_some());
        let ids = ids(&answer);
        assert_eq!(answer.json(), json!({"accepted": 6, "ids": ids}));
        let received = by_id(&sink, 6);
        for (line, id) in lines.iter().zip(&ids) {
            let received = &received[id];
            assert_eq!(received.body.as_deref(), Some(*line), "{}", String::from_utf8_lossy(line));
            for (name, value) in
                [("content-type", "application/json"), ("x-all", "yes"), ("tracestate", "a=1")]
            {
                assert_eq!(received.header(name), Some(value), "{name}");
            }
            let parent = received.header("traceparent").expect("continued");
            assert_eq!((&parent[..36], &parent[52..]), (&PARENT[..36], &PARENT[52..]), "the same trace");
            assert_ne!(parent, PARENT, "with the attempt as its parent");
        }
        let status = gateway.wait_until_drained(WITHIN);
        assert_eq!(["accepted", "delivered"].map(|key| count(&status, key)), [6, 6]);
        gateway.stop();
    });
}

#[test]
fn every_form_of_payload_is_delivered_byte_for_byte_with_its_own_headers() {
    over_both(|home| {
        let (sink, gateway) = pushed(home);
        let body = br#" [ {"payload":"gr\u00fc\u00df \ud83d\ude00\n", "headers":{"X-One":"own","Authorization":"Bearer x"}},
            {"payload_json" : {"b" : 1e999,"a":[ ] ,"a":"\u0061"} , "method":"PUT"},
            {"payload_base64":"\/wA=","content_type":"application/x-any"},{"payload":"","headers":{"x-two":""}}]"#;
        let headers = [JSON, ("Posthaste-Forward-X-One", "all"), ("Posthaste-Forward-X-Three", "3")];
        let answer = post(&gateway, "pushed", "", &headers, body);
        assert_eq!(answer.status, 202, "{}", answer.text());
        let received = by_id(&sink, 4);
        let received: Vec<_> = ids(&answer).iter().map(|id| received[id].clone()).collect();
        let bodies: Vec<_> = received.iter().map(|received| received.body.clone().expect("kept")).collect();
        let json = &br#"{"b" : 1e999,"a":[ ] ,"a":"\u0061"}"#[..];
        assert_eq!(bodies, ["grüß 😀\n".as_bytes(), json, b"\xff\0", b""]);
        let shown =
            |name: &str| received.iter().map(|one| one.header(name).unwrap_or("-")).collect::<Vec<_>>();
        assert_eq!(shown("content-type"), ["-", "application/json", "application/x-any", "-"]);
        assert_eq!(shown("x-one"), ["own", "all", "all", "all"]);
        assert_eq!(shown("x-two"), ["-", "-", "-", ""]);
        assert_eq!(shown("x-three"), ["3", "3", "3", "3"]);
        assert_eq!(shown("authorization"), ["Bearer x", "-", "-", "-"]);
        assert_eq!(
            received.iter().map(|one| one.method.as_str()).collect::<Vec<_>>(),
            ["POST", "PUT", "POST", "POST"]
        );
    });
}

/// Milliseconds of a time in an answer.
fn moment(message: &Value, key: &str) -> Option<u64> {
    let text = message[key].as_str()?;
    Some(posthaste::domain::timestamp::Timestamp::parse(text).expect("a time").as_millis())
}

#[test]
fn an_items_own_options_win_over_those_of_the_request() {
    over_both(|home| {
        let gateway = kept(home);
        let headers = [
            JSON,
            ("Posthaste-Delay", "1h"),
            ("Posthaste-TTL", "2h"),
            ("Posthaste-Priority", "high"),
            ("Posthaste-Max-Attempts", "3"),
        ];
        let items = json!([
            {"payload": "all"},
            {"payload": "own", "delay": "0s", "ttl": "1h30m", "priority": "low", "max_attempts": 255},
            {"payload": "past", "deliver_at": "2020-01-01T00:00:00Z"},
        ]);
        let answer = post(&gateway, "kept", "", &headers, items.to_string().as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
        let shown: Vec<Value> = ids(&answer).iter().map(|id| look(&gateway, "kept", id)).collect();
        let column = |key: &str| shown.iter().map(|message| message[key].clone()).collect::<Vec<_>>();
        assert_eq!(column("state"), ["scheduled", "pending", "pending"]);
        assert_eq!(column("priority"), ["high", "low", "high"]);
        assert_eq!(column("max_attempts"), [3, 255, 3]);
        assert_eq!(column("payload"), ["all", "own", "past"]);
        let spans = |key: &str| {
            let span =
                |message| Some(moment(message, key)? / 1_000 - moment(message, "published_at")? / 1_000);
            shown.iter().map(span).collect::<Vec<_>>()
        };
        assert_eq!(spans("expires_at"), [Some(7_200), Some(5_400), Some(7_200)]);
        assert_eq!(
            moment(&shown[0], "deliver_at"),
            moment(&shown[0], "published_at").map(|at| at + 3_600_000)
        );
        assert_eq!(column("deliver_at")[2], "2020-01-01T00:00:00.000Z");
        let status = gateway.status();
        assert_eq!(["accepted", "pending", "scheduled"].map(|key| count(&status, key)), [3, 2, 1]);
    });
}

#[test]
fn a_repeated_key_gives_the_first_ids_and_another_batch_is_refused() {
    over_both(|home| {
        let mut gateway = kept(home);
        let keyed = [NDJSON, ("Idempotency-Key", "k")];
        let first = post(&gateway, "kept", "", &keyed, b"1\n2\n3\n");
        assert_eq!(first.status, 202, "{}", first.text());
        // The same items, with other line ends and as items: what the key stands for is what they are.
        let array = [JSON, ("Idempotency-Key", "\"k\""), ("Posthaste-TTL", "1h")];
        for (headers, body) in [
            (&keyed[..], &b"1\n2\n3\n"[..]),
            (&keyed, b"\r\n1\r\n2\r\n\r\n3"),
            (&array, br#"[{"payload_json":1},{"payload_base64":"Mg==","content_type":"application/json"},{"payload_json":3}]"#),
        ] {
            let again = post(&gateway, "kept", "", headers, body);
            assert_eq!(again.status, 200, "{}", again.text());
            assert_eq!(again.json(), json!({"accepted": 3, "ids": ids(&first), "duplicate": true}));
            gateway.restart();
        }
        for body in [&b"1\n2\n"[..], b"1\n2\n3\n4\n", b"2\n1\n3\n", b"1\n2\n03e0\n", b"1\n2\n3.0\n", b"123\n"]
        {
            let other = post(&gateway, "kept", "", &keyed, body);
            let expected = if body == b"1\n2\n03e0\n" { "malformed" } else { "idempotency_key_reused" };
            assert_eq!(
                (other.json()["code"].as_str(), other.header("posthaste-stored")),
                (Some(expected), Some("no"))
            );
        }
        // A message is no batch of one, in either order.
        let one = [JSON, ("Idempotency-Key", "one")];
        let single = gateway.request("POST", "/v1/queues/kept/messages", &one, b"1");
        assert_eq!(single.status, 202, "{}", single.text());
        assert_eq!(post(&gateway, "kept", "", &[NDJSON, one[1]], b"1").status, 422);
        assert_eq!(gateway.request("POST", "/v1/queues/kept/messages", &[JSON, keyed[1]], b"1").status, 422);
        assert_eq!(count(&gateway.status(), "accepted"), 4);
        gateway.stop();
    });
}
