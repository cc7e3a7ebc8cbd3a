//! Taking a backlog out of its queue, as fast as the workers go.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Bench, share, used};
use crate::cli::Failure;
use crate::cli::bench::receiver::Receivers;
use crate::cli::bench::report::Findings;
use crate::domain::queue::QueueName;

/// With `log`, the processor that costs least of those that every gateway has: ten lines a second at most, the rest is counted.
pub(super) async fn to_the_log(bench: &Bench<'_>) -> Result<Findings, Failure> {
    let queue = backlog(bench, "drain", json!({ "processor": "log" })).await?;
    let before = bench.target.sample().await;
    bench.target.client.resume(&queue).await?;
    let delivered = async || bench.target.delivered(&queue).await;
    let took = bench.until("draining", bench.plan.messages, delivered).await?;
    let after = bench.target.sample().await;
    Ok(Findings::of(bench.plan.messages, took, before, after))
}

/// To a receiver that answers at once.
pub(super) async fn to_a_receiver(bench: &Bench<'_>) -> Result<Findings, Failure> {
    let receivers = Receivers::start(bench.plan.sink, &[Duration::ZERO], bench.epoch)?;
    let settings = json!({ "processor": "http", "destination": receivers.url(0) });
    let queue = backlog(bench, "deliver", settings).await?;
    let (before, idle) = (bench.target.sample().await, used(&receivers));
    bench.target.client.resume(&queue).await?;
    let taken = async || Ok(receivers.seen[0].taken.load(Ordering::Relaxed));
    let took = bench.until("delivering", bench.plan.messages, taken).await?;
    let share = share(&receivers, idle, took);
    // What settling the last ones costs is a part of what they cost.
    bench.until_processed(&[queue]).await?;
    let after = bench.target.sample().await;
    let mut findings = Findings::of(bench.plan.messages, took, before, after);
    findings.receivers = share;
    Ok(findings)
}

/// A queue that rests, full.
pub(super) async fn backlog(bench: &Bench<'_>, word: &str, settings: Value) -> Result<QueueName, Failure> {
    let queue = bench.target.queue(word, settings).await?;
    bench.target.client.pause(&queue).await?;
    bench.fill(&queue, bench.plan.messages).await?;
    Ok(queue)
}
