//! The slots of one worker thread, `workers.concurrency`, and who may take them.
//!
//! An attempt keeps its slot until it ends, so queues whose receivers hang would sooner or later have all of them. Each
//! thread therefore keeps some for queues that have none or few: [`may_take`] is the rule. It holds twice: the dispatcher
//! leases no more of a queue than the rule would let begin, and an attempt begins only in a slot that the rule gives it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::pipeline::batch::{Batch, Held};

/// The part that is kept from a queue which is alone: it costs that queue little, and who comes next finds a slot.
const KEPT_ALONE: usize = 16;
/// The part that is kept when several queues have work. Of 256 slots that is 64: after six queues with 32 attempts each,
/// 29 more that take what they can get find a slot, and 64 with one message each.
const KEPT: usize = 4;
/// The part of the free slots that a queue may have of those that are kept, so that no newcomer takes them all.
const KEPT_SHARE: usize = 8;

/// How many of `all` slots are not for queues that have their share, when `queues` of them have work. One at least, unless
/// there is no other.
fn kept(all: usize, queues: usize) -> usize {
    let kept = if queues <= 1 { all / KEPT_ALONE } else { all.div_ceil(KEPT) };
    kept.max(1).min(all.saturating_sub(1))
}

/// The same for bytes.
pub(super) fn kept_bytes(all: u64, queues: usize) -> u64 {
    all / if queues <= 1 { KEPT_ALONE as u64 } else { KEPT as u64 }
}

/// Whether a queue that has `own` of `all` slots may take one more of those that are `free`, when `queues` have work.
///
/// With none it may, whatever others have. Of what is not kept it may take an equal share, and beyond that as long as it
/// has less than twice what stays free: so slots that nobody else wants are used, and some are left for who comes next.
/// Of what is kept it may have an eighth of what is free.
pub(super) fn may_take(all: usize, free: usize, own: usize, queues: usize) -> bool {
    let kept = kept(all, queues);
    let share = all.saturating_sub(kept).div_ceil(queues.max(1));
    let unkept = free.saturating_sub(kept);
    free > 0 && (own == 0 || own < free / KEPT_SHARE || (unkept > 0 && own < share.max(2 * unkept)))
}

/// How many in a row [`may_take`] allows, `wanted` at most.
pub(super) fn takes(all: usize, free: usize, own: usize, queues: usize, wanted: usize) -> usize {
    let allowed = |more: &usize| may_take(all, free.saturating_sub(*more), own + more, queues);
    (0..wanted).take_while(allowed).count()
}

/// The slots of one thread, in the hands of its worker.
pub(super) struct Slots {
    all: usize,
    held: Arc<Held>,
    /// Queues that wait for a slot, each with its attempts in the order in which they came.
    rows: RefCell<VecDeque<VecDeque<Waiter>>>,
}

/// A slot that is taken; free again when dropped.
pub(super) struct Slot {
    slots: Rc<Slots>,
    presence: Option<Presence>,
}

struct Waiter {
    presence: Presence,
    told: oneshot::Sender<Slot>,
}

/// An attempt that has a slot or waits for one.
struct Presence(Arc<Batch>);

impl Presence {
    fn new(batch: &Arc<Batch>) -> Self {
        if batch.share.on(batch.held.thread).come() {
            batch.held.queue_came();
        }
        Self(batch.clone())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.0.share.on(self.0.held.thread).leave() {
            self.0.held.queue_left();
        }
    }
}

impl Slots {
    /// So many slots, all of them free.
    pub(super) fn new(all: usize, held: Arc<Held>) -> Self {
        Self { all, held, rows: RefCell::default() }
    }

    /// Waits for a slot. Dropping the future gives up the place in the row.
    pub(super) async fn take(self: &Rc<Self>, batch: &Arc<Batch>) -> Slot {
        let presence = Presence::new(batch);
        if !self.is_waited_for(batch) && self.is_free_for(batch) {
            return self.occupy(presence);
        }
        let (told, turn) = oneshot::channel();
        self.join(Waiter { presence, told });
        turn.await.expect("a waiter leaves its row with a slot")
    }

    fn is_waited_for(&self, batch: &Batch) -> bool {
        // One is the attempt that asks.
        batch.share.on(self.held.thread).waiting() > 1
    }

    fn is_free_for(&self, batch: &Batch) -> bool {
        let own = batch.share.on(self.held.thread).in_slots();
        may_take(self.all, self.all.saturating_sub(self.held.in_slots()), own, self.held.queues())
    }

    fn occupy(self: &Rc<Self>, presence: Presence) -> Slot {
        presence.0.share.on(self.held.thread).begin();
        self.held.slot_taken();
        Slot { slots: self.clone(), presence: Some(presence) }
    }

    fn join(&self, waiter: Waiter) {
        let mut rows = self.rows.borrow_mut();
        let is_of_queue = |row: &&mut VecDeque<Waiter>| {
            row.front().is_some_and(|first| Arc::ptr_eq(&first.presence.0.share, &waiter.presence.0.share))
        };
        match rows.iter_mut().find(is_of_queue) {
            Some(row) => row.push_back(waiter),
            None => rows.push_back(VecDeque::from([waiter])),
        }
    }

    /// Gives the free slots to who may have them, queues in turn.
    fn hand_out(self: &Rc<Self>) {
        while let Some(Waiter { presence, told }) = self.next_waiter() {
            let slot = self.occupy(presence);
            // Who waits here has not gone: that was looked at.
            drop(told.send(slot));
        }
    }

    fn next_waiter(&self) -> Option<Waiter> {
        let mut rows = self.rows.borrow_mut();
        for _ in 0..rows.len() {
            let mut row = rows.pop_front()?;
            while row.front().is_some_and(|first| first.told.is_closed()) {
                row.pop_front();
            }
            let Some(first) = row.front() else { continue };
            let next = if self.is_free_for(&first.presence.0) { row.pop_front() } else { None };
            if !row.is_empty() {
                rows.push_back(row);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(presence) = self.presence.take() {
            presence.0.share.on(self.slots.held.thread).end();
            self.slots.held.slot_freed();
        }
        self.slots.hand_out();
    }
}

#[cfg(test)]
mod tests;
