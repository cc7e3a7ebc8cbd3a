//! Whether Redis has room for more: judged by what it uses, and by what its messages may still come to use.

use std::time::{Duration, Instant};

use crate::store::redis::probe::judge::room_bytes;
use crate::store::redis::probe::seen::Memory;
use crate::store::settings::StoreSettings;

/// What a message that is pending or leased may cost beyond what it costs now, once it is dead, in bytes: its letter without words.
/// Scheduled it costs less.
const GROWTH_BYTES: u64 = 350;
/// What one that is scheduled may cost beyond what it costs now, once it is dead, in bytes.
const SCHEDULED_GROWTH_BYTES: u64 = 120;
/// The least that such a message costs already, in bytes: how few there may be tells whether they need counting.
const MESSAGE_BYTES_MIN: u64 = 50;
/// What a message costs beside its record when it is stored, its growth included.
const OVERHEAD_BYTES: u64 = GROWTH_BYTES + 100;
/// Bytes after which it is looked anew: all threads together stay far below the fifth that is kept free.
const LOOK_AFTER_BYTES: u64 = 4 << 20;
/// The longest time between two looks while there are publishes.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// The shortest, while all are refused.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How many messages may come to take more than they do.
#[derive(Clone, Copy, Default)]
pub(super) struct Backlog {
    /// Pending and leased.
    pub(super) waiting: u64,
    pub(super) scheduled: u64,
}

impl Backlog {
    fn growth_bytes(self) -> u64 {
        let scheduled = self.scheduled.saturating_mul(SCHEDULED_GROWTH_BYTES);
        self.waiting.saturating_mul(GROWTH_BYTES).saturating_add(scheduled)
    }
}

/// The room as it was seen last, and what was written since.
#[derive(Default)]
pub(super) struct Room {
    /// From this many bytes on nothing is taken; `None` while nothing says how many there may be.
    limit_bytes: Option<u64>,
    used_bytes: u64,
    backlog: Backlog,
    since_bytes: u64,
    seen_at: Option<Instant>,
}

impl Room {
    /// Notes what Redis said of its memory; gives whether its messages need counting as well.
    pub(super) fn see(&mut self, memory: Memory, settings: &StoreSettings) -> bool {
        self.limit_bytes = room_bytes(memory, settings);
        self.used_bytes = memory.used_bytes;
        self.since_bytes = 0;
        self.seen_at = Some(Instant::now());
        let growth_max = memory.used_bytes / MESSAGE_BYTES_MIN * GROWTH_BYTES;
        let counts =
            self.limit_bytes.is_some_and(|limit| memory.used_bytes.saturating_add(growth_max) >= limit);
        if !counts {
            self.backlog = Backlog::default();
        }
        counts
    }

    /// Notes how many messages there are.
    pub(super) fn count(&mut self, backlog: Backlog) {
        self.backlog = backlog;
    }

    /// What a call will cost.
    pub(super) fn cost_bytes(record_bytes: u64, messages: u64) -> u64 {
        record_bytes.saturating_add(messages.saturating_mul(OVERHEAD_BYTES))
    }

    /// Whether to look before a call of that cost.
    pub(super) fn is_to_be_seen(&self, cost_bytes: u64) -> bool {
        let Some(seen) = self.seen_at else { return true };
        let Some(_) = self.limit_bytes else { return false };
        let age = seen.elapsed();
        // What was written since is an estimate: nobody is refused for that alone.
        let is_full = self.why_full(cost_bytes).is_some();
        age >= LOOK_AFTER
            || self.since_bytes >= LOOK_AFTER_BYTES
            || (is_full && (self.since_bytes > 0 || age >= LOOK_AGAIN_AFTER))
    }

    /// Counts a call that is about to be sent, or what one has left.
    pub(super) fn take(&mut self, cost_bytes: u64) {
        self.since_bytes = self.since_bytes.saturating_add(cost_bytes);
    }

    /// Why a call of that cost is refused; `None` when it is not.
    pub(super) fn why_full(&self, cost_bytes: u64) -> Option<String> {
        let limit = self.limit_bytes?;
        let growth = self.backlog.growth_bytes();
        // One that is large alone must not be what goes beyond.
        let own = if cost_bytes > LOOK_AFTER_BYTES { cost_bytes } else { 0 };
        let needed =
            self.used_bytes.saturating_add(growth).saturating_add(self.since_bytes).saturating_add(own);
        (needed >= limit).then(|| {
            format!(
                "Redis uses {} bytes, its {} waiting messages may take {growth} more, and publishes end at {limit} \
                 (store.full_at_percent of maxmemory, or of store.bytes_max)",
                self.used_bytes,
                self.backlog.waiting.saturating_add(self.backlog.scheduled)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(used_bytes: u64, waiting: u64, scheduled: u64) -> Room {
        let mut room = Room::default();
        // Publishes end at 80 MB.
        let memory = Memory { used_bytes, bytes_max: 100_000_000, machine_bytes: 0 };
        if room.see(memory, &StoreSettings::default()) {
            room.count(Backlog { waiting, scheduled });
        }
        room
    }

    #[test]
    fn what_messages_may_come_to_use_counts() {
        assert_eq!(room(79_999_999, 0, 0).why_full(0), None);
        assert!(room(80_000_000, 0, 0).why_full(0).is_some());
        assert_eq!(room(45_000_000, 99_999, 0).why_full(0), None);
        assert!(room(45_000_000, 100_000, 0).why_full(0).is_some());
        assert_eq!(room(68_000_000, 0, 99_999).why_full(0), None);
        assert!(room(68_000_000, 0, 100_000).why_full(0).is_some());
    }

    #[test]
    fn messages_are_counted_only_where_they_can_matter() {
        let mut room = Room::default();
        let memory = |used_bytes| Memory { used_bytes, bytes_max: 100_000_000, machine_bytes: 0 };
        assert!(!room.see(memory(9_999_999), &StoreSettings::default()));
        assert!(room.see(memory(10_000_000), &StoreSettings::default()));
        let unlimited = Memory { used_bytes: 1 << 40, bytes_max: 0, machine_bytes: 0 };
        assert!(!room.see(unlimited, &StoreSettings::default()));
        assert_eq!(room.why_full(1 << 40), None);
    }

    #[test]
    fn it_is_looked_anew_after_so_many_bytes_and_a_large_call_counts_itself() {
        let mut room = room(70_000_000, 0, 0);
        assert!(!room.is_to_be_seen(1_000));
        room.take(LOOK_AFTER_BYTES);
        assert!(room.is_to_be_seen(1_000));
        assert!(room.why_full(6_000_000).is_some());
        assert_eq!(room.why_full(1_000), None);
        room.take(6_000_000);
        assert!(room.why_full(0).is_some(), "what was sent since counts");
        assert!(room.is_to_be_seen(0), "but it is seen before anybody is refused");
        room.see(
            Memory { used_bytes: 80_000_000, bytes_max: 100_000_000, machine_bytes: 0 },
            &StoreSettings::default(),
        );
        assert!(!room.is_to_be_seen(0) && room.why_full(0).is_some());
    }

    #[test]
    fn what_was_never_seen_is_looked_at() {
        assert!(Room::default().is_to_be_seen(0));
    }
}
