//! What only this store has: one file on a disk that can be full, damaged, locked, or cut short.

mod speed;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::id::{MessageId, Shard};
use crate::domain::message::{Headers, Priority};
use crate::domain::queue::QueueSettings;
use crate::domain::record::{self, Head};
use crate::domain::retry::Verdict;
use crate::domain::timestamp::Timestamp;
use crate::store::enqueue::{CallId, Due, Group, GroupResult, NewMessage};
use crate::store::lease::{BatchId, LeaseKind, LeaseRequest, Leased, Settlement};
use crate::store::settings::StoreSettings;
use crate::store::stats::QueueStats;
use crate::store::{MessageStore, Put, QueueRef, Store};

/// When every test with a clock of its own begins.
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A store in a folder of its own, with a clock that stands until it is moved.
struct Stand {
    folder: tempfile::TempDir,
    settings: StoreSettings,
    clock: Clock,
    store: Option<Arc<dyn Store>>,
}

impl Stand {
    fn new(clock: Clock) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let url = format!("sqlite:{}", folder.path().join("posthaste.db").display());
        let settings = StoreSettings { url, lock_wait: Duration::ZERO, ..StoreSettings::default() };
        let mut stand = Self { folder, settings, clock, store: None };
        stand.open();
        stand
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("posthaste.db")
    }

    fn open(&mut self) {
        self.store = Some(super::open(&self.settings, &self.clock).expect("the store can be opened"));
    }

    fn close(&mut self) {
        self.store = None;
    }

    fn connect(&self) -> Rc<dyn MessageStore> {
        self.store.as_ref().expect("it is open").connect()
    }
}

/// Runs something on a thread as a gateway has them.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

async fn make_queue(connection: &Rc<dyn MessageStore>, name: &str, settings: QueueSettings) -> QueueRef {
    let put = connection.put_queue(name.parse().expect("a name"), Arc::new(settings)).await;
    match put.expect("a queue can be made") {
        Put::Created(entry) | Put::Updated(entry) => entry.queue_ref(),
        Put::DeclaredInFile => panic!("no file declares it"),
    }
}

fn message(number: u64, payload: &[u8]) -> NewMessage {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&number.to_be_bytes());
    let at = START.saturating_add(Duration::from_millis(number / 4_096));
    let id = MessageId::new(at, random, Shard::default());
    let head = Head { id, attempts_max: 5, priority: Priority::Normal, accepted_at: START, ttl: None };
    let headers = Headers { content_type: "application/json".to_owned(), ..Headers::default() };
    let record = record::encode(&head, &headers.encode().expect("small"), payload);
    NewMessage { id, priority: Priority::Normal, due: Due::Now, record }
}

fn group(queue: &QueueRef, messages: Vec<NewMessage>) -> Group {
    Group { queue: queue.clone(), key: None, messages }
}

/// Publishes messages numbered from `first` on, `batch` of them a call.
async fn publish(connection: &Rc<dyn MessageStore>, queue: &QueueRef, first: u64, count: u64, batch: u64) {
    let payload = [0x61; 100];
    let mut number = first;
    while number < first + count {
        let end = (number + batch).min(first + count);
        let messages = (number..end).map(|number| message(number, &payload)).collect();
        let results = connection.enqueue(CallId::random(), Arc::new(vec![group(queue, messages)])).await;
        assert_eq!(results.expect("stored"), [GroupResult::Accepted]);
        number = end;
    }
}

fn request(queue: &QueueRef, kind: LeaseKind, max: u16) -> LeaseRequest {
    LeaseRequest {
        queue: queue.clone(),
        batch: BatchId::random(),
        kind,
        max,
        bytes_max: 16 << 20,
        lease: Duration::from_secs(30),
        suspects: true,
    }
}

fn acknowledge(leased: &Leased) -> Arc<Vec<Settlement>> {
    let settle = |lease: &crate::store::lease::Lease| Settlement {
        index: lease.index,
        verdict: Verdict::Ack,
        attempt: None,
    };
    Arc::new(leased.leases.iter().map(settle).collect())
}

async fn stats(connection: &Rc<dyn MessageStore>, queue: &QueueRef) -> QueueStats {
    let all = connection.stats(Some(vec![queue.name.clone()])).await.expect("stats");
    all.into_iter().next().expect("the queue is there")
}
