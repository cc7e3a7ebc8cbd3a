//! What time brings to one queue, and what a restart does to it.

use crate::domain::outcome::DeadReason;
use crate::domain::timestamp::Timestamp;
use crate::store::lease::{BatchId, LeaseKind};
use crate::store::memory::Now;
use crate::store::memory::batch::{Batch, Slot};
use crate::store::memory::lists::Seq;
use crate::store::memory::queue::{Place, Queue};
use crate::store::stats::Swept;
use crate::store::turns::Turns;
use crate::store::{PROMOTED_MAX, SWEEP_BYTES_MAX, SWEEP_MESSAGES_MAX, Scheduled};

/// What one round may still do in one queue.
#[derive(Default)]
struct Budget {
    messages: usize,
    bytes: u64,
    over: bool,
}

impl Budget {
    /// Whether one more message of this size may be worked on. The first one always may.
    fn take(&mut self, bytes: u64) -> bool {
        let fits = self.messages < SWEEP_MESSAGES_MAX && self.bytes + bytes <= SWEEP_BYTES_MAX;
        if fits || self.messages == 0 {
            self.messages += 1;
            self.bytes += bytes;
            return true;
        }
        self.over = true;
        false
    }
}

impl Queue {
    /// One bounded round: lost leases first, then what is due, then retention, then what is forgotten.
    pub(super) fn sweep(&mut self, now: Now, swept: &mut Swept) {
        let mut budget = Budget::default();
        self.reap(now, &mut budget, swept);
        self.promote(now, &mut budget, swept);
        self.enforce_retention(now, &mut budget, swept);
        self.keys.forget(now.wall);
        self.batches.forget(now);
        let history = &self.entry.settings.history;
        self.endings.forget(now.wall.saturating_sub(history.retention), history.finished_max);
        swept.more |= budget.over;
    }

    /// Takes back what is past its deadline: the youngest batch first and each from its last place on, so that what was
    /// leased first is first again.
    fn reap(&mut self, now: Now, budget: &mut Budget, swept: &mut Swept) {
        for id in self.batches.youngest_first(|batch| batch.deadline <= now.reading(batch.kind)) {
            for (place, seq) in self.held_backwards(id) {
                if !budget.take(self.message(seq).charged_bytes()) {
                    return;
                }
                swept.reaped += 1;
                swept.expired += u64::from(self.take_back(id, place, seq, now));
            }
            self.batches.known(id).end_when_empty(now);
        }
    }

    fn held_backwards(&mut self, id: BatchId) -> Vec<(usize, Seq)> {
        let held = |(place, slot): (usize, &Slot)| match slot {
            Slot::Leased(seq) => Some((place, *seq)),
            Slot::Settled(_) | Slot::Lost => None,
        };
        self.batches.known(id).slots.iter().enumerate().rev().filter_map(held).collect()
    }

    fn promote(&mut self, now: Now, budget: &mut Budget, swept: &mut Swept) {
        while let Some((&(due, _), &seq)) = self.scheduled.first_key_value() {
            let message = self.message(seq);
            if due > now.wall || !budget.take(message.charged_bytes()) {
                return;
            }
            // What cannot be read is pending until a lease judges it.
            if message.record().is_ok_and(|record| record.is_expired(now.wall)) {
                let status = message.log.back().and_then(|attempt| attempt.status);
                self.bury(seq, DeadReason::Expired, None, status, now);
                swept.expired += 1;
            } else {
                self.put_back(seq);
                swept.promoted += 1;
            }
        }
    }

    /// Makes scheduled messages pending before their time; gives which.
    pub(super) fn bring_forward(&mut self, scheduled: &[Scheduled], now: Now) -> Vec<bool> {
        let mut promoted = Vec::with_capacity(scheduled.len());
        for one in scheduled {
            let waiting = self.waiting(*one, now).filter(|_| promoted.len() < PROMOTED_MAX);
            if let Some(seq) = waiting {
                self.put_back(seq);
            }
            promoted.push(waiting.is_some());
        }
        promoted
    }

    /// The message that is meant, if it is as it was said to be.
    fn waiting(&self, scheduled: Scheduled, now: Now) -> Option<Seq> {
        let seq = *self.by_id.get(&scheduled.id)?;
        let message = self.message(seq);
        let record = message.record().ok().filter(|_| matches!(message.place, Place::Scheduled { .. }))?;
        (record.attempts() == scheduled.attempts && !record.is_expired(now.wall)).then_some(seq)
    }

    fn enforce_retention(&mut self, now: Now, budget: &mut Budget, swept: &mut Swept) {
        while let Some((&(died_at, _), &seq)) = self.dead.first_key_value() {
            let over = died_at.saturating_add(self.entry.settings.dead.retention) <= now.wall;
            if !(over || self.dead_exceed()) || !budget.take(self.message(seq).charged_bytes()) {
                break;
            }
            self.discard_oldest();
            swept.discarded += 1;
        }
        // Whatever brought them below their limits: nothing stays parked for a reason that is over.
        self.unpark_when_below();
    }

    /// When time brings something next.
    pub(super) fn next_at(&self, now: Now) -> Option<Timestamp> {
        let due = self.scheduled.first_key_value().map(|((due, _), _)| *due);
        let deadline = self.batches.living().map(|(_, batch)| batch.until(now)).min();
        due.into_iter().chain(deadline).min()
    }

    /// What a restart of the process means for what is kept on disk: workers are gone, so what they held is lost at once;
    /// the wheel begins anew.
    pub(super) fn reopen(&mut self, now: Now) {
        for id in self.batches.youngest_first(|batch: &Batch| batch.kind == LeaseKind::Worker) {
            for (place, seq) in self.held_backwards(id) {
                self.take_back(id, place, seq, now);
            }
        }
        self.batches.forget_workers();
        self.lists.turns = Turns::default();
        self.newer = None;
    }
}
