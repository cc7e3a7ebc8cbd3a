//! What only this store has: one file on a disk that can be full, damaged, locked, or cut short.

mod commit;
mod damage;
mod file;
mod large;
mod room;

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
use crate::store::error::StoreError;
use crate::store::lease::{BatchId, Extended, LeaseKind, LeaseRequest, Leased, Settled, Settlement};
use crate::store::settings::StoreSettings;
use crate::store::sqlite::connection::Connection;
use crate::store::sqlite::operation::{Job, Rank, Reply, Weight};
use crate::store::sqlite::work::{Sql, Work};
use crate::store::sqlite::{Handle, open_handle};
use crate::store::stats::QueueStats;
use crate::store::{MessageStore, Put, QueueRef};

/// When every test with a clock of its own begins.
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A store in a folder of its own, with a clock that stands until it is moved.
struct Stand {
    folder: tempfile::TempDir,
    settings: StoreSettings,
    clock: Clock,
    handle: Option<Arc<Handle>>,
}

/// Holds the writer up, so that what is handed over meanwhile meets in one transaction. Dropping it lets the writer go on.
struct Gate {
    _open: std::sync::mpsc::SyncSender<()>,
    _reply: Reply<()>,
}

impl Stand {
    fn new(clock: Clock) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let url = format!("sqlite:{}", folder.path().join("posthaste.db").display());
        let settings = StoreSettings { url, lock_wait: Duration::ZERO, ..StoreSettings::default() };
        let mut stand = Self { folder, settings, clock, handle: None };
        stand.open();
        stand
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("posthaste.db")
    }

    fn open(&mut self) {
        self.handle = Some(open_handle(&self.settings, &self.clock).expect("the store can be opened"));
    }

    /// Ends the process as far as the store can tell: nobody gives anything back.
    fn end(&mut self) {
        self.handle = None;
    }

    fn connect(&self) -> Rc<dyn MessageStore> {
        Rc::new(Connection(Arc::clone(self.handle.as_ref().expect("it is open"))))
    }

    /// Hands an operation to the writer.
    fn push<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Work<'_>) -> Sql<Result<T, StoreError>> + Send + 'static,
    ) -> Reply<T> {
        let shared = &self.handle.as_ref().expect("it is open").shared;
        let (job, reply) = Job::with_reply(Rank::Rest, Weight::default(), true, shared.clock.tick(), work);
        shared.inbox.push(job).expect("there is room");
        reply
    }

    /// Stops the writer until the gate is dropped.
    fn gate(&self) -> Gate {
        let (open, opened) = std::sync::mpsc::sync_channel(0);
        let (reached, is_there) = std::sync::mpsc::sync_channel(1);
        let reply = self.push(move |_| {
            reached.send(()).expect("somebody waits for it");
            opened.recv().expect_err("the gate is opened by dropping it");
            Ok(Ok(()))
        });
        is_there.recv().expect("the writer comes to the gate");
        Gate { _open: open, _reply: reply }
    }

    /// The file as another connection sees it.
    fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).expect("the file can be opened")
    }
}

/// The settings that most tests need.
fn settings() -> QueueSettings {
    QueueSettings { processor: "log".to_owned(), ..QueueSettings::default() }
}

/// Nothing differs from a recount.
async fn assert_sound(connection: &Rc<dyn MessageStore>) {
    assert_eq!(connection.audit().await, Ok(Vec::new()));
    for queue in connection.stats(None).await.expect("stats") {
        assert!(queue.laws_hold(), "{queue:?}");
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
    Group { queue: queue.clone(), key: None, messages: messages.into() }
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
        gist: None,
    };
    Arc::new(leased.leases.iter().map(settle).collect())
}

async fn stats(connection: &Rc<dyn MessageStore>, queue: &QueueRef) -> QueueStats {
    let all = connection.stats(Some(vec![queue.name.clone()])).await.expect("stats");
    all.into_iter().next().expect("the queue is there")
}
