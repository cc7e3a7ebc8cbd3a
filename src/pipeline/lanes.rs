//! How many messages of a queue are in flight at once, over all threads of this gateway: `delivery.concurrency_max`.
//!
//! A lane also says how many messages of its queue may be leased: as many as may be in flight, and beyond that only
//! what will begin within [`AHEAD`], judged by how long its attempts take. So a queue with slow receivers leases
//! nothing that would then wait.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::domain::queue::QueueName;
use crate::store::QueueEntry;

/// How far ahead of its beginning a message may be leased.
const AHEAD: Duration = Duration::from_millis(50);

/// The lanes of all queues. Clones share them; usable from any thread.
#[derive(Clone, Default)]
pub struct Lanes(Arc<Mutex<HashMap<QueueName, Arc<Lane>>>>);

/// A snapshot of one lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneStatus {
    /// Its queue.
    pub queue: QueueName,
    /// Messages in flight.
    pub in_flight: usize,
    /// Messages that may be in flight.
    pub limit: usize,
    /// Messages leased that are not in flight yet.
    pub waiting: usize,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.all()).finish()
    }
}

impl Lanes {
    /// The lane of a queue, with the limit that its settings say now.
    pub(super) fn of(&self, entry: &QueueEntry) -> Arc<Lane> {
        let limit = entry.settings.delivery.concurrency_max as usize;
        let lane = {
            let mut lanes = lock(&self.0);
            match lanes.get(&entry.name) {
                Some(lane) => lane.clone(),
                None => lanes.entry(entry.name.clone()).or_insert(Arc::new(Lane::new(limit))).clone(),
            }
        };
        lane.limit_to(limit);
        lane
    }

    /// Forgets the lanes of queues that are no more, once nothing of theirs is in flight.
    pub(super) fn keep(&self, is_known: impl Fn(&QueueName) -> bool) {
        lock(&self.0).retain(|name, lane| Arc::strong_count(lane) > 1 || is_known(name));
    }

    /// All lanes, by queue.
    #[must_use]
    pub fn all(&self) -> Vec<LaneStatus> {
        let status = |(queue, lane): (&QueueName, &Arc<Lane>)| {
            let in_flight = lane.in_flight();
            let waiting = lane.leased.load(Ordering::Relaxed).saturating_sub(in_flight);
            LaneStatus { queue: queue.clone(), in_flight, limit: lane.limit(), waiting }
        };
        let mut all: Vec<_> = lock(&self.0).iter().map(status).collect();
        all.sort_unstable_by(|left, right| left.queue.cmp(&right.queue));
        all
    }
}

/// One queue's lane.
pub(super) struct Lane {
    // First come, first served, over all threads.
    permits: Semaphore,
    permits_made: Mutex<PermitsMade>,
    leased: AtomicUsize,
    /// How long an attempt takes, microseconds, as a moving mean; 0 until one has ended.
    attempt_us: AtomicU64,
}

struct PermitsMade {
    limit: usize,
    /// Permits free or in use; more than `limit` after it was lowered, until enough are given back.
    count: usize,
}

/// The right to have one message in flight.
pub(super) struct InFlight<'l>(&'l Lane);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut made = lock(&self.0.permits_made);
        if made.count > made.limit {
            made.count -= 1;
        } else {
            self.0.permits.add_permits(1);
        }
    }
}

impl Lane {
    fn new(limit: usize) -> Self {
        Self {
            permits: Semaphore::new(limit),
            permits_made: Mutex::new(PermitsMade { limit, count: limit }),
            leased: AtomicUsize::new(0),
            attempt_us: AtomicU64::new(0),
        }
    }

    fn limit_to(&self, limit: usize) {
        let mut made = lock(&self.permits_made);
        made.limit = limit;
        if limit > made.count {
            self.permits.add_permits(limit - made.count);
            made.count = limit;
        } else if limit < made.count {
            made.count -= self.permits.forget_permits(made.count - limit);
        }
    }

    /// Waits for the right to have one more message in flight. Dropping the future gives up the place in the row.
    pub(super) async fn enter(&self) -> InFlight<'_> {
        let permit = self.permits.acquire().await.expect("this semaphore is never closed");
        permit.forget();
        InFlight(self)
    }

    fn limit(&self) -> usize {
        lock(&self.permits_made).limit
    }

    pub(super) fn in_flight(&self) -> usize {
        lock(&self.permits_made).count.saturating_sub(self.permits.available_permits())
    }

    /// Takes the right to lease up to `wanted` messages, of them up to `early` before they may be in flight; gives
    /// how many.
    ///
    /// While more than half of the early ones wait it gives 0: a lease of many costs little more than a lease of one.
    pub(super) fn reserve(&self, wanted: usize, early: usize) -> usize {
        let limit = self.limit();
        let mut count = 0;
        let reserve = |leased: usize| {
            let reserve_is_full = leased.saturating_sub(limit) > early / 2;
            count = if reserve_is_full { 0 } else { (limit + early).saturating_sub(leased).min(wanted) };
            (count > 0).then_some(leased + count)
        };
        match self.leased.fetch_update(Ordering::AcqRel, Ordering::Acquire, reserve) {
            Ok(_) => count,
            Err(_) => 0,
        }
    }

    /// Takes the right to lease so many, whatever is leased already; gives the same number.
    pub(super) fn reserve_anyway(&self, count: usize) -> usize {
        self.leased.fetch_add(count, Ordering::AcqRel);
        count
    }

    /// Gives back the right to lease so many: unused, or because those messages' attempts have ended.
    pub(super) fn give_back(&self, count: usize) {
        self.leased.fetch_sub(count, Ordering::AcqRel);
    }

    /// Messages worth leasing before they may be in flight: those that a thread of so many slots begins within
    /// [`AHEAD`].
    pub(super) fn early(&self, prefetch: usize, slots: usize) -> usize {
        let attempt_us = self.attempt_us.load(Ordering::Relaxed);
        if attempt_us == 0 {
            return 0;
        }
        let at_once = u64::try_from(self.limit().min(slots)).unwrap_or(u64::MAX);
        let ahead_us = u64::try_from(AHEAD.as_micros()).unwrap_or(u64::MAX);
        let begun = at_once.saturating_mul(ahead_us) / attempt_us;
        usize::try_from(begun).unwrap_or(usize::MAX).min(prefetch)
    }

    /// Notes how long an attempt took.
    pub(super) fn took(&self, duration: Duration) {
        let new_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1);
        let old_us = self.attempt_us.load(Ordering::Relaxed);
        // Two threads may overwrite one another: it stays a fair guess.
        let mean_us =
            if old_us == 0 { new_us } else { (old_us.saturating_mul(7).saturating_add(new_us) / 8).max(1) };
        self.attempt_us.store(mean_us, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic is done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn no_more_are_in_flight_than_the_limit_and_who_waited_first_enters_first() {
        let lane = Lane::new(2);
        let (first, second) = (lane.enter().now_or_never(), lane.enter().now_or_never());
        assert!(first.is_some() && second.is_some());
        let (mut third, mut fourth) = (Box::pin(lane.enter()), Box::pin(lane.enter()));
        assert!((&mut third).now_or_never().is_none() && (&mut fourth).now_or_never().is_none());
        assert_eq!(lane.in_flight(), 2);
        drop(first);
        assert!((&mut fourth).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_some());
    }

    #[test]
    fn a_limit_that_is_lowered_holds_as_soon_as_enough_have_ended() {
        let lane = Lane::new(3);
        let mut entered: Vec<_> = (0..3).filter_map(|_| lane.enter().now_or_never()).collect();
        lane.limit_to(1);
        entered.truncate(2);
        assert!(lane.enter().now_or_never().is_none());
        entered.truncate(1);
        assert!(lane.enter().now_or_never().is_none());
        entered.clear();
        assert_eq!(lane.in_flight(), 0);
        let alone = lane.enter().now_or_never();
        assert!(alone.is_some() && lane.enter().now_or_never().is_none());
        lane.limit_to(2);
        assert!(lane.enter().now_or_never().is_some());
    }

    #[test]
    fn only_short_attempts_are_leased_early() {
        let lane = Lane::new(10);
        let reserve = || lane.reserve(100, lane.early(50, 100));
        assert_eq!(reserve(), 10, "nothing is known of its attempts yet");
        assert_eq!(reserve(), 0);
        lane.give_back(10);
        lane.took(Duration::from_secs(15));
        assert_eq!(reserve(), 10, "slow ones are not leased early");
        lane.give_back(10);
        for _ in 0..200 {
            lane.took(Duration::from_millis(25));
        }
        assert_eq!(reserve(), 30, "two rounds of them fit the time ahead");
        lane.give_back(9);
        assert_eq!(reserve(), 0, "more than half of the early ones wait");
        lane.give_back(1);
        assert_eq!(reserve(), 10);
        assert_eq!((lane.early(50, 1), lane.early(7, 100)), (2, 7), "few slots and a low prefetch bound it");
    }
}
