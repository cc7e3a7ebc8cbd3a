//! A receiver that refuses everything for a while: what it is asked meanwhile, and how soon all is delivered afterwards.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use super::{Bench, drain, share, used};
use crate::cli::Failure;
use crate::cli::bench::receiver::Receivers;
use crate::cli::bench::report::{Findings, decimal};
use crate::domain::format::duration;

/// Attempts behind the first: the most there may be.
const RETRIES: u32 = 99;
/// The shortest delay between two attempts.
const DELAY_MIN: Duration = Duration::from_secs(1);

/// Measures it.
pub(super) async fn run(bench: &Bench<'_>) -> Result<Findings, Failure> {
    let (messages, failing) = (bench.plan.messages, bench.plan.failing);
    let receivers = Receivers::start(bench.plan.sink, &[Duration::ZERO], bench.epoch)?;
    // So long that none dies before the receiver is well again.
    let whole = Duration::from_secs((failing / (RETRIES / 2)).as_secs());
    let delay = duration::show(DELAY_MIN.max(whole));
    let settings = json!({
        "processor": "http",
        "destination": receivers.url(0),
        "retry": { "schedule": vec![delay; RETRIES as usize] },
    });
    let queue = drain::backlog(bench, "storm", settings).await?;
    let seen = &receivers.seen[0];
    seen.refuses.store(true, Ordering::Relaxed);
    let (before, idle, began) = (bench.target.sample().await, used(&receivers), Instant::now());
    bench.target.client.resume(&queue).await?;
    bench.stage("answering 503", 1);
    sleep(failing).await;
    let refused = seen.requests.load(Ordering::Relaxed);
    seen.refuses.store(false, Ordering::Relaxed);
    let taken = async || Ok(seen.taken.load(Ordering::Relaxed));
    let healed = bench.until("answering 200", messages, taken).await?;
    let took = began.elapsed();
    let share = share(&receivers, idle, took);
    bench.until_processed(&[queue]).await?;
    let after = bench.target.sample().await;
    let requests = seen.requests.load(Ordering::Relaxed);
    let mut findings = Findings::of(messages, took, before, after);
    findings.receivers = share;
    Ok(findings
        .with("attempts", decimal(requests))
        .with("attempts_per_message", decimal(requests) / decimal(messages))
        .with("refused_per_s", decimal(refused) / failing.as_secs_f64())
        .with("delivered_after_healing_s", healed.as_secs_f64())
        .with("delivered_after_healing_per_s", decimal(messages) / healed.as_secs_f64().max(1e-9)))
}
