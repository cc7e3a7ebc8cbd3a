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
use crate::report::Report;

const PAYLOAD: [u8; 200] = [b'x'; 200];
/// Messages of a lease, as the workers take them.
const BATCH: u16 = 128;
/// Batches that are timed on either side.
const BATCHES: u64 = 400;

/// Measures it.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(folder.path(), arguments.messages, report));
}

async fn measure(folder: &Path, messages: u64, report: &mut Report) {
    let file = folder.join("posthaste.db");
    let url = format!("sqlite:{}", file.to_str().expect("a path of text"));
    let settings = StoreSettings { url, ..StoreSettings::default() };
    let clock = Clock::system();
    let store = open(&settings, &clock).expect("a new store");
    let bench = Bench::new(store.connect(), clock.clone()).await;
    let mut empty = Times::default();
    for _ in 0..BATCHES {
        bench.publish(u64::from(BATCH)).await;
        bench.drain_one(&mut empty).await;
    }
    bench.publish(messages).await;
    let mut pending = Times::default();
    for _ in 0..BATCHES {
        bench.drain_one(&mut pending).await;
    }
    bench.store.close().await.expect("it closes");
    drop((bench, store));
    let began = Instant::now();
    let store = open(&settings, &clock).expect("the same store");
    let opened = began.elapsed();
    report.add_ms("open_pending", opened);
    let bench = Bench::new(store.connect(), clock).await;
    let mut reopened = Times::default();
    for _ in 0..BATCHES {
        bench.drain_one(&mut reopened).await;
    }
    bench.store.close().await.expect("it closes");
    let sides = [("empty", empty), ("pending", pending), ("pending_reopened", reopened)];
    let totals = sides.map(|(side, times)| {
        let (lease, settle): (Duration, Duration) = (times.lease.iter().sum(), times.settle.iter().sum());
        let messages = f64::from(BATCH) * f64::from(u32::try_from(times.lease.len()).expect("few"));
        report.add(
            &format!("lease_settle_{side}_us_per_message"),
            (lease + settle).as_secs_f64() * 1e6 / messages,
        );
        report.add_distribution(&format!("lease_{side}"), times.lease);
        report.add_distribution(&format!("settle_{side}"), times.settle);
        (lease + settle).as_secs_f64()
    });
    report.add("lease_settle_pending_over_empty", totals[1] / totals[0]);
    report.add("lease_settle_reopened_over_empty", totals[2] / totals[0]);
}

#[derive(Default)]
struct Times {
    lease: Vec<Duration>,
    settle: Vec<Duration>,
}

struct Bench {
    store: Rc<dyn MessageStore>,
    queue: QueueRef,
    clock: Clock,
}

impl Bench {
    async fn new(store: Rc<dyn MessageStore>, clock: Clock) -> Self {
        let mut settings = QueueSettings { processor: "log".to_owned(), ..QueueSettings::default() };
        settings.limits.length_max = 100_000_000;
        settings.limits.bytes_max = 1 << 40;
        let put = store.put_queue("bench".parse().expect("a name"), Arc::new(settings)).await;
        let (Put::Created(entry) | Put::Updated(entry)) = put.expect("a queue") else {
            panic!("nobody declared it")
        };
        Self { store, queue: entry.queue_ref(), clock }
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

    fn group(&self) -> Group {
        let now = self.clock.now();
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        let id = MessageId::new(now, random, Shard::default());
        let head = Head { id, attempts_max: 12, priority: Priority::Normal, accepted_at: now, ttl: None };
        let record = encode(&head, &[], &PAYLOAD);
        let message = NewMessage { id, priority: Priority::Normal, due: Due::Now, record };
        Group { queue: self.queue.clone(), key: None, messages: vec![message] }
    }

    /// Leases one batch and settles all of it.
    async fn drain_one(&self, times: &mut Times) {
        let request = LeaseRequest {
            queue: self.queue.clone(),
            batch: BatchId::random(),
            kind: LeaseKind::Worker,
            max: BATCH,
            bytes_max: 4 << 20,
            lease: Duration::from_secs(30),
            suspects: true,
        };
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
