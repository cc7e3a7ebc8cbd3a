//! Destinations that an operator's file declares.

use std::path::Path;
use std::time::Duration;

use posthaste::{App, Settings};
use serde_json::{Value, json};

use super::{Names, allow, http, put, start};
use crate::support::embedded::Embedded;
use crate::support::gateway::Home;
use crate::support::sink::{Answer, Sink};
use crate::support::stores::on_both_stores;
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_mins(1);

on_both_stores! {
    a_declared_queue_that_leads_inwards_starts_parked_until_that_is_allowed
    a_declared_queue_is_resumed_once_its_name_is_mended_and_parked_again_by_a_start_when_it_is_not
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

fn a_declared_queue_is_resumed_once_its_name_is_mended_and_parked_again_by_a_start_when_it_is_not(
    home: &Home,
) {
    let (sink, names) = (Sink::start(|_| Answer::status(200)), Names::default());
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("http://inner.example:{}/", sink.address().port());
    // Only one address of this machine may be reached.
    let start = || {
        start(home, &names, |settings| {
            declare(settings, home, folder.path(), &url);
            allow(settings, &["127.0.0.1"]);
        })
    };
    let delivered = |gateway: &Embedded, count: u64| {
        wait_until("all are delivered", WITHIN, || {
            (gateway.status()["totals"]["delivered"] == count).then_some(())
        });
    };
    names.set("inner.example", &["127.0.0.3"]);
    let gateway = start();
    assert_eq!(shown(&gateway)["parked"], "egress_refused");
    assert_eq!(post(&gateway, "messages"), 202);

    names.set("inner.example", &["127.0.0.1"]);
    assert_eq!(shown(&gateway)["parked"], "egress_refused", "nobody looks again by itself");
    // What is set is looked up at once, so what was found before is no longer taken to hold.
    assert_eq!(put(&gateway, "other", &http(&url)).status, 201);
    assert_eq!(post(&gateway, "resume"), 200);
    delivered(&gateway, 1);
    assert_eq!(shown(&gateway).get("parked"), None);
    gateway.stop();

    // What is well is not parked by a start, what is not is, although somebody resumed it before.
    let gateway = start();
    assert_eq!(shown(&gateway).get("parked"), None);
    assert_eq!(post(&gateway, "messages"), 202);
    delivered(&gateway, 2);
    gateway.stop();
    names.set("inner.example", &["127.0.0.3"]);
    let gateway = start();
    assert_eq!(shown(&gateway)["parked"], "egress_refused");
    assert_eq!(post(&gateway, "messages"), 202);
    let status = gateway.status();
    assert_eq!((&status["totals"]["pending"], &status["totals"]["dead"]), (&json!(1), &json!(0)));
    // Who resumes it nevertheless hears of it by the message.
    assert_eq!(post(&gateway, "resume"), 200);
    wait_until("it is undeliverable", WITHIN, || (gateway.status()["totals"]["dead"] == 1).then_some(()));
    let dead = gateway.request("GET", "/v1/queues/orders/dead?reason=undeliverable", &[], b"").json();
    assert_eq!(dead["items"].as_array().map(Vec::len), Some(1), "{dead}");
    assert_eq!(sink.count(), 2);
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
