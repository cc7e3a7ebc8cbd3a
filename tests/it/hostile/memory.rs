//! Memory: what all those receivers together cost the process that delivers to them.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::answers::{Fate, Mode, modes};
use crate::support::gateway::{Gateway, Home};
use crate::support::sink::{Answer, Sink};
use crate::support::stores::on_both_stores;

const WITHIN: Duration = Duration::from_mins(1);
/// Messages to a receiver that sends without end, in a round: in two rounds fewer than the twenty of which half may make a breaker
/// open. The others get one: what they close was kept for the next, which might just be on its way.
const EACH: usize = 8;
/// The same for one whose answer has no end before its head does: in two rounds fewer than the five that open a breaker.
const SILENT_EACH: usize = 2;
/// By how much the process may grow at its worst, while hundreds of MiB are sent to it: some 150 attempts are under way at once, all
/// but a handful with a few KiB; four floods of heads have up to 256 KiB each, eighty bodies 16 KiB and what was read with them.
/// That is 4 MiB, and an allocator that keeps what was freed needs as much again, twice in an unlucky run.
const PEAK_MAX_KIB: u64 = 16 << 10;
/// What the receivers send at least until nobody reads them any more: several times what may be kept.
const SENT_MIN: u64 = 64 << 20;
/// By how much it may grow from one round to the next, for what is known of messages that ended and for where the allocator puts
/// things: less than 40 KiB for each message of a round, so that no attempt leaves its buffers behind.
const GROWTH_MAX_KIB: u64 = 6 << 10;

on_both_stores! { receivers_that_send_without_end_cost_the_process_no_more_than_their_buffers }

/// A line of what the system says of the process, in KiB.
fn memory_kib(gateway: &Gateway, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the system says it");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

/// What became of a message is what its receiver's answer means, in the time that has.
fn check(mode: &Mode, message: &Value) {
    let shown = mode.shown();
    let (state, status, word) = match mode.fate {
        Fate::Done(status, word) => ("delivered", json!(status), word),
        Fate::Retry(status, word) => ("dead", json!(status), word),
    };
    let attempt = &message["attempts"][0];
    let error = attempt["error"].as_str().unwrap_or_default();
    let seen = (&message["state"], &message["attempt_count"], &attempt["status"]);
    assert_eq!(seen, (&json!(state), &json!(1), &status), "{shown}: {message}");
    // Of one that was delivered nothing more is said.
    let word = if state == "dead" { word } else { "" };
    assert_eq!(error.split(':').next(), Some(word), "{shown}: {message}");
    let took = Duration::from_millis(attempt["duration_ms"].as_u64().expect("a number"));
    assert!(took <= mode.within, "{shown}: {took:?}");
}

/// Publishes so many messages for each of these destinations in one request; gives their paths.
fn publish_all(gateway: &Gateway, destinations: &[(String, Duration, usize)]) -> Vec<String> {
    let item = |(destination, timeout, _): &(String, Duration, usize)| json!({"payload": "payload", "destination": destination, "timeout": format!("{}ms", timeout.as_millis())});
    let items: Vec<Value> =
        destinations.iter().flat_map(|row| std::iter::repeat_n(item(row), row.2)).collect();
    let (path, json) = ("/v1/queues/orders/messages/batch", [("content-type", "application/json")]);
    let answer = gateway.request("POST", path, &json, Value::from(items).to_string().as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let answer = answer.json();
    let ids = answer["ids"].as_array().expect("a list").iter().filter_map(Value::as_str);
    ids.map(|id| format!("/v1/queues/orders/messages/{id}")).collect()
}

fn receivers_that_send_without_end_cost_the_process_no_more_than_their_buffers(home: &Home) {
    let modes = modes();
    assert!(modes.len() >= 40, "{} modes", modes.len());
    let sinks: Vec<_> = modes
        .iter()
        .map(|mode| {
            let answer = mode.answer.clone();
            Sink::start(move |_| answer.clone())
        })
        .collect();
    let each = |mode: &Mode| match mode.fate {
        _ if !mode.is_cut() => 1,
        Fate::Retry(None, _) => SILENT_EACH,
        _ => EACH,
    };
    let destinations: Vec<_> =
        modes.iter().zip(&sinks).map(|(mode, sink)| (sink.url("/"), mode.timeout, each(mode))).collect();
    let mut gateway = home.start(
        "[queues.orders]\nprocessor = 'http'\ndestination_override = 'any'\nretry.schedule = []\n",
        &["--dev"],
    );
    // What a process that delivers has anyway.
    let good = Sink::start(|_| Answer::status(200));
    let sent = destinations.iter().map(|row| row.2).sum();
    publish_all(&gateway, &[(good.url("/"), WITHIN, sent)]);
    gateway.wait_until_drained(WITHIN);
    let before = memory_kib(&gateway, "VmRSS");
    let mut round = || {
        let paths = publish_all(&gateway, &destinations);
        gateway.wait_until_drained(WITHIN);
        let of_each = modes.iter().flat_map(|mode| std::iter::repeat_n(mode, each(mode)));
        for (mode, path) in of_each.zip(&paths) {
            check(mode, &gateway.request("GET", path, &[], b"").json());
        }
        memory_kib(&gateway, "VmRSS")
    };
    let (first, second) = (round(), round());
    let peak = memory_kib(&gateway, "VmHWM");
    let sent_bytes: u64 = sinks.iter().map(Sink::sent_bytes).sum();
    assert!(sent_bytes > SENT_MIN, "{sent_bytes} bytes were sent: it shows nothing");
    assert!(peak <= before + PEAK_MAX_KIB, "{before} KiB before, {peak} KiB at most");
    assert!(second <= first + GROWTH_MAX_KIB, "{first} KiB after one round, {second} KiB after two");
    gateway.stop();
}
