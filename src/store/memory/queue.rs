//! One queue: its messages, where each of them is, and the numbers kept in the same step.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::id::MessageId;
use crate::domain::message::{Headers, Priority};
use crate::domain::outcome::{Attempt, DeadReason};
use crate::domain::queue::{ParkReason, QueueSettings, WhenFull};
use crate::domain::record::{self, Record, RecordError};
use crate::domain::timestamp::Timestamp;
use crate::store::dead::last_destination;
use crate::store::memory::Now;
use crate::store::memory::batch::Batches;
use crate::store::memory::history::{Ended, Endings};
use crate::store::memory::keys::Keys;
use crate::store::memory::lists::{End, Lists, Seq};
use crate::store::stats::{Counters, Finished, Gauges, QueueStats};
use crate::store::turns::List;
use crate::store::{QueueEntry, SWEEP_MESSAGES_MAX};

/// A message that is in the queue or in its dead letters.
pub(super) struct Message {
    /// Its id.
    pub(super) id: MessageId,
    /// Its priority.
    pub(super) priority: Priority,
    /// When it was accepted.
    pub(super) accepted_at: Timestamp,
    /// Its record, as handed in or as the last attempt left it.
    pub(super) bytes: Bytes,
    /// What is remembered of its attempts, oldest first.
    pub(super) log: VecDeque<Attempt>,
    /// Where it is.
    pub(super) place: Place,
}

/// Where a message is.
pub(super) enum Place {
    /// In one of the lists.
    Pending(List),
    /// Waiting for its time; ties go by the number.
    Scheduled {
        /// When it may be promoted.
        due: Timestamp,
        /// Drawn when it was scheduled.
        number: u64,
    },
    /// In a batch.
    Leased,
    /// In the dead letters.
    Dead(Box<Death>),
}

/// How a message died.
#[derive(Clone)]
pub(super) struct Death {
    /// Drawn when it died: ties of one moment go by it.
    pub(super) number: u64,
    /// Why.
    pub(super) reason: DeadReason,
    /// In the words of who decided it.
    pub(super) detail: Option<String>,
    /// When.
    pub(super) died_at: Timestamp,
    /// The last attempt's HTTP status.
    pub(super) status: Option<u16>,
    /// Where the last attempt went to.
    pub(super) destination: Option<String>,
    /// Attempts counted.
    pub(super) attempts: u8,
}

/// A queue. Every message is in exactly one place; gauges and counters change in the step that moves it.
pub(super) struct Queue {
    /// As shown.
    pub(super) entry: QueueEntry,
    /// What happened.
    pub(super) counters: Counters,
    /// What is there.
    pub(super) gauges: Gauges,
    /// Every message, dead letters included.
    pub(super) messages: BTreeMap<Seq, Message>,
    /// The same by id.
    pub(super) by_id: HashMap<MessageId, Seq>,
    /// The pending ones.
    pub(super) lists: Lists,
    /// The scheduled ones, soonest first.
    pub(super) scheduled: BTreeMap<(Timestamp, u64), Seq>,
    /// The dead ones, oldest death first.
    pub(super) dead: BTreeMap<(Timestamp, u64), Seq>,
    /// Who has what is leased.
    pub(super) batches: Batches,
    /// Idempotency keys.
    pub(super) keys: Keys,
    /// What is remembered of messages that were delivered or cancelled.
    pub(super) endings: Endings,
    /// Why nothing can be leased: the next message is of a newer version.
    pub(super) newer: Option<String>,
    /// Set when the queue got something to lease; cleared when that is posted.
    pub(super) woken: bool,
    /// Set to the soonest moment that came up; cleared when that is posted.
    pub(super) soonest: Option<Timestamp>,
    last_number: u64,
}

impl Message {
    /// Reads and checks the record.
    pub(super) fn record(&self) -> Result<Record, RecordError> {
        Record::decode(self.bytes.clone())
    }

    /// What it counts against the limits.
    pub(super) fn charged_bytes(&self) -> u64 {
        record::charged_bytes(&self.bytes)
    }
}

impl Queue {
    pub(super) fn new(entry: QueueEntry) -> Self {
        Self {
            entry,
            counters: Counters::default(),
            gauges: Gauges::default(),
            messages: BTreeMap::new(),
            by_id: HashMap::new(),
            lists: Lists::default(),
            scheduled: BTreeMap::new(),
            dead: BTreeMap::new(),
            batches: Batches::default(),
            keys: Keys::default(),
            endings: Endings::default(),
            newer: None,
            woken: false,
            soonest: None,
            last_number: 0,
        }
    }

    /// A number that was never given before.
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// A message that is known to be here.
    pub(super) fn message(&self, seq: Seq) -> &Message {
        self.messages.get(&seq).expect("what a list, index or batch names is here")
    }

    fn message_mut(&mut self, seq: Seq) -> &mut Message {
        self.messages.get_mut(&seq).expect("what a list, index or batch names is here")
    }

    /// Puts a new message in its place, after what is there.
    pub(super) fn add(&mut self, message: Message) {
        let seq = self.number();
        self.by_id.insert(message.id, seq);
        self.messages.insert(seq, message);
        self.enter(seq, End::Back);
    }

    /// Moves a message to another place.
    pub(super) fn move_to(&mut self, seq: Seq, place: Place, end: End) {
        self.leave(seq);
        self.message_mut(seq).place = place;
        self.enter(seq, end);
    }

    /// Takes a message out of the queue for good.
    pub(super) fn remove(&mut self, seq: Seq) -> Message {
        self.leave(seq);
        let message = self.messages.remove(&seq).expect("it was just there");
        if self.by_id.get(&message.id) == Some(&seq) {
            self.by_id.remove(&message.id);
        }
        message
    }

    fn enter(&mut self, seq: Seq, end: End) {
        let message = self.messages.get(&seq).expect("it is being put in its place");
        let (count, bytes) = gauges_of(&mut self.gauges, &message.place);
        *count += 1;
        *bytes += message.charged_bytes();
        match &message.place {
            Place::Pending(list) => self.lists.put(*list, seq, end),
            Place::Scheduled { due, number } => {
                self.scheduled.insert((*due, *number), seq);
                self.soonest = Some(self.soonest.map_or(*due, |soonest| soonest.min(*due)));
            }
            Place::Leased => {}
            Place::Dead(death) => {
                self.dead.insert((death.died_at, death.number), seq);
            }
        }
    }

    fn leave(&mut self, seq: Seq) {
        let message = self.messages.get(&seq).expect("it is being taken from its place");
        let (count, bytes) = gauges_of(&mut self.gauges, &message.place);
        *count -= 1;
        *bytes -= message.charged_bytes();
        match &message.place {
            Place::Pending(list) => self.lists.remove(*list, seq),
            Place::Scheduled { due, number } => {
                self.scheduled.remove(&(*due, *number));
            }
            Place::Leased => {}
            Place::Dead(death) => {
                self.dead.remove(&(death.died_at, death.number));
            }
        }
    }

    /// Makes a message pending again that is not fresh any more: a suspect apart, all others in the returned list.
    pub(super) fn put_back(&mut self, seq: Seq) {
        let message = self.message(seq);
        let suspect = message.record().is_ok_and(|record| record.is_suspect());
        let list = if suspect { List::Suspects } else { List::Returned(message.priority) };
        self.move_to(seq, Place::Pending(list), End::Back);
        self.woken = true;
    }

    /// Makes a message pending again before all others of its kind.
    pub(super) fn put_first(&mut self, seq: Seq) {
        let suspect = self.message(seq).record().is_ok_and(|record| record.is_suspect());
        let list = if suspect { List::Suspects } else { List::Head };
        self.move_to(seq, Place::Pending(list), End::Front);
        self.woken = true;
    }

    /// Makes a message wait until `due`; not at all when that is now or over.
    pub(super) fn schedule(&mut self, seq: Seq, due: Timestamp, now: Now) {
        if due <= now.wall {
            self.put_back(seq);
            return;
        }
        let number = self.number();
        self.move_to(seq, Place::Scheduled { due, number }, End::Back);
    }

    /// Counts an attempt in the record of a message that was leased, and gives the record as it is now.
    pub(super) fn count_attempt(&mut self, seq: Seq, lost: bool, suspect: bool) -> Record {
        let record = self.message(seq).record().expect("what is leased was read when it was leased");
        let bytes = Bytes::from(record.after_attempt(lost, suspect));
        self.message_mut(seq).bytes = bytes.clone();
        Record::decode(bytes).expect("counting keeps a record sound")
    }

    /// Replaces the record of a message by one of the same length.
    pub(super) fn rewrite(&mut self, seq: Seq, bytes: Vec<u8>) {
        self.message_mut(seq).bytes = bytes.into();
    }

    /// Remembers an attempt of a message.
    pub(super) fn log(&mut self, seq: Seq, attempt: Attempt) {
        self.message_mut(seq).log.push_back(attempt);
        self.cut_log(seq);
    }

    /// Forgets what the settings do not allow to remember any more.
    fn cut_log(&mut self, seq: Seq) {
        let kept = usize::from(self.entry.settings.history.attempts);
        let log = &mut self.message_mut(seq).log;
        while log.len() > kept {
            log.pop_front();
        }
    }

    /// Puts a message into the dead letters, which may park the queue or push out the oldest of them.
    pub(super) fn bury(
        &mut self,
        seq: Seq,
        reason: DeadReason,
        detail: Option<String>,
        status: Option<u16>,
        now: Now,
    ) {
        let record = self.message(seq).record().ok();
        let attempts = record.as_ref().map_or(0, Record::attempts);
        let destination = record.and_then(|record| last_destination(&record, &self.entry.settings));
        let number = self.number();
        let death = Death { number, reason, detail, died_at: now.wall, status, destination, attempts };
        self.move_to(seq, Place::Dead(Box::new(death)), End::Back);
        self.counters.dead_lettered += 1;
        let mut trimmed = 0;
        while trimmed < SWEEP_MESSAGES_MAX && self.dead_exceed() {
            self.discard_oldest();
            trimmed += 1;
        }
        if self.dead_full(0, 0) && self.entry.parked.is_none() {
            self.entry.parked = Some(ParkReason::DeadFull);
        }
    }

    /// Whether the dead letters would be at a limit that parks the queue, with so many more.
    pub(super) fn dead_full(&self, more: u64, more_bytes: u64) -> bool {
        let limits = &self.entry.settings.dead;
        let at_length = self.gauges.dead + more >= limits.length_max;
        let at_bytes = self.gauges.bytes_dead + more_bytes >= limits.bytes_max;
        limits.when_full == WhenFull::Park && (at_length || at_bytes)
    }

    /// Whether there are dead letters to trim. The last one stays, whatever its size.
    pub(super) fn dead_exceed(&self) -> bool {
        let limits = &self.entry.settings.dead;
        let over = self.gauges.dead > limits.length_max || self.gauges.bytes_dead > limits.bytes_max;
        limits.when_full == WhenFull::Trim && over && self.gauges.dead > 1
    }

    /// Removes the oldest dead letter, by limit or retention.
    pub(super) fn discard_oldest(&mut self) {
        if let Some(seq) = self.dead.first_key_value().map(|(_, seq)| *seq) {
            self.remove(seq);
            self.counters.discarded += 1;
            self.counters.trimmed += 1;
        }
    }

    /// Lets the queue go on when it had parked itself for dead letters that are now below their limits.
    pub(super) fn unpark_when_below(&mut self) {
        if self.entry.parked == Some(ParkReason::DeadFull) && !self.dead_full(0, 0) {
            self.entry.parked = None;
            self.woken = true;
        }
    }

    /// Gives it other settings, and lets it go where it was parked for what is over with them.
    pub(super) fn set(&mut self, settings: Arc<QueueSettings>) {
        self.woken |= self.entry.set(settings);
        self.unpark_when_below();
    }

    /// Whether it must not be leased from.
    pub(super) fn is_held(&self) -> bool {
        self.entry.paused || self.entry.parked.is_some()
    }

    /// Takes a message out that was delivered or cancelled, and remembers that.
    pub(super) fn finish(&mut self, seq: Seq, delivered: bool, now: Now) {
        if delivered {
            self.cut_log(seq);
        }
        let message = self.remove(seq);
        let record = message.record().ok();
        let headers = record.as_ref().and_then(|record| Headers::decode(&record.headers()));
        let counted = record.as_ref().map_or(0, Record::attempts);
        let finished = Finished {
            accepted_at: message.accepted_at,
            attempts: counted.saturating_add(u8::from(delivered)),
            attempts_max: record.as_ref().map_or(0, Record::attempts_max),
            priority: message.priority,
            payload_bytes: record.map_or(0, |record| record.payload().len() as u64),
            content_type: headers.map(|headers| headers.content_type).unwrap_or_default(),
        };
        let ended = Ended { id: message.id, delivered, at: now.wall, finished, log: message.log };
        let number = self.number();
        self.endings.remember(number, ended, self.entry.settings.history.finished_max);
    }

    /// Counters and gauges in one read.
    pub(super) fn stats(&self) -> QueueStats {
        let heads = List::ALL.iter().filter_map(|list| self.lists.of(*list).front());
        QueueStats {
            name: self.entry.name.clone(),
            generation: self.entry.generation,
            counters: self.counters,
            gauges: self.gauges,
            oldest_pending_at: heads.map(|seq| self.message(*seq).accepted_at).min(),
            paused: self.entry.paused,
            parked: self.entry.parked,
            foreign: 0,
            recovering_until: None,
        }
    }
}

/// The gauges that a message in this place counts in: messages and bytes.
pub(super) const fn gauges_of<'g>(gauges: &'g mut Gauges, place: &Place) -> (&'g mut u64, &'g mut u64) {
    match place {
        Place::Pending(_) => (&mut gauges.pending, &mut gauges.bytes_waiting),
        Place::Scheduled { .. } => (&mut gauges.scheduled, &mut gauges.bytes_waiting),
        Place::Leased => (&mut gauges.leased, &mut gauges.bytes_leased),
        Place::Dead(_) => (&mut gauges.dead, &mut gauges.bytes_dead),
    }
}
