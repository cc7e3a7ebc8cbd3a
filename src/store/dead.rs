//! Dead letters: browsing, counting, choosing some.

use serde::Serialize;

use crate::domain::id::MessageId;
use crate::domain::message::Headers;
use crate::domain::outcome::{Attempt, DeadReason};
use crate::domain::queue::QueueSettings;
use crate::domain::record::Record;
use crate::domain::timestamp::Timestamp;

/// Which dead letters are meant; empty means all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeadFilter {
    /// Died of this.
    pub reason: Option<DeadReason>,
    /// The last attempt's HTTP status.
    pub status: Option<u16>,
    /// The last attempt's destination.
    pub destination: Option<String>,
    /// Died at that moment or later.
    pub from: Option<Timestamp>,
    /// Died before that moment.
    pub to: Option<Timestamp>,
}

/// Some dead letters of a queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selection {
    /// These, as far as they are there.
    Ids(Vec<MessageId>),
    /// All that the filter names.
    Filter(DeadFilter),
}

/// What a dead letter is counted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeadGrouping {
    /// Why it died.
    Reason,
    /// The last attempt's HTTP status.
    Status,
    /// The last attempt's destination.
    Destination,
}

/// One row of a count of dead letters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DeadGroup {
    /// The reason, status or destination; empty when there was none.
    pub key: String,
    /// How many.
    pub count: u64,
}

/// One dead letter.
#[derive(Clone, PartialEq, Debug)]
pub struct DeadLetter {
    /// Which message.
    pub id: MessageId,
    /// Why it died.
    pub reason: DeadReason,
    /// In the words of who decided it; of one whose attempts were used up, what was wrong at the last.
    pub detail: Option<String>,
    /// When.
    pub died_at: Timestamp,
    /// The last attempt's HTTP status.
    pub status: Option<u16>,
    /// The last attempt's destination.
    pub destination: Option<String>,
    /// Attempts counted.
    pub attempts: u8,
    /// Bytes of payload and headers.
    pub charged_bytes: u64,
    /// The record, whole; `None` in lists, and when it is damaged.
    pub record: Option<Record>,
    /// What is remembered of its attempts, oldest first; empty in lists.
    pub history: Vec<Attempt>,
}

/// Where the last attempt of a message went to: the destination that came with it, else its queue's own; `None` when it was
/// never attempted.
pub(crate) fn last_destination(record: &Record, settings: &QueueSettings) -> Option<String> {
    if record.attempts() == 0 {
        return None;
    }
    let brought = Headers::decode(&record.headers()).and_then(|headers| headers.destination);
    brought.or_else(|| settings.destination.as_ref().map(|own| own.as_str().to_owned()))
}

/// One page of dead letters.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DeadPage {
    /// The letters, oldest death first.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins; `None` at the end. A page may be short and still have one.
    pub cursor: Option<String>,
}

/// What a replay did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Dead letters of this step that the selection names.
    pub matched: u64,
    /// Of them, back to pending.
    pub replayed: u64,
    /// Whether a limit of the queue stopped it.
    pub full: bool,
    /// Whether there is more to do.
    pub more: bool,
}
