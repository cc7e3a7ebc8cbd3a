//! From when a message is due until its receiver has it, alone and beside a destination that is slow.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use super::{Bench, refused, share, used};
use crate::cli::Failure;
use crate::cli::bench::latencies::Latencies;
use crate::cli::bench::receiver::Receivers;
use crate::cli::bench::report::{Findings, decimal};
use crate::domain::queue::QueueName;

/// With one destination.
pub(super) async fn to_one(bench: &Bench<'_>) -> Result<Findings, Failure> {
    let receivers = Receivers::start(bench.plan.sink, &[Duration::ZERO], bench.epoch)?;
    let mut findings = deliver(bench, &receivers, 0).await?;
    let (latencies, again) = receivers.seen[0].latencies();
    findings.latency = Some(("from due until received", latencies));
    Ok(findings.with("received_again", decimal(again)))
}

/// With several, of which the first is slow: each has a queue and an origin of its own, and they are posted to in turn.
pub(super) async fn beside_a_slow_one(bench: &Bench<'_>) -> Result<Findings, Failure> {
    let mut delays = vec![Duration::ZERO; bench.plan.destinations.into()];
    delays[0] = bench.plan.delay;
    let receivers = Receivers::start(bench.plan.sink, &delays, bench.epoch)?;
    let mut findings = deliver(bench, &receivers, 1).await?;
    let mut healthy = Latencies::new();
    for seen in &receivers.seen[1..] {
        healthy.add_all(&seen.latencies().0);
    }
    findings.latency = Some(("from due until received, of those that are not slow", healthy));
    let taken = receivers.seen[0].taken.load(Ordering::Relaxed);
    findings.others.push(("at_the_slow_one", receivers.seen[0].latencies().0));
    Ok(findings.with("slow_answered", decimal(taken)))
}

/// Posts by the schedule and waits until all is processed, in the first so many queues whether or not it is. The rate is that of
/// what was accepted.
async fn deliver(
    bench: &Bench<'_>,
    receivers: &Receivers,
    not_waited_for: usize,
) -> Result<Findings, Failure> {
    let mut queues: Vec<QueueName> = Vec::new();
    for index in 0..receivers.addresses.len() {
        let settings = json!({ "processor": "http", "destination": receivers.url(index) });
        queues.push(bench.target.queue(&format!("to-{index}"), settings).await?);
    }
    // Without stamps: what comes of the warm-up is in no latency.
    let plain: Vec<_> = queues.iter().map(|queue| bench.single(queue, false)).collect();
    bench.warm_up(&plain).await?;
    let stamped: Vec<_> = queues.iter().map(|queue| bench.single(queue, true)).collect();
    let (before, idle) = (bench.target.sample().await, used(receivers));
    let outcome = bench.send("posting", &stamped, bench.plan.lasting).await?;
    let share = share(receivers, idle, outcome.took);
    bench.until_processed(&queues[not_waited_for..]).await?;
    let after = bench.target.sample().await;
    if outcome.accepted() == 0 {
        return Err(refused("nothing was accepted", &outcome));
    }
    let mut findings = Findings::of(outcome.accepted(), outcome.took, before, after);
    findings.others.push(("until_202", outcome.latency.clone()));
    findings.receivers = share;
    findings.outcome = Some(outcome);
    Ok(findings)
}
