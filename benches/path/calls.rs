//! The calls of the embedded store, one after the other: messages a second and CPU a message, with and without the index of
//! ids, by the size of a call and by how many callers there are at once.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use posthaste::domain::retry::Verdict;
use posthaste::store::enqueue::{CallId, GroupResult};
use posthaste::store::lease::LeaseKind;

use crate::Arguments;
use crate::gateway::cpu_of;
use crate::report::Report;
use crate::store::Bench;

/// What is measured: callers at once, calls of each, messages of a call.
const SIZES: [(usize, u32, u16); 3] = [(1, 2_000, 64), (4, 1_000, 64), (1, 2_000, 1)];
/// Leases that are timed alone.
const LEASES: u32 = 1_000;

/// Measures it.
pub(crate) fn run(_: &Arguments, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for (lookup, word) in [(false, "lookup_off"), (true, "lookup_on")] {
            let folder = tempfile::tempdir().expect("a folder");
            let bench = Bench::open_as(folder.path(), |settings| settings.lookup = lookup).await;
            measure(&bench, word, report).await;
            bench.close().await;
        }
    });
}

async fn measure(bench: &Bench, word: &str, report: &mut Report) {
    for (callers, calls, size) in SIZES {
        let messages = f64::from(calls) * f64::from(size) * f64::from(u32::try_from(callers).expect("few"));
        let name = format!("{word}_{callers}_callers_of_{size}");
        let watch = Watch::start();
        join_all((0..callers).map(|_| enqueue(bench, calls, size))).await;
        watch.add(report, &format!("enqueue_{name}"), messages);
        let watch = Watch::start();
        let batch = if size == 1 { 1 } else { 128 };
        join_all((0..callers).map(|_| drain(bench, batch))).await;
        watch.add(report, &format!("lease_and_settle_{name}"), messages);
    }
    // What a lease costs that needs no flush of its own, beside one that does.
    for (kind, name) in [(LeaseKind::Worker, "worker"), (LeaseKind::Pull, "consumer")] {
        enqueue(bench, LEASES / 100, 100).await;
        let watch = Watch::start();
        for _ in 0..LEASES {
            bench.store.lease(bench.request(kind, 1)).await.expect("a lease");
        }
        watch.add(report, &format!("lease_alone_{word}_{name}"), f64::from(LEASES));
    }
}

async fn enqueue(bench: &Bench, calls: u32, size: u16) {
    for _ in 0..calls {
        let groups = (0..size).map(|_| bench.group()).collect();
        let results = bench.store.enqueue(CallId::random(), Arc::new(groups)).await.expect("an answer");
        assert!(results.iter().all(|result| *result == GroupResult::Accepted), "{results:?}");
    }
}

/// Leases and settles until nothing is left; each settlement goes out together with the next lease.
async fn drain(bench: &Bench, max: u16) {
    let mut ended = None;
    loop {
        let settle = async {
            if let Some((batch, settlements)) = ended.take() {
                bench.store.settle(batch, Arc::new(settlements)).await.expect("an answer");
            }
        };
        let (leased, ()) = tokio::join!(bench.store.lease(bench.request(LeaseKind::Worker, max)), settle);
        let leased = leased.expect("a lease");
        if leased.leases.is_empty() {
            return;
        }
        let settlements: Vec<_> =
            leased.leases.into_iter().map(|lease| lease.settle(Verdict::Ack, None)).collect();
        ended = Some((leased.batch, settlements));
    }
}

/// Time and CPU since it was started.
struct Watch {
    began: Instant,
    cpu: std::time::Duration,
}

impl Watch {
    fn start() -> Self {
        Self { cpu: cpu_of(std::process::id()), began: Instant::now() }
    }

    fn add(&self, report: &mut Report, name: &str, messages: f64) {
        let (wall, cpu) = (self.began.elapsed(), cpu_of(std::process::id()).saturating_sub(self.cpu));
        report.add(&format!("{name}_messages_per_s"), messages / wall.as_secs_f64());
        report.add(&format!("{name}_cpu_us_per_message"), cpu.as_secs_f64() * 1e6 / messages);
    }
}
