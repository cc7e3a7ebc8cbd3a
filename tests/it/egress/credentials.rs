//! Whom a queue's credentials go to, and that an answer that repeats what was sent does not show them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{JSON, http};
use crate::support::gateway::{Gateway, Home};
use crate::support::sink::{Answer, Received, Sink};
use crate::support::stores::on_both_stores;

const WITHIN: Duration = Duration::from_mins(1);

on_both_stores! {
    credentials_of_a_queue_go_to_its_own_origin_only
    an_answer_that_repeats_the_request_shows_no_credential
}

fn scene(home: &Home, destination: &str, more: &Value) -> Gateway {
    let gateway = home.start("[queues]\n", &["--dev"]);
    let mut queue = http(destination);
    let settings = json!({
        "destination_override": "any", "retry": {"schedule": []},
        "delivery": {"headers": {"Authorization": "Bearer operators-own", "X-Session-Id": "session-0", "X-Team": "mail"}},
    });
    for settings in [&settings, more] {
        queue.as_object_mut().expect("an object").extend(settings.as_object().expect("settings").clone());
    }
    let made = gateway.request("PUT", "/v1/queues/orders", &[JSON], queue.to_string().as_bytes());
    assert_eq!(made.status, 201, "{}", made.text());
    gateway
}

fn credentials_of_a_queue_go_to_its_own_origin_only(home: &Home) {
    let (own, other) = (Sink::start(|_| Answer::status(200)), Sink::start(|_| Answer::status(200)));
    let mut gateway = scene(home, &own.url("/own"), &json!({}));
    let headers_of = |received: &Received| {
        ["authorization", "x-session-id", "x-team"].map(|name| received.header(name).map(str::to_owned))
    };
    let publish = |gateway: &mut Gateway, destination: &str, more: &[(&str, &str)]| {
        let headers: Vec<_> = [("Posthaste-Destination", destination)].iter().chain(more).copied().collect();
        let path = gateway.publish("orders", &headers, b"x");
        gateway.wait_until_message_is("delivered", &path, WITHIN);
    };
    let all =
        [Some("Bearer operators-own"), Some("session-0"), Some("mail")].map(|text| text.map(str::to_owned));
    publish(&mut gateway, &own.url("/brought"), &[]);
    assert_eq!(headers_of(&own.only()), all, "its own origin, whoever says so");
    publish(&mut gateway, &other.url("/"), &[]);
    assert_eq!(headers_of(&other.only()), [None, None, Some("mail".to_owned())]);
    // A publisher may still send what is his.
    publish(&mut gateway, &other.url("/"), &[("Posthaste-Forward-Authorization", "Bearer theirs")]);
    let received = other.wait_for(2, WITHIN);
    assert_eq!(headers_of(&received[1]), [Some("Bearer theirs".to_owned()), None, Some("mail".to_owned())]);
    // And not replace what goes to the queue's own.
    publish(&mut gateway, &own.url("/"), &[("Posthaste-Forward-Authorization", "Bearer theirs")]);
    assert_eq!(headers_of(&own.wait_for(2, WITHIN)[1]), all);
    // Without one of its own all are elsewhere.
    let none = json!({"destination": null}).to_string();
    assert_eq!(gateway.request("PATCH", "/v1/queues/orders", &[JSON], none.as_bytes()).status, 200);
    publish(&mut gateway, &own.url("/"), &[]);
    assert_eq!(headers_of(&own.wait_for(3, WITHIN)[2]), [None, None, Some("mail".to_owned())]);
    gateway.stop();
}

fn an_answer_that_repeats_the_request_shows_no_credential(home: &Home) {
    let sink = Sink::start(|received| {
        // Redis keeps 256 bytes of it.
        let of_interest = received.headers.iter().filter(|(name, _)| !name.starts_with("accept"));
        let headers: Vec<_> = of_interest.map(|(name, value)| format!("{name}={value}")).collect();
        let line = format!("POST {}", received.target).replace('/', "\\/");
        Answer::body(500, format!("what is this? {line} {}", headers.join(" | ")))
    });
    let mut gateway = scene(home, &sink.url("/?token=url%2Fof-its-own&x=1"), &json!({}));
    let headers = [
        ("Posthaste-Forward-Cookie", "id=publishers-own"),
        ("Posthaste-Forward-X-Tenant", "tenant-seven"),
        ("Posthaste-Forward-X-Api-Key", "short"),
    ];
    let path = gateway.publish("orders", &headers, b"x");
    let message = gateway.wait_until_message_is("dead", &path, WITHIN);
    let sent = sink.only();
    assert_eq!(sent.header("cookie"), Some("id=publishers-own"));
    let id = path.rsplit('/').next().expect("an id");
    let letter = gateway.request("GET", &format!("/v1/queues/orders/dead/{id}"), &[], b"").json();
    for shown in [message, letter] {
        let attempts = shown["attempts"].as_array().expect("a list");
        let excerpt = attempts[0]["excerpt"].as_str().expect("there is one");
        for part in [
            r"post \/?token=***&x=1 ",
            "authorization=*** |",
            "cookie=***",
            "x-session-id=*** ",
            "x-tenant=tenant-seven",
            "x-api-key=short",
        ] {
            assert!(excerpt.to_lowercase().contains(part), "{part}: {excerpt}");
        }
        assert!(!shown.to_string().contains("-own"), "{shown}");
    }
    gateway.stop();
}
