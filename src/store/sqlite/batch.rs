//! Batches of leases in memory: who holds what, until when, and what became of it.

use std::time::Duration;

use crate::domain::id::MessageId;
use crate::domain::message::{Headers, Priority};
use crate::domain::record::Record;
use crate::domain::retry::Verdict;
use crate::domain::timestamp::Timestamp;
use crate::store::lease::{LeaseKind, Settled, Token, Way};
use crate::store::sqlite::key::Seq;
use crate::store::sqlite::state::{Moving, Now};
use crate::store::stats::Finished;
use crate::store::{CALL_MEMORY, LEASE_LIFE_MAX};

/// Settled in a way that nobody remembers: what earlier versions wrote of every settled lease.
const SETTLED: i64 = 0;
const LOST: i64 = -1;
/// Settled in the first [`Way`]; the others below it, in their order.
const SETTLED_IN_FIRST_WAY: i64 = -2;

/// What is kept of a leased message, so that an acknowledgement need not read its row.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Its row.
    pub(super) seq: Seq,
    /// What moving it needs.
    pub(super) moving: Moving,
    attempts: u8,
    attempts_max: u8,
    payload_bytes: u64,
    content_type: Box<str>,
}

impl Held {
    /// Of a record that was read from the row `seq`.
    pub(super) fn new(seq: Seq, record: &Record) -> Self {
        let headers = Headers::decode(&record.headers());
        Self {
            seq,
            moving: Moving {
                id: record.id(),
                priority: record.priority(),
                accepted_ms: record.accepted_at().as_millis(),
                charged: record.charged_bytes(),
                suspect: record.is_suspect(),
            },
            attempts: record.attempts(),
            attempts_max: record.attempts_max(),
            payload_bytes: record.payload().len() as u64,
            content_type: headers.map(|headers| headers.content_type).unwrap_or_default().into_boxed_str(),
        }
    }

    /// Of a row whose record was damaged while it was leased: its settlement finds that out again.
    pub(super) fn unreadable(seq: Seq, bytes: &[u8]) -> Self {
        let id = Record::peek_id(bytes).unwrap_or(MessageId::from_bytes([0; 16]));
        let moving = Moving::of_row(seq, 0, id, bytes, false);
        Self { seq, moving, attempts: 0, attempts_max: 0, payload_bytes: 0, content_type: Box::default() }
    }

    /// The message.
    pub(super) const fn id(&self) -> MessageId {
        self.moving.id
    }

    /// What the history is to say when it was delivered.
    pub(super) fn finished(&self) -> Finished {
        Finished {
            accepted_at: Timestamp::from_millis(self.moving.accepted_ms),
            attempts: self.attempts.saturating_add(1),
            attempts_max: self.attempts_max,
            priority: self.priority(),
            payload_bytes: self.payload_bytes,
            content_type: self.content_type.to_string(),
        }
    }

    /// Whether another attempt may follow the one that is under way.
    pub(super) const fn has_attempts_left(&self) -> bool {
        self.attempts.saturating_add(1) < self.attempts_max
    }

    const fn priority(&self) -> Priority {
        self.moving.priority
    }
}

/// What became of one lease of a batch.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// Nothing yet.
    Leased(Held),
    /// It was settled, in that way; `None` where nobody remembers which.
    Settled(Option<Way>),
    /// It was taken back.
    Lost,
}

/// A batch with something leased. Its times are read from the clock of its kind, see [`Now::reading`].
pub(super) struct Batch {
    /// Who knows it holds the batch.
    pub(super) token: Token,
    /// Who leased.
    pub(super) kind: LeaseKind,
    /// Drawn when it was leased: the youngest batch has the greatest. Names its row.
    pub(super) number: u64,
    /// When it was leased, by the wall.
    pub(super) leased_at: Timestamp,
    /// When it was leased.
    pub(super) begun: Duration,
    /// Until when it is held.
    pub(super) deadline: Duration,
    /// Its leases, each at its place.
    pub(super) slots: Vec<Slot>,
    /// How many of them are leased.
    pub(super) live: usize,
}

/// A moment of a clock as the wall shows it now.
fn on_the_wall(kind: LeaseKind, moment: Duration, now: Now) -> Timestamp {
    match kind {
        LeaseKind::Pull => Timestamp::from_millis(u64::try_from(moment.as_millis()).unwrap_or(u64::MAX)),
        LeaseKind::Worker => now.wall.saturating_add(moment.saturating_sub(now.reading(kind))),
    }
}

impl Batch {
    /// Until when it is held, by the wall as it stands.
    pub(super) fn until(&self, now: Now) -> Timestamp {
        on_the_wall(self.kind, self.deadline, now)
    }

    /// Moves the deadline, never nearer and never beyond the longest life.
    pub(super) fn extend(&mut self, lease: Duration, now: Now) {
        let wanted = now.reading(self.kind).saturating_add(lease);
        let last = self.begun.saturating_add(LEASE_LIFE_MAX);
        self.deadline = self.deadline.max(wanted.min(last));
    }

    /// Whether its time is over.
    pub(super) fn is_over(&self, now: Now) -> bool {
        self.deadline <= now.reading(self.kind)
    }

    /// Its slots as kept in its row.
    pub(super) fn slots_packed(&self) -> Vec<u8> {
        let bits = |slot: &Slot| match slot {
            Slot::Leased(held) => held.seq.to_bits(),
            Slot::Settled(None) => SETTLED,
            Slot::Settled(Some(way)) => SETTLED_IN_FIRST_WAY - *way as i64,
            Slot::Lost => LOST,
        };
        self.slots.iter().flat_map(|slot| bits(slot).to_be_bytes()).collect()
    }

    /// What is remembered of it now that it ended.
    pub(super) fn mark(&self, now: Now) -> Mark {
        let fate = |slot: &Slot| match slot {
            Slot::Settled(way) => Fate::Settled(*way),
            Slot::Leased(_) | Slot::Lost => Fate::Lost,
        };
        Mark {
            token: self.token,
            kind: self.kind,
            number: self.number,
            deadline: self.deadline,
            ended: now.reading(self.kind),
            fates: self.slots.iter().map(fate).collect(),
        }
    }
}

/// What a row says of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeptSlot {
    /// Leased, in this row.
    Leased(Seq),
    /// It was settled, in that way; `None` where nobody remembers which.
    Settled(Option<Way>),
    /// It was taken back.
    Lost,
}

/// Reads [`Batch::slots_packed`].
pub(super) fn unpack_slots(bytes: &[u8]) -> Vec<KeptSlot> {
    let (words, _) = bytes.as_chunks::<8>();
    let read = |word: &[u8; 8]| match i64::from_be_bytes(*word) {
        SETTLED => KeptSlot::Settled(None),
        LOST => KeptSlot::Lost,
        bits => match usize::try_from(SETTLED_IN_FIRST_WAY - bits) {
            Ok(place) => KeptSlot::Settled(Way::ALL.get(place).copied()),
            Err(_) => KeptSlot::Leased(Seq::from_bits(bits)),
        },
    };
    words.iter().map(read).collect()
}

/// What is remembered of a batch that ended.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// Who knows it held the batch.
    pub(super) token: Token,
    /// Who leased.
    pub(super) kind: LeaseKind,
    /// Names its row, if it has one.
    pub(super) number: u64,
    /// Until when it would have been held.
    pub(super) deadline: Duration,
    /// When its last lease ended.
    pub(super) ended: Duration,
    /// What became of each lease.
    pub(super) fates: Box<[Fate]>,
}

/// What became of one lease of a batch that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It was settled, in that way; `None` where nobody remembers which.
    Settled(Option<Way>),
    /// It was taken back.
    Lost,
}

impl Mark {
    /// Until when it would have been held, by the wall as it stands.
    pub(super) fn until(&self, now: Now) -> Timestamp {
        on_the_wall(self.kind, self.deadline, now)
    }

    /// Whether it is over.
    pub(super) fn is_forgotten(&self, now: Now) -> bool {
        self.ended.saturating_add(CALL_MEMORY) <= now.reading(self.kind)
    }

    /// What a settlement of one of its leases comes to.
    pub(super) fn settled(&self, index: u16, verdict: &Verdict) -> Settled {
        match self.fates.get(usize::from(index)) {
            Some(Fate::Settled(way)) => Way::settled_again(*way, verdict),
            Some(Fate::Lost) | None => Settled::Lost,
        }
    }
}
