//! A pipeline on a memory store, with processors that do what a test says.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use crate::actor::{Place, Supervisor};
use crate::clock::Clock;
use crate::domain::id::{MessageId, Shard};
use crate::domain::message::{Headers, Priority};
use crate::domain::outcome::Outcome;
use crate::domain::queue::QueueSettings;
use crate::domain::record::{self, Head};
use crate::pipeline::catalog::Catalog;
use crate::pipeline::consumers::ConsumerLimits;
use crate::pipeline::ingester::Ingester;
use crate::pipeline::lanes::settings::LaneSettings;
use crate::pipeline::prober::StoreWatch;
use crate::pipeline::settings::{IngestSettings, WorkerSettings};
use crate::pipeline::tests::peer::Peer;
use crate::pipeline::{Parts, Pipeline, phase};
use crate::processor::{Build, Delivery, Processor, Registry, Report};
use crate::store::enqueue::{Due, Group, GroupResult, NewMessage};
use crate::store::memory::Memory;
use crate::store::settings::{RequiredDurability, StoreSettings};
use crate::store::stats::{Found, QueueStats};
use crate::store::{MessageStore, Put, QueueEntry, Store};

/// Longer than any wait of a test that passes.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A processor made of a function.
struct Function<F>(Arc<F>);

impl<F> Processor for Function<F>
where
    F: Fn(Delivery) -> LocalBoxFuture<'static, Report>,
{
    fn process(&self, delivery: Delivery) -> LocalBoxFuture<'static, Report> {
        self.0(delivery)
    }
}

/// Builds a processor that calls this for each attempt, on whatever thread.
pub(super) fn build<F>(process: F) -> Build
where
    F: Fn(Delivery) -> LocalBoxFuture<'static, Report> + Send + Sync + 'static,
{
    let process = Arc::new(process);
    Arc::new(move || Rc::new(Function(process.clone())))
}

/// Builds a processor that calls this for each attempt and is done at once.
pub(super) fn build_done(note: impl Fn(&Delivery) + Send + Sync + 'static) -> Build {
    build(move |delivery| {
        note(&delivery);
        Box::pin(async { Outcome::Done.into() })
    })
}

/// Counts who is inside, and the most that ever were.
#[derive(Clone, Default)]
pub(super) struct Crowd(Arc<(AtomicUsize, AtomicUsize)>);

pub(super) struct Inside(Crowd);

impl Crowd {
    pub(super) fn enter(&self) -> Inside {
        let inside = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(inside, Ordering::SeqCst);
        Inside(self.clone())
    }

    pub(super) fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    pub(super) fn inside(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a test's processors saw, in order.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<(MessageId, u8)>>>);

impl Seen {
    pub(super) fn add(&self, delivery: &Delivery) {
        self.0.lock().unwrap().push((delivery.record.id(), delivery.attempt));
    }

    pub(super) fn all(&self) -> Vec<(MessageId, u8)> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A store with queues, before its pipeline is started.
pub(super) struct Bed {
    pub(super) peer: Peer,
    pub(super) clock: Clock,
    pub(super) catalog: Catalog,
    pub(super) workers: WorkerSettings,
    pub(super) ingest: IngestSettings,
    pub(super) lanes: LaneSettings,
    pub(super) consumers: ConsumerLimits,
    pub(super) grace: Duration,
    registry: Registry,
}

/// A running pipeline.
pub(super) struct Rig {
    pub(super) peer: Peer,
    pub(super) clock: Clock,
    pub(super) catalog: Catalog,
    pub(super) supervisor: Supervisor,
    pub(super) pipeline: Pipeline,
    pub(super) ingester: Ingester,
    grace: Duration,
    store: Rc<dyn MessageStore>,
}

impl Bed {
    pub(super) fn new() -> Self {
        Self::with(Clock::system())
    }

    pub(super) fn with(clock: Clock) -> Self {
        let settings = StoreSettings {
            url: "memory:".to_owned(),
            durability: RequiredDurability::None,
            ..StoreSettings::default()
        };
        let peer = Peer::new(Memory::open(&settings, &clock).expect("a memory store opens"));
        let workers = WorkerSettings { threads: 1, ..WorkerSettings::default() };
        let ingest = IngestSettings::default();
        let (catalog, registry) = (Catalog::default(), Registry::default());
        Self {
            peer,
            clock,
            catalog,
            workers,
            ingest,
            lanes: LaneSettings::default(),
            consumers: ConsumerLimits::default(),
            grace: PATIENCE,
            registry,
        }
    }

    /// Makes a queue whose processor is this, named like the queue.
    pub(super) async fn queue(&mut self, name: &str, processor: Build) -> QueueEntry {
        self.queue_with(name, processor, |_| {}).await
    }

    pub(super) async fn queue_with(
        &mut self,
        name: &str,
        processor: Build,
        change: impl FnOnce(&mut QueueSettings),
    ) -> QueueEntry {
        self.registry.add(name, processor).expect("a name of its own");
        let mut settings = QueueSettings { processor: name.to_owned(), ..QueueSettings::default() };
        change(&mut settings);
        let entry = put(&*self.peer.connect(), name, settings).await;
        self.catalog.put(entry.clone());
        entry
    }

    pub(super) fn start(self) -> Rig {
        let supervisor = Supervisor::new(phase::all(self.grace));
        let parts = Parts {
            watch: StoreWatch::default(),
            declare: None,
            instance: "test-instance".into(),
            supervisor: supervisor.clone(),
            store: Arc::new(self.peer.clone()),
            registry: self.registry,
            catalog: self.catalog.clone(),
            clock: self.clock.clone(),
            workers: self.workers,
            ingest: self.ingest,
            lanes: self.lanes,
            consumers: self.consumers,
        };
        let pipeline = Pipeline::start(parts).expect("the system gives threads");
        let ingester = pipeline.ingester_in(&Place::On(supervisor.arbiter("http")));
        let store = self.peer.connect();
        Rig {
            peer: self.peer,
            clock: self.clock,
            catalog: self.catalog,
            supervisor,
            pipeline,
            ingester,
            grace: self.grace,
            store,
        }
    }
}

pub(super) async fn put(store: &dyn MessageStore, name: &str, settings: QueueSettings) -> QueueEntry {
    let put = store.put_queue(name.parse().expect("a name"), Arc::new(settings)).await;
    match put.expect("the store answers") {
        Put::Created(entry) | Put::Updated(entry) => entry,
        Put::DeclaredInFile => panic!("nothing is declared in a file here"),
    }
}

/// A new message of a queue with these attempts allowed.
pub(super) fn message(clock: &Clock, attempts_max: u8, payload: &[u8]) -> NewMessage {
    let headers = Headers::default().encode().expect("they are small");
    message_with(clock, attempts_max, &headers, payload)
}

pub(super) fn message_with(clock: &Clock, attempts_max: u8, headers: &[u8], payload: &[u8]) -> NewMessage {
    let random = std::array::from_fn(|_| fastrand::u8(..));
    let id = MessageId::new(clock.now(), random, Shard::default());
    let head = Head { id, attempts_max, priority: Priority::Normal, accepted_at: clock.now(), ttl: None };
    let record = record::encode(&head, headers, payload);
    NewMessage { id, priority: Priority::Normal, due: Due::Now, record }
}

/// A group of new messages, each allowed three attempts.
pub(super) fn group(clock: &Clock, queue: &QueueEntry, count: usize) -> Group {
    let messages = (0..count).map(|_| message(clock, 3, b"{}")).collect();
    Group { queue: queue.queue_ref(), key: None, messages }
}

pub(super) fn soon() -> Instant {
    Instant::now() + PATIENCE
}

impl Rig {
    /// Publishes messages in one group; gives their ids.
    pub(super) async fn publish(&self, queue: &QueueEntry, count: usize) -> Vec<MessageId> {
        self.publish_group(group(&self.clock, queue, count)).await
    }

    pub(super) async fn publish_group(&self, group: Group) -> Vec<MessageId> {
        let ids = group.messages.iter().map(|message| message.id).collect();
        assert_eq!(self.ingester.publish(group, soon()).await, Ok(GroupResult::Accepted));
        ids
    }

    pub(super) async fn stats(&self, queue: &QueueEntry) -> QueueStats {
        let stats = self.store.stats(Some(vec![queue.name.clone()])).await.expect("the store answers");
        let stats = stats.into_iter().next().expect("the queue is there");
        assert!(stats.laws_hold(), "{stats:?}");
        stats
    }

    pub(super) async fn find(&self, queue: &QueueEntry, id: MessageId) -> Found {
        let found = self.store.find(queue.queue_ref(), id).await.expect("the store answers");
        found.expect("the message is known")
    }

    /// Waits until the queue's numbers are as wanted.
    pub(super) async fn until(&self, queue: &QueueEntry, what: &str, wanted: impl Fn(&QueueStats) -> bool) {
        let deadline = soon();
        loop {
            let stats = self.stats(queue).await;
            if wanted(&stats) {
                return;
            }
            assert!(Instant::now() < deadline, "waited too long until {what}: {stats:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Stops everything, in time.
    pub(super) async fn shut_down(&self) {
        let report = self.supervisor.shutdown(Some(self.grace + phase::TAIL)).await;
        assert!(report.is_clean(), "{report:?}");
    }

    /// Stops everything and checks that the store's numbers are right.
    pub(super) async fn stop(self) {
        self.shut_down().await;
        assert_eq!(self.store.audit().await, Ok(Vec::new()));
    }
}

/// Waits for a condition.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until a number stays the same for a while; gives it.
pub(super) async fn until_still<N: Copy + PartialEq>(what: &str, number: impl Fn() -> N) -> N {
    let (deadline, mut last, mut looks) = (soon(), number(), 0);
    while looks < 30 {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = number();
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
    }
    last
}
