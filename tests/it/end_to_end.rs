//! A message's whole way through the real binary, under load.

use std::time::Duration;

use crate::support::gateway::Gateway;
use crate::support::invariants::{assert_laws, count};
use crate::support::ledger::{is_refused_at_first, reconcile};
use crate::support::load::{Load, PAYLOAD_BYTES_MAX};
use crate::support::sink::{Answer, Keep, Sink};
use crate::support::wait_until;

const MESSAGES: u64 = 10_000;
const SAMPLES: u64 = 100;
/// How long the next sign of progress may take on a busy machine.
const PROGRESS_WITHIN: Duration = Duration::from_mins(1);

#[test]
fn ten_thousand_messages_arrive_byte_for_byte_and_the_laws_hold_throughout() {
    let sink = Sink::keeping(Keep::Digests, |received| {
        Answer::status(if is_refused_at_first(received) { 503 } else { 200 })
    });
    let settings = format!(
        "[queues.orders]\nprocessor = 'http'\ndestination = '{}'\n\
         retry.schedule = ['200ms', '400ms', '800ms', '1s', '2s']\n",
        sink.url("/orders")
    );
    let mut gateway = Gateway::start(&settings, &["--dev"]);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let load =
        Load { queue: "orders", messages: MESSAGES, clients: 16, payload_bytes_max: PAYLOAD_BYTES_MAX, seed };
    let publishing = load.start(&gateway.whereabouts());
    // Each message is accepted once and comes to the sink at least once: that is how far the run is.
    let done = || publishing.progress().accepted() + sink.count() as u64;
    let mut unfinished = 0;
    for sample in 0..SAMPLES {
        let place = sample * 2 * MESSAGES / SAMPLES;
        wait_until(&format!("{place} steps are done"), PROGRESS_WITHIN, || (done() >= place).then_some(()));
        let status = gateway.status();
        assert_laws(&status);
        unfinished += u64::from(count(&status, "delivered") < MESSAGES);
    }
    assert!(unfinished >= SAMPLES * 9 / 10, "{unfinished} samples were taken during the run");
    let progress = publishing.progress().clone();
    let sent = publishing.join();
    let status = gateway.wait_until_drained(PROGRESS_WITHIN);
    let reconciled = reconcile(&sent, &sink.received(), is_refused_at_first);
    println!("{reconciled:?}");
    assert_eq!((progress.accepted(), progress.refused(), progress.unknown()), (MESSAGES, 0, 0));
    assert_eq!((reconciled.messages, reconciled.duplicates), (MESSAGES, 0));
    assert!(reconciled.refusals > 0, "the sink refused some");
    assert_eq!(["accepted", "delivered", "dead"].map(|key| count(&status, key)), [MESSAGES, MESSAGES, 0]);
    assert_eq!(count(&status, "retried"), reconciled.refusals);
    gateway.stop();
}
