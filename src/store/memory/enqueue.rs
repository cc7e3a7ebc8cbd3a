//! Storing the messages of one publish.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::domain::message::Priority;
use crate::domain::record;
use crate::domain::record::Record;
use crate::domain::timestamp::Timestamp;
use crate::store::enqueue::{Due, Group, GroupResult, NewMessage};
use crate::store::error::StoreError;
use crate::store::memory::Now;
use crate::store::memory::queue::{Message, Place, Queue};
use crate::store::turns::List;

impl Queue {
    /// Stores a group or refuses it whole: idempotency, limits, write. `full` says why the store takes nothing at all.
    pub(super) fn store_group(&mut self, group: &Group, full: Option<&str>, now: Now) -> GroupResult {
        if let Some(key) = &group.key
            && let Some(kept) = self.keys.of(&key.key, now.wall)
        {
            return if kept.fingerprint == key.fingerprint {
                GroupResult::Duplicate(kept.ids.clone())
            } else {
                GroupResult::KeyReused
            };
        }
        let bytes = group.messages.iter().map(|message| record::charged_bytes(&message.record)).sum();
        if let Some((setting, limit)) = self.limit_exceeded_by(group.messages.len() as u64, bytes) {
            return GroupResult::QueueFull { setting, limit };
        }
        let keys_max = self.entry.settings.idempotency.keys_max;
        if group.key.is_some() && self.keys.at_limit(keys_max, now.wall) {
            return GroupResult::QueueFull { setting: "idempotency.keys_max", limit: keys_max };
        }
        if let Some(full) = full {
            return GroupResult::Failed(StoreError::Full(full.to_owned()));
        }
        if let Some(key) = &group.key {
            let ids = group.messages.iter().map(|message| message.id).collect();
            let until = now.wall.saturating_add(self.entry.settings.idempotency.window);
            self.keys.remember(&key.key, key.fingerprint, ids, until);
        }
        for message in group.messages.iter() {
            self.store(message, now);
        }
        GroupResult::Accepted
    }

    /// The limit that so much more would exceed: the setting and its value.
    pub(super) fn limit_exceeded_by(&self, messages: u64, bytes: u64) -> Option<(&'static str, u64)> {
        let (limits, gauges) = (&self.entry.settings.limits, &self.gauges);
        if gauges.pending + gauges.scheduled + gauges.leased + messages > limits.length_max {
            return Some(("limits.length_max", limits.length_max));
        }
        let over = gauges.bytes_waiting + gauges.bytes_leased + bytes > limits.bytes_max;
        over.then_some(("limits.bytes_max", limits.bytes_max))
    }

    fn store(&mut self, new: &NewMessage, now: Now) {
        let bytes = Bytes::copy_from_slice(&new.record);
        let accepted_at = Record::decode(bytes.clone()).map_or(now.wall, |record| record.accepted_at());
        let place = self.first_place(new.due, new.priority, now.wall);
        let (id, priority, log) = (new.id, new.priority, VecDeque::new());
        self.counters.accepted += 1;
        self.add(Message { id, priority, accepted_at, bytes, log, place });
    }

    fn first_place(&mut self, due: Due, priority: Priority, now: Timestamp) -> Place {
        let due = match due {
            Due::Now => now,
            Due::After(delay) => now.saturating_add(delay),
            Due::At(at) => at,
        };
        if due > now {
            return Place::Scheduled { due, number: self.number() };
        }
        self.woken |= !self.lists.wait(false);
        Place::Pending(List::Fresh(priority))
    }
}
