//! A store between the pipeline and the real one: it notes the calls, and fails, holds or breaks those it is told to.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::domain::id::MessageId;
use crate::domain::queue::{QueueName, QueueSettings};
use crate::store::dead::{DeadFilter, DeadGroup, DeadGrouping, DeadLetter, DeadPage, Replayed, Selection};
use crate::store::enqueue::{CallId, Group, GroupResult};
use crate::store::error::StoreError;
use crate::store::health::StoreHealth;
use crate::store::lease::{BatchId, BatchRef, Extended, LeaseRequest, Leased, Settled, Settlement};
use crate::store::stats::{Cancelled, Found, QueueStats, Swept};
use crate::store::wake::WakeBoard;
use crate::store::{
    Answer, Changed, Deleted, Hold, MessageStore, Put, QueueEntry, QueueRef, Scheduled, Store,
};

/// What happens to a call.
#[derive(Clone)]
pub(super) enum Act {
    /// It is done and its answer is lost.
    LoseAnswer,
    /// It is not done.
    Refuse(StoreError),
    /// It waits for a permit, then it is done.
    Hold(Arc<Semaphore>),
    /// It is done, then whoever asked panics.
    Panic,
    /// It is done, and the answer for one group of it is lost.
    LoseGroup(usize),
}

/// A call as it was made.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Enqueue { id: CallId, queues: Vec<String> },
    Lease { batch: BatchId, queue: String },
    Leased { taken: usize, suspect: bool },
    Settle { count: usize },
    Extend,
}

/// The calls of one kind that are told what to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Enqueue,
    Lease,
    Settle,
    Extend,
    Hold,
}

#[derive(Default)]
struct Script {
    calls: Mutex<Vec<Call>>,
    acts: Mutex<Vec<(Kind, VecDeque<Act>)>>,
    blind: Mutex<Option<String>>,
}

impl Script {
    fn is_blind(&self, queue: &QueueName) -> bool {
        self.blind.lock().unwrap().as_deref() == Some(queue.as_str())
    }
}

/// The store.
#[derive(Clone)]
pub(super) struct Peer {
    inner: Arc<dyn Store>,
    script: Arc<Script>,
}

impl Peer {
    pub(super) fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, script: Arc::default() }
    }

    /// What happens to the next calls of a kind, one after another; later ones just pass.
    pub(super) fn tell(&self, kind: Kind, acts: impl IntoIterator<Item = Act>) {
        self.script.acts.lock().unwrap().push((kind, acts.into_iter().collect()));
    }

    /// What becomes of publishes to that queue, and of leases from it, stays unknown until another is named.
    pub(super) fn blind(&self, queue: Option<&str>) {
        *self.script.blind.lock().unwrap() = queue.map(str::to_owned);
    }

    /// From now on calls just pass.
    pub(super) fn tell_no_more(&self) {
        self.script.acts.lock().unwrap().clear();
    }

    /// Holds the next call of a kind until a permit is added.
    pub(super) fn hold(&self, kind: Kind) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.tell(kind, [Act::Hold(gate.clone())]);
        gate
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.script.calls.lock().unwrap().clone()
    }

    /// The queues of each `enqueue`, with its id.
    pub(super) fn enqueues(&self) -> Vec<(CallId, Vec<String>)> {
        let enqueue = |call| match call {
            Call::Enqueue { id, queues } => Some((id, queues)),
            _ => None,
        };
        self.calls().into_iter().filter_map(enqueue).collect()
    }

    /// The settlements of all calls.
    pub(super) fn settlements(&self) -> usize {
        let of = |call| if let Call::Settle { count } = call { count } else { 0 };
        self.calls().into_iter().map(of).sum()
    }

    pub(super) fn count(&self, which: impl Fn(&Call) -> bool) -> usize {
        self.calls().iter().filter(|call| which(call)).count()
    }
}

impl Store for Peer {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn id(&self) -> Arc<str> {
        self.inner.id()
    }

    fn connect(&self) -> Rc<dyn MessageStore> {
        Rc::new(Connection { inner: self.inner.connect(), script: self.script.clone() })
    }

    fn wakes(&self) -> &WakeBoard {
        self.inner.wakes()
    }
}

struct Connection {
    inner: Rc<dyn MessageStore>,
    script: Arc<Script>,
}

impl Connection {
    fn note(&self, call: Call) {
        self.script.calls.lock().unwrap().push(call);
    }

    fn act(&self, kind: Kind) -> Option<Act> {
        let mut acts = self.script.acts.lock().unwrap();
        let next = acts.iter_mut().find(|(of, acts)| *of == kind && !acts.is_empty());
        next.and_then(|(_, acts)| acts.pop_front())
    }

    async fn through<T>(&self, kind: Kind, call: Answer<'_, T>) -> Result<T, StoreError> {
        match self.act(kind) {
            None | Some(Act::LoseGroup(_)) => call.await,
            Some(Act::LoseAnswer) => call.await.and(Err(StoreError::Timeout(Duration::from_secs(5)))),
            Some(Act::Refuse(error)) => Err(error),
            Some(Act::Hold(gate)) => {
                gate.acquire().await.expect("the gate stays").forget();
                call.await
            }
            Some(Act::Panic) => {
                drop(call.await);
                panic!("the store was told to panic")
            }
        }
    }
}

impl MessageStore for Connection {
    fn enqueue(&self, call: CallId, groups: Arc<Vec<Group>>) -> Answer<'_, Vec<GroupResult>> {
        let queues = groups.iter().map(|group| group.queue.name.to_string()).collect();
        self.note(Call::Enqueue { id: call, queues });
        let lost = {
            let acts = self.script.acts.lock().unwrap();
            let next = acts.iter().find(|(of, acts)| *of == Kind::Enqueue && !acts.is_empty());
            next.and_then(|(_, acts)| match acts.front() {
                Some(Act::LoseGroup(index)) => Some(*index),
                _ => None,
            })
        };
        Box::pin(async move {
            let mut results = self.through(Kind::Enqueue, self.inner.enqueue(call, groups.clone())).await?;
            for (result, group) in results.iter_mut().zip(&*groups) {
                if self.script.is_blind(&group.queue.name) {
                    *result = GroupResult::Failed(StoreError::Unknown("it broke off".to_owned()));
                }
            }
            if let Some(index) = lost {
                results[index] = GroupResult::Failed(StoreError::Unknown("told to forget".to_owned()));
            }
            Ok(results)
        })
    }

    fn lease(&self, request: LeaseRequest) -> Answer<'_, Leased> {
        self.note(Call::Lease { batch: request.batch, queue: request.queue.name.to_string() });
        Box::pin(async move {
            if self.script.is_blind(&request.queue.name) {
                return Err(StoreError::Unknown("it broke off".to_owned()));
            }
            let leased = self.through(Kind::Lease, self.inner.lease(request)).await?;
            let suspect = leased.leases.iter().any(|lease| lease.record.is_suspect());
            self.note(Call::Leased { taken: leased.leases.len(), suspect });
            Ok(leased)
        })
    }

    fn settle(&self, batch: BatchRef, settlements: Arc<Vec<Settlement>>) -> Answer<'_, Vec<Settled>> {
        self.note(Call::Settle { count: settlements.len() });
        Box::pin(self.through(Kind::Settle, self.inner.settle(batch, settlements)))
    }

    fn extend(&self, batch: BatchRef, lease: Duration) -> Answer<'_, Extended> {
        self.note(Call::Extend);
        Box::pin(self.through(Kind::Extend, self.inner.extend(batch, lease)))
    }

    fn extend_leases(
        &self,
        batch: BatchRef,
        indices: Arc<[u16]>,
        lease: Duration,
    ) -> Answer<'_, Vec<Extended>> {
        self.inner.extend_leases(batch, indices, lease)
    }

    fn sweep(&self) -> Answer<'_, Swept> {
        self.inner.sweep()
    }

    fn find(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<Found>> {
        self.inner.find(queue, id)
    }

    fn cancel(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Cancelled> {
        self.inner.cancel(queue, id)
    }

    fn promote(&self, queue: QueueRef, scheduled: Arc<[Scheduled]>) -> Answer<'_, Vec<bool>> {
        self.inner.promote(queue, scheduled)
    }

    fn list_dead(
        &self,
        queue: QueueRef,
        filter: DeadFilter,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'_, DeadPage> {
        self.inner.list_dead(queue, filter, cursor, limit)
    }

    fn dead(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<DeadLetter>> {
        self.inner.dead(queue, id)
    }

    fn dead_groups(&self, queue: QueueRef, by: DeadGrouping) -> Answer<'_, Vec<DeadGroup>> {
        self.inner.dead_groups(queue, by)
    }

    fn replay(&self, queue: QueueRef, selection: Selection, dry_run: bool) -> Answer<'_, Replayed> {
        self.inner.replay(queue, selection, dry_run)
    }

    fn discard(&self, queue: QueueRef, selection: Selection) -> Answer<'_, u64> {
        self.inner.discard(queue, selection)
    }

    fn purge(&self, queue: QueueRef) -> Answer<'_, u64> {
        self.inner.purge(queue)
    }

    fn hold(&self, queue: QueueRef, hold: Hold) -> Answer<'_, QueueEntry> {
        Box::pin(self.through(Kind::Hold, self.inner.hold(queue, hold)))
    }

    fn queues(&self) -> Answer<'_, Vec<QueueEntry>> {
        self.inner.queues()
    }

    fn change_queue(
        &self,
        queue: QueueRef,
        was: Arc<QueueSettings>,
        settings: Arc<QueueSettings>,
    ) -> Answer<'_, Changed> {
        self.inner.change_queue(queue, was, settings)
    }

    fn put_queue(&self, name: QueueName, settings: Arc<QueueSettings>) -> Answer<'_, Put> {
        self.inner.put_queue(name, settings)
    }

    fn declare(
        &self,
        queues: Vec<(QueueName, Arc<QueueSettings>)>,
    ) -> Answer<'_, (Vec<QueueEntry>, Vec<QueueEntry>)> {
        self.inner.declare(queues)
    }

    fn delete_queue(&self, queue: QueueRef, force: bool) -> Answer<'_, Deleted> {
        self.inner.delete_queue(queue, force)
    }

    fn stats(&self, names: Option<Vec<QueueName>>) -> Answer<'_, Vec<QueueStats>> {
        self.inner.stats(names)
    }

    fn health(&self) -> Answer<'_, StoreHealth> {
        self.inner.health()
    }

    fn audit(&self) -> Answer<'_, Vec<String>> {
        self.inner.audit()
    }

    fn close(&self) -> Answer<'_, ()> {
        self.inner.close()
    }
}
