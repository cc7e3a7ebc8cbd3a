//! What time brings: lost leases, due messages, expiry, retention; and the rest of what purges and deletions began.
//!
//! A sweep goes through the queues by number and takes as many transactions as it needs, each bounded, so that the calls
//! of others get in between. A queue that cannot be read is passed over, and holds up no other. Nothing here must survive a power loss for its own sake: what is undone is done again.

use std::cmp::Reverse;

use bytes::Bytes;

use crate::domain::outcome::DeadReason;
use crate::domain::record::Record;
use crate::domain::timestamp::Timestamp;
use crate::store::lease::{BatchId, LeaseKind};
use crate::store::sqlite::dead::Dying;
use crate::store::sqlite::key::{QueueNumber, Seq};
use crate::store::sqlite::moves::Place;
use crate::store::sqlite::state::{Indexing, Moving};
use crate::store::sqlite::work::{Sql, Work, kept_ms};
use crate::store::stats::Swept;
use crate::store::{SWEEP_BYTES_MAX, SWEEP_MESSAGES_MAX};

const DUE: &str = "SELECT due_ms, seq FROM due WHERE queue = ?1 AND due_ms <= ?2 ORDER BY due_ms, seq";
/// Entries of the schedule that one round looks at in a queue at most, purged ones included.
const DUE_LOOK_MAX: usize = 10_000;
/// Messages after which a transaction of a sweep ends, at a queue's end.
const STEP_MESSAGES_MAX: usize = 2_000;
/// Marks that one round forgets in a queue at most.
const MARKS_STEP_MAX: usize = 1_000;

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

/// One transaction's part of a sweep.
#[derive(Default)]
pub(super) struct SweepStep {
    /// What it did; `ready` and `next_at` are known in the last step only.
    pub(super) swept: Swept,
    /// The queue to go on with; `None` at the end.
    pub(super) next: Option<QueueNumber>,
}

impl Work<'_> {
    /// Sweeps queues from `from` on, up to `most` of them, until the transaction has done enough.
    pub(super) fn sweep(&mut self, from: QueueNumber, most: usize) -> Sql<SweepStep> {
        let mut step = SweepStep::default();
        let (mut messages, mut bytes) = (0, 0);
        let numbers: Vec<QueueNumber> = self.state.queues.range(from..).map(|(number, _)| *number).collect();
        for (index, number) in numbers.into_iter().enumerate() {
            if index == most || messages >= STEP_MESSAGES_MAX || bytes >= SWEEP_BYTES_MAX {
                step.next = Some(number);
                return Ok(step);
            }
            let mut budget = Budget::default();
            self.sweep_queue(number, &mut budget, &mut step.swept)?;
            messages += budget.messages;
            bytes += budget.bytes;
            step.swept.more |= budget.over;
        }
        step.swept.more |= self.dig()?;
        self.calls.forget(self.now);
        self.look_around(&mut step.swept);
        Ok(step)
    }

    /// The first queue from `from` on.
    pub(super) fn queue_from(&self, from: QueueNumber) -> Option<QueueNumber> {
        self.state.queues.range(from..).next().map(|(number, _)| *number)
    }

    fn look_around(&mut self, swept: &mut Swept) {
        let now = self.now;
        let queues = || self.state.queues.values();
        let ready = queues().filter(|queue| queue.waits(true) && !queue.is_held());
        swept.ready = ready.map(|queue| queue.entry.name.clone()).collect();
        swept.ready.sort_unstable();
        let deadlines = queues().flat_map(|queue| queue.living.values()).map(|batch| batch.until(now));
        swept.next_at = queues().filter_map(|queue| queue.next_due).chain(deadlines).min();
        self.state.next_at = swept.next_at;
        self.effects.soonest = None;
    }

    fn sweep_queue(&mut self, number: QueueNumber, budget: &mut Budget, swept: &mut Swept) -> Sql<()> {
        self.reap(number, budget, swept)?;
        self.promote(number, budget, swept)?;
        self.enforce_retention(number, budget, swept)?;
        // Whatever brought its dead letters below their limits: nothing stays parked for a reason that is over.
        self.unpark_when_below(number);
        swept.more |= self.forget_keys(number)?;
        self.forget_marks(number)?;
        self.forget_finished(number)?;
        if self.queue(number).tally.purged_to > 0 {
            swept.more |= self.purge_step(number)?;
        }
        if self.queue(number).tally.indexing != Indexing::Done {
            swept.more |= self.index_step(number)?;
        }
        Ok(())
    }

    /// Takes back what is past its deadline: the youngest batch first and each from its last lease on, so that what was
    /// leased first is first again.
    fn reap(&mut self, number: QueueNumber, budget: &mut Budget, swept: &mut Swept) -> Sql<()> {
        let now = self.now;
        for id in self.batches_youngest_first(number, |batch| batch.is_over(now)) {
            let (taken, expired) = self.take_back(number, id, |bytes| budget.take(bytes))?;
            swept.reaped += taken;
            swept.expired += expired;
            if budget.over {
                break;
            }
        }
        Ok(())
    }

    /// The living batches that `choose` names, youngest first.
    pub(super) fn batches_youngest_first(
        &self,
        number: QueueNumber,
        choose: impl Fn(&crate::store::sqlite::batch::Batch) -> bool,
    ) -> Vec<BatchId> {
        let living = self.queue(number).living.iter().filter(|(_, batch)| choose(batch));
        let mut chosen: Vec<_> = living.map(|(id, batch)| (Reverse(batch.number), *id)).collect();
        chosen.sort_unstable_by_key(|(youth, _)| *youth);
        chosen.into_iter().map(|(_, id)| id).collect()
    }

    fn promote(&mut self, number: QueueNumber, budget: &mut Budget, swept: &mut Swept) -> Sql<()> {
        let wall = self.now.wall;
        if budget.over || self.queue(number).next_due.is_none_or(|due| due > wall) {
            return Ok(());
        }
        for (due_ms, seq) in self.due(number)? {
            let Some((_, bytes)) = self.read_row(seq)? else {
                return Err(rusqlite::Error::QueryReturnedNoRows);
            };
            if !budget.take(crate::domain::record::charged_bytes(&bytes)) {
                break;
            }
            let bytes = Bytes::from(bytes);
            // What cannot be read is pending until a lease judges it.
            let record = Record::decode(bytes.clone()).ok();
            let id = match &record {
                Some(record) => record.id(),
                None => self.true_id(seq, &bytes)?,
            };
            let suspect = record.as_ref().is_some_and(Record::is_suspect);
            let moving = Moving::of_row(seq, due_ms, id, &bytes, suspect);
            self.remove_due(seq, due_ms)?;
            if record.is_some_and(|record| record.is_expired(wall)) {
                let status = self.last_status(seq, id)?;
                let (reason, place) = (DeadReason::Expired, Place::Scheduled);
                self.bury(Dying { from: seq, place, moving, bytes, reason, detail: None, status })?;
                swept.expired += 1;
            } else {
                self.leave(number, Place::Scheduled, 1, moving.charged);
                self.put_back(seq, &moving, None)?;
                swept.promoted += 1;
            }
        }
        self.look_for_due(number)
    }

    /// What is due and not purged, soonest first.
    fn due(&self, number: QueueNumber) -> Sql<Vec<(u64, Seq)>> {
        let queue = self.queue(number);
        let mut statement = self.sql.prepare_cached(DUE)?;
        let mut rows = statement.query((number, kept_ms(self.now.wall)))?;
        let (mut due, mut looked_at) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let seq: Seq = row.get(1)?;
            if !queue.is_purged(seq) {
                due.push((row.get(0)?, seq));
            }
            looked_at += 1;
            // One beyond the budget tells whether there is more.
            if due.len() > SWEEP_MESSAGES_MAX || looked_at >= DUE_LOOK_MAX {
                break;
            }
        }
        Ok(due)
    }

    fn enforce_retention(&mut self, number: QueueNumber, budget: &mut Budget, swept: &mut Swept) -> Sql<()> {
        let wall = self.now.wall;
        let retention = self.queue(number).entry.settings.dead.retention;
        let is_over = |died_ms: u64| Timestamp::from_millis(died_ms).saturating_add(retention) <= wall;
        let queue = self.queue(number);
        if queue.tally.gauges.dead == 0 || !(is_over(queue.oldest.death) || queue.dead_exceed()) {
            return Ok(());
        }
        let mut discarded = 0;
        loop {
            let Some(oldest) = self.oldest_dead(number)? else {
                self.queue_mut(number).oldest.death = u64::MAX;
                break;
            };
            self.queue_mut(number).oldest.death = oldest.died_ms;
            let must_go = is_over(oldest.died_ms) || self.queue(number).dead_exceed();
            if !must_go || !budget.take(oldest.charged) {
                break;
            }
            self.remove_dead(number, &oldest, true)?;
            discarded += 1;
        }
        if discarded > 0 {
            self.count_trimmed(number, discarded);
            swept.discarded += discarded;
        }
        Ok(())
    }

    fn forget_marks(&mut self, number: QueueNumber) -> Sql<()> {
        let now = self.now;
        let marks = &mut self.state.queues.get_mut(&number).expect("it is being swept").marks;
        let mut rows = Vec::new();
        marks.retain(|_, mark| {
            let forgotten = rows.len() < MARKS_STEP_MAX && mark.is_forgotten(now);
            if forgotten && mark.kind == LeaseKind::Pull {
                rows.push(mark.number);
            }
            !forgotten
        });
        rows.into_iter().try_for_each(|batch| self.remove_batch(number, batch))
    }
}
