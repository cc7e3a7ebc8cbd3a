//! Destinations whose names do not resolve when they are set: they are taken, and whoever sets them is told.

use serde_json::json;

use super::{Names, call, http, put, start};
use crate::support::client::Answer;
use crate::support::gateway::Home;
use crate::support::stores::on_both_stores;

on_both_stores! { who_sets_a_destination_that_does_not_resolve_now_is_warned_in_the_answer }

/// The codes that an answer warns of; `None` when it has no such field.
fn warned(answer: &Answer) -> Option<Vec<String>> {
    let body = answer.json();
    let code = |warning: &serde_json::Value| {
        assert!(warning["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{warning}");
        warning["code"].as_str().expect("a code").to_owned()
    };
    body.get("warnings").map(|warnings| warnings.as_array().expect("a list").iter().map(code).collect())
}

fn who_sets_a_destination_that_does_not_resolve_now_is_warned_in_the_answer(home: &Home) {
    let names = Names::default();
    names.set("there.example", &["1.1.1.1"]);
    let gateway = start(home, &names, |_| {});
    let path = "/v1/queues/orders";
    let unresolved = Some(vec!["destination_unresolved".to_owned()]);

    let made = put(&gateway, "orders", &http("https://gone.example/hook?token=s3cret"));
    assert_eq!((made.status, warned(&made)), (201, unresolved.clone()), "{made:?}");
    let detail = made.json()["warnings"][0]["detail"].clone();
    let detail = detail.as_str().expect("a text");
    for said in ["gone.example", "no such name", "dns"] {
        assert!(detail.contains(said), "{said}: {detail}");
    }
    assert!(!detail.contains("s3cret"), "{detail}");
    assert_eq!(warned(&gateway.request("GET", path, &[], b"")), None, "what was seen when it was set");
    assert_eq!(warned(&gateway.request("POST", &format!("{path}/pause"), &[], b"")), None);

    // What was answered can be put back, with its warning.
    let shown = put(&gateway, "there", &http("https://gone.example/")).json();
    let back = put(&gateway, "there", &shown);
    assert_eq!((back.status, warned(&back)), (200, unresolved.clone()), "{back:?}");
    for junk in [json!(7), json!(["a text"]), json!([{"code": 1}])] {
        let refused = call(&gateway, "PATCH", path, &json!({"warnings": junk}));
        let problem = refused.json();
        assert_eq!((refused.status, &problem["pointer"]), (400, &json!("/warnings")), "{problem}");
    }

    // Only a destination that changes is looked at.
    let same = call(&gateway, "PATCH", path, &json!({"timeout": "3s"}));
    assert_eq!((same.status, warned(&same)), (200, None), "{same:?}");
    let other = call(&gateway, "PATCH", path, &json!({"destination": "https://off.example/"}));
    assert_eq!((other.status, warned(&other)), (200, unresolved), "{other:?}");
    let found = call(&gateway, "PATCH", path, &json!({"destination": "https://there.example/"}));
    assert_eq!((found.status, warned(&found)), (200, None), "{found:?}");
    let literal = put(&gateway, "orders", &http("https://1.1.1.1/"));
    assert_eq!((literal.status, warned(&literal)), (200, None), "{literal:?}");
    // Nothing is sent there.
    let unused = json!({"processor": "log", "destination": "https://off.example/"});
    let unused = put(&gateway, "logged", &unused);
    assert_eq!((unused.status, warned(&unused)), (201, None), "{unused:?}");
    gateway.stop();
}
