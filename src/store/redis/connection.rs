//! One thread's connection: the trait's calls, each handed to the file that knows it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::id::MessageId;
use crate::domain::queue::{QueueName, QueueSettings};
use crate::domain::timestamp::Timestamp;
use crate::store::dead::{DeadFilter, DeadGroup, DeadGrouping, DeadLetter, DeadPage, Replayed, Selection};
use crate::store::enqueue::{CallId, Group, GroupResult};
use crate::store::error::StoreError;
use crate::store::health::{Instance, StoreHealth};
use crate::store::lease::{BatchRef, Extended, LeaseRequest, Leased, Settled, Settlement};
use crate::store::redis::link::Link;
use crate::store::redis::probe::Version;
use crate::store::redis::state::State;
use crate::store::redis::stats::Observed;
use crate::store::redis::sweep::Rounds;
use crate::store::stats::{Cancelled, Found, QueueStats, Swept};
use crate::store::{Answer, Changed, Deleted, Hold, MessageStore, Put, QueueEntry, QueueRef, Scheduled};

/// A thread's connection for one purpose.
pub(super) struct Connection {
    pub(super) state: Arc<State>,
    pub(super) link: Rc<Link>,
    /// Where publishes leave: a link of its own when replicas are waited for, because that holds up all behind it.
    pub(super) sending: Rc<Link>,
    pub(super) version: Cell<Option<Version>>,
    pub(super) rounds: RefCell<Rounds>,
    pub(super) observed: RefCell<Observed>,
}

impl Connection {
    pub(super) fn new(state: &Arc<State>) -> Self {
        let link = Link::new(state);
        let sending = match state.settings.replicas_ack {
            0 => Rc::clone(&link),
            _ => Link::new(state),
        };
        Self {
            state: Arc::clone(state),
            link,
            sending,
            version: Cell::default(),
            rounds: RefCell::default(),
            observed: RefCell::default(),
        }
    }

    /// Tells this process what a call brought; other gateways hear of it from Redis.
    pub(super) fn tell(&self, queue: &QueueName, woken: bool, soonest: Option<Timestamp>) {
        if woken {
            self.state.wakes.post(queue);
        }
        if let Some(soonest) = soonest {
            self.state.post_time(soonest);
        }
    }
}

impl MessageStore for Connection {
    fn enqueue(&self, call: CallId, groups: Arc<Vec<Group>>) -> Answer<'_, Vec<GroupResult>> {
        Box::pin(self.enqueue_groups(call, groups))
    }

    fn lease(&self, request: LeaseRequest) -> Answer<'_, Leased> {
        Box::pin(self.lease_batch(request))
    }

    fn settle(&self, batch: BatchRef, settlements: Arc<Vec<Settlement>>) -> Answer<'_, Vec<Settled>> {
        Box::pin(self.settle_batch(batch, settlements))
    }

    fn extend(&self, batch: BatchRef, lease: Duration) -> Answer<'_, Extended> {
        Box::pin(self.extend_batch(batch, lease))
    }

    fn extend_leases(
        &self,
        batch: BatchRef,
        indices: Arc<[u16]>,
        lease: Duration,
    ) -> Answer<'_, Vec<Extended>> {
        Box::pin(self.extend_some(batch, indices, lease))
    }

    fn sweep(&self) -> Answer<'_, Swept> {
        Box::pin(self.sweep_all())
    }

    fn find(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<Found>> {
        Box::pin(self.find_message(queue, id))
    }

    fn cancel(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Cancelled> {
        Box::pin(self.cancel_message(queue, id))
    }

    fn promote(&self, queue: QueueRef, scheduled: Arc<[Scheduled]>) -> Answer<'_, Vec<bool>> {
        Box::pin(self.promote_scheduled(queue, scheduled))
    }

    fn list_dead(
        &self,
        queue: QueueRef,
        filter: DeadFilter,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'_, DeadPage> {
        Box::pin(self.page_of_letters(queue, filter, cursor, limit))
    }

    fn dead(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<DeadLetter>> {
        Box::pin(self.dead_letter(queue, id))
    }

    fn dead_groups(&self, queue: QueueRef, by: DeadGrouping) -> Answer<'_, Vec<DeadGroup>> {
        Box::pin(self.groups_of_letters(queue, by))
    }

    fn replay(&self, queue: QueueRef, selection: Selection, dry_run: bool) -> Answer<'_, Replayed> {
        Box::pin(self.replay_letters(queue, selection, dry_run))
    }

    fn discard(&self, queue: QueueRef, selection: Selection) -> Answer<'_, u64> {
        Box::pin(self.discard_letters(queue, selection))
    }

    fn purge(&self, queue: QueueRef) -> Answer<'_, u64> {
        Box::pin(self.purge_queue(queue))
    }

    fn hold(&self, queue: QueueRef, hold: Hold) -> Answer<'_, QueueEntry> {
        Box::pin(self.hold_queue(queue, hold))
    }

    fn queues(&self) -> Answer<'_, Vec<QueueEntry>> {
        Box::pin(async {
            self.state.check_open()?;
            self.listed().await
        })
    }

    fn unserved(&self, name: &str) -> Option<StoreError> {
        self.state.why_unreadable(name).map(StoreError::Newer)
    }

    fn put_queue(&self, name: QueueName, settings: Arc<QueueSettings>) -> Answer<'_, Put> {
        Box::pin(self.put(name, settings))
    }

    fn change_queue(
        &self,
        queue: QueueRef,
        was: Arc<QueueSettings>,
        settings: Arc<QueueSettings>,
    ) -> Answer<'_, Changed> {
        Box::pin(self.change_settings(queue, was, settings))
    }

    fn declare(
        &self,
        queues: Vec<(QueueName, Arc<QueueSettings>)>,
    ) -> Answer<'_, (Vec<QueueEntry>, Vec<QueueEntry>)> {
        Box::pin(self.declare_all(queues))
    }

    fn delete_queue(&self, queue: QueueRef, force: bool) -> Answer<'_, Deleted> {
        Box::pin(self.delete(queue, force))
    }

    fn stats(&self, names: Option<Vec<QueueName>>) -> Answer<'_, Vec<QueueStats>> {
        Box::pin(self.stats_of(names))
    }

    fn observe(&self) -> Answer<'_, Vec<QueueStats>> {
        Box::pin(self.observe_all())
    }

    fn announce(&self, instance: Instance) -> Answer<'_, Vec<Instance>> {
        Box::pin(self.announce_instance(instance))
    }

    fn health(&self) -> Answer<'_, StoreHealth> {
        Box::pin(self.look_at_health())
    }

    fn audit(&self) -> Answer<'_, Vec<String>> {
        Box::pin(self.audit_all())
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.leave().await;
            self.state.close();
            self.link.give_up();
            self.sending.give_up();
            Ok(())
        })
    }
}
