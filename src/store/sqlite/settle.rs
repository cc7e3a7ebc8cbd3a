//! Settling, extending and taking back: how leases end.
//!
//! Acknowledgements of one settlement are removed together, a run of neighbouring rows with one `DELETE`; everything else
//! moves its row. The batch's row goes when its last lease ended; a consumer's stays for a while as its mark, because who
//! settles again may come after a restart.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::outcome::{Attempt, AttemptOutcome, DeadReason};
use crate::domain::phases::Phases;
use crate::domain::record::Record;
use crate::domain::retry::Verdict;
use crate::store::lease::{BatchId, BatchRef, Extended, LeaseKind, Settled, Settlement, Way};
use crate::store::sqlite::batch::{Batch, Held, Slot};
use crate::store::sqlite::dead::Dying;
use crate::store::sqlite::key::{QueueNumber, Seq, place};
use crate::store::sqlite::moves::Place;
use crate::store::sqlite::pack::Ending;
use crate::store::sqlite::work::{Sql, Work, kept_reading};

const REMOVE_RUN: &str = "DELETE FROM messages WHERE seq BETWEEN ?1 AND ?2";
const REMOVE_BATCH: &str = "DELETE FROM batches WHERE place = ?1";
const UPDATE_BATCH: &str = "UPDATE batches SET slots = ?2 WHERE place = ?1";
const END_BATCH: &str = "UPDATE batches SET slots = ?2, ended_ms = ?3 WHERE place = ?1";
const MOVE_DEADLINE: &str = "UPDATE batches SET deadline_ms = ?2 WHERE place = ?1";

impl Work<'_> {
    /// Ends leases of a batch.
    pub(super) fn settle(&mut self, batch: &BatchRef, settlements: &[Settlement]) -> Sql<Vec<Settled>> {
        let now = self.now;
        self.effects.durable = true;
        let lost = || vec![Settled::Lost; settlements.len()];
        let Some(number) = self.number_of(&batch.queue) else { return Ok(lost()) };
        let queue = self.queue_mut(number);
        if let Some(mark) = queue.marks.get(&batch.batch).filter(|mark| !mark.is_forgotten(now)) {
            let settled = |settlement: &Settlement| mark.settled(settlement.index, &settlement.verdict);
            return Ok(if mark.token == batch.token {
                settlements.iter().map(settled).collect()
            } else {
                lost()
            });
        }
        match queue.living.get(&batch.batch) {
            Some(living) if living.token == batch.token => {}
            _ => return Ok(lost()),
        }
        let mut living = queue.living.remove(&batch.batch).expect("it was just there");
        let live_before = living.live;
        let results = self.settle_living(number, &mut living, settlements)?;
        self.keep_batch(number, batch.batch, living, live_before)?;
        Ok(results)
    }

    fn settle_living(
        &mut self,
        number: QueueNumber,
        batch: &mut Batch,
        settlements: &[Settlement],
    ) -> Sql<Vec<Settled>> {
        let mut results = Vec::with_capacity(settlements.len());
        let mut acknowledged = Vec::new();
        let mut released = Vec::new();
        for settlement in settlements {
            let Some(slot) = batch.slots.get_mut(usize::from(settlement.index)) else {
                results.push(Settled::Lost);
                continue;
            };
            let verdict = &settlement.verdict;
            let held = match std::mem::replace(slot, Slot::Settled(Some(Way::of(verdict)))) {
                Slot::Leased(held) => held,
                Slot::Settled(was) => {
                    *slot = Slot::Settled(was);
                    results.push(Way::settled_again(was, verdict));
                    continue;
                }
                Slot::Lost => {
                    *slot = Slot::Lost;
                    results.push(Settled::Lost);
                    continue;
                }
            };
            batch.live -= 1;
            results.push(Settled::Settled);
            match verdict {
                Verdict::Ack => acknowledged.push((held, settlement.attempt.as_ref())),
                Verdict::Release => released.push((settlement.index, held, settlement.attempt.as_ref())),
                verdict => self.apply(number, &held, verdict, settlement.attempt.as_ref())?,
            }
        }
        self.acknowledge(number, acknowledged)?;
        released.sort_unstable_by_key(|(index, ..)| *index);
        for (_, held, attempt) in released.iter().rev() {
            if let Some(attempt) = attempt {
                self.log(number, held.id(), attempt.followed_at(None))?;
            }
            self.unlease(number, held);
            self.put_first(held.seq, &held.moving, None)?;
        }
        Ok(results)
    }

    /// Ends the lease of a message that is to be moved.
    fn unlease(&mut self, number: QueueNumber, held: &Held) {
        self.state.leased.remove(&held.seq);
        self.leave(number, Place::Leased, 1, held.moving.charged);
    }

    /// Removes what was delivered, and remembers it.
    fn acknowledge(&mut self, number: QueueNumber, acknowledged: Vec<(Held, Option<&Attempt>)>) -> Sql<()> {
        if acknowledged.is_empty() {
            return Ok(());
        }
        let mut seqs: Vec<Seq> = acknowledged.iter().map(|(held, _)| held.seq).collect();
        seqs.sort_unstable();
        let mut remove = self.sql.prepare_cached(REMOVE_RUN)?;
        for run in seqs.chunk_by(|one, other| one.next() == *other) {
            remove.execute((run[0], run[run.len() - 1]))?;
        }
        drop(remove);
        let most = usize::from(self.queue(number).entry.settings.history.attempts);
        let mut endings = Vec::with_capacity(acknowledged.len());
        let mut bytes = 0;
        for (held, attempt) in acknowledged {
            self.state.leased.remove(&held.seq);
            self.unindex(held.seq, held.id())?;
            bytes += held.moving.charged;
            let mut log = self.log_of_leaving(held.seq, held.id())?;
            log.extend(attempt.map(Attempt::of_delivered));
            log.drain(..log.len().saturating_sub(most));
            endings.push(Ending { id: held.id(), delivered: true, finished: held.finished(), log });
        }
        let messages = endings.len() as u64;
        self.leave(number, Place::Leased, messages, bytes);
        self.queue_mut(number).tally.counters.delivered += messages;
        self.remember(number, &endings)
    }

    /// Carries out a verdict that moves the message.
    fn apply(
        &mut self,
        number: QueueNumber,
        held: &Held,
        verdict: &Verdict,
        attempt: Option<&Attempt>,
    ) -> Sql<()> {
        let wall = self.now.wall;
        if let Some(attempt) = attempt {
            let next_at = match verdict {
                Verdict::Retry { delay } if held.has_attempts_left() => Some(wall.saturating_add(*delay)),
                _ => None,
            };
            self.log(number, held.id(), attempt.followed_at(next_at))?;
        }
        let delay = match verdict {
            Verdict::Defer { delay } | Verdict::Postpone { delay } => {
                self.unlease(number, held);
                let is_counted = matches!(verdict, Verdict::Defer { .. });
                self.queue_mut(number).tally.counters.deferred += u64::from(is_counted);
                return self.schedule(held.seq, &held.moving, wall.saturating_add(*delay), None);
            }
            Verdict::Retry { delay } => Some(*delay),
            _ => None,
        };
        let Some(record) = self.read_held(number, held)? else { return Ok(()) };
        let bytes = record.after_attempt(false, false);
        let attempts = record.attempts().saturating_add(1);
        let mut moving = held.moving;
        moving.suspect = false;
        self.state.leased.remove(&held.seq);
        let (reason, detail) = match (verdict, delay) {
            (_, Some(delay)) if attempts < record.attempts_max() => {
                self.leave(number, Place::Leased, 1, moving.charged);
                self.queue_mut(number).tally.counters.retried += 1;
                return self.schedule(held.seq, &moving, wall.saturating_add(delay), Some(&bytes));
            }
            (Verdict::Dead { reason, detail }, _) => (*reason, detail.clone()),
            _ => (DeadReason::Exhausted, attempt.and_then(|attempt| attempt.error.clone())),
        };
        let status = attempt.and_then(|attempt| attempt.status);
        let (from, bytes) = (held.seq, Bytes::from(bytes));
        self.bury(Dying { from, place: Place::Leased, moving, bytes, reason, detail, status })
    }

    /// The record of a leased message. One that was damaged while it was leased is buried as such: `None`.
    fn read_held(&mut self, number: QueueNumber, held: &Held) -> Sql<Option<Record>> {
        let Some((_, bytes)) = self.read_row(held.seq)? else {
            return Err(rusqlite::Error::QueryReturnedNoRows);
        };
        let bytes = Bytes::from(bytes);
        match Record::decode(bytes.clone()) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                self.state.leased.remove(&held.seq);
                let (from, moving, detail) = (held.seq, held.moving, Some(error.to_string()));
                let reason = DeadReason::Damaged;
                self.bury(Dying { from, place: Place::Leased, moving, bytes, reason, detail, status: None })?;
                debug_assert_eq!(from.queue(), number);
                Ok(None)
            }
        }
    }

    /// Puts a batch back after leases of it ended: among the living, or among the marks when none is left.
    fn keep_batch(&mut self, number: QueueNumber, id: BatchId, batch: Batch, live_before: usize) -> Sql<()> {
        let row = place(number, batch.number);
        if batch.live > 0 {
            if batch.live < live_before {
                self.sql.prepare_cached(UPDATE_BATCH)?.execute((row, batch.slots_packed()))?;
            }
            self.queue_mut(number).living.insert(id, batch);
            return Ok(());
        }
        let mark = batch.mark(self.now);
        match batch.kind {
            LeaseKind::Worker => self.sql.prepare_cached(REMOVE_BATCH)?.execute([row])?,
            LeaseKind::Pull => {
                let ended = (row, batch.slots_packed(), kept_reading(mark.ended));
                self.sql.prepare_cached(END_BATCH)?.execute(ended)?
            }
        };
        self.queue_mut(number).marks.insert(id, mark);
        self.effects.marks.push((number, id));
        Ok(())
    }

    /// Removes the row of a consumer's mark that is over.
    pub(super) fn remove_batch(&self, number: QueueNumber, batch: u64) -> Sql<()> {
        self.sql.prepare_cached(REMOVE_BATCH)?.execute([place(number, batch)])?;
        Ok(())
    }

    /// Moves the deadline of a batch. A worker's is kept in memory only: it means nothing after a restart.
    pub(super) fn extend(&mut self, batch: &BatchRef, lease: Duration) -> Sql<Extended> {
        let now = self.now;
        let Some(number) = self.number_of(&batch.queue) else { return Ok(Extended::Lost) };
        let queue = self.state.queues.get_mut(&number).expect("its number was just looked up");
        let Some(living) = queue.living.get_mut(&batch.batch).filter(|living| living.token == batch.token)
        else {
            return Ok(Extended::Lost);
        };
        let deadline_before = living.deadline;
        living.extend(lease, now);
        let (until, deadline, row) = (living.until(now), living.deadline, place(number, living.number));
        if living.kind == LeaseKind::Pull && deadline != deadline_before {
            self.effects.durable = true;
            self.sql.prepare_cached(MOVE_DEADLINE)?.execute((row, kept_reading(deadline)))?;
        }
        Ok(Extended::Until(until))
    }

    /// The same for some of its leases.
    pub(super) fn extend_leases(
        &mut self,
        batch: &BatchRef,
        indices: &[u16],
        lease: Duration,
    ) -> Sql<Vec<Extended>> {
        let living = self
            .number_of(&batch.queue)
            .and_then(|number| self.queue(number).living.get(&batch.batch))
            .filter(|living| living.token == batch.token);
        let slots = living.map(|living| living.slots.as_slice()).unwrap_or_default();
        let is_held = |index: &u16| matches!(slots.get(usize::from(*index)), Some(Slot::Leased(_)));
        let held: Vec<bool> = indices.iter().map(is_held).collect();
        let extended = if held.contains(&true) { self.extend(batch, lease)? } else { Extended::Lost };
        Ok(held.into_iter().map(|is_held| if is_held { extended } else { Extended::Lost }).collect())
    }

    /// Takes a batch back, from its last lease on, as long as `may` says so for the bytes of each; gives how many leases
    /// were taken and how many of their messages had expired.
    pub(super) fn take_back(
        &mut self,
        number: QueueNumber,
        id: BatchId,
        mut may: impl FnMut(u64) -> bool,
    ) -> Sql<(u64, u64)> {
        let Some(mut batch) = self.queue_mut(number).living.remove(&id) else { return Ok((0, 0)) };
        let live_before = batch.live;
        let (mut taken, mut expired) = (0, 0);
        for index in (0..batch.slots.len()).rev() {
            let Slot::Leased(held) = &batch.slots[index] else { continue };
            if !may(held.moving.charged) {
                break;
            }
            let held = held.clone();
            batch.slots[index] = Slot::Lost;
            batch.live -= 1;
            taken += 1;
            expired += u64::from(self.lose(number, &batch, &held)?);
        }
        self.keep_batch(number, id, batch, live_before)?;
        Ok((taken, expired))
    }

    /// What a lost lease means for its message; gives whether it had expired.
    fn lose(&mut self, number: QueueNumber, batch: &Batch, held: &Held) -> Sql<bool> {
        let wall = self.now.wall;
        self.queue_mut(number).tally.counters.recovered += 1;
        let Some(record) = self.read_held(number, held)? else { return Ok(false) };
        let suspect = batch.kind == LeaseKind::Worker;
        let bytes = record.after_attempt(true, suspect);
        let attempts = record.attempts().saturating_add(1);
        let duration_ms = u64::try_from(wall.since(batch.leased_at).as_millis()).unwrap_or(u64::MAX);
        let attempt = Attempt {
            number: attempts,
            at: batch.leased_at,
            duration_ms,
            outcome: AttemptOutcome::Lost,
            status: None,
            error: None,
            excerpt: None,
            phases: Phases::NONE,
            next_at: None,
        };
        self.log(number, held.id(), attempt)?;
        self.state.leased.remove(&held.seq);
        let mut moving = held.moving;
        moving.suspect = suspect;
        let reason = if attempts >= record.attempts_max() {
            DeadReason::Poison
        } else if record.is_expired(wall) {
            DeadReason::Expired
        } else {
            self.leave(number, Place::Leased, 1, moving.charged);
            self.queue_mut(number).tally.counters.retried += 1;
            self.put_first(held.seq, &moving, Some(&bytes))?;
            return Ok(false);
        };
        let (from, bytes) = (held.seq, Bytes::from(bytes));
        self.bury(Dying { from, place: Place::Leased, moving, bytes, reason, detail: None, status: None })?;
        Ok(reason == DeadReason::Expired)
    }
}
