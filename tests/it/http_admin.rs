//! Queues by API, on each kind of store: listed, changed, held, emptied, deleted.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Answer;
use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::{assert_laws, count};
use crate::support::stores::on_both_stores;

const WITHIN: Duration = Duration::from_mins(1);
const JSON: (&str, &str) = ("Content-Type", "application/json");
const ORDERS: &str = "/v1/queues/orders";

on_both_stores! {
    queues_are_listed_in_pages
    a_patch_merges_and_leaves_the_rest
    what_is_shown_can_be_put_back
    many_who_change_a_queue_at_once_do_not_undo_each_other
    a_queue_is_paused_resumed_and_purged
    a_queue_is_deleted_when_it_is_empty_or_by_force
    a_queue_of_the_file_can_be_held_and_not_changed
    a_content_type_that_is_there_twice_is_refused_as_that
}

fn send(gateway: &Gateway, line: &str, body: &Value) -> Answer {
    let (method, path) = line.split_once(' ').expect("a method");
    gateway.request(method, path, &[JSON], body.to_string().as_bytes())
}

fn put(gateway: &Gateway, name: &str, settings: &Value) -> Value {
    let answer = send(gateway, &format!("PUT /v1/queues/{name}"), settings);
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    answer.json()
}

fn get(gateway: &Gateway, path: &str) -> Value {
    let answer = gateway.request("GET", path, &[], b"");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// A request without a body that succeeds.
fn order(gateway: &Gateway, line: &str) -> Answer {
    let (method, path) = line.split_once(' ').expect("a method");
    let answer = gateway.request(method, path, &[], b"");
    assert!(matches!(answer.status, 200 | 204), "{line}: {}", answer.text());
    answer
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{}", answer.text());
}

fn a_content_type_that_is_there_twice_is_refused_as_that(home: &Home) {
    let gateway = home.start("", &[]);
    let body = br#"{"processor":"pull"}"#;
    let refused = gateway.request("PUT", "/v1/queues/orders", &[JSON, JSON], body);
    assert_refused(&refused, 400, "contradictory_options");
    let problem = refused.json();
    let expected = (&json!("Content-Type"), &json!("Content-Type is there twice"));
    assert_eq!((&problem["header"], &problem["detail"]), expected);
}

fn queues_are_listed_in_pages(home: &Home) {
    let gateway = home.start("[queues.filed]\nprocessor = 'log'\n", &[]);
    for name in ["b", "a", "C", "a.1"] {
        put(&gateway, name, &json!({"processor": "pull"}));
    }
    let page = |query: &str| {
        let page = get(&gateway, &format!("/v1/queues{query}"));
        let items = page["items"].as_array().expect("items");
        let names: Vec<_> =
            items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect();
        (names, page["cursor"].as_str().map(str::to_owned))
    };
    let all = ["C", "a", "a.1", "b", "default", "filed"].map(str::to_owned);
    assert_eq!(page(""), (all.to_vec(), None));
    assert_eq!(page("?limit=6"), (all.to_vec(), None));
    let (first, cursor) = page("?limit=2");
    let cursor = cursor.expect("there are more");
    assert_eq!(first, all[..2]);
    put(&gateway, "a.0", &json!({"processor": "pull"}));
    order(&gateway, "DELETE /v1/queues/a");
    assert_eq!(
        page(&format!("?cursor={cursor}")).0,
        ["a.0", "a.1", "b", "default", "filed"],
        "from where it was on"
    );
    let items = get(&gateway, "/v1/queues")["items"].clone();
    for item in items.as_array().expect("items") {
        let path = format!("/v1/queues/{}", item["name"].as_str().expect("a name"));
        assert_eq!(get(&gateway, &path), *item, "as it is shown alone");
    }
    for query in ["?limit=0", "?limit=1001", "?limit=", "?cursor=x", "?cursor="] {
        assert_refused(
            &gateway.request("GET", &format!("/v1/queues{query}"), &[], b""),
            400,
            "invalid_value",
        );
    }
    assert_refused(&gateway.request("GET", "/v1/queues?name=a", &[], b""), 400, "unknown_parameter");
}

fn a_patch_merges_and_leaves_the_rest(home: &Home) {
    let gateway = home.start("", &[]);
    let before = put(
        &gateway,
        "orders",
        &json!({"processor": "log", "ttl": "1d", "retry": {"schedule": ["1s"]}, "delivery": {"rate": "5/s"}}),
    );
    let patched = send(&gateway, &format!("PATCH {ORDERS}"), &json!({"retry": {"jitter": 0.5}, "ttl": null}));
    assert_eq!((patched.status, patched.header("location")), (200, None), "{}", patched.text());
    let mut expected = before;
    expected["retry"]["jitter"] = json!(0.5);
    expected.as_object_mut().expect("an object").remove("ttl");
    assert_eq!(patched.json(), expected);
    assert_eq!(get(&gateway, ORDERS), expected);
    for (body, status, code) in [
        (json!({"retry": {"jiter": 1}}), 400, "unknown_field"),
        (json!({"timeout": 5}), 400, "invalid_value"),
        (json!([]), 400, "invalid_value"),
        (json!({"timeout": "1ms"}), 422, "setting_out_of_range"),
        (json!({"processor": "lgo"}), 422, "setting_out_of_range"),
        (json!({"processor": "http", "destination": "http://127.0.0.1/"}), 422, "destination_refused"),
        (json!({"secret": "whsec_x"}), 422, "secret_needs_file"),
        (json!({"delivery": {"headers": {"Host": "x"}}}), 422, "header_not_forwardable"),
    ] {
        assert_refused(&send(&gateway, &format!("PATCH {ORDERS}"), &body), status, code);
    }
    assert_refused(&send(&gateway, "PATCH /v1/queues/nothing", &json!({"ttl": "1d"})), 404, "queue_unknown");
    let plain = gateway.request("PATCH", ORDERS, &[], b"{}");
    assert_refused(&plain, 415, "unsupported_media_type");
    assert_eq!(get(&gateway, ORDERS), expected, "nothing of these");
}

fn what_is_shown_can_be_put_back(home: &Home) {
    let gateway = home.start("", &[]);
    put(
        &gateway,
        "orders",
        &json!({"processor": "log", "delivery": {"headers": {"Authorization": "s3cret", "X-A": "1"}}}),
    );
    order(&gateway, &format!("POST {ORDERS}/pause"));
    let mut shown = get(&gateway, ORDERS);
    assert_eq!(shown["delivery"]["headers"]["Authorization"], "***");
    let patched = send(&gateway, &format!("PATCH {ORDERS}"), &shown);
    assert_eq!(
        (patched.status, patched.json()),
        (200, shown.clone()),
        "all of it, credentials aside, is as it was"
    );
    shown["delivery"]["headers"]["Authorization"] = json!("other");
    shown["timeout"] = json!("9s");
    let replaced = put(&gateway, "orders", &shown);
    assert_eq!((&replaced["timeout"], &replaced["paused"]), (&json!("9s"), &json!(true)));
    for (key, value) in [("paused", json!(false)), ("name", json!("other")), ("source", json!("file"))] {
        for method in ["PUT", "PATCH"] {
            let refused =
                send(&gateway, &format!("{method} {ORDERS}"), &json!({"processor": "log", key: value}));
            assert_refused(&refused, 400, "invalid_value");
            assert_eq!(refused.json()["pointer"], format!("/{key}"));
        }
    }
    assert_eq!(get(&gateway, ORDERS), replaced);
}

fn many_who_change_a_queue_at_once_do_not_undo_each_other(home: &Home) {
    let gateways = match home {
        // One process at a time has a file.
        Home::Sqlite => vec![home.start("", &[])],
        Home::Redis(_) => vec![home.start("", &[]), home.start("", &[])],
    };
    put(&gateways[0], "orders", &json!({"processor": "log"}));
    let clients = 12;
    std::thread::scope(|scope| {
        for client in 0..clients {
            let gateway = &gateways[client % gateways.len()];
            scope.spawn(move || {
                let body = json!({"delivery": {"headers": {format!("X-{client}"): "1"}}});
                let patched = send(gateway, &format!("PATCH {ORDERS}"), &body);
                assert_eq!(patched.status, 200, "{}", patched.text());
                let headers = patched.json()["delivery"]["headers"].clone();
                assert_eq!(headers[format!("X-{client}")], "1");
            });
        }
    });
    let all: HashSet<_> = (0..clients).map(|client| format!("X-{client}")).collect();
    let kept = get(&gateways[0], "/v1/queues")["items"].clone();
    let kept = kept.as_array().expect("items").iter().find(|queue| queue["name"] == "orders").cloned();
    let headers = kept.expect("it is listed")["delivery"]["headers"].clone();
    assert_eq!(headers.as_object().expect("headers").keys().cloned().collect::<HashSet<_>>(), all);
}

fn a_queue_is_paused_resumed_and_purged(home: &Home) {
    let mut gateway = home.start("", &[]);
    put(&gateway, "orders", &json!({"processor": "log"}));
    for _ in 0..2 {
        assert_eq!(order(&gateway, &format!("POST {ORDERS}/pause")).json()["paused"], true, "and again");
    }
    assert_eq!(get(&gateway, ORDERS)["paused"], true);
    let unready = gateway.request("GET", "/ready?check=work", &[], b"");
    assert_eq!((unready.status, &unready.json()["reasons"][0]["code"]), (503, &json!("queue_stalled")));
    assert_eq!(gateway.request("GET", "/ready", &[], b"").status, 200);
    for delay in ["0s", "0s", "1h"] {
        gateway.publish("orders", &[("Posthaste-Delay", delay)], b"x");
    }
    let status = gateway.status();
    assert_eq!(["pending", "scheduled"].map(|key| count(&status, key)), [2, 1], "{status}");
    let queue = status["queues"].as_array().expect("queues").iter().find(|queue| queue["name"] == "orders");
    assert_eq!(queue.expect("it is shown")["stalled"]["code"], "paused", "{status}");
    assert_eq!(order(&gateway, &format!("POST {ORDERS}/purge")).json(), json!({"purged": 3}));
    assert_eq!(order(&gateway, &format!("POST {ORDERS}/purge")).json(), json!({"purged": 0}));
    let path = gateway.publish("orders", &[], b"x");
    let resumed = order(&gateway, &format!("POST {ORDERS}/resume")).json();
    assert_eq!((&resumed["paused"], resumed.get("parked")), (&json!(false), None));
    gateway.wait_until_message_is("delivered", &path, WITHIN);
    let status = gateway.status();
    assert_laws(&status);
    assert_eq!(["purged", "delivered"].map(|key| count(&status, key)), [3, 1], "{status}");
    // None of these has a body; what is in one would not be done.
    for verb in ["pause", "resume", "purge"] {
        let path = format!("{ORDERS}/{verb}");
        assert_eq!(
            gateway.request("POST", &path, &[JSON], b"{}").status,
            200,
            "an empty object says nothing"
        );
        let refused = gateway.request("POST", &path, &[JSON], br#"{"for":"1h"}"#);
        assert_refused(&refused, 400, "unknown_field");
        assert_eq!(refused.json()["pointer"], "/for");
        assert_refused(&gateway.request("POST", &path, &[JSON], b"[1]"), 400, "invalid_value");
        assert_refused(&gateway.request("POST", &path, &[JSON], b"{"), 400, "malformed");
        assert_refused(&gateway.request("POST", &path, &[], b"for=1h"), 415, "unsupported_media_type");
        assert_refused(&gateway.request("POST", &path, &[], &[b'x'; 5_000]), 413, "payload_too_large");
        assert_refused(
            &gateway.request("POST", &format!("{path}?force=true"), &[], b""),
            400,
            "unknown_parameter",
        );
        assert_refused(
            &gateway.request("POST", &format!("/v1/queues/no/{verb}"), &[], b""),
            404,
            "queue_unknown",
        );
        assert_refused(
            &gateway.request("POST", &format!("/v1/queues/-/{verb}"), &[], b""),
            400,
            "invalid_queue_name",
        );
    }
}

fn a_queue_is_deleted_when_it_is_empty_or_by_force(home: &Home) {
    let gateway = home.start("", &[]);
    put(&gateway, "orders", &json!({"processor": "pull"}));
    gateway.publish("orders", &[], b"x");
    let refused = gateway.request("DELETE", ORDERS, &[], b"");
    assert_refused(&refused, 409, "queue_not_empty");
    assert_eq!(refused.json()["parameter"], "force");
    assert_refused(
        &gateway.request("DELETE", &format!("{ORDERS}?force=false"), &[], b""),
        409,
        "queue_not_empty",
    );
    assert_refused(
        &gateway.request("DELETE", &format!("{ORDERS}?force=yes"), &[], b""),
        400,
        "invalid_value",
    );
    assert_refused(
        &gateway.request("DELETE", &format!("{ORDERS}?forced=true"), &[], b""),
        400,
        "unknown_parameter",
    );
    assert_refused(&gateway.request("DELETE", ORDERS, &[JSON], br#"{"force":true}"#), 400, "unknown_field");
    assert_eq!(count(&gateway.status(), "pending"), 1);
    let deleted = order(&gateway, &format!("DELETE {ORDERS}?force=true"));
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_refused(&gateway.request("DELETE", ORDERS, &[], b""), 404, "queue_unknown");
    assert_refused(&gateway.request("GET", ORDERS, &[], b""), 404, "queue_unknown");
    assert_refused(&gateway.request("POST", &format!("{ORDERS}/messages"), &[], b"x"), 404, "queue_unknown");
    put(&gateway, "orders", &json!({"processor": "pull"}));
    assert_eq!(count(&gateway.status(), "pending"), 0, "another queue of that name");
    order(&gateway, &format!("DELETE {ORDERS}"));
}

fn a_queue_of_the_file_can_be_held_and_not_changed(home: &Home) {
    let gateway = home.start("[queues.orders]\nprocessor = 'pull'\n", &[]);
    gateway.publish("orders", &[], b"x");
    for line in [format!("PUT {ORDERS}"), format!("PATCH {ORDERS}")] {
        assert_refused(&send(&gateway, &line, &json!({"processor": "log"})), 409, "queue_declared_in_file");
    }
    assert_refused(&send(&gateway, &format!("PATCH {ORDERS}"), &json!({})), 409, "queue_declared_in_file");
    for query in ["", "?force=true"] {
        let refused = gateway.request("DELETE", &format!("{ORDERS}{query}"), &[], b"");
        assert_refused(&refused, 409, "queue_declared_in_file");
    }
    assert_eq!(order(&gateway, &format!("POST {ORDERS}/pause")).json()["source"], "file");
    assert_eq!(order(&gateway, &format!("POST {ORDERS}/resume")).json()["paused"], false);
    assert_eq!(order(&gateway, &format!("POST {ORDERS}/purge")).json(), json!({"purged": 1}));
}
