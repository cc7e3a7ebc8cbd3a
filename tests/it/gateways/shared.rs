//! Two gateways on one Redis.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use posthaste::{Message, Outcome};

use crate::support::embedded::Embedded;
use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::count;
use crate::support::ledger::{is_refused_at_first, reconcile};
use crate::support::load::Load;
use crate::support::redis::RedisServer;
use crate::support::sink::{Answer, Keep, Sink};
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_mins(1);
const MESSAGES: u64 = 4_000;
const GRACE: Duration = Duration::from_secs(10);
const THREADS: u64 = 1;
const CONCURRENCY: u64 = 16;
const PREFETCH: u64 = 8;
const IN_FLIGHT_MAX: u64 = THREADS * (CONCURRENCY + PREFETCH);

/// Who processed which message.
type Tally = Arc<Mutex<HashMap<String, Vec<&'static str>>>>;

fn gateway(name: &'static str, redis: &RedisServer, tally: &Tally) -> Embedded {
    let (url, tally) = (redis.url(), tally.clone());
    let note = move |message: Message| {
        tally
            .lock()
            .expect("no panic while it is held")
            .entry(message.id.to_string())
            .or_default()
            .push(name);
        async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Outcome::Done
        }
    };
    let declare = move |settings: &mut posthaste::Settings| {
        settings.store.url = url;
        settings.workers.threads = 1;
        settings.declare("shared", "note").expect("a name");
    };
    Embedded::start(declare, |app| app.processor("note", note))
}

#[test]
fn two_gateways_share_the_work() {
    let redis = RedisServer::start_durable();
    let tally = Tally::default();
    let (first, second) = (gateway("first", &redis, &tally), gateway("second", &redis, &tally));
    // All of it comes in by one of them.
    let load = Load { queue: "shared", messages: MESSAGES, clients: 16, payload_bytes_max: 256, seed: 1 };
    let whereabouts = crate::support::gateway::Whereabouts::of(&first.address());
    load.start(&Arc::new(whereabouts)).join();
    let status = first.wait_until_drained(WITHIN);
    assert_eq!(["accepted", "delivered"].map(|key| count(&status, key)), [MESSAGES, MESSAGES], "{status}");
    let tally = tally.lock().expect("no panic while it was held");
    assert!(tally.values().all(|by| by.len() == 1), "each is processed once");
    let by_second = tally.values().filter(|by| by[0] == "second").count() as u64;
    println!("{by_second} of {MESSAGES} by the second");
    let fair = MESSAGES * 3 / 10..=MESSAGES * 7 / 10;
    assert!(fair.contains(&by_second), "{by_second} of {MESSAGES} were processed by the second gateway");
    first.stop();
    second.stop();
}

/// Two gateways, a load by the first, and what is done to them meanwhile.
#[expect(
    clippy::print_stdout,
    reason = "a test that is repeated needs its seed, and who reads it the figures"
)]
fn two_under_load(lease: &str, disturb: impl Fn(&mut Gateway)) -> (u64, serde_json::Value) {
    let home = Home::redis();
    let sink = Sink::keeping(Keep::Digests, |received| {
        let answer = Answer::status(if is_refused_at_first(received) { 503 } else { 200 });
        Answer::After(Duration::from_millis(4), Box::new(answer))
    });
    let settings = format!(
        "[workers]\nthreads = {THREADS}\nconcurrency = {CONCURRENCY}\nprefetch = {PREFETCH}\n\
         [queues.orders]\nprocessor = 'http'\ndestination = '{}'\nretry.schedule = [{}]\n{}",
        sink.url("/orders"),
        ["'200ms'"; 11].join(", "),
        home.lease(lease),
    );
    let mut gateways = [(); 2].map(|()| home.start(&settings, &["--dev", "--log", "info"]));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let load = Load { queue: "orders", messages: MESSAGES, clients: 16, payload_bytes_max: 16 << 10, seed };
    let publishing = load.start(&gateways[0].whereabouts());
    let progress = publishing.progress().clone();
    for step in 1..=4 {
        let place = step * MESSAGES / 5;
        wait_until(&format!("{place} messages were sent"), WITHIN, || {
            (progress.finished() >= place).then_some(())
        });
        disturb(&mut gateways[usize::from(step % 2 == 1)]);
    }
    let sent = publishing.join();
    let status = gateways[1].wait_until_drained(WITHIN);
    let reconciled = reconcile(&sent, &sink.received(), is_refused_at_first);
    println!("{reconciled:?}, {} of unknown fate, {} refused", progress.unknown(), progress.refused());
    assert_eq!(progress.finished(), MESSAGES);
    let came = reconciled.messages;
    assert_eq!(["accepted", "delivered", "dead"].map(|key| count(&status, key)), [came, came, 0], "{status}");
    gateways.iter_mut().for_each(Gateway::stop);
    (reconciled.duplicates, status)
}

#[test]
fn a_rolling_restart_of_both_loses_and_doubles_nothing() {
    let (duplicates, status) = two_under_load("30s", |gateway| {
        gateway.signal(Signal::SIGTERM);
        let ended = gateway.wait_for_exit(GRACE);
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        gateway.launch_until_ready();
    });
    assert_eq!((duplicates, count(&status, "recovered")), (0, 0), "{status}");
}

#[test]
fn either_of_two_can_be_killed() {
    let (duplicates, _) = two_under_load("3s", |gateway| {
        gateway.kill();
        gateway.launch_until_ready();
    });
    assert!(duplicates <= 4 * IN_FLIGHT_MAX, "{duplicates} duplicates, {} are allowed", 4 * IN_FLIGHT_MAX);
}
