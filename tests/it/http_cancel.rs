//! Cancelling a message by its id.

use std::time::Duration;

use serde_json::json;

use crate::support::gateway::Home;
use crate::support::invariants::{assert_laws, count};
use crate::support::sink::{Answer, Sink};

const WITHIN: Duration = Duration::from_secs(30);

fn over_both(test: impl Fn(&Home)) {
    test(&Home::Sqlite);
    test(&Home::redis());
}

#[test]
fn what_waits_is_cancelled_and_never_delivered() {
    over_both(|home| {
        let mut gateway = home.start("[queues.kept]\nprocessor = 'pull'\n", &["--dev"]);
        let pending = gateway.publish("kept", &[], b"now");
        let scheduled = gateway.publish("kept", &[("Posthaste-Delay", "1h")], b"later");
        for path in [&pending, &scheduled] {
            let cancelled = gateway.request("DELETE", path, &[], b"");
            assert_eq!((cancelled.status, cancelled.body.len()), (204, 0), "{}", cancelled.text());
            assert_eq!(cancelled.header("content-type"), None);
            assert_eq!(gateway.request("GET", path, &[], b"").json()["state"], "cancelled");
            let again = gateway.request("DELETE", path, &[], b"");
            assert_eq!((again.status, &again.json()["code"]), (409, &json!("message_finished")));
            assert_eq!(again.json()["retryable"], false);
        }
        gateway.restart();
        let again = gateway.request("DELETE", &pending, &[], b"");
        assert_eq!(again.status, 409, "{}", again.text());
        let status = gateway.status();
        assert_laws(&status);
        assert_eq!(
            ["accepted", "cancelled", "pending", "scheduled"].map(|key| count(&status, key)),
            [2, 2, 0, 0]
        );
        gateway.stop();
    });
}

#[test]
fn who_is_too_late_is_told_so() {
    over_both(|home| {
        let sink = Sink::start(|received| {
            let status = if received.body.as_deref() == Some(b"dies") { 422 } else { 200 };
            Answer::After(
                Duration::from_millis(if received.body.as_deref() == Some(b"slow") { 5_000 } else { 0 }),
                Box::new(Answer::status(status)),
            )
        });
        let settings = format!("[queues.pushed]\nprocessor = 'http'\ndestination = '{}'\n", sink.url("/"));
        let mut gateway = home.start(&settings, &["--dev"]);
        let slow = gateway.publish("pushed", &[], b"slow");
        gateway.wait_until_message_is("leased", &slow, WITHIN);
        let leased = gateway.request("DELETE", &slow, &[], b"");
        assert_eq!(
            (leased.status, &leased.json()["code"]),
            (409, &json!("message_leased")),
            "{}",
            leased.text()
        );
        assert_eq!(leased.json()["retryable"], true);
        for (body, state) in [(&b"done"[..], "delivered"), (b"dies", "dead")] {
            let path = gateway.publish("pushed", &[], body);
            gateway.wait_until_message_is(state, &path, WITHIN);
            let finished = gateway.request("DELETE", &path, &[], b"");
            assert_eq!(
                (finished.status, &finished.json()["code"]),
                (409, &json!("message_finished")),
                "{state}"
            );
        }
        gateway.wait_until_message_is("delivered", &slow, WITHIN);
        let status = gateway.wait_until_drained(WITHIN);
        assert_eq!(
            ["accepted", "delivered", "dead", "cancelled"].map(|key| count(&status, key)),
            [3, 2, 1, 0]
        );
    });
}

#[test]
fn an_id_that_is_not_found_is_refused_in_the_queues_own_words() {
    over_both(|home| {
        let settings =
            "[queues.kept]\nprocessor = 'pull'\n[queues.unindexed]\nprocessor = 'pull'\nlookup = false\n";
        let gateway = home.start(settings, &["--dev"]);
        let id = "0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400";
        let hidden = gateway.publish("unindexed", &[], b"x");
        for (path, status, code) in [
            (format!("/v1/queues/kept/messages/{id}"), 404, "message_unknown"),
            ("/v1/queues/kept/messages/abc".to_owned(), 404, "message_unknown"),
            ("/v1/queues/kept/messages/%00".to_owned(), 404, "message_unknown"),
            (format!("/v1/queues/nothing/messages/{id}"), 404, "queue_unknown"),
            (format!("/v1/queues/-/messages/{id}"), 400, "invalid_queue_name"),
            (format!("/v1/queues/kept/messages/{id}?force=true"), 400, "unknown_parameter"),
            (format!("/v1/queues/unindexed/messages/{id}"), 409, "lookup_off"),
            (hidden, 409, "lookup_off"),
            ("/v1/queues/kept/messages/batch".to_owned(), 405, "method_not_allowed"),
        ] {
            let answer = gateway.request("DELETE", &path, &[], b"");
            assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{path}");
            assert_eq!(answer.header("posthaste-stored"), None, "{path}");
        }
        let not = gateway.request("PATCH", &format!("/v1/queues/kept/messages/{id}"), &[], b"");
        assert_eq!((not.status, not.header("allow")), (405, Some("GET, HEAD, DELETE")));
        assert_eq!(count(&gateway.status(), "pending"), 1);
    });
}
