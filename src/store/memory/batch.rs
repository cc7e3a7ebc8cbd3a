//! Batches of leases: who holds what, until when, and what became of it.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::timestamp::Timestamp;
use crate::store::lease::{BatchId, BatchRef, LeaseKind, Token, Way};
use crate::store::memory::Now;
use crate::store::memory::lists::Seq;
use crate::store::{CALL_MEMORY, LEASE_LIFE_MAX};

/// What became of one lease of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slot {
    /// Nothing yet.
    Leased(Seq),
    /// It was settled in that way.
    Settled(Way),
    /// It was taken back.
    Lost,
}

/// One batch. Its times are read from the clock of its kind, see [`Now::reading`].
pub(super) struct Batch {
    /// Who knows it holds the batch.
    pub(super) token: Token,
    /// Who leased.
    pub(super) kind: LeaseKind,
    /// Drawn when it was leased: the youngest batch has the greatest.
    pub(super) number: u64,
    /// When it was leased, by the wall.
    pub(super) leased_at: Timestamp,
    /// When it was leased.
    pub(super) begun: Duration,
    /// Until when it is held.
    pub(super) deadline: Duration,
    /// Its leases, each at its place.
    pub(super) slots: Vec<Slot>,
    /// When its last lease ended.
    pub(super) ended: Option<Duration>,
}

impl Batch {
    /// Until when it is held, by the store's wall clock as it stands.
    pub(super) fn until(&self, now: Now) -> Timestamp {
        match self.kind {
            LeaseKind::Pull => {
                Timestamp::from_millis(u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX))
            }
            LeaseKind::Worker => {
                now.wall.saturating_add(self.deadline.saturating_sub(now.reading(self.kind)))
            }
        }
    }

    /// Moves the deadline, never nearer and never beyond the longest life.
    pub(super) fn extend(&mut self, lease: Duration, now: Now) {
        let wanted = now.reading(self.kind).saturating_add(lease);
        let last = self.begun.saturating_add(LEASE_LIFE_MAX);
        self.deadline = self.deadline.max(wanted.min(last));
    }

    /// Whether it is over and even its mark is.
    fn is_forgotten(&self, now: Now) -> bool {
        self.ended.is_some_and(|ended| ended.saturating_add(CALL_MEMORY) <= now.reading(self.kind))
    }

    /// Notes the end of the batch when none of its leases is left.
    pub(super) fn end_when_empty(&mut self, now: Now) {
        if self.ended.is_none() && !self.slots.iter().any(|slot| matches!(slot, Slot::Leased(_))) {
            self.ended = Some(now.reading(self.kind));
        }
    }
}

/// The batches of one queue: those that live, and the marks of those that ended.
#[derive(Default)]
pub(super) struct Batches(HashMap<BatchId, Batch>);

impl Batches {
    /// A batch or its mark.
    pub(super) fn of(&self, id: BatchId, now: Now) -> Option<&Batch> {
        self.0.get(&id).filter(|batch| !batch.is_forgotten(now))
    }

    /// A batch or its mark, for who knows the token.
    pub(super) fn held(&mut self, batch: &BatchRef, now: Now) -> Option<&mut Batch> {
        self.0.get_mut(&batch.batch).filter(|held| held.token == batch.token && !held.is_forgotten(now))
    }

    /// A batch that is known to be there.
    pub(super) fn known(&mut self, id: BatchId) -> &mut Batch {
        self.0.get_mut(&id).expect("a batch is here until it is forgotten")
    }

    /// Adds one.
    pub(super) fn add(&mut self, id: BatchId, batch: Batch) {
        self.0.insert(id, batch);
    }

    /// Those that live.
    pub(super) fn living(&self) -> impl Iterator<Item = (BatchId, &Batch)> {
        self.0.iter().filter(|(_, batch)| batch.ended.is_none()).map(|(id, batch)| (*id, batch))
    }

    /// The living ones that `choose` names, youngest first.
    pub(super) fn youngest_first(&self, choose: impl Fn(&Batch) -> bool) -> Vec<BatchId> {
        let mut chosen: Vec<_> = self.living().filter(|(_, batch)| choose(batch)).collect();
        chosen.sort_by_key(|(_, batch)| std::cmp::Reverse(batch.number));
        chosen.into_iter().map(|(id, _)| id).collect()
    }

    /// Removes the marks that are over.
    pub(super) fn forget(&mut self, now: Now) {
        self.0.retain(|_, batch| !batch.is_forgotten(now));
    }

    /// Removes the batches of workers, as a restart does.
    pub(super) fn forget_workers(&mut self) {
        self.0.retain(|_, batch| batch.kind == LeaseKind::Pull);
    }
}
