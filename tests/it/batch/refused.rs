//! Batches that are refused: whole, with the first item that is at fault, and with nothing stored.

use serde_json::{Value, json};

use super::{JSON, NDJSON, over_both, post};
use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::count;

const SETTINGS: &str = "[server.limits]\nbatch_messages_max = 20\nbatch_bytes_max = '8KiB'\n[queues.kept]\nprocessor = 'pull'\n\
                        limits.payload_max = 100\nlimits.length_max = 15\nlimits.bytes_max = 1000\n\
                        delivery.forward_credentials = false\nidempotency.keys_max = 1\n";

fn start(home: &Home) -> Gateway {
    home.start(SETTINGS, &["--dev"])
}

/// The fields of a problem that say where it is.
fn place(problem: &Value) -> (Option<u64>, Option<u64>, Option<&str>) {
    (problem["index"].as_u64(), problem["line"].as_u64(), problem["pointer"].as_str())
}

#[test]
fn the_first_bad_item_is_named_and_nothing_is_stored() {
    over_both(|home| {
        let gateway = start(home);
        let long = "x".repeat(101);
        let items = |item: &str| format!(r#"[{{"payload":"ok"}},{{"payload":"ok"}},{item},{{"payload":7}}]"#);
        let lines = |line: &str| format!("1\n\n2\r\n{line}\n{{\n");
        for (body, status, code, pointer) in [
            (items("7"), 400, "invalid_value", "/2"),
            (items("{}"), 400, "invalid_value", "/2"),
            (items(r#"{"payload":"x","delay":"soon"}"#), 400, "invalid_value", "/2/delay"),
            (items(r#"{"payload":"x","ttl":"31d"}"#), 400, "invalid_value", "/2/ttl"),
            (items(r#"{"payload":"x","max_attempts":0}"#), 400, "invalid_value", "/2/max_attempts"),
            (items(r#"{"payload":"x","paylod":"y"}"#), 400, "unknown_field", "/2/paylod"),
            (items(r#"{"payload":"x","payload":"y"}"#), 400, "malformed", "/2/payload"),
            (items(r#"{"payload":"x","payload_json":1}"#), 400, "contradictory_options", "/2/payload_json"),
            (
                items(r#"{"payload":"x","idempotency_key":"k"}"#),
                400,
                "contradictory_options",
                "/2/idempotency_key",
            ),
            (
                items(r#"{"payload":"x","delay":"1s","deliver_at":"2020-01-01T00:00:00Z"}"#),
                400,
                "contradictory_options",
                "/2/deliver_at",
            ),
            (items(r#"{"payload_base64":"!"}"#), 400, "invalid_value", "/2/payload_base64"),
            (
                items(r#"{"payload":"x","headers":{"Host":"a"}}"#),
                422,
                "header_not_forwardable",
                "/2/headers/Host",
            ),
            (
                items(r#"{"payload":"x","headers":{"Cookie":"a"}}"#),
                422,
                "header_not_forwardable",
                "/2/headers",
            ),
            (
                items(r#"{"payload":"x","destination":"https://example.com"}"#),
                422,
                "destination_not_allowed",
                "/2/destination",
            ),
            (items(&format!(r#"{{"payload":"{long}"}}"#)), 413, "payload_too_large", "/2/payload"),
            (items(r#"{"payload":"\ud800"}"#), 400, "malformed", ""),
            (items(r#"{"payload":"x""#), 400, "malformed", ""),
        ] {
            let answer = post(&gateway, "kept", "", &[JSON], body.as_bytes());
            let problem = answer.json();
            assert_eq!((answer.status, problem["code"].as_str()), (status, Some(code)), "{body}: {problem}");
            let pointer = Some(pointer).filter(|pointer| !pointer.is_empty());
            assert_eq!(place(&problem), (Some(2), None, pointer), "{body}: {problem}");
            assert_eq!(answer.header("posthaste-stored"), Some("no"), "{body}");
        }
        for (body, status, code) in [
            (lines("{"), 400, "malformed"),
            (lines("\"\\ud800\""), 400, "malformed"),
            (lines(&"[".repeat(500)), 400, "malformed"),
            (lines(&format!("\"{long}\"")), 413, "payload_too_large"),
        ] {
            let answer = post(&gateway, "kept", "", &[NDJSON], body.as_bytes());
            let problem = answer.json();
            assert_eq!((answer.status, problem["code"].as_str()), (status, Some(code)), "{body}: {problem}");
            assert_eq!(place(&problem), (Some(2), Some(4), None), "{body}: {problem}");
            assert_eq!(answer.header("posthaste-stored"), Some("no"), "{body}");
        }
        assert_eq!(count(&gateway.status(), "accepted"), 0);
    });
}

#[test]
fn a_request_that_is_wrong_as_a_whole_is_refused_as_one() {
    over_both(|home| {
        let gateway = start(home);
        let many = format!("[{}]", ["{\"payload\":1}"; 21].join(","));
        let ok = &b"[{\"payload\":\"ok\"}]"[..];
        for (query, headers, body, status, code) in [
            ("", &[][..], ok, 415, "unsupported_media_type"),
            ("", &[("Content-Type", "text/plain")], ok, 415, "unsupported_media_type"),
            (
                "",
                &[("Content-Type", "application/x-ndjson; charset=latin1")],
                ok,
                415,
                "unsupported_media_type",
            ),
            (
                "",
                &[("Content-Type", "application/json;charset=\"utf-16\"")],
                ok,
                415,
                "unsupported_media_type",
            ),
            ("", &[JSON, ("Content-Encoding", "gzip")], ok, 415, "unsupported_content_encoding"),
            ("", &[JSON, JSON], ok, 400, "contradictory_options"),
            ("", &[JSON, ("Posthaste-Dealy", "1s")], ok, 400, "unknown_header"),
            ("", &[JSON, ("Posthaste-Delay", "1")], ok, 400, "invalid_value"),
            ("", &[JSON, ("Posthaste-Destination", "https://a.example")], ok, 422, "destination_not_allowed"),
            ("", &[JSON, ("Posthaste-Forward-Cookie", "a")], ok, 422, "header_not_forwardable"),
            ("?atomic=no", &[JSON], ok, 400, "invalid_value"),
            ("?atomic=false&atomic=false", &[JSON], ok, 400, "contradictory_options"),
            ("?atomc=false", &[JSON], ok, 400, "unknown_parameter"),
            ("?atomic=false", &[JSON, ("Idempotency-Key", "k")], ok, 400, "contradictory_options"),
            ("", &[JSON], b"", 400, "malformed"),
            ("", &[JSON], b"[]", 400, "invalid_value"),
            ("?atomic=false", &[JSON], b" [ ] ", 400, "invalid_value"),
            ("", &[NDJSON], b"", 400, "invalid_value"),
            ("?atomic=false", &[NDJSON], b"\n \r\n", 400, "invalid_value"),
            ("", &[JSON], b"{\"payload\":\"x\"}", 400, "invalid_value"),
            ("", &[JSON], b"\xef\xbb\xbf[]", 400, "malformed"),
            ("?atomic=false", &[JSON], b"[{\"payload\":\"x\"},", 400, "malformed"),
            ("?atomic=false", &[JSON], b"[{\"payload\":\"x\"}] x", 400, "malformed"),
            ("", &[JSON], many.as_bytes(), 400, "invalid_value"),
            ("", &[NDJSON], "1\n".repeat(21).as_bytes(), 413, "batch_too_large"),
            ("?atomic=false", &[NDJSON], "1\n".repeat(21).as_bytes(), 413, "batch_too_large"),
            ("?atomic=false", &[JSON], many.as_bytes(), 413, "batch_too_large"),
            ("", &[NDJSON], &b"\n".repeat(8_193), 413, "batch_too_large"),
        ] {
            let answer = post(&gateway, "kept", query, headers, body);
            let shown = format!("{query} {headers:?} {}: {}", String::from_utf8_lossy(body), answer.text());
            assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{shown}");
            // Items may have keys, and the limit was perhaps another when they were first sent.
            let is_unknown = query == "?atomic=false" && code == "batch_too_large";
            let stored = if is_unknown { "unknown" } else { "no" };
            assert_eq!(answer.header("posthaste-stored"), Some(stored), "{shown}");
        }
        let large = post(&gateway, "kept", "", &[NDJSON], "1\n".repeat(21).as_bytes()).json();
        assert_eq!(
            [&large["setting"], &large["limit"]],
            [&json!("server.limits.batch_messages_max"), &json!(20)]
        );
        let large = post(&gateway, "kept", "", &[NDJSON], &b"\n".repeat(8_193)).json();
        assert_eq!(
            [&large["setting"], &large["limit"]],
            [&json!("server.limits.batch_bytes_max"), &json!(8_192)]
        );
        let unknown = post(&gateway, "nothing", "", &[NDJSON], b"1");
        assert_eq!(
            (unknown.status, unknown.header("posthaste-stored")),
            (404, Some("no")),
            "{}",
            unknown.text()
        );
        let get = gateway.request("GET", "/v1/queues/kept/messages/batch", &[], b"");
        assert_eq!((get.status, get.header("allow")), (405, Some("POST")), "{}", get.text());
        assert_eq!(count(&gateway.status(), "accepted"), 0);
    });
}

#[test]
fn headers_that_are_too_large_to_be_kept_are_named_with_their_limit() {
    over_both(|home| {
        let gateway = home.start("[queues.kept]\nprocessor = 'pull'\n", &[]);
        let long = |bytes: usize| "v".repeat(bytes);
        for (item, pointer) in [
            (json!({"payload": "x", "headers": {"X": long(100_000)}}), "/1/headers"),
            (json!({"payload": "x", "headers": {"X": long(1_000_000)}}), "/1/headers"),
            (json!({"payload": "x", "content_type": long(100_000)}), "/1/content_type"),
            (
                json!({"payload": "x", "content_type": long(40_000), "headers": {"X": long(30_000)}}),
                "/1/content_type",
            ),
        ] {
            let body = json!([{"payload": "ok"}, item]).to_string();
            let answer = post(&gateway, "kept", "", &[JSON], body.as_bytes());
            let problem = answer.json();
            let found = (answer.status, problem["code"].as_str(), problem["limit"].as_u64());
            assert_eq!(found, (431, Some("head_too_large"), Some(65_535)), "{problem}");
            assert_eq!(place(&problem), (Some(1), None, Some(pointer)), "{problem}");
            assert_eq!(answer.header("posthaste-stored"), Some("no"));
        }
        let body = json!([{"payload": "x", "headers": {"X": long(65_000)}}]).to_string();
        assert_eq!(post(&gateway, "kept", "", &[JSON], body.as_bytes()).status, 202);
    });
}

#[test]
fn a_batch_beyond_a_limit_of_its_queue_is_refused_whole_and_one_that_fits_passes() {
    over_both(|home| {
        let gateway = start(home);
        let long = format!("\"{}\"\n", "x".repeat(90));
        for (body, setting, limit) in
            [("1\n".repeat(16), "limits.length_max", 15), (long.repeat(10), "limits.bytes_max", 1_000)]
        {
            let full = post(&gateway, "kept", "", &[NDJSON, ("Idempotency-Key", "a")], body.as_bytes());
            let problem = full.json();
            assert_eq!((full.status, problem["code"].as_str()), (429, Some("queue_full")), "{problem}");
            assert_eq!(
                [&problem["setting"], &problem["limit"]],
                [&json!(setting), &json!(limit)],
                "{problem}"
            );
            assert_eq!(full.header("posthaste-stored"), Some("no"));
            assert!(full.header("retry-after").is_some());
        }
        let body = "1\n".repeat(15);
        let taken = post(&gateway, "kept", "", &[NDJSON, ("Idempotency-Key", "a")], body.as_bytes());
        assert_eq!(taken.status, 202, "{}", taken.text());
        assert_eq!(post(&gateway, "kept", "", &[NDJSON, ("Idempotency-Key", "b")], b"1").status, 429);
        let again = post(&gateway, "kept", "", &[NDJSON, ("Idempotency-Key", "a")], body.as_bytes());
        assert_eq!(again.status, 200, "what is stored is never told full: {}", again.text());
        assert_eq!(count(&gateway.status(), "accepted"), 15);
    });
}
