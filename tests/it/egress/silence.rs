//! Names of a dead name server: who else is held up by them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::{allow, call, http, put};
use crate::support::embedded::Embedded;
use crate::support::gateway::Home;
use crate::support::sink::{Answer, Sink};
use crate::support::stores::on_both_stores;
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_mins(1);

on_both_stores! {
    forty_names_that_nobody_answers_for_hold_up_no_others
}

fn forty_names_that_nobody_answers_for_hold_up_no_others(home: &Home) {
    let sink = Sink::start(|_| Answer::status(200));
    let port = sink.address().port();
    // Whoever asks for one of those hangs until the end of this test, however it ends.
    let (end, dead) = sync_channel::<()>(0);
    let dead = Mutex::new(dead);
    let gateway = Embedded::start(
        |settings| {
            if let Home::Redis(redis) = home {
                settings.store.url = redis.url();
            }
            settings.queues.clear();
            allow(settings, &["127.0.0.1"]);
        },
        |builder| {
            builder.lookup(move |name| {
                if name.ends_with(".slow.example") {
                    let dead = dead.lock().unwrap_or_else(PoisonError::into_inner);
                    dead.recv().expect_err("nobody answers");
                }
                Ok(vec![IpAddr::from(Ipv4Addr::LOCALHOST)])
            })
        },
    );
    let mut settings = http(&format!("http://shop.example:{port}/"));
    settings["destination_override"] = json!("any");
    assert_eq!(put(&gateway, "shop", &settings).status, 201);
    settings["connect_timeout"] = json!("1s");
    settings["timeout"] = json!("2s");
    assert_eq!(put(&gateway, "slow", &settings).status, 201);
    let slow: Vec<Value> = (0..40)
        .map(|number| json!({"payload": "x", "destination": format!("http://{number}.slow.example:{port}/")}))
        .collect();
    let answer = call(&gateway, "POST", "/v1/queues/slow/messages/batch", &json!(slow));
    assert_eq!(answer.status, 202, "{}", answer.text());
    // One attempt is all they have: a name that is known, and one that nobody has asked for yet.
    let fresh = format!("http://fresh.example:{port}/");
    for headers in [&[][..], &[("Posthaste-Destination", fresh.as_str())]] {
        let answer = gateway.request("POST", "/v1/queues/shop/messages", headers, b"x");
        assert_eq!(answer.status, 202, "{}", answer.text());
        let path = answer.header("location").expect("a Location").to_owned();
        let message = wait_until("it has ended", WITHIN, || {
            let message = gateway.request("GET", &path, &[], b"").json();
            let has_ended = message["state"] == "delivered" || message["state"] == "dead";
            has_ended.then_some(message)
        });
        assert_eq!(message["state"], "delivered", "{message}");
    }
    assert_eq!(sink.count(), 2, "none of the others is reached");
    drop(end);
    gateway.stop();
}
