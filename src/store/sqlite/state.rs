//! What the writer keeps in memory: a cache of the file, built from it and dropped at every rollback.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::clock::{Clock, Tick};
use crate::domain::message::Priority;
use crate::domain::queue::{ParkReason, QueueName, WhenFull};
use crate::domain::timestamp::Timestamp;
use crate::store::lease::{BatchId, LeaseKind};
use crate::store::sqlite::batch::{Batch, Mark};
use crate::store::sqlite::key::{Band, QueueNumber, Seq};
use crate::store::stats::{Counters, Gauges, QueueStats};
use crate::store::turns::{List, Turns};
use crate::store::{QueueEntry, QueueRef};

/// One reading of the clocks, taken once for all that a transaction does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// For due moments and all that is shown.
    pub(super) wall: Timestamp,
    /// For what must not jump.
    pub(super) tick: Tick,
}

impl Now {
    /// Reads both clocks.
    pub(super) fn read(clock: &Clock) -> Self {
        Self { wall: clock.now(), tick: clock.tick() }
    }

    /// The clock that leases of a kind go by: a worker's by the monotonic one; a consumer's by the wall, since its leases
    /// outlive the process.
    pub(super) fn reading(self, kind: LeaseKind) -> Duration {
        match kind {
            LeaseKind::Worker => self.tick.since(Tick::default()),
            LeaseKind::Pull => Duration::from_millis(self.wall.as_millis()),
        }
    }
}

/// Everything.
#[derive(Default)]
pub(super) struct State {
    /// The queues by number.
    pub(super) queues: BTreeMap<QueueNumber, Queue>,
    /// Their numbers by name.
    pub(super) names: HashMap<QueueName, QueueNumber>,
    /// Deleted queues whose rows are not all gone.
    pub(super) graves: BTreeSet<QueueNumber>,
    /// The rows that are leased.
    pub(super) leased: HashSet<Seq>,
    /// The number of the last transaction.
    pub(super) transactions: u64,
    /// The next moment that the last sweep, or a post since, named.
    pub(super) next_at: Option<Timestamp>,
}

impl State {
    /// The number of the queue that a call means; `None` when it is gone.
    pub(super) fn number_of(&self, queue: &QueueRef) -> Option<QueueNumber> {
        let number = *self.names.get(&queue.name)?;
        self.queues
            .get(&number)
            .filter(|known| known.entry.generation == queue.generation)
            .map(|known| known.number)
    }
}

/// The numbers of a queue that are kept in its row of `counts`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    /// What happened.
    pub(super) counters: Counters,
    /// What is there.
    pub(super) gauges: Gauges,
    /// The last running number that was given.
    pub(super) last_number: u64,
    /// Rows of idempotency keys, those whose time is over included.
    pub(super) keys: u64,
    /// Bytes of the attempt log.
    pub(super) log_bytes: u64,
    /// Bytes of the finished messages.
    pub(super) finished_bytes: u64,
    /// The number that the next finished message gets, from 1.
    pub(super) finished_next: u64,
    /// Finished messages below this number are forgotten, whether their row is gone or not.
    pub(super) finished_floor: u64,
    /// Waiting rows up to this running number were purged; 0 when none of them is left.
    pub(super) purged_to: u64,
    /// Whether the id index is being brought in line with `lookup`.
    pub(super) indexing: Indexing,
}

/// Whether the id index of a queue is as its `lookup` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Indexing {
    /// It is.
    #[default]
    Done,
    /// `lookup` was switched on: older rows are being entered.
    Filling,
    /// `lookup` was switched off: entries of what is not scheduled are being removed.
    Clearing,
}

impl Indexing {
    const ALL: [Self; 3] = [Self::Done, Self::Filling, Self::Clearing];

    /// Its number in the file.
    pub(super) const fn index(self) -> u8 {
        self as u8
    }

    /// The one of that number.
    pub(super) fn from_index(index: u8) -> Self {
        Self::ALL.get(usize::from(index)).copied().unwrap_or_default()
    }
}

/// The first row of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Front {
    /// There is none.
    Empty,
    /// This one, accepted then (milliseconds).
    At(Seq, u64),
    /// The first waiting one from this key on, not looked up yet.
    From(Seq),
}

/// A message that waits apart: its row and when it was accepted (milliseconds).
pub(super) type Apart = (Seq, u64);

/// The earliest moment (milliseconds) of each kind of row that time removes, or one before it: what saves a look at the
/// file. 0 means: look.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Oldest {
    /// Death of a dead letter.
    pub(super) death: u64,
    /// End of a finished message.
    pub(super) finish: u64,
    /// End of an idempotency key.
    pub(super) key: u64,
}

/// A queue.
pub(super) struct Queue {
    /// Its number in the file.
    pub(super) number: QueueNumber,
    /// As shown.
    pub(super) entry: QueueEntry,
    /// Its numbers.
    pub(super) tally: Tally,
    /// Its numbers as the file has them.
    pub(super) kept: Tally,
    /// Paused and parked, as the file has them.
    pub(super) kept_hold: (bool, Option<ParkReason>),
    /// Whether this transaction changed something.
    pub(super) touched: bool,
    /// The first row of each list that is a range of the table: fresh, then returned, by priority.
    pub(super) fronts: [Front; 6],
    /// Suspects, first to be drawn first.
    pub(super) suspects: VecDeque<Apart>,
    /// The head, first to be drawn first.
    pub(super) head: VecDeque<Apart>,
    /// Where the wheel stands.
    pub(super) turns: Turns,
    /// Batches with something leased.
    pub(super) living: HashMap<BatchId, Batch>,
    /// Batches that ended not long ago.
    pub(super) marks: HashMap<BatchId, Mark>,
    /// When the first scheduled message is due.
    pub(super) next_due: Option<Timestamp>,
    /// What saves looks at the file.
    pub(super) oldest: Oldest,
    /// How far the removal of purged rows came in this process.
    pub(super) purge_from: Option<Seq>,
    /// How far the id index came in this process.
    pub(super) index_from: IndexFrom,
    /// Why nothing can be leased: the next message is of a newer version.
    pub(super) newer: Option<String>,
    /// Whether that is shown.
    pub(super) newer_shown: bool,
    /// Deadlines of batches whose end was undone.
    pub(super) undone: Vec<(BatchId, Duration)>,
}

/// How far bringing the id index in line came: a cache, so that no step begins at the beginning.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct IndexFrom {
    /// Rows before this one have an entry.
    pub(super) row: Option<Seq>,
    /// Entries up to this id were looked at.
    pub(super) id: [u8; 16],
}

impl Queue {
    /// A queue as the file has it; its lists are not looked at yet.
    pub(super) fn new(number: QueueNumber, entry: QueueEntry, tally: Tally) -> Self {
        let kept_hold = (entry.paused, entry.parked);
        // Purged rows lie before all others and are passed over at once.
        let unlooked = |band| Front::From(Seq::range_up_to(number, band, tally.purged_to).1.next());
        Self {
            number,
            entry,
            tally,
            kept: tally,
            kept_hold,
            touched: false,
            fronts: std::array::from_fn(|index| unlooked(Band::ALL[index])),
            suspects: VecDeque::new(),
            head: VecDeque::new(),
            turns: Turns::default(),
            living: HashMap::new(),
            marks: HashMap::new(),
            next_due: None,
            oldest: Oldest::default(),
            purge_from: None,
            index_from: IndexFrom::default(),
            newer: None,
            newer_shown: false,
            undone: Vec::new(),
        }
    }

    /// The front of a list that is a range of the table.
    pub(super) fn front_mut(&mut self, list: List) -> Option<&mut Front> {
        match list {
            List::Fresh(priority) => Some(&mut self.fronts[usize::from(priority.index())]),
            List::Returned(priority) => Some(&mut self.fronts[3 + usize::from(priority.index())]),
            List::Suspects | List::Head => None,
        }
    }

    /// Whether a lease would find something: suspects count only when it allows them.
    pub(super) fn waits(&self, suspects: bool) -> bool {
        self.tally.gauges.pending > if suspects { 0 } else { self.suspects.len() as u64 }
    }

    /// Whether it must not be leased from.
    pub(super) fn is_held(&self) -> bool {
        self.entry.paused || self.entry.parked.is_some()
    }

    /// Whether a row was purged and only waits to be removed. What is leased was not.
    pub(super) fn is_purged(&self, seq: Seq) -> bool {
        seq.number() <= self.tally.purged_to
    }

    /// Whether rows that are not scheduled may have an entry in the id index.
    pub(super) fn is_indexed(&self) -> bool {
        self.entry.settings.lookup || self.tally.indexing == Indexing::Clearing
    }

    /// The limit that so much more would exceed: the setting and its value.
    pub(super) fn limit_exceeded_by(&self, messages: u64, bytes: u64) -> Option<(&'static str, u64)> {
        let (limits, gauges) = (&self.entry.settings.limits, &self.tally.gauges);
        if gauges.pending + gauges.scheduled + gauges.leased + messages > limits.length_max {
            return Some(("limits.length_max", limits.length_max));
        }
        let over = gauges.bytes_waiting + gauges.bytes_leased + bytes > limits.bytes_max;
        over.then_some(("limits.bytes_max", limits.bytes_max))
    }

    /// Whether the dead letters would be at a limit that parks the queue, with so many more.
    pub(super) fn dead_full(&self, more: u64, more_bytes: u64) -> bool {
        let limits = &self.entry.settings.dead;
        let at_length = self.tally.gauges.dead + more >= limits.length_max;
        let at_bytes = self.tally.gauges.bytes_dead + more_bytes >= limits.bytes_max;
        limits.when_full == WhenFull::Park && (at_length || at_bytes)
    }

    /// Whether there are dead letters to trim. The last one stays, whatever its size.
    pub(super) fn dead_exceed(&self) -> bool {
        let (limits, gauges) = (&self.entry.settings.dead, &self.tally.gauges);
        let over = gauges.dead > limits.length_max || gauges.bytes_dead > limits.bytes_max;
        limits.when_full == WhenFull::Trim && over && gauges.dead > 1
    }

    /// Counters and gauges in one read, as far as the fronts were looked up.
    pub(super) fn stats(&self) -> QueueStats {
        let fronts = self.fronts.iter().filter_map(|front| match front {
            Front::At(_, accepted_ms) => Some(*accepted_ms),
            Front::Empty | Front::From(_) => None,
        });
        // Those apart lie in no order of age, and are few.
        let apart = [self.suspects.front(), self.head.front()]
            .into_iter()
            .flatten()
            .map(|(_, accepted_ms)| *accepted_ms);
        QueueStats {
            name: self.entry.name.clone(),
            generation: self.entry.generation,
            counters: self.tally.counters,
            gauges: self.tally.gauges,
            oldest_pending_at: fronts.chain(apart).min().map(Timestamp::from_millis),
            paused: self.entry.paused,
            parked: self.entry.parked,
            foreign: 0,
            recovering_until: None,
        }
    }
}

/// A message on its way between two places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moving {
    /// Which.
    pub(super) id: crate::domain::id::MessageId,
    /// Its priority.
    pub(super) priority: Priority,
    /// When it was accepted, milliseconds.
    pub(super) accepted_ms: u64,
    /// What it counts against the limits.
    pub(super) charged: u64,
    /// Whether it is to be leased alone.
    pub(super) suspect: bool,
}
