//! Names that lead elsewhere the second time, resolvers that fail, answers that send elsewhere, and the gateway's own address.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Canary, JSON, Names, allow, call, http, port_of, put, start};
use crate::support::embedded::Embedded;
use crate::support::gateway::Home;
use crate::support::invariants::count;
use crate::support::sink::{Answer, Sink};
use crate::support::stores::on_both_stores;
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_mins(1);

on_both_stores! {
    a_name_that_turns_inwards_after_it_was_judged_is_not_followed
    a_name_that_does_not_resolve_is_taken_and_judged_when_it_does
    a_kept_connection_does_not_follow_a_name_inwards
    an_answer_that_sends_elsewhere_is_not_followed
    nothing_is_delivered_to_the_gateway_itself
}

fn publish(gateway: &Embedded, queue: &str, headers: &[(&str, &str)]) -> String {
    let answer = gateway.request("POST", &format!("/v1/queues/{queue}/messages"), headers, b"x");
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.header("location").expect("a Location").to_owned()
}

fn wait_for_state(gateway: &Embedded, path: &str, state: &str) -> Value {
    wait_until(&format!("{path} is {state}"), WITHIN, || {
        let message = gateway.request("GET", path, &[], b"").json();
        (message["state"] == state).then_some(message)
    })
}

/// The error of the last attempt.
fn error_of(message: &Value) -> String {
    let attempts = message["attempts"].as_array().expect("attempts");
    attempts.last().expect("one")["error"].as_str().unwrap_or_default().to_owned()
}

fn a_name_that_turns_inwards_after_it_was_judged_is_not_followed(home: &Home) {
    let (canary, names) = (Canary::start(), Names::default());
    let gateway = start(home, &names, |_| {});
    let port = canary.port();
    for (name, inwards) in [
        ("a.rebind.example", &["127.0.0.1"][..]),
        ("b.rebind.example", &["93.184.216.34", "127.0.0.1"]),
        ("c.rebind.example", &["::1"]),
        ("d.rebind.example", &["::ffff:127.0.0.1"]),
        ("e.rebind.example", &["0.0.0.0"]),
        ("f.rebind.example", &["64:ff9b::7f00:1"]),
    ] {
        // Documentation has no route, and no judgement but the one at connecting comes after this.
        names.set(name, &["93.184.216.34"]);
        let (queue, url) = (name.replace('.', "-"), format!("http://{name}:{port}/"));
        let mut settings = http(&url);
        settings["destination_override"] = json!("any");
        assert_eq!(put(&gateway, &queue, &settings).status, 201);
        let hold = |verb: &str| gateway.request("POST", &format!("/v1/queues/{queue}/{verb}"), &[], b"");
        assert_eq!(hold("pause").status, 200);
        let own = publish(&gateway, &queue, &[]);
        let brought = publish(&gateway, &queue, &[("Posthaste-Destination", &url)]);
        names.set(name, inwards);
        // Whoever sets it now hears of it, and so does every delivery from then on.
        let again = call(&gateway, "PUT", &format!("/v1/queues/{queue}-2"), &http(&url));
        assert_eq!(again.status, 422, "{name}: {}", again.text());
        assert_eq!(hold("resume").status, 200);
        for path in [own, brought] {
            let message = wait_for_state(&gateway, &path, "dead");
            assert_eq!(message["reason"], "undeliverable", "{name}: {message}");
            assert!(error_of(&message).contains("egress.allow = ["), "{message}");
        }
        let replay =
            call(&gateway, "POST", &format!("/v1/queues/{queue}/dead/replay"), &json!({"filter": {}}));
        assert_eq!((replay.status, &replay.json()["code"]), (422, &json!("destination_refused")));
    }
    canary.assert_untouched();
    gateway.stop();
}

fn a_name_that_does_not_resolve_is_taken_and_judged_when_it_does(home: &Home) {
    let (canary, names) = (Canary::start(), Names::default());
    let gateway = start(home, &names, |_| {});
    let url = format!("http://late.example:{}/", canary.port());
    let mut settings = http(&url);
    settings["retry"] = json!({"schedule": ["1s", "1s", "1s", "1s", "1s", "1s", "1s", "1s"], "jitter": 0.0});
    let made = put(&gateway, "late", &settings);
    assert_eq!(made.status, 201, "{}", made.text());
    let path = publish(&gateway, "late", &[]);
    let message = wait_for_state(&gateway, &path, "scheduled");
    assert!(error_of(&message).starts_with("dns: "), "{message}");
    names.set("late.example", &["127.0.0.1"]);
    let message = wait_for_state(&gateway, &path, "dead");
    assert_eq!(message["reason"], "undeliverable", "{message}");
    names.fail("late.example");
    let replay = call(&gateway, "POST", "/v1/queues/late/dead/replay", &json!({"filter": {}}));
    assert_eq!(replay.status, 200, "what does not resolve now is judged at its delivery: {}", replay.text());
    canary.assert_untouched();
    gateway.stop();
}

fn a_kept_connection_does_not_follow_a_name_inwards(home: &Home) {
    let sink = Sink::start(|received| {
        let is_last = received.target == "/last";
        if is_last { Answer::header(200, "connection", "close") } else { Answer::status(200) }
    });
    let port = sink.address().port();
    // A service of this machine at the same port, where only the first of its addresses may be reached.
    let canary = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).expect("another address of loopback");
    canary.set_nonblocking(true).expect("a setting of the socket");
    let names = Names::default();
    names.set("kept.example", &["127.0.0.1"]);
    let gateway = start(home, &names, |settings| {
        allow(settings, &["127.0.0.1"]);
        // Each thread has connections of its own.
        settings.workers.threads = 1;
    });
    let url = |path: &str| format!("http://kept.example:{port}{path}");
    let mut settings = http(&url("/"));
    settings["destination_override"] = json!("any");
    assert_eq!(put(&gateway, "kept", &settings).status, 201);
    wait_for_state(&gateway, &publish(&gateway, "kept", &[]), "delivered");
    names.set("kept.example", &["127.0.0.2"]);
    // Makes the change known: what is set is looked up at once.
    assert_eq!(put(&gateway, "other", &http(&url("/"))).status, 422);
    wait_for_state(&gateway, &publish(&gateway, "kept", &[]), "delivered");
    assert_eq!(sink.connections(), 1, "the connection to the address that was judged is kept");
    let items = json!([{"payload": "x"}, {"payload": "x"}]);
    assert_eq!(
        call(&gateway, "PATCH", "/v1/queues/kept", &json!({"delivery": {"method": "PUT"}})).status,
        200
    );
    let last = call(&gateway, "PATCH", "/v1/queues/kept", &json!({"destination": url("/last")}));
    assert_eq!(last.status, 422, "it is judged anew, for it is another one");
    let answer = call(&gateway, "POST", "/v1/queues/kept/messages/batch", &items);
    assert_eq!(answer.status, 202, "{}", answer.text());
    wait_until("all went over the kept connection, or died", WITHIN, || {
        let status = gateway.status();
        (count(&status, "delivered") + count(&status, "dead") == 4).then_some(())
    });
    assert!(canary.accept().is_err(), "nobody reached it");
    gateway.stop();
}

fn an_answer_that_sends_elsewhere_is_not_followed(home: &Home) {
    let canary = Canary::start();
    let port = canary.port();
    let sink = Sink::start(move |received| {
        let status = received.target[1..].parse().expect("a status");
        Answer::header(status, "location", format!("http://127.0.0.1:{port}/"))
    });
    let gateway = start(home, &Names::default(), |settings| {
        allow(settings, &[&format!("http://{}", sink.address())]);
    });
    for status in [301, 302, 303, 307, 308] {
        let queue = format!("q{status}");
        assert_eq!(put(&gateway, &queue, &http(&sink.url(&format!("/{status}")))).status, 201);
        let message = wait_for_state(&gateway, &publish(&gateway, &queue, &[]), "dead");
        assert_eq!(message["attempts"][0]["status"], status, "{message}");
    }
    assert_eq!(sink.count(), 5);
    canary.assert_untouched();
    gateway.stop();
}

fn nothing_is_delivered_to_the_gateway_itself(home: &Home) {
    let names = Names::default();
    names.set("self.example", &["127.0.0.1"]);
    let gateway = start(home, &names, |settings| {
        settings.dev = true;
        allow(settings, &["127.0.0.0/8"]);
    });
    let (address, port) = (gateway.address(), port_of(&gateway.address()));
    for host in [address, format!("127.1:{port}"), format!("self.example:{port}")] {
        let answer = put(&gateway, "own", &http(&format!("http://{host}/v1/queues/own/messages")));
        let problem = answer.json();
        let detail = problem["detail"].as_str().expect("a detail");
        assert_eq!((answer.status, &problem["code"]), (422, &json!("destination_refused")));
        assert!(detail.contains("is where this gateway itself listens. Nothing allows it"), "{detail}");
    }
    // What gets past that comes back with the name of the store that sent it.
    let sink = Sink::start(|_| Answer::status(200));
    assert_eq!(put(&gateway, "out", &http(&sink.url("/"))).status, 201);
    wait_for_state(&gateway, &publish(&gateway, "out", &[]), "delivered");
    let via = sink.only().header("posthaste-via").expect("a name").to_owned();
    let answer = gateway.request("POST", "/v1/queues/out/messages", &[JSON, ("Posthaste-Via", &via)], b"x");
    assert_eq!((answer.status, answer.header("posthaste-stored")), (508, Some("no")), "{}", answer.text());
    gateway.stop();
}
