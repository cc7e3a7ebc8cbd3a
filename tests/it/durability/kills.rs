//! `kill -9`, at random, under load.

use std::thread;
use std::time::Duration;

use crate::support::gateway::Home;
use crate::support::invariants::count;
use crate::support::ledger::{is_refused_at_first, reconcile};
use crate::support::load::{Load, PAYLOAD_BYTES_MAX};
use crate::support::sink::{Answer, Keep, Sink};
use crate::support::wait_until;

const MESSAGES: u64 = 10_000;
const KILLS: u64 = 10;
/// How soon after a restart the gateway is ready.
const READY_WITHIN: Duration = Duration::from_secs(3);
const PROGRESS_WITHIN: Duration = Duration::from_secs(90);

const THREADS: u64 = 2;
const CONCURRENCY: u64 = 16;
const PREFETCH: u64 = 8;
/// What may be with the sink, or not yet known to be settled, at the moment of a kill.
const IN_FLIGHT_MAX: u64 = THREADS * (CONCURRENCY + PREFETCH);

#[test]
fn ten_kills_lose_nothing() {
    ten_kills(&Home::Sqlite);
}

#[test]
fn ten_kills_lose_nothing_over_redis() {
    ten_kills(&Home::redis());
}

#[expect(
    clippy::print_stdout,
    reason = "a test that is repeated needs its seed, and who reads it the figures"
)]
fn ten_kills(home: &Home) {
    let sink = Sink::keeping(Keep::Digests, |received| {
        // A few milliseconds each, so that there is always something in flight.
        let answer = Answer::status(if is_refused_at_first(received) { 503 } else { 200 });
        Answer::After(Duration::from_millis(4), Box::new(answer))
    });
    // Twelve attempts, as by default, but soon: no message can lose all of them to ten kills and one refusal.
    let settings = format!(
        "[workers]\nthreads = {THREADS}\nconcurrency = {CONCURRENCY}\nprefetch = {PREFETCH}\n\
         [queues.orders]\nprocessor = 'http'\ndestination = '{}'\nretry.schedule = [{}]\n{}",
        sink.url("/orders"),
        ["'200ms'"; 11].join(", "),
        home.lease("3s"),
    );
    let mut gateway = home.start(&settings, &["--dev", "--log", "info"]);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let load =
        Load { queue: "orders", messages: MESSAGES, clients: 16, payload_bytes_max: PAYLOAD_BYTES_MAX, seed };
    let mut random = fastrand::Rng::with_seed(seed);
    let mut places: Vec<u64> = (0..KILLS).map(|_| random.u64(1..MESSAGES)).collect();
    places.sort_unstable();
    let publishing = load.start(&gateway.whereabouts());
    let progress = publishing.progress().clone();
    let mut longest = Duration::ZERO;
    for place in places {
        wait_until(&format!("{place} messages were sent"), PROGRESS_WITHIN, || {
            (progress.finished() >= place || publishing.is_finished()).then_some(())
        });
        thread::sleep(Duration::from_millis(random.u64(0..30)));
        gateway.kill();
        longest = longest.max(gateway.launch_until_ready_within(READY_WITHIN));
    }
    let sent = publishing.join();
    let status = gateway.wait_until_drained(PROGRESS_WITHIN);
    let reconciled = reconcile(&sent, &sink.received(), is_refused_at_first);
    println!(
        "{reconciled:?}, {} of unknown fate, {} refused, ready within {longest:?} at most",
        progress.unknown(),
        progress.refused()
    );
    assert_eq!(progress.finished(), MESSAGES);
    assert!(
        reconciled.duplicates <= KILLS * IN_FLIGHT_MAX,
        "{} duplicates, {} are allowed",
        reconciled.duplicates,
        KILLS * IN_FLIGHT_MAX
    );
    let came = reconciled.messages;
    assert_eq!(["accepted", "delivered", "dead"].map(|key| count(&status, key)), [came, came, 0]);
    gateway.stop();
}
