//! A store that does what a real one does when it fails: it answers late, not at all, or that it cannot.

use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use posthaste::domain::id::MessageId;
use posthaste::domain::queue::{QueueName, QueueSettings};
use posthaste::store::dead::{
    DeadFilter, DeadGroup, DeadGrouping, DeadLetter, DeadPage, Replayed, Selection,
};
use posthaste::store::enqueue::{CallId, Group, GroupResult};
use posthaste::store::error::StoreError;
use posthaste::store::health::{Instance, StoreHealth};
use posthaste::store::lease::{BatchRef, Extended, LeaseRequest, Leased, Settled, Settlement};
use posthaste::store::stats::{Cancelled, Found, QueueStats, Swept};
use posthaste::store::wake::WakeBoard;
use posthaste::store::{
    Answer, Changed, Deleted, Hold, MessageStore, Put, QueueEntry, QueueRef, Scheduled, Store,
};

/// What fails at the moment.
#[derive(Default)]
pub(super) struct Faults(Mutex<Now>);

#[derive(Clone, Default)]
struct Now {
    away: bool,
    panics: bool,
    enqueue: Option<StoreError>,
    enqueue_late: bool,
    full: Option<String>,
    newer: Option<String>,
}

impl Faults {
    /// Nothing is answered but that the store is away.
    pub(super) fn set_away(&self, away: bool) {
        self.0.lock().expect("the faults").away = away;
    }

    /// Looking for a message or for the list of queues panics.
    pub(super) fn set_panics(&self, panics: bool) {
        self.0.lock().expect("the faults").panics = panics;
    }

    /// Every enqueue fails so, and stores nothing.
    pub(super) fn set_enqueue(&self, error: Option<StoreError>) {
        self.0.lock().expect("the faults").enqueue = error;
    }

    /// Every enqueue waits until this is over.
    pub(super) fn set_enqueue_late(&self, late: bool) {
        self.0.lock().expect("the faults").enqueue_late = late;
    }

    /// The store says that it is full.
    pub(super) fn set_full(&self, full: Option<&str>) {
        self.0.lock().expect("the faults").full = full.map(str::to_owned);
    }

    /// The store says that it holds what a newer version wrote.
    pub(super) fn set_newer(&self, newer: Option<&str>) {
        self.0.lock().expect("the faults").newer = newer.map(str::to_owned);
    }

    fn now(&self) -> Now {
        self.0.lock().expect("the faults").clone()
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.now().away { Err(StoreError::Unavailable("it was unplugged".to_owned())) } else { Ok(()) }
    }

    fn check_reading(&self) -> Result<(), StoreError> {
        assert!(!self.now().panics, "a planted panic");
        self.check()
    }
}

/// A store with faults.
pub(super) struct Faulty {
    inner: Arc<dyn Store>,
    faults: Arc<Faults>,
}

impl Faulty {
    /// Wraps a store.
    pub(super) fn new(inner: Arc<dyn Store>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }
}

impl Store for Faulty {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn id(&self) -> Arc<str> {
        self.inner.id()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    fn connect(&self) -> Rc<dyn MessageStore> {
        Rc::new(FaultyConnection { inner: self.inner.connect(), faults: self.faults.clone() })
    }

    fn wakes(&self) -> &WakeBoard {
        self.inner.wakes()
    }
}

struct FaultyConnection {
    inner: Rc<dyn MessageStore>,
    faults: Arc<Faults>,
}

impl FaultyConnection {
    fn unless_away<'a, T: 'a>(&'a self, answer: Answer<'a, T>) -> Answer<'a, T> {
        match self.faults.check() {
            Ok(()) => answer,
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn unless_broken<'a, T: 'a>(&'a self, answer: Answer<'a, T>) -> Answer<'a, T> {
        match self.faults.check_reading() {
            Ok(()) => answer,
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

impl MessageStore for FaultyConnection {
    fn enqueue(&self, call: CallId, groups: Arc<Vec<Group>>) -> Answer<'_, Vec<GroupResult>> {
        let now = self.faults.now();
        if let Some(error) = now.enqueue {
            return Box::pin(std::future::ready(Err(error)));
        }
        if now.enqueue_late {
            return Box::pin(async move {
                while self.faults.now().enqueue_late {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                self.inner.enqueue(call, groups).await
            });
        }
        self.unless_away(self.inner.enqueue(call, groups))
    }

    fn health(&self) -> Answer<'_, StoreHealth> {
        let now = self.faults.now();
        let answer = self.inner.health();
        self.unless_away(Box::pin(async move {
            let mut health = answer.await?;
            health.full = now.full.or(health.full);
            health.newer = now.newer.or(health.newer);
            Ok(health)
        }))
    }

    fn queues(&self) -> Answer<'_, Vec<QueueEntry>> {
        // The prober asks as well, on a thread that has no name of the server's.
        let serves_http = std::thread::current().name().is_some_and(|name| name.contains("actix"));
        if serves_http {
            return self.unless_broken(self.inner.queues());
        }
        self.unless_away(self.inner.queues())
    }

    fn find(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<Found>> {
        self.unless_broken(self.inner.find(queue, id))
    }

    fn lease(&self, request: LeaseRequest) -> Answer<'_, Leased> {
        self.unless_away(self.inner.lease(request))
    }

    fn settle(&self, batch: BatchRef, settlements: Arc<Vec<Settlement>>) -> Answer<'_, Vec<Settled>> {
        self.unless_away(self.inner.settle(batch, settlements))
    }

    fn extend(&self, batch: BatchRef, lease: Duration) -> Answer<'_, Extended> {
        self.unless_away(self.inner.extend(batch, lease))
    }

    fn extend_leases(
        &self,
        batch: BatchRef,
        indices: Arc<[u16]>,
        lease: Duration,
    ) -> Answer<'_, Vec<Extended>> {
        self.unless_away(self.inner.extend_leases(batch, indices, lease))
    }

    fn sweep(&self) -> Answer<'_, Swept> {
        self.unless_away(self.inner.sweep())
    }

    fn cancel(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Cancelled> {
        self.unless_away(self.inner.cancel(queue, id))
    }

    fn promote(&self, queue: QueueRef, scheduled: Arc<[Scheduled]>) -> Answer<'_, Vec<bool>> {
        self.unless_away(self.inner.promote(queue, scheduled))
    }

    fn list_dead(
        &self,
        queue: QueueRef,
        filter: DeadFilter,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'_, DeadPage> {
        self.unless_away(self.inner.list_dead(queue, filter, cursor, limit))
    }

    fn dead(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<DeadLetter>> {
        self.unless_away(self.inner.dead(queue, id))
    }

    fn dead_groups(&self, queue: QueueRef, by: DeadGrouping) -> Answer<'_, Vec<DeadGroup>> {
        self.unless_away(self.inner.dead_groups(queue, by))
    }

    fn replay(&self, queue: QueueRef, selection: Selection, dry_run: bool) -> Answer<'_, Replayed> {
        self.unless_away(self.inner.replay(queue, selection, dry_run))
    }

    fn discard(&self, queue: QueueRef, selection: Selection) -> Answer<'_, u64> {
        self.unless_away(self.inner.discard(queue, selection))
    }

    fn purge(&self, queue: QueueRef) -> Answer<'_, u64> {
        self.unless_away(self.inner.purge(queue))
    }

    fn hold(&self, queue: QueueRef, hold: Hold) -> Answer<'_, QueueEntry> {
        self.unless_away(self.inner.hold(queue, hold))
    }

    fn put_queue(&self, name: QueueName, settings: Arc<QueueSettings>) -> Answer<'_, Put> {
        self.unless_away(self.inner.put_queue(name, settings))
    }

    fn change_queue(
        &self,
        queue: QueueRef,
        was: Arc<QueueSettings>,
        settings: Arc<QueueSettings>,
    ) -> Answer<'_, Changed> {
        self.unless_away(self.inner.change_queue(queue, was, settings))
    }

    fn declare(
        &self,
        queues: Vec<(QueueName, Arc<QueueSettings>)>,
    ) -> Answer<'_, (Vec<QueueEntry>, Vec<QueueEntry>)> {
        self.unless_away(self.inner.declare(queues))
    }

    fn delete_queue(&self, queue: QueueRef, force: bool) -> Answer<'_, Deleted> {
        self.unless_away(self.inner.delete_queue(queue, force))
    }

    fn stats(&self, names: Option<Vec<QueueName>>) -> Answer<'_, Vec<QueueStats>> {
        self.unless_away(self.inner.stats(names))
    }

    fn observe(&self) -> Answer<'_, Vec<QueueStats>> {
        self.unless_away(self.inner.observe())
    }

    fn announce(&self, instance: Instance) -> Answer<'_, Vec<Instance>> {
        self.unless_away(self.inner.announce(instance))
    }

    fn unserved(&self, name: &str) -> Option<StoreError> {
        self.inner.unserved(name)
    }

    fn audit(&self) -> Answer<'_, Vec<String>> {
        self.unless_away(self.inner.audit())
    }

    fn close(&self) -> Answer<'_, ()> {
        self.inner.close()
    }
}
