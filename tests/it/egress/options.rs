//! What a message says of its own delivery: destination, method, time-out, headers, trace, and the stores it came by.

use std::time::Duration;

use serde_json::{Value, json};

use super::{JSON, http};
use crate::support::client::Answer;
use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::count;
use crate::support::sink::{Answer as SinkAnswer, Sink};
use crate::support::stores::on_both_stores;

const WITHIN: Duration = Duration::from_mins(1);
const MESSAGES: &str = "/v1/queues/orders/messages";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

on_both_stores! {
    a_message_goes_where_it_says_how_it_says
    which_destinations_a_queue_takes_is_its_setting
    items_of_a_batch_go_each_their_own_way
    a_message_carries_the_stores_that_it_came_by
}

fn scene(home: &Home, settings: &Value) -> (Sink, Sink, Gateway) {
    let sink = || {
        Sink::start(|received| {
            if received.target == "/hang" { SinkAnswer::HangBeforeHead } else { SinkAnswer::status(200) }
        })
    };
    let (own, other) = (sink(), sink());
    let gateway = home.start("[queues]\n", &["--dev"]);
    let mut queue = http(&own.url("/own"));
    queue.as_object_mut().expect("an object").extend(settings.as_object().expect("settings").clone());
    let made = gateway.request("PUT", "/v1/queues/orders", &[JSON], queue.to_string().as_bytes());
    assert_eq!(made.status, 201, "{}", made.text());
    (own, other, gateway)
}

fn refused(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.header("posthaste-stored"), Some("no"));
    (answer.status, answer.json()["code"].as_str().expect("a code").to_owned())
}

fn a_message_goes_where_it_says_how_it_says(home: &Home) {
    let (own, other, mut gateway) = scene(home, &json!({"destination_override": "any"}));
    let (brought, hanging) = (other.url("/hook?a=1&b=%20"), other.url("/hang"));
    let headers = [
        ("Posthaste-Destination", brought.as_str()),
        ("Posthaste-Method", "PUT"),
        ("Posthaste-Forward-X-Tenant", "seven"),
        ("Posthaste-Forward-Authorization", "Bearer theirs"),
        ("Authorization", "Bearer of this request"),
        ("Idempotency-Key", "order-7"),
        ("traceparent", PARENT),
        ("tracestate", "vendor=1"),
    ];
    let path = gateway.publish("orders", &headers, b"payload");
    let message = gateway.wait_until_message_is("delivered", &path, WITHIN);
    assert_eq!(message["attempt_count"], 1);
    let received = other.only();
    assert_eq!((received.method.as_str(), received.target.as_str()), ("PUT", "/hook?a=1&b=%20"));
    assert_eq!(received.body.as_deref(), Some(&b"payload"[..]));
    for (name, value) in
        [("x-tenant", "seven"), ("authorization", "Bearer theirs"), ("tracestate", "vendor=1")]
    {
        assert_eq!(received.header(name), Some(value), "{name}");
    }
    let parent = received.header("traceparent").expect("continued");
    assert_eq!((&parent[..36], &parent[52..]), (&PARENT[..36], &PARENT[52..]));
    assert_ne!(parent, PARENT);

    // The key stands for the destination and the method too.
    let again = gateway.request("POST", MESSAGES, &headers, b"payload");
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &json!(true)));
    for other in [("Posthaste-Destination", hanging.as_str()), ("Posthaste-Method", "POST")] {
        let changed: Vec<_> =
            headers.iter().map(|header| if header.0 == other.0 { other } else { *header }).collect();
        let answer = gateway.request("POST", MESSAGES, &changed, b"payload");
        assert_eq!(refused(&answer), (422, "idempotency_key_reused".to_owned()), "{}", other.0);
    }

    let hang = [("Posthaste-Destination", hanging.as_str()), ("Posthaste-Timeout", "200ms")];
    let path = gateway.publish("orders", &hang, b"x");
    let message = gateway.wait_until_message_is("dead", &path, WITHIN);
    assert_eq!(message["destination"], json!(hanging));
    assert_eq!(message["attempts"][0]["error"], "timeout: no answer within 200ms", "{message}");
    gateway.publish("orders", &[], b"x");
    assert_eq!(own.wait_for(1, WITHIN)[0].target, "/own");
    gateway.stop();
}

fn which_destinations_a_queue_takes_is_its_setting(home: &Home) {
    let (_own, other, mut gateway) = scene(home, &json!({}));
    let url = other.url("/hook");
    let send = |headers: &[(&str, &str)]| gateway.request("POST", MESSAGES, headers, b"x");
    let set = |settings: &Value| {
        let answer = gateway.request("PATCH", "/v1/queues/orders", &[JSON], settings.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let to = |url: &str| send(&[("Posthaste-Destination", url)]);
    let not_allowed = (422, "destination_not_allowed".to_owned());
    assert_eq!(refused(&to(&url)), not_allowed);
    assert_eq!(to(&url).json()["setting"], "destination_override");
    set(&json!({"destination_override": ["https://a.example", other.url("/")]}));
    assert_eq!(to(&url).status, 202);
    assert_eq!(refused(&to("https://b.example/")), not_allowed);
    assert_eq!(refused(&to("http://a.example/")), not_allowed, "another scheme is another origin");
    set(&json!({"destination_override": "any"}));
    assert_eq!(to(&url).status, 202);
    assert_eq!(refused(&to("http://10.0.0.1/")), (422, "destination_refused".to_owned()));

    // A queue that has none itself needs one with each message.
    set(&json!({"destination": null}));
    assert_eq!(refused(&send(&[])), (400, "invalid_value".to_owned()));
    assert_eq!(to(&url).status, 202);

    // What is never forwarded, alone and because this connection names it.
    let (destination, credential) =
        (("Posthaste-Destination", url.as_str()), "Posthaste-Forward-Authorization");
    let not_forwardable = (422, "header_not_forwardable".to_owned());
    for name in ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Webhook-Id", "Traceparent"] {
        let forward = format!("Posthaste-Forward-{name}");
        assert_eq!(refused(&send(&[destination, (&forward, "x")])), not_forwardable, "{name}");
    }
    let named = [destination, ("Connection", "x-mine"), ("Posthaste-Forward-X-Mine", "1")];
    assert_eq!(refused(&send(&named)), not_forwardable);
    set(&json!({"delivery": {"forward_credentials": false}}));
    assert_eq!(refused(&send(&[destination, (credential, "Bearer x")])), not_forwardable);
    let status = gateway.wait_until_drained(WITHIN);
    assert_eq!((count(&status, "accepted"), count(&status, "delivered")), (3, 3));
    assert_eq!(other.count(), 3);
    gateway.stop();
}

fn items_of_a_batch_go_each_their_own_way(home: &Home) {
    let (own, other, mut gateway) = scene(home, &json!({"destination_override": "any"}));
    let batch = format!("{MESSAGES}/batch");
    let items = json!([
        {"payload": "0"},
        {"payload": "1", "destination": other.url("/1"), "method": "PATCH"},
        {"payload": "2", "destination": other.url("/2"), "traceparent": PARENT},
    ]);
    let answer = gateway.request("POST", &batch, &[JSON], items.to_string().as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(own.wait_for(1, WITHIN)[0].body.as_deref(), Some(&b"0"[..]));
    let mut received = other.wait_for(2, WITHIN);
    received.sort_by(|one, other| one.target.cmp(&other.target));
    assert_eq!((received[0].method.as_str(), received[1].method.as_str()), ("PATCH", "POST"));
    assert!(received[1].header("traceparent").is_some_and(|parent| parent[..36] == PARENT[..36]));

    // What the request says is for all, and one bad item refuses all.
    let url = other.url("/all");
    let headers = [("Content-Type", "application/x-ndjson"), ("Posthaste-Destination", url.as_str())];
    assert_eq!(gateway.request("POST", &batch, &headers, b"1\n2\n").status, 202);
    other.wait_for(4, WITHIN);
    let bad = json!([{"payload": "0"}, {"payload": "1", "destination": "http://192.168.1.1/"}]);
    let answer = gateway.request("POST", &batch, &[JSON], bad.to_string().as_bytes());
    assert_eq!(refused(&answer), (422, "destination_refused".to_owned()));
    assert_eq!((&answer.json()["index"], &answer.json()["pointer"]), (&json!(1), &json!("/1/destination")));
    let status = gateway.wait_until_drained(WITHIN);
    assert_eq!((count(&status, "accepted"), count(&status, "delivered")), (5, 5));
    gateway.stop();
}

fn a_message_carries_the_stores_that_it_came_by(home: &Home) {
    let (own, _other, mut gateway) = scene(home, &json!({}));
    gateway.publish("orders", &[], b"x");
    let store = own.wait_for(1, WITHIN)[0].header("posthaste-via").expect("named").to_owned();
    gateway.publish("orders", &[("Posthaste-Via", "a,b"), ("Posthaste-Via", "c")], b"x");
    let via = own.wait_for(2, WITHIN)[1].header("posthaste-via").expect("named").to_owned();
    let mut hops: Vec<_> = via.split(", ").collect();
    assert_eq!(hops.pop(), Some(store.as_str()));
    hops.sort_unstable();
    assert_eq!(hops, ["a", "b", "c"]);
    let send = |via: &str| gateway.request("POST", MESSAGES, &[("Posthaste-Via", via)], b"x");
    let looped = (508, "loop_detected".to_owned());
    assert_eq!(refused(&send(&via)), looped, "it came by this very store");
    assert_eq!(refused(&send("1,2,3,4,5,6,7,8")), looped);
    assert_eq!(send("1,2,3,4,5,6,7").status, 202);
    assert_eq!(refused(&send(&"x".repeat(2_000))), (400, "invalid_value".to_owned()));
    let batch = gateway.request(
        "POST",
        &format!("{MESSAGES}/batch"),
        &[JSON, ("Posthaste-Via", &via)],
        br#"[{"payload":"x"}]"#,
    );
    assert_eq!(refused(&batch), looped);
    gateway.stop();
}
