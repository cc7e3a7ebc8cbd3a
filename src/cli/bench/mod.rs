//! `posthaste bench`: a load generator that counts from when messages were due.
//!
//! | file | noun |
//! |---|---|
//! | `plan` | what was asked for, checked |
//! | `target` | the gateway that is measured, and the queues made for it; `own` is one that is started for this |
//! | `schedule`, `pacer` | when messages are due, and telling that in time |
//! | `load`, `connection` | the connections that post |
//! | `receiver`, `stamp` | the receivers it pushes to, and how a message says when it was due |
//! | `latencies`, `meter` | durations, processor time and memory |
//! | `course`, `endurance` | whether they stay the same over a run |
//! | `numbers` | which messages came |
//! | `scenario` | one file for each thing that is measured |
//! | `report` | what was found |

mod connection;
mod course;
mod endurance;
mod latencies;
mod load;
mod meter;
mod numbers;
mod own;
mod pacer;
mod plan;
mod receiver;
mod report;
mod scenario;
mod schedule;
mod stamp;
mod target;

use std::time::Instant;

use crate::cli::output::{give_json, give_styled};
use crate::cli::signals::Signals;
use crate::cli::{Failure, progress, say, serve};

pub(in crate::cli) use plan::Arguments;
use plan::Plan;
use report::Report;
use scenario::Bench;
use target::Target;

const EXAMPLES: &str = "\
Examples:
  posthaste bench
  posthaste bench accept --rate 5000 --seconds 30
  posthaste bench latency --rate 200 --store redis://127.0.0.1:6379
  posthaste bench backlog --folder /var/lib/bench --json
  posthaste bench soak --minutes 30 --max-rss-growth 2
  posthaste bench batch --url http://127.0.0.1:8080

With a rate (open loop) a latency counts from when the message was due, also while it waits for a connection: a gateway that stands \
still for a second shows it. Without one (closed loop) a connection waits for its answer before it posts again, and a stall is seen \
by as many requests as there are connections. What is no 202 is counted by its status and is in no latency; what is not answered \
within 30s counts with that time. CPU and memory are those of the gateway's process, and of Redis, where they can be known.

It makes queues whose names begin with bench- and deletes them, also after Ctrl-C. docs/PERFORMANCE.md tells how to read what it prints.";

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let plan = Plan::new(arguments)?;
    serve::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::failed)?;
    let result = runtime.block_on(measure(&plan));
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    let report = result?;
    if plan.json {
        give_json(&serde_json::to_string(&report).map_err(Failure::failed)?)?;
    } else {
        give_styled(&report.describe())?;
    }
    report.verdict(plan.rss_growth_percent_max.is_some())
}

/// Measures until it is done or a signal comes, and removes what it made in both cases.
async fn measure(plan: &Plan) -> Result<Report, Failure> {
    let mut signals = Signals::listen().map_err(Failure::failed)?;
    let ended = |name: &str| Failure::failed(format!("ended by {name}"));
    let target = Target::prepare(plan, async { ended(signals.next().await) }).await?;
    let bench = Bench { plan, target: &target, epoch: Instant::now(), bar: progress::bar(Some(100)) };
    let findings = tokio::select! {
        findings = scenario::run(&bench) => findings,
        name = signals.next() => Err(ended(name)),
    };
    bench.bar.finish_and_clear();
    let about = target.about().clone();
    tokio::select! {
        () = target.leave() => {}
        name = signals.next() => say(&format!("{name}: what was made is left behind")),
    }
    Ok(Report::new(plan, about, findings?))
}
