//! What is remembered of messages that were delivered or cancelled.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::domain::id::MessageId;
use crate::domain::outcome::Attempt;
use crate::domain::timestamp::Timestamp;
use crate::store::stats::Finished;

/// One message that ended.
pub(super) struct Ended {
    /// Which.
    pub(super) id: MessageId,
    /// Delivered, else cancelled.
    pub(super) delivered: bool,
    /// When.
    pub(super) at: Timestamp,
    /// What is known of it.
    pub(super) finished: Finished,
    /// Its attempts, oldest first, with the one that delivered it.
    pub(super) log: VecDeque<Attempt>,
}

/// The last messages of a queue that ended, by the number they got then.
#[derive(Default)]
pub(super) struct Endings {
    by_number: BTreeMap<u64, Ended>,
    by_id: HashMap<MessageId, u64>,
}

impl Endings {
    /// The end of one message.
    pub(super) fn of(&self, id: MessageId) -> Option<&Ended> {
        self.by_id.get(&id).and_then(|number| self.by_number.get(number))
    }

    /// Remembers one more, of at most `most`.
    pub(super) fn remember(&mut self, number: u64, ended: Ended, most: u64) {
        self.by_id.insert(ended.id, number);
        self.by_number.insert(number, ended);
        while self.by_number.len() as u64 > most {
            self.forget_first();
        }
    }

    /// Forgets what ended at `past` or before, and what is beyond `most`.
    pub(super) fn forget(&mut self, past: Timestamp, most: u64) {
        let over = |ended: &Ended| ended.at <= past;
        while self.by_number.len() as u64 > most || self.by_number.values().next().is_some_and(over) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((number, ended)) = self.by_number.pop_first()
            && self.by_id.get(&ended.id) == Some(&number)
        {
            self.by_id.remove(&ended.id);
        }
    }
}
