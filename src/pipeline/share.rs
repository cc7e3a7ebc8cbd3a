//! A queue's share of this gateway: how many of its messages are in flight at once, over all threads (`delivery.concurrency_max`),
//! and how many begin in a span of time (`delivery.rate`).
//!
//! A share also says how many messages of its queue each thread may lease: its part of what may be in flight, the
//! threads that have no free slot left aside, and beyond that only what will begin within [`AHEAD`], judged by how long
//! its attempts take. So no thread takes the work of one that is idle, and a queue with slow receivers leases nothing
//! that would then wait.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::clock::Tick;
use crate::domain::format::Rate;
use crate::domain::queue::QueueName;
use crate::pipeline::batch::Held;
use crate::pipeline::mean;
use crate::pipeline::met::Met;
use crate::pipeline::pace::Pace;
use crate::pipeline::places::{Counts, Places};
use crate::store::QueueEntry;

/// How far ahead of its beginning a message may be leased.
const AHEAD: Duration = Duration::from_millis(50);

/// How soon a queue is looked at again whose rate is used up by messages that are leased.
const LOOK_MIN: Duration = Duration::from_millis(10);

/// How long a lease under way keeps other threads from asking for the same.
const LEASING: Duration = Duration::from_millis(20);

/// The shares of all queues. Clones share them; usable from any thread.
#[derive(Clone)]
pub struct Shares(Arc<Shared>);

struct Shared {
    by_queue: Mutex<HashMap<QueueName, Arc<Share>>>,
    threads: Vec<Arc<Held>>,
    slots: usize,
    made_at: Instant,
}

impl fmt::Debug for Shares {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shares")
            .field("queues", &lock(&self.0.by_queue).len())
            .finish_non_exhaustive()
    }
}

impl Shares {
    /// Shares over these threads, of so many slots each.
    pub(super) fn new(threads: Vec<Arc<Held>>, slots: usize) -> Self {
        Self(Arc::new(Shared { by_queue: Mutex::default(), threads, slots, made_at: Instant::now() }))
    }

    /// The share of a queue, with the limit that its settings say now.
    pub(super) fn of(&self, entry: &QueueEntry) -> Arc<Share> {
        let limit = entry.settings.delivery.concurrency_max as usize;
        let share = {
            let mut shares = lock(&self.0.by_queue);
            if !shares.contains_key(&entry.name) {
                shares.insert(entry.name.clone(), Arc::new(Share::new(limit, self.0.threads.len())));
            }
            shares[&entry.name].clone()
        };
        share.limit_to(limit);
        share.pace_to(entry.settings.delivery.rate);
        share
    }

    /// Threads among which the work is shared: those that have a free slot, and this one.
    pub(super) fn sharing(&self, thread: usize) -> usize {
        let shares = |held: &&Arc<Held>| held.thread == thread || held.messages() < self.0.slots;
        self.0.threads.iter().filter(shares).count().max(1)
    }

    /// Whether a lease of this queue is under way, begun a moment ago.
    pub(super) fn is_leasing(&self, queue: &QueueName) -> bool {
        let share = lock(&self.0.by_queue).get(queue).cloned();
        let begun_us = share.map_or(0, |share| share.leasing_since_us.load(Ordering::Acquire));
        begun_us != 0 && self.now_us().saturating_sub(begun_us) < micros(LEASING)
    }

    /// Notes that a lease is under way until the guard is dropped.
    pub(super) fn leasing(&self, share: &Arc<Share>) -> Leasing {
        share.leasing_since_us.store(self.now_us().max(1), Ordering::Release);
        Leasing(share.clone())
    }

    fn now_us(&self) -> u64 {
        micros(self.0.made_at.elapsed())
    }

    /// Forgets the shares of queues that are no more, once nothing of theirs is in flight.
    pub(super) fn keep(&self, is_known: impl Fn(&QueueName) -> bool) {
        lock(&self.0.by_queue).retain(|name, share| Arc::strong_count(share) > 1 || is_known(name));
    }

    /// How long the rate of a queue lets nothing begin; zero when it does.
    #[must_use]
    pub fn wait(&self, queue: &QueueName, now: Tick) -> Duration {
        let share = lock(&self.0.by_queue).get(queue).cloned();
        share.map_or(Duration::ZERO, |share| share.wait(now))
    }

    /// The lanes that messages of a queue wait for, of which nothing is delivered meanwhile: up to 64. None while it moves, and
    /// where nothing was put off.
    #[must_use]
    pub fn waits_for(&self, queue: &QueueName, now: Tick) -> Vec<Arc<str>> {
        let share = lock(&self.0.by_queue).get(queue).cloned();
        share.map_or_else(Vec::new, |share| share.met.waits_for(now, share.in_flight()))
    }
}

/// One queue's share.
pub(super) struct Share {
    // First come, first served, over all threads.
    permits: Semaphore,
    permits_made: Mutex<PermitsMade>,
    leased: AtomicUsize,
    pub(super) counts: Counts,
    /// The lanes that put its messages off.
    pub(super) met: Met,
    on_threads: Vec<OnThread>,
    /// When the latest lease under way was begun; 0 when none is.
    leasing_since_us: AtomicU64,
    /// How long an attempt takes, microseconds, as a moving mean; 0 until one has ended.
    attempt_us: AtomicU64,
    pace: Mutex<Option<Pace>>,
}

/// What a queue has on one thread. Only that thread writes it, and a line of memory of its own keeps the others from waiting for it.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct OnThread {
    leased: AtomicUsize,
    /// Attempts that have a slot or wait for one.
    present: AtomicUsize,
    /// Attempts that have a slot.
    in_slots: AtomicUsize,
}

impl OnThread {
    /// Messages leased whose attempts have not ended.
    pub(super) fn leased(&self) -> usize {
        self.leased.load(Ordering::Relaxed)
    }

    /// Attempts that have a slot.
    pub(super) fn in_slots(&self) -> usize {
        self.in_slots.load(Ordering::Relaxed)
    }

    /// Attempts that wait for a slot.
    pub(super) fn waiting(&self) -> usize {
        self.present.load(Ordering::Relaxed).saturating_sub(self.in_slots())
    }

    /// Whether it has none, neither in a slot nor waiting for one.
    pub(super) fn is_absent(&self) -> bool {
        self.present.load(Ordering::Relaxed) == 0
    }

    /// Notes that an attempt wants a slot; says whether it is the only one.
    pub(super) fn come(&self) -> bool {
        self.present.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Notes that an attempt neither has nor wants a slot any more; says whether it was the last one.
    pub(super) fn leave(&self) -> bool {
        self.present.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Notes that an attempt which had come has a slot.
    pub(super) fn begin(&self) {
        self.in_slots.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that an attempt has given up its slot.
    pub(super) fn end(&self) {
        self.in_slots.fetch_sub(1, Ordering::Relaxed);
    }
}

struct PermitsMade {
    limit: usize,
    /// Permits free or in use; more than `limit` after it was lowered, until enough are given back.
    count: usize,
}

/// A lease under way.
pub(super) struct Leasing(Arc<Share>);

impl Drop for Leasing {
    fn drop(&mut self) {
        // That of another thread may be under way still: then somebody asks once more than needed.
        self.0.leasing_since_us.store(0, Ordering::Release);
    }
}

/// The right to have one message in flight.
pub(super) struct InFlight<'l>(&'l Share);

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

impl Share {
    pub(super) fn new(limit: usize, threads: usize) -> Self {
        Self {
            permits: Semaphore::new(limit),
            permits_made: Mutex::new(PermitsMade { limit, count: limit }),
            leased: AtomicUsize::new(0),
            counts: Counts::default(),
            met: Met::default(),
            on_threads: (0..threads).map(|_| OnThread::default()).collect(),
            leasing_since_us: AtomicU64::new(0),
            attempt_us: AtomicU64::new(0),
            pace: Mutex::default(),
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

    fn pace_to(&self, rate: Option<Rate>) {
        let mut pace = lock(&self.pace);
        if pace.as_ref().map(Pace::rate) != rate {
            *pace = rate.map(Pace::new);
        }
    }

    /// Takes the next turn to begin, if it comes within that time; gives how long to wait for it.
    pub(super) fn take_turn(&self, now: Tick, most: Duration) -> Result<Duration, Duration> {
        lock(&self.pace).as_mut().map_or(Ok(Duration::ZERO), |pace| pace.take(now, most))
    }

    /// Gives a turn back that was of no use.
    pub(super) fn give_back_turn(&self) {
        if let Some(pace) = lock(&self.pace).as_mut() {
            pace.give_back();
        }
    }

    /// How many messages begin within [`AHEAD`] by the rate, those that are leased and have not begun aside; when none do, how long
    /// it takes until one does. `None` where there is no rate.
    pub(super) fn turns(&self, now: Tick) -> Option<Result<usize, Duration>> {
        let not_begun = self.leased.load(Ordering::Relaxed).saturating_sub(self.in_flight());
        let pace = lock(&self.pace);
        let pace = pace.as_ref()?;
        let turns = pace.turns(now, AHEAD).saturating_sub(not_begun);
        Some(if turns > 0 { Ok(turns) } else { Err(pace.wait(now).max(LOOK_MIN)) })
    }

    /// How its places are taken; those of who waits in hand are not yet.
    pub(super) fn places(&self) -> Places {
        let made = lock(&self.permits_made);
        let in_flight = made.count.saturating_sub(self.permits.available_permits());
        self.counts.places(made.limit, in_flight)
    }

    /// How long until the rate lets a message begin.
    pub(super) fn wait(&self, now: Tick) -> Duration {
        lock(&self.pace).as_ref().map_or(Duration::ZERO, |pace| pace.wait(now))
    }

    /// Waits for the right to have one more message in flight. Dropping the future gives up the place in the row.
    pub(super) async fn enter(&self) -> InFlight<'_> {
        let permit = self.permits.acquire().await.expect("this semaphore is never closed");
        permit.forget();
        InFlight(self)
    }

    pub(super) fn limit(&self) -> usize {
        lock(&self.permits_made).limit
    }

    /// Messages leased on all threads whose attempts have not ended, and those about to be leased.
    pub(super) fn leased(&self) -> usize {
        self.leased.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self) -> usize {
        lock(&self.permits_made).count.saturating_sub(self.permits.available_permits())
    }

    /// What the queue has on a thread.
    pub(super) fn on(&self, thread: usize) -> &OnThread {
        &self.on_threads[thread]
    }

    /// Takes the right to lease up to `wanted` messages on a thread, of them up to `early` before they may be in
    /// flight; gives how many. The thread is one of so many among which the work is shared, and has slots for
    /// `at_once` of them.
    ///
    /// While more than half of the early ones wait it gives 0: a lease of many costs little more than a lease of one.
    pub(super) fn reserve(
        &self,
        thread: usize,
        wanted: usize,
        early: usize,
        sharing: usize,
        at_once: usize,
    ) -> usize {
        let limit = self.limit();
        let share = limit.div_ceil(sharing).min(at_once);
        // Only this thread adds to its own count, so nothing comes between.
        let own = self.on(thread).leased();
        if own.saturating_sub(share) > early / 2 {
            return 0;
        }
        let wanted = wanted.min((share + early).saturating_sub(own));
        let most = limit + early * sharing;
        let mut count = 0;
        let reserve = |leased: usize| {
            count = most.saturating_sub(leased).min(wanted);
            (count > 0).then_some(leased + count)
        };
        if self.leased.fetch_update(Ordering::AcqRel, Ordering::Acquire, reserve).is_err() {
            return 0;
        }
        self.on(thread).leased.fetch_add(count, Ordering::AcqRel);
        count
    }

    /// Takes the right to lease so many, whatever is leased already; gives the same number.
    pub(super) fn reserve_anyway(&self, thread: usize, count: usize) -> usize {
        self.leased.fetch_add(count, Ordering::AcqRel);
        self.on(thread).leased.fetch_add(count, Ordering::AcqRel);
        count
    }

    /// Gives back the right to lease so many: unused, or because those messages' attempts have ended.
    pub(super) fn give_back(&self, thread: usize, count: usize) {
        self.leased.fetch_sub(count, Ordering::AcqRel);
        self.on(thread).leased.fetch_sub(count, Ordering::AcqRel);
    }

    /// Messages worth leasing before they may be in flight: those that one of so many threads, with so many slots,
    /// begins within [`AHEAD`].
    pub(super) fn early(&self, prefetch: usize, slots: usize, sharing: usize) -> usize {
        let attempt_us = self.attempt_us.load(Ordering::Relaxed);
        if attempt_us == 0 {
            return 0;
        }
        let at_once = u64::try_from(self.limit().div_ceil(sharing).min(slots)).unwrap_or(u64::MAX);
        let begun = at_once.saturating_mul(micros(AHEAD)) / attempt_us;
        usize::try_from(begun).unwrap_or(usize::MAX).min(prefetch)
    }

    /// Notes how long an attempt took.
    pub(super) fn took(&self, duration: Duration) {
        // Two threads may overwrite one another: it stays a fair guess.
        let mean_us = mean::with(self.attempt_us.load(Ordering::Relaxed), duration);
        self.attempt_us.store(mean_us, Ordering::Relaxed);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
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
        let share = Share::new(2, 1);
        let (first, second) = (share.enter().now_or_never(), share.enter().now_or_never());
        assert!(first.is_some() && second.is_some());
        let (mut third, mut fourth) = (Box::pin(share.enter()), Box::pin(share.enter()));
        assert!((&mut third).now_or_never().is_none() && (&mut fourth).now_or_never().is_none());
        assert_eq!(share.in_flight(), 2);
        drop(first);
        assert!((&mut fourth).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_some());
    }

    #[test]
    fn a_limit_that_is_lowered_holds_as_soon_as_enough_have_ended() {
        let share = Share::new(3, 1);
        let mut entered: Vec<_> = (0..3).filter_map(|_| share.enter().now_or_never()).collect();
        share.limit_to(1);
        entered.truncate(2);
        assert!(share.enter().now_or_never().is_none());
        entered.truncate(1);
        assert!(share.enter().now_or_never().is_none());
        entered.clear();
        assert_eq!(share.in_flight(), 0);
        let alone = share.enter().now_or_never();
        assert!(alone.is_some() && share.enter().now_or_never().is_none());
        share.limit_to(2);
        assert!(share.enter().now_or_never().is_some());
    }

    #[test]
    fn only_short_attempts_are_leased_early() {
        let share = Share::new(10, 1);
        let reserve = || share.reserve(0, 100, share.early(50, 100, 1), 1, 100);
        assert_eq!(reserve(), 10, "nothing is known of its attempts yet");
        assert_eq!(reserve(), 0);
        share.give_back(0, 10);
        share.took(Duration::from_secs(15));
        assert_eq!(reserve(), 10, "slow ones are not leased early");
        share.give_back(0, 10);
        for _ in 0..200 {
            share.took(Duration::from_millis(25));
        }
        assert_eq!(reserve(), 30, "two rounds of them fit the time ahead");
        share.give_back(0, 9);
        assert_eq!(reserve(), 0, "more than half of the early ones wait");
        share.give_back(0, 1);
        assert_eq!(reserve(), 10);
        assert_eq!(
            (share.early(50, 1, 1), share.early(7, 100, 1)),
            (2, 7),
            "few slots and a low prefetch bound it"
        );
    }

    #[test]
    fn no_more_are_leased_than_the_thread_has_slots_for() {
        let share = Share::new(10, 1);
        assert_eq!([4, 4, 6, 20].map(|at_once| share.reserve(0, 100, 0, 1, at_once)), [4, 0, 2, 4]);
        assert_eq!(share.on(0).leased(), 10);
    }

    #[test]
    fn threads_share_a_share_and_one_that_is_alone_has_all_of_it() {
        let share = Share::new(9, 2);
        assert_eq!((share.reserve(0, 100, 0, 2, 9), share.reserve(0, 100, 0, 2, 9)), (5, 0));
        assert_eq!(share.reserve(1, 100, 0, 2, 9), 4, "the rest, although its share is larger");
        share.give_back(1, 4);
        assert_eq!(share.reserve(0, 100, 0, 1, 9), 4, "the other one is full");
    }
}
