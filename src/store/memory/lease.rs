//! Leasing, settling, extending, taking back.

use std::time::Duration;

use crate::domain::outcome::{Attempt, AttemptOutcome, DeadReason};
use crate::domain::phases::Phases;
use crate::domain::record::{Record, RecordError};
use crate::domain::retry::Verdict;
use crate::domain::timestamp::Timestamp;
use crate::store::lease::{
    BatchId, BatchRef, Extended, Lease, LeaseKind, LeaseRequest, Leased, Settled, Settlement, Token, Way,
};
use crate::store::memory::Now;
use crate::store::memory::batch::{Batch, Slot};
use crate::store::memory::lists::{End, Seq};
use crate::store::memory::queue::{Place, Queue};
use crate::store::turns::{List, Turns};
use crate::store::{SWEEP_BYTES_MAX, SWEEP_MESSAGES_MAX};

/// What a lease will do, before anything is changed.
#[derive(Default)]
struct Plan {
    turns: Turns,
    take: Vec<(Seq, Record)>,
    taken_bytes: u64,
    die: Vec<(Seq, DeadReason, Option<String>)>,
    die_bytes: u64,
}

/// What is to be done with a message whose turn it is.
enum Fate {
    Taken(Record),
    Dead(DeadReason, Option<String>),
}

impl Queue {
    /// Leases messages as a batch. The error is the version of a record that is newer than this program.
    pub(super) fn lease(&mut self, request: &LeaseRequest, now: Now) -> Result<Leased, u8> {
        if let Some(batch) = self.batches.of(request.batch, now) {
            let more = batch.ended.is_none() && self.lists.wait(request.suspects) && !self.is_held();
            return Ok(self.leased(request, batch, more, now));
        }
        let nothing = |more: bool| {
            let batch = BatchRef { queue: request.queue.clone(), batch: request.batch, token: Token(0) };
            Leased { batch, until: now.wall, leases: Vec::new(), more }
        };
        if self.is_held() {
            return Ok(nothing(false));
        }
        let plan = self.plan(request, now.wall)?;
        self.lists.turns = plan.turns;
        for (seq, reason, detail) in plan.die {
            let status = self.message(seq).log.back().and_then(|attempt| attempt.status);
            self.bury(seq, reason, detail, status, now);
        }
        let slots: Vec<Slot> = plan.take.iter().map(|(seq, _)| Slot::Leased(*seq)).collect();
        for (seq, _) in plan.take {
            self.move_to(seq, Place::Leased, End::Back);
        }
        let more = self.lists.wait(request.suspects) && !self.is_held();
        if slots.is_empty() {
            return Ok(nothing(more));
        }
        let begun = now.reading(request.kind);
        let batch = Batch {
            token: Token(fastrand::u64(1..)),
            kind: request.kind,
            number: self.number(),
            leased_at: now.wall,
            begun,
            deadline: begun.saturating_add(request.lease),
            slots,
            ended: None,
        };
        let leased = self.leased(request, &batch, more, now);
        self.soonest = Some(self.soonest.map_or(leased.until, |soonest| soonest.min(leased.until)));
        self.batches.add(request.batch, batch);
        Ok(leased)
    }

    /// What is left of a batch.
    fn leased(&self, request: &LeaseRequest, batch: &Batch, more: bool, now: Now) -> Leased {
        let lease = |(place, slot): (usize, &Slot)| match slot {
            Slot::Leased(seq) => Some(Lease {
                index: u16::try_from(place).expect("a batch has at most 1,000 places"),
                record: self.message(*seq).record().expect("it was read when it was leased"),
            }),
            Slot::Settled(_) | Slot::Lost => None,
        };
        Leased {
            batch: BatchRef { queue: request.queue.clone(), batch: request.batch, token: batch.token },
            until: batch.until(now),
            leases: batch.slots.iter().enumerate().filter_map(lease).collect(),
            more,
        }
    }

    /// Decides what a lease takes and what it finds dead. The error is the version of a record that nobody may touch.
    fn plan(&self, request: &LeaseRequest, now: Timestamp) -> Result<Plan, u8> {
        let mut plan = Plan { turns: self.lists.turns, ..Plan::default() };
        if request.suspects {
            for seq in self.lists.of(List::Suspects) {
                if self.plan_ends(&plan) {
                    return Ok(plan);
                }
                match self.judge(*seq, now)? {
                    Fate::Dead(reason, detail) => self.plan_death(&mut plan, *seq, reason, detail),
                    Fate::Taken(record) => {
                        let alone = record.must_be_alone();
                        let bytes = plan.taken_bytes + record.charged_bytes();
                        if !plan.take.is_empty() && (alone || bytes > request.bytes_max) {
                            return Ok(plan);
                        }
                        plan.taken_bytes = bytes;
                        plan.take.push((*seq, record));
                        if alone || plan.take.len() == usize::from(request.max) {
                            return Ok(plan);
                        }
                    }
                }
            }
            if !plan.take.is_empty() {
                return Ok(plan);
            }
        }
        let mut draws = self.lists.draws();
        while plan.take.len() < usize::from(request.max) && !self.plan_ends(&plan) {
            let Some(seq) = draws.next() else { break };
            match self.judge(seq, now)? {
                Fate::Dead(reason, detail) => self.plan_death(&mut plan, seq, reason, detail),
                Fate::Taken(record) => {
                    let bytes = plan.taken_bytes + record.charged_bytes();
                    if bytes > request.bytes_max && !plan.take.is_empty() {
                        break;
                    }
                    plan.taken_bytes = bytes;
                    plan.take.push((seq, record));
                }
            }
            plan.turns = draws.turns;
        }
        Ok(plan)
    }

    fn plan_death(&self, plan: &mut Plan, seq: Seq, reason: DeadReason, detail: Option<String>) {
        plan.die_bytes += self.message(seq).charged_bytes();
        plan.die.push((seq, reason, detail));
    }

    /// Whether so many died that the call must end, or that the queue will be parked.
    fn plan_ends(&self, plan: &Plan) -> bool {
        let budget_over = plan.die.len() >= SWEEP_MESSAGES_MAX || plan.die_bytes >= SWEEP_BYTES_MAX;
        budget_over || (!plan.die.is_empty() && self.dead_full(plan.die.len() as u64, plan.die_bytes))
    }

    fn judge(&self, seq: Seq, now: Timestamp) -> Result<Fate, u8> {
        match self.message(seq).record() {
            Ok(record) if record.is_expired(now) => Ok(Fate::Dead(DeadReason::Expired, None)),
            Ok(record) => Ok(Fate::Taken(record)),
            Err(error @ RecordError::Damaged(_)) => {
                Ok(Fate::Dead(DeadReason::Damaged, Some(error.to_string())))
            }
            Err(RecordError::Newer(version)) => Err(version),
        }
    }

    /// Ends leases of a batch.
    pub(super) fn settle(&mut self, batch: &BatchRef, settlements: &[Settlement], now: Now) -> Vec<Settled> {
        if self.batches.held(batch, now).is_none() {
            return vec![Settled::Lost; settlements.len()];
        }
        let mut released = Vec::new();
        let mut results = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            let slot = self.batches.known(batch.batch).slots.get_mut(usize::from(settlement.index));
            results.push(match slot {
                None | Some(Slot::Lost) => Settled::Lost,
                Some(Slot::Settled(way)) => Way::settled_again(Some(*way), &settlement.verdict),
                Some(slot @ &mut Slot::Leased(seq)) => {
                    *slot = Slot::Settled(Way::of(&settlement.verdict));
                    self.apply(seq, settlement, &mut released, now);
                    Settled::Settled
                }
            });
        }
        released.sort_unstable();
        for (_, seq) in released.into_iter().rev() {
            self.put_first(seq);
        }
        self.batches.known(batch.batch).end_when_empty(now);
        results
    }

    /// Carries out a verdict. What is released goes back when the whole call is known, see [`Queue::settle`].
    fn apply(&mut self, seq: Seq, settlement: &Settlement, released: &mut Vec<(u16, Seq)>, now: Now) {
        if let Some(attempt) = &settlement.attempt {
            let noted = match settlement.verdict {
                Verdict::Ack => attempt.of_delivered(),
                Verdict::Retry { delay } if self.has_attempts_left(seq) => {
                    attempt.followed_at(Some(now.wall.saturating_add(delay)))
                }
                _ => attempt.followed_at(None),
            };
            self.log(seq, noted);
        }
        let status = settlement.attempt.as_ref().and_then(|attempt| attempt.status);
        match &settlement.verdict {
            Verdict::Ack => {
                self.counters.delivered += 1;
                self.finish(seq, true, now);
            }
            Verdict::Retry { delay } => {
                let record = self.count_attempt(seq, false, false);
                if record.attempts() >= record.attempts_max() {
                    let words = settlement.attempt.as_ref().and_then(|attempt| attempt.error.clone());
                    self.bury(seq, DeadReason::Exhausted, words, status, now);
                } else {
                    self.counters.retried += 1;
                    self.schedule(seq, now.wall.saturating_add(*delay), now);
                }
            }
            Verdict::Dead { reason, detail } => {
                self.count_attempt(seq, false, false);
                self.bury(seq, *reason, detail.clone(), status, now);
            }
            Verdict::Defer { delay } | Verdict::Postpone { delay } => {
                self.counters.deferred += u64::from(matches!(settlement.verdict, Verdict::Defer { .. }));
                self.schedule(seq, now.wall.saturating_add(*delay), now);
            }
            Verdict::Release => released.push((settlement.index, seq)),
        }
    }

    /// Whether another attempt may follow the one that is under way.
    fn has_attempts_left(&self, seq: Seq) -> bool {
        let record = self.message(seq).record();
        record.is_ok_and(|record| record.attempts().saturating_add(1) < record.attempts_max())
    }

    /// Moves the deadline of a batch.
    pub(super) fn extend(&mut self, batch: &BatchRef, lease: Duration, now: Now) -> Extended {
        match self.batches.held(batch, now) {
            Some(held) if held.ended.is_none() => {
                held.extend(lease, now);
                Extended::Until(held.until(now))
            }
            _ => Extended::Lost,
        }
    }

    /// The same for some of its leases.
    pub(super) fn extend_leases(
        &mut self,
        batch: &BatchRef,
        indices: &[u16],
        lease: Duration,
        now: Now,
    ) -> Vec<Extended> {
        let slots = self.batches.held(batch, now).map(|held| held.slots.as_slice()).unwrap_or_default();
        let is_held = |index: &u16| matches!(slots.get(usize::from(*index)), Some(Slot::Leased(_)));
        let held: Vec<bool> = indices.iter().map(is_held).collect();
        let extended = if held.contains(&true) { self.extend(batch, lease, now) } else { Extended::Lost };
        held.into_iter().map(|is_held| if is_held { extended } else { Extended::Lost }).collect()
    }

    /// Takes the lease at one place of a batch back: it was lost. Gives whether the message had expired.
    pub(super) fn take_back(&mut self, id: BatchId, place: usize, seq: Seq, now: Now) -> bool {
        let batch = self.batches.known(id);
        batch.slots[place] = Slot::Lost;
        let (kind, leased_at) = (batch.kind, batch.leased_at);
        self.counters.recovered += 1;
        let record = self.count_attempt(seq, true, kind == LeaseKind::Worker);
        let duration_ms = u64::try_from(now.wall.since(leased_at).as_millis()).unwrap_or(u64::MAX);
        let (number, outcome) = (record.attempts(), AttemptOutcome::Lost);
        let attempt = Attempt {
            number,
            at: leased_at,
            duration_ms,
            outcome,
            status: None,
            error: None,
            excerpt: None,
            phases: Phases::NONE,
            next_at: None,
        };
        self.log(seq, attempt);
        if record.attempts() >= record.attempts_max() {
            self.bury(seq, DeadReason::Poison, None, None, now);
        } else if record.is_expired(now.wall) {
            self.bury(seq, DeadReason::Expired, None, None, now);
            return true;
        } else {
            self.counters.retried += 1;
            self.put_first(seq);
        }
        false
    }
}
