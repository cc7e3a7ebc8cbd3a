//! What consumers may not ask for.

use serde_json::{Value, json};

use super::{QUEUE, ask, over_both, post};
use crate::support::client;

type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    u16,
    &'static str,
    &'static str,
);

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

const ROWS: &[Row] = &[
    ("jobs", "", JSON, r#"{"max":0}"#, 400, "invalid_value", "/max"),
    ("jobs", "", JSON, r#"{"max":1001}"#, 400, "invalid_value", "/max"),
    ("jobs", "", JSON, r#"{"wait":"61s"}"#, 400, "invalid_value", "/wait"),
    ("jobs", "", JSON, r#"{"wait":30}"#, 400, "invalid_value", "/wait"),
    ("jobs", "", JSON, r#"{"lease":"13h"}"#, 400, "invalid_value", "/lease"),
    ("jobs", "", JSON, r#"{"payload_as":"raw"}"#, 400, "invalid_value", "/payload_as"),
    ("jobs", "", JSON, r#"{"waits":"1s"}"#, 400, "unknown_field", "/waits"),
    ("jobs", "", JSON, "[1]", 400, "invalid_value", ""),
    ("jobs", "", JSON, r#"{"max":1,"max":1}"#, 400, "malformed", "-"),
    ("jobs", "", JSON, "max=1", 400, "malformed", "-"),
    ("jobs", "", &[], r#"{"max":1}"#, 415, "unsupported_media_type", "-"),
    (
        "jobs",
        "",
        &[("Content-Type", "application/x-www-form-urlencoded")],
        "{}",
        415,
        "unsupported_media_type",
        "-",
    ),
    ("jobs", "?wait=1s", JSON, "{}", 400, "unknown_parameter", "-"),
    ("none", "", JSON, "{}", 404, "queue_unknown", "-"),
    ("default", "", JSON, "{}", 409, "queue_not_pull", "-"),
    ("none", "/settle", JSON, "{}", 404, "queue_unknown", "-"),
    ("-", "", JSON, "{}", 400, "invalid_queue_name", "-"),
    ("jobs", "/settle", JSON, "", 400, "malformed", "-"),
    ("jobs", "/settle", JSON, r#"{"ack":["what"]}"#, 400, "invalid_value", "/ack/0"),
    ("jobs", "/settle", JSON, r#"{"retry":[{"receipt":""}]}"#, 400, "invalid_value", "/retry/0/receipt"),
    ("jobs", "/settle", JSON, r#"{"ack":["a","a"]}"#, 400, "contradictory_options", "/ack/1"),
    ("jobs", "/settle", JSON, r#"{"acks":[]}"#, 400, "unknown_field", "/acks"),
    ("jobs", "/extend", JSON, "{}", 400, "invalid_value", "/receipts"),
    ("jobs", "/extend", JSON, r#"{"receipts":["\u0000"]}"#, 400, "invalid_value", "/receipts/0"),
    ("jobs", "/extend", JSON, r#"{"receipts":[],"lease":"1ms"}"#, 400, "invalid_value", "/lease"),
    ("jobs", "/take", JSON, "{}", 404, "route_unknown", "-"),
];

#[test]
fn what_cannot_be_asked_for_is_refused_by_name() {
    over_both(|home| {
        let gateway = home.start(QUEUE, &[]);
        gateway.publish("jobs", &[], b"untouched");
        for (queue, what, headers, body, status, code, pointer) in ROWS {
            let path = format!("/v1/queues/{queue}/leases{what}");
            let answer = gateway.request("POST", &path, headers, body.as_bytes());
            let problem = answer.json();
            assert_eq!(
                (answer.status, problem["code"].as_str()),
                (*status, Some(*code)),
                "{path} {body}: {problem}"
            );
            let place = if *pointer == "-" { Value::Null } else { json!(pointer) };
            assert_eq!(problem["pointer"], place, "{path} {body}: {problem}");
            assert_eq!(answer.header("posthaste-stored"), None);
        }
        for what in ["", "/settle", "/extend"] {
            let path = format!("/v1/queues/jobs/leases{what}");
            let answer = gateway.request("GET", &path, &[], b"");
            assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
            let large = vec![b' '; (8 << 20) + 1];
            let answer = gateway.request("POST", &path, JSON, &large);
            assert_eq!((answer.status, answer.json()["code"].as_str()), (413, Some("payload_too_large")));
        }
        let answer = post(&gateway.address(), "jobs", "", &json!({}));
        assert_eq!(answer.json()["items"][0]["payload"], "untouched");
    });
}

#[test]
fn more_consumers_than_there_may_be_are_told_to_come_again() {
    over_both(|home| {
        let settings = format!("[server.limits]\nconsumers_max = 2\n{QUEUE}");
        let mut gateway = home.start(&settings, &[]);
        let order = json!({"wait": "30s"});
        let mut waiting: Vec<_> = (0..2).map(|_| ask(&gateway.address(), &order)).collect();
        let refused = gateway.wait_for("both wait", super::WITHIN, |gateway| {
            let answer = post(&gateway.address(), "jobs", "", &json!({}));
            (answer.status != 200).then_some(answer)
        });
        let problem = refused.json();
        assert_eq!((refused.status, &problem["code"]), (503, &json!("overloaded")), "{problem}");
        assert_eq!(
            (&problem["setting"], &problem["limit"]),
            (&json!("server.limits.consumers_max"), &json!(2))
        );
        assert!(refused.header("retry-after").is_some());
        // Who leaves makes room, and who waits still gets what comes.
        drop(waiting.pop());
        gateway.wait_for("one has left", super::WITHIN, |gateway| {
            (post(&gateway.address(), "jobs", "", &json!({})).status == 200).then_some(())
        });
        gateway.publish("jobs", &[], b"one");
        let answer = waiting.pop().expect("one").answer(false).expect("an answer");
        assert_eq!(answer.json()["items"][0]["payload"], "one", "{}", answer.text());
    });
}

#[test]
fn who_waits_hears_that_the_queue_is_gone_or_for_others() {
    over_both(|home| {
        let gateway = home.start("", &[]);
        let put = |processor: &str| {
            let body = json!({"processor": processor}).to_string();
            let answer = gateway.request("PUT", "/v1/queues/jobs", JSON, body.as_bytes());
            assert!(answer.status < 300, "{}", answer.text());
        };
        put("pull");
        let mut waiting = ask(&gateway.address(), &json!({"wait": "60s"}));
        // It is with the gateway once another one that came later was answered.
        let later = post(&gateway.address(), "jobs", "", &json!({}));
        assert_eq!(later.status, 200, "{}", later.text());
        put("log");
        let answer = waiting.answer(false).expect("an answer");
        assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("queue_not_pull")));
        let unknown = client::request(&gateway.address(), "POST", "/v1/queues/gone/leases", JSON, b"{}");
        assert_eq!(unknown.expect("an answer").status, 404);
    });
}
