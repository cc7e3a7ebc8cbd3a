//! The store in Redis, called directly: what a message costs the server in CPU and memory, with nothing else there and with a
//! million behind.

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
use posthaste::store::settings::{RequiredDurability, StoreSettings};
use posthaste::store::{MessageStore, Put, QueueRef, Store, open};

use crate::Arguments;
use crate::gateway::cpu_of;
use crate::redis_server::RedisServer;
use crate::report::Report;

const PAYLOAD: [u8; 200] = [b'x'; 200];
/// Messages of a call, as gateways under load make them.
const BATCH: u16 = 128;
/// Batches that are timed in a row.
const BATCHES: u64 = 100;
/// Such rows on either side.
const ROUNDS: u32 = 10;
/// Messages whose memory is measured.
const MEASURED: u64 = 100_000;
/// Reads of the counters that are timed.
const STATS: usize = 2_000;

/// Measures it: two servers side by side, a row of one after a row of the other, so that both meet the same machine.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for (name, lookup) in [("plain", false), ("lookup", true)] {
            measure(name, lookup, arguments.messages, report).await;
        }
    });
}

async fn measure(name: &str, lookup: bool, messages: u64, report: &mut Report) {
    let (empty, full) = (Bench::open(lookup).await, Bench::open(lookup).await);
    // The scripts are loaded, and the queue has its keys.
    full.publish(u64::from(BATCH), &mut Costs::default()).await;
    let before = full.memory();
    full.publish(MEASURED, &mut Costs::default()).await;
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let bytes = (full.memory() - before - PAYLOAD.len() as u64 * MEASURED) as f64 / MEASURED as f64;
    report.add(&format!("{name}_memory_bytes_per_message"), bytes);
    full.publish(messages.saturating_sub(MEASURED + u64::from(BATCH)), &mut Costs::default()).await;
    let mut costs = [Costs::default(), Costs::default()];
    for _ in 0..ROUNDS {
        for (bench, costs) in [&empty, &full].into_iter().zip(&mut costs) {
            bench.publish(u64::from(BATCH) * BATCHES, costs).await;
            bench.drain(costs).await;
        }
    }
    for (side, costs) in ["empty", "full"].into_iter().zip(costs) {
        costs.report(&format!("{name}_{side}"), report);
    }
    for figure in ["take_cpu_us", "take_wall_us", "stats_p99_ms"] {
        let [empty, full] = ["empty", "full"].map(|side| report.figure(&format!("{name}_{side}_{figure}")));
        report.add(&format!("{name}_{figure}_full_over_empty"), full / empty);
    }
}

/// What some messages cost the server, and how long calls took.
#[derive(Default)]
struct Costs {
    published: u64,
    publish_cpu: Duration,
    taken: u64,
    take_cpu: Duration,
    take_wall: Duration,
    stats: Vec<Duration>,
}

impl Costs {
    fn report(self, name: &str, report: &mut Report) {
        #[expect(clippy::cast_precision_loss, reason = "a million")]
        let each = |cost: Duration, count: u64| cost.as_secs_f64() * 1e6 / count as f64;
        report.add(&format!("{name}_publish_cpu_us"), each(self.publish_cpu, self.published));
        report.add(&format!("{name}_take_cpu_us"), each(self.take_cpu, self.taken));
        report.add(&format!("{name}_take_wall_us"), each(self.take_wall, self.taken));
        report.add_distribution(&format!("{name}_stats"), self.stats);
    }
}

struct Bench {
    server: RedisServer,
    store: Rc<dyn MessageStore>,
    _whole: Arc<dyn Store>,
    queue: QueueRef,
    clock: Clock,
}

impl Bench {
    async fn open(lookup: bool) -> Self {
        let server = RedisServer::start(&[]);
        let clock = Clock::system();
        let durability = RequiredDurability::Relaxed;
        let settings = StoreSettings { url: server.url(), durability, ..StoreSettings::default() };
        let whole = open(&settings, &clock).expect("a store");
        let store = whole.connect();
        let mut settings = QueueSettings { processor: "log".to_owned(), lookup, ..QueueSettings::default() };
        settings.limits.length_max = 100_000_000;
        settings.limits.bytes_max = 1 << 40;
        let put = store.put_queue("bench".parse().expect("a name"), Arc::new(settings)).await;
        let (Put::Created(entry) | Put::Updated(entry)) = put.expect("a queue") else {
            panic!("nobody declared it")
        };
        Self { server, store, _whole: whole, queue: entry.queue_ref(), clock }
    }

    /// A number that the server tells of itself.
    fn info(&self, section: &str, name: &str) -> u64 {
        let info = self.server.ask(&["INFO", section]);
        let of_name =
            |line: &str| line.split_once(':').filter(|(own, _)| *own == name)?.1.trim().parse().ok();
        info.lines().find_map(of_name).expect("it says so")
    }

    /// What the server uses, bytes.
    fn memory(&self) -> u64 {
        self.info("memory", "used_memory")
    }

    fn cpu(&self) -> Duration {
        cpu_of(self.info("server", "process_id").try_into().expect("a process"))
    }

    async fn publish(&self, messages: u64, costs: &mut Costs) {
        let before = self.cpu();
        let mut left = messages;
        while left > 0 {
            let count = left.min(u64::from(BATCH));
            left -= count;
            let groups: Vec<Group> = (0..count).map(|_| self.group()).collect();
            let results = self.store.enqueue(CallId::random(), Arc::new(groups)).await.expect("an answer");
            assert!(results.iter().all(|result| *result == GroupResult::Accepted), "{results:?}");
        }
        costs.published += messages;
        costs.publish_cpu += self.cpu().saturating_sub(before);
    }

    fn group(&self) -> Group {
        let now = self.clock.now();
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        let id = MessageId::new(now, random, Shard::default());
        let head = Head { id, attempts_max: 12, priority: Priority::Normal, accepted_at: now, ttl: None };
        let record = encode(&head, &[], &PAYLOAD);
        let message = NewMessage { id, priority: Priority::Normal, due: Due::Now, record };
        Group { queue: self.queue.clone(), key: None, messages: Arc::new([message]) }
    }

    /// Leases and settles some batches, and reads the counters.
    async fn drain(&self, costs: &mut Costs) {
        let (before, began) = (self.cpu(), Instant::now());
        for _ in 0..BATCHES {
            self.drain_one().await;
        }
        costs.taken += BATCHES * u64::from(BATCH);
        costs.take_cpu += self.cpu().saturating_sub(before);
        costs.take_wall += began.elapsed();
        for _ in 0..STATS / ROUNDS as usize {
            let began = Instant::now();
            self.store.stats(Some(vec![self.queue.name.clone()])).await.expect("an answer");
            costs.stats.push(began.elapsed());
        }
    }

    /// Leases one batch and settles all of it.
    async fn drain_one(&self) {
        let request = LeaseRequest {
            queue: self.queue.clone(),
            batch: BatchId::random(),
            kind: LeaseKind::Worker,
            max: BATCH,
            bytes_max: 4 << 20,
            lease: Duration::from_secs(30),
            suspects: true,
        };
        let leased = self.store.lease(request).await.expect("a lease");
        assert_eq!(leased.leases.len(), usize::from(BATCH));
        let settlements = leased.leases.into_iter().map(|lease| lease.settle(Verdict::Ack, None)).collect();
        let settled = self.store.settle(leased.batch, Arc::new(settlements)).await.expect("an answer");
        assert!(settled.iter().all(|settled| *settled == Settled::Settled));
    }
}
