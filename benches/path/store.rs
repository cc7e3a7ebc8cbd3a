//! Lease and settle on the embedded store, called directly: the same batches with nothing else there and with a million behind.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use posthaste::clock::Clock;
use posthaste::domain::id::{MessageId, Shard};
use posthaste::domain::message::Priority;
use posthaste::domain::queue::QueueSettings;
use posthaste::domain::record::{Head, encode};
use posthaste::domain::retry::Verdict;
use posthaste::store::enqueue::{CallId, Due, Group, GroupResult, NewMessage};
use posthaste::store::lease::{BatchId, LeaseKind, LeaseRequest, Settled};
use posthaste::store::settings::StoreSettings;
use posthaste::store::{MessageStore, Put, QueueRef, open};

use crate::Arguments;
use crate::gateway::cpu_of;
use crate::report::Report;

const PAYLOAD: [u8; 200] = [b'x'; 200];
/// Messages of a lease, as the workers take them.
const BATCH: u16 = 128;
/// Batches that are timed in a row.
const BATCHES: u64 = 25;
/// Such rows on either side.
const ROUNDS: u32 = 20;
/// How long after its last call a store has nothing left to do.
const QUIET: Duration = Duration::from_millis(250);

/// Measures it: two stores side by side, a batch of one after a batch of the other, so that both meet the same machine.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(folder.path(), arguments.messages, report));
}

async fn measure(folder: &Path, messages: u64, report: &mut Report) {
    let empty = Bench::open(&folder.join("empty")).await;
    let full = Bench::open(&folder.join("full")).await;
    full.publish(messages).await;
    let times = drain_in_turn(&empty, &full).await;
    add_comparison(report, "filled", times);
    full.close().await;
    let began = Instant::now();
    let full = Bench::open(&folder.join("full")).await;
    report.add_ms("open_full", began.elapsed());
    let times = drain_in_turn(&empty, &full).await;
    add_comparison(report, "reopened", times);
    full.close().await;
    empty.close().await;
}

/// The same for both: some batches are published, and as many of the oldest are leased and settled.
async fn drain_in_turn(empty: &Bench, full: &Bench) -> [Times; 2] {
    let mut times = [Times::default(), Times::default()];
    for _ in 0..ROUNDS {
        for (bench, times) in [empty, full].into_iter().zip(&mut times) {
            bench.publish(u64::from(BATCH) * BATCHES).await;
            bench.drain(times).await;
        }
    }
    times
}

fn add_comparison(report: &mut Report, name: &str, [empty, full]: [Times; 2]) {
    let messages = f64::from(BATCH) * f64::from(u32::try_from(empty.lease.len()).expect("few"));
    let sides = [("empty", empty), ("full", full)];
    let totals = sides.map(|(side, times)| {
        let wall: Duration = times.lease.iter().chain(&times.settle).sum();
        let [wall_us, cpu_us] = [wall, times.cpu].map(|time| time.as_secs_f64() * 1e6 / messages);
        report.add(&format!("{name}_{side}_wall_us_per_message"), wall_us);
        report.add(&format!("{name}_{side}_cpu_us_per_message"), cpu_us);
        report.add_distribution(&format!("{name}_{side}_lease"), times.lease);
        report.add_distribution(&format!("{name}_{side}_settle"), times.settle);
        [wall_us, cpu_us]
    });
    report.add(&format!("{name}_wall_full_over_empty"), totals[1][0] / totals[0][0]);
    report.add(&format!("{name}_cpu_full_over_empty"), totals[1][1] / totals[0][1]);
}

#[derive(Default)]
struct Times {
    lease: Vec<Duration>,
    settle: Vec<Duration>,
    /// Of the whole process, with what the store does afterwards on the side.
    cpu: Duration,
}

/// An embedded store with one queue.
pub(crate) struct Bench {
    pub(crate) store: Rc<dyn MessageStore>,
    queue: QueueRef,
    clock: Clock,
}

impl Bench {
    async fn open(folder: &Path) -> Self {
        Self::open_as(folder, |_| {}).await
    }

    /// Opens it in a folder, its queue without limits and as `change` changes it.
    pub(crate) async fn open_as(folder: &Path, change: impl FnOnce(&mut QueueSettings)) -> Self {
        let url = format!("sqlite:{}", folder.join("posthaste.db").display());
        let clock = Clock::system();
        let store =
            open(&StoreSettings { url, ..StoreSettings::default() }, &clock).expect("a store").connect();
        let mut settings = QueueSettings { processor: "log".to_owned(), ..QueueSettings::default() };
        settings.limits.length_max = 100_000_000;
        settings.limits.bytes_max = 1 << 40;
        change(&mut settings);
        let put = store.put_queue("bench".parse().expect("a name"), Arc::new(settings)).await;
        let (Put::Created(entry) | Put::Updated(entry)) = put.expect("a queue") else {
            panic!("nobody declared it")
        };
        Self { store, queue: entry.queue_ref(), clock }
    }

    /// Closes it.
    pub(crate) async fn close(self) {
        self.store.close().await.expect("it closes");
    }

    async fn publish(&self, messages: u64) {
        let mut left = messages;
        while left > 0 {
            let count = left.min(1_000);
            left -= count;
            let groups: Vec<Group> = (0..count).map(|_| self.group()).collect();
            let results = self.store.enqueue(CallId::random(), Arc::new(groups)).await.expect("an answer");
            assert!(results.iter().all(|result| *result == GroupResult::Accepted), "{results:?}");
        }
    }

    /// A message as a gateway makes it now: ids of one moment lie close together.
    pub(crate) fn group(&self) -> Group {
        let now = self.clock.now();
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        let id = MessageId::new(now, random, Shard::default());
        let head = Head { id, attempts_max: 12, priority: Priority::Normal, accepted_at: now, ttl: None };
        let record = encode(&head, &[], &PAYLOAD);
        let message = NewMessage { id, priority: Priority::Normal, due: Due::Now, record };
        Group { queue: self.queue.clone(), key: None, messages: Arc::new([message]) }
    }

    /// Leases and settles some batches, once what the publishes left to do is done.
    async fn drain(&self, times: &mut Times) {
        tokio::time::sleep(QUIET).await;
        let before = cpu_of(std::process::id());
        for _ in 0..BATCHES {
            self.drain_one(times).await;
        }
        tokio::time::sleep(QUIET).await;
        times.cpu += cpu_of(std::process::id()).saturating_sub(before);
    }

    /// A lease of so many at most.
    pub(crate) fn request(&self, kind: LeaseKind, max: u16) -> LeaseRequest {
        LeaseRequest {
            queue: self.queue.clone(),
            batch: BatchId::random(),
            kind,
            max,
            bytes_max: 4 << 20,
            lease: Duration::from_secs(30),
            suspects: true,
        }
    }

    /// Leases one batch and settles all of it.
    async fn drain_one(&self, times: &mut Times) {
        let request = self.request(LeaseKind::Worker, BATCH);
        let began = Instant::now();
        let leased = self.store.lease(request).await.expect("a lease");
        times.lease.push(began.elapsed());
        assert_eq!(leased.leases.len(), usize::from(BATCH));
        let settlements = leased.leases.into_iter().map(|lease| lease.settle(Verdict::Ack, None)).collect();
        let began = Instant::now();
        let settled = self.store.settle(leased.batch, Arc::new(settlements)).await.expect("an answer");
        times.settle.push(began.elapsed());
        assert!(settled.iter().all(|settled| *settled == Settled::Settled));
    }
}
