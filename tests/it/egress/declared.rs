//! Destinations that an operator's file declares.

use std::path::Path;
use std::time::Duration;

use posthaste::{App, Settings};
use serde_json::{Value, json};

use super::{Names, allow, start};
use crate::support::embedded::Embedded;
use crate::support::gateway::Home;
use crate::support::sink::{Answer, Sink};
use crate::support::stores::on_both_stores;
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_mins(1);

on_both_stores! {
    a_declared_queue_that_leads_inwards_starts_parked_until_that_is_allowed
}

fn declare(settings: &mut Settings, home: &Home, folder: &Path, destination: &str) {
    if let Home::Sqlite = home {
        settings.store.url = format!("sqlite:{}", folder.join("kept.db").display());
    }
    let queue = settings.declare("orders", "http").expect("a name");
    queue.destination = Some(destination.parse().expect("a URL"));
}

fn shown(gateway: &Embedded) -> Value {
    gateway.request("GET", "/v1/queues/orders", &[], b"").json()
}

fn post(gateway: &Embedded, path: &str) -> u16 {
    gateway.request("POST", &format!("/v1/queues/orders/{path}"), &[], b"").status
}

fn a_declared_queue_that_leads_inwards_starts_parked_until_that_is_allowed(home: &Home) {
    let (sink, names) = (Sink::start(|_| Answer::status(200)), Names::default());
    let folder = tempfile::tempdir().expect("a folder");
    let port = sink.address().port();
    let url = format!("http://inner.example:{port}/");
    names.set("inner.example", &["127.0.0.1"]);

    let gateway = start(home, &names, |settings| declare(settings, home, folder.path(), &url));
    assert_eq!(shown(&gateway)["parked"], "egress_refused");
    let queue = gateway.request("GET", "/status?queue=orders", &[], b"").json()["queues"][0].clone();
    assert_eq!(queue["stalled"]["code"], "egress_refused", "{queue}");
    assert_eq!(post(&gateway, "messages"), 202, "it takes messages");
    assert_eq!(post(&gateway, "pause"), 200);
    gateway.stop();

    // Allowed, it goes on by itself; what an operator paused stays so.
    let gateway = start(home, &names, |settings| {
        declare(settings, home, folder.path(), &url);
        allow(settings, &[url.trim_end_matches('/')]);
    });
    let queue = shown(&gateway);
    assert_eq!((queue.get("parked"), &queue["paused"]), (None, &json!(true)));
    assert_eq!(sink.count(), 0);
    assert_eq!(post(&gateway, "resume"), 200);
    wait_until("it is delivered", WITHIN, || (gateway.status()["totals"]["delivered"] == 1).then_some(()));
    gateway.stop();
}

#[test]
fn a_declared_destination_that_says_what_is_refused_stops_the_start() {
    for destination in ["http://127.0.0.1:9000/", "http://localhost:9000/", "http://a.example:6379/"] {
        let mut settings = Settings::default();
        settings.declare("orders", "http").expect("a name").destination =
            Some(destination.parse().expect("a URL"));
        let refused = App::builder(settings).build().expect_err("it is refused").to_string();
        assert!(refused.contains("queues.orders.destination"), "{refused}");
        assert!(refused.contains("would allow it with egress.allow = ["), "{refused}");
    }
}
