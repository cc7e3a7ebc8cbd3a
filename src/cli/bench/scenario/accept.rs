//! Publishing, one message a request or many, to a queue from which nobody takes.

use serde_json::json;

use super::{Bench, refused};
use crate::cli::Failure;
use crate::cli::bench::connection::Request;
use crate::cli::bench::report::Findings;

/// One message a request.
pub(super) async fn one_by_one(bench: &Bench<'_>) -> Result<Findings, Failure> {
    let queue = bench.target.queue("accept", json!({ "processor": "pull" })).await?;
    publish(bench, bench.single(&queue, false), 1).await
}

/// Batches.
pub(super) async fn in_batches(bench: &Bench<'_>) -> Result<Findings, Failure> {
    let queue = bench.target.queue("batch", json!({ "processor": "pull" })).await?;
    let size = bench.plan.batch_size.into();
    publish(bench, bench.batch(&queue, size), size).await
}

async fn publish(bench: &Bench<'_>, request: Request, size: u64) -> Result<Findings, Failure> {
    let requests = [request];
    bench.warm_up(&requests).await?;
    let before = bench.target.sample().await;
    let outcome = bench.send("publishing", &requests, bench.plan.lasting).await?;
    let after = bench.target.sample().await;
    if outcome.accepted() == 0 {
        return Err(refused("nothing was accepted", &outcome));
    }
    let of = if bench.plan.rate_per_s.is_some() { "from due until 202" } else { "from sending until 202" };
    let mut findings = Findings::of(outcome.accepted() * size, outcome.took, before, after);
    findings.latency = Some((of, outcome.latency.clone()));
    findings.outcome = Some(outcome);
    Ok(findings)
}
