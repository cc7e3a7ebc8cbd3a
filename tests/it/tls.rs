//! Pushing over https: whom the gateway trusts, by the real binary and the certificates that its environment names.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::support::gateway::Gateway;
use crate::support::sink::{Answer, Sink};
use crate::support::tls::{Authority, Pauses, SecureSink};

const WITHIN: Duration = Duration::from_secs(30);
const FILE: &str = "authority.pem";

/// A gateway that trusts what is in [`FILE`] in its folder, with a queue for each name and URL.
fn gateway(queues: &[(&str, &str)]) -> Gateway {
    let mut settings = "workers.threads = 1\n".to_owned();
    for (name, url) in queues {
        let queue = format!("[queues.{name}]\nprocessor = \"http\"\ndestination = \"{url}\"\n");
        writeln!(settings, "{queue}retry.schedule = [\"1h\"]").expect("a string grows");
    }
    let wrapper = ["env", "-u", "SSL_CERT_DIR", &format!("SSL_CERT_FILE={FILE}")].map(str::to_owned);
    Gateway::prepare(&settings, &["--dev"]).wrapped(wrapper.into(), "sqlite:posthaste.db")
}

fn attempts(message: &Value) -> Vec<(&str, u64, &str)> {
    let attempts = message["attempts"].as_array().expect("a list");
    let of = |attempt: &'_ Value| attempt["status"].as_u64().unwrap_or(0);
    attempts
        .iter()
        .map(|attempt| {
            let text = |name: &str| attempt[name].as_str().unwrap_or_default();
            (text("outcome"), of(attempt), text("error"))
        })
        .collect()
}

#[test]
fn a_receiver_whose_authority_is_trusted_gets_its_message() {
    let authority = Authority::new();
    let sink = SecureSink::start(&authority);
    let mut gateway = gateway(&[("secure", &sink.url())]);
    authority.publish(&gateway.folder().join(FILE));
    gateway.launch_until_ready();
    let path = gateway.publish("secure", &[], b"x");
    let message = gateway.wait_until_message_is("delivered", &path, WITHIN);
    assert_eq!(attempts(&message), [("delivered", 200, "")]);
    assert_eq!(sink.count(), 1);
}

#[test]
fn an_attempt_over_tls_says_where_its_time_went() {
    let ms = Duration::from_millis;
    let pauses = Pauses { handshake: ms(300), head: ms(200), body: ms(100) };
    let authority = Authority::new();
    let sink = SecureSink::pausing(authority.server(|_| {}), pauses);
    let mut gateway = gateway(&[("secure", &sink.url())]);
    authority.publish(&gateway.folder().join(FILE));
    gateway.launch_until_ready();
    let path = gateway.publish("secure", &[], b"x");
    let message = gateway.wait_until_message_is("delivered", &path, WITHIN);
    let attempt = &message["attempts"][0];
    let phase = |name: &str| attempt["phases_us"][name].as_u64().map(Duration::from_micros);
    let [Some(dns), Some(connect), Some(wait), Some(body)] = ["dns", "connect", "wait", "body"].map(phase)
    else {
        panic!("{message}")
    };
    assert!(connect >= pauses.handshake, "TLS is part of connecting: {message}");
    // The gateway may notice a moment later than it happens that the receiver begins to wait.
    assert!(wait >= pauses.head / 2 && body >= pauses.body / 2, "{message}");
    let took = ms(attempt["duration_ms"].as_u64().expect("a number") + 1);
    assert!(dns + connect + wait + body <= took, "{message}");
    assert_eq!((attempts(&message), sink.count()), (vec![("delivered", 200, "")], 1));
}

#[test]
fn a_receiver_of_another_authority_gets_nothing() {
    let sink = SecureSink::start(&Authority::new());
    let mut gateway = gateway(&[("secure", &sink.url())]);
    Authority::new().publish(&gateway.folder().join(FILE));
    gateway.launch_until_ready();
    let path = gateway.publish("secure", &[], b"x");
    let message = gateway.wait_until_message_is("scheduled", &path, WITHIN);
    let attempts = attempts(&message);
    assert!(
        matches!(attempts[..], [("retry", 0, error)] if error.starts_with("tls: ")),
        "it counts as a failed attempt: {attempts:?}"
    );
    assert_eq!(sink.count(), 0);
}

#[test]
fn certificates_that_cannot_be_read_yet_cost_no_attempt() {
    let (authority, plain) = (Authority::new(), Sink::start(|_| Answer::status(200)));
    let sink = SecureSink::start(&authority);
    let mut gateway = gateway(&[("secure", &sink.url()), ("plain", &plain.url("/"))]);
    gateway.launch_until_ready();
    let secure = gateway.publish("secure", &[], b"x");
    let deferred = |gateway: &Gateway| gateway.status()["totals"]["deferred"].as_u64();
    gateway.wait_for("it was tried twice", WITHIN, |gateway| deferred(gateway).filter(|count| *count >= 2));
    let path = gateway.publish("plain", &[], b"x");
    gateway.wait_until_message_is("delivered", &path, WITHIN);
    authority.publish(&gateway.folder().join(FILE));
    let message = gateway.wait_until_message_is("delivered", &secure, WITHIN);
    assert_eq!(attempts(&message), [("delivered", 200, "")]);
    let log = gateway.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("ertificate")).collect();
    assert_eq!(warnings.len(), 1, "it is said once: {warnings:?}");
    assert!(warnings[0].contains("WARN") && warnings[0].contains("https deliveries wait"), "{warnings:?}");
}
