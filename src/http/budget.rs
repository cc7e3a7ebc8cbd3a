//! Memory by the byte: what all requests of one kind together may hold, and the share that each of them has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in memory, over all requests of all threads.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    bytes_max: u64,
}

impl Budget {
    /// A budget of so many bytes.
    pub(super) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), bytes_max })
    }

    /// A share of nothing yet.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }

    /// A share of so many bytes, when they are there. One that has more than the whole budget may have it alone: it would
    /// never be served otherwise.
    pub(super) fn take(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        let taken = |used: u64| {
            let after = used.saturating_add(bytes);
            (used == 0 || after <= self.bytes_max).then_some(after)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(Share { budget: self.clone(), bytes })
    }

    /// Bytes in use.
    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    /// Takes so much more, or says that it is not there.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let before = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before + bytes <= self.budget.bytes_max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_taken_whole_or_not_at_all_and_a_large_one_alone() {
        let budget = Budget::new(10);
        let first = budget.take(7).expect("room");
        assert!(budget.take(4).is_none());
        assert_eq!(budget.used(), 7, "what was refused takes nothing");
        let second = budget.take(3).expect("the rest");
        drop(first);
        assert!(budget.take(11).is_none(), "not beside others");
        drop(second);
        let large = budget.take(11).expect("alone");
        assert!(budget.take(1).is_none());
        drop(large);
        assert_eq!(budget.used(), 0);
    }
}
