//! What is where: counters, gauges, the laws between them; and where one message is.

use serde::Serialize;

use crate::domain::message::State;
use crate::domain::outcome::{Attempt, DeadReason};
use crate::domain::queue::{Generation, ParkReason, QueueName};
use crate::domain::record::Record;
use crate::domain::timestamp::Timestamp;

/// What has happened in a queue since it was made. Only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counters {
    /// Stored by publish.
    pub accepted: u64,
    /// Processed.
    pub delivered: u64,
    /// Attempts followed by another.
    pub retried: u64,
    /// Put into the dead letters.
    pub dead_lettered: u64,
    /// Put back from the dead letters.
    pub replayed: u64,
    /// Cancelled by id.
    pub cancelled: u64,
    /// Removed by purge.
    pub purged: u64,
    /// Left the dead letters otherwise than by replay.
    pub discarded: u64,
    /// Of the discarded, by limit or retention.
    pub trimmed: u64,
    /// Leases lost.
    pub recovered: u64,
    /// Put back for a shut lane.
    pub deferred: u64,
}

/// What is in a queue now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Gauges {
    /// Waiting for their turn.
    pub pending: u64,
    /// Waiting for their time.
    pub scheduled: u64,
    /// With a worker or consumer.
    pub leased: u64,
    /// In the dead letters.
    pub dead: u64,
    /// Payload and header bytes pending and scheduled.
    pub bytes_waiting: u64,
    /// Payload and header bytes leased.
    pub bytes_leased: u64,
    /// Payload and header bytes dead.
    pub bytes_dead: u64,
}

impl Counters {
    /// Adds another queue's.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.retried += other.retried;
        self.dead_lettered += other.dead_lettered;
        self.replayed += other.replayed;
        self.cancelled += other.cancelled;
        self.purged += other.purged;
        self.discarded += other.discarded;
        self.trimmed += other.trimmed;
        self.recovered += other.recovered;
        self.deferred += other.deferred;
    }

    /// Whether both laws hold with what is in the queue now.
    #[must_use]
    pub const fn laws_hold(&self, gauges: &Gauges) -> bool {
        let ended = self.delivered + self.dead_lettered + self.cancelled + self.purged;
        let inside = gauges.pending + gauges.scheduled + gauges.leased;
        self.accepted + self.replayed == ended + inside
            && self.dead_lettered == self.replayed + self.discarded + gauges.dead
    }
}

impl Gauges {
    /// Adds another queue's.
    pub fn add(&mut self, other: &Self) {
        self.pending += other.pending;
        self.scheduled += other.scheduled;
        self.leased += other.leased;
        self.dead += other.dead;
        self.bytes_waiting += other.bytes_waiting;
        self.bytes_leased += other.bytes_leased;
        self.bytes_dead += other.bytes_dead;
    }
}

/// One queue, in one atomic read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueStats {
    /// Which.
    pub name: QueueName,
    /// Which making of it.
    pub generation: Generation,
    /// What happened.
    pub counters: Counters,
    /// What is there.
    pub gauges: Gauges,
    /// When the message at the head was accepted; `None` when nothing is pending.
    pub oldest_pending_at: Option<Timestamp>,
    /// Whether an operator paused it.
    pub paused: bool,
    /// Whether it parked itself.
    pub parked: Option<ParkReason>,
    /// Junk that is no record of ours, put aside outside the laws.
    pub foreign: u64,
    /// Until when leases that ran out while the store was away are kept; `None` when none are, and of a store without a server.
    pub recovering_until: Option<Timestamp>,
}

impl QueueStats {
    /// Whether both laws hold:
    /// accepted + replayed = delivered + `dead_lettered` + cancelled + purged + pending + scheduled + leased, and
    /// `dead_lettered` = replayed + discarded + dead.
    #[must_use]
    pub const fn laws_hold(&self) -> bool {
        self.counters.laws_hold(&self.gauges)
    }
}

/// Where one message is and what is known of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Found {
    /// Where it is in its life.
    pub state: State,
    /// Why it is dead.
    pub reason: Option<DeadReason>,
    /// In the words of who decided it.
    pub detail: Option<String>,
    /// When it died, was delivered or cancelled.
    pub ended_at: Option<Timestamp>,
    /// When it is due, while scheduled.
    pub due_at: Option<Timestamp>,
    /// The record, as long as it is kept; `None` for what ended and for what is damaged.
    pub record: Option<Record>,
    /// What the finished history says, when the record is no longer kept.
    pub finished: Option<Finished>,
    /// What is remembered of its attempts, oldest first.
    pub history: Vec<Attempt>,
}

/// What is remembered of a message that was delivered or cancelled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Attempts counted.
    pub attempts: u8,
    /// Attempts allowed.
    pub attempts_max: u8,
    /// Its priority.
    pub priority: crate::domain::message::Priority,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// Its Content-Type.
    pub content_type: String,
}

/// What a cancellation came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// It will not be delivered.
    Cancelled,
    /// A worker or consumer has it: try again later.
    Leased,
    /// It had ended before, or is dead.
    Finished,
    /// No such message, or it left the history.
    Unknown,
}

/// What a sweep did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Scheduled messages made pending.
    pub promoted: u64,
    /// Leases taken back.
    pub reaped: u64,
    /// Messages that expired.
    pub expired: u64,
    /// Dead letters that retention removed.
    pub discarded: u64,
    /// Whether a budget ended the round: call again at once.
    pub more: bool,
    /// Queues with something to lease.
    pub ready: Vec<QueueName>,
    /// When time brings something next, by the store's clock; `None` when nothing waits for a moment.
    pub next_at: Option<Timestamp>,
}
