//! What a long backlog costs: publishing it, publishing beside it, and leasing from it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Bench, refused};
use crate::api::lease::{Ending, LeaseOrder};
use crate::cli::Failure;
use crate::cli::bench::report::{Findings, decimal};
use crate::domain::queue::QueueName;

/// Messages that are leased and settled.
const LEASED: u64 = 10_000;
/// Of these at once.
const LEASE_MAX: u16 = 100;

/// Measures it.
pub(super) async fn run(bench: &Bench<'_>) -> Result<Findings, Failure> {
    let messages = bench.plan.messages;
    let queue = bench.target.queue("backlog", json!({ "processor": "pull" })).await?;
    let empty = bench.target.sample().await;
    let filled = bench.fill(&queue, messages).await?;
    let full = bench.target.sample().await;
    let requests = [bench.single(&queue, false)];
    let outcome = bench.send("publishing beside it", &requests, bench.plan.lasting).await?;
    let after = bench.target.sample().await;
    if outcome.accepted() == 0 {
        return Err(refused("nothing was accepted", &outcome));
    }
    let leased_before = bench.target.sample().await;
    let (leased, took) = lease(bench, &queue, LEASED.min(messages)).await?;
    let leased_after = bench.target.sample().await;
    let mut findings = Findings::of(outcome.accepted(), outcome.took, full, after)
        .with("publish_batches_messages_per_s", decimal(messages) / filled.as_secs_f64())
        .with("lease_and_settle_messages_per_s", decimal(leased) / took.as_secs_f64());
    let grown = full.gateway.memory_bytes.zip(empty.gateway.memory_bytes);
    if let Some((full, empty)) = grown {
        let grown = decimal(full.saturating_sub(empty));
        findings = findings.with("gateway_memory_bytes_per_pending", grown / decimal(messages));
    }
    let grown = full.store.memory_bytes.zip(empty.store.memory_bytes);
    if let Some((full, empty)) = grown {
        let grown = decimal(full.saturating_sub(empty));
        findings = findings.with("store_memory_bytes_per_pending", grown / decimal(messages));
    }
    let used = leased_after.gateway.cpu.zip(leased_before.gateway.cpu);
    if let Some((after, before)) = used {
        let us = after.saturating_sub(before).as_secs_f64() * 1e6;
        findings = findings.with("lease_and_settle_gateway_cpu_us", us / decimal(leased));
    }
    findings.latency = Some(("from sending until 202", outcome.latency.clone()));
    findings.outcome = Some(outcome);
    Ok(findings)
}

/// Leases and settles so many, a hundred at a time, one call after the other.
async fn lease(bench: &Bench<'_>, queue: &QueueName, messages: u64) -> Result<(u64, Duration), Failure> {
    bench.stage("leasing from it", messages);
    let order = LeaseOrder { max: LEASE_MAX, ..LeaseOrder::default() };
    let (mut leased, began) = (0, Instant::now());
    while leased < messages {
        let leases = bench.target.client.lease(queue, &order).await?.value;
        if leases.items.is_empty() {
            return Err(Failure::failed(format!(
                "of {messages} messages that wait only {leased} are leased"
            )));
        }
        let endings: Vec<_> = leases.items.into_iter().map(|lease| (lease.receipt, Ending::Ack)).collect();
        leased += endings.len() as u64;
        bench.target.client.settle(queue, &endings).await?;
        bench.bar.set_position(leased);
    }
    Ok((leased, began.elapsed()))
}
