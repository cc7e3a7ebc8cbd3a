//! What a worker thread holds: batches of leases, and the counts that bound them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::queue::QueueName;
use crate::domain::retry::Verdict;
use crate::pipeline::lanes::Lane;
use crate::pipeline::settings::WorkerSettings;
use crate::pipeline::share::Share;
use crate::pipeline::slots::kept_bytes;
use crate::store::QueueEntry;
use crate::store::lease::{BatchRef, Lease, Settlement};

/// What one worker thread holds leased, counted by its dispatcher and its worker.
#[derive(Default)]
pub(super) struct Held {
    /// Which of the threads.
    pub(super) thread: usize,
    messages: AtomicUsize,
    bytes: AtomicU64,
    /// Messages on the way to the worker; each will want a slot or wait for its queue's share.
    coming: AtomicUsize,
    /// Attempts that have a slot.
    in_slots: AtomicUsize,
    /// Queues that have attempts in slots or waiting for one.
    queues: AtomicUsize,
    /// Finished attempts that the settler has and that are not settled yet.
    unsettled: AtomicUsize,
    batches_so_far: AtomicU64,
    /// Rung when any of these became less.
    pub(super) freed: Notify,
}

impl Held {
    pub(super) fn new(thread: usize) -> Self {
        Self { thread, ..Self::default() }
    }

    /// Messages leased on this thread whose attempt has not ended.
    pub(super) fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    /// Messages and bytes that may be leased of a queue, of which `early` messages may be leased before there is a slot.
    ///
    /// While `queues` have work, some of the bytes are kept for those that hold nothing here; and one of these may
    /// always lease a message, whatever others have leased early.
    pub(super) fn room(
        &self,
        settings: &WorkerSettings,
        early: usize,
        holds_nothing: bool,
        queues: usize,
    ) -> (usize, u64) {
        if self.unsettled.load(Ordering::Relaxed) >= settings.unsettled_max as usize {
            return (0, 0);
        }
        let (messages, slots) = (self.messages(), settings.concurrency as usize);
        let kept = if holds_nothing { 0 } else { kept_bytes(settings.held_bytes_max, queues) };
        let bytes = (settings.held_bytes_max - kept).saturating_sub(self.bytes.load(Ordering::Relaxed));
        if bytes == 0 {
            return (0, 0);
        }
        // As in a share: while more than half of the early ones wait, a lease of a few is not worth its call.
        let early_wait = messages.saturating_sub(slots) > early / 2;
        let room = if early_wait { 0 } else { (slots + early).saturating_sub(messages) };
        let first = usize::from(holds_nothing && messages < settings.held_max());
        if room.max(first) == 0 { (0, 0) } else { (room.max(first), bytes) }
    }

    /// Slots that nobody has or is about to take, of so many.
    pub(super) fn free_slots(&self, all: usize) -> usize {
        all.saturating_sub(self.in_slots()).saturating_sub(self.coming.load(Ordering::Relaxed))
    }

    /// Attempts that have a slot.
    pub(super) fn in_slots(&self) -> usize {
        self.in_slots.load(Ordering::Relaxed)
    }

    /// Queues that have attempts in slots or waiting for one.
    pub(super) fn queues(&self) -> usize {
        self.queues.load(Ordering::Relaxed)
    }

    /// Notes that messages are on the way to the worker.
    pub(super) fn sent(&self, count: usize) {
        self.coming.fetch_add(count, Ordering::Relaxed);
    }

    /// Notes that the worker has them, or never will.
    pub(super) fn arrived(&self, count: usize) {
        self.coming.fetch_sub(count, Ordering::Relaxed);
    }

    /// Notes that an attempt has a slot.
    pub(super) fn slot_taken(&self) {
        self.in_slots.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that an attempt has given up its slot.
    pub(super) fn slot_freed(&self) {
        self.in_slots.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that one more queue has attempts here.
    pub(super) fn queue_came(&self) {
        self.queues.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a queue has no more attempts here.
    pub(super) fn queue_left(&self) {
        self.queues.fetch_sub(1, Ordering::Relaxed);
    }

    /// Says how many finished attempts wait to be settled.
    pub(super) fn unsettled_are(&self, count: usize) {
        self.unsettled.store(count, Ordering::Relaxed);
    }

    /// A number for a new batch, not used before on this thread.
    pub(super) fn next_serial(&self) -> u64 {
        self.batches_so_far.fetch_add(1, Ordering::Relaxed)
    }
}

/// One batch of leases, as long as any of them is not settled.
pub(super) struct Batch {
    /// Names it on its thread.
    pub(super) serial: u64,
    /// How calls to the store name it.
    pub(super) name: BatchRef,
    /// Its queue when it was leased.
    pub(super) entry: Arc<QueueEntry>,
    /// Its queue's share.
    pub(super) share: Arc<Share>,
    /// The lane of its queue's own destination.
    pub(super) lane: Option<Arc<Lane>>,
    /// Whether its leases were booked there, because its queue sends nowhere else.
    pub(super) is_booked: bool,
    /// The counts of its thread.
    pub(super) held: Arc<Held>,
    /// Leases it began with.
    pub(super) size: u16,
    /// Until when the store keeps it for us at least, by this machine's monotonic clock.
    pub(super) until: Until,
    /// Set when its queue's destination answered that it is gone: what has not begun is to be given back.
    pub(super) is_gone: AtomicBool,
    /// Held as long as the batch is, when its one message is a suspect.
    pub(super) _suspect: Option<SuspectPermit>,
}

/// A deadline that moves.
pub(super) struct Until(Mutex<Instant>);

impl Until {
    pub(super) fn new(until: Instant) -> Self {
        Self(Mutex::new(until))
    }

    pub(super) fn now(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn extend(&self, until: Instant) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *current = until.max(*current);
    }
}

/// One lease in the hands of a worker thread. Whatever happens to it, its seat in the counts is given back.
pub(super) struct Taken {
    pub(super) lease: Lease,
    pub(super) seat: Seat,
}

/// The seat that a lease takes in the counts of its thread, its queue's share and its lane.
pub(super) struct Seat {
    pub(super) batch: Arc<Batch>,
    bytes: u64,
}

impl Taken {
    pub(super) fn new(lease: Lease, batch: &Arc<Batch>) -> Self {
        let bytes = lease.record.charged_bytes();
        batch.held.messages.fetch_add(1, Ordering::Relaxed);
        batch.held.bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { lease, seat: Seat { batch: batch.clone(), bytes } }
    }

    /// Ends it as if it had never been leased.
    pub(super) fn release(self) -> Ended {
        let settlement = self.lease.settle(Verdict::Release, None);
        Ended { batch: self.seat.batch.clone(), settlement: Some(settlement) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.batch.held.messages.fetch_sub(1, Ordering::Relaxed);
        self.batch.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.batch.share.give_back(self.batch.held.thread, 1);
        if let Some(lane) = self.batch.lane.as_ref().filter(|_| self.batch.is_booked) {
            lane.give_back(1);
        }
    }
}

/// How a lease of a batch ended, for the settler: each lease of a batch is told of once.
pub(super) struct Ended {
    pub(super) batch: Arc<Batch>,
    /// `None` when the lease was lost: there is nothing to settle.
    pub(super) settlement: Option<Settlement>,
}

/// At most one suspect is in flight in a process: this is who may lease it, and where more may be.
#[derive(Clone, Default)]
pub(super) struct Suspects(Arc<SuspectState>);

#[derive(Default)]
struct SuspectState {
    is_taken: AtomicBool,
    /// Queues in which the last look found one.
    queues: Mutex<HashSet<QueueName>>,
}

/// The right to lease a suspect.
pub(super) struct SuspectPermit(Suspects);

impl Drop for SuspectPermit {
    fn drop(&mut self) {
        self.0.0.is_taken.store(false, Ordering::Release);
    }
}

impl Suspects {
    /// Takes the permit, if nobody has it.
    pub(super) fn permit(&self) -> Option<SuspectPermit> {
        let was_taken = self.0.is_taken.swap(true, Ordering::AcqRel);
        (!was_taken).then(|| SuspectPermit(self.clone()))
    }

    /// Whether the permit could be had now.
    pub(super) fn is_free(&self) -> bool {
        !self.0.is_taken.load(Ordering::Acquire)
    }

    /// Notes whether a look with the permit found a suspect.
    pub(super) fn note(&self, queue: &QueueName, found: bool) {
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !found {
            queues.remove(queue);
        } else if !queues.contains(queue) {
            queues.insert(queue.clone());
        }
    }

    /// The queues in which there may be more.
    pub(super) fn queues(&self) -> Vec<QueueName> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
