//! The idempotency keys of one queue.

use std::collections::{BTreeSet, HashMap};

use crate::domain::id::MessageId;
use crate::domain::timestamp::Timestamp;

/// What a key stands for.
pub(super) struct Kept {
    /// A digest of what was published with it first.
    pub(super) fingerprint: [u8; 16],
    /// The ids of what was published with it first.
    pub(super) ids: Vec<MessageId>,
    until: Timestamp,
}

/// Keys within their window. One that is over is as good as gone, whether it was removed yet or not.
#[derive(Default)]
pub(super) struct Keys {
    by_key: HashMap<Vec<u8>, Kept>,
    by_end: BTreeSet<(Timestamp, Vec<u8>)>,
}

impl Keys {
    /// What a key stands for at `now`.
    pub(super) fn of(&self, key: &[u8], now: Timestamp) -> Option<&Kept> {
        self.by_key.get(key).filter(|kept| kept.until > now)
    }

    /// Whether there are as many as may be. What is over is removed before that is said.
    pub(super) fn at_limit(&mut self, limit: u64, now: Timestamp) -> bool {
        if self.by_key.len() as u64 >= limit {
            self.forget(now);
        }
        self.by_key.len() as u64 >= limit
    }

    /// Remembers a key until a moment.
    pub(super) fn remember(
        &mut self,
        key: &[u8],
        fingerprint: [u8; 16],
        ids: Vec<MessageId>,
        until: Timestamp,
    ) {
        self.by_end.insert((until, key.to_vec()));
        if let Some(over) = self.by_key.insert(key.to_vec(), Kept { fingerprint, ids, until }) {
            self.by_end.remove(&(over.until, key.to_vec()));
        }
    }

    /// Removes what is over.
    pub(super) fn forget(&mut self, now: Timestamp) {
        while self.by_end.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, key)) = self.by_end.pop_first() {
                self.by_key.remove(&key);
            }
        }
    }
}
