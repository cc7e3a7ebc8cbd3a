//! The names of all keys, in one place.
//!
//! What belongs to a queue has the tag `{queue#0}`, so that every key of a script lies in one slot, but for the one that takes
//! several queues (`spread`); what does not is a key that a script uses alone, but for the due index, whose keys share the tag
//! `{0}`.

use std::fmt::Write as _;

use crate::domain::queue::{Generation, QueueName};
use crate::store::enqueue::CallId;
use crate::store::lease::BatchId;

/// A key of a queue or of the whole store. The number tells those of one kind apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// HASH: generation, holds, settings, counters, gauges, numbers.
    Counters,
    /// LIST: pending; which one by [`List`](crate::store::turns::List).
    List(u8),
    /// ZSET: number and id of what is scheduled → due.
    Scheduled,
    /// HASH: id of what is scheduled → due, number, record.
    ScheduledRecords,
    /// HASH: id → list and place, with `lookup`, of what is pending and came back: retried, promoted, released, replayed.
    Index,
    /// HASH: list and number → a run: place of the first, ids of what is fresh, in the order of their places. Goes when the list has
    /// passed it.
    Runs,
    /// HASH: list and the quarter of a second that an id begins with → the runs that hold such ids.
    Moments,
    /// HASH: id → payload and checksum of a large message.
    Bodies,
    /// ZSET: number and id of a dead letter → when it died.
    Dead,
    /// HASH: id of a dead letter → what is known of its death.
    Letters,
    /// HASH: id of a dead letter → record.
    DeadRecords,
    /// HASH: id → attempts remembered.
    Attempts,
    /// LIST: what is remembered of those that ended.
    Finished,
    /// HASH: batch → who holds it.
    Batches,
    /// HASH: batch → ids of what it took, in the order of their indexes, with `lookup`.
    BatchIds,
    /// ZSET: batch → deadline.
    Deadlines,
    /// HASH: batch that ended → its mark, by the minute.
    Marks(u8),
    /// LIST: junk that is no record of ours.
    Foreign,
    /// LIST: names of what was purged and still takes space.
    Purged,
    /// HASH: idempotency key → what it stands for; half a window each.
    Keys(u8),
    /// LIST: what a batch holds.
    Batch,
    /// STRING: the results of an enqueue call.
    Call,
    /// LIST: a list of what is pending, as long as the transaction of one call appends to it.
    Appended,
    /// HASH: name of a queue → entry.
    Queues,
    /// ZSET: name of a queue → when it is to be looked at.
    Due,
    /// HASH: when the due index was looked at last.
    DueClock,
    /// HASH: gateway → when it was heard of last, and its version.
    Instances,
    /// STRING: count of the changes of queues.
    Changes,
}

impl Key {
    /// The name by which scripts know it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Counters => "c".to_owned(),
            Self::List(list) => format!("l{list}"),
            Self::Scheduled => "s".to_owned(),
            Self::ScheduledRecords => "sb".to_owned(),
            Self::Index => "m".to_owned(),
            Self::Runs => "mr".to_owned(),
            Self::Moments => "mt".to_owned(),
            Self::Bodies => "o".to_owned(),
            Self::Dead => "d".to_owned(),
            Self::Letters => "dm".to_owned(),
            Self::DeadRecords => "db".to_owned(),
            Self::Attempts => "a".to_owned(),
            Self::Finished => "f".to_owned(),
            Self::Batches => "b".to_owned(),
            Self::BatchIds => "bi".to_owned(),
            Self::Deadlines => "l".to_owned(),
            Self::Marks(slot) => format!("y{slot}"),
            Self::Foreign => "j".to_owned(),
            Self::Purged => "z".to_owned(),
            Self::Keys(slot) => format!("i{slot}"),
            Self::Batch => "x".to_owned(),
            Self::Call => "e".to_owned(),
            Self::Appended => "w".to_owned(),
            Self::Queues => "queues".to_owned(),
            Self::Due => "due".to_owned(),
            Self::DueClock => "clock".to_owned(),
            Self::Instances => "instances".to_owned(),
            Self::Changes => "changes".to_owned(),
        }
    }

    /// The type that Redis says it has.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::List(_) | Self::Finished | Self::Foreign | Self::Purged | Self::Batch | Self::Appended => {
                "list"
            }
            Self::Scheduled | Self::Dead | Self::Deadlines | Self::Due => "zset",
            Self::Call | Self::Changes => "string",
            _ => "hash",
        }
    }
}

/// Where the keys of one store begin.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What all keys of a queue begin with.
    pub(super) fn of_queue(&self, queue: &QueueName) -> String {
        format!("{}:{{{queue}#0}}:", self.prefix)
    }

    /// The key of a queue that has no number of its own.
    pub(super) fn in_queue(base: &str, key: Key) -> String {
        let mut name = base.to_owned();
        // The lists' own names are those of the layout: suspects, head, fresh, returned.
        match key {
            Key::List(list) => {
                name.push_str(["ps", "ph", "p0", "p1", "p2", "r0", "r1", "r2"][usize::from(list)]);
            }
            other => name.push_str(&other.name()),
        }
        name
    }

    /// The list of a batch.
    pub(super) fn batch(base: &str, batch: BatchId) -> String {
        let mut name = Self::batches(base);
        name.push_str(&hex(batch));
        name
    }

    /// What the lists of batches begin with.
    pub(super) fn batches(base: &str) -> String {
        format!("{base}x:")
    }

    /// What the keys of purged messages begin with.
    pub(super) fn purged(base: &str) -> String {
        format!("{base}z:")
    }

    /// The results of a call; for a queue that was made anew meanwhile it is another call.
    pub(super) fn call(base: &str, call: CallId, generation: Generation) -> String {
        let mut name = base.to_owned();
        write!(name, "e:{:032x}:{:x}", call.0, generation.0).expect("a string takes all");
        name
    }

    /// What a list is called while a call appends to it: a name that nobody else can have given to anything.
    pub(super) fn appended(call: &str) -> String {
        format!("{call}:w")
    }

    /// A key of the whole store.
    pub(super) fn of_store(&self, key: Key) -> String {
        let prefix = &self.prefix;
        match key {
            Key::Due | Key::DueClock => format!("{prefix}:{{0}}:{}", key.name()),
            other => format!("{prefix}:{}", other.name()),
        }
    }

    /// A key or channel of the whole store that no script uses.
    pub(super) fn plain(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }
}

/// A batch as keys and fields name it.
pub(super) fn hex(batch: BatchId) -> String {
    format!("{:032x}", batch.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::redis::script::ALL;

    /// The slot of a key, as the specification of Redis Cluster says: CRC-16/XMODEM of what stands between the first braces.
    fn slot(key: &str) -> u16 {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        let bytes = tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes();
        let crc = bytes.iter().fold(0_u16, |crc, byte| {
            (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            })
        });
        crc % 16_384
    }

    const fn is_of_store(key: Key) -> bool {
        matches!(key, Key::Queues | Key::Due | Key::DueClock | Key::Instances | Key::Changes)
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot("123456789"), 0x31C3);
        assert_eq!(slot("{user1000}.following"), slot("{user1000}.followers"));
    }

    #[test]
    fn a_script_is_of_a_queue_or_of_the_store() {
        for script in ALL {
            let of_store = script.keys.iter().filter(|key| is_of_store(**key)).count();
            assert!(of_store == 0 || of_store == script.keys.len(), "{}", script.name);
        }
    }

    proptest! {
        #[test]
        fn all_keys_of_a_script_lie_in_one_slot(
            prefix in "[A-Za-z0-9._-]{1,64}",
            name in "[a-z0-9][a-z0-9._-]{0,40}",
            batch: u128,
            call: u128,
            generation: u64,
        ) {
            let names = Names::new(&prefix);
            let name: QueueName = name.parse().expect("a name");
            let base = names.of_queue(&name);
            for script in ALL {
                let keys = script.keys.iter().map(|key| match key {
                    key if is_of_store(*key) => names.of_store(*key),
                    Key::Batch => Names::batch(&base, BatchId(batch)),
                    Key::Call => Names::call(&base, CallId(call), Generation(generation)),
                    Key::Appended => Names::appended(&Names::call(&base, CallId(call), Generation(generation))),
                    key => Names::in_queue(&base, *key),
                });
                let keys: Vec<_> = keys.collect();
                prop_assert!(keys.iter().all(|key| slot(key) == slot(&keys[0])), "{}: {keys:?}", script.name);
                prop_assert!(keys.iter().all(|key| key.starts_with(&prefix)), "{keys:?}");
                let mut apart = keys.clone();
                apart.sort_unstable();
                apart.dedup();
                prop_assert_eq!(apart.len(), keys.len());
            }
            prop_assert_eq!(slot(&Names::purged(&base)), slot(&base));
            prop_assert_eq!(slot(&Names::batches(&base)), slot(&base));
        }
    }
}
