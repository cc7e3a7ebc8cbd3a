//! Batches of which each item is for itself.

use serde_json::{Value, json};

use super::{JSON, NDJSON, look, over_both, post};
use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::count;

fn start(home: &Home) -> Gateway {
    home.start("[server.limits]\nbatch_messages_max = 10000\n[queues.kept]\nprocessor = 'pull'\n", &["--dev"])
}

#[test]
fn each_item_has_its_own_fate_in_the_order_sent() {
    over_both(|home| {
        let gateway = start(home);
        let body = json!([
            {"payload": "a", "idempotency_key": "k"},
            {"payload": "a", "idempotency_key": "\"k\""},
            {"payload": "b", "idempotency_key": "k"},
            {"payload": "c", "priority": "top"},
            7,
            {"payload": "d"},
        ]);
        let answer = post(
            &gateway,
            "kept",
            "?atomic=false",
            &[JSON, ("Posthaste-TTL", "1h")],
            body.to_string().as_bytes(),
        );
        assert_eq!(answer.status, 202, "{}", answer.text());
        let id = answer.header("posthaste-request-id").expect("an id").to_owned();
        let answer = answer.json();
        assert_eq!(["accepted", "duplicates", "refused"].map(|key| answer[key].clone()), [2, 1, 3]);
        let items = answer["items"].as_array().expect("items");
        assert_eq!(items[1], json!({"id": items[0]["id"], "duplicate": true}));
        for (index, code, pointer, stored) in [
            (2, "idempotency_key_reused", json!("/2/idempotency_key"), "no"),
            (3, "invalid_value", json!("/3/priority"), "no"),
            (4, "invalid_value", json!("/4"), "no"),
        ] {
            let error = &items[index]["error"];
            let found = ["code", "index", "pointer", "stored", "request_id"].map(|key| error[key].clone());
            assert_eq!(found, [json!(code), json!(index), pointer, json!(stored), json!(id)], "{error}");
        }
        for (index, payload) in [(0, "a"), (5, "d")] {
            let found = look(&gateway, "kept", items[index]["id"].as_str().expect("an id"));
            assert_eq!(found["payload"], payload, "{found}");
            assert!(found["expires_at"].is_string(), "{found}");
        }
        // A key of an item is a key like any other.
        let single = gateway.request("POST", "/v1/queues/kept/messages", &[("Idempotency-Key", "k")], b"a");
        assert_eq!((single.status, &single.json()["id"]), (200, &items[0]["id"]), "{}", single.text());
        assert_eq!(count(&gateway.status(), "accepted"), 2);
    });
}

#[test]
fn a_bad_line_keeps_no_other_out() {
    over_both(|home| {
        let gateway = start(home);
        let answer = post(&gateway, "kept", "?atomic=false", &[NDJSON], b"1\n\n{\n\xff\n2");
        assert_eq!(answer.status, 202, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(["accepted", "duplicates", "refused"].map(|key| answer[key].clone()), [2, 0, 2]);
        for (place, line) in [(1, 3), (2, 4)] {
            let error = &answer["items"][place]["error"];
            assert_eq!(
                [&error["code"], &error["line"], &error["index"]],
                [&json!("malformed"), &json!(line), &json!(place)]
            );
        }
        let bad = post(&gateway, "kept", "?atomic=false", &[NDJSON], b"x\ny");
        assert_eq!((bad.status, &bad.json()["refused"]), (202, &json!(2)), "their own fault: {}", bad.text());
        assert_eq!(count(&gateway.status(), "accepted"), 2);
    });
}

#[test]
fn a_queue_that_is_full_takes_what_fits_and_refuses_the_rest() {
    over_both(|home| {
        let gateway = home.start("[queues.kept]\nprocessor = 'pull'\nlimits.length_max = 3\n", &["--dev"]);
        let answer = post(&gateway, "kept", "?atomic=false", &[NDJSON], b"1\n2\n3\n4\n5");
        let found = answer.json();
        assert_eq!(
            (answer.status, &found["accepted"], &found["refused"]),
            (202, &json!(3), &json!(2)),
            "{found}"
        );
        assert_eq!(found["items"][4]["error"]["code"], "queue_full", "{found}");
        let none = post(&gateway, "kept", "?atomic=false", &[NDJSON], b"1\n2");
        assert_eq!((none.status, none.json()["code"].as_str()), (429, Some("queue_full")), "{}", none.text());
        assert_eq!(none.header("posthaste-stored"), Some("no"));
        assert!(none.header("retry-after").is_some());
        let mixed = post(&gateway, "kept", "?atomic=false", &[NDJSON], b"1\n{");
        assert_eq!((mixed.status, &mixed.json()["refused"]), (202, &json!(2)), "{}", mixed.text());
    });
}

#[test]
fn ten_thousand_keyed_items_are_stored_once_however_often_they_are_sent() {
    over_both(|home| {
        let mut gateway = start(home);
        let items: Vec<Value> = (0..10_000)
            .map(|item| json!({"payload": item.to_string(), "idempotency_key": format!("k{item}")}))
            .collect();
        let body = Value::from(items).to_string();
        let first = post(&gateway, "kept", "?atomic=false", &[JSON], body.as_bytes());
        assert_eq!((first.status, &first.json()["accepted"]), (202, &json!(10_000)), "{:.300}", first.text());
        gateway.restart();
        let again = post(&gateway, "kept", "?atomic=false", &[JSON], body.as_bytes()).json();
        assert_eq!([&again["accepted"], &again["duplicates"]], [&json!(0), &json!(10_000)]);
        let id = |answer: &Value, at: usize| answer["items"][at]["id"].clone();
        let first = first.json();
        assert!((0..10_000).all(|at| id(&first, at) == id(&again, at)));
        assert_eq!(count(&gateway.status(), "accepted"), 10_000);
        gateway.stop();
    });
}
