//! The end in order, under load.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::gateway::Home;
use crate::support::invariants::count;
use crate::support::ledger::{is_refused_at_first, reconcile};
use crate::support::load::Load;
use crate::support::sink::{Answer, Keep, Received, Sink};
use crate::support::wait_until;

const MESSAGES: u64 = 3_000;
const GRACE: Duration = Duration::from_secs(5);
const PROGRESS_WITHIN: Duration = Duration::from_mins(1);

/// Every attempt takes a while, and some are slow, so that there is always something in flight.
fn answer(received: &Received) -> Answer {
    let pause = if received.order.is_multiple_of(20) { 700 } else { 10 };
    let answer = Answer::status(if is_refused_at_first(received) { 503 } else { 200 });
    Answer::After(Duration::from_millis(pause), Box::new(answer))
}

#[test]
fn sigterm_under_load_loses_and_doubles_nothing() {
    sigterm_under_load(&Home::Sqlite);
}

#[test]
fn sigterm_under_load_loses_and_doubles_nothing_over_redis() {
    sigterm_under_load(&Home::redis());
}

#[expect(
    clippy::print_stdout,
    reason = "a test that is repeated needs its seed, and who reads it the figures"
)]
fn sigterm_under_load(home: &Home) {
    let sink = Sink::keeping(Keep::Digests, answer);
    let settings = format!(
        "[server]\ngrace = '5s'\n[workers]\nthreads = 2\nconcurrency = 16\nprefetch = 16\n\
         [queues.orders]\nprocessor = 'http'\ndestination = '{}'\nretry.schedule = ['200ms', '200ms']\n",
        sink.url("/orders"),
    );
    let mut gateway = home.start(&settings, &["--dev", "--log", "info"]);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let load = Load { queue: "orders", messages: MESSAGES, clients: 16, payload_bytes_max: 16 << 10, seed };
    let publishing = load.start(&gateway.whereabouts());
    let progress = publishing.progress().clone();
    for place in [MESSAGES / 10, MESSAGES / 2, MESSAGES * 9 / 10] {
        wait_until(&format!("{place} messages were sent"), PROGRESS_WITHIN, || {
            (progress.finished() >= place).then_some(())
        });
        gateway.signal(Signal::SIGTERM);
        let status = gateway.wait_for_exit(GRACE + Duration::from_secs(1));
        assert_eq!(status.code(), Some(0), "{status:?}");
        gateway.launch_until_ready();
    }
    let sent = publishing.join();
    let status = gateway.wait_until_drained(PROGRESS_WITHIN);
    let received = sink.received();
    let reconciled = reconcile(&sent, &received, is_refused_at_first);
    println!("{reconciled:?}, {} of unknown fate, {} refused", progress.unknown(), progress.refused());
    assert_eq!(progress.finished(), MESSAGES);
    assert_eq!(reconciled.duplicates, 0, "each message is delivered once");
    assert_eq!(
        received.len() as u64,
        reconciled.messages + reconciled.refusals,
        "each is refused once at most"
    );
    let came = reconciled.messages;
    assert_eq!(["accepted", "delivered", "dead"].map(|key| count(&status, key)), [came, came, 0]);
    // What was handed back was not counted as an attempt, and no lease was lost.
    assert_eq!(count(&status, "recovered"), 0);
    assert_eq!(count(&status, "retried"), reconciled.refusals);
    gateway.stop();
}
