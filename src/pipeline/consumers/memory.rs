//! The memory of all answers that hand messages out, and who has how much of it.
//!
//! A queue may have as much as it leaves free, so that whatever those of some queues are slow to take there is room for the next
//! queue: half of it for the first, a third each for two, and so on. The one message that a queue needs to go on at all it may
//! have as long as it fits. What is needed is known only when the store has answered, so the most is taken before, and the rest
//! given back after; an answer takes half of what its queue may have yet, so that several can be asked for at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::queue::QueueName;

/// The memory: shared by the actor and by the answers that its parcels become.
#[derive(Debug)]
pub(super) struct Memory {
    bytes_max: u64,
    used: Mutex<Used>,
    /// Rung when some was given back that somebody had asked for.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Used {
    bytes: u64,
    /// Of the queues that have some.
    queues: HashMap<QueueName, u64>,
    /// Whether somebody found too little since some was given back.
    is_wanted: bool,
}

impl Memory {
    /// A memory of so many bytes, at least 1.
    pub(super) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max: bytes_max.max(1), used: Mutex::default(), freed: Notify::new() })
    }

    /// Takes what there is for an answer of this queue: at most `most` bytes, at least `least`, or the whole memory where that is
    /// smaller; `None` when that is not there.
    pub(super) fn take(self: &Arc<Self>, queue: &QueueName, least: u64, most: u64) -> Option<Share> {
        let least = least.clamp(1, self.bytes_max);
        let mut used = self.used();
        let free = self.bytes_max.saturating_sub(used.bytes);
        let own = used.queues.get(queue).copied().unwrap_or(0);
        let fair = free.saturating_sub(own) / 2;
        let room = if own == 0 { fair.max(least.min(free)) } else { fair };
        if room < least {
            used.is_wanted = true;
            return None;
        }
        let bytes = most.clamp(least, least.max(room / 2));
        used.bytes += bytes;
        *used.queues.entry(queue.clone()).or_default() += bytes;
        Some(Share { memory: self.clone(), queue: queue.clone(), bytes })
    }

    /// Waits until some was given back after a [`Memory::take`] that found too little. For one waiter.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of the memory, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    memory: Arc<Memory>,
    queue: QueueName,
    bytes: u64,
}

impl Share {
    /// Its bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps so many bytes: what an answer came to. One message may need more than was taken for it.
    pub(super) fn settle_for(&mut self, bytes: u64) {
        let mut used = self.memory.used();
        used.bytes = (used.bytes - self.bytes).saturating_add(bytes);
        if let Some(own) = used.queues.get_mut(&self.queue) {
            *own = (*own - self.bytes).saturating_add(bytes);
            if *own == 0 {
                used.queues.remove(&self.queue);
            }
        }
        let is_wanted = bytes < self.bytes && std::mem::take(&mut used.is_wanted);
        drop(used);
        self.bytes = bytes;
        if is_wanted {
            self.memory.freed.notify_one();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.settle_for(0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn queue(number: u8) -> QueueName {
        format!("q{number}").parse().expect("a name")
    }

    #[test]
    fn a_queue_has_as_much_as_it_leaves_and_the_next_one_always_finds_some() {
        let memory = Memory::new(64);
        let all =
            |number| -> Vec<Share> { std::iter::from_fn(|| memory.take(&queue(number), 1, 100)).collect() };
        let first = all(0);
        assert_eq!(first.iter().map(Share::bytes).collect::<Vec<_>>(), [16, 8, 4, 2, 1, 1]);
        assert_eq!(memory.take(&queue(1), 1, 3).expect("room").bytes(), 3, "no more than is asked for");
        let others: Vec<_> = (1..7).map(all).collect();
        let sums = others.iter().map(|shares| shares.iter().map(Share::bytes).sum::<u64>());
        assert_eq!(sums.collect::<Vec<_>>(), [16, 8, 4, 2, 1, 1], "half of what is left to each");
        drop((first, others));
        let used = memory.used();
        assert!(used.bytes == 0 && used.queues.is_empty(), "{used:?}");
    }

    #[test]
    fn a_queue_that_has_nothing_gets_its_one_message_while_it_fits_and_a_large_one_alone() {
        let memory = Memory::new(10);
        let first = memory.take(&queue(0), 7, 70).expect("more than half, for one");
        assert_eq!(first.bytes(), 7);
        assert!(memory.take(&queue(1), 4, 4).is_none());
        assert!(memory.freed().now_or_never().is_none());
        drop(first);
        assert!(memory.freed().now_or_never().is_some(), "who found too little hears of it");
        let mut alone = memory.take(&queue(1), 100, 100).expect("the whole memory");
        assert_eq!(alone.bytes(), 10);
        alone.settle_for(1);
        assert!(memory.freed().now_or_never().is_none(), "nobody found too little since");
        assert!(memory.take(&queue(1), 5, 5).is_none(), "beside itself a queue has as much as it leaves");
        assert!(memory.take(&queue(2), 9, 9).is_some());
        alone.settle_for(20);
        assert!(memory.take(&queue(3), 1, 1).is_none(), "what one message needs beyond it counts");
    }
}
